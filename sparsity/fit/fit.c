#include "sparsity/fit/fit.h"

#include <math.h>
#include <stdlib.h>

#include "base/log.h"
#include "sparsity/fit/fitted.h"
#include "sparsity/fit/fit_inside.h"
#include "sparsity/fit/linear.h"
#include "sparsity/fit/products.h"

status fit_defaults(struct fit_options *out)
{
    const struct kernels *k;
    status st = kernels_select(NULL, &k);
    if (!st)
        *out = (struct fit_options){.miss = 0.02f, .recall = 0.95f, .accuracy = 0.95f, .epochs = 20, .seed = 1,
                                    .n_threads = 1, .kernels = k};
    return st;
}

static bool has_planes(const struct matrix *m)
{
    return dtype_is_quantised(m->type) && dtype_has_planes(m->type);
}

/* Whether a matrix of all bundles can be estimated: experts have the same types, and what is shared may have others. */
static bool all_have_planes(const struct fit *f, bool up_too)
{
    bool all = true;
    for (int i = 0; i < f->w->n_bundles; i++) {
        const struct bundle *b = &f->w->bundles[i];
        const bool biased = b->gate.data && (b->gate_bias.data || b->up_bias.data); /* which no mode knows of */
        all = all && !biased && has_planes(deciding(b)) && (!up_too || has_planes(&b->up));
    }
    return all;
}

static status open_fit(struct fit *f)
{
    const struct matrix *bias = &f->w->bundles->up_bias;
    bool ok = (f->fired = products_alloc(f->n, sizeof(float)));
    ok = ok && (f->strength = products_alloc(f->n, sizeof(float)));
    ok = ok && (f->weight = products_alloc(f->n, sizeof(float)));
    ok = ok && (f->bound = products_alloc(f->n, sizeof(float)));
    if (ok && f->fitted.n_experts)
        ok = (f->chosen = products_alloc(f->fitted.n_experts, sizeof(float)));
    if (ok && bias->data && !f->fitted.n_experts) {
        ok = (f->bias = products_alloc(f->n, sizeof(float)));
        if (ok)
            dequantize_row(bias->type, bias->data, f->n, f->bias);
    }
    return ok ? pool_create(f->o->n_threads, &f->pool) : ST_NOMEM;
}

static void close_fit(struct fit *f)
{
    pool_destroy(f->pool);
    free(f->fired);
    free(f->strength);
    free(f->chosen);
    free(f->weight);
    free(f->bound);
    free(f->lines);
    free(f->bias);
    mlp_free(&f->mlp);
}

static void take_statistics(struct fit *f)
{
    const double n = f->s->n_tokens ? (double)f->s->n_tokens : 1;
    double live = 0, looked_at = 0;
    for (int i = 0; i < f->w->n_bundles; i++) {
        const struct bundle *b = &f->w->bundles[i];
        const double share = b->routed ? f->s->chosen[i] / n : 1;
        for (int64_t j = b->first; j < b->first + b->n; j++) {
            f->fired[j] = (float)(f->s->fired[j] / n);
            f->strength[j] = (float)(f->s->sum[j] / n);
            live += f->s->fired[j] / n;
        }
        if (b->routed)
            f->chosen[i] = (float)share;
        looked_at += share * (double)b->n;
    }
    f->fitted.layer.fired = f->fired;
    f->fitted.layer.strength = f->strength;
    f->fitted.layer.chosen = f->chosen;
    f->fitted.layer.live = (float)(looked_at > 0 ? live / looked_at : 0);
}

/* ---- a layer ---- */

static status fit_predictors(struct fit *f)
{
    status st = ST_OK;
    if (all_have_planes(f, false))
        st = fit_bounds(f);
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
    struct fit f = {.s = s, .o = o, .w = &s->model->layers[s->layer], .d_model = hp->d_model,
                    .n = model_layer_neurons(s->model, s->layer)};
    f.fitted = (struct fitted_layer){.d_model = f.d_model, .n = f.n, .n_experts = s->expert ? hp->n_experts : 0};
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
    else if (all_have_planes(&f, true))
        st = fit_thresholds(&f);
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
