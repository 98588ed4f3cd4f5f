#include "transport/network.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* What a rank tells the others about its device. */
struct answer {
    int32_t state; /* status */
    char why[252];
};

/* What became of verbs on all ranks together, the same on each but for the wording. */
struct outcome {
    status state;          /* ST_OK: connected */
    bool interesting;      /* some rank has a device */
    char why[LOG_LINE_MAX]; /* names the rank */
};

/* Asks all ranks whether they opened a device. */
static status compare(const struct verbs_gather *g, int n_ranks, status own, const char *why, struct outcome *o)
{
    struct answer mine = {.state = (int32_t)own}, *all = calloc((size_t)n_ranks, sizeof *all);
    if (!all) {
        log_error("no memory for the answers of %d ranks", n_ranks);
        return ST_NOMEM;
    }
    snprintf(mine.why, sizeof mine.why, "%.251s", why);
    status st = g->gather(g->arg, &mine, sizeof mine, all);
    for (int r = 0; r < n_ranks && !st; r++) {
        o->interesting = o->interesting || all[r].state == ST_OK;
        if (all[r].state == ST_OK || o->state)
            continue;
        o->state = (status)all[r].state;
        snprintf(o->why, sizeof o->why, "rank %d: %.*s", r, (int)sizeof all[r].why, all[r].why);
    }
    free(all);
    return st;
}

/* Tries verbs; what goes wrong is caught, not logged. Errors are those of meeting the others at all. */
static status try_verbs(const struct transport_config *c, const struct verbs_options *options, int rank, int n_ranks,
                        struct outcome *o, struct transport **out)
{
    const struct verbs_gather gather = {transport_mpi_gather, NULL};
    struct log_catcher errors;
    struct transport *t = NULL;
    log_catch(&errors);
    status opened = transport_verbs_open(c, options, rank, n_ranks, &gather, &t);
    log_catch(NULL);
    status st = compare(&gather, n_ranks, opened, opened ? errors.first_error : "", o);
    if (!st && !o->state) {
        log_catch(&errors);
        o->state = transport_connect(t);
        log_catch(NULL);
        snprintf(o->why, sizeof o->why, "%s", errors.first_error);
    }
    if (st || o->state)
        transport_close(t);
    else
        *out = t;
    return st;
}

/* Falls back to MPI, or was told to use it. */
static status open_mpi(const struct transport_config *c, const struct network_options *o, const struct outcome *verbs,
                       struct transport **out)
{
    status st = transport_mpi_open(c, out);
    if (!st && (*out)->rank == 0 && (*out)->n_ranks > 1 && !o->quiet)
        log_info("messages go over MPI%s%s", verbs->interesting ? ", for RDMA cannot be used: " : "",
                 verbs->interesting ? verbs->why : "");
    return st;
}

status transport_network_open(const struct transport_config *c, const struct network_options *o,
                              struct transport **out)
{
    struct outcome verbs = {0};
    int rank, n_ranks;
    if (o->kind == NETWORK_MPI)
        return open_mpi(c, o, &verbs, out);
    status st = transport_mpi_world(&rank, &n_ranks);
    if (!st)
        st = try_verbs(c, &o->verbs, rank, n_ranks, &verbs, out);
    if (st)
        return st;
    if (!verbs.state) {
        if (rank == 0 && !o->quiet)
            log_info("messages go over RDMA: %s", transport_verbs_port(*out));
        return ST_OK;
    }
    if (o->kind == NETWORK_VERBS || verbs.state == ST_USAGE) {
        if (rank == 0)
            log_error("%s", verbs.why);
        return verbs.state == ST_USAGE ? ST_USAGE : ST_UNSUPPORTED;
    }
    return open_mpi(c, o, &verbs, out);
}
