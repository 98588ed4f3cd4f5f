#include "placement/cost.h"

#include <math.h>
#include <string.h>

#include "placement/parts.h"

enum {
    HEADER_BYTES = 64,
    PAIR_BYTES = 8 /* of an activation and its index */
};

double cost_ms(const struct cost *c)
{
    return c->compute_ms + c->wire_ms;
}

void cost_bandwidths(const struct probe *p, const bool *used, double *gb_per_s)
{
    for (int r = 0; r < p->n_ranks; r++) {
        bool shared = false;
        for (int other = 0; other < p->n_ranks; other++)
            shared |= other != r && used[other] && probe_same_host(&p->ranks[other], &p->ranks[r]);
        gb_per_s[r] = shared ? p->ranks[r].shared_gb_per_s : p->ranks[r].curve[p->ranks[r].n_curve - 1];
    }
}

/* What one estimate knows. */
struct estimate {
    const struct probe *p;
    const struct cost_model *m;
    const struct plan *plan;
    int transport;
    bool used[PLAN_MAX_RANKS];        /* ranks that take part */
    double bandwidth[PLAN_MAX_RANKS]; /* of CPUs, bytes per ms */
    const struct probe_gpu *gpus[PLAN_MAX_HOLDERS]; /* NULL: it computes as its rank's CPU */
    double *busy;                     /* [n_holders] ms that each computes; NULL: not asked */
    int ffns_end[PLAN_MAX_LAYERS];    /* the layer after those whose FFNs are like a layer's */
    int times;                        /* blocks that are like the one that is estimated, itself too */
    struct cost cost;
};

/* Work of one block over several ranks. */
struct block {
    int home, layer;
    enum plan_part part;
    bool has[PLAN_MAX_RANKS];          /* it has a part, for which it needs */
    double ms[PLAN_MAX_RANKS];
    int64_t reply_bytes[PLAN_MAX_RANKS];
    int64_t x_bytes;                   /* 0: nobody is asked, all have x */
};

/* ---- what ranks compute ---- */

/* The GPU on which a rank has x; NULL: its CPU has it, or it is asked by another. */
static const struct probe_gpu *gpu_of_x(const struct estimate *e, int home, int rank)
{
    const bool has_x = rank == home || (e->plan->residual_all && e->used[rank]);
    return has_x ? e->gpus[plan_home(e->plan, rank)] : NULL;
}

static double read_of(const struct estimate *e, const struct block *b, int holder)
{
    const struct neuron_range *ranges;
    double read = 0;
    if (b->part == PLAN_HEADS)
        return weight_of_heads(e->m, b->layer, heads_share(e->m, e->plan, b->layer, holder)).read;
    if (b->part == PLAN_ROWS)
        return weight_of_rows(e->m, rows_share(e->m, e->plan, holder)).read;
    const bool down = !plan_down_at_stage(e->plan, b->layer) || plan_holder_rank(e->plan, holder) == b->home;
    for (int i = plan_neurons(e->plan, b->layer, holder, &ranges); i > 0; i--)
        read += weight_of_neurons(e->m, b->layer, ranges[i - 1], down).read;
    return read;
}

double cost_read_bytes(const struct model *m, const struct plan *p, int holder, double tokens)
{
    const struct cost_model weights = {.model = m, .tokens = tokens}; /* alone, and of all neurons */
    const struct estimate e = {.m = &weights, .plan = p};
    struct block b = {.part = PLAN_ROWS};
    double sum = read_of(&e, &b, holder);
    for (b.layer = 0; b.layer < p->model.n_layers; b.layer++) {
        b.home = p->layers[b.layer].stage;
        b.part = PLAN_HEADS;
        sum += read_of(&e, &b, holder);
        b.part = PLAN_NEURONS;
        sum += read_of(&e, &b, holder);
    }
    return sum;
}

/* The rank's part of a block: its CPUs read one memory, and each of its GPUs its own, at the same time. */
static void compute(struct estimate *e, struct block *b, int rank)
{
    static const int kernels[] = {
        [PLAN_HEADS] = ATTENTION_KERNELS, [PLAN_NEURONS] = FFN_KERNELS, [PLAN_ROWS] = OUTPUT_KERNELS};
    const struct probe_gpu *x = gpu_of_x(e, b->home, rank);
    struct part cpu = {.x_on_gpu = x};
    for (int h = rank; h < e->plan->n_holders; h = h < e->plan->n_ranks ? e->plan->n_ranks : h + 1) {
        const double read = plan_holder_rank(e->plan, h) == rank ? read_of(e, b, h) : 0;
        const struct part gpu = {.gpu_bytes = e->gpus[h] ? read : 0, .kernels = kernels[b->part],
                                 .x_on_gpu = x && e->gpus[h] == x};
        const double ms = part_ms(e->m, e->gpus[h], e->bandwidth[rank], &gpu);
        cpu.cpu_bytes += read - gpu.gpu_bytes;
        b->ms[rank] = fmax(b->ms[rank], ms);
        b->has[rank] |= read > 0;
        if (e->busy)
            e->busy[h] += e->times * (e->gpus[h] ? ms : read / e->bandwidth[rank]);
    }
    b->ms[rank] = fmax(b->ms[rank], part_ms(e->m, x, e->bandwidth[rank], &cpu));
}

/* ---- what travels ---- */

/* Of two different ranks: one alone has no link, and no transport. */
static const struct probe_link *link_of(const struct estimate *e, int from, int to)
{
    return &e->p->transports[e->transport].links[from * e->p->n_ranks + to];
}

/* The time of the messages between the home and all owners. */
static double wire_ms(const struct estimate *e, const struct block *b)
{
    double slowest_us = 0, others_us = 0, slowest_own_us = 0;
    for (int r = 0; r < e->plan->n_ranks; r++) {
        if (r == b->home || !b->has[r])
            continue;
        const double out = link_of(e, b->home, r)->gb_per_s, in = link_of(e, r, b->home)->gb_per_s;
        double us = probe_message_us(e->p, e->transport, r, b->home, b->reply_bytes[r]);
        double own_us = (double)b->x_bytes / (out * 1e3) + (double)b->reply_bytes[r] / (in * 1e3);
        us += b->x_bytes ? probe_message_us(e->p, e->transport, b->home, r, b->x_bytes) : 0;
        others_us += own_us;
        if (us > slowest_us) {
            slowest_us = us;
            slowest_own_us = own_us;
        }
    }
    return (slowest_us + others_us - slowest_own_us) / 1e3;
}

/* Between a GPU that has x and its host, where other ranks have parts too. */
static double lift_ms(const struct estimate *e, const struct block *b, int rank)
{
    const struct probe_gpu *x = gpu_of_x(e, b->home, rank);
    bool others = false;
    for (int r = 0; r < e->plan->n_ranks; r++)
        others |= r != rank && b->has[r];
    return x && others ? round_ms(e->m, x, false) : 0;
}

static void add_block(struct estimate *e, const struct block *b)
{
    const double own = b->ms[b->home];
    double slowest = 0;
    for (int r = 0; r < e->plan->n_ranks; r++)
        if (r != b->home)
            slowest = fmax(slowest, b->ms[r]);
    const double wire = lift_ms(e, b, b->home) + wire_ms(e, b);
    const double computed = fmax(own, slowest), all = fmax(own, slowest > 0 ? wire + slowest : 0);
    e->cost.compute_ms += e->times * computed;
    e->cost.wire_ms += e->times * (all - computed);
}

/* A block whose sums all ranks need: as slow as it is for the rank that hears the others last. */
static void add_shared(struct estimate *e, struct block *b)
{
    struct block from = *b;
    double computed = 0, wire = 0;
    from.x_bytes = 0;
    for (int r = 0; r < e->plan->n_ranks; r++) {
        computed = fmax(computed, b->ms[r]);
        from.home = r;
        if (e->used[r])
            wire = fmax(wire, lift_ms(e, b, r) + wire_ms(e, &from));
    }
    e->cost.compute_ms += e->times * computed;
    e->cost.wire_ms += e->times * wire;
}

static void add_part(struct estimate *e, struct block *b)
{
    if (e->plan->residual_all)
        add_shared(e, b);
    else
        add_block(e, b);
}

/* Of what every token has so many bytes. */
static int64_t step_bytes(const struct estimate *e, int64_t bytes)
{
    return (int64_t)step_tokens(e->m) * bytes;
}

static void add_attention(struct estimate *e, int layer)
{
    struct block b = {.home = e->plan->layers[layer].stage, .layer = layer, .part = PLAN_HEADS,
                      .x_bytes = step_bytes(e, cost_x_bytes(e->m->model))};
    for (int r = 0; r < e->plan->n_ranks; r++) {
        compute(e, &b, r);
        b.reply_bytes[r] = step_bytes(e, cost_sum_bytes(e->m->model));
    }
    add_part(e, &b);
}

/* What a rank's neurons of a layer answer with where their down projections are on the stage, which projects it. */
static void add_guests(struct estimate *e, struct block *b, int rank)
{
    const struct probe_gpu *home = e->gpus[plan_home(e->plan, b->home)];
    double fire = 0, down = 0;
    for (int h = 0; h < e->plan->n_holders; h++) {
        const struct neuron_range *ranges;
        for (int i = plan_neurons(e->plan, b->layer, h, &ranges); i > 0 && plan_holder_rank(e->plan, h) == rank; i--) {
            fire += neurons_that_fire(e->m, b->layer, ranges[i - 1]);
            down += weight_of_down(e->m, b->layer, ranges[i - 1]);
        }
    }
    b->reply_bytes[rank] = HEADER_BYTES + (int64_t)(PAIR_BYTES * fire);
    if (rank != b->home)
        e->cost.compute_ms += e->times * down / (home ? home->read_gb_per_s * 1e6 : e->bandwidth[b->home]);
}

/* Layers that follow each other, whose neurons are alike and lie alike, are estimated at once: a model may have a
 * hundred layers of hundreds of experts, and many plans are compared. */
static void find_alike(struct estimate *e)
{
    const int n = e->plan->model.n_layers;
    for (int l = n - 1; l >= 0; l--) {
        const struct plan_layer *a = &e->plan->layers[l], *b = a + 1;
        const bool alike = l + 1 < n && a->stage == b->stage && a->first_set == b->first_set &&
                           a->n_sets == b->n_sets && a->down_at_stage == b->down_at_stage &&
                           neurons_weigh_alike(e->m, l, l + 1);
        e->ffns_end[l] = alike ? e->ffns_end[l + 1] : l + 1;
    }
}

static void add_ffn(struct estimate *e, int layer)
{
    struct block b = {.home = e->plan->layers[layer].stage, .layer = layer, .part = PLAN_NEURONS,
                      .x_bytes = step_bytes(e, cost_x_bytes(e->m->model))};
    for (int r = 0; r < e->plan->n_ranks; r++) {
        compute(e, &b, r);
        b.reply_bytes[r] = step_bytes(e, cost_sum_bytes(e->m->model));
        if (plan_down_at_stage(e->plan, layer))
            add_guests(e, &b, r);
    }
    add_part(e, &b);
}

static void add_output(struct estimate *e)
{
    const struct model *m = e->m->model;
    struct block b = {.home = plan_last_stage(e->plan), .part = PLAN_ROWS,
                      .x_bytes = e->plan->residual_all ? 0 : step_bytes(e, cost_x_bytes(m))};
    for (int r = 0; r < e->plan->n_ranks; r++) {
        double rows = 0;
        for (int h = 0; h < e->plan->n_holders; h++)
            rows += plan_holder_rank(e->plan, h) == r ? rows_share(e->m, e->plan, h) * (double)m->hp.n_vocab : 0;
        compute(e, &b, r);
        b.reply_bytes[r] = HEADER_BYTES + step_bytes(e, 4 * (int64_t)llround(rows));
    }
    add_block(e, &b);
}

/* A message between two ranks for which nobody computes meanwhile. */
static void add_hop(struct estimate *e, int from, int to, int64_t bytes)
{
    if (from != to)
        e->cost.wire_ms += probe_message_us(e->p, e->transport, from, to, bytes) / 1e3;
}

/* ---- memory ---- */

static double neurons_held(const struct cost_model *m, const struct plan *p, int layer, int holder)
{
    const struct neuron_range *ranges;
    double sum = 0;
    for (int i = plan_neurons(p, layer, holder, &ranges); i > 0; i--)
        sum += weight_of_neurons(m, layer, ranges[i - 1], true).held;
    return sum;
}

/* Weight bytes that a rank holds in its host's memory. */
static double held_bytes(const struct estimate *e, int rank)
{
    const struct cost_model m = {.model = e->m->model}; /* weights alone */
    const bool embeds = rank == plan_first_stage(e->plan) && !e->gpus[plan_home(e->plan, rank)];
    double sum = embeds ? weight_of_embedding(&m).held : 0;
    for (int h = 0; h < e->plan->n_holders; h++) {
        if (plan_holder_rank(e->plan, h) != rank || e->gpus[h])
            continue;
        sum += weight_of_rows(&m, rows_share(&m, e->plan, h)).held;
        for (int l = 0; l < e->plan->model.n_layers; l++)
            sum += weight_of_heads(&m, l, heads_share(&m, e->plan, l, h)).held;
        for (int l = 0; l < e->plan->model.n_layers; l = e->ffns_end[l])
            sum += (e->ffns_end[l] - l) * neurons_held(&m, e->plan, l, h);
    }
    return sum;
}

static bool fits(const struct estimate *e)
{
    double held[PLAN_MAX_RANKS];
    for (int r = 0; r < e->plan->n_ranks; r++) {
        held[r] = held_bytes(e, r);
        if (e->m->ram_budget > 0 && held[r] > (double)e->m->ram_budget)
            return false;
    }
    for (int r = 0; r < e->plan->n_ranks; r++) {
        double machine = 0;
        for (int other = 0; other < e->plan->n_ranks; other++)
            machine += probe_same_machine(&e->p->ranks[other], &e->p->ranks[r]) ? held[other] : 0;
        if (machine > (double)e->p->ranks[r].memory_bytes)
            return false;
    }
    return true;
}

const struct probe_gpu *cost_gpu(const struct probe *p, int rank, const char *device)
{
    for (int i = 0; i < p->ranks[rank].n_gpus; i++)
        if (strcmp(p->ranks[rank].gpus[i].device, device) == 0)
            return &p->ranks[rank].gpus[i];
    return NULL;
}

struct cost cost_of_holders(const struct probe *p, const struct cost_model *m, const struct plan *plan, double *ms)
{
    struct estimate e = {.p = p, .m = m, .plan = plan, .transport = probe_transport(p, m->transport), .busy = ms};
    for (int h = 0; h < plan->n_holders; h++) {
        e.gpus[h] = cost_gpu(p, plan_holder_rank(plan, h), plan_holder_device(plan, h));
        if (ms)
            ms[h] = 0;
    }
    for (int r = 0; r < p->n_ranks; r++)
        e.used[r] = plan_takes_part(plan, r);
    cost_bandwidths(p, e.used, e.bandwidth);
    for (int r = 0; r < p->n_ranks; r++)
        e.bandwidth[r] *= 1e6;
    find_alike(&e);
    e.times = 1;
    add_hop(&e, 0, plan_first_stage(plan), HEADER_BYTES);
    for (int l = 0; l < m->model->hp.n_layers; l++) {
        const int stage = plan->layers[l].stage;
        if (l > 0)
            add_hop(&e, plan->layers[l - 1].stage, stage, HEADER_BYTES + step_bytes(&e, 4 * m->model->hp.d_model));
        add_attention(&e, l);
    }
    for (int l = 0; l < m->model->hp.n_layers; l = e.ffns_end[l]) {
        e.times = e.ffns_end[l] - l;
        add_ffn(&e, l);
    }
    e.times = 1;
    add_output(&e);
    add_hop(&e, plan_last_stage(plan), 0, HEADER_BYTES);
    e.cost.fits = fits(&e);
    return e.cost;
}

struct cost cost_of_plan(const struct probe *p, const struct cost_model *m, const struct plan *plan)
{
    return cost_of_holders(p, m, plan, NULL);
}
