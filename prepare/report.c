#include "prepare/report.h"

#include <stdlib.h>
#include <string.h>
#include "base/log.h"

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

static status sorted(const float *values, int64_t n, float **out)
{
    float *copy = malloc((size_t)n * sizeof *copy);
    if (!copy) {
        log_error("no memory to sort %lld neurons", (long long)n);
        return ST_NOMEM;
    }
    memcpy(copy, values, (size_t)n * sizeof *copy);
    qsort(copy, (size_t)n, sizeof *copy, descending);
    *out = copy;
    return ST_OK;
}

static double sum_of(const float *values, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)values[i];
    return sum;
}

status report_neurons_for(const float *busy, int64_t n, double share, double *out)
{
    float *order;
    status st = sorted(busy, n, &order);
    if (st)
        return st;
    double wanted = sum_of(order, n) * share, sum = 0;
    int64_t i = 0;
    while (i < n && sum < wanted)
        sum += (double)order[i++];
    *out = (double)i / (double)n;
    free(order);
    return ST_OK;
}

status report_curve(const float *busy, int64_t n, int points, float *y)
{
    float *order;
    status st = sorted(busy, n, &order);
    if (st)
        return st;
    double all = sum_of(order, n), sum = 0;
    int64_t at = 0;
    for (int i = 0; i < points; i++) {
        for (; at < n * i / (points - 1); at++)
            sum += (double)order[at];
        y[i] = all > 0 ? (float)(sum / all) : 0;
    }
    free(order);
    return ST_OK;
}

status report_busy(const struct neurons *n, float **out, int64_t *all)
{
    const bool by_firing = activation_is_exact(n->activation);
    float *busy = malloc((size_t)n->n_layers * (size_t)n->d_ff * sizeof *busy), *at = busy;
    if (!busy) {
        log_error("no memory for the statistics of %d layers", n->n_layers);
        return ST_NOMEM;
    }
    for (int i = 0; i < n->n_layers; i++) {
        const float *from = by_firing ? n->layers[i].fired : n->layers[i].strength;
        const int64_t neurons = neurons_of_layer(n, i);
        const double sum = by_firing ? 1 : sum_of(from, neurons);
        for (int64_t j = 0; j < neurons; j++)
            *at++ = sum > 0 ? (float)((double)from[j] / sum) : 0;
    }
    *out = busy;
    *all = at - busy;
    return ST_OK;
}

static uint64_t matrix_bytes(const struct matrix *m)
{
    return m->data ? (uint64_t)m->rows * dtype_row_bytes(m->type, m->cols) : 0;
}

uint64_t report_mlp_bytes(const struct neurons *n)
{
    uint64_t bytes = 0;
    for (int i = 0; i < n->n_layers; i++)
        bytes += matrix_bytes(&n->layers[i].fc1) + matrix_bytes(&n->layers[i].fc2);
    return bytes;
}

uint64_t report_planes_bytes(const struct neurons *n)
{
    uint64_t bytes = 0;
    for (int i = 0; i < n->n_layers; i++)
        bytes += n->layers[i].bound ? (uint64_t)neurons_of_layer(n, i) * sizeof(float) : 0;
    return bytes;
}

double report_live(const struct neurons *n)
{
    double live = 0;
    for (int i = 0; i < n->n_layers; i++)
        live += (double)n->layers[i].live / n->n_layers;
    return live;
}

void report_mode_name(const struct part_measure *m, char *out, size_t n)
{
    const char *mode = sparse_mode_name((enum sparse_mode)m->sparse);
    if (m->sparse == SPARSE_PREDICTED)
        snprintf(out, n, "%s, %s", mode, predictor_name((enum predictor)m->predictor));
    else if (m->sparse == SPARSE_THRESHOLD)
        snprintf(out, n, "%s, %.0f %% skipped", mode, (double)m->skip_share * 100);
    else
        snprintf(out, n, "%s", mode);
}
