#include "device/cpu/stream.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "device/cpu/norm.h"
#include "device/cpu/router.h"
#include "device/numbers.h"
#include "device/readers.h"

/* What a layer has beside heads and neurons, f32; NULL: the model has none. */
struct stream_layer {
    struct norm_weights attn_norm, ffn_norm, attn_post_norm, ffn_post_norm;
    float *o_bias, *down_bias;       /* [d] */
    struct router_weights router;
    float *expert_bias;              /* [n_experts, d] of down projections */
};

struct stream {
    struct cpu *c;
    uint8_t *embedding, *positions;  /* [n_vocab, d], [n_ctx, d] (or NULL: not learned), rows as the file has them */
    struct stream_layer *layers;     /* [last - first] */
    struct norm_weights out_norm;    /* before the output matrix */
    struct routing routing;
    float *x;                        /* [n, d] */
    float *y;                        /* [n, d] attention's output, where it runs in parallel with the FFN: it waits here
                                        for the FFN's end, for the FFN reads the layer's input; NULL elsewhere */
    float *row;                      /* [d] of learned positions */
    float *rows;                     /* [n_threads, d] what is normed before it is added; NULL: nothing is */
};

status stream_new(struct cpu *c, struct stream **out)
{
    struct stream *s = calloc(1, sizeof *s);
    struct stream_layer *layers = calloc((size_t)(c->o.shard->last - c->o.shard->first) + 1, sizeof *layers);
    if (!s || !layers) {
        log_error("out of memory for the tables of a stage");
        free(s);
        free(layers);
        return ST_NOMEM;
    }
    *s = (struct stream){.c = c, .layers = layers};
    *out = s;
    return ST_OK;
}

void stream_free(struct stream *s)
{
    if (s)
        free(s->layers);
    free(s);
}

static const struct matrix none;

static bool is_home(const struct cpu *c) { return c->o.shard->first < c->o.shard->last; }

/* All rows of a matrix of floats as one vector. */
static struct matrix as_vector(const struct matrix *m)
{
    struct matrix v = *m;
    v.cols *= v.rows;
    v.rows = 1;
    return v;
}

static void lay_layer(struct cpu *c, struct stream_layer *l, int layer)
{
    const struct layer_weights *f = &c->o.model->layers[layer];
    const struct matrix expert_bias = as_vector(&f->expert_down_bias);
    l->attn_norm = norm_lay(c, &f->attn_norm, &f->attn_norm_bias);
    l->ffn_norm = norm_lay(c, &f->ffn_norm, &f->ffn_norm_bias);
    l->attn_post_norm = norm_lay(c, &f->attn_post_norm, &none);
    l->ffn_post_norm = norm_lay(c, &f->ffn_post_norm, &none);
    l->o_bias = lay_vector(&c->arena, &f->o_bias);
    l->down_bias = lay_vector(&c->arena, &f->down_bias);
    l->expert_bias = lay_vector(&c->arena, &expert_bias);
    router_lay(&c->arena, c->o.model, layer, &l->router);
}

/* Rows are the file's, so that nothing of it is read once it runs. */
static void lay_embedding(struct stream *s)
{
    struct cpu *c = s->c;
    const struct matrix *e = &c->o.model->embedding, *p = &c->o.model->positions;
    s->embedding = arena_alloc(&c->arena, (size_t)e->rows * dtype_row_bytes(e->type, e->cols));
    if (p->data)
        s->positions = arena_alloc(&c->arena, c->o.n_ctx * dtype_row_bytes(p->type, p->cols));
}

void stream_lay_weights(struct stream *s)
{
    struct cpu *c = s->c;
    const struct model *m = c->o.model;
    const struct shard *shard = c->o.shard;
    if (shard->embeds)
        lay_embedding(s);
    for (int i = shard->first; i < shard->last; i++)
        lay_layer(c, &s->layers[i - shard->first], i);
    if (shard->ends)
        s->out_norm = norm_lay(c, &m->out_norm, &m->out_norm_bias);
}

void stream_lay_buffers(struct stream *s)
{
    struct cpu *c = s->c;
    const int64_t n = c->o.n_batch;
    if (!is_home(c))
        return;
    s->x = lay_floats(&c->arena, n * c->hp->d_model);
    routing_lay(c, &s->routing);
    if (c->hp->parallel)
        s->y = lay_floats(&c->arena, n * c->hp->d_model);
    if (c->o.model->layers[0].attn_post_norm.data)
        s->rows = lay_floats(&c->arena, c->o.n_threads * c->hp->d_model);
    if (c->o.shard->embeds && c->o.model->positions.data)
        s->row = lay_floats(&c->arena, c->hp->d_model);
}

void stream_load(struct stream *s, struct loading *l)
{
    const struct model *m = s->c->o.model;
    const struct shard *shard = s->c->o.shard;
    load_bytes(l, s->embedding, &m->embedding, 0, m->embedding.rows);
    load_bytes(l, s->positions, &m->positions, m->hp.position_offset, s->c->o.n_ctx);
    for (int i = shard->first; i < shard->last; i++) {
        const struct layer_weights *from = &m->layers[i];
        struct stream_layer *to = &s->layers[i - shard->first];
        const struct matrix expert_bias = as_vector(&from->expert_down_bias);
        norm_load(l, to->attn_norm, &from->attn_norm, &from->attn_norm_bias);
        norm_load(l, to->ffn_norm, &from->ffn_norm, &from->ffn_norm_bias);
        norm_load(l, to->attn_post_norm, &from->attn_post_norm, &none);
        norm_load(l, to->ffn_post_norm, &from->ffn_post_norm, &none);
        load_vector(l, to->o_bias, &from->o_bias);
        load_vector(l, to->down_bias, &from->down_bias);
        load_vector(l, to->expert_bias, &expert_bias);
        router_load(l, i, &to->router);
    }
    norm_load(l, s->out_norm, &m->out_norm, &m->out_norm_bias);
}

/* ---- how it begins ---- */

/* What a step begins with may be no numbers already. */
static status check_states(const struct stream *s, const struct batch *b, const char *what)
{
    const int64_t d = s->c->hp->d_model;
    const struct work begin = {.part = DEVICE_OUTPUT, .batch = b, .n = b->n_tokens}; /* of no layer */
    return all_numbers(s->x, b->n_tokens * d) ? ST_OK : not_numbers(s->c->o.model, &begin, what, s->x, d);
}

static void add_positions(struct stream *s, const struct batch *b)
{
    const struct matrix *p = &s->c->o.model->positions;
    const size_t row = dtype_row_bytes(p->type, p->cols);
    float *x = s->x;
    for (uint32_t r = 0; r < b->n_runs; r++) {
        for (uint32_t t = 0; t < b->runs[r].n; t++, x += p->cols) {
            dequantize_row(p->type, s->positions + (b->runs[r].position + t) * row, p->cols, s->row);
            s->c->o.kernels->add(x, s->row, p->cols);
        }
    }
}

status stream_embed(struct stream *s, const struct batch *b, const int32_t *tokens)
{
    const struct matrix *e = &s->c->o.model->embedding;
    const size_t row = dtype_row_bytes(e->type, e->cols);
    for (uint32_t t = 0; t < b->n_tokens; t++)
        dequantize_row(e->type, s->embedding + (size_t)tokens[t] * row, e->cols, s->x + t * e->cols);
    if (s->c->hp->embedding_scale != 1)
        multiply(s->x, b->n_tokens * e->cols, s->c->hp->embedding_scale);
    if (s->positions)
        add_positions(s, b);
    return check_states(s, b, "the embedding");
}

status stream_import(struct stream *s, const struct batch *b, const float *from, const char *what)
{
    memcpy(s->x, from, (size_t)b->n_tokens * (size_t)s->c->hp->d_model * sizeof *from);
    return check_states(s, b, what);
}

void stream_export(const struct stream *s, uint32_t n, float *to)
{
    memcpy(to, s->x, (size_t)n * (size_t)s->c->hp->d_model * sizeof *to);
}

/* ---- before a block ---- */

status stream_norm(struct stream *s, const struct work *w, struct input *in)
{
    static const char *const before[DEVICE_PARTS] = {"the norm before attention", "the norm before the FFN",
                                                     "the norm before the output matrix"};
    const struct stream_layer *l = &s->layers[w->part == DEVICE_OUTPUT ? 0 : w->layer - s->c->o.shard->first];
    const struct norm_weights *norm = w->part == DEVICE_ATTENTION ? &l->attn_norm
                                      : w->part == DEVICE_FFN     ? &l->ffn_norm
                                                                  : &s->out_norm;
    in->residual = s->x;
    if (!norm_tokens(s->c, *norm, s->x, w, &in->acts))
        return not_numbers(s->c->o.model, w, before[w->part], in->acts.f32, s->c->hp->d_model);
    if (w->part != (s->c->hp->router.early ? DEVICE_ATTENTION : DEVICE_FFN) || !l->router.rows.rows)
        return ST_OK;
    return route(s->c, &s->routing, &l->router, w, s->c->hp->router.early ? s->x : in->acts.f32, &in->routes);
}

/* ---- after it ---- */

enum { ADDED = 512 }; /* values that are added at a time, on the stack */

struct adding {
    const struct stream *s;
    const double *sum;   /* [n, d] */
    const float *bias;   /* [d] or NULL */
    const float *expert_bias;    /* [n_experts, d] or NULL; of those that */
    const struct routes *routes; /* say */
    const float *norm;   /* [d] of the sum, or NULL */
    bool waits;          /* the sum goes to y */
    const float *y;      /* [n, d] what has waited, or NULL */
    _Atomic bool broken; /* what it has come to is not all numbers */
};

/* value[0 .. n) += weight * bias for each expert of a token, the best first: columns from `first` on. */
static void add_expert_biases(const struct adding *a, int64_t token, int64_t first, int64_t n, float *value)
{
    const struct hparams *hp = a->s->c->hp;
    const uint32_t *expert = a->routes->expert + token * hp->n_experts_used;
    const float *weight = a->routes->weight + token * model_route_weights(hp);
    for (int64_t k = 0; k < hp->n_experts_used; k++) {
        const float *bias = a->expert_bias + expert[k] * hp->d_model + first;
        for (int64_t i = 0; i < n; i++)
            value[i] += weight[k] * bias[i];
    }
}

/* to[0 .. n) = a token's sum + bias. */
static void give(const struct adding *a, int64_t token, int64_t from, int64_t n, float *to)
{
    const double *sum = a->sum + token * a->s->c->hp->d_model + from;
    for (int64_t j = 0; j < n; j++)
        to[j] = (float)sum[j];
    if (a->bias)
        a->s->c->o.kernels->add(to, a->bias + from, n);
    if (a->expert_bias)
        add_expert_biases(a, token, from, n, to);
}

/* x[0 .. d) += (sum + bias) * residual_scale; or = , where it waits. */
static void add_token(const struct adding *a, int64_t token, float *x, int64_t d)
{
    const float scale = a->s->c->hp->residual_scale;
    float piece[ADDED];
    for (int64_t i = 0; i < d; i += ADDED) {
        const int64_t n = d - i < ADDED ? d - i : ADDED;
        float *value = a->waits ? x + i : piece;
        give(a, token, i, n, value);
        if (scale != 1)
            multiply(value, n, scale);
        if (!a->waits)
            a->s->c->o.kernels->add(x + i, value, n);
    }
}

/* x[0 .. d) += norm(sum + bias). */
static void add_normed(const struct adding *a, int64_t token, float *x, int64_t d, float *row)
{
    const struct kernels *k = a->s->c->o.kernels;
    give(a, token, 0, d, row);
    k->rms_norm(row, a->norm, d, a->s->c->hp->norm_eps, row);
    k->add(x, row, d);
}

static void add_tokens(void *arg, int64_t begin, int64_t end, int thread)
{
    struct adding *a = arg;
    const int64_t d = a->s->c->hp->d_model;
    float *to = a->waits ? a->s->y : a->s->x;
    for (int64_t t = begin; t < end; t++) {
        if (a->norm)
            add_normed(a, t, to + t * d, d, a->s->rows + thread * d);
        else
            add_token(a, t, to + t * d, d);
        if (!all_numbers(to + t * d, d))
            a->broken = true;
        if (a->y)
            a->s->c->o.kernels->add(to + t * d, a->y + t * d, d);
    }
}

status stream_add(struct stream *s, const struct work *w, const struct input *in, const struct sums *sums)
{
    static const char *const parts[] = {[DEVICE_ATTENTION] = "attention", [DEVICE_FFN] = "the FFN"};
    const struct stream_layer *l = &s->layers[w->layer - s->c->o.shard->first];
    const bool attention = w->part == DEVICE_ATTENTION;
    struct adding a = {.s = s, .sum = sums->sum, .bias = attention ? l->o_bias : l->down_bias,
                       .expert_bias = attention ? NULL : l->expert_bias, .routes = &in->routes,
                       .norm = attention ? l->attn_post_norm.weight : l->ffn_post_norm.weight,
                       .waits = attention && s->y, .y = attention ? NULL : s->y};
    pool_for(s->c->o.pool, w->n, 4, add_tokens, &a);
    return a.broken ? not_numbers(s->c->o.model, w, parts[w->part], a.waits ? s->y : s->x, s->c->hp->d_model)
                    : ST_OK;
}
