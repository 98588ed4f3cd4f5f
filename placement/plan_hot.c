/* Dealing out neurons by how often they fire. */
#include "placement/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "placement/ranges.h"

/* Room for one layer. */
struct dealing {
    int64_t n;          /* neurons of the layer */
    uint8_t *owner;     /* [n] rank */
    uint8_t *came;      /* [n] how the best labelling came here: CAME_* */
    bool *hot, *hotter; /* [n] */
};

enum { CAME_HOT_FROM_COLD = 1, CAME_COLD_FROM_HOT = 2 };

/* Labels neurons hot so that the sum of (fired - least) over the hot ones, less `toll` for every change between
 * neighbours, is largest: a neuron alone in the cold must be well above `least`, and one a little below it amid hot
 * ones is taken along. Dynamic programming over two states (Viterbi). Returns how many are hot. */
static int64_t label(struct dealing *d, const float *fired, double least, double toll, bool *hot)
{
    double best_cold = 0, best_hot = -toll;
    for (int64_t j = 0; j < d->n; j++) {
        bool enter = best_cold - toll > best_hot, leave = best_hot - toll > best_cold;
        double cold = leave ? best_hot - toll : best_cold;
        best_hot = (enter ? best_cold - toll : best_hot) + ((double)fired[j] - least);
        best_cold = cold;
        d->came[j] = (uint8_t)((enter ? CAME_HOT_FROM_COLD : 0) | (leave ? CAME_COLD_FROM_HOT : 0));
    }
    bool now = best_hot > best_cold;
    int64_t n = 0;
    for (int64_t j = d->n - 1; j >= 0; j--) {
        hot[j] = now;
        n += now;
        if (d->came[j] & (now ? CAME_HOT_FROM_COLD : CAME_COLD_FROM_HOT))
            now = !now;
    }
    return n;
}

/* Exactly n neurons into d->hot: the bar is found by bisection. Where many are equally hot, the first of them. */
static void choose_hot(struct dealing *d, const float *fired, int64_t n)
{
    enum { STEPS = 40 };
    double sum = 0, squares = 0;
    for (int64_t j = 0; j < d->n; j++) {
        sum += fired[j];
        squares += (double)fired[j] * fired[j];
    }
    double mean = sum / (double)d->n, variance = squares / (double)d->n - mean * mean;
    double toll = variance > 0 ? sqrt(variance) / 4 : 0;
    double low = -1 - 2 * toll, high = 2 + 2 * toll; /* all are hot, none is */
    for (int i = 0; i < STEPS; i++) {
        double middle = (low + high) / 2;
        bool too_many = label(d, fired, middle, toll, d->hot) > n;
        *(too_many ? &low : &high) = middle;
    }
    int64_t left = n - label(d, fired, high, toll, d->hot);
    label(d, fired, low, toll, d->hotter);
    for (int64_t j = 0; j < d->n && left > 0; j++) {
        if (d->hotter[j] && !d->hot[j]) {
            d->hot[j] = true;
            left--;
        }
    }
}

/* Who has which neuron: the stage its part of the hottest, the others theirs of the rest, in file order. */
static void deal(struct dealing *d, const float *fired, int stage, const int64_t *part)
{
    int rank = 0;
    int64_t given = 0;
    choose_hot(d, fired, part[stage]);
    for (int64_t j = 0; j < d->n; j++) {
        if (d->hot[j]) {
            d->owner[j] = (uint8_t)stage;
            continue;
        }
        while (rank == stage || given == part[rank]) {
            rank++;
            given = 0;
        }
        d->owner[j] = (uint8_t)rank;
        given++;
    }
}

static status add_sets(struct plan *p, const struct dealing *d, struct plan_layer *layer)
{
    layer->splits_units = true;
    layer->first_set = p->n_sets;
    memset(layer->held, 0, sizeof layer->held);
    for (int r = 0; r < p->n_ranks; r++) {
        const size_t start = p->n_ranges;
        status st = ST_OK;
        for (int64_t j = 0; j < d->n && st == ST_OK; j++)
            st = d->owner[j] == r ? ranges_add(p, start, j, j + 1) : ST_OK;
        if (st == ST_OK)
            st = sets_add(p, r, start);
        if (st != ST_OK)
            return st;
    }
    return sets_end(p, layer);
}

static status check_fired(const struct plan_model *m, const float *const *fired)
{
    for (int l = 0; l < m->n_layers; l++) {
        if (!fired[l]) {
            log_error("plan: nobody has counted how often the neurons of layer %d fire", l);
            return ST_USAGE;
        }
        const struct plan_shape shape = plan_model_shape(m, l);
        for (int64_t j = 0; j < plan_shape_neurons(&shape); j++) {
            if (!(fired[l][j] >= 0 && fired[l][j] <= 1)) {
                log_error("plan: layer %d: neuron %lld fires in a share of %g of all tokens, expected 0 to 1", l,
                          (long long)j, (double)fired[l][j]);
                return ST_USAGE;
            }
        }
    }
    return ST_OK;
}

static status deal_all(struct plan *p, const float *const *fired)
{
    int64_t most = 0;
    for (int l = 0; l < p->model.n_layers; l++) {
        const int64_t n = plan_shape_neurons(&p->layers[l].shape);
        most = n > most ? n : most;
    }
    uint8_t *room = malloc(4 * (size_t)most);
    if (!room) {
        log_error("plan: no memory to deal out %lld neurons", (long long)most);
        return ST_NOMEM;
    }
    struct dealing d = {0, room, room + most, (bool *)room + 2 * most, (bool *)room + 3 * most};
    status st = ST_OK;
    for (int l = 0; l < p->model.n_layers && st == ST_OK; l++) {
        int64_t part[PLAN_MAX_RANKS]; /* as it was cut */
        for (int r = 0; r < p->n_ranks; r++)
            part[r] = plan_n_neurons(p, l, r);
        if (p->layers[l].shape.n_experts) {
            st = hot_deal_experts(p, &p->layers[l], fired[l], part);
            continue;
        }
        d.n = plan_shape_neurons(&p->layers[l].shape);
        deal(&d, fired[l], p->layers[l].stage, part);
        st = add_sets(p, &d, &p->layers[l]);
    }
    free(room);
    return st;
}

status plan_make_hot(const struct plan_model *model, int n_ranks, const double *shares, const float *const *fired,
                     struct plan **out)
{
    struct plan *p;
    status st = plan_make(model, SPLIT_BOTH, n_ranks, shares, &p);
    if (st != ST_OK)
        return st;
    st = check_fired(model, fired);
    if (st == ST_OK && n_ranks > 1)
        st = deal_all(p, fired);
    if (st != ST_OK) {
        plan_free(p);
        return st;
    }
    *out = p;
    return ST_OK;
}
