#include "sparsity/fit/fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "sparsity/fit/fitted.h"
#include "sparsity/fit/linear.h"
#include "sparsity/fit/mlp.h"
#include "sparsity/fit/planes.h"
#include "sparsity/fit/threshold.h"

/* Pairs of neuron and token that planes and thresholds look at: so many say enough, and fit into memory. */
enum { PLANE_PAIRS = 1 << 24, CURVE_PAIRS = 1 << 22 };

status fit_defaults(struct fit_options *out)
{
    const struct kernels *k;
    status st = kernels_select(NULL, &k);
    if (!st)
        *out = (struct fit_options){.miss = 0.02f, .recall = 0.95f, .accuracy = 0.95f, .epochs = 20, .seed = 1,
                                    .n_threads = 1, .kernels = k};
    return st;
}

static bool report(const struct fit_options *o, float done)
{
    return !o->progress || o->progress(o->progress_arg, done);
}

/* Everything that one layer's fit needs. */
struct fit {
    const struct layer_sample *s;
    const struct fit_options *o;
    const struct layer_weights *w;
    struct pool *pool;
    int64_t d_model, d_ff;
    float *fired, *strength, *weight, *bound, *bias; /* [d_ff] */
    float *lines; /* [4, d_ff] slope and offset of gate and up; NULL unless estimates are used as values */
    struct mlp mlp;
    struct fitted_layer fitted; /* points to what is above, until it is copied */
};

/* The matrix whose value says whether a neuron fires. */
static const struct matrix *deciding(const struct fit *f)
{
    return f->w->gate.data ? &f->w->gate : &f->w->up;
}

static bool has_planes(const struct matrix *m)
{
    return dtype_is_quantised(m->type) && dtype_has_planes(m->type);
}

static status open_fit(struct fit *f)
{
    bool ok = (f->fired = products_alloc(f->d_ff, sizeof(float)));
    ok = ok && (f->strength = products_alloc(f->d_ff, sizeof(float)));
    ok = ok && (f->weight = products_alloc(f->d_ff, sizeof(float)));
    ok = ok && (f->bound = products_alloc(f->d_ff, sizeof(float)));
    if (ok && f->w->up_bias.data) {
        ok = (f->bias = products_alloc(f->d_ff, sizeof(float)));
        if (ok)
            dequantize_row(f->w->up_bias.type, f->w->up_bias.data, f->d_ff, f->bias);
    }
    return ok ? pool_create(f->o->n_threads, &f->pool) : ST_NOMEM;
}

static void close_fit(struct fit *f)
{
    pool_destroy(f->pool);
    free(f->fired);
    free(f->strength);
    free(f->weight);
    free(f->bound);
    free(f->lines);
    free(f->bias);
    mlp_free(&f->mlp);
}

static void take_statistics(struct fit *f)
{
    const double n = f->s->n_tokens ? (double)f->s->n_tokens : 1;
    double live = 0;
    for (int64_t j = 0; j < f->d_ff; j++) {
        f->fired[j] = (float)(f->s->fired[j] / n);
        f->strength[j] = (float)(f->s->sum[j] / n);
        live += f->s->fired[j] / n;
    }
    f->fitted.layer.fired = f->fired;
    f->fitted.layer.strength = f->strength;
    f->fitted.layer.live = (float)(live / (double)f->d_ff);
}

/* Opens as many samples as make n_pairs pairs. */
static status open_samples(const struct fit *f, int64_t n_pairs, struct samples *s)
{
    const int64_t n = n_pairs / f->d_ff;
    return samples_open(s, f->o->kernels, f->pool, f->s->x, f->s->n, f->s->n_fit, n < FIT_MIN_SAMPLES ?
                        FIT_MIN_SAMPLES : n, f->d_model);
}

/* ---- planes ---- */

static status measure_planes(struct fit *f)
{
    struct samples s = {0};
    float *value = NULL, *estimate = NULL;
    bool *live = NULL;
    status st = open_samples(f, PLANE_PAIRS, &s);
    const int64_t n_pairs = s.x.n * f->d_ff;
    if (st)
        goto done;
    st = ST_NOMEM;
    if (!(value = products_alloc(n_pairs, sizeof *value)) || !(estimate = products_alloc(n_pairs, sizeof *estimate)) ||
        !(live = products_alloc(n_pairs, sizeof *live)))
        goto done;
    if ((st = products_exact(&s.x, deciding(f), value)))
        goto done;
    if (f->s->activation == ACT_DRELU && (st = products_exact(&s.x, &f->w->up, estimate)))
        goto done;
    products_live(value, f->w->gate.data ? NULL : f->bias, f->s->activation == ACT_DRELU ? estimate : NULL, s.x.n,
                  f->d_ff, live);
    if ((st = products_estimate(&s.x, deciding(f), estimate)))
        goto done;
    const struct plane_samples p = {.n = s.x.n, .n_fit = s.n_fit, .d_ff = f->d_ff, .value = value,
                                    .estimate = estimate, .bias = f->w->gate.data ? NULL : f->bias, .live = live};
    st = fit_planes(&p, f->o, f->bound, &f->fitted.layer.planes);
    f->fitted.layer.bound = f->bound;
done:
    free(value);
    free(estimate);
    free(live);
    samples_close(&s);
    return st;
}

/* ---- threshold ---- */

/* estimate [n, d_ff] becomes the value that each neuron's line, put into slope and offset [d_ff], makes of it. */
static status straighten(const struct fit *f, const struct samples *s, const float *value, float *estimate, float *slope,
                         float *offset)
{
    const struct plane_samples p = {.n = s->x.n, .n_fit = s->n_fit, .d_ff = f->d_ff, .value = value,
                                    .estimate = estimate};
    struct line *lines = fit_lines(&p);
    if (!lines)
        return ST_NOMEM;
    for (int64_t j = 0; j < f->d_ff; j++) {
        slope[j] = (float)lines[j].slope;
        offset[j] = (float)lines[j].offset;
    }
    for (int64_t i = 0; i < s->x.n * f->d_ff; i++)
        estimate[i] = slope[i % f->d_ff] * estimate[i] + offset[i % f->d_ff];
    free(lines);
    return ST_OK;
}

static void take_lines(struct fit *f)
{
    struct neuron_layer *l = &f->fitted.layer;
    l->gate_slope = f->lines;
    l->gate_offset = f->lines + f->d_ff;
    l->up_slope = f->lines + 2 * f->d_ff;
    l->up_offset = f->lines + 3 * f->d_ff;
}

static status measure_curve(struct fit *f)
{
    struct samples s = {0};
    float *gate = NULL, *up = NULL, *activation = NULL, *estimate = NULL;
    const struct kernels *k = f->o->kernels;
    status st = open_samples(f, CURVE_PAIRS, &s);
    const int64_t n_pairs = s.x.n * f->d_ff;
    if (st)
        goto done;
    st = ST_NOMEM;
    if (!(gate = products_alloc(n_pairs, sizeof *gate)) || !(up = products_alloc(n_pairs, sizeof *up)) ||
        !(activation = products_alloc(n_pairs, sizeof *activation)) ||
        !(estimate = products_alloc(n_pairs, sizeof *estimate)) ||
        !(f->lines = products_alloc(4 * f->d_ff, sizeof *f->lines)))
        goto done;
    take_lines(f);
    if ((st = products_exact(&s.x, &f->w->gate, gate)) || (st = products_exact(&s.x, &f->w->up, up)))
        goto done;
    k->activate(f->s->activation, gate, up, n_pairs, activation);
    if ((st = products_estimate(&s.x, &f->w->gate, estimate)) ||
        (st = straighten(f, &s, gate, estimate, f->lines, f->lines + f->d_ff)))
        goto done;
    memcpy(gate, estimate, (size_t)n_pairs * sizeof *gate);
    if ((st = products_estimate(&s.x, &f->w->up, estimate)) ||
        (st = straighten(f, &s, up, estimate, f->lines + 2 * f->d_ff, f->lines + 3 * f->d_ff)))
        goto done;
    k->activate(f->s->activation, gate, estimate, n_pairs, up);
    if ((st = fit_weights(f->w, f->d_model, f->d_ff, f->weight)))
        goto done;
    f->fitted.layer.weight = f->weight;
    st = fit_curve(activation, up, f->weight, s.x.n, f->d_ff, &f->fitted.curve);
done:
    free(gate);
    free(up);
    free(activation);
    free(estimate);
    samples_close(&s);
    return st;
}

/* ---- a layer ---- */

static status fit_predictors(struct fit *f)
{
    status st = ST_OK;
    if (has_planes(deciding(f)))
        st = measure_planes(f);
    if (st || !f->o->mlp_bytes)
        return st;
    if (!report(f->o, 0.1f))
        return ST_CANCELLED;
    if ((st = linear_open()) || (st = fit_mlp(f->s, f->o, f->pool, f->bias, &f->mlp)))
        return st;
    f->fitted.layer.fc1 = f->mlp.fc1;
    f->fitted.layer.fc2 = f->mlp.fc2;
    f->fitted.layer.mlp_threshold = f->mlp.threshold;
    f->fitted.layer.mlp = f->mlp.quality;
    return ST_OK;
}

static status check(const struct layer_sample *s)
{
    const int64_t n_validate = s->n - s->n_fit;
    if (s->n >= FIT_MIN_SAMPLES && s->n_fit >= FIT_MIN_SAMPLES / 2 && n_validate >= FIT_MIN_SAMPLES / 4)
        return ST_OK;
    log_error("layer %d: %lld samples to fit and %lld to validate are too few, %d in all are needed", s->layer,
              (long long)s->n_fit, (long long)n_validate, FIT_MIN_SAMPLES);
    return ST_USAGE;
}

status fit_layer(const struct layer_sample *s, const struct fit_options *o, struct fitted_layer *out)
{
    const struct hparams *hp = &s->model->hp;
    struct fit f = {.s = s, .o = o, .w = &s->model->layers[s->layer], .d_model = hp->d_model, .d_ff = hp->d_ff,
                    .fitted = {.d_model = hp->d_model, .d_ff = hp->d_ff}};
    status st = check(s);
    if (st)
        return st;
    if ((st = open_fit(&f)))
        goto done;
    take_statistics(&f);
    if (!report(o, 0))
        st = ST_CANCELLED;
    else if (activation_is_exact(s->activation))
        st = fit_predictors(&f);
    else if (has_planes(&f.w->gate) && has_planes(&f.w->up))
        st = measure_curve(&f);
    if (!st && !report(o, 1))
        st = ST_CANCELLED;
    if (!st)
        st = fitted_layer_copy(&f.fitted, out);
done:
    close_fit(&f);
    return st;
}

/* ---- sizes of the layers' MLPs ---- */

static double entropy(double p)
{
    return p > 0 && p < 1 ? -(p * log2(p) + (1 - p) * log2(1 - p)) : 0;
}

void fit_mlp_bytes(const uint32_t *const *fired, int n_layers, int64_t d_ff, uint64_t n_tokens, uint64_t total,
                   uint64_t *bytes)
{
    double all = 0, part = 0;
    for (int pass = 0; pass < 2; pass++) {
        uint64_t before = 0;
        for (int i = 0; i < n_layers; i++) {
            for (int64_t j = 0; j < d_ff; j++)
                part += entropy(n_tokens ? (double)fired[i][j] / (double)n_tokens : 0);
            if (pass) { /* by cumulation, so that the parts make up the total */
                const uint64_t end = all > 0 ? (uint64_t)((double)total * fmin(part / all, 1)) : 0;
                bytes[i] = end - before;
                before = end;
            }
        }
        all = part;
        part = 0;
    }
}
