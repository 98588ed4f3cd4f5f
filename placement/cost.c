#include "placement/cost.h"

#include <math.h>
#include <string.h>

#include "base/dtype.h"

enum {
    HEADER_BYTES = 64,
    PAIR_BYTES = 8, /* of an activation and its index */
    SUM_BYTES = 4   /* of a value of a sum, mostly */
};

static double matrix_bytes(const struct matrix *m)
{
    return m->data ? (double)m->rows * (double)dtype_row_bytes(m->type, m->cols) : 0;
}

static double attention_bytes(const struct layer_weights *l)
{
    return matrix_bytes(&l->q) + matrix_bytes(&l->k) + matrix_bytes(&l->v) + matrix_bytes(&l->o);
}

static double down_bytes(const struct layer_weights *l)
{
    return matrix_bytes(&l->down) + matrix_bytes(&l->down_t);
}

static double ffn_bytes(const struct layer_weights *l)
{
    return matrix_bytes(&l->gate) + matrix_bytes(&l->up) + down_bytes(l);
}

int64_t cost_x_bytes(const struct model *m)
{
    const struct matrix *up = &m->layers[0].up;
    const int64_t d = m->hp.d_model;
    return HEADER_BYTES + (dtype_block(up->type) > 1 ? d + d / 32 * 4 : 4 * d); /* int8 blocks, or floats */
}

int64_t cost_sum_bytes(const struct model *m)
{
    return HEADER_BYTES + SUM_BYTES * m->hp.d_model;
}

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
    double bandwidth[PLAN_MAX_RANKS]; /* bytes per ms */
    struct cost cost;
};

/* Work of one block over several ranks. */
struct block {
    int home;
    double bytes[PLAN_MAX_RANKS];      /* that each rank reads; 0: it has no part */
    int64_t reply_bytes[PLAN_MAX_RANKS];
    int64_t x_bytes;                   /* 0: nobody is asked, all have x */
};

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
        if (r == b->home || b->bytes[r] <= 0)
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

static void add_block(struct estimate *e, const struct block *b)
{
    const double own = b->bytes[b->home] / e->bandwidth[b->home];
    double slowest = 0;
    for (int r = 0; r < e->plan->n_ranks; r++)
        if (r != b->home)
            slowest = fmax(slowest, b->bytes[r] / e->bandwidth[r]);
    const double computed = fmax(own, slowest), all = fmax(own, slowest > 0 ? wire_ms(e, b) + slowest : 0);
    e->cost.compute_ms += computed;
    e->cost.wire_ms += all - computed;
}

/* A block whose sums all ranks need: as slow as it is for the rank that hears the others last. */
static void add_shared(struct estimate *e, struct block *b)
{
    const int home = b->home;
    double computed = 0, wire = 0;
    b->x_bytes = 0;
    for (int r = 0; r < e->plan->n_ranks; r++) {
        computed = fmax(computed, b->bytes[r] / e->bandwidth[r]);
        b->home = r;
        if (e->used[r])
            wire = fmax(wire, wire_ms(e, b));
    }
    b->home = home;
    e->cost.compute_ms += computed;
    e->cost.wire_ms += wire;
}

static void add_part(struct estimate *e, struct block *b)
{
    if (e->plan->residual_all)
        add_shared(e, b);
    else
        add_block(e, b);
}

/* The share of a layer's heads that a rank has, on all its devices: they are one rank to the others, and its CPUs read
 * one memory. */
static double heads_share(const struct estimate *e, int layer, int rank)
{
    const int64_t n = e->m->model->hp.n_kv_heads;
    double share = 0;
    for (int h = 0; h < e->plan->n_holders; h++) {
        int64_t begin, end;
        plan_heads(e->plan, layer, h, n, &begin, &end);
        if (plan_holder_rank(e->plan, h) == rank)
            share += n > 0 ? (double)(end - begin) / (double)n : e->plan->layers[layer].stage == h;
    }
    return share;
}

static int64_t neurons_of(const struct plan *p, int layer, int rank)
{
    int64_t n = 0;
    for (int h = 0; h < p->n_holders; h++)
        n += plan_holder_rank(p, h) == rank ? plan_n_neurons(p, layer, h) : 0;
    return n;
}

static int64_t rows_of(const struct plan *p, int rank, int64_t n_vocab)
{
    int64_t n = 0;
    for (int h = 0; h < p->n_holders; h++) {
        int64_t begin, end;
        plan_rows(p, h, n_vocab, &begin, &end);
        n += plan_holder_rank(p, h) == rank ? end - begin : 0;
    }
    return n;
}

static void add_attention(struct estimate *e, int layer)
{
    struct block b = {.home = e->plan->layers[layer].stage, .x_bytes = cost_x_bytes(e->m->model)};
    for (int r = 0; r < e->plan->n_ranks; r++) {
        b.bytes[r] = attention_bytes(&e->m->model->layers[layer]) * heads_share(e, layer, r);
        b.reply_bytes[r] = cost_sum_bytes(e->m->model);
    }
    add_part(e, &b);
}

static void add_ffn(struct estimate *e, int layer)
{
    const struct layer_weights *l = &e->m->model->layers[layer];
    const struct plan *plan = e->plan;
    const bool at_stage = plan_down_at_stage(plan, layer);
    const double whole = e->m->ffn_share * ffn_bytes(l), down = e->m->ffn_share * down_bytes(l);
    struct block b = {.home = plan->layers[layer].stage, .x_bytes = cost_x_bytes(e->m->model)};
    for (int r = 0; r < plan->n_ranks; r++) {
        const double neurons = (double)neurons_of(plan, layer, r), pairs = neurons * e->m->ffn_share;
        const double part = neurons / (double)plan->layers[layer].shape.d_ff;
        b.bytes[r] = part * (at_stage && r != b.home ? whole - down : whole);
        b.reply_bytes[r] = at_stage ? HEADER_BYTES + (int64_t)(PAIR_BYTES * pairs) : cost_sum_bytes(e->m->model);
        if (at_stage && r != b.home && part > 0) /* the stage projects it when it is there */
            e->cost.compute_ms += part * down / e->bandwidth[b.home];
    }
    add_part(e, &b);
}

static void add_output(struct estimate *e)
{
    const struct model *m = e->m->model;
    struct block b = {.home = plan_last_stage(e->plan),
                      .x_bytes = e->plan->residual_all ? 0 : cost_x_bytes(m)};
    for (int r = 0; r < e->plan->n_ranks; r++) {
        const int64_t rows = rows_of(e->plan, r, m->hp.n_vocab);
        b.bytes[r] = matrix_bytes(&m->output) * (double)rows / (double)m->hp.n_vocab;
        b.reply_bytes[r] = HEADER_BYTES + 4 * rows;
    }
    add_block(e, &b);
}

/* A message between two ranks for which nobody computes meanwhile. */
static void add_hop(struct estimate *e, int from, int to, int64_t bytes)
{
    if (from != to)
        e->cost.wire_ms += probe_message_us(e->p, e->transport, from, to, bytes) / 1e3;
}

/* Weight bytes that a rank holds. */
static double held_bytes(const struct estimate *e, int rank)
{
    const struct model *m = e->m->model;
    const double rows = (double)rows_of(e->plan, rank, m->hp.n_vocab);
    double sum = matrix_bytes(&m->output) * rows / (double)m->hp.n_vocab;
    if (rank == plan_first_stage(e->plan))
        sum += matrix_bytes(&m->embedding) + matrix_bytes(&m->positions);
    for (int l = 0; l < m->hp.n_layers; l++) {
        const struct layer_weights *w = &m->layers[l];
        sum += ffn_bytes(w) * (double)neurons_of(e->plan, l, rank) / (double)e->plan->layers[l].shape.d_ff;
        sum += attention_bytes(w) * heads_share(e, l, rank);
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

struct cost cost_of_plan(const struct probe *p, const struct cost_model *m, const struct plan *plan)
{
    struct estimate e = {.p = p, .m = m, .plan = plan, .transport = probe_transport(p, m->transport)};
    for (int r = 0; r < p->n_ranks; r++)
        e.used[r] = plan_takes_part(plan, r);
    cost_bandwidths(p, e.used, e.bandwidth);
    for (int r = 0; r < p->n_ranks; r++)
        e.bandwidth[r] *= 1e6;
    add_hop(&e, 0, plan_first_stage(plan), HEADER_BYTES);
    for (int l = 0; l < m->model->hp.n_layers; l++) {
        const int stage = plan->layers[l].stage;
        if (l > 0)
            add_hop(&e, plan->layers[l - 1].stage, stage, HEADER_BYTES + 4 * m->model->hp.d_model);
        add_attention(&e, l);
        add_ffn(&e, l);
    }
    add_output(&e);
    add_hop(&e, plan_last_stage(plan), 0, HEADER_BYTES);
    e.cost.fits = fits(&e);
    return e.cost;
}
