/* A probe's memory, and what is asked of it. */
#include "placement/probe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

status probe_create(int n_ranks, int n_transports, struct probe **out)
{
    struct probe *p = calloc(1, sizeof *p);
    if (!p)
        goto err;
    p->n_ranks = n_ranks;
    p->n_transports = n_transports;
    p->ranks = calloc((size_t)n_ranks, sizeof *p->ranks);
    if (!p->ranks)
        goto err;
    for (int t = 0; t < n_transports; t++) {
        p->transports[t].links = calloc((size_t)n_ranks * (size_t)n_ranks, sizeof *p->transports[t].links);
        if (!p->transports[t].links)
            goto err;
    }
    *out = p;
    return ST_OK;
err:
    log_error("no memory for a probe of %d ranks", n_ranks);
    probe_free(p);
    return ST_NOMEM;
}

void probe_free(struct probe *p)
{
    if (!p)
        return;
    for (int t = 0; t < PROBE_MAX_TRANSPORTS; t++)
        free(p->transports[t].links);
    free(p->ranks);
    free(p);
}

bool probe_same_machine(const struct probe_rank *a, const struct probe_rank *b)
{
    return a->boot_id[0] && b->boot_id[0] ? strcmp(a->boot_id, b->boot_id) == 0 : strcmp(a->host, b->host) == 0;
}

bool probe_same_host(const struct probe_rank *a, const struct probe_rank *b)
{
    return strcmp(a->host, b->host) == 0 && probe_same_machine(a, b);
}

int probe_curve_points(int threads)
{
    int n = 1;
    while (1 << (n - 1) < threads)
        n++;
    return n;
}

int probe_curve_threads(int threads, int i)
{
    return 1 << i < threads ? 1 << i : threads;
}

static bool gpu_possible(const struct probe_gpu *g)
{
    const double measured[] = {g->read_gb_per_s, g->up_gb_per_s, g->down_gb_per_s, g->launch_us, g->wait_us};
    bool possible = g->memory_bytes >= 1 && g->memory_bytes <= INT64_MAX;
    for (size_t i = 0; i < sizeof measured / sizeof *measured && possible; i++)
        possible = measured[i] > 0 && measured[i] <= PROBE_MOST;
    return possible;
}

bool probe_rank_possible(const struct probe_rank *r)
{
    if (r->n_gpus < 0 || r->n_gpus > PROBE_MAX_GPUS)
        return false;
    for (int i = 0; i < r->n_gpus; i++)
        if (!gpu_possible(&r->gpus[i]))
            return false;
    return r->cores >= 1 && r->cores <= PROBE_MAX_CORES && r->threads >= 1 && r->threads <= PROBE_MAX_CORES &&
           r->n_curve == probe_curve_points(r->threads);
}

status probe_check(const struct probe *p, const char *where, int n_ranks)
{
    if (p->n_ranks == n_ranks)
        return ST_OK;
    log_error("%s: measured with %d ranks, but there are %d: run `hearth probe` as the model will run", where,
              p->n_ranks, n_ranks);
    return ST_MISMATCH;
}

int probe_transport(const struct probe *p, const char *name)
{
    int best = -1;
    double best_us = INFINITY;
    for (int t = 0; t < p->n_transports; t++) {
        double slowest = 0;
        if (name && strcmp(p->transports[t].name, name) == 0)
            return t;
        for (int i = 0; i < p->n_ranks * p->n_ranks; i++)
            slowest = fmax(slowest, p->transports[t].links[i].us[0]);
        if (slowest < best_us) {
            best = t;
            best_us = slowest;
        }
    }
    return best;
}

double probe_message_us(const struct probe *p, int transport, int from, int to, int64_t bytes)
{
    if (from == to) /* of one rank there is no transport */
        return 0;
    const struct probe_link *link = &p->transports[transport].links[from * p->n_ranks + to];
    const int last = p->n_sizes - 1;
    int i = 0;
    if (bytes <= p->sizes[0])
        return link->us[0];
    if (bytes >= p->sizes[last])
        return link->us[last] + (double)(bytes - p->sizes[last]) / (link->gb_per_s * 1e3);
    while (bytes > p->sizes[i + 1])
        i++;
    double part = (double)(bytes - p->sizes[i]) / (double)(p->sizes[i + 1] - p->sizes[i]);
    return link->us[i] + part * (link->us[i + 1] - link->us[i]);
}
