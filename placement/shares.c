/* How much of a model each rank gets so that all need as long for theirs, or one after the other the least. */
#include <math.h>
#include <string.h>

#include "placement/gpu_benefit.h"
#include "placement/parts.h"

/* A rank's memories: bytes, and bytes per ms. */
struct memories {
    double gpu, gpu_speed, cpu, cpu_speed;
};

static double memory_of(const struct probe *p, const struct cost_model *m, const bool *used, int rank)
{
    int beside = 0; /* ranks that it shares its machine's memory with, itself too */
    for (int r = 0; r < p->n_ranks; r++)
        beside += used[r] && probe_same_machine(&p->ranks[r], &p->ranks[rank]);
    const double own = (double)p->ranks[rank].memory_bytes / (beside ? beside : 1);
    return m->ram_budget ? fmin(own, (double)m->ram_budget) : own;
}

static void list_memories(const struct probe *p, const struct cost_model *m, const bool *used, struct memories *out)
{
    double gb_per_s[PLAN_MAX_RANKS];
    cost_bandwidths(p, used, gb_per_s);
    for (int r = 0; r < p->n_ranks; r++) {
        const struct probe_gpu *g = used[r] && m->gpus ? gpu_benefit_gpu(p, r) : NULL;
        out[r] = (struct memories){0};
        if (used[r])
            out[r] = (struct memories){g ? gpu_benefit_room(m, g) : 0, g ? g->read_gb_per_s * 1e6 : 1,
                                       memory_of(p, m, used, r), gb_per_s[r] * 1e6};
    }
}

static double model_bytes(const struct cost_model *m)
{
    const struct hparams *hp = &m->model->hp;
    double sum = weight_of_rows(m, 1).held;
    for (int l = 0; l < hp->n_layers; l++) {
        const struct neuron_range all = {0, (int32_t)model_layer_neurons(m->model, l)};
        sum += weight_of_heads(m, l, 1).held + weight_of_neurons(m, l, all, true).held;
    }
    return sum;
}

/* What a rank reads in so many ms: of its memories at the same time, or of its GPU's first. */
static double read_in(const struct memories *r, double ms, bool one_by_one)
{
    const double gpu = fmin(r->gpu, ms * r->gpu_speed);
    const double left = one_by_one ? fmax(0, ms - r->gpu / r->gpu_speed) : ms;
    return gpu + fmin(r->cpu, left * r->cpu_speed);
}

/* The time after which all together have read all, by bisection; shares are what each has read then. */
static void fill_level(const struct memories *ranks, int n, double bytes, bool one_by_one, double *shares)
{
    enum { STEPS = 60 };
    double low = 0, high = 0;
    for (int r = 0; r < n; r++)
        high = fmax(high, ranks[r].gpu / ranks[r].gpu_speed + ranks[r].cpu / fmax(ranks[r].cpu_speed, 1));
    for (int i = 0; i < STEPS; i++) {
        const double ms = (low + high) / 2;
        double sum = 0;
        for (int r = 0; r < n; r++)
            sum += read_in(&ranks[r], ms, one_by_one);
        *(sum < bytes ? &low : &high) = ms;
    }
    for (int r = 0; r < n; r++)
        shares[r] = read_in(&ranks[r], high, one_by_one);
}

/* The fastest memory first, whosever it is. */
static void fill_fastest(const struct memories *ranks, int n, double bytes, double *shares)
{
    bool full[PLAN_MAX_RANKS][2] = {{false}};
    memset(shares, 0, (size_t)n * sizeof *shares);
    while (bytes > 0) {
        double most = 0, room = 0;
        int best = -1, which = 0;
        for (int i = 0; i < 2 * n; i++) {
            const struct memories *r = &ranks[i / 2];
            const double speed = i % 2 ? r->cpu_speed : r->gpu_speed, size = i % 2 ? r->cpu : r->gpu;
            if (!full[i / 2][i % 2] && size > 0 && speed > most) {
                most = speed;
                room = size;
                best = i / 2;
                which = i % 2;
            }
        }
        if (best < 0)
            return;
        full[best][which] = true;
        shares[best] += fmin(room, bytes);
        bytes -= room;
    }
}

bool cost_shares(const struct probe *p, const struct cost_model *m, const bool *used, enum cost_filling how,
                 double *shares)
{
    struct memories ranks[PLAN_MAX_RANKS];
    double gpus = 0, sum = 0;
    list_memories(p, m, used, ranks);
    for (int r = 0; r < p->n_ranks; r++)
        gpus += ranks[r].gpu;
    if (how == FILL_BY_CPUS) {
        for (int r = 0; r < p->n_ranks; r++)
            shares[r] = used[r] ? ranks[r].cpu_speed / 1e6 : 0;
        return true;
    }
    if (gpus <= 0)
        return false;
    if (how == FILL_FASTEST)
        fill_fastest(ranks, p->n_ranks, model_bytes(m), shares);
    else
        fill_level(ranks, p->n_ranks, model_bytes(m), how == FILL_ONE_BY_ONE, shares);
    for (int r = 0; r < p->n_ranks; r++)
        sum += shares[r];
    return sum > 0;
}
