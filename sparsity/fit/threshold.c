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

status fit_weights(const struct bundle *of, int64_t d_model, float *weight)
{
    const struct matrix *down = of->down.data ? &of->down : &of->down_t;
    const size_t stride = dtype_row_bytes(down->type, down->cols);
    float *row = products_alloc(down->cols, sizeof *row);
    if (!row)
        return ST_NOMEM;
    for (int64_t j = 0; j < of->n; j++)
        weight[j] = 0;
    for (int64_t i = 0; i < down->rows; i++) {
        dequantize_row(down->type, down->data + (size_t)i * stride, down->cols, row);
        if (of->down.data)
            add_squares(row, of->n, weight);
        else
            weight[i] = squares(row, d_model);
    }
    for (int64_t j = 0; j < of->n; j++)
        weight[j] = sqrtf(weight[j]);
    free(row);
    return ST_OK;
}

/* ---- one layer's curve ---- */

enum { OUTLIER = 100 }; /* times the median: a row that does not count */

struct scored {
    float score, loss;
};

struct scored_row {
    int64_t n;  /* pairs */
    float size; /* the sum of their losses */
};

status scored_open(struct scored_rows *s, int64_t most, int64_t most_rows)
{
    *s = (struct scored_rows){.pairs = products_alloc(most, sizeof *s->pairs), .most = most, .most_rows = most_rows,
                              .rows = products_alloc(most_rows, sizeof *s->rows)};
    return s->pairs && s->rows ? ST_OK : ST_NOMEM;
}

void scored_close(struct scored_rows *s)
{
    free(s->pairs);
    free(s->rows);
}

void scored_add(struct scored_rows *s, const float *activation, const float *estimate, const float *weight, int64_t n,
                float of_token)
{
    struct scored_row row = {.n = n};
    for (int64_t i = 0; i < n; i++) {
        const float w = weight[i] * of_token, lost = activation[i] * w;
        s->pairs[s->n++] = (struct scored){.score = fabsf(estimate[i] * w), .loss = lost * lost};
        row.size += lost * lost;
    }
    s->rows[s->n_rows++] = row;
}

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

static status median_size(const struct scored_rows *s, float *out)
{
    float *size = products_alloc(s->n_rows, sizeof *size);
    if (!size)
        return ST_NOMEM;
    for (int64_t i = 0; i < s->n_rows; i++)
        size[i] = s->rows[i].size;
    qsort(size, (size_t)s->n_rows, sizeof *size, compare_floats);
    *out = s->n_rows ? size[s->n_rows / 2] : 0;
    free(size);
    return ST_OK;
}

static void drop_outliers(struct scored_rows *s, float median)
{
    struct scored *pair = s->pairs;
    for (int64_t i = 0; i < s->n_rows; pair += s->rows[i++].n)
        for (int64_t j = 0; s->rows[i].size > OUTLIER * median && j < s->rows[i].n; j++)
            pair[j].loss = 0;
}

/* The mean over so many tokens of what is lost below each point. */
static void take_points(const struct scored_rows *s, double tokens, struct skip_curve *out)
{
    double sum = 0;
    for (int64_t i = 0, point = 0; i < s->n && point < SKIP_POINTS; i++) {
        for (; point < SKIP_POINTS && i == point * s->n / SKIP_POINTS; point++) {
            out->score[point] = s->pairs[i].score;
            out->loss[point] = (float)(sum / tokens);
        }
        sum += (double)s->pairs[i].loss;
    }
}

status fit_curve(struct scored_rows *s, int64_t n_tokens, struct skip_curve *out)
{
    status st = median_size(s, &out->size);
    if (st)
        return st;
    drop_outliers(s, out->size);
    qsort(s->pairs, (size_t)s->n, sizeof *s->pairs, compare);
    take_points(s, (double)n_tokens, out);
    return ST_OK;
}

/* ---- all layers ---- */

void fit_skip(struct fitted_layer *layers, int n)
{
    for (int i = 0; i < n; i++)
        for (int step = 0; step < SKIP_STEPS; step++)
            layers[i].layer.skip[step] = layers[i].curve.score[(step + 1) * SKIP_POINTS / (SKIP_STEPS + 1)];
}
