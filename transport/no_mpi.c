/* In the place of mpi.c, network.c and verbs*.c where hearth is built without MPI: there are no ranks but those of one
 * process (inproc.c). */
#include "base/log.h"
#include "transport/network.h"

static status refuse(void)
{
    log_error("this hearth was built without MPI: its ranks are threads of one process");
    return ST_UNSUPPORTED;
}

status transport_mpi_open(const struct transport_config *c, struct transport **out)
{
    (void)c;
    (void)out;
    return refuse();
}

status transport_network_open(const struct transport_config *c, const struct network_options *o,
                              struct transport **out)
{
    (void)c;
    (void)o;
    (void)out;
    return refuse();
}

status transport_mpi_world(int *rank, int *n_ranks)
{
    *rank = *n_ranks = 0;
    return ST_OK;
}

void transport_mpi_finish(void) {}

void transport_mpi_name(char *out, size_t n)
{
    if (n)
        *out = '\0';
}
