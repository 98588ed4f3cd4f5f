/* Single neurons: estimating, picking, their rows and columns, where one in ten fires. */
#include "tests/gpu/speed/speed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/column_layout.h"
#include "kernels/cuda/neurons.h"
#include "kernels/tables.h"

enum { PATTERN_ROWS = 256, PATTERN_BLOCKS = SUPER_BLOCKS };
#define LIVE 0.10f

struct neurons {
    int64_t n, d, rows;
    struct acts x, h;
    float *value;            /* [n, rows] in [0, 1) */
    int32_t *slot;
    struct gpu_pairs pairs;
    struct gpu_counts *counts;
    struct neuron_rows m;    /* rows of the first set */
    struct neuron_columns columns;
    struct gpu_range *ranges;
    int n_ranges;
    struct gpu_sums sums;
    int sets;
    double live, live_rows;  /* pairs; neurons that fire for some token */
};

/* ---- rows ---- */

static struct neuron_rows rows_of(const struct neurons *x, int turn)
{
    struct neuron_rows m = x->m;
    const size_t first = (size_t)(turn % x->sets) * (size_t)m.rows;
    m.top += first * m.top_bytes;
    if (m.planes)
        m.rest += first * m.rest_bytes;
    return m;
}

static void launch_estimate(const struct speed *s, void *of, int turn)
{
    const struct neurons *x = of;
    const struct neuron_rows m = rows_of(x, turn);
    gpu_estimate_rows(&s->gpu, &m, &x->x, x->n, x->h.f32, x->rows);
}

static void launch_pick(const struct speed *s, void *of, int turn)
{
    const struct neurons *x = of;
    (void)turn;
    gpu_pick(&s->gpu, x->value, x->rows, x->rows, x->n, 1 - LIVE, NULL, true, &x->pairs, x->counts,
             &(struct gpu_clearing){0});
}

static void launch_gate(const struct speed *s, void *of, int turn)
{
    const struct neurons *x = of;
    const struct neuron_rows m = rows_of(x, turn);
    struct gpu_pairs pairs = x->pairs;
    pairs.gate = x->h.f32; /* those that were picked stay as they are */
    gpu_gate_pairs(&s->gpu, &m, &x->x, NULL, x->rows * x->n, &pairs);
}

static void launch_activate(const struct speed *s, void *of, int turn)
{
    const struct neurons *x = of;
    const struct neuron_rows m = rows_of(x, turn);
    gpu_activate_pairs(&s->gpu, ACT_RELU, &m, NULL, &x->x, false, x->rows * x->n, &x->pairs, x->slot, x->h.f32, x->rows,
                       x->counts);
}

static void launch_pick_activate(const struct speed *s, void *of, int turn)
{
    launch_pick(s, of, turn);
    launch_activate(s, of, turn);
}

static void make_rows(struct speed *s, struct neurons *x, enum dtype type, bool planes)
{
    uint8_t *weights = make_weights(&s->rng, type, PATTERN_ROWS, x->d, FILL_RANDOM);
    struct neuron_rows some;
    neuron_rows_shape(&some, type, PATTERN_ROWS, x->d, planes);
    some.top = guarded(PATTERN_ROWS * some.top_bytes);
    some.rest = guarded(PATTERN_ROWS * some.rest_bytes);
    neuron_rows_fill(&some, 0, PATTERN_ROWS, weights, dtype_row_bytes(type, x->d), NULL);
    neuron_rows_shape(&x->m, type, x->rows, x->d, planes);
    x->sets = speed_sets(s, (uint64_t)((float)x->rows * (planes ? 1 : LIVE) * (float)x->m.top_bytes));
    const size_t all = (size_t)x->rows * (size_t)x->sets;
    x->m.top = speed_repeat(some.top, PATTERN_ROWS * some.top_bytes, all * some.top_bytes);
    x->m.rest = planes ? speed_repeat(some.rest, PATTERN_ROWS * some.rest_bytes, all * some.rest_bytes) : NULL;
    guarded_free(some.top);
    guarded_free(some.rest);
    free(weights);
}

static void free_rows(struct neurons *x)
{
    speed_free(x->m.top);
    speed_free(x->m.rest);
}

static void report_rows(struct speed *s, struct neurons *x, const char *what, speed_launch *launch, double rows)
{
    struct speed_row row = {"neurons", what, dtype_name(x->m.type), x->n, speed_time(s, launch, x), 0, 0};
    row.bytes = rows * (double)x->m.top_bytes + (double)(x->n * x->d) * 1.5;
    speed_report(s, &row);
}

static void measure_rows(struct speed *s, struct neurons *x)
{
    static const enum dtype types[] = {DT_Q4_0, DT_Q4_K, DT_Q8_0, DT_F16};
    struct speed_row pick = {"neurons", "pick of 11008, one in ten", "F32", x->n, speed_time(s, launch_pick, x),
                             4 * (double)(x->n * x->rows) + 12 * x->live, 0};
    speed_report(s, &pick);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        make_rows(s, x, types[i], false);
        report_rows(s, x, "gate rows of pairs, 1100 of 11008", launch_gate, x->live_rows);
        report_rows(s, x, "up rows of pairs, activated", launch_activate, x->live_rows);
        report_rows(s, x, "picked, up rows, activated", launch_pick_activate, x->live_rows);
        free_rows(x);
        if (!dtype_has_planes(types[i]))
            continue;
        make_rows(s, x, types[i], true);
        report_rows(s, x, "estimates of 11008 rows", launch_estimate, (double)x->rows);
        free_rows(x);
    }
}

/* ---- columns ---- */

static void launch_mix(const struct speed *s, void *of, int turn)
{
    const struct neurons *x = of;
    struct neuron_columns m = x->columns;
    m.codes += (size_t)(turn % x->sets) * neuron_columns_code_bytes(&m);
    gpu_mix_columns(&s->gpu, &m, x->ranges, x->n_ranges, &x->h, x->n, &x->sums);
}

static void make_ranges(struct neurons *x, const struct neuron_columns *on_host)
{
    struct gpu_range *ranges = malloc((size_t)on_host->n_blocks * sizeof *ranges);
    x->n_ranges = 0;
    for (struct column_range r = {.super = -1}; next_range(on_host, &r);)
        ranges[x->n_ranges++] = (struct gpu_range){(int32_t)r.begin, (int32_t)r.end, (int32_t)r.super};
    x->ranges = speed_copy(ranges, (size_t)x->n_ranges * sizeof *ranges);
    free(ranges);
}

/* Blocks and columns as they are where all neurons are held: of a file's order, and so of a pattern's. */
static void number_columns(struct neuron_columns *m)
{
    int32_t *block = malloc((size_t)m->n_blocks * sizeof *block);
    int32_t *column = malloc((size_t)m->n_columns * sizeof *column);
    for (int64_t i = 0; i < m->n_blocks; i++)
        block[i] = (int32_t)i;
    for (int64_t i = 0; i < m->n_columns; i++)
        column[i] = (int32_t)i;
    m->block = block;
    m->column = column;
}

/* A super-block's columns, over and over, as the codes and the scales of all. Of scales the segments of all
 * super-blocks come first, then their supers. */
static void repeat_columns(struct speed *s, struct neurons *x, const struct neuron_columns *some)
{
    struct neuron_columns *m = &x->columns;
    const size_t copies = (size_t)(m->n_blocks / PATTERN_BLOCKS);
    const size_t blocks = PATTERN_BLOCKS * some->block_bytes, codes = neuron_columns_code_bytes(m);
    uint8_t *scales = malloc(neuron_columns_scale_bytes(m));
    for (size_t i = 0; i < copies; i++) {
        memcpy(scales + i * blocks, some->scales, blocks);
        memcpy(scales + copies * blocks + i * m->super_bytes, some->scales + blocks, m->super_bytes);
    }
    x->sets = speed_sets(s, (uint64_t)((float)codes * LIVE));
    m->codes = speed_repeat(some->codes, neuron_columns_code_bytes(some), codes * (size_t)x->sets);
    m->scales = speed_copy(scales, neuron_columns_scale_bytes(m));
    free(scales);
}

static void make_columns(struct speed *s, struct neurons *x, enum dtype type)
{
    const int64_t columns = PATTERN_BLOCKS * ACT_BLOCK;
    struct neuron_columns some, all;
    uint8_t *weights = make_weights(&s->rng, type, x->d, columns, FILL_RANDOM);
    neuron_columns_shape(&some, type, false, x->d, columns, PATTERN_BLOCKS);
    some.n_supers = some.n_supers ? 1 : 0;
    number_columns(&some);
    some.codes = guarded(neuron_columns_code_bytes(&some));
    some.scales = guarded(neuron_columns_scale_bytes(&some));
    neuron_columns_fill(&some, 0, x->d, weights, dtype_row_bytes(type, columns));
    neuron_columns_shape(&all, type, false, x->d, x->rows, x->rows / ACT_BLOCK);
    all.n_supers = all.n_supers ? all.n_blocks / PATTERN_BLOCKS : 0;
    number_columns(&all);
    make_ranges(x, &all);
    x->columns = all;
    repeat_columns(s, x, &some);
    x->columns.block = speed_copy(all.block, (size_t)all.n_blocks * sizeof *all.block);
    x->columns.column = speed_copy(all.column, (size_t)all.n_columns * sizeof *all.column);
    void *arrays[] = {(void *)all.block, (void *)all.column, (void *)some.block, (void *)some.column, weights};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        free(arrays[i]);
    guarded_free(some.codes);
    guarded_free(some.scales);
}

static void measure_columns(struct speed *s, struct neurons *x)
{
    static const enum dtype types[] = {DT_Q4_0, DT_Q4_K, DT_Q8_0, DT_F16};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        make_columns(s, x, types[i]);
        struct speed_row row = {"neurons", "columns of 4096, 1100 of 11008", dtype_name(types[i]), x->n,
                                speed_time(s, launch_mix, x), 0, 0};
        row.bytes = x->live_rows * (double)x->columns.column_bytes + (double)neuron_columns_scale_bytes(&x->columns) +
                    8 * (double)(x->n * x->d);
        speed_report(s, &row);
        void *arrays[] = {x->columns.codes, x->columns.scales, (void *)x->columns.block, (void *)x->columns.column,
                          x->ranges};
        for (size_t j = 0; j < sizeof arrays / sizeof *arrays; j++)
            speed_free(arrays[j]);
    }
}

/* ---- which fire ---- */

/* Every token's own tenth, at random, and h with values for those alone. */
static void choose_live(struct speed *s, struct neurons *x)
{
    const size_t values = (size_t)(x->n * x->rows);
    float *value = malloc(values * sizeof *value);
    struct acts h = make_acts(&s->rng, x->n, x->rows, FILL_RANDOM);
    x->live = x->live_rows = 0;
    for (int64_t r = 0; r < x->rows; r++) {
        bool any = false;
        for (int64_t t = 0; t < x->n; t++) {
            float *v = &value[t * x->rows + r];
            *v = fabsf(rng_float(&s->rng));
            const bool fires = *v > 1 - LIVE;
            h.f32[t * x->rows + r] = fires ? *v : 0.0f;
            x->live += fires;
            any |= fires;
        }
        x->live_rows += any;
    }
    kernels_scalar.quantize(&h, 0, x->n);
    x->value = speed_copy(value, values * sizeof *value);
    x->h = speed_acts_copy(&h, x->n);
    free_acts(&h);
    free(value);
}

static void make_neurons(struct speed *s, struct neurons *x, int64_t n)
{
    *x = (struct neurons){.n = n, .d = speed_length(s, D_MODEL), .rows = speed_length(s, D_FF)};
    const size_t pairs = (size_t)(n * x->rows);
    int32_t *slot = malloc((size_t)x->rows * sizeof *slot);
    for (int64_t i = 0; i < x->rows; i++)
        slot[i] = (int32_t)i;
    x->slot = speed_copy(slot, (size_t)x->rows * sizeof *slot);
    free(slot);
    x->x = speed_acts(s, n, x->d);
    choose_live(s, x);
    x->pairs = (struct gpu_pairs){speed_copy(NULL, sizeof *x->pairs.n), speed_copy(NULL, pairs * sizeof(int32_t)),
                                  speed_copy(NULL, pairs * sizeof(int32_t)), speed_copy(NULL, pairs * sizeof(float)),
                                  NULL};
    x->counts = speed_copy(NULL, sizeof *x->counts);
    x->sums = (struct gpu_sums){speed_copy(NULL, (size_t)(n * x->d) * sizeof(long long)),
                                speed_copy(NULL, (size_t)n * sizeof(uint32_t))};
}

static void free_neurons(struct neurons *x)
{
    void *arrays[] = {x->slot,       x->value,      x->pairs.n, x->pairs.row,    x->pairs.token,
                      x->pairs.gate, x->counts,     x->sums.units, x->sums.broken};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        speed_free(arrays[i]);
    speed_free_acts(&x->x);
    speed_free_acts(&x->h);
}

void speed_neurons(struct speed *s)
{
    static const int64_t tokens[] = {1, 2, 8};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        struct neurons x;
        make_neurons(s, &x, tokens[i]);
        measure_columns(s, &x); /* before rows write into h */
        measure_rows(s, &x);
        free_neurons(&x);
    }
}
