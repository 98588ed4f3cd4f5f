#include "device/cpu/latent.h"

#include <string.h>
#include "device/decisions.h"

static bool comes_low(const struct latent_work *w) { return w->c->hp->latent.q_rank > 0; }

/* ---- before ---- */

/* Groups of what reads x: of queries, or what these come through, and of c with its turned key. */
static void project_groups(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct latent_work *w = arg;
    const struct packed *q = comes_low(w) ? &w->h->q_low : &w->h->q, *k = &w->h->k;
    float *y = comes_low(w) ? w->room->low.f32 : w->room->query;
    (void)thread;
    if (begin < q->groups)
        w->c->o.kernels->matmul(q, begin, end < q->groups ? end : q->groups, w->x, w->n, y, q->rows);
    if (end > q->groups)
        w->c->o.kernels->matmul(k, begin > q->groups ? begin - q->groups : 0, end - q->groups, w->x, w->n,
                                w->room->kept, k->rows);
}

static void norm_low(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct latent_work *w = arg;
    struct acts *low = &w->room->low;
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        w->c->o.kernels->rms_norm(low->f32 + t * low->cols, w->h->q_low_norm, low->cols, w->c->hp->norm_eps,
                                  low->f32 + t * low->cols);
    if (dtype_is_quantised(w->h->q.type))
        w->c->o.kernels->quantize(low, begin, end);
}

static void query_groups(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct latent_work *w = arg;
    (void)thread;
    w->c->o.kernels->matmul(&w->h->q, begin, end, &w->room->low, w->n, w->room->query, w->h->q.rows);
}

/* The token's c and turned key. */
static void keep(const struct latent_work *w, int64_t t)
{
    const struct hparams *hp = w->c->hp;
    const struct kernels *k = w->c->o.kernels;
    float *c = w->room->kept + t * kept_key(hp);
    k->rms_norm(c, w->h->c_norm, hp->latent.rank, hp->norm_eps, c);
    k->rope(c + hp->latent.rank, w->cos_sin + t * hp->n_rot, 1, hp->n_rot, hp->n_rot / 2, hp->rope_neox);
    kv_keep(w->kv, k, w->batch, (uint32_t)t, c, c);
}

/* Queries in their two parts. */
static void part_queries(const struct latent_work *w, int64_t t)
{
    const struct hparams *hp = w->c->hp;
    const int64_t plain = hp->head_dim - hp->n_rot, key = kept_key(hp);
    float *from = w->room->query + t * w->heads * hp->head_dim, *q = w->q + t * w->heads * key;
    const uint32_t position = batch_position(w->batch, (uint32_t)t);
    w->c->o.kernels->rope(from + plain, w->cos_sin + t * hp->n_rot, w->heads, hp->head_dim, hp->n_rot / 2,
                          hp->rope_neox);
    if (hp->temper != 0)
        multiply(from, w->heads * hp->head_dim, model_temper(hp, position));
    for (int64_t h = 0; h < w->heads; h++, from += hp->head_dim, q += key) {
        memcpy(w->room->plain.f32 + (h * w->n + t) * plain, from, (size_t)plain * sizeof *from);
        memcpy(q + hp->latent.rank, from + plain, (size_t)hp->n_rot * sizeof *from);
    }
}

static void turn_tokens(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct latent_work *w = arg;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        keep(w, t);
        part_queries(w, t);
    }
}

/* The tokens of head h, times its rows of m: y[t * y_stride + row of all heads]. */
static void multiply_head(const struct latent_work *w, const struct packed *m, struct acts *x, int64_t h, int64_t rows,
                          float *y, int64_t y_stride)
{
    const int64_t groups = rows / ROW_GROUP;
    if (dtype_is_quantised(m->type))
        w->c->o.kernels->quantize(x, h * w->n, (h + 1) * w->n);
    const struct acts own = acts_slice(x, h * w->n, 0, x->cols);
    w->c->o.kernels->matmul(m, h * groups, (h + 1) * groups, &own, w->n, y, y_stride);
}

/* Behind each head's own place lie the turned values of those before it. */
static void bring_in(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct latent_work *w = arg;
    const struct hparams *hp = w->c->hp;
    (void)thread;
    for (int64_t h = begin; h < end; h++)
        multiply_head(w, &w->h->q_in, &w->room->plain, h, hp->latent.rank, w->q + h * hp->n_rot,
                      w->heads * kept_key(hp));
}

void latent_project(struct latent_work *w)
{
    struct pool *pool = w->c->o.pool;
    const int64_t groups = (comes_low(w) ? w->h->q_low.groups : w->h->q.groups) + w->h->k.groups;
    pool_for(pool, groups, group_grain(w->c, groups, w->n), project_groups, w);
    if (comes_low(w)) {
        pool_for(pool, w->n, 4, norm_low, w);
        pool_for(pool, w->h->q.groups, group_grain(w->c, w->h->q.groups, w->n), query_groups, w);
    }
    pool_for(pool, w->n, 4, turn_tokens, w);
    pool_for(pool, w->heads, 1, bring_in, w);
}

/* ---- after ---- */

static void bring_out(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct latent_work *w = arg;
    const int64_t value = w->c->hp->value_dim;
    (void)thread;
    for (int64_t h = begin; h < end; h++)
        multiply_head(w, &w->h->c_out, &w->room->mixed, h, value, w->values, w->heads * value);
}

void latent_read(struct latent_work *w)
{
    pool_for(w->c->o.pool, w->heads, 1, bring_out, w);
}
