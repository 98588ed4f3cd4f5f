/* The speed of neurons' rows on one thread and one token, in GB/s of the bytes that are needed: all rows, every tenth
 * at random, the estimate of all; beside a plain read of the same memory and the product of packed groups. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "kernels/rows.h"
#include "tests/conformance/kernels_suite.h"

enum { RUNS = 7, COLS = 4096, ROWS = 11008 };

struct speed {
    const struct kernels *k;
    int64_t rows, n_layers;
    struct neuron_rows m;  /* of all layers */
    struct packed packed;
    struct lane_acts x;
    struct acts a;
    int32_t *row, *token;  /* [rows] of a layer */
    int64_t n;
    float *y;              /* [rows] */
};

static void run_dots(struct speed *s, int64_t layer)
{
    struct neuron_rows m = s->m;
    m.top += (size_t)(layer * s->rows) * m.top_bytes;
    m.rest += (size_t)(layer * s->rows) * m.rest_bytes;
    s->k->dot_rows(&m, &s->x, s->row, s->token, s->n, s->y);
}

static void run_estimates(struct speed *s, int64_t layer)
{
    s->k->estimate_rows(&s->m, layer * s->rows, (layer + 1) * s->rows, &s->x, 1, s->y, s->rows);
}

static void run_matmul(struct speed *s, int64_t layer)
{
    struct packed m = s->packed;
    m.data += (size_t)(layer * m.groups) * m.group_bytes;
    s->k->matmul(&m, 0, m.groups, &s->a, 1, s->y, s->rows);
}

static void run_read(struct speed *s, int64_t layer)
{
    const size_t bytes = (size_t)s->rows * s->m.top_bytes;
    volatile uint32_t sum = s->k->read_words((const uint32_t *)(s->m.top + (size_t)layer * bytes), (int64_t)bytes / 4);
    (void)sum;
}

/* GB/s of the fastest of RUNS passes over the layers, a layer at a time, in the processor's time: others may share the
 * machine. `bytes` are a layer's. */
static double gb_per_s(void (*fn)(struct speed *s, int64_t layer), struct speed *s, double bytes)
{
    double best = 1e9;
    for (int64_t i = 0; i < RUNS * s->n_layers; i++) {
        if (s->n < s->rows / 2) /* so few that they would stay in the caches */
            run_read(s, (i + s->n_layers / 2) % s->n_layers);
        const clock_t start = clock();
        fn(s, i % s->n_layers);
        const double t = (double)(clock() - start) / CLOCKS_PER_SEC;
        best = t < best ? t : best;
    }
    return bytes / best * 1e-9;
}

static void choose_rows(struct speed *s, struct rng *r, uint64_t one_in)
{
    s->n = 0;
    for (int64_t i = 0; i < s->rows; i++)
        if (rng_next(r) % one_in == 0)
            s->row[s->n++] = (int32_t)i;
}

static void map(struct arena *arena, size_t bytes, uint8_t **out)
{
    if (arena_map(arena, bytes + 64))
        abort();
    *out = arena->base;
}

/* Whole rows, or rows in planes. */
static void bench_type(const struct kernels *k, enum dtype type, bool planes)
{
    const bool slow = strcmp(k->name, "scalar") == 0;
    struct rng r = {.state = 3};
    struct speed s = {.k = k, .rows = slow ? 64 : ROWS};
    s.n_layers = slow ? 1 : 1 + (int64_t)(200000000 / (ROWS * dtype_row_bytes(type, COLS))); /* more than the caches */
    uint8_t *weights = make_weights(&r, type, 16, COLS, FILL_RANDOM);
    const int64_t rows = s.rows * s.n_layers;
    int32_t *ids = calloc((size_t)rows, sizeof *ids);
    struct arena top, rest, packed;
    for (int64_t i = 0; i < rows; i++)
        ids[i] = (int32_t)(i % 16); /* the same 16 rows everywhere: speed does not depend on values */
    neuron_rows_shape(&s.m, type, rows, COLS, planes);
    map(&top, (size_t)rows * s.m.top_bytes, &s.m.top);
    map(&rest, (size_t)rows * s.m.rest_bytes, &s.m.rest);
    neuron_rows_fill(&s.m, 0, rows, weights, dtype_row_bytes(type, COLS), ids);
    packed_shape(&s.packed, type, rows, COLS);
    map(&packed, packed_bytes(&s.packed), &s.packed.data);
    packed_fill(&s.packed, 0, s.packed.groups, weights, dtype_row_bytes(type, COLS), ids);
    s.packed.rows = s.rows;
    s.packed.groups = s.rows / ROW_GROUP;
    s.a = make_acts(&r, 1, COLS, FILL_RANDOM);
    s.row = calloc((size_t)s.rows, sizeof *s.row);
    s.token = calloc((size_t)s.rows, sizeof *s.token);
    s.y = calloc((size_t)s.rows, sizeof *s.y);
    s.x = make_lanes(k, &s.a, 1, true);

    const double row_bytes = (double)(s.m.top_bytes + s.m.rest_bytes), all = (double)s.rows * row_bytes;
    choose_rows(&s, &r, 1);
    printf("%-7s  rows %-5s%s  read %6.2f  matmul %6.2f  all rows %6.2f", k->name, dtype_name(type),
           planes ? " in planes" : "          ", gb_per_s(run_read, &s, (double)s.rows * (double)s.m.top_bytes),
           gb_per_s(run_matmul, &s, all), gb_per_s(run_dots, &s, all));
    choose_rows(&s, &r, 10);
    printf("  a tenth %6.2f", gb_per_s(run_dots, &s, (double)s.n * row_bytes));
    if (planes)
        printf("  estimate %6.2f", gb_per_s(run_estimates, &s, (double)s.rows * (double)s.m.top_bytes));
    printf("  GB/s\n");
    free(ids);
    free(weights);
    free(s.row);
    free(s.token);
    free(s.y);
    free_lanes(&s.x);
    free_acts(&s.a);
    arena_unmap(&top);
    arena_unmap(&rest);
    arena_unmap(&packed);
}

void bench_rows(const struct kernels *k, const char *only)
{
    for (size_t i = 0; i < sizeof weight_types / sizeof *weight_types; i++) {
        if (only && strcmp(only, dtype_name(weight_types[i])) != 0)
            continue;
        bench_type(k, weight_types[i], false);
        if (dtype_has_planes(weight_types[i]))
            bench_type(k, weight_types[i], true);
    }
}
