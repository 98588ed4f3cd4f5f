/* Making a plan from shares. */
#include "placement/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "placement/ranges.h"

/* Cuts `total` units over n ranks in proportion to the shares (largest remainder, the lower rank among equals), so that
 * the parts add up exactly: rank r gets [cut[r], cut[r + 1]). What ranks are owed from cuts before is made up for, and
 * what they are owed now, in units, is left in `owed`: too little, or too much where it is below 0. */
static void cut_owed(int64_t total, int n, const double *shares /* [n], sum 1 */, double *owed /* [n], sum 0 */,
                     int64_t *cut /* [n + 1] */)
{
    int64_t part[PLAN_MAX_RANKS], left = total;
    for (int r = 0; r < n; r++) {
        owed[r] += (double)total * shares[r];
        part[r] = owed[r] > 0 ? (int64_t)floor(owed[r]) : 0;
        if (part[r] > left) /* rounding of the shares themselves, or others have had too much */
            part[r] = left;
        owed[r] -= (double)part[r];
        left -= part[r];
    }
    for (; left > 0; left--) {
        int most = 0;
        for (int r = 1; r < n; r++) {
            if (owed[r] > owed[most])
                most = r;
        }
        part[most]++;
        owed[most] -= 1;
    }
    cut[0] = 0;
    for (int r = 0; r < n; r++)
        cut[r + 1] = cut[r] + part[r];
}

static void cut_by_shares(int64_t total, int n, const double *shares, int64_t *cut)
{
    double owed[PLAN_MAX_RANKS] = {0};
    cut_owed(total, n, shares, owed, cut);
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
    const struct plan_shape first = plan_model_shape(m, 0);
    const int64_t neurons = plan_shape_neurons(&m->layer);
    if (m->n_layers < 1 || m->n_layers > PLAN_MAX_LAYERS || neurons < 1 || neurons > INT32_MAX || first.d_ff < 1 ||
        first.d_ff > INT32_MAX || m->layer.neuron_unit < 1) {
        log_error("plan: a model of %d layers with %lld neurons in units of %lld, expected 1 to %d layers, the rest "
                  "positive", m->n_layers, (long long)neurons, (long long)m->layer.neuron_unit, PLAN_MAX_LAYERS);
        return ST_UNSUPPORTED;
    }
    if (m->layer.n_kv_heads < 0 || m->layer.n_kv_heads > INT32_MAX || m->layer.head_unit < 0 ||
        m->layer.head_unit > INT32_MAX || m->key_heads < 0 || m->key_heads > INT32_MAX) {
        log_error("plan: a model of %lld KV heads in units of %lld", (long long)m->layer.n_kv_heads,
                  (long long)m->layer.head_unit);
        return ST_UNSUPPORTED;
    }
    return ST_OK;
}

/* The boundaries of a layer that is its stage's. */
static status keep_neurons(struct plan *p, struct plan_layer *layer)
{
    int64_t bound[PLAN_MAX_RANKS + 1];
    for (int r = 0; r <= p->n_ranks; r++)
        bound[r] = r > layer->stage ? plan_shape_neurons(&layer->shape) : 0;
    return sets_cut(p, bound, 1, layer);
}

/* Whole units of a bundle for each rank. The last of them may be shorter, which who has it is owed. */
static void cut_bundle(const struct plan_shape *s, struct neuron_range b, int n, const double *shares, double *owed,
                       int64_t *bound)
{
    const int64_t size = b.end - b.begin, unit = s->neuron_unit, units = (size - 1) / unit + 1;
    const double missing = (double)(units * unit - size) / (double)unit;
    int64_t cut[PLAN_MAX_RANKS + 1];
    int last = 0;
    cut_owed(units, n, shares, owed, cut);
    for (int r = 0; r < n; r++) {
        last = cut[r] < cut[r + 1] ? r : last;
        owed[r] -= missing * shares[r];
    }
    owed[last] += missing;
    for (int r = 0; r <= n; r++)
        bound[r] = cut[r] * unit < size ? b.begin + cut[r] * unit : b.end;
}

static status cut_neurons(struct plan *p, const double *shares, struct plan_layer *layer)
{
    const int n = plan_n_bundles(&layer->shape), bounds = p->n_ranks + 1;
    int64_t *bound = malloc((size_t)n * (size_t)bounds * sizeof *bound);
    double owed[PLAN_MAX_RANKS] = {0};
    if (!bound) {
        log_error("plan: no memory to cut %d experts", n);
        return ST_NOMEM;
    }
    for (int i = 0; i < n; i++)
        cut_bundle(&layer->shape, plan_bundle(&layer->shape, i), p->n_ranks, shares, owed, bound + i * bounds);
    status st = sets_cut(p, bound, n, layer);
    free(bound);
    return st;
}

/* Layers with the same heads alike; a single unit is not given away. */
static void fill_heads(struct plan *p, enum plan_split split, const double *shares)
{
    for (int l = 0; l < p->model.n_layers && split != SPLIT_STAGES && p->n_ranks > 1; l++) {
        struct plan_layer *layer = &p->layers[l];
        const int64_t unit = layer->shape.head_unit, n_units = unit ? layer->shape.n_kv_heads / unit : 0;
        int64_t units[PLAN_MAX_RANKS + 1];
        if (n_units < 2)
            continue;
        cut_by_shares(n_units, p->n_ranks, shares, units);
        layer->heads_cut = true;
        for (int r = 0; r <= p->n_ranks; r++)
            layer->heads[r] = (int32_t)(units[r] * unit);
    }
}

static status fill_layers(struct plan *p, enum plan_split split, const double *shares)
{
    int stage = 0;
    int64_t layers[PLAN_MAX_RANKS + 1];
    const struct plan_model *m = &p->model;
    cut_by_shares(m->n_layers, p->n_ranks, shares, layers);
    for (int l = 0; l < m->n_layers; l++) {
        struct plan_layer *layer = &p->layers[l];
        while (split != SPLIT_SHARDS && l >= layers[stage + 1])
            stage++;
        const bool same_sets = l > 0 && (split != SPLIT_STAGES || layer[-1].stage == stage) &&
                               memcmp(&layer[-1].shape, &layer->shape, sizeof layer->shape) == 0;
        if (same_sets)
            *layer = layer[-1];
        layer->stage = stage;
        if (same_sets)
            continue;
        status st = split == SPLIT_STAGES ? keep_neurons(p, layer) : cut_neurons(p, shares, layer);
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
    p->model.n_dense_layers = 0;
    memset(p->model.is_net, 0, sizeof p->model.is_net);
    for (int r = 0; r < n_ranks; r++)
        p->holders[r] = (struct plan_holder){r, "cpu"};
    for (int l = 0; l < model->n_layers; l++)
        layers[l].shape = plan_model_shape(model, l);
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
