#include "node/topology.h"

#include <stdlib.h>
#include <unistd.h>
#include "base/log.h"
#include "base/machine.h"
#include "node/cores.h"

struct topology {
    struct cores *cores;
    double quota; /* processors' worth of time, 0: as many as there are */
};

status topology_open(const char *synthetic, struct topology **out)
{
    struct topology *t = calloc(1, sizeof *t);
    if (!t) {
        log_error("no memory for the machine's topology");
        return ST_NOMEM;
    }
    status st = cores_open(synthetic, &t->cores);
    if (st) {
        free(t);
        return st;
    }
    if (!synthetic) {
        struct machine m;
        machine_read("", &m);
        t->quota = m.cpus;
    }
    *out = t;
    return ST_OK;
}

void topology_set_quota(struct topology *t, double cpus) { t->quota = cpus; }

void topology_close(struct topology *t)
{
    if (!t)
        return;
    cores_close(t->cores);
    free(t);
}

int topology_cores(const struct topology *t) { return cores_physical(t->cores); }
int topology_nodes(const struct topology *t) { return cores_nodes(t->cores); }

int topology_node_of(const struct topology *t, int rank, int n_ranks)
{
    int nodes = topology_nodes(t);
    if (nodes < 2 || n_ranks % nodes != 0)
        return -1;
    return rank / (n_ranks / nodes);
}

/* A quota is all ranks' together, processors that a launcher has dealt out are not. */
static double share_of(const struct topology *t, int processors, int n_ranks, bool bound)
{
    const double share = (double)processors / (bound ? 1 : n_ranks);
    return t->quota > 0 && t->quota / n_ranks < share ? t->quota / n_ranks : share;
}

int topology_threads(const struct topology *t, int n_ranks, bool bound)
{
    int threads = (int)share_of(t, topology_cores(t), n_ranks, bound);
    return threads > 0 ? threads : 1;
}

double topology_most_threads(const struct topology *t, int n_ranks, bool bound)
{
    return share_of(t, cores_processors(t->cores), n_ranks, bound);
}

/* mpirun binds every rank of a small job to one core unless told otherwise. */
static void warn_of_too_many(const struct topology *t, const struct launch *launch, int inner_ranks, int threads)
{
    const int n_ranks = launch->local_ranks * inner_ranks;
    const double most = topology_most_threads(t, n_ranks, launch->bound);
    char host[64] = "";
    if (launch->local_rank != 0 || threads <= most || n_ranks * threads == 1)
        return;
    (void)gethostname(host, sizeof host - 1);
    if (launch->bound)
        log_warn("%s: %d threads on the %.3g processor(s) that a rank is bound to take turns and are slower (-t sets "
                 "how many; mpirun --bind-to none, or srun --cpu-bind=none, gives all)", host, threads, most);
    else
        log_warn("%s: %d threads (%d a rank) on %.3g processor(s) take turns and are slower (-t sets how many a rank)",
                 host, n_ranks * threads, threads, most * n_ranks);
}

void topology_settle(const struct launch *launch, int inner_ranks, int *threads)
{
    struct topology *t;
    if (topology_open(NULL, &t) != ST_OK) {
        if (*threads == 0)
            *threads = 1;
        return;
    }
    if (*threads == 0)
        *threads = topology_threads(t, launch->local_ranks * inner_ranks, launch->bound);
    warn_of_too_many(t, launch, inner_ranks, *threads);
    int node = topology_node_of(t, launch->local_rank, launch->local_ranks);
    if (node >= 0 && !launch->bound)
        cores_bind(t->cores, node);
    topology_close(t);
}

int topology_usual_threads(const struct launch *launch, int n_ranks)
{
    struct topology *t;
    if (topology_open(NULL, &t) != ST_OK)
        return 1;
    int threads = topology_threads(t, launch->local_ranks * n_ranks, launch->bound);
    topology_close(t);
    return threads;
}
