#include "sparsity/fit/threshold.h"

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

enum { OUTLIER = 100 }; /* times the median: a token that does not count */

struct scored {
    float score, loss;
};

static int compare(const void *a, const void *b)
{
    const float x = ((const struct scored *)a)->score, y = ((const struct scored *)b)->score;
    return (x > y) - (x < y);
}

static int compare_floats(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The median over tokens of the output's square. */
static status median_size(const struct scored *s, int64_t n, int64_t d_ff, float *out)
{
    float *size = products_alloc(n, sizeof *size);
    if (!size)
        return ST_NOMEM;
    for (int64_t t = 0; t < n; t++) {
        size[t] = 0;
        for (int64_t i = t * d_ff; i < (t + 1) * d_ff; i++)
            size[t] += s[i].loss;
    }
    qsort(size, (size_t)n, sizeof *size, compare_floats);
    *out = size[n / 2];
    free(size);
    return ST_OK;
}

static void drop_outliers(struct scored *s, int64_t n, int64_t d_ff, float median)
{
    for (int64_t t = 0; t < n; t++) {
        float size = 0;
        for (int64_t i = t * d_ff; i < (t + 1) * d_ff; i++)
            size += s[i].loss;
        for (int64_t i = t * d_ff; size > OUTLIER * median && i < (t + 1) * d_ff; i++)
            s[i].loss = 0;
    }
}

status fit_curve(const float *activation, const float *estimate, const float *weight, int64_t n, int64_t d_ff,
                 struct skip_curve *out)
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
    status st = median_size(s, n, d_ff, &out->size);
    if (!st) {
        drop_outliers(s, n, d_ff, out->size);
        qsort(s, (size_t)n_pairs, sizeof *s, compare);
    }
    for (int64_t i = 0, point = 0; !st && i < n_pairs && point < SKIP_POINTS; i++) {
        for (; point < SKIP_POINTS && i == point * n_pairs / SKIP_POINTS; point++) {
            out->score[point] = s[i].score;
            out->loss[point] = (float)(sum / (double)n);
        }
        sum += (double)s[i].loss;
    }
    free(s);
    return st;
}

/* ---- all layers ---- */

void fit_skip(struct fitted_layer *layers, int n)
{
    for (int i = 0; i < n; i++)
        for (int step = 0; step < SKIP_STEPS; step++)
            layers[i].layer.skip[step] = layers[i].curve.score[(step + 1) * SKIP_POINTS / (SKIP_STEPS + 1)];
}
