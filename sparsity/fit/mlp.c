#include "sparsity/fit/mlp.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "sparsity/fit/linear.h"
#include "sparsity/fit/mlp_inside.h"
#include "sparsity/fit/quantise.h"

enum { RANK_STEP = 32, VALIDATE_PAIRS = 1 << 22, MOMENT_SAMPLES = 4096 };
static const float damping = 0.03f; /* of the mean second moment, when what rounding leaves over is passed on */

bool mlp_possible(int64_t d_model) { return d_model % dtype_block(DT_Q4_0) == 0; }

uint64_t mlp_bytes(int64_t r, int64_t d_model, int64_t d_ff)
{
    return (uint64_t)r * dtype_row_bytes(DT_Q4_0, d_model) + (uint64_t)d_ff * dtype_row_bytes(DT_Q4_0, r);
}

void mlp_free(struct mlp *m)
{
    free((void *)(uintptr_t)m->fc1.data);
    free((void *)(uintptr_t)m->fc2.data);
    *m = (struct mlp){0};
}

/* ---- nets ---- */

static status open_net(const struct mlp_data *d, int64_t r, struct mlp_net *net)
{
    *net = (struct mlp_net){.type = DT_Q4_0, .r = r};
    bool ok = (net->fc1 = products_alloc(r * d->d_model, sizeof(float)));
    ok = ok && (net->fc2 = products_alloc(d->d_ff * r, sizeof(float)));
    ok = ok && (net->fc1_blocks = products_alloc(r, dtype_row_bytes(net->type, d->d_model)));
    ok = ok && (net->fc2_blocks = products_alloc(d->d_ff, dtype_row_bytes(net->type, r)));
    return ok ? ST_OK : ST_NOMEM;
}

static void close_net(struct mlp_net *net)
{
    free(net->fc1);
    free(net->fc2);
    free(net->fc1_blocks);
    free(net->fc2_blocks);
    *net = (struct mlp_net){0};
}

static struct matrix fc1_of(const struct mlp_net *net, const struct mlp_data *d)
{
    return (struct matrix){.type = net->type, .rows = net->r, .cols = d->d_model, .data = net->fc1_blocks,
                           .name = "fc1"};
}

static struct matrix fc2_of(const struct mlp_net *net, const struct mlp_data *d)
{
    return (struct matrix){.type = net->type, .rows = d->d_ff, .cols = net->r, .data = net->fc2_blocks,
                           .name = "fc2"};
}

/* A net's matrix from a found one. */
static void load_blocks(const struct matrix *m, float *w, uint8_t *blocks)
{
    const size_t stride = dtype_row_bytes(m->type, m->cols);
    memcpy(blocks, m->data, (size_t)m->rows * stride);
    for (int64_t i = 0; i < m->rows; i++)
        dequantize_row(m->type, m->data + (size_t)i * stride, m->cols, w + i * m->cols);
}

/* moments [n, n], damped, become what quantise_rows takes. */
static status invert(float *moments, int64_t n)
{
    double trace = 0;
    for (int64_t i = 0; i < n; i++)
        trace += (double)moments[i * n + i];
    for (int64_t i = 0; i < n; i++)
        moments[i * n + i] += damping * (float)(trace / (double)n) + 1e-12f;
    if (linear_inverse_cholesky(moments, n))
        return ST_OK;
    log_error("the inputs of an MLP have no covariance: are there infinities in the samples?");
    return ST_INTERNAL;
}

/* moments [r, r] of the hidden values of some samples. */
static status hidden_moments(const struct mlp_data *d, const struct mlp_net *net, float *moments)
{
    const int64_t r = net->r, n = d->n < MOMENT_SAMPLES ? d->n : MOMENT_SAMPLES;
    float *hidden = products_alloc(n * r, sizeof *hidden);
    if (!hidden)
        return ST_NOMEM;
    const struct product h = {.transpose_b = true, .m = n, .n = r, .k = d->d_model, .a = d->x, .b = net->fc1,
                              .c = hidden};
    linear_product(d->pool, &h);
    for (int64_t i = 0; i < n * r; i++)
        hidden[i] = hidden[i] > 0 ? hidden[i] : 0;
    const struct product hh = {.transpose_a = true, .m = r, .n = r, .k = n, .a = hidden, .b = hidden, .c = moments};
    linear_product(d->pool, &hh);
    for (int64_t i = 0; i < r * r; i++)
        moments[i] /= (float)n;
    free(hidden);
    return ST_OK;
}

status mlp_quantise(const struct mlp_data *d, const struct mlp_factors *f, struct mlp_net *net)
{
    const int64_t n = d->d_model, r = net->r, most = n > r ? n : r;
    float *moments = products_alloc(most * most, sizeof *moments);
    if (!moments)
        return ST_NOMEM;
    memcpy(moments, f->moments, (size_t)(n * n) * sizeof *moments);
    status st = invert(moments, n);
    if (!st) {
        quantise_rows(d->pool, net->type, net->fc1, r, n, moments, net->fc1_blocks);
        st = hidden_moments(d, net, moments);
    }
    if (!st)
        st = invert(moments, r);
    if (!st)
        quantise_rows(d->pool, net->type, net->fc2, d->d_ff, r, moments, net->fc2_blocks);
    free(moments);
    return st;
}

/* ---- judging them ---- */

/* Validating samples, and what fires in them. */
struct trial {
    const struct fit_options *o;
    struct products x;
    bool *live;    /* [n, d_ff] */
    float *logits; /* [n, d_ff] */
};

static status open_trial(const struct layer_sample *s, const struct fit_options *o, const struct mlp_data *d,
                         struct trial *t)
{
    const struct layer_weights *w = &s->model->layers[s->layer];
    const int64_t least = FIT_MIN_SAMPLES / 4, share = VALIDATE_PAIRS / d->d_ff, n_all = s->n - s->n_fit;
    const int64_t n = share < least ? least : share < n_all ? share : n_all;
    float *value2 = NULL;
    *t = (struct trial){.o = o};
    status st = products_open(&t->x, o->kernels, d->pool, n, d->d_model);
    if (st)
        return st;
    for (int64_t i = 0; i < n; i++)
        memcpy(t->x.acts.f32 + i * d->d_model, s->x + (s->n_fit + i * n_all / n) * d->d_model,
               (size_t)d->d_model * sizeof(float));
    products_quantize(&t->x);
    if (!(t->live = products_alloc(n * d->d_ff, sizeof *t->live)) ||
        !(t->logits = products_alloc(n * d->d_ff, sizeof *t->logits)) ||
        (d->weight2 && !(value2 = products_alloc(n * d->d_ff, sizeof *value2))))
        st = ST_NOMEM;
    if (!st)
        st = products_exact(&t->x, w->gate.data ? &w->gate : &w->up, t->logits);
    if (!st && value2)
        st = products_exact(&t->x, &w->up, value2);
    if (!st)
        products_live(t->logits, d->bias, value2, n, d->d_ff, t->live);
    free(value2);
    return st;
}

static void close_trial(struct trial *t)
{
    products_close(&t->x);
    free(t->live);
    free(t->logits);
}

/* What a net's blocks are worth, run as the engine runs them. */
static status judge(struct trial *t, const struct mlp_data *d, const struct mlp_net *net, struct mlp *found)
{
    const struct matrix fc1 = fc1_of(net, d), fc2 = fc2_of(net, d);
    struct products hidden;
    status st = products_open(&hidden, t->o->kernels, d->pool, t->x.n, net->r);
    if (!st)
        st = products_exact(&t->x, &fc1, hidden.acts.f32);
    if (!st) {
        for (int64_t i = 0; i < hidden.n * net->r; i++)
            hidden.acts.f32[i] = hidden.acts.f32[i] > 0 ? hidden.acts.f32[i] : 0;
        products_quantize(&hidden);
        st = products_exact(&hidden, &fc2, t->logits);
    }
    products_close(&hidden);
    const struct margin_rows rows = {t->x.n, d->d_ff};
    const struct margins m = {.parts = &rows, .n_parts = 1, .n = rows.n * rows.width, .margin = t->logits,
                              .live = t->live};
    return st ? st : fit_limit(&m, t->o, &found->threshold, &found->quality);
}

/* ---- sizing and training ---- */

static bool good_enough(const struct fit_options *o, const struct predictor_quality *q)
{
    return q->recall >= o->recall && q->accuracy >= o->accuracy;
}

/* Keeps the net's blocks in *out, whose threshold and quality are its own. */
static void keep(const struct mlp_data *d, struct mlp_net *net, struct mlp *out)
{
    free((void *)(uintptr_t)out->fc1.data);
    free((void *)(uintptr_t)out->fc2.data);
    out->fc1 = fc1_of(net, d);
    out->fc2 = fc2_of(net, d);
    net->fc1_blocks = net->fc2_blocks = NULL;
}

/* The linear predictor of rank r, rounded. Judged; if it is good enough, or all there can be, it is kept in *out. */
static status try_rank(struct trial *t, const struct mlp_data *d, const struct mlp_factors *f, int64_t r, bool last,
                       struct mlp *out, bool *good)
{
    struct mlp_net net = {0};
    struct mlp found = *out;
    status st = open_net(d, r, &net);
    if (!st) {
        mlp_start(d, f, &net);
        st = mlp_quantise(d, f, &net);
    }
    if (!st)
        st = judge(t, d, &net, &found);
    *good = !st && good_enough(t->o, &found.quality);
    if (!st && (*good || last)) {
        *out = found;
        keep(d, &net, out);
    }
    close_net(&net);
    return st;
}

/* Trains the net of *out further, from its blocks; keeps what it becomes if that is better. */
static status train(struct trial *t, const struct mlp_data *d, struct mlp *out)
{
    struct mlp_net net = {0};
    struct mlp found = *out;
    status st = open_net(d, out->fc1.rows, &net);
    if (!st) {
        load_blocks(&out->fc1, net.fc1, net.fc1_blocks);
        load_blocks(&out->fc2, net.fc2, net.fc2_blocks);
        st = mlp_train(d, t->o, &net);
    }
    if (!st)
        st = judge(t, d, &net, &found);
    if (!st && found.quality.accuracy > out->quality.accuracy) {
        *out = found;
        keep(d, &net, out);
    }
    close_net(&net);
    return st;
}

/* The smallest that is good enough, or else the largest that there may be, trained. */
static status find_rank(struct trial *t, const struct mlp_data *d, const struct mlp_factors *f, struct mlp *out)
{
    int64_t low = 0, high = (d->d_model + RANK_STEP - 1) / RANK_STEP + 1; /* in steps; more than x has says no more */
    bool good;
    while (high > 0 && mlp_bytes(high * RANK_STEP, d->d_model, d->d_ff) > t->o->mlp_bytes)
        high--;
    if (high == 0)
        return ST_OK;
    status st = try_rank(t, d, f, high * RANK_STEP, true, out, &good);
    if (!st && !good)
        st = train(t, d, out);
    while (!st && good && high - low > 1) {
        const int64_t middle = (low + high) / 2;
        bool enough;
        st = try_rank(t, d, f, middle * RANK_STEP, false, out, &enough);
        if (enough)
            high = middle;
        else
            low = middle;
    }
    return st;
}

static status dequantise(const struct matrix *m, const float **out)
{
    float *w = products_alloc(m->rows * m->cols, sizeof *w);
    if (!w)
        return ST_NOMEM;
    for (int64_t i = 0; i < m->rows; i++)
        dequantize_row(m->type, m->data + (size_t)i * dtype_row_bytes(m->type, m->cols), m->cols, w + i * m->cols);
    *out = w;
    return ST_OK;
}

status fit_mlp(const struct layer_sample *s, const struct fit_options *o, struct pool *pool, const float *bias,
               struct mlp *out)
{
    const struct layer_weights *w = &s->model->layers[s->layer];
    struct mlp_data d = {.pool = pool, .d_model = s->model->hp.d_model, .d_ff = s->model->hp.d_ff, .n = s->n_fit,
                         .x = s->x, .bias = w->gate.data ? NULL : bias};
    struct mlp_factors f = {0};
    struct trial t = {0};
    struct mlp found = {0};
    status st = dequantise(w->gate.data ? &w->gate : &w->up, &d.weight);
    if (!st && s->activation == ACT_DRELU)
        st = dequantise(&w->up, &d.weight2);
    if (!st)
        st = open_trial(s, o, &d, &t);
    if (!st)
        st = mlp_factorise(&d, &f);
    if (!st)
        st = find_rank(&t, &d, &f, &found);
    if (!st)
        *out = found;
    else
        mlp_free(&found);
    mlp_factors_free(&f);
    close_trial(&t);
    free((void *)(uintptr_t)d.weight);
    free((void *)(uintptr_t)d.weight2);
    return st;
}
