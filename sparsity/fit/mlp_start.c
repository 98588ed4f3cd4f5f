/* Where an MLP starts: the linear predictor of least squared error among those of its rank. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "sparsity/fit/linear.h"
#include "sparsity/fit/mlp_inside.h"

enum { CONSTANTS = 2 };     /* hidden values that carry the constant direction alone */
static const float shift = 3;        /* in standard deviations of a hidden value: relu cuts off little */
static const float ridge = 1e-4f;    /* of the mean variance, added to each */
static const float logit = 1.7f;     /* the logistic distribution that is nearest to the normal one is so much wider */

void mlp_factors_free(struct mlp_factors *f)
{
    free(f->moments);
    free(f->mean);
    free(f->constant);
    free(f->value_mean);
    free(f->value_size);
    free(f->loading);
    free(f->component);
    free(f->share);
    *f = (struct mlp_factors){0};
}

static float dot(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return (float)sum;
}

/* mean = the mean of x, moments = its covariance for now: x has parts that hardly vary beside their mean, so that the
 * mean must be taken away before anything is squared. */
static status take_covariance(const struct mlp_data *d, struct mlp_factors *f)
{
    const int64_t n = d->d_model;
    float *centred = products_alloc(d->n * n, sizeof *centred);
    if (!centred)
        return ST_NOMEM;
    for (int64_t j = 0; j < n; j++) {
        double sum = 0;
        for (int64_t i = 0; i < d->n; i++)
            sum += (double)d->x[i * n + j];
        f->mean[j] = (float)(sum / (double)d->n);
        for (int64_t i = 0; i < d->n; i++)
            centred[i * n + j] = d->x[i * n + j] - f->mean[j];
    }
    const struct product xx = {.transpose_a = true, .m = n, .n = n, .k = d->n, .a = centred, .b = centred,
                               .c = f->moments};
    linear_product(d->pool, &xx);
    for (int64_t i = 0; i < n * n; i++)
        f->moments[i] /= (float)d->n;
    free(centred);
    return ST_OK;
}

/* The covariance becomes the moments. */
static void add_mean(const struct mlp_data *d, struct mlp_factors *f)
{
    const int64_t n = d->d_model;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            f->moments[i * n + j] += f->mean[i] * f->mean[j];
}

/* c [d_model, d_model] = the covariance, a ridge added. */
static void add_ridge(const struct mlp_data *d, const struct mlp_factors *f, float damp, float *c)
{
    const int64_t n = d->d_model;
    float trace = 0;
    memcpy(c, f->moments, (size_t)(n * n) * sizeof *c);
    for (int64_t i = 0; i < n; i++)
        trace += c[i * n + i];
    for (int64_t i = 0; i < n; i++)
        c[i * n + i] += damp * trace / (float)n + 1e-12f;
}

/* The triangular factor of the covariance. Fewer samples than dimensions leave a matrix that rounding may make
 * indefinite: it is damped until it is not. */
static status factor_covariance(const struct mlp_data *d, const struct mlp_factors *f, float *c)
{
    for (float damp = ridge; damp < 1; damp *= 10) {
        add_ridge(d, f, damp, c);
        if (linear_cholesky(c, d->d_model))
            return ST_OK;
    }
    log_error("the samples of a layer have no covariance: are there infinities in them?");
    return ST_INTERNAL;
}

/* The direction of least variance among those whose mean is 1. */
static void find_constant(const struct mlp_data *d, struct mlp_factors *f, const float *cholesky)
{
    const int64_t n = d->d_model;
    memcpy(f->constant, f->mean, (size_t)n * sizeof *f->mean);
    linear_solve(cholesky, n, f->constant);
    const float at_mean = dot(f->constant, f->mean, n), least = 1e-20f;
    for (int64_t i = 0; i < n; i++)
        f->constant[i] /= fmaxf(at_mean, least);
}

/* b [d_ff, d_model] = W L, whose rows' squares are the variances of the values; rows divided by their spread. */
static void load_values(const struct mlp_data *d, struct mlp_factors *f, const float *cholesky, float *b)
{
    const int64_t n = d->d_model;
    const struct product wl = {.m = d->d_ff, .n = n, .k = n, .a = d->weight, .b = cholesky, .c = b};
    linear_product(d->pool, &wl);
    for (int64_t j = 0; j < d->d_ff; j++) {
        f->value_size[j] = sqrtf(dot(b + j * n, b + j * n, n)) + 1e-12f;
        f->value_mean[j] = dot(d->weight + j * n, f->mean, n) + (d->bias ? d->bias[j] : 0);
        for (int64_t i = 0; i < n; i++)
            b[j * n + i] /= f->value_size[j];
    }
}

/* From b = W L over the spreads: its right singular vectors V by falling singular values s; loading = b V, component =
 * the rows s^-2 loading^T W, over the spreads. */
static status find_components(const struct mlp_data *d, struct mlp_factors *f, float *b, float *scratch)
{
    const int64_t n = d->d_model;
    const struct product bb = {.transpose_a = true, .m = n, .n = n, .k = d->d_ff, .a = b, .b = b, .c = scratch};
    linear_product(d->pool, &bb);
    status st = linear_eigen(scratch, n, f->share);
    if (st)
        return st;
    for (int64_t i = 0; i < n / 2; i++) { /* the largest first */
        const float share = f->share[i];
        f->share[i] = f->share[n - 1 - i];
        f->share[n - 1 - i] = share;
        for (int64_t j = 0; j < n; j++) {
            const float v = scratch[i * n + j];
            scratch[i * n + j] = scratch[(n - 1 - i) * n + j];
            scratch[(n - 1 - i) * n + j] = v;
        }
    }
    const struct product bv = {.transpose_b = true, .m = d->d_ff, .n = n, .k = n, .a = b, .b = scratch,
                               .c = f->loading};
    linear_product(d->pool, &bv);
    for (int64_t j = 0; j < d->d_ff; j++)
        for (int64_t i = 0; i < n; i++)
            b[j * n + i] = d->weight[j * n + i] / f->value_size[j];
    const struct product lw = {.transpose_a = true, .m = n, .n = n, .k = d->d_ff, .a = f->loading, .b = b,
                               .c = f->component};
    linear_product(d->pool, &lw);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            f->component[i * n + j] /= fmaxf(f->share[i], 1e-6f * f->share[0]);
    return ST_OK;
}

status mlp_factorise(const struct mlp_data *d, struct mlp_factors *f)
{
    const int64_t n = d->d_model;
    float *square = products_alloc(n * n, sizeof(float)), *b = products_alloc(d->d_ff * n, sizeof(float));
    bool ok = square && b && (f->moments = products_alloc(n * n, sizeof(float)));
    ok = ok && (f->mean = products_alloc(n, sizeof(float)));
    ok = ok && (f->constant = products_alloc(n, sizeof(float)));
    ok = ok && (f->value_mean = products_alloc(d->d_ff, sizeof(float)));
    ok = ok && (f->value_size = products_alloc(d->d_ff, sizeof(float)));
    ok = ok && (f->loading = products_alloc(d->d_ff * n, sizeof(float)));
    ok = ok && (f->component = products_alloc(n * n, sizeof(float)));
    ok = ok && (f->share = products_alloc(n, sizeof(float)));
    status st = ok ? ST_OK : ST_NOMEM;
    if (ok) {
        st = take_covariance(d, f);
        st = st ? st : factor_covariance(d, f, square);
        add_mean(d, f);
    }
    if (!st) {
        find_constant(d, f, square);
        load_values(d, f, square, b);
        st = find_components(d, f, b, square);
    }
    free(square);
    free(b);
    return st;
}

void mlp_start(const struct mlp_data *d, const struct mlp_factors *f, struct mlp_net *net)
{
    const int64_t n = d->d_model, r = net->r, linear = r - CONSTANTS < n ? r - CONSTANTS : n;
    memset(net->fc1, 0, (size_t)(r * n) * sizeof(float));
    memset(net->fc2, 0, (size_t)(d->d_ff * r) * sizeof(float));
    for (int64_t k = 0; k < linear + CONSTANTS; k++) {
        const float *c = f->component + k * n, at_mean = k < linear ? dot(c, f->mean, n) : 0;
        for (int64_t i = 0; i < n; i++)
            net->fc1[k * n + i] = (k < linear ? c[i] : 0) + (shift - at_mean) * f->constant[i];
    }
    for (int64_t j = 0; j < d->d_ff; j++) {
        const float *loading = f->loading + j * n;
        float *row = net->fc2 + j * r, sum = 0;
        const float left = sqrtf(fmaxf(1 - dot(loading, loading, linear), 1e-4f));
        for (int64_t k = 0; k < linear; k++) {
            row[k] = logit * loading[k] / left;
            sum += row[k];
        }
        for (int64_t k = linear; k < linear + CONSTANTS; k++)
            row[k] = (logit * f->value_mean[j] / (f->value_size[j] * left) - shift * sum) / (shift * CONSTANTS);
    }
}
