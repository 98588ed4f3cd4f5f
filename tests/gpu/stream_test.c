/* The residual stream on a GPU gives the bits of the scalar table and of device/cpu/stream.c: how it begins, norms,
 * quantising, how it grows; and what is no number is noted where it arose first. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/neurons.h"
#include "kernels/cuda/stream.h"
#include "tests/conformance/kernels_suite.h"
#include "tests/gpu/memory.h"

enum { ORDER = 7 }; /* of the operation under test */
static const unsigned long long nothing = ~0ull;

static const struct kernels *scalar;
static struct gpu *gpu;

/* ---- helpers ---- */

static void *copy_floats(const float *v, int64_t n) { return gpu_copy_of(v, (size_t)n * sizeof *v); }

/* The same bits, or both NaN. */
static void expect_floats(const float *expected, const float *on_gpu, int64_t n)
{
    float *got = malloc((size_t)n * sizeof *got + 1);
    gpu_read(got, on_gpu, (size_t)n * sizeof *got);
    for (int64_t i = 0; i < n; i++)
        if (memcmp(&expected[i], &got[i], sizeof *got) != 0 && !(isnan(expected[i]) && isnan(got[i])))
            fail_msg("value %lld is %a, expected %a", (long long)i, (double)got[i], (double)expected[i]);
    free(got);
}

static struct gpu_fault new_fault(void)
{
    return (struct gpu_fault){.first = gpu_copy_of(&nothing, sizeof nothing), .order = ORDER};
}

/* The index of the first value that is no number; -1: there is none. */
static int64_t first_broken(const float *v, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(v[i]))
            return i;
    return -1;
}

static void expect_fault(struct gpu_fault f, int64_t index)
{
    unsigned long long got;
    gpu_read(&got, f.first, sizeof got);
    assert_true(got == (index < 0 ? nothing : (unsigned long long)ORDER << 32 | (unsigned long long)index));
    gpu_write(f.first, &nothing, sizeof nothing);
}

static struct acts host_acts(int64_t n, int64_t cols)
{
    const size_t values = (size_t)(n * cols);
    return (struct acts){.cols = cols, .f32 = calloc(values, sizeof(float)), .codes = calloc(values, 1),
                         .blocks = calloc(values / ACT_BLOCK + 1, sizeof(struct act_block))};
}

static void free_host(struct acts *a)
{
    free(a->f32);
    free(a->codes);
    free(a->blocks);
}

static struct acts gpu_acts(int64_t n, int64_t cols)
{
    const size_t values = (size_t)(n * cols);
    struct acts a = {.cols = cols, .f32 = gpu_copy_of(NULL, values * sizeof(float))};
    a.codes = gpu_copy_of(NULL, values);
    a.blocks = gpu_copy_of(NULL, values / ACT_BLOCK * sizeof *a.blocks);
    return a;
}

static void release_acts(struct acts *a)
{
    gpu_release(a->f32);
    gpu_release(a->codes);
    gpu_release(a->blocks);
}

static bool same_block(const struct act_block *a, const struct act_block *b)
{
    const bool scales = isnan(a->scale) ? isnan(b->scale) && isnan(b->scaled_sum)
                                        : memcmp(a, b, offsetof(struct act_block, minus_sum)) == 0;
    return scales && a->minus_sum == b->minus_sum && a->minus_sum_low == b->minus_sum_low;
}

/* Codes and blocks. */
static void expect_quantised(const struct acts *expected, const struct acts *on_gpu, int64_t n)
{
    const int64_t values = n * expected->cols;
    int8_t *codes = malloc((size_t)values);
    struct act_block *blocks = malloc((size_t)(values / ACT_BLOCK) * sizeof *blocks);
    gpu_read(codes, on_gpu->codes, (size_t)values);
    gpu_read(blocks, on_gpu->blocks, (size_t)(values / ACT_BLOCK) * sizeof *blocks);
    assert_memory_equal(codes, expected->codes, (size_t)values);
    for (int64_t i = 0; i < values / ACT_BLOCK; i++)
        if (!same_block(&expected->blocks[i], &blocks[i]))
            fail_msg("block %lld differs: scale %a, expected %a", (long long)i, (double)blocks[i].scale,
                     (double)expected->blocks[i].scale);
    free(codes);
    free(blocks);
}

/* ---- how it begins ---- */

enum { VOCAB = 9 };

struct table {
    enum dtype type;
    uint8_t *rows, *on_gpu;
    size_t row;
};

static struct table make_table(struct rng *r, enum dtype type, int64_t d, enum filling f)
{
    struct table t = {.type = type, .rows = make_weights(r, type, VOCAB, d, f), .row = dtype_row_bytes(type, d)};
    t.on_gpu = gpu_copy_of(t.rows, VOCAB * t.row);
    return t;
}

static void release_table(struct table *t)
{
    gpu_release(t->on_gpu);
    free(t->rows);
}

static void embed_with(struct rng *r, enum dtype type, enum dtype positions_type, int64_t d, int64_t n, bool positions,
                       enum filling f)
{
    struct table e = make_table(r, type, d, f), p = make_table(r, positions_type, d, f);
    float *x = malloc((size_t)(n * d) * sizeof *x), *row = malloc((size_t)d * sizeof *row);
    const float scale = n % 2 ? 1 : 0.3f;
    int32_t token[16];
    uint32_t position[16];
    for (int64_t t = 0; t < n; t++) {
        token[t] = (int32_t)(rng_next(r) % VOCAB);
        position[t] = (uint32_t)(rng_next(r) % VOCAB);
        dequantize_row(type, e.rows + (size_t)token[t] * e.row, d, x + t * d);
        for (int64_t i = 0; i < d; i++)
            x[t * d + i] *= scale;
        dequantize_row(positions_type, p.rows + position[t] * p.row, d, row);
        if (positions)
            scalar->add(x + t * d, row, d);
    }
    float *to = gpu_copy_of(NULL, (size_t)(n * d) * sizeof *to);
    void *tokens = gpu_copy_of(token, (size_t)n * sizeof *token);
    void *at = gpu_copy_of(position, (size_t)n * sizeof *position);
    struct gpu_fault fault = new_fault();
    const struct gpu_embedding on_gpu = {type, positions_type, e.on_gpu, positions ? p.on_gpu : NULL, d, scale};
    gpu_embed(gpu, &on_gpu, tokens, positions ? at : NULL, n, to, fault);
    expect_floats(x, to, n * d);
    expect_fault(fault, first_broken(x, n * d));
    gpu_release(to);
    gpu_release(tokens);
    gpu_release(at);
    gpu_release(fault.first);
    release_table(&e);
    release_table(&p);
    free(x);
    free(row);
}

/* Values of d for a type: not all of a thread block's, more than one has, and odd ones where blocks allow it. */
static void embeds_rows_of_all_types(void **state)
{
    struct rng r = {1};
    (void)state;
    for (int i = 0; i < WEIGHT_TYPES; i++) {
        const int block = dtype_block(weight_types[i]);
        const int64_t d = block == 1 ? 333 : block == 32 ? 288 : 512;
        for (enum filling f = 0; f < FILLINGS; f++) {
            embed_with(&r, weight_types[i], DT_F32, d, 3, false, f);
            embed_with(&r, weight_types[i], DT_F16, d, 2, true, f);
        }
        embed_with(&r, DT_F32, weight_types[i], d, 2, true, FILL_RANDOM);
    }
}

static void notes_rows_that_are_no_numbers(void **state)
{
    const int64_t d = 64, n = 2;
    const int32_t token[2] = {1, 1};
    const uint32_t position[2] = {0, 1};
    float rows[2 * 64] = {0}, positions[2 * 64] = {0};
    (void)state;
    positions[64 + 5] = NAN;
    positions[64 + 9] = INFINITY;
    float *x = gpu_copy_of(NULL, 128 * sizeof *x), *e = copy_floats(rows, 128), *p = copy_floats(positions, 128);
    void *tokens = gpu_copy_of(token, sizeof token), *at = gpu_copy_of(position, sizeof position);
    struct gpu_fault fault = new_fault();
    gpu_embed(gpu, &(struct gpu_embedding){DT_F32, DT_F32, (uint8_t *)e, (uint8_t *)p, d, 1}, tokens, at, n, x, fault);
    expect_fault(fault, 64 + 5);
    gpu_check(gpu, x, n, d, fault);
    expect_fault(fault, 64 + 5);
    gpu_check(gpu, x, 1, d, fault);
    expect_fault(fault, -1);
    fault.order = 3; /* the earliest operation's stays */
    gpu_check(gpu, x, n, d, fault);
    fault.order = ORDER;
    gpu_check(gpu, x, n, d, fault);
    unsigned long long got;
    gpu_read(&got, fault.first, sizeof got);
    assert_true(got == (3ull << 32 | (64 + 5)));
    gpu_release(x);
    gpu_release(e);
    gpu_release(p);
    gpu_release(tokens);
    gpu_release(at);
    gpu_release(fault.first);
}

/* ---- quantising ---- */

static void quantise_with(struct acts *a, int64_t n)
{
    struct acts g = gpu_acts(n, a->cols);
    gpu_write(g.f32, a->f32, (size_t)(n * a->cols) * sizeof *a->f32);
    scalar->quantize(a, 0, n);
    gpu_quantize(gpu, &g, n);
    expect_quantised(a, &g, n);
    release_acts(&g);
}

static void quantises(void **state)
{
    static const int64_t cols[] = {32, 96, 576};
    struct rng r = {2};
    (void)state;
    for (int c = 0; c < 3; c++) {
        for (int64_t n = 1; n < 10; n += 4) {
            for (enum filling f = 0; f < FILLINGS; f++) {
                struct acts a = make_acts(&r, n, cols[c], f);
                quantise_with(&a, n);
                free_acts(&a);
            }
        }
    }
}

/* Ties, the largest f32, values about the bound 1e-30 below which codes are 0, what is no number. */
static void quantises_odd_values(void **state)
{
    static const float odd[] = {0, -0.0f, 1e-30f, 0x1.4484bep-100f, 9e-31f, 0x1p-149f, -0x1p-126f, 3.4028235e38f,
                                -3.4028235e38f, 127, 0.5f, 1.5f, -2.5f, NAN, INFINITY, -INFINITY};
    enum { ODD = sizeof odd / sizeof *odd, COLS = 96 };
    (void)state;
    for (int i = 0; i < ODD; i++) {
        struct acts a = host_acts(2, COLS);
        for (int c = 0; c < 2 * COLS; c++)
            a.f32[c] = c % 7 == 0 ? odd[i] : i % 2 ? 0 : (float)c * 0x1p-130f;
        a.f32[70] = a.f32[120] = 127;
        for (int c = 121; c < 128; c++)
            a.f32[c] = (float)(c - 124) + 0.5f; /* ties of codes: the largest is 127 */
        quantise_with(&a, 2);
        free_host(&a);
    }
}

/* Activations and their codes: in one launch, or, where the stride or columns of nobody forbid it, in two. */
static void activate_with(struct rng *r, enum activation a, bool gated, int64_t rows, int64_t cols, int64_t stride)
{
    enum { N = 3 };
    struct acts want = host_acts(N, cols), g = gpu_acts(N, cols);
    float *gate = make_floats(r, N * stride, FILL_RANDOM), *up = make_floats(r, N * stride, FILL_RANDOM);
    up[stride + rows - 1] = NAN;
    float *gate_gpu = copy_floats(gate, N * stride), *up_gpu = copy_floats(up, N * stride);
    struct gpu_clearing clearing = gpu_to_clear();
    gpu_write(g.f32, want.f32, (size_t)(N * cols) * sizeof *g.f32); /* zeros: of what is nobody's */
    for (int t = 0; t < N; t++)
        scalar->activate(a, gated ? gate + t * stride : NULL, up + t * stride, rows, want.f32 + t * cols);
    scalar->quantize(&want, 0, N);
    gpu_activate(gpu, a, gated ? gate_gpu : NULL, up_gpu, stride, rows, N, NULL, &g, true, &clearing);
    gpu_expect_cleared(&clearing);
    expect_floats(want.f32, g.f32, N * cols);
    expect_quantised(&want, &g, N);
    gpu_release(gate_gpu);
    gpu_release(up_gpu);
    release_acts(&g);
    free_host(&want);
    free(gate);
    free(up);
}

static void quantises_activations(void **state)
{
    static const struct { int64_t rows, cols, stride; } shapes[] = {{32, 32, 32}, {576, 576, 580}, {576, 576, 577},
                                                                     {90, 96, 96}};
    struct rng r = {12};
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (enum activation a = 0; a < ACTIVATIONS; a++)
            for (int gated = a == ACT_DRELU; gated < 2; gated++)
                activate_with(&r, a, gated, shapes[i].rows, shapes[i].cols, shapes[i].stride);
}

static void completes_blocks(void **state)
{
    struct rng r = {3};
    enum { N = 3, COLS = 160, BLOCKS = N * COLS / ACT_BLOCK };
    struct acts a = make_acts(&r, N, COLS, FILL_RANDOM), g = gpu_acts(N, COLS);
    float scale[BLOCKS];
    (void)state;
    a.blocks[4].scale = NAN;
    for (int i = 0; i < BLOCKS; i++) {
        scale[i] = a.blocks[i].scale;
        for (int c = 0; c < ACT_BLOCK && i == 2; c++)
            a.codes[i * ACT_BLOCK + c] = c % 2 ? 127 : -127;
    }
    scalar->sum_blocks(&a, 0, N);
    gpu_write(g.codes, a.codes, N * COLS);
    float *scales = copy_floats(scale, BLOCKS), *taken = gpu_copy_of(NULL, sizeof scale);
    gpu_give_scales(gpu, scales, BLOCKS, g.blocks);
    gpu_sum_blocks(gpu, &g, N);
    expect_quantised(&a, &g, N);
    gpu_take_scales(gpu, g.blocks, BLOCKS, taken);
    expect_floats(scale, taken, BLOCKS);
    gpu_release(scales);
    gpu_release(taken);
    release_acts(&g);
    free_acts(&a);
}

/* ---- norms ---- */

struct norm_case {
    struct gpu_norm norm; /* arrays on the GPU */
    float *w, *b;
    int64_t rows;         /* of x */
};

static struct norm_case make_norm(struct rng *r, int64_t d, bool rms, bool bias)
{
    struct norm_case c = {.norm = {.rms = rms, .quantise = d % ACT_BLOCK == 0, .eps = 1e-5f, .d = d},
                          .w = make_floats(r, d, FILL_RANDOM), .b = make_floats(r, d, FILL_RANDOM)};
    c.norm.w = copy_floats(c.w, d);
    c.norm.b = bias ? copy_floats(c.b, d) : NULL;
    return c;
}

/* The norm that is none. */
static struct norm_case make_none(int64_t d)
{
    return (struct norm_case){.norm = {.rms = true, .quantise = d % ACT_BLOCK == 0, .d = d}};
}

static void release_norm(struct norm_case *c)
{
    gpu_release((void *)(uintptr_t)c->norm.w);
    gpu_release((void *)(uintptr_t)c->norm.b);
    free(c->w);
    free(c->b);
}

/* What the CPU gives for tokens of x. */
static struct acts expected_norm(const struct norm_case *c, const float *x, const uint32_t *tokens, int64_t n)
{
    const int64_t d = c->norm.d;
    struct acts a = host_acts(n, d);
    for (int64_t t = 0; t < n; t++) {
        const float *from = x + (tokens ? tokens[t] : t) * d;
        if (!c->w)
            memcpy(a.f32 + t * d, from, (size_t)d * sizeof *from);
        else if (c->norm.rms)
            scalar->rms_norm(from, c->w, d, c->norm.eps, a.f32 + t * d);
        else
            scalar->layer_norm(from, c->w, c->norm.b ? c->b : NULL, d, c->norm.eps, a.f32 + t * d);
    }
    if (c->norm.quantise)
        scalar->quantize(&a, 0, n);
    return a;
}

static void expect_normed(const struct norm_case *c, const struct acts *expected, const struct acts *got,
                          struct gpu_fault fault, int64_t n)
{
    expect_floats(expected->f32, got->f32, n * c->norm.d);
    if (c->norm.quantise)
        expect_quantised(expected, got, n);
    expect_fault(fault, first_broken(expected->f32, n * c->norm.d));
}

static void norm_with(const struct norm_case *c, const float *x, int64_t rows, const uint32_t *tokens, int64_t n)
{
    struct acts expected = expected_norm(c, x, tokens, n), got = gpu_acts(n, c->norm.d);
    float *from = copy_floats(x, rows * c->norm.d);
    uint32_t *some = tokens ? gpu_copy_of(tokens, (size_t)n * sizeof *tokens) : NULL;
    struct gpu_fault fault = new_fault();
    gpu_norm(gpu, &c->norm, from, some, n, &got, fault);
    expect_normed(c, &expected, &got, fault, n);
    gpu_release(from);
    gpu_release(some);
    gpu_release(fault.first);
    release_acts(&got);
    free_host(&expected);
}

static const int64_t lengths[] = {1, 3, 64, 127, 130, 576, 1024, 1056, 2050, 4096, 8192, 8224, 16381, 16384};

static void norms(void **state)
{
    static const uint32_t some[] = {2, 0};
    struct rng r = {4};
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        for (int kind = 0; kind < 3; kind++) {
            struct norm_case c = make_norm(&r, lengths[i], kind == 0, kind == 1);
            for (enum filling f = 0; f < FILLINGS; f++) {
                if (lengths[i] > 5000 && f != FILL_RANDOM)
                    continue;
                float *x = make_floats(&r, 3 * lengths[i], f);
                norm_with(&c, x, 3, f == FILL_TINY ? NULL : some, f == FILL_TINY ? 1 : 2);
                free(x);
            }
            release_norm(&c);
        }
    }
}

/* A block may read x as it is. */
static void reads_what_is_not_normed(void **state)
{
    static const uint32_t some[] = {2, 0};
    struct rng r = {10};
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct norm_case c = make_none(lengths[i]);
        float *x = make_floats(&r, 3 * lengths[i], FILL_RANDOM);
        if (i % 2)
            x[lengths[i] - 1] = INFINITY;
        norm_with(&c, x, 3, some, 2);
        free(x);
    }
}

static void norms_note_what_is_no_number(void **state)
{
    struct rng r = {5};
    struct norm_case c = make_norm(&r, 320, true, false);
    float *x = make_floats(&r, 2 * 320, FILL_RANDOM);
    (void)state;
    x[320 + 17] = NAN;
    norm_with(&c, x, 2, NULL, 2); /* all of the second token's, from its first on */
    free(x);
    release_norm(&c);
}

/* ---- how it grows ---- */

struct growth {
    int64_t n, d;
    long long *units;
    uint32_t *broken;
    double *sum;         /* the same, as the CPU has it */
    float *x, *y, *bias;
    float *norm;         /* [d] of what is added, or NULL */
    struct gpu_sums sums; /* on the GPU */
    float *gpu_x;
    struct gpu_addition a;
    struct gpu_fault fault;
};

/* Of all magnitudes that a sum may have, and ties of the rounding to f32. */
static long long random_units(struct rng *r)
{
    const long long v = (long long)(rng_next(r) & ((1ull << 52) - 1)) >> rng_next(r) % 53;
    const long long tie = (1ll << 24 | (long long)(rng_next(r) & 0xffff)) * 4 + 2;
    const long long some = rng_next(r) % 4 ? v : tie;
    return rng_next(r) & 1 ? some : -some;
}

static struct growth make_growth(struct rng *r, int64_t n, int64_t d, bool bias, bool y, bool waits)
{
    struct growth g = {.n = n, .d = d, .units = malloc((size_t)(n * d) * sizeof *g.units),
                       .broken = calloc((size_t)n, sizeof *g.broken), .sum = malloc((size_t)(n * d) * sizeof *g.sum),
                       .x = make_floats(r, n * d, FILL_RANDOM), .y = make_floats(r, n * d, FILL_RANDOM),
                       .bias = bias ? make_floats(r, d, FILL_RANDOM) : NULL, .fault = new_fault()};
    for (int64_t i = 0; i < n * d; i++) {
        g.units[i] = random_units(r);
        g.sum[i] = (double)g.units[i] * 0x1p-30;
    }
    g.sums.units = gpu_copy_of(g.units, (size_t)(n * d) * sizeof *g.units);
    g.sums.broken = gpu_copy_of(g.broken, (size_t)n * sizeof *g.broken);
    g.gpu_x = copy_floats(g.x, n * d);
    g.a.bias = bias ? copy_floats(g.bias, d) : NULL;
    g.a.y = y || waits ? copy_floats(g.y, n * d) : NULL;
    g.a.waits = waits;
    g.a.scale = 1;
    return g;
}

static struct growth make_normed_growth(struct rng *r, int64_t n, int64_t d, bool bias, bool y)
{
    struct growth g = make_growth(r, n, d, bias, y, false);
    g.norm = make_floats(r, d, FILL_RANDOM);
    g.a.norm = copy_floats(g.norm, d);
    g.a.scale = 0.6f; /* of what is not normed */
    g.a.eps = 1e-5f;
    return g;
}

static void release_growth(struct growth *g)
{
    gpu_release(g->sums.units);
    gpu_release(g->sums.broken);
    gpu_release(g->gpu_x);
    gpu_release((void *)(uintptr_t)g->a.bias);
    gpu_release((void *)(uintptr_t)g->a.norm);
    gpu_release(g->a.y);
    gpu_release(g->fault.first);
    free(g->units);
    free(g->broken);
    free(g->sum);
    free(g->x);
    free(g->y);
    free(g->bias);
    free(g->norm);
}

/* As device/cpu/stream.c has it. Returns the first value that is no number, or -1. */
static int64_t grow(struct growth *g)
{
    const int64_t values = g->n * g->d;
    float *value = malloc((size_t)values * sizeof *value);
    for (int64_t i = 0; i < values; i++)
        value[i] = (float)g->sum[i];
    for (int64_t t = 0; t < g->n && g->bias; t++)
        scalar->add(value + t * g->d, g->bias, g->d);
    for (int64_t t = 0; t < g->n && g->norm; t++)
        scalar->rms_norm(value + t * g->d, g->norm, g->d, g->a.eps, value + t * g->d);
    for (int64_t i = 0; i < values && !g->norm; i++)
        value[i] *= g->a.scale;
    if (g->a.waits)
        memcpy(g->y, value, (size_t)values * sizeof *value);
    else
        scalar->add(g->x, value, values);
    const int64_t first = first_broken(g->a.waits ? g->y : g->x, values);
    if (g->a.y && !g->a.waits)
        scalar->add(g->x, g->y, values);
    free(value);
    return first;
}

static void expect_grown(struct growth *g)
{
    const int64_t first = grow(g);
    expect_floats(g->x, g->gpu_x, g->n * g->d);
    if (g->a.y)
        expect_floats(g->y, g->a.y, g->n * g->d);
    expect_fault(g->fault, first);
}

static void adds_sums(void **state)
{
    static const int64_t shapes[][2] = {{1, 1}, {1, 576}, {3, 130}, {9, 96}};
    struct rng r = {6};
    (void)state;
    for (int i = 0; i < 4; i++) {
        for (int kind = 0; kind < 8; kind++) {
            struct growth g = make_growth(&r, shapes[i][0], shapes[i][1], kind & 1, kind & 2, kind & 4);
            g.a.scale = i % 2 ? 0.6f : 1;
            gpu_add(gpu, &g.sums, &g.a, g.n, g.d, g.gpu_x, g.fault);
            expect_grown(&g);
            release_growth(&g);
        }
    }
}

/* A broken token, and an x that overflows before; of what waits, y is looked at. */
static void adds_what_is_no_number(void **state)
{
    struct rng r = {7};
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        struct growth g = make_growth(&r, 3, 65, kind & 1, false, kind & 2);
        g.broken[1] = 1;
        g.sum[65] = NAN;
        g.x[2 * 65 + 3] = INFINITY;
        gpu_write(g.sums.broken, g.broken, 3 * sizeof *g.broken);
        gpu_write(g.gpu_x, g.x, (size_t)(g.n * g.d) * sizeof *g.x);
        gpu_add(gpu, &g.sums, &g.a, g.n, g.d, g.gpu_x, g.fault);
        expect_grown(&g);
        release_growth(&g);
    }
}

/* What blocks give is normed before it is added. */
static void adds_what_is_normed(void **state)
{
    struct rng r = {11};
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct growth g = make_normed_growth(&r, 2, lengths[i], i & 1, i & 2);
        if (i % 3 == 1) {
            g.broken[1] = 1;
            g.sum[g.d] = NAN;
            gpu_write(g.sums.broken, g.broken, 2 * sizeof *g.broken);
        }
        gpu_add(gpu, &g.sums, &g.a, g.n, g.d, g.gpu_x, g.fault);
        expect_grown(&g);
        release_growth(&g);
    }
}

static void finishes_logits(void **state)
{
    enum { N = 777 };
    static const float ways[][2] = {{1, 8}, {0.5f, 0}, {0.3f, 1.5f}};
    struct rng r = {13};
    (void)state;
    for (int i = 0; i < 3; i++) {
        float *x = make_floats(&r, N, FILL_RANDOM);
        x[5] = 3e38f;
        float *on_gpu = copy_floats(x, N);
        gpu_finish_logits(gpu, on_gpu, N, ways[i][0], ways[i][1]);
        for (int k = 0; k < N; k++)
            x[k] *= ways[i][0];
        if (ways[i][1] > 0)
            scalar->softcap(x, N, ways[i][1]);
        expect_floats(x, on_gpu, N);
        gpu_release(on_gpu);
        free(x);
    }
}

static void adds_and_norms_at_once(void **state)
{
    static const int64_t some[] = {3, 64, 130, 576, 1056, 4096, 8224};
    struct rng r = {8};
    (void)state;
    for (int i = 0; i < 7; i++) {
        for (int kind = 0; kind < 4; kind++) {
            struct growth g = make_growth(&r, 2, some[i], kind & 1, kind & 2, false);
            struct norm_case c = kind == 2 ? make_none(some[i]) : make_norm(&r, some[i], kind != 1, true);
            g.a.scale = kind % 2 ? 0.6f : 1;
            struct acts got = gpu_acts(2, some[i]);
            struct gpu_fault fault = new_fault();
            if (kind == 3) {
                g.broken[1] = 1;
                g.sum[g.d] = NAN;
                gpu_write(g.sums.broken, g.broken, 2 * sizeof *g.broken);
            }
            gpu_add_norm(gpu, &g.sums, &g.a, g.fault, &c.norm, g.n, g.gpu_x, &got, fault);
            expect_grown(&g);
            struct acts expected = expected_norm(&c, g.x, NULL, 2);
            expect_normed(&c, &expected, &got, fault, 2);
            free_host(&expected);
            gpu_release(fault.first);
            release_acts(&got);
            release_norm(&c);
            release_growth(&g);
        }
    }
}

/* No tokens: nothing is launched, nothing is written. */
static void does_nothing_for_no_tokens(void **state)
{
    struct rng r = {9};
    struct growth g = make_growth(&r, 1, 64, false, false, false);
    struct norm_case c = make_norm(&r, 64, true, false);
    struct acts a = gpu_acts(1, 64);
    (void)state;
    gpu_add(gpu, &g.sums, &g.a, 0, 64, g.gpu_x, g.fault);
    gpu_norm(gpu, &c.norm, g.gpu_x, NULL, 0, &a, g.fault);
    gpu_quantize(gpu, &a, 0);
    gpu_sum_blocks(gpu, &a, 0);
    gpu_check(gpu, g.gpu_x, 0, 64, g.fault);
    expect_floats(g.x, g.gpu_x, 64);
    expect_fault(g.fault, -1);
    release_acts(&a);
    release_norm(&c);
    release_growth(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embeds_rows_of_all_types), cmocka_unit_test(notes_rows_that_are_no_numbers),
        cmocka_unit_test(quantises),                cmocka_unit_test(quantises_odd_values),
        cmocka_unit_test(completes_blocks),         cmocka_unit_test(norms),
        cmocka_unit_test(norms_note_what_is_no_number), cmocka_unit_test(adds_sums),
        cmocka_unit_test(adds_what_is_no_number),   cmocka_unit_test(adds_and_norms_at_once),
        cmocka_unit_test(quantises_activations),    cmocka_unit_test(does_nothing_for_no_tokens),
        cmocka_unit_test(reads_what_is_not_normed), cmocka_unit_test(adds_what_is_normed),
        cmocka_unit_test(finishes_logits),
    };
    gpu = gpu_for_test();
    if (!gpu)
        return 77;
    if (kernels_select("scalar", &scalar))
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
