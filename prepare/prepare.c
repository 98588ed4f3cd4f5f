#include <stdlib.h>
#include "base/clock.h"
#include "prepare/inside.h"

status prepare(const struct prepare_options *o, const struct launch *launch)
{
    struct prepare p = {.o = o, .launch = launch, .linked = launch->mpi, .started_s = clock_s()};
    status st = p.linked ? link_open(o->cluster.end_job, &p.link) : ST_OK;
    if (!st)
        st = launch->rank == 0 ? prepare_lead(&p) : prepare_follow(&p);
    link_close(p.link);
    free(p.part_path);
    free(p.neurons);
    model_free(p.model);
    return st;
}
