/* The attention block: x += o(attention(rope(qkv(norm(x))))) (Vaswani et al., 2017; one KV head: Shazeer, 2019; grouped
 * queries: Ainslie et al., 2023; sliding window: Jiang et al., Mistral 7B, 2023). */
#include <math.h>
#include <string.h>

#include "worker/internal.h"

struct attention {
    struct worker *w;
    struct stage_layer *l;
    uint32_t position, n;
    /* A piece is some tokens of some of the query heads that share a KV head, QUERY_ROWS together at most. */
    int64_t heads_per_piece, tokens_per_piece, head_pieces, token_pieces;
};

/* Groups of q, k and v, counted through. */
static void project_groups(void *arg, int64_t begin, int64_t end, int thread)
{
    struct attention *a = arg;
    struct stage *s = &a->w->stage;
    (void)thread;
    const struct { const struct packed *m; float *y; } part[] = {{&a->l->q, s->q}, {&a->l->k, s->k}, {&a->l->v, s->v}};
    int64_t first = 0;
    for (int i = 0; i < 3; i++) {
        int64_t g0 = begin > first ? begin - first : 0;
        int64_t g1 = end - first < part[i].m->groups ? end - first : part[i].m->groups;
        if (g0 < g1)
            a->w->o.kernels->matmul(part[i].m, g0, g1, &s->in, a->n, part[i].y, part[i].m->rows);
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
    struct attention *a = arg;
    struct stage *s = &a->w->stage;
    const struct hparams *hp = &a->w->o.model->hp;
    const struct kernels *k = a->w->o.kernels;
    const int64_t heads = hp->n_heads * hp->head_dim, kv_heads = hp->n_kv_heads * hp->head_dim;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        float *q = s->q + t * heads, *key = s->k + t * kv_heads, *value = s->v + t * kv_heads;
        const float *angles = s->cos_sin + t * hp->n_rot;
        if (a->l->q_bias)
            k->add(q, a->l->q_bias, heads);
        if (a->l->k_bias)
            k->add(key, a->l->k_bias, kv_heads);
        if (a->l->v_bias)
            k->add(value, a->l->v_bias, kv_heads);
        norm_heads(k, q, a->l->q_norm, hp->n_heads, hp);
        norm_heads(k, key, a->l->k_norm, hp->n_kv_heads, hp);
        if (hp->n_rot) {
            k->rope(q, angles, hp->n_heads, hp->head_dim, hp->n_rot / 2, hp->rope_neox);
            k->rope(key, angles, hp->n_kv_heads, hp->head_dim, hp->n_rot / 2, hp->rope_neox);
        }
        kv_store(a->w, a->l, a->position + (uint32_t)t, key, value);
    }
}

/* Query heads [q0, q0 + heads), which share KV head h, for tokens [t0, t1). */
static void attend_piece(struct attention *a, int64_t h, int64_t q0, int64_t heads, int64_t t0, int64_t t1,
                         struct attention_scratch *scratch)
{
    const struct hparams *hp = &a->w->o.model->hp;
    const struct kernels *k = a->w->o.kernels;
    struct stage *s = &a->w->stage;
    const int64_t dim = hp->head_dim, stride = s->score_stride;
    const int64_t row = hp->n_heads * dim, rows = (t1 - t0) * heads;
    int64_t begin[QUERY_ROWS], end[QUERY_ROWS];
    for (int64_t i = 0; i < rows; i++) {
        int64_t p = a->position + t0 + i / heads;
        begin[i] = hp->window && p >= hp->window ? p - hp->window + 1 : 0;
        end[i] = p + 1;
        if (i % heads == 0)
            memcpy(scratch->q + i * dim, s->q + (t0 + i / heads) * row + q0 * dim,
                   (size_t)(heads * dim) * sizeof(float));
    }
    int64_t origin = begin[0] / KV_TILE * KV_TILE;
    k->attn_scores(scratch->q, dim, rows, kv_keys(a->w, a->l, h), dim, origin, end[rows - 1],
                   1.0f / sqrtf((float)dim), scratch->scores, stride);
    for (int64_t i = 0; i < rows; i++)
        k->softmax(scratch->scores + i * stride + begin[i] - origin, end[i] - begin[i]);
    k->attn_mix(scratch->scores, stride, origin, rows, begin, end, kv_values(a->w, a->l, h), dim, scratch->out, dim);
    for (int64_t i = 0; i < rows; i += heads)
        memcpy(s->mixed.f32 + (t0 + i / heads) * row + q0 * dim, scratch->out + i * dim,
               (size_t)(heads * dim) * sizeof(float));
}

static void attend_pieces(void *arg, int64_t begin, int64_t end, int thread)
{
    struct attention *a = arg;
    const struct hparams *hp = &a->w->o.model->hp;
    const int64_t shared = hp->n_heads / hp->n_kv_heads;
    for (int64_t i = begin; i < end; i++) {
        int64_t t0 = i % a->token_pieces * a->tokens_per_piece, part = i / a->token_pieces;
        int64_t t1 = t0 + a->tokens_per_piece < a->n ? t0 + a->tokens_per_piece : a->n;
        int64_t h = part / a->head_pieces, first = part % a->head_pieces * a->heads_per_piece;
        int64_t heads = shared - first < a->heads_per_piece ? shared - first : a->heads_per_piece;
        attend_piece(a, h, h * shared + first, heads, t0, t1, &a->w->stage.scratch[thread]);
    }
}

static void quantise_mixed(void *arg, int64_t begin, int64_t end, int thread)
{
    struct attention *a = arg;
    (void)thread;
    a->w->o.kernels->quantize(&a->w->stage.mixed, begin, end);
}

/* Output projection of some groups, added to the residual stream, or left in y while the FFN reads x. */
static void output_groups(void *arg, int64_t begin, int64_t end, int thread)
{
    struct attention *a = arg;
    struct stage *s = &a->w->stage;
    const struct kernels *k = a->w->o.kernels;
    const bool parallel = a->w->o.model->hp.parallel;
    const int64_t d = a->w->o.model->hp.d_model, r0 = begin * ROW_GROUP;
    const int64_t r1 = end * ROW_GROUP < d ? end * ROW_GROUP : d;
    (void)thread;
    k->matmul(&a->l->o, begin, end, &s->mixed, a->n, s->y, d);
    for (int64_t t = 0; t < a->n; t++) {
        if (a->l->o_bias)
            k->add(s->y + t * d + r0, a->l->o_bias + r0, r1 - r0);
        if (!parallel)
            k->add(s->x + t * d + r0, s->y + t * d + r0, r1 - r0);
    }
}

void attention_block(struct worker *w, struct stage_layer *l, uint32_t position, uint32_t n)
{
    const struct hparams *hp = &w->o.model->hp;
    const int64_t shared = hp->n_heads / hp->n_kv_heads;
    struct attention a = {.w = w, .l = l, .position = position, .n = n};
    a.heads_per_piece = shared < QUERY_ROWS ? shared : QUERY_ROWS;
    a.head_pieces = (shared + a.heads_per_piece - 1) / a.heads_per_piece;
    a.tokens_per_piece = QUERY_ROWS / a.heads_per_piece;
    a.token_pieces = (n + a.tokens_per_piece - 1) / a.tokens_per_piece;
    int64_t groups = l->q.groups + l->k.groups + l->v.groups;

    norm_tokens(w, l->attn_norm, n,
                dtype_is_quantised(l->q.type) || dtype_is_quantised(l->k.type) || dtype_is_quantised(l->v.type));
    pool_for(w->pool, groups, group_grain(w, groups), project_groups, &a);
    pool_for(w->pool, n, 4, rotate_tokens, &a);
    pool_for(w->pool, hp->n_kv_heads * a.head_pieces * a.token_pieces, 1, attend_pieces, &a);
    if (dtype_is_quantised(l->o.type))
        pool_for(w->pool, n, 4, quantise_mixed, &a);
    pool_for(w->pool, l->o.groups, group_grain(w, l->o.groups), output_groups, &a);
}
