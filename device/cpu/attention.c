#include "device/cpu/attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "device/cpu/angles.h"
#include "device/cpu/kv.h"
#include "device/cpu/latent.h"
#include "device/decisions.h"
#include "device/heads.h"
#include "device/readers.h"

enum { QUERY_ROWS = 32 }; /* query vectors of one KV head that one piece of attention takes together */

/* What a thread needs. */
struct attention_scratch {
    float *q, *out;                  /* [QUERY_ROWS, key], [QUERY_ROWS, value] */
    float *scores;                   /* [QUERY_ROWS, score_stride] */
    const uint16_t **keys, **values; /* [pages of n_ctx positions] of a KV head */
};

/* Some tokens of a run: what a piece of attention takes of them. */
struct stretch {
    const struct run *run;
    uint32_t first, t0;              /* the batch's token that the run begins with; the run's that it begins with */
};

struct attention {
    struct cpu *c;
    struct heads *heads;             /* [n_layers] */
    struct kv *kv;                   /* [n_layers] */
    struct angles angles[MODEL_ROPES];
    float *q, *k, *v;                /* [n, own heads of a layer * head_dim] */
    float *gate;                     /* as q; NULL: what heads give has no gate */
    struct acts mixed;               /* [n, own query heads of a layer * value_dim] what attention gives */
    struct latent_room latent;       /* where keys and values are that: then there are no k, v; q is as long as keys */
    struct stretch *stretches;       /* [n_batch] of the batch at hand */
    struct attention_scratch *scratch; /* [n_threads] */
    int64_t score_stride;
};

/* ---- memory ---- */

static status check_runs(const struct model *m)
{
    if (kept_key(&m->hp) <= MOST_HEAD_DIM)
        return ST_OK;
    log_error("%s: heads have %lld values; at most %d can run", gguf_path(m->file), (long long)kept_key(&m->hp),
              MOST_HEAD_DIM);
    return ST_UNSUPPORTED;
}

status attention_new(struct cpu *c, struct attention **out)
{
    status st = check_runs(c->o.model);
    if (st)
        return st;
    struct attention *a = calloc(1, sizeof *a);
    if (a) {
        a->c = c;
        a->heads = calloc((size_t)c->hp->n_layers, sizeof *a->heads);
        a->kv = calloc((size_t)c->hp->n_layers, sizeof *a->kv);
        a->scratch = calloc((size_t)c->o.n_threads, sizeof *a->scratch);
    }
    if (!a || !a->heads || !a->kv || !a->scratch) {
        log_error("out of memory for the tables of attention");
        st = ST_NOMEM;
    }
    st = st ? st : angles_new(c, a->angles);
    if (st) {
        attention_free(a);
        return st;
    }
    *out = a;
    return ST_OK;
}

void attention_free(struct attention *a)
{
    if (!a)
        return;
    free(a->heads);
    free(a->kv);
    free(a->scratch);
    angles_free(a->angles);
    free(a);
}

void attention_lay_weights(struct attention *a, int layer)
{
    const struct laying to = cpu_laying(a->c);
    heads_lay(&to, layer, &a->heads[layer]);
}

void attention_lay_pages(struct attention *a)
{
    for (int i = 0; i < a->c->hp->n_layers; i++)
        kv_lay(a->c, &a->kv[i], a->heads[i].end - a->heads[i].begin);
}

void attention_lay_buffers(struct attention *a)
{
    struct cpu *c = a->c;
    const struct hparams *hp = c->hp;
    const int64_t n = c->o.n_batch;
    const size_t pages = ((size_t)c->o.n_ctx + KV_PAGE - 1) / KV_PAGE;
    int64_t heads = 0; /* the most of a layer */
    for (int i = 0; i < hp->n_layers; i++)
        heads = a->heads[i].end - a->heads[i].begin > heads ? a->heads[i].end - a->heads[i].begin : heads;
    if (!heads)
        return;
    angles_lay(c, a->angles);
    a->stretches = arena_alloc(&c->arena, (size_t)n * sizeof *a->stretches);
    a->q = lay_floats(&c->arena, n * heads * queries(hp) * kept_key(hp));
    if (hp->gated)
        a->gate = lay_floats(&c->arena, n * heads * queries(hp) * hp->head_dim);
    if (hp->latent.rank) {
        latent_room_lay(&c->arena, c->hp, n, heads, &a->latent);
    } else {
        a->k = lay_floats(&c->arena, n * heads * hp->head_dim);
        a->v = lay_floats(&c->arena, n * heads * hp->head_dim);
    }
    lay_acts(&c->arena, &a->mixed, n, heads * queries(hp) * hp->value_dim);
    a->score_stride = (c->o.n_ctx + 2 * KV_TILE - 1) / KV_TILE * KV_TILE;
    for (int t = 0; t < c->o.n_threads; t++) {
        a->scratch[t].q = lay_floats(&c->arena, QUERY_ROWS * kept_key(hp));
        a->scratch[t].out = lay_floats(&c->arena, QUERY_ROWS * kept_value(hp));
        a->scratch[t].scores = lay_floats(&c->arena, QUERY_ROWS * a->score_stride);
        a->scratch[t].keys = arena_alloc(&c->arena, pages * sizeof *a->scratch->keys);
        a->scratch[t].values = arena_alloc(&c->arena, pages * sizeof *a->scratch->values);
    }
}

void attention_load(struct attention *a, struct loading *l, int layer)
{
    if (layer == 0)
        angles_load(a->c, l, a->angles);
    heads_load(l, layer, &a->heads[layer]);
}

void attention_copy_page(struct attention *a, int layer, uint32_t from, uint32_t to)
{
    kv_copy_page(&a->kv[layer], from, to);
}

/* ---- computing ---- */

/* A batch in a layer. A piece is some tokens of a run times some of the query heads that share a KV head, QUERY_ROWS
 * together at most. */
struct attending {
    struct attention *a;
    const struct cpu *c;
    const struct heads *h;
    const struct kv *kv;
    const struct batch *batch;
    const struct angles *angles;  /* NULL: nothing turns */
    int64_t window;               /* 0: none */
    const struct acts *x;
    int64_t n, n_q, n_kv, shared; /* tokens; own query heads, heads of the cache; query heads of each */
    float *out;                   /* what own query head h mixes for token t: at out + h * of_head + t * of_token */
    int64_t of_head, of_token;
    double *sum;                  /* [n, d] */
    int64_t heads_per_piece, tokens_per_piece, head_pieces, token_pieces;
};

/* Groups of q, k, v and gates, counted through. */
static void project_groups(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct attending *a = arg;
    const struct heads *h = a->h;
    (void)thread;
    const struct { const struct packed *m; float *y; } part[] = {{&h->q, a->a->q}, {&h->k, a->a->k}, {&h->v, a->a->v},
                                                                 {&h->gate, a->a->gate}};
    int64_t first = 0;
    for (int i = 0; i < 4; i++) {
        int64_t g0 = begin > first ? begin - first : 0;
        int64_t g1 = end - first < part[i].m->groups ? end - first : part[i].m->groups;
        if (g0 < g1)
            a->c->o.kernels->matmul(part[i].m, g0, g1, a->x, a->n, part[i].y, part[i].m->rows);
        first += part[i].m->groups;
    }
}

/* Each head by itself, or all of them as one vector: then they are all here. */
static void norm_heads(const struct kernels *k, float *x, const float *norm, int64_t n_heads, const struct hparams *hp)
{
    const int64_t n = n_heads * hp->head_dim, at_once = hp->whole_norms ? n : hp->head_dim;
    for (int64_t i = 0; norm && i < n; i += at_once)
        k->rms_norm(x + i, norm, at_once, hp->norm_eps, x + i);
}

/* What queries and keys at the batch's token t are turned by; and what queries are multiplied by. */
static void turn(const struct attending *a, int64_t t, float *q, float *key)
{
    const struct hparams *hp = a->c->hp;
    const struct kernels *k = a->c->o.kernels;
    const float *angles = a->angles->cos_sin + t * hp->n_rot;
    k->rope(q, angles, a->n_q, hp->head_dim, hp->n_rot / 2, hp->rope_neox);
    k->rope(key, angles, a->n_kv, hp->head_dim, hp->n_rot / 2, hp->rope_neox);
    if (hp->temper != 0)
        multiply(q, a->n_q * hp->head_dim, model_temper(hp, a->angles->position[t]));
}

/* Bias, head norm and rotation of each token's q and k; k and v go into the cache. */
static void rotate_tokens(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct attending *a = arg;
    const struct hparams *hp = a->c->hp;
    const struct kernels *k = a->c->o.kernels;
    const int64_t heads = a->n_q * hp->head_dim, kv_heads = a->n_kv * hp->head_dim;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        float *q = a->a->q + t * heads, *key = a->a->k + t * kv_heads, *value = a->a->v + t * kv_heads;
        if (a->h->q_bias)
            k->add(q, a->h->q_bias, heads);
        if (a->h->k_bias)
            k->add(key, a->h->k_bias, kv_heads);
        if (a->h->v_bias)
            k->add(value, a->h->v_bias, kv_heads);
        norm_heads(k, q, a->h->q_norm, a->n_q, hp);
        norm_heads(k, key, a->h->k_norm, a->n_kv, hp);
        if (a->angles)
            turn(a, t, q, key);
        kv_keep(a->kv, k, a->batch, (uint32_t)t, key, value);
    }
}

/* Some query vectors: `heads` own query heads from q0 on, which share own KV head h, for tokens [t0, t1) of a run whose
 * first is the batch's token `first`. */
struct attention_piece {
    const struct run *run;
    int64_t first, t0, t1, h, q0, heads;
};

/* Its KV head's pages of positions [begin, end). */
static void find_pages(const struct attending *a, const struct attention_piece *p, int64_t begin, int64_t end,
                       struct attention_scratch *scratch)
{
    const struct kv *kv = a->kv;
    const uint32_t *table = kv_table(a->batch, p->run);
    for (int64_t i = begin / KV_PAGE; i * KV_PAGE < end; i++) {
        scratch->keys[i] = kv_keys(kv, table[i], p->h);
        scratch->values[i] = kv_values(kv, table[i], p->h);
    }
}

static void attend_piece(const struct attending *a, const struct attention_piece *p, struct attention_scratch *scratch)
{
    const struct hparams *hp = a->c->hp;
    const struct kernels *k = a->c->o.kernels;
    const int64_t dim = a->kv->key, value = a->kv->value, stride = a->a->score_stride, heads = p->heads;
    const int64_t row = a->n_q * dim, rows = (p->t1 - p->t0) * heads, at = (p->first + p->t0) * row + p->q0 * dim;
    int64_t begin[QUERY_ROWS], end[QUERY_ROWS];
    float inverse[QUERY_ROWS];
    for (int64_t i = 0; i < rows; i++) {
        int64_t position = p->run->position + p->t0 + i / heads;
        begin[i] = a->window && position >= a->window ? position - a->window + 1 : 0;
        end[i] = position + 1;
        if (i % heads == 0)
            memcpy(scratch->q + i * dim, a->a->q + at + i / heads * row, (size_t)(heads * dim) * sizeof(float));
    }
    int64_t origin = begin[0] / KV_TILE * KV_TILE;
    find_pages(a, p, origin, end[rows - 1], scratch);
    k->attn_scores(scratch->q, dim, rows, scratch->keys, dim, origin, end[rows - 1], hp->attn_scale, scratch->scores,
                   stride);
    for (int64_t i = 0; i < rows; i++) {
        float *score = scratch->scores + i * stride + begin[i] - origin;
        const int64_t n = end[i] - begin[i];
        if (hp->attn_softcap > 0)
            k->softcap(score, n, hp->attn_softcap);
        inverse[i] = k->attn_weights(score, n, begin[i], a->h->sinks ? a->h->sinks[p->q0 + i % heads] : -INFINITY);
    }
    k->attn_mix(scratch->scores, stride, origin, rows, begin, end, inverse, scratch->values, value, scratch->out,
                value);
    for (int64_t i = 0; i < rows; i++)
        memcpy(a->out + (p->q0 + i % heads) * a->of_head + (p->first + p->t0 + i / heads) * a->of_token,
               scratch->out + i * value, (size_t)value * sizeof(float));
}

static void attend_pieces(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct attending *a = arg;
    for (int64_t i = begin; i < end; i++) {
        const struct stretch *s = &a->a->stretches[i % a->token_pieces];
        const int64_t part = i / a->token_pieces, t1 = s->t0 + a->tokens_per_piece;
        struct attention_piece p = {.run = s->run, .first = s->first, .t0 = s->t0, .h = part / a->head_pieces};
        p.t1 = t1 < p.run->n ? t1 : p.run->n;
        const int64_t head = part % a->head_pieces * a->heads_per_piece;
        p.q0 = p.h * a->shared + head;
        p.heads = a->shared - head < a->heads_per_piece ? a->shared - head : a->heads_per_piece;
        attend_piece(a, &p, &a->a->scratch[thread]);
    }
}

static void gate_mixed(void *arg, int64_t begin, int64_t end, int thread)
{
    struct attention *a = arg;
    const int64_t cols = a->mixed.cols;
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        a->c->o.kernels->sigmoid_gate(a->mixed.f32 + t * cols, a->gate + t * cols, cols);
}

static void quantise_mixed(void *arg, int64_t begin, int64_t end, int thread)
{
    struct attention *a = arg;
    (void)thread;
    a->c->o.kernels->quantize(&a->mixed, begin, end);
}

/* Output projection of some groups. */
static void output_groups(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct attending *a = arg;
    (void)thread;
    a->c->o.kernels->matmul_partial(&a->h->o, begin, end, &a->a->mixed, a->n, a->sum, a->h->o.rows);
}

/* The runs in stretches of so many tokens. Returns how many there are. */
static int64_t part_runs(struct attention *a, const struct batch *b, int64_t tokens)
{
    int64_t n = 0;
    for (uint32_t r = 0, first = 0; r < b->n_runs; first += b->runs[r++].n)
        for (int64_t t = 0; t < b->runs[r].n; t += tokens)
            a->stretches[n++] = (struct stretch){&b->runs[r], first, (uint32_t)t};
    return n;
}

/* Queries as they are compared with keys, which are kept. */
static void project(struct attending *a)
{
    struct cpu *c = a->a->c;
    const struct heads *h = a->h;
    const int64_t groups = h->q.groups + h->k.groups + h->v.groups + h->gate.groups;
    pool_for(c->o.pool, groups, group_grain(c, groups, a->n), project_groups, a);
    pool_for(c->o.pool, a->n, 4, rotate_tokens, a);
}

static struct latent_work latent_of(const struct attending *a)
{
    return (struct latent_work){.c = a->c, .room = &a->a->latent, .h = a->h, .kv = a->kv, .batch = a->batch, .x = a->x,
                                .n = a->n, .heads = a->n_q, .cos_sin = a->angles->cos_sin, .q = a->a->q,
                                .values = a->a->mixed.f32};
}

/* How query heads share those of the cache, and where what they mix goes. */
static void arrange(struct attending *a, int64_t own)
{
    const struct hparams *hp = a->c->hp;
    a->n_q = own * queries(hp);
    a->n_kv = a->kv->heads;
    a->shared = a->n_q / a->n_kv;
    a->out = hp->latent.rank ? a->a->latent.mixed.f32 : a->a->mixed.f32;
    a->of_head = hp->latent.rank ? a->n * a->kv->value : a->kv->value;
    a->of_token = hp->latent.rank ? a->kv->value : a->n_q * a->kv->value;
    a->heads_per_piece = a->shared < QUERY_ROWS ? a->shared : QUERY_ROWS;
    a->head_pieces = (a->shared + a->heads_per_piece - 1) / a->heads_per_piece;
    a->tokens_per_piece = QUERY_ROWS / a->heads_per_piece;
    a->token_pieces = part_runs(a->a, a->batch, a->tokens_per_piece);
}

void attention_compute(struct attention *at, const struct work *w, const struct acts *x, double *sum)
{
    struct cpu *c = at->c;
    const struct heads *h = &at->heads[w->layer];
    struct attending a = {.a = at, .c = c, .h = h, .kv = &at->kv[w->layer], .batch = w->batch, .x = x, .n = w->n,
                          .angles = angles_of(c, at->angles, w), .sum = sum, .window = model_window(c->hp, w->layer)};
    arrange(&a, h->end - h->begin);
    at->mixed.cols = a.n_q * c->hp->value_dim;
    struct latent_work latent = c->hp->latent.rank ? latent_of(&a) : (struct latent_work){.n = 0};
    if (latent.n)
        latent_project(&latent);
    else
        project(&a);
    pool_for(c->o.pool, a.n_kv * a.head_pieces * a.token_pieces, 1, attend_pieces, &a);
    if (latent.n)
        latent_read(&latent);
    if (at->gate)
        pool_for(c->o.pool, a.n, 4, gate_mixed, at);
    if (readers_of(&c->o, MIXED, w->layer).q8)
        pool_for(c->o.pool, a.n, 4, quantise_mixed, at);
    pool_for(c->o.pool, h->o.groups, group_grain(c, h->o.groups, a.n), output_groups, &a);
    c->counts.bytes += heads_bytes(h);
}
