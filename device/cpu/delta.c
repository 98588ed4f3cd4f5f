#include "device/cpu/delta.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/exactmath.h"
#include "base/log.h"
#include "device/delta_heads.h"
#include "device/readers.h"

/* Of a layer, for each state that there is. */
struct states {
    float *s;                  /* [n_states, own value heads, size, size] */
    float *inputs;             /* [n_states, taps - 1, channels] what the convolution has read last, the newest last */
};

struct delta {
    struct cpu *c;
    struct delta_heads *heads; /* [n_layers] */
    struct states *states;     /* [n_layers] */
    float *qkv, *z;            /* [n, channels], [n, own value heads * size] */
    float *beta, *alpha;       /* [n, own value heads] */
    struct acts mixed;         /* as z: what the heads give */
    float *q_norm, *k_norm;    /* [size] */
    float *scratch;            /* [n_threads, 2 + value heads of a key head, size] */
};

/* ---- memory ---- */

void delta_free(struct delta *n)
{
    if (!n)
        return;
    free(n->heads);
    free(n->states);
    free(n);
}

status delta_new(struct cpu *c, struct delta **out)
{
    struct delta *n = calloc(1, sizeof *n);
    if (n) {
        n->c = c;
        n->heads = calloc((size_t)c->hp->n_layers, sizeof *n->heads);
        n->states = calloc((size_t)c->hp->n_layers, sizeof *n->states);
    }
    if (!n || !n->heads || !n->states) {
        log_error("out of memory for the tables of delta nets");
        delta_free(n);
        return ST_NOMEM;
    }
    *out = n;
    return ST_OK;
}

void delta_lay_weights(struct delta *n, int layer)
{
    const struct laying to = cpu_laying(n->c);
    delta_heads_lay(&to, layer, &n->heads[layer]);
}

void delta_lay_states(struct delta *n)
{
    const struct hparams *hp = n->c->hp;
    const int64_t states = n->c->o.n_states, square = hp->delta.size * hp->delta.size;
    for (int i = 0; i < hp->n_layers; i++) {
        const struct delta_heads *h = &n->heads[i];
        if (h->begin == h->end)
            continue;
        n->states[i].s = lay_floats(&n->c->arena, states * delta_values(hp, h) * square);
        n->states[i].inputs = lay_floats(&n->c->arena, states * (hp->delta.taps - 1) * delta_channels(hp, h));
    }
}

void delta_lay_buffers(struct delta *n)
{
    struct cpu *c = n->c;
    const struct hparams *hp = c->hp;
    const int64_t tokens = c->o.n_batch, size = hp->delta.size;
    struct delta_heads most = {0}; /* of a layer */
    for (int i = 0; i < hp->n_layers; i++)
        if (n->heads[i].end - n->heads[i].begin > most.end - most.begin)
            most = n->heads[i];
    if (most.begin == most.end)
        return;
    const int64_t values = delta_values(hp, &most);
    n->qkv = lay_floats(&c->arena, tokens * delta_channels(hp, &most));
    n->z = lay_floats(&c->arena, tokens * values * size);
    n->beta = lay_floats(&c->arena, tokens * values);
    n->alpha = lay_floats(&c->arena, tokens * values);
    lay_acts(&c->arena, &n->mixed, tokens, values * size);
    n->q_norm = lay_floats(&c->arena, size);
    n->k_norm = lay_floats(&c->arena, size);
    n->scratch = lay_floats(&c->arena, c->o.n_threads * (2 + delta_ratio(hp)) * size);
}

void delta_load(struct delta *n, struct loading *l, int layer)
{
    const int64_t size = n->c->hp->delta.size;
    delta_heads_load(l, layer, &n->heads[layer]);
    for (int64_t i = 0; n->q_norm && i < size; i++) {
        n->q_norm[i] = 1.0f / (float)size;
        n->k_norm[i] = 1.0f / sqrtf((float)size);
    }
}

/* ---- states ---- */

/* A batch in a layer. */
struct netting {
    struct delta *n;
    const struct cpu *c;
    const struct hparams *hp;
    const struct delta_heads *h;
    const struct states *states;
    const struct batch *batch;
    const struct acts *x;
    int64_t channels, values; /* own value heads */
    double *sum;              /* [n, d] */
};

static float *matrix_of(const struct netting *w, uint32_t state, int64_t value)
{
    const int64_t size = w->hp->delta.size;
    return w->states->s + (state * w->values + value) * size * size;
}

static float *inputs_of(const struct netting *w, uint32_t state)
{
    return w->states->inputs + state * (w->hp->delta.taps - 1) * w->channels;
}

/* Where key head h has its part-th piece of the channels: queries, keys, then values of each value head. */
static int64_t piece_at(const struct netting *w, int64_t h, int64_t part)
{
    const int64_t n = w->h->end - w->h->begin;
    return (part < 2 ? part * n + h : 2 * n + delta_value(w->hp, w->h, h, part - 2)) * w->hp->delta.size;
}

/* Head h's part of a state becomes that of another, or NULL: of a text that begins. */
static void set_state(const struct netting *w, int64_t h, uint32_t to, const uint32_t *from)
{
    const int64_t size = w->hp->delta.size, ratio = delta_ratio(w->hp);
    for (int64_t i = 0; i < ratio; i++) {
        const int64_t value = delta_value(w->hp, w->h, h, i);
        const size_t bytes = (size_t)(size * size) * sizeof(float);
        if (from)
            memcpy(matrix_of(w, to, value), matrix_of(w, *from, value), bytes);
        else
            memset(matrix_of(w, to, value), 0, bytes);
    }
    for (int64_t i = 0; i < (w->hp->delta.taps - 1) * (2 + ratio); i++) {
        const int64_t at = i / (2 + ratio) * w->channels + piece_at(w, h, i % (2 + ratio));
        if (from)
            memcpy(inputs_of(w, to) + at, inputs_of(w, *from) + at, (size_t)size * sizeof(float));
        else
            memset(inputs_of(w, to) + at, 0, (size_t)size * sizeof(float));
    }
}

/* All runs' beginnings before anything is computed, so that none is of this step. */
static void begin_states(const struct netting *w, int64_t h)
{
    for (uint32_t r = 0; r < w->batch->n_runs; r++) {
        const struct run *run = &w->batch->runs[r];
        const uint32_t from = run->begin_with - 1;
        if (run->begin_with)
            set_state(w, h, run->sequence, &from);
        else if (run->position == 0)
            set_state(w, h, run->sequence, NULL);
    }
}

static void keep_states(const struct netting *w, int64_t h)
{
    for (uint32_t r = 0; r < w->batch->n_runs; r++)
        if (w->batch->runs[r].keep_as)
            set_state(w, h, w->batch->runs[r].keep_as - 1, &w->batch->runs[r].sequence);
}

/* ---- tokens ---- */

/* A run's inputs, counted from the oldest that its first token's convolution reads. */
static const float *input_at(const struct netting *w, const struct run *run, int64_t first, int64_t i)
{
    const int64_t before = w->hp->delta.taps - 1;
    return i < before ? inputs_of(w, run->sequence) + i * w->channels : w->n->qkv + (first + i - before) * w->channels;
}

static float softplus(float x) { return x > 20 ? x : (float)log_f64(1 + (double)exp_f32(x)); }

/* What value head `value` gives for the batch's token t. */
static void step_value(const struct netting *w, const struct run *run, int64_t t, int64_t value, const float *q,
                       const float *k, const float *v)
{
    const struct kernels *kernels = w->c->o.kernels;
    const struct delta_heads *h = w->h;
    const int64_t size = w->hp->delta.size, at = (t * w->values + value) * size;
    const float alpha = w->n->alpha[t * w->values + value], beta = w->n->beta[t * w->values + value];
    const float decay = exp_f32(h->decay[value] * softplus(alpha + h->dt_bias[value]));
    float *out = w->n->mixed.f32 + at;
    kernels->delta_step(matrix_of(w, run->sequence, value), size, q, k, v, decay, 1.0f / (1.0f + exp_f32(-beta)), out);
    kernels->rms_norm(out, h->head_norm, size, w->hp->norm_eps, out);
    kernels->activate(ACT_SILU, w->n->z + at, out, size, out);
}

/* Token t of a run that begins with the batch's token `first`, in key head h. */
static void step_token(const struct netting *w, const struct run *run, int64_t first, int64_t t, int64_t h,
                       float *scratch)
{
    const struct kernels *kernels = w->c->o.kernels;
    const int64_t size = w->hp->delta.size, ratio = delta_ratio(w->hp);
    const float *x[MOST_TAPS], eps = w->hp->norm_eps / (float)size;
    float *q = scratch, *k = scratch + size, *v = scratch + 2 * size;
    for (int64_t part = 0; part < 2 + ratio; part++) {
        const int64_t at = piece_at(w, h, part);
        for (int64_t i = 0; i < w->hp->delta.taps; i++)
            x[i] = input_at(w, run, first, t + i) + at;
        kernels->convolve(x, w->h->taps + at, w->channels, (int)w->hp->delta.taps, size, scratch + part * size);
    }
    kernels->rms_norm(q, w->n->q_norm, size, eps, q);
    kernels->rms_norm(k, w->n->k_norm, size, eps, k);
    for (int64_t i = 0; i < ratio; i++)
        step_value(w, run, first + t, delta_value(w->hp, w->h, h, i), q, k, v + i * size);
}

/* The last inputs become those of the run's end: from the oldest on, as some may only move. */
static void keep_inputs(const struct netting *w, const struct run *run, int64_t first, int64_t h)
{
    for (int64_t i = 0; i < w->hp->delta.taps - 1; i++) {
        for (int64_t part = 0; part < 2 + delta_ratio(w->hp); part++) {
            const int64_t at = piece_at(w, h, part);
            memcpy(inputs_of(w, run->sequence) + i * w->channels + at, input_at(w, run, first, run->n + i) + at,
                   (size_t)w->hp->delta.size * sizeof(float));
        }
    }
}

static void run_heads(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct netting *w = arg;
    float *scratch = w->n->scratch + thread * (2 + delta_ratio(w->hp)) * w->hp->delta.size;
    for (int64_t h = begin; h < end; h++) {
        begin_states(w, h);
        for (uint32_t r = 0, first = 0; r < w->batch->n_runs; first += w->batch->runs[r++].n) {
            for (uint32_t t = 0; t < w->batch->runs[r].n; t++)
                step_token(w, &w->batch->runs[r], first, t, h, scratch);
            keep_inputs(w, &w->batch->runs[r], first, h);
        }
        keep_states(w, h);
    }
}

/* ---- products ---- */

/* Groups of all matrices that read x, counted through. */
static void project_groups(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct netting *w = arg;
    const struct delta_heads *h = w->h;
    const struct { const struct packed *m; float *y; } part[] = {
        {&h->qkv, w->n->qkv}, {&h->z, w->n->z}, {&h->beta, w->n->beta}, {&h->alpha, w->n->alpha}};
    int64_t first = 0;
    (void)thread;
    for (int i = 0; i < 4; i++) {
        const int64_t g0 = begin > first ? begin - first : 0;
        const int64_t g1 = end - first < part[i].m->groups ? end - first : part[i].m->groups;
        if (g0 < g1)
            w->c->o.kernels->matmul(part[i].m, g0, g1, w->x, w->batch->n_tokens, part[i].y, part[i].m->rows);
        first += part[i].m->groups;
    }
}

static void quantise_mixed(void *arg, int64_t begin, int64_t end, int thread)
{
    struct netting *w = arg;
    (void)thread;
    w->c->o.kernels->quantize(&w->n->mixed, begin, end);
}

static void output_groups(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct netting *w = arg;
    (void)thread;
    w->c->o.kernels->matmul_partial(&w->h->o, begin, end, &w->n->mixed, w->batch->n_tokens, w->sum, w->h->o.rows);
}

void delta_compute(struct delta *n, const struct work *work, const struct acts *x, double *sum)
{
    struct cpu *c = n->c;
    const struct delta_heads *h = &n->heads[work->layer];
    struct netting w = {.n = n, .c = c, .hp = c->hp, .h = h, .states = &n->states[work->layer], .batch = work->batch,
                        .x = x, .sum = sum, .channels = delta_channels(c->hp, h), .values = delta_values(c->hp, h)};
    const int64_t groups = h->qkv.groups + h->z.groups + h->beta.groups + h->alpha.groups;
    n->mixed.cols = w.values * c->hp->delta.size;
    pool_for(c->o.pool, groups, group_grain(c, groups, work->n), project_groups, &w);
    pool_for(c->o.pool, h->end - h->begin, 1, run_heads, &w);
    if (readers_of(&c->o, MIXED, work->layer).q8)
        pool_for(c->o.pool, work->n, 4, quantise_mixed, &w);
    pool_for(c->o.pool, h->o.groups, group_grain(c, h->o.groups, work->n), output_groups, &w);
    c->counts.bytes += packed_bytes(&h->qkv) + packed_bytes(&h->z) + packed_bytes(&h->beta) + packed_bytes(&h->alpha) +
                       packed_bytes(&h->o);
}
