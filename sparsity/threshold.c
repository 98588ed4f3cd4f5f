#include "sparsity/threshold.h"

#include <math.h>
#include <stdlib.h>

static void add_squares(const float *row, int64_t n, float *sum)
{
    for (int64_t i = 0; i < n; i++)
        sum[i] += row[i] * row[i];
}

static float squares(const float *row, int64_t n)
{
    float sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += row[i] * row[i];
    return sum;
}

status fit_weights(const struct layer_weights *w, int64_t d_model, int64_t d_ff, float *weight)
{
    const struct matrix *down = w->down.data ? &w->down : &w->down_t;
    const size_t stride = dtype_row_bytes(down->type, down->cols);
    float *row = products_alloc(down->cols, sizeof *row);
    if (!row)
        return ST_NOMEM;
    for (int64_t j = 0; j < d_ff; j++)
        weight[j] = 0;
    for (int64_t i = 0; i < down->rows; i++) {
        dequantize_row(down->type, down->data + (size_t)i * stride, down->cols, row);
        if (w->down.data)
            add_squares(row, d_ff, weight);
        else
            weight[i] = squares(row, d_model);
    }
    for (int64_t j = 0; j < d_ff; j++)
        weight[j] = sqrtf(weight[j]);
    free(row);
    return ST_OK;
}

/* ---- one layer's curve ---- */

struct scored {
    float score, loss;
};

static int compare(const void *a, const void *b)
{
    const float x = ((const struct scored *)a)->score, y = ((const struct scored *)b)->score;
    return (x > y) - (x < y);
}

status fit_curve(const float *activation, const float *estimate, const float *weight, int64_t n, int64_t d_ff,
                 double size, struct skip_curve *out)
{
    const int64_t n_pairs = n * d_ff;
    struct scored *s = products_alloc(n_pairs, sizeof *s);
    double sum = 0;
    if (!s)
        return ST_NOMEM;
    for (int64_t i = 0; i < n_pairs; i++) {
        const float w = weight[i % d_ff], lost = activation[i] * w;
        s[i] = (struct scored){.score = fabsf(estimate[i]) * w, .loss = lost * lost};
    }
    qsort(s, (size_t)n_pairs, sizeof *s, compare);
    for (int64_t i = 0, point = 0; i < n_pairs && point < SKIP_POINTS; i++) {
        for (; point < SKIP_POINTS && i == point * n_pairs / SKIP_POINTS; point++) {
            out->score[point] = s[i].score;
            out->loss[point] = (float)(sum / size);
        }
        sum += (double)s[i].loss;
    }
    free(s);
    return ST_OK;
}

/* ---- all layers ---- */

/* The point of a curve that is best where a share of 1 skipped is worth `price`. */
static int best_point(const struct skip_curve *c, double price)
{
    int best = 0;
    double least = INFINITY;
    for (int i = 0; i < SKIP_POINTS; i++) {
        const double cost = (double)c->loss[i] - price * i / SKIP_POINTS;
        if (cost < least) {
            least = cost;
            best = i;
        }
    }
    return best;
}

static double share_at(const struct fitted_layer *layers, int n, double price)
{
    double points = 0;
    for (int i = 0; i < n; i++)
        points += best_point(&layers[i].curve, price);
    return points / ((double)n * SKIP_POINTS);
}

/* The thresholds of one share: the price at which the layers together skip that much (Lagrange). */
static void choose_step(struct fitted_layer *layers, int n, int step)
{
    const double wanted = (step + 1) / (SKIP_STEPS + 1.0);
    double low = -60, high = 60; /* log2 of the price */
    for (int i = 0; i < 60; i++) {
        const double middle = (low + high) / 2;
        if (share_at(layers, n, exp2(middle)) < wanted)
            low = middle;
        else
            high = middle;
    }
    for (int i = 0; i < n; i++)
        layers[i].layer.skip[step] = layers[i].curve.score[best_point(&layers[i].curve, exp2(high))];
}

void fit_skip(struct fitted_layer *layers, int n)
{
    for (int step = 0; n > 0 && step < SKIP_STEPS; step++)
        choose_step(layers, n, step);
}
