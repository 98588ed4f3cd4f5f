/* A rank of an older release, as far as others see it before they send it home: it says who it is, or as rank 0 hears who
 * they are. Ends with status 2, as hearth does. */
#include <stdlib.h>

#include "node/roll_call.h"
#include "placement/plan.h"
#include "transport/network.h"
#include "wire/channels.h"
#include "worker/worker.h"

static void end_job(void) { _Exit(2); }

int main(void)
{
    const struct wire_hello own = {.version = 7, .release = "0.0.9"};
    const struct network_options network = {.quiet = true};
    struct transport_config config = {.end_job = end_job};
    struct wire_hello hellos[PLAN_MAX_RANKS];
    struct transport *t;
    wire_channels(config.channel, TRANSPORT_KINDS);
    status st = transport_network_open(&config, &network, &t);
    if (st)
        return 1;
    st = transport_connect(t);
    if (!st)
        st = t->rank == 0 ? roll_call(t, &own, hellos) : worker_join(t, &own);
    transport_close(t);
    transport_mpi_finish();
    return st == ST_MISMATCH ? 2 : 1;
}
