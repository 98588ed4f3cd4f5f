/* An owner's part of the attention block: o(attention(rope(qkv(x)))) of its KV heads and the query heads that share
 * them (Vaswani et al., 2017; one KV head: Shazeer, 2019; grouped queries: Ainslie et al., 2023; sliding window: Jiang et
 * al., Mistral 7B, 2023). The output projection is summed in segments that end with head units (kernels.h, SEGMENT_GRID), so the
 * parts of all owners add up to the same bits wherever the heads are cut. */
#include <math.h>
#include <string.h>

#include "base/exactmath.h"
#include "worker/internal.h"

struct attention {
    struct worker *w;
    const struct heads *h;
    const struct acts *x;
    uint32_t position, n;
    int64_t n_q, n_kv, shared; /* own query heads, own KV heads; query heads of each */
    double *sum;               /* [n, d] */
    /* A piece is some tokens of some of the query heads that share a KV head, QUERY_ROWS together at most. */
    int64_t heads_per_piece, tokens_per_piece, head_pieces, token_pieces;
};

/* Groups of q, k and v, counted through. */
static void project_groups(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct attention *a = arg;
    const struct worker *w = a->w;
    (void)thread;
    const struct { const struct packed *m; float *y; } part[] = {{&a->h->q, w->q}, {&a->h->k, w->k}, {&a->h->v, w->v}};
    int64_t first = 0;
    for (int i = 0; i < 3; i++) {
        int64_t g0 = begin > first ? begin - first : 0;
        int64_t g1 = end - first < part[i].m->groups ? end - first : part[i].m->groups;
        if (g0 < g1)
            w->o.kernels->matmul(part[i].m, g0, g1, a->x, a->n, part[i].y, part[i].m->rows);
        first += part[i].m->groups;
    }
}

static void norm_heads(const struct kernels *k, float *x, const float *norm, int64_t n_heads, const struct hparams *hp)
{
    for (int64_t h = 0; norm && h < n_heads; h++)
        k->rms_norm(x + h * hp->head_dim, norm, hp->head_dim, hp->norm_eps, x + h * hp->head_dim);
}

/* Bias, head norm and rotation of each token's q and k; k and v go into the cache. */
static void rotate_tokens(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct attention *a = arg;
    const struct worker *w = a->w;
    const struct hparams *hp = &w->o.model->hp;
    const struct kernels *k = w->o.kernels;
    const int64_t heads = a->n_q * hp->head_dim, kv_heads = a->n_kv * hp->head_dim;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        float *q = w->q + t * heads, *key = w->k + t * kv_heads, *value = w->v + t * kv_heads;
        const float *angles = w->angles.cos_sin + t * hp->n_rot;
        if (a->h->q_bias)
            k->add(q, a->h->q_bias, heads);
        if (a->h->k_bias)
            k->add(key, a->h->k_bias, kv_heads);
        if (a->h->v_bias)
            k->add(value, a->h->v_bias, kv_heads);
        norm_heads(k, q, a->h->q_norm, a->n_q, hp);
        norm_heads(k, key, a->h->k_norm, a->n_kv, hp);
        if (hp->n_rot) {
            k->rope(q, angles, a->n_q, hp->head_dim, hp->n_rot / 2, hp->rope_neox);
            k->rope(key, angles, a->n_kv, hp->head_dim, hp->n_rot / 2, hp->rope_neox);
        }
        kv_store(w, a->h, a->position + (uint32_t)t, key, value);
    }
}

/* Own KV head h's pages of positions [begin, end). */
static void find_pages(const struct attention *a, int64_t h, int64_t begin, int64_t end,
                       struct attention_scratch *scratch)
{
    for (int64_t page = begin / KV_PAGE; page * KV_PAGE < end; page++) {
        scratch->keys[page] = kv_keys(a->w, a->h, page, h);
        scratch->values[page] = kv_values(a->w, a->h, page, h);
    }
}

/* Own query heads [q0, q0 + heads), which share own KV head h, for tokens [t0, t1). */
static void attend_piece(const struct attention *a, int64_t h, int64_t q0, int64_t heads, int64_t t0, int64_t t1,
                         struct attention_scratch *scratch)
{
    const struct worker *w = a->w;
    const struct hparams *hp = &w->o.model->hp;
    const struct kernels *k = w->o.kernels;
    const int64_t dim = hp->head_dim, stride = w->score_stride;
    const int64_t row = a->n_q * dim, rows = (t1 - t0) * heads;
    int64_t begin[QUERY_ROWS], end[QUERY_ROWS];
    float inverse[QUERY_ROWS];
    for (int64_t i = 0; i < rows; i++) {
        int64_t p = a->position + t0 + i / heads;
        begin[i] = hp->window && p >= hp->window ? p - hp->window + 1 : 0;
        end[i] = p + 1;
        if (i % heads == 0)
            memcpy(scratch->q + i * dim, w->q + (t0 + i / heads) * row + q0 * dim,
                   (size_t)(heads * dim) * sizeof(float));
    }
    int64_t origin = begin[0] / KV_TILE * KV_TILE;
    find_pages(a, h, origin, end[rows - 1], scratch);
    k->attn_scores(scratch->q, dim, rows, scratch->keys, dim, origin, end[rows - 1], 1.0f / sqrtf((float)dim),
                   scratch->scores, stride);
    for (int64_t i = 0; i < rows; i++)
        inverse[i] = k->attn_weights(scratch->scores + i * stride + begin[i] - origin, end[i] - begin[i], begin[i]);
    k->attn_mix(scratch->scores, stride, origin, rows, begin, end, inverse, scratch->values, dim, scratch->out, dim);
    for (int64_t i = 0; i < rows; i += heads)
        memcpy(w->mixed.f32 + (t0 + i / heads) * row + q0 * dim, scratch->out + i * dim,
               (size_t)(heads * dim) * sizeof(float));
}

static void attend_pieces(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct attention *a = arg;
    for (int64_t i = begin; i < end; i++) {
        int64_t t0 = i % a->token_pieces * a->tokens_per_piece, part = i / a->token_pieces;
        int64_t t1 = t0 + a->tokens_per_piece < a->n ? t0 + a->tokens_per_piece : a->n;
        int64_t h = part / a->head_pieces, first = part % a->head_pieces * a->heads_per_piece;
        int64_t heads = a->shared - first < a->heads_per_piece ? a->shared - first : a->heads_per_piece;
        attend_piece(a, h, h * a->shared + first, heads, t0, t1, &a->w->scratch[thread]);
    }
}

static void quantise_mixed(void *arg, int64_t begin, int64_t end, int thread)
{
    struct worker *w = arg;
    (void)thread;
    w->o.kernels->quantize(&w->mixed, begin, end);
}

/* Output projection of some groups. */
static void output_groups(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct attention *a = arg;
    (void)thread;
    a->w->o.kernels->matmul_partial(&a->h->o, begin, end, &a->w->mixed, a->n, a->sum, a->h->o.rows);
}

/* w->angles of n tokens from position on; all layers of a step have the same. */
static void compute_angles(struct worker *w, uint32_t position, uint32_t n)
{
    const struct hparams *hp = &w->o.model->hp;
    struct angles *a = &w->angles;
    if (a->position == position && a->n >= n)
        return;
    for (uint32_t t = 0; t < n; t++)
        rope_angles(w->rope_freq, hp->n_rot / 2, (double)(position + t) * hp->rope_scale, a->cos_sin + t * hp->n_rot);
    a->position = position;
    a->n = n;
}

void attention_compute(struct worker *w, int layer, const struct acts *x, uint32_t position, uint32_t n, double *sum)
{
    const struct hparams *hp = &w->o.model->hp;
    struct heads *h = &w->heads[layer];
    struct attention a = {.w = w, .h = h, .x = x, .position = position, .n = n, .sum = sum,
                          .n_kv = h->end - h->begin, .shared = hp->n_heads / hp->n_kv_heads};
    a.n_q = a.n_kv * a.shared;
    a.heads_per_piece = a.shared < QUERY_ROWS ? a.shared : QUERY_ROWS;
    a.head_pieces = (a.shared + a.heads_per_piece - 1) / a.heads_per_piece;
    a.tokens_per_piece = QUERY_ROWS / a.heads_per_piece;
    a.token_pieces = (n + a.tokens_per_piece - 1) / a.tokens_per_piece;
    const int64_t groups = h->q.groups + h->k.groups + h->v.groups;

    compute_angles(w, position, n);
    pool_for(w->pool, groups, group_grain(w, groups), project_groups, &a);
    pool_for(w->pool, n, 4, rotate_tokens, &a);
    w->mixed.cols = a.n_q * hp->head_dim;
    pool_for(w->pool, a.n_kv * a.head_pieces * a.token_pieces, 1, attend_pieces, &a);
    if (readers_of(w, MIXED, layer).q8)
        pool_for(w->pool, n, 4, quantise_mixed, w);
    pool_for(w->pool, h->o.groups, group_grain(w, h->o.groups), output_groups, &a);
    h->length = position + n;
    w->counts.bytes += packed_bytes(&h->q) + packed_bytes(&h->k) + packed_bytes(&h->v) + packed_bytes(&h->o);
}
