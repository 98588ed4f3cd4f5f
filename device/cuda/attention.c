#include "device/cuda/attention.h"

#include <stdlib.h>

#include "base/log.h"
#include "device/cuda/latent.h"
#include "device/cuda/tables.h"
#include "device/decisions.h"
#include "device/heads.h"
#include "device/readers.h"
#include "kernels/cuda/products.h"
#include "kernels/cuda/stream.h"

struct attention {
    struct cuda *c;
    struct heads *heads;             /* [n_layers] */
    struct gpu_heads *of;            /* [n_layers] the same for kernels, and their pages */
    struct tables *tables;
    float *q, *k, *v;                /* [n, own heads of a layer * head_dim] */
    struct acts mixed;               /* [n, own query heads of a layer * value_dim] what attention gives */
    struct latent_room latent;       /* where keys and values are that: then there are no k, v, and q is as long as
                                      * keys */
    void *scratch;
};

/* ---- memory ---- */

static status check_runs(const struct model *m)
{
    const int64_t dim = kept_key(&m->hp), value = kept_value(&m->hp), query = m->hp.head_dim;
    const int64_t normed = m->hp.whole_norms ? m->hp.n_heads * dim : m->hp.latent.q_rank;
    if (value > GPU_HEAD_DIM || value % 8)
        log_error("%s: heads have %lld values; a GPU takes multiples of 8, %d at most: --device cpu",
                  gguf_path(m->file), (long long)value, GPU_HEAD_DIM);
    else if (dim > GPU_KEY_DIM || dim % 8)
        log_error("%s: keys have %lld values; a GPU takes multiples of 8, %d at most: --device cpu",
                  gguf_path(m->file), (long long)dim, GPU_KEY_DIM);
    else if (query > GPU_KEY_DIM) /* of latent attention: other queries are as long as keys */
        log_error("%s: queries have %lld values; a GPU takes %d at most: --device cpu", gguf_path(m->file),
                  (long long)query, GPU_KEY_DIM);
    else if (normed > GPU_NORM_MOST)
        log_error("%s: %lld values of q are normed together; a GPU takes %d at most: --device cpu", gguf_path(m->file),
                  (long long)normed, GPU_NORM_MOST);
    else
        return ST_OK;
    return ST_UNSUPPORTED;
}

status cuda_attention_new(struct cuda *c, struct attention **out)
{
    status st = check_runs(c->o.model);
    if (st)
        return st;
    struct attention *a = calloc(1, sizeof *a);
    struct heads *heads = calloc((size_t)c->hp->n_layers, sizeof *heads);
    struct gpu_heads *of = calloc((size_t)c->hp->n_layers, sizeof *of);
    if (!a || !heads || !of) {
        log_error("out of memory for the tables of attention");
        free(heads);
        free(of);
        free(a);
        return ST_NOMEM;
    }
    *a = (struct attention){.c = c, .heads = heads, .of = of};
    st = cuda_tables_new(c, &a->tables);
    if (st) {
        cuda_attention_free(a);
        return st;
    }
    *out = a;
    return ST_OK;
}

void cuda_attention_free(struct attention *a)
{
    if (!a)
        return;
    cuda_tables_free(a->tables);
    free(a->heads);
    free(a->of);
    free(a);
}

static int rope_of(const struct hparams *hp, int layer) { return hp->n_rot ? hp->layer[layer].rope : NO_ROPE; }

/* The own heads of a layer for kernels. */
static struct gpu_heads heads_of(const struct hparams *hp, int layer, const struct heads *h)
{
    const int64_t n_kv = kept_heads(hp, h->end - h->begin);
    struct gpu_heads of = {.n_kv = n_kv, .shared = n_kv ? (h->end - h->begin) * queries(hp) / n_kv : 0,
                           .dim = kept_key(hp), .value = kept_value(hp), .by_head = hp->latent.rank > 0,
                           .half = rope_of(hp, layer) == NO_ROPE ? 0 : hp->n_rot / 2, .neox = hp->rope_neox,
                           .window = model_window(hp, layer), .eps = hp->norm_eps, .scale = hp->attn_scale,
                           .softcap = hp->attn_softcap, .sinks = h->sinks};
    if (hp->whole_norms) /* then biases and norms come before they are heads */
        return of;
    of.q_bias = h->q_bias;
    of.k_bias = h->k_bias;
    of.v_bias = h->v_bias;
    of.q_norm = h->q_norm;
    of.k_norm = h->k_norm;
    return of;
}

void cuda_attention_lay_weights(struct attention *a, int layer)
{
    const struct laying to = cuda_laying(a->c);
    heads_lay(&to, layer, &a->heads[layer]);
    a->of[layer] = heads_of(a->c->hp, layer, &a->heads[layer]);
}

static void lay_pages(struct cuda *c, struct gpu_heads *of)
{
    const size_t positions = (size_t)of->n_kv * c->o.n_pages * KV_PAGE;
    of->n_pages = c->o.n_pages;
    of->k = arena_alloc(&c->arena, positions * (size_t)of->dim * sizeof *of->k);
    of->v = arena_alloc(&c->arena, positions * (size_t)of->value * sizeof *of->v);
}

void cuda_attention_lay_pages(struct attention *a)
{
    for (int i = 0; i < a->c->hp->n_layers; i++)
        lay_pages(a->c, &a->of[i]);
}

static int64_t query_heads(const struct gpu_heads *of) { return of->n_kv * of->shared; }

void cuda_attention_lay_buffers(struct attention *a)
{
    struct cuda *c = a->c;
    const struct hparams *hp = c->hp;
    const int64_t n = c->o.n_batch;
    struct gpu_heads widest = {0};
    uint64_t scratch = 0; /* of a layer that slides it takes less */
    for (int i = 0; i < hp->n_layers; i++) {
        const uint64_t bytes = gpu_attention_scratch(&a->of[i], n, c->o.n_ctx);
        scratch = bytes > scratch ? bytes : scratch;
        widest = query_heads(&a->of[i]) > query_heads(&widest) ? a->of[i] : widest;
    }
    const int64_t heads = query_heads(&widest);
    if (!heads)
        return;
    cuda_tables_lay(a->tables);
    a->q = lay_floats(&c->arena, n * heads * widest.dim);
    if (hp->latent.rank) {
        latent_room_lay(&c->arena, c->hp, n, heads, &a->latent);
    } else {
        a->k = lay_floats(&c->arena, n * widest.n_kv * hp->head_dim);
        a->v = lay_floats(&c->arena, n * widest.n_kv * hp->head_dim);
    }
    lay_acts(&c->arena, &a->mixed, n, heads * hp->value_dim);
    a->scratch = arena_alloc(&c->arena, scratch);
}

void cuda_attention_load(struct attention *a, struct loading *l, int layer)
{
    if (layer == 0)
        cuda_tables_load(a->tables, l);
    heads_load(l, layer, &a->heads[layer]);
}

void cuda_attention_copy_page(struct attention *a, int layer, uint32_t from, uint32_t to)
{
    const struct gpu_heads *h = &a->of[layer];
    if (h->n_kv)
        gpu_copy_page(&a->c->gpu, h, from, to);
}

/* ---- computing ---- */

/* All heads of n tokens, each token's as one vector. */
static void norm_whole(const struct cuda *c, float *x, const float *norm, int64_t values, int64_t n)
{
    const struct gpu_norm of = {.rms = true, .eps = c->hp->norm_eps, .d = values, .w = norm};
    const struct acts to = {.cols = values, .f32 = x};
    if (norm)
        gpu_norm(&c->gpu, &of, x, NULL, n, &to, (struct gpu_fault){0});
}

/* q, k and v of the tokens; rotated, and kept. The sums begin. */
static void project(const struct attention *a, const struct heads *h, const struct gpu_heads *of,
                    const struct gpu_batch *b, const struct acts *x, const struct gpu_clearing *clearing)
{
    const bool whole = a->c->hp->whole_norms;
    const struct gpu_product p[] = {
        {.m = h->q, .y = a->q, .y_stride = h->q.rows, .bias = whole ? h->q_bias : NULL},
        {.m = h->k, .y = a->k, .y_stride = h->k.rows, .bias = whole ? h->k_bias : NULL},
        {.m = h->v, .y = a->v, .y_stride = h->v.rows, .bias = whole ? h->v_bias : NULL}};
    gpu_matmul(&a->c->gpu, p, 3, x, b->n);
    if (whole) {
        norm_whole(a->c, a->q, h->q_norm, h->q.rows, b->n);
        norm_whole(a->c, a->k, h->k_norm, h->k.rows, b->n);
    }
    gpu_rotate(&a->c->gpu, b, of, a->q, a->k, a->v, clearing);
}

/* The same where a token's keys and values are c, and what attention gives of it. */
static void attend_latent(struct attention *a, const struct heads *h, const struct gpu_heads *of,
                          const struct gpu_batch *b, const struct acts *x, const struct gpu_clearing *clearing)
{
    struct cuda *c = a->c;
    const struct latent_work w = {.c = c, .room = &a->latent, .h = h, .of = of, .batch = b, .x = x};
    cuda_latent_project(&w, a->q, clearing);
    gpu_attend(&c->gpu, b, of, a->q, a->scratch, c->o.n_ctx, &a->latent.mixed, cuda_latent_reads_codes(h));
    cuda_latent_read(&w, a->mixed.f32);
}

static void launch(void *object, const struct operation *o)
{
    struct attention *a = object;
    const struct cuda *c = a->c;
    const struct heads *h = &a->heads[o->at.layer];
    const struct gpu_heads *of = &a->of[o->at.layer];
    const struct input *in = o->in;
    const struct sums *sums = o->sums;
    const struct gpu_batch b = cuda_tables_batch(a->tables, rope_of(c->hp, o->at.layer), (int64_t)o->n,
                                                 (uint32_t)o->most_positions);
    const struct gpu_clearing clearing = {.sums = sums->of, .n_broken = b.n};
    const bool codes = readers_of(&c->o, MIXED, o->at.layer).q8;
    a->mixed.cols = h->o.cols;
    if (c->hp->latent.rank) {
        attend_latent(a, h, of, &b, &in->acts, &clearing);
        if (codes)
            gpu_quantize(&c->gpu, &a->mixed, b.n);
    } else {
        project(a, h, of, &b, &in->acts, &clearing);
        gpu_attend(&c->gpu, &b, of, a->q, a->scratch, c->o.n_ctx, &a->mixed, codes);
    }
    gpu_matmul_partial(&c->gpu, &h->o, &a->mixed, b.n, &sums->of, false);
}

/* Steps that go on from one another are alike until the context has doubled. */
static uint32_t round_up(uint32_t positions, uint32_t n_ctx)
{
    enum { LEAST = 256 };
    uint32_t most = LEAST;
    while (most < positions)
        most *= 2;
    return most < n_ctx ? most : n_ctx;
}

void cuda_attention_prepare(struct attention *a, const struct batch *b)
{
    if (a->q) /* there are heads */
        cuda_tables_upload(a->tables, b);
}

void cuda_attention_compute(struct attention *a, const struct work *w, const struct input *in, const struct sums *sums)
{
    struct cuda *c = a->c;
    const struct heads *h = &a->heads[w->layer];
    const uint32_t most = cuda_tables_upload(a->tables, w->batch);
    c->counts.bytes += heads_bytes(h);
    if (!c->lost) /* tables that did not arrive may be any */
        queue_add(c, &(struct operation){.launch = launch, .object = a, .in = in, .sums = sums, .n = w->n,
                                         .most_positions = w->n > QUEUED_TOKENS ? most : round_up(most, c->o.n_ctx),
                                         .at.layer = w->layer});
}
