#include "device/cuda/stream.h"

#include <stdlib.h>

#include "base/log.h"
#include "device/cuda/router.h"
#include "device/readers.h"
#include "kernels/cuda/stream.h"

struct norm_weights {
    float *weight, *bias;            /* [d]; NULL: none. Without a weight x stays as it is */
};

/* What a layer has beside heads and neurons, f32; NULL: the model has none. */
struct stream_layer {
    struct norm_weights attn_norm, ffn_norm;
    float *attn_post_norm, *ffn_post_norm; /* [d] of what is added */
    float *o_bias, *down_bias;       /* [d] */
    float *expert_bias;              /* [n_experts, d] of down projections */
    struct router_weights router;
};

struct stream {
    struct cuda *c;
    uint8_t *embedding, *positions;  /* [n_vocab, d], [n_ctx, d] (or NULL: not learned), rows as the file has them */
    struct stream_layer *layers;     /* [last - first] */
    struct norm_weights out_norm;    /* before the output matrix */
    float *x;                        /* [n, d] */
    float *passing;                  /* [n_passing, n, d] */
    float *logits;                   /* of routers; NULL: no layer has experts */
    float *y;                        /* [n, d] attention's output, where it runs in parallel with the FFN: it waits here
                                        for the FFN's end, for the FFN reads the layer's input; NULL elsewhere */
    int32_t *tokens;                 /* [n] of the step */
    uint32_t *position;              /* [n] theirs, where positions are learned */
    uint32_t *chosen;                /* [n] tokens that a norm is wanted of */
    uint32_t *place;                 /* host [n] */
};

/* ---- memory ---- */

status cuda_stream_new(struct cuda *c, struct stream **out)
{
    struct stream *s = calloc(1, sizeof *s);
    struct stream_layer *layers = calloc((size_t)(c->o.shard->last - c->o.shard->first) + 1, sizeof *layers);
    uint32_t *place = calloc(c->o.n_batch, sizeof *place);
    if (!s || !layers || !place) {
        log_error("out of memory for the tables of a stage");
        free(s);
        free(layers);
        free(place);
        return ST_NOMEM;
    }
    *s = (struct stream){.c = c, .layers = layers, .place = place};
    *out = s;
    return ST_OK;
}

void cuda_stream_free(struct stream *s)
{
    if (!s)
        return;
    free(s->layers);
    free(s->place);
    free(s);
}

static bool is_home(const struct cuda *c) { return c->o.shard->first < c->o.shard->last; }

static struct norm_weights lay_norm(struct cuda *c, const struct matrix *weight, const struct matrix *bias)
{
    float *of = lay_vector(&c->arena, weight);
    return (struct norm_weights){of, lay_vector(&c->arena, bias)};
}

/* All rows of a matrix, one after the other. */
static struct matrix as_vector(const struct matrix *m)
{
    struct matrix vector = *m;
    vector.rows = 1;
    vector.cols = m->rows * m->cols;
    return vector;
}

static void lay_layer(struct cuda *c, struct stream_layer *l, int layer)
{
    const struct layer_weights *f = &c->o.model->layers[layer];
    const struct matrix expert_bias = as_vector(&f->expert_down_bias);
    l->attn_norm = lay_norm(c, &f->attn_norm, &f->attn_norm_bias);
    l->ffn_norm = lay_norm(c, &f->ffn_norm, &f->ffn_norm_bias);
    l->attn_post_norm = lay_vector(&c->arena, &f->attn_post_norm);
    l->ffn_post_norm = lay_vector(&c->arena, &f->ffn_post_norm);
    l->o_bias = lay_vector(&c->arena, &f->o_bias);
    l->down_bias = lay_vector(&c->arena, &f->down_bias);
    l->expert_bias = lay_vector(&c->arena, &expert_bias);
    router_lay(&c->arena, c->o.model, layer, &l->router);
}

static void lay_embedding(struct stream *s)
{
    struct cuda *c = s->c;
    const struct matrix *e = &c->o.model->embedding, *p = &c->o.model->positions;
    s->embedding = arena_alloc(&c->arena, (size_t)e->rows * dtype_row_bytes(e->type, e->cols));
    if (p->data)
        s->positions = arena_alloc(&c->arena, c->o.n_ctx * dtype_row_bytes(p->type, p->cols));
}

void cuda_stream_lay_weights(struct stream *s)
{
    struct cuda *c = s->c;
    const struct model *m = c->o.model;
    const struct shard *shard = c->o.shard;
    if (shard->embeds)
        lay_embedding(s);
    for (int i = shard->first; i < shard->last; i++)
        lay_layer(c, &s->layers[i - shard->first], i);
    if (shard->ends)
        s->out_norm = lay_norm(c, &m->out_norm, &m->out_norm_bias);
}

void cuda_stream_lay_buffers(struct stream *s)
{
    struct cuda *c = s->c;
    const int64_t n = c->o.n_batch;
    if (!is_home(c))
        return;
    s->x = lay_floats(&c->arena, n * c->hp->d_model);
    if (c->hp->parallel)
        s->y = lay_floats(&c->arena, n * c->hp->d_model);
    s->logits = cuda_logits_lay(c);
    s->passing = lay_floats(&c->arena, c->o.n_passing * n * c->hp->d_model);
    s->tokens = lay_integers(&c->arena, n);
    s->position = lay_words(&c->arena, n);
    s->chosen = lay_words(&c->arena, n);
}

static void load_norm(struct loading *l, struct norm_weights to, const struct matrix *weight, const struct matrix *bias)
{
    load_vector(l, to.weight, weight);
    load_vector(l, to.bias, bias);
}

void cuda_stream_load(struct stream *s, struct loading *l)
{
    const struct model *m = s->c->o.model;
    const struct shard *shard = s->c->o.shard;
    load_bytes(l, s->embedding, &m->embedding, 0, m->embedding.rows);
    load_bytes(l, s->positions, &m->positions, m->hp.position_offset, s->c->o.n_ctx);
    for (int i = shard->first; i < shard->last; i++) {
        const struct layer_weights *from = &m->layers[i];
        struct stream_layer *to = &s->layers[i - shard->first];
        const struct matrix expert_bias = as_vector(&from->expert_down_bias);
        load_norm(l, to->attn_norm, &from->attn_norm, &from->attn_norm_bias);
        load_norm(l, to->ffn_norm, &from->ffn_norm, &from->ffn_norm_bias);
        load_vector(l, to->attn_post_norm, &from->attn_post_norm);
        load_vector(l, to->ffn_post_norm, &from->ffn_post_norm);
        load_vector(l, to->o_bias, &from->o_bias);
        load_vector(l, to->down_bias, &from->down_bias);
        load_vector(l, to->expert_bias, &expert_bias);
        router_load(l, i, &to->router);
    }
    load_norm(l, s->out_norm, &m->out_norm, &m->out_norm_bias);
}

/* ---- how it begins ---- */

/* Where values that are no numbers are noted. */
static struct gpu_fault note(struct cuda *c, const struct work *w, const char *what)
{
    if (faults_full(&c->faults, w->tokens != NULL, 1))
        await(c);
    return (struct gpu_fault){&c->notes->fault, faults_add(&c->faults, w, what, c->hp->d_model)};
}

/* The same of what a step begins with, which is of no layer. */
static struct gpu_fault note_begin(struct cuda *c, const struct batch *b, const char *what)
{
    const struct work begin = {.part = DEVICE_OUTPUT, .batch = b, .n = b->n_tokens};
    if (c->faults.n) /* of the step before */
        await(c);
    faults_begin(&c->faults, b, what);
    return note(c, &begin, c->faults.from);
}

static void upload_positions(struct stream *s, const struct batch *b)
{
    uint32_t i = 0;
    for (uint32_t r = 0; r < b->n_runs; r++)
        for (uint32_t t = 0; t < b->runs[r].n; t++)
            s->place[i++] = b->runs[r].position + t;
    upload(s->c, s->position, s->place, i * sizeof *s->place);
}

static void launch_embed(void *object, const struct operation *o)
{
    const struct stream *s = object;
    const struct model *m = s->c->o.model;
    const struct gpu_embedding e = {m->embedding.type, m->positions.type, s->embedding, s->positions, m->hp.d_model,
                                    m->hp.embedding_scale};
    gpu_embed(&s->c->gpu, &e, s->tokens, s->position, (int64_t)o->n, s->x,
              (struct gpu_fault){&s->c->notes->fault, o->at.order});
}

void cuda_stream_embed(struct stream *s, const struct batch *b, const int32_t *tokens)
{
    struct cuda *c = s->c;
    const struct gpu_fault fault = note_begin(c, b, "the embedding");
    upload(c, s->tokens, tokens, b->n_tokens * sizeof *tokens);
    if (s->positions)
        upload_positions(s, b);
    if (!c->lost) /* tokens that did not arrive may be any */
        queue_add(c, &(struct operation){.launch = launch_embed, .object = s, .n = b->n_tokens,
                                         .at.order = fault.order});
}

static size_t states_bytes(const struct stream *s, uint32_t n)
{
    return (size_t)n * (size_t)s->c->hp->d_model * sizeof *s->x;
}

void cuda_stream_import(struct stream *s, const struct batch *b, const float *from, const char *what)
{
    struct cuda *c = s->c;
    const struct gpu_fault fault = note_begin(c, b, what);
    const bool waits = upload_states(c, s->x, from, states_bytes(s, b->n_tokens));
    gpu_check(&c->gpu, s->x, b->n_tokens, c->hp->d_model, fault);
    if (waits)
        await(c);
}

void cuda_stream_export(const struct stream *s, uint32_t n, float *to)
{
    download(s->c, to, s->x, states_bytes(s, n));
    await(s->c);
}

/* ---- from GPU to GPU ---- */

/* Kind: what another library has allocated the runtime itself finds out. */
static void copy_states(const struct stream *s, float *to, const float *from, uint32_t n, enum cudaMemcpyKind kind)
{
    cuda_ok(s->c, cudaMemcpyAsync(to, from, states_bytes(s, n), kind, s->c->gpu.stream), "cudaMemcpyAsync");
}

float *cuda_stream_passing(const struct stream *s, uint32_t i)
{
    return s->passing + (int64_t)i * s->c->o.n_batch * s->c->hp->d_model;
}

void cuda_stream_give(const struct stream *s, uint32_t n, float *to)
{
    copy_states(s, to, s->x, n, cudaMemcpyDeviceToDevice);
    await(s->c);
}

void cuda_stream_take(struct stream *s, const struct batch *b, const float *from, const char *what)
{
    struct cuda *c = s->c;
    const struct gpu_fault fault = note_begin(c, b, what);
    queue_flush(c);
    copy_states(s, s->x, from, b->n_tokens, cudaMemcpyDefault);
    gpu_check(&c->gpu, s->x, b->n_tokens, c->hp->d_model, fault);
    await(c);
}

/* ---- before a block ---- */

static struct gpu_norm norm_of(const struct stream *s, const struct op_place *at)
{
    const struct cuda *c = s->c;
    const struct stream_layer *l = &s->layers[at->part == DEVICE_OUTPUT ? 0 : at->layer - c->o.shard->first];
    const struct norm_weights of = at->part == DEVICE_ATTENTION ? l->attn_norm
                                   : at->part == DEVICE_FFN     ? l->ffn_norm
                                                                : s->out_norm;
    const enum operand reads = x_of((enum device_part)at->part);
    return (struct gpu_norm){.rms = c->hp->norm == NORM_RMS, .quantise = readers_of(&c->o, reads, at->layer).q8,
                             .eps = c->hp->norm_eps, .d = c->hp->d_model, .w = of.weight, .b = of.bias};
}

static struct gpu_fault fault_of(const struct stream *s, const struct op_place *at)
{
    return (struct gpu_fault){&s->c->notes->fault, at->order};
}

/* The layer's router, if it decides where this part's norm is. */
static const struct router_weights *router_of(const struct stream *s, int part, int layer)
{
    const bool decides = part == (s->c->hp->router.early ? DEVICE_ATTENTION : DEVICE_FFN);
    const struct router_weights *r = decides ? &s->layers[layer - s->c->o.shard->first].router : NULL;
    return r && r->rows.rows ? r : NULL;
}

/* Behind the norm of all tokens, from what it gives or from x itself. Faults are noted behind the norm's. */
static void launch_router(const struct stream *s, const struct op_place *at, const struct input *in, int64_t n)
{
    const struct router_weights *r = router_of(s, at->part, at->layer);
    const float *x = s->c->hp->router.early ? s->x : in->acts.f32;
    if (r)
        cuda_route(s->c, s->logits, r, at->layer, x, n, at->order + 1, &in->routes);
}

static void launch_norm(void *object, const struct operation *o)
{
    const struct stream *s = object;
    const struct input *in = o->in;
    const struct gpu_norm norm = norm_of(s, &o->at);
    gpu_norm(&s->c->gpu, &norm, s->x, o->at.chosen ? s->chosen : NULL, (int64_t)o->n, &in->acts, fault_of(s, &o->at));
    launch_router(s, &o->at, in, (int64_t)o->n);
}

/* The bias and the norm of attention's output, or of the FFN's; whether it waits in y. */
static struct gpu_addition addition_of(const struct stream *s, const struct op_place *at, const struct input *in)
{
    const struct stream_layer *l = &s->layers[at->layer - s->c->o.shard->first];
    const bool attention = at->part == DEVICE_ATTENTION;
    struct gpu_addition a = {.bias = attention ? l->o_bias : l->down_bias, .scale = s->c->hp->residual_scale,
                             .norm = attention ? l->attn_post_norm : l->ffn_post_norm, .eps = s->c->hp->norm_eps,
                             .y = s->y, .waits = attention && s->y};
    if (l->expert_bias && !attention)
        a.experts = (struct gpu_expert_bias){l->expert_bias, in->routes, (int)s->c->hp->n_experts_used,
                                             (int)model_route_weights(s->c->hp)};
    return a;
}

static void launch_add(void *object, const struct operation *o)
{
    const struct stream *s = object;
    const struct sums *sums = o->sums;
    const struct gpu_addition a = addition_of(s, &o->at, o->in);
    gpu_add(&s->c->gpu, &sums->of, &a, (int64_t)o->n, s->c->hp->d_model, s->x, fault_of(s, &o->at));
}

static void launch_add_norm(void *object, const struct operation *o)
{
    const struct stream *s = object;
    const struct sums *sums = o->sums;
    const struct input *in = o->in;
    const struct gpu_addition a = addition_of(s, &o->at, in);
    const struct gpu_norm norm = norm_of(s, &o->next);
    gpu_add_norm(&s->c->gpu, &sums->of, &a, fault_of(s, &o->at), &norm, (int64_t)o->n, s->x, &in->acts,
                 fault_of(s, &o->next));
    launch_router(s, &o->next, in, (int64_t)o->n);
}

static struct op_place place_of(const struct work *w, struct gpu_fault fault)
{
    return (struct op_place){(int32_t)w->part, w->layer, fault.order, w->tokens != NULL};
}

/* Where a norm's values are noted, and behind them what the router finds. */
static struct gpu_fault note_norm(struct stream *s, const struct work *w, const char *what)
{
    struct cuda *c = s->c;
    const bool routes = router_of(s, w->part, w->layer) != NULL;
    if (routes && faults_full(&c->faults, w->tokens != NULL, 3))
        await(c);
    const struct gpu_fault fault = note(c, w, what);
    if (routes) {
        faults_add(&c->faults, w, "the router", cuda_router_logits(c, w->layer));
        faults_add(&c->faults, w, "the router's scores", c->hp->n_experts);
    }
    return fault;
}

/* Whether a norm of all tokens can be a part of the launch of the last operation. */
static bool follows_add(const struct stream *s, const struct operation *last, const struct work *w)
{
    if (!last || last->launch != launch_add || w->tokens || last->n != w->n)
        return false;
    const struct gpu_addition a = addition_of(s, &last->at, last->in);
    return !a.waits && !a.norm && !a.experts.bias;
}

void cuda_stream_norm(struct stream *s, const struct work *w, struct input *in)
{
    static const char *const before[DEVICE_PARTS] = {"the norm before attention", "the norm before the FFN",
                                                     "the norm before the output matrix"};
    struct cuda *c = s->c;
    const struct gpu_fault fault = note_norm(s, w, before[w->part]);
    in->residual = s->x;
    if (w->tokens)
        upload(c, s->chosen, w->tokens, w->n * sizeof *w->tokens);
    if (c->lost) /* tokens that did not arrive may be any */
        return;
    struct operation *last = queue_last(c);
    if (!follows_add(s, last, w)) {
        queue_add(c, &(struct operation){.launch = launch_norm, .object = s, .in = in, .n = w->n,
                                         .at = place_of(w, fault)});
        return;
    }
    last->launch = launch_add_norm;
    last->in = in;
    last->next = place_of(w, fault);
}

/* ---- after it ---- */

void cuda_stream_add(struct stream *s, const struct work *w, const struct input *in, const struct sums *sums)
{
    static const char *const parts[] = {[DEVICE_ATTENTION] = "attention", [DEVICE_FFN] = "the FFN"};
    const bool routed = s->layers[w->layer - s->c->o.shard->first].expert_bias && w->part == DEVICE_FFN;
    queue_add(s->c, &(struct operation){.launch = launch_add, .object = s, .in = routed ? in : NULL, .sums = sums,
                                        .n = w->n, .at = place_of(w, note(s->c, w, parts[w->part]))});
}
