/* Making a plan from shares. */
#include "placement/plan.h"

#include <math.h>
#include <stdlib.h>

#include "base/log.h"
#include "placement/ranges.h"

/* Cuts `total` units over n ranks in proportion to the shares (largest remainder, the lower rank among equals), so that
 * the parts add up exactly: rank r gets [cut[r], cut[r + 1]). */
static void cut_by_shares(int64_t total, int n, const double *shares /* [n], sum 1 */, int64_t *cut /* [n + 1] */)
{
    double rest[PLAN_MAX_RANKS];
    int64_t part[PLAN_MAX_RANKS], left = total;
    for (int r = 0; r < n; r++) {
        double exact = (double)total * shares[r];
        part[r] = (int64_t)floor(exact);
        if (part[r] > left) /* rounding of the shares themselves */
            part[r] = left;
        rest[r] = exact - (double)part[r];
        left -= part[r];
    }
    for (; left > 0; left--) {
        int most = 0;
        for (int r = 1; r < n; r++) {
            if (rest[r] > rest[most])
                most = r;
        }
        part[most]++;
        rest[most] -= 1;
    }
    cut[0] = 0;
    for (int r = 0; r < n; r++)
        cut[r + 1] = cut[r] + part[r];
}

/* Scales the shares to a sum of 1. ST_USAGE if one is negative or not finite, or all are zero. */
static status normalise(int n, const double *shares, double *out)
{
    double largest = 0, sum = 0;
    for (int r = 0; r < n; r++) {
        double share = shares ? shares[r] : 1;
        if (!(share >= 0) || !isfinite(share)) {
            log_error("shares: rank %d's is %g, expected a positive number, or 0 for none", r, share);
            return ST_USAGE;
        }
        largest = share > largest ? share : largest;
    }
    if (largest <= 0) {
        log_error("shares: all %d are 0", n);
        return ST_USAGE;
    }
    for (int r = 0; r < n; r++) {
        out[r] = (shares ? shares[r] : 1) / largest; /* by the largest first: the sum cannot overflow */
        sum += out[r];
    }
    for (int r = 0; r < n; r++)
        out[r] /= sum;
    return ST_OK;
}

static status check_makeable(const struct plan_model *m, int n_ranks)
{
    if (n_ranks < 1 || n_ranks > PLAN_MAX_RANKS) {
        log_error("plan: %d ranks, expected 1 to %d", n_ranks, PLAN_MAX_RANKS);
        return ST_USAGE;
    }
    if (m->n_layers < 1 || m->n_layers > PLAN_MAX_LAYERS || m->layer.d_ff < 1 || m->layer.d_ff > INT32_MAX ||
        m->layer.neuron_unit < 1) {
        log_error("plan: a model of %d layers with %lld neurons in units of %lld, expected 1 to %d layers, the rest "
                  "positive", m->n_layers, (long long)m->layer.d_ff, (long long)m->layer.neuron_unit, PLAN_MAX_LAYERS);
        return ST_UNSUPPORTED;
    }
    if (m->layer.n_kv_heads < 0 || m->layer.n_kv_heads > INT32_MAX || m->layer.head_unit < 0 ||
        m->layer.head_unit > INT32_MAX) {
        log_error("plan: a model of %lld KV heads in units of %lld", (long long)m->layer.n_kv_heads,
                  (long long)m->layer.head_unit);
        return ST_UNSUPPORTED;
    }
    return ST_OK;
}

/* The boundaries of a layer of this stage. */
static void cut_neurons(const struct plan *p, enum plan_split split, int stage, const int64_t *units, int64_t *bound)
{
    const struct plan_shape *shape = &p->layers[0].shape;
    for (int r = 0; r <= p->n_ranks; r++) {
        int64_t all = r > stage ? shape->d_ff : 0, cut = units[r] * shape->neuron_unit;
        bound[r] = split == SPLIT_STAGES ? all : cut < shape->d_ff ? cut : shape->d_ff;
    }
}

/* All layers' heads alike; a single unit is not given away. */
static void fill_heads(struct plan *p, enum plan_split split, const double *shares)
{
    const struct plan_shape *shape = &p->layers[0].shape;
    const int64_t n_units = shape->head_unit ? shape->n_kv_heads / shape->head_unit : 0;
    int64_t units[PLAN_MAX_RANKS + 1];
    if (split == SPLIT_STAGES || p->n_ranks == 1 || n_units < 2)
        return;
    cut_by_shares(n_units, p->n_ranks, shares, units);
    for (int l = 0; l < p->model.n_layers; l++) {
        p->layers[l].heads_cut = true;
        for (int r = 0; r <= p->n_ranks; r++)
            p->layers[l].heads[r] = (int32_t)(units[r] * shape->head_unit);
    }
}

static status fill_layers(struct plan *p, enum plan_split split, const double *shares)
{
    int n = p->n_ranks, stage = 0;
    int64_t layers[PLAN_MAX_RANKS + 1], units[PLAN_MAX_RANKS + 1], bound[PLAN_MAX_RANKS + 1];
    const struct plan_model *m = &p->model;
    const struct plan_shape *shape = &p->layers[0].shape;
    cut_by_shares(m->n_layers, n, shares, layers);
    cut_by_shares((shape->d_ff - 1) / shape->neuron_unit + 1, n, shares, units);
    for (int l = 0; l < m->n_layers; l++) {
        struct plan_layer *layer = &p->layers[l];
        while (split != SPLIT_SHARDS && l >= layers[stage + 1])
            stage++;
        if (l > 0 && layer[-1].stage == stage) {
            *layer = layer[-1];
            continue;
        }
        layer->stage = stage;
        cut_neurons(p, split, stage, units, bound);
        status st = sets_cut(p, bound, layer);
        if (st != ST_OK)
            return st;
    }
    return ST_OK;
}

/* Rows are cut where groups of 16 packed rows end. */
static void fill_rows(struct plan *p, enum plan_split split, const double *shares)
{
    enum { ROW_UNIT = 16 };
    int64_t n_vocab = p->model.n_vocab, units[PLAN_MAX_RANKS + 1];
    p->rows_cut = n_vocab > 0 && p->n_ranks > 1 && split != SPLIT_STAGES;
    if (!p->rows_cut)
        return;
    cut_by_shares((n_vocab + ROW_UNIT - 1) / ROW_UNIT, p->n_ranks, shares, units);
    for (int r = 0; r <= p->n_ranks; r++)
        p->rows[r] = units[r] * ROW_UNIT < n_vocab ? units[r] * ROW_UNIT : n_vocab;
}

status plan_make(const struct plan_model *model, enum plan_split split, int n_ranks, const double *shares,
                 struct plan **out)
{
    double normal[PLAN_MAX_RANKS];
    if (split == SPLIT_HOT) {
        log_error("plan: --split hot needs to know how often neurons fire: make a neuron file with `hearth prepare`");
        return ST_USAGE;
    }
    status st = check_makeable(model, n_ranks);
    if (st != ST_OK || (st = normalise(n_ranks, shares, normal)) != ST_OK)
        return st;
    struct plan *p = calloc(1, sizeof *p);
    struct plan_layer *layers = calloc((size_t)model->n_layers, sizeof *layers);
    if (!p || !layers) {
        log_error("plan: no memory for %d layers", model->n_layers);
        free(layers);
        free(p);
        return ST_NOMEM;
    }
    *p = (struct plan){.model = *model, .n_ranks = n_ranks, .n_holders = n_ranks, .layers = layers};
    p->model.layer = (struct plan_shape){0};
    for (int r = 0; r < n_ranks; r++)
        p->holders[r] = (struct plan_holder){r, "cpu"};
    for (int l = 0; l < model->n_layers; l++)
        layers[l].shape = model->layer;
    st = fill_layers(p, split, normal);
    if (st != ST_OK) {
        plan_free(p);
        return st;
    }
    fill_heads(p, split, normal);
    fill_rows(p, split, normal);
    *out = p;
    return ST_OK;
}
