/* A rank of an older release, as far as others see it before they send it home: it says who it is, or as rank 0 hears
 * who they are; with an argument it is rank 0 of a build that told of its GPUs first. Ends with status 2, as hearth
 * does. */
#include <stdlib.h>

#include "node/roll_call.h"
#include "placement/plan.h"
#include "transport/deliver.h"
#include "transport/network.h"
#include "wire/channels.h"
#include "worker/worker.h"

static void end_job(void) { _Exit(2); }

/* It waits for what the others' GPUs are, which they have not told by then. */
static status tell_first(struct transport *t)
{
    static _Alignas(TRANSPORT_ALIGN) uint8_t none[4];
    struct arrival a;
    bool found = false;
    status st = deliver_all(t, WIRE_GPUS, none, sizeof none);
    while (!st && !found)
        st = transport_poll(t, 1u << WIRE_GPUS, &a, &found);
    return st == ST_PEER ? ST_MISMATCH : st;
}

int main(int argc, char **argv)
{
    (void)argv;
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
        st = argc > 1 ? tell_first(t) : t->rank == 0 ? roll_call(t, &own, hellos) : worker_join(t, &own);
    transport_close(t);
    transport_mpi_finish();
    return st == ST_MISMATCH ? 2 : 1;
}
