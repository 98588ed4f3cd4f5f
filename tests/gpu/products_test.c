/* Products with packed matrices on a GPU give the bits of the scalar table: all types, few and many tokens, whole and
 * in segments, and nothing is written beside them. Below compute capability 8.0 other kernels run: both are tested
 * where the GPU can do both. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/products.h"
#include "kernels/layout.h"
#include "kernels/tables.h"
#include "tests/conformance/kernels_suite.h"
#include "tests/gpu/memory.h"

enum { GAP = 3, UNTOUCHED = 0xa5 }; /* values behind each token's y; what gpu_copy_of fills */

#define UNIT 0x1p-30

static struct gpu gpu; /* the GPU, as one of the capability under test */

/* ---- copies on the GPU ---- */

static struct acts copy_acts(const struct acts *a, int64_t n)
{
    const size_t values = (size_t)(n * a->cols);
    struct acts g = {.cols = a->cols, .f32 = gpu_copy_of(a->f32, values * sizeof *a->f32)};
    g.codes = gpu_copy_of(a->codes, values);
    g.blocks = gpu_copy_of(a->blocks, values / ACT_BLOCK * sizeof *a->blocks);
    return g;
}

static void release_acts(struct acts *g)
{
    gpu_release(g->f32);
    gpu_release(g->codes);
    gpu_release(g->blocks);
}

static struct packed copy_packed(const struct packed *m)
{
    struct packed g = *m;
    g.data = gpu_copy_of(m->data, packed_bytes(m));
    return g;
}

/* ---- one product ---- */

struct product {
    struct packed m, on_gpu;
    float *bias, *gpu_bias, *y; /* y: on the GPU */
    int64_t stride;
};

static struct product make_product(struct rng *r, enum dtype type, int64_t rows, int64_t cols, int64_t n, bool bias,
                                   enum filling f)
{
    struct product p = {.stride = rows + GAP};
    uint8_t *weights = make_weights(r, type, rows, cols, f);
    p.m = make_packed(type, rows, cols, weights);
    p.on_gpu = copy_packed(&p.m);
    p.bias = bias ? make_floats(r, rows, FILL_RANDOM) : NULL;
    p.gpu_bias = bias ? gpu_copy_of(p.bias, (size_t)rows * sizeof *p.bias) : NULL;
    p.y = gpu_copy_of(NULL, (size_t)(n * p.stride) * sizeof *p.y);
    free(weights);
    return p;
}

static void release_product(struct product *p)
{
    gpu_release(p->on_gpu.data);
    gpu_release(p->y);
    if (p->bias)
        gpu_release(p->gpu_bias);
    free(p->bias);
    guarded_free(p->m.data);
}

static bool same_f32(float want, float got)
{
    return memcmp(&want, &got, sizeof want) == 0 || (isnan(want) && isnan(got));
}

static void expect_product(const struct product *p, const struct acts *a, int64_t n)
{
    const size_t bytes = (size_t)(n * p->stride) * sizeof(float);
    float *want = malloc(bytes), *got = malloc(bytes);
    memset(want, UNTOUCHED, bytes);
    kernels_scalar.matmul(&p->m, 0, p->m.groups, a, n, want, p->stride);
    for (int64_t t = 0; t < n && p->bias; t++)
        kernels_scalar.add(want + t * p->stride, p->bias, p->m.rows);
    gpu_read(got, p->y, bytes);
    for (int64_t i = 0; i < n * p->stride; i++)
        if (!same_f32(want[i], got[i]))
            fail_msg("%s, %lld x %lld, %lld tokens, sm_%d: token %lld, row %lld is %a, expected %a",
                     dtype_name(p->m.type), (long long)p->m.rows, (long long)p->m.cols, (long long)n, gpu.capability,
                     (long long)(i / p->stride), (long long)(i % p->stride), (double)got[i], (double)want[i]);
    free(want);
    free(got);
}

static struct gpu_product launch_of(const struct product *p)
{
    return (struct gpu_product){.m = p->on_gpu, .y = p->y, .y_stride = p->stride, .bias = p->gpu_bias};
}

/* ---- partial products ---- */

struct sums {
    int64_t n, rows;
    struct gpu_sums g;
    long long *units;
    uint32_t *broken;
};

static struct sums make_sums(int64_t n, int64_t rows)
{
    struct sums s = {.n = n, .rows = rows};
    s.g.units = gpu_copy_of(NULL, (size_t)(n * rows) * sizeof *s.g.units);
    s.units = malloc((size_t)(n * rows) * sizeof *s.units);
    s.broken = calloc((size_t)n, sizeof *s.broken);
    s.g.broken = gpu_copy_of(s.broken, (size_t)n * sizeof *s.g.broken);
    return s;
}

static void read_sums(struct sums *s)
{
    gpu_read(s->units, s->g.units, (size_t)(s->n * s->rows) * sizeof *s->units);
    gpu_read(s->broken, s->g.broken, (size_t)s->n * sizeof *s->broken);
}

static void release_sums(struct sums *s)
{
    gpu_release(s->g.units);
    gpu_release(s->g.broken);
    free(s->units);
    free(s->broken);
}

/* times: how often the product was added. A token is broken if the scalar sum of one of its rows shows it; it may be
 * where segments that are too large cancel. */
static void expect_sums(const struct sums *s, const struct packed *m, const double *want, int times, bool may_break)
{
    const double segments = ceil((double)m->cols / (double)m->segment);
    char what[128];
    snprintf(what, sizeof what, "%s, %lld x %lld in segments of %lld, %lld tokens, sm_%d", dtype_name(m->type),
             (long long)m->rows, (long long)m->cols, (long long)m->segment, (long long)s->n, gpu.capability);
    for (int64_t i = 0; i < s->n * s->rows; i++) {
        const int t = (int)(i / s->rows), row = (int)(i % s->rows);
        if (!(fabs(want[i]) < 0x1p31 * segments) && !s->broken[t])
            fail_msg("%s: token %d is broken, but not known to be", what, t);
        if (s->broken[t] && !may_break)
            fail_msg("%s: token %d is not broken", what, t);
        /* Sums from 2^22 on are exact in units, but not in f64. */
        if (!s->broken[t] && fabs((double)s->units[i] - times * want[i] / UNIT) > (may_break ? 1 / UNIT : 0))
            fail_msg("%s: token %d, row %d is %lld, expected %a", what, t, row, s->units[i], times * want[i] / UNIT);
    }
}

static void check_segment(const struct packed *host, const struct packed *on_gpu, int64_t segment, const struct acts *a,
                          const struct acts *x, int64_t n, enum filling f)
{
    struct packed m = *host, g = *on_gpu;
    struct sums s = make_sums(n, m.rows);
    double *want = malloc((size_t)(n * m.rows) * sizeof *want);
    m.segment = g.segment = segment;
    kernels_scalar.matmul_partial(&m, 0, m.groups, a, n, want, m.rows);
    gpu_matmul_partial(&gpu, &g, x, n, &s.g, false);
    read_sums(&s);
    expect_sums(&s, &m, want, 1, f == FILL_EXTREME);
    gpu_matmul_partial(&gpu, &g, x, n, &s.g, true);
    read_sums(&s);
    expect_sums(&s, &m, want, 2, f == FILL_EXTREME);
    release_sums(&s);
    free(want);
}

/* In segments of the usual length, of one block, of three, and all in one. */
static void check_partial(const struct product *p, const struct acts *a, const struct acts *x, int64_t n,
                          enum filling f)
{
    const int64_t segments[] = {SUM_SEGMENT, ACT_BLOCK, 3 * ACT_BLOCK, p->m.cols};
    for (size_t i = 0; i < sizeof segments / sizeof *segments; i++)
        check_segment(&p->m, &p->on_gpu, segments[i], a, x, n, f);
}

/* ---- tests ---- */

static void check(enum dtype type, int64_t rows, int64_t cols, int64_t n, bool partial, enum filling f)
{
    struct rng r = {.state = (uint64_t)(rows * 1000003 + cols * 31 + n * 7 + (int)type + (int)f)};
    struct product p = make_product(&r, type, rows, cols, n, n % 2 == 0, f);
    struct acts a = make_acts(&r, n, cols, f), x = copy_acts(&a, n);
    const struct gpu_product launch = launch_of(&p);
    gpu_matmul(&gpu, &launch, 1, &x, n);
    expect_product(&p, &a, n);
    if (partial)
        check_partial(&p, &a, &x, n, f);
    release_acts(&x);
    free_acts(&a);
    release_product(&p);
}

/* 18 blocks of types without super-blocks, 24 of the others; float segments that are not full, and tokens that are not
 * aligned. */
static int64_t some_cols(enum dtype type)
{
    return dtype_block(type) == 256 ? 768 : dtype_block(type) == 32 ? 576 : type == DT_F16 ? 325 : 324;
}

static void each_type(void (*check_type)(enum dtype type))
{
    const int most = gpu.capability;
    for (int i = 0; i < OWN_TYPES; i++) {
        check_type(weight_types[i]);
        gpu.capability = 75;
        if (most > 75 && i < PLAIN_TYPES) /* the others' books make no difference to what kernels choose */
            check_type(weight_types[i]);
        gpu.capability = most;
    }
}

/* Worst cases for each kind of kernel, ordinary values for every number. */
static void check_tokens(enum dtype type)
{
    static const int64_t worst_for[] = {1, 3, 9}, some_tokens[] = {1, 2, 3, 7, 8, 9, 33};
    for (size_t i = 0; i < sizeof worst_for / sizeof *worst_for; i++)
        for (int f = FILL_RANDOM + 1; f < FILLINGS; f++)
            check(type, 37, some_cols(type), worst_for[i], true, f);
    for (size_t i = 0; i < sizeof some_tokens / sizeof *some_tokens; i++)
        check(type, 37, some_cols(type), some_tokens[i], true, FILL_RANDOM);
}

static void equals_scalar_for_any_tokens(void **state)
{
    (void)state;
    each_type(check_tokens);
}

static void check_rows(enum dtype type)
{
    static const int64_t some_rows[] = {1, 15, 16, 17, 67};
    const int64_t block = dtype_block(type);
    for (size_t i = 0; i < sizeof some_rows / sizeof *some_rows; i++)
        for (int64_t n = 1; n <= 10; n += 9)
            check(type, some_rows[i], block == 1 ? 7 : block, n, false, FILL_RANDOM);
}

static void equals_scalar_for_any_rows(void **state)
{
    (void)state;
    each_type(check_rows);
}

/* 344 blocks: more than a thread block has on their way, and a last round that is not full. */
static void check_long(enum dtype type)
{
    check(type, 16, dtype_is_quantised(type) ? 11008 : 4100, 1, false, FILL_RANDOM);
    check(type, 16, dtype_is_quantised(type) ? 11008 : 4100, 10, false, FILL_TINY);
}

static void equals_scalar_for_long_rows(void **state)
{
    (void)state;
    each_type(check_long);
}

/* Three matrices that read one x: of one type, of two, of three. */
static void multiplies_three_at_once(void **state)
{
    enum { COLS = 512, MOST = 12 };
    static const enum dtype types[][MOST_PRODUCTS] = {
        {DT_Q4_0, DT_Q4_0, DT_Q4_0}, {DT_Q4_K, DT_Q6_K, DT_Q4_K},     {DT_Q8_0, DT_F16, DT_Q2_K},
        {DT_MXFP4, DT_Q4_0, DT_MXFP4}, {DT_IQ3_S, DT_IQ4_XS, DT_IQ3_XXS}}; /* of one kernel, with three books */
    static const int64_t rows[MOST_PRODUCTS] = {49, 16, 5};
    (void)state;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        for (int64_t n = 1; n <= MOST; n += MOST - 1) {
            struct rng r = {.state = i};
            struct acts a = make_acts(&r, n, COLS, FILL_RANDOM), x = copy_acts(&a, n);
            struct product p[MOST_PRODUCTS];
            struct gpu_product launch[MOST_PRODUCTS];
            for (int j = 0; j < MOST_PRODUCTS; j++) {
                p[j] = make_product(&r, types[i][j], rows[j], COLS, n, j == 1, FILL_RANDOM);
                launch[j] = launch_of(&p[j]);
            }
            gpu_matmul(&gpu, launch, MOST_PRODUCTS, &x, n);
            for (int j = 0; j < MOST_PRODUCTS; j++) {
                expect_product(&p[j], &a, n);
                release_product(&p[j]);
            }
            release_acts(&x);
            free_acts(&a);
        }
    }
}

/* Of n tokens one has a block that is no number, and the next one sums that are too large. */
static void check_broken_tokens(enum dtype type, int64_t n, int64_t segment)
{
    const int64_t cols = some_cols(type), blocks = cols / ACT_BLOCK, rows = 20;
    struct rng r = {.state = (uint64_t)type};
    struct product p = make_product(&r, type, rows, cols, n, false, FILL_RANDOM);
    struct acts a = make_acts(&r, n, cols, FILL_RANDOM);
    const int64_t nan = n / 2, large = nan + 1;
    a.f32[nan * cols + cols - 1] = NAN;
    if (blocks * ACT_BLOCK == cols)
        a.blocks[nan * blocks + blocks - 1].scale = a.blocks[nan * blocks + blocks - 1].scaled_sum = NAN;
    for (int64_t c = 0; c < cols && large < n; c++)
        a.f32[large * cols + c] *= 1e30f;
    for (int64_t b = 0; b < blocks && large < n && blocks * ACT_BLOCK == cols; b++) {
        a.blocks[large * blocks + b].scale *= 1e30f;
        a.blocks[large * blocks + b].scaled_sum *= 1e30f;
    }
    struct acts x = copy_acts(&a, n);
    struct sums s = make_sums(n, rows);
    p.on_gpu.segment = segment;
    for (int add = 0; add < 2; add++) {
        gpu_matmul_partial(&gpu, &p.on_gpu, &x, n, &s.g, add);
        read_sums(&s);
        for (int64_t t = 0; t < n; t++)
            if ((s.broken[t] != 0) != (t == nan || t == large))
                fail_msg("%s, %lld tokens, segment %lld: token %lld is %sbroken", dtype_name(type), (long long)n,
                         (long long)segment, (long long)t, s.broken[t] ? "" : "not ");
    }
    release_sums(&s);
    release_acts(&x);
    free_acts(&a);
    release_product(&p);
}

static void check_broken(enum dtype type)
{
    for (int64_t n = 1; n <= 12; n += 1 + n)
        for (int64_t segment = 32; segment <= SUM_SEGMENT; segment += 96)
            check_broken_tokens(type, n, segment);
}

static void broken_tokens_are_known(void **state)
{
    (void)state;
    each_type(check_broken);
}

/* Each kernel that quantised matrices have, with fewer and with more tokens than it is chosen for. Types that share
 * theirs bring their own books. */
static void equals_scalar_by_each_kernel(void **state)
{
    static const int64_t some_tokens[] = {1, 3, 10};
    (void)state;
    for (gpu.products = PRODUCTS_DOT; gpu.products <= PRODUCTS_MMA; gpu.products++)
        for (int i = 0; i < WEIGHT_TYPES; i++)
            for (size_t j = 0; j < sizeof some_tokens / sizeof *some_tokens; j++)
                if (dtype_is_quantised(weight_types[i]))
                    check(weight_types[i], 70, some_cols(weight_types[i]), some_tokens[j], true,
                          i < OWN_TYPES ? FILL_RANDOM : (enum filling)j);
    gpu.products = PRODUCTS_FASTEST;
}

/* As a GPU of few multiprocessors, which makes its tiles larger. */
static void check_large_tiles(enum dtype type)
{
    const int n_sms = gpu.n_sms;
    gpu.n_sms = 1;
    check(type, 70, some_cols(type), 35, true, FILL_RANDOM);
    check(type, 16, some_cols(type), 10, true, FILL_TINY);
    check_broken_tokens(type, 33, SUM_SEGMENT);
    gpu.n_sms = n_sms;
}

static void equals_scalar_in_large_tiles(void **state)
{
    (void)state;
    for (int i = 0; i < OWN_TYPES; i++)
        check_large_tiles(weight_types[i]);
}

/* The largest sum that is none too large, 2^31 - 128, and the least that is. */
static void bound_is_exact(void **state)
{
    const float value[2] = {0x1.fffffep30f, -0x1p31f}, one[2] = {1, 0};
    struct packed m;
    struct acts x = {.cols = 1};
    (void)state;
    packed_shape(&m, DT_F32, 2, 1);
    m.data = guarded(packed_bytes(&m));
    packed_fill(&m, 0, m.groups, (const uint8_t *)one, sizeof *one, NULL);
    struct packed g = copy_packed(&m);
    struct sums s = make_sums(2, 2);
    x.f32 = gpu_copy_of(value, sizeof value);
    gpu_matmul_partial(&gpu, &g, &x, 2, &s.g, false);
    read_sums(&s);
    assert_int_equal(s.broken[0], 0);
    assert_true(s.units[0] == (0x80000000ll - 128) << 30 && s.units[1] == 0);
    assert_int_not_equal(s.broken[1], 0);
    gpu_release(x.f32);
    gpu_release(g.data);
    release_sums(&s);
    guarded_free(m.data);
}

/* The shapes of a model of 7 billion, on a real GPU. */
static void equals_scalar_for_large_shapes(void **state)
{
    (void)state;
    if (!getenv("HEARTH_GPU_LARGE"))
        skip();
    static const enum dtype types[] = {DT_Q4_0, DT_Q4_K, DT_Q6_K, DT_F16, DT_MXFP4, DT_IQ4_XS, DT_IQ2_XS, DT_TQ2_0};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        check(types[i], 4096, 4096, 1, false, FILL_RANDOM);
        check(types[i], 1000, 11008, 2, true, FILL_RANDOM);
        check(types[i], 512, 4096, 200, true, FILL_RANDOM);
    }
}

int main(void)
{
    const struct gpu *found = gpu_for_test();
    if (!found) {
        printf("SKIP: no GPU\n");
        return 77;
    }
    gpu = *found;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_scalar_for_any_tokens), cmocka_unit_test(equals_scalar_for_any_rows),
        cmocka_unit_test(equals_scalar_for_long_rows),  cmocka_unit_test(multiplies_three_at_once),
        cmocka_unit_test(broken_tokens_are_known),      cmocka_unit_test(bound_is_exact),
        cmocka_unit_test(equals_scalar_in_large_tiles), cmocka_unit_test(equals_scalar_for_large_shapes),
        cmocka_unit_test(equals_scalar_by_each_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
