/* The speed of each operation on one thread: matrix-vector over weights larger than the caches in GB/s, matrix-matrix
 * in GFLOP/s, the others in millions of values per second. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/arena.h"
#include "tests/conformance/kernels_suite.h"

enum { RUNS = 7 };

/* Seconds of the fastest of RUNS calls. */
static double fastest(void (*fn)(void *), void *arg)
{
    double best = 1e9;
    for (int i = 0; i < RUNS; i++) {
        double start = clock_s();
        fn(arg);
        double s = clock_s() - start;
        best = s < best ? s : best;
    }
    return best;
}

struct product {
    const struct kernels *k;
    struct packed m;
    struct acts a;
    int64_t n_tokens;
    float *y;
};

static void run_product(void *arg)
{
    struct product *p = arg;
    p->k->matmul(&p->m, 0, p->m.groups, &p->a, p->n_tokens, p->y, p->m.rows);
}

static void bench_matmul(const struct kernels *k, enum dtype type)
{
    bool slow = strcmp(k->name, "scalar") == 0;
    const int64_t cols = 2048, rows = slow ? 256 : 65536, few_rows = slow ? 64 : 2048;
    struct rng r = {.state = 1};
    uint8_t *weights = make_weights(&r, type, 16, cols, FILL_RANDOM);
    struct product p = {.k = k, .n_tokens = 1, .a = make_acts(&r, 128, cols, FILL_RANDOM)};
    struct arena arena;
    packed_shape(&p.m, type, rows, cols);
    if (arena_map(&arena, packed_bytes(&p.m)))
        abort();
    p.m.data = arena.base;
    for (int64_t g = 0; g < p.m.groups; g++) { /* the same 16 rows everywhere: speed does not depend on values */
        struct packed one = p.m;
        one.rows = ROW_GROUP;
        one.data = p.m.data + (size_t)g * p.m.group_bytes;
        packed_fill(&one, 0, 1, weights, dtype_row_bytes(type, cols), NULL);
    }
    p.y = calloc((size_t)(rows > 128 * few_rows ? rows : 128 * few_rows), sizeof *p.y);
    double vector = fastest(run_product, &p);
    double bytes = (double)packed_bytes(&p.m);
    p.m.groups = few_rows / ROW_GROUP;
    p.m.rows = few_rows;
    p.n_tokens = 128;
    double matrix = fastest(run_product, &p);
    printf("%-7s  matmul %-5s  %7.2f GB/s x vector   %8.1f GFLOP/s x 128 tokens\n", k->name, dtype_name(type),
           bytes / vector * 1e-9, 2.0 * (double)few_rows * (double)cols * 128 / matrix * 1e-9);
    free(p.y);
    free(weights);
    free_acts(&p.a);
    arena_unmap(&arena);
}

struct vectors {
    const struct kernels *k;
    double *sum, *total;
    uint8_t *width, *packed;
    struct acts a;
    float *x, *y, *z;
    uint16_t *cache;
    const uint16_t **pages; /* of heads of 64 values */
    int64_t n;
};

static void run_quantize(void *arg) { struct vectors *v = arg; v->k->quantize(&v->a, 0, 1); }
static void run_rms_norm(void *arg) { struct vectors *v = arg; v->k->rms_norm(v->x, v->y, v->n, 1e-5f, v->z); }
static void run_rope(void *arg) { struct vectors *v = arg; v->k->rope(v->x, v->y, v->n / 64, 64, 32, false); }
static void run_silu(void *arg) { struct vectors *v = arg; v->k->activate(ACT_SILU, v->x, v->y, v->n, v->z); }
static void run_softmax(void *arg) { struct vectors *v = arg; v->k->softmax(v->z, v->n); }
static void run_weights(void *arg) { struct vectors *v = arg; v->z[0] = v->k->attn_weights(v->z, v->n, 0, -INFINITY); }
static void run_add(void *arg) { struct vectors *v = arg; v->k->add(v->z, v->y, v->n); }
static void run_to_f16(void *arg) { struct vectors *v = arg; v->k->to_f16(v->x, v->n, v->cache); }
static void run_scores(void *arg)
{
    struct vectors *v = arg;
    v->k->attn_scores(v->x, 64, 4, v->pages, 64, 0, v->n / 64, 0.125f, v->z, v->n / 64);
}
static void run_widths(void *arg) { struct vectors *v = arg; v->k->sum_widths(v->sum, v->n, false, v->width); }
static void run_pack(void *arg) { struct vectors *v = arg; v->k->pack_sums(v->sum, v->n, v->width, v->packed); }
static void run_add_packed(void *arg)
{
    struct vectors *v = arg;
    v->k->add_packed(v->packed, v->width, v->n, v->total);
}
static void run_mix(void *arg)
{
    struct vectors *v = arg;
    int64_t begin[4] = {0}, end[4] = {v->n / 64, v->n / 64, v->n / 64, v->n / 64};
    const float inverse[4] = {1, 1, 1, 1};
    v->k->attn_mix(v->y, v->n / 64, 0, 4, begin, end, inverse, v->pages, 64, v->z, 64);
}

static void bench_vectors(const struct kernels *k)
{
    const struct { const char *name; void (*run)(void *); } ops[] = {
        {"quantize", run_quantize}, {"rms_norm", run_rms_norm},     {"rope", run_rope},         {"silu", run_silu},
        {"softmax", run_softmax},   {"weights", run_weights},       {"add", run_add},           {"to_f16", run_to_f16},
        {"scores x4", run_scores},  {"mix x4", run_mix},            {"sum widths", run_widths}, {"pack sums", run_pack},
        {"add packed", run_add_packed},
    };
    struct rng r = {.state = 2};
    struct vectors v = {.k = k, .n = 65536};
    v.a = make_acts(&r, 1, v.n, FILL_RANDOM);
    v.x = make_floats(&r, v.n, FILL_RANDOM);
    v.y = make_floats(&r, v.n, FILL_RANDOM);
    v.z = make_floats(&r, v.n, FILL_RANDOM);
    v.cache = calloc((size_t)v.n, sizeof *v.cache);
    v.pages = malloc((size_t)(v.n / 64 / KV_PAGE) * sizeof *v.pages);
    for (int64_t i = 0; i < v.n / 64 / KV_PAGE; i++)
        v.pages[i] = v.cache + i * KV_PAGE * 64;
    v.sum = aligned_alloc(64, (size_t)v.n * sizeof *v.sum);
    v.total = calloc((size_t)v.n, sizeof *v.total);
    v.packed = aligned_alloc(64, (size_t)v.n * sizeof *v.sum);
    v.width = malloc((size_t)v.n / SUM_BLOCK);
    for (int64_t i = 0; i < v.n; i++)
        v.sum[i] = ((double)v.x[i] / 2 + SEGMENT_GRID) - SEGMENT_GRID; /* 4 bytes each */
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        printf("%-7s  %-10s  %10.1f Mvalues/s\n", k->name, ops[i].name, (double)v.n / fastest(ops[i].run, &v) * 1e-6);
    free_acts(&v.a);
    free(v.x);
    free(v.y);
    free(v.z);
    free(v.cache);
    free(v.pages);
    free(v.sum);
    free(v.total);
    free(v.packed);
    free(v.width);
}

void bench_kernels(const struct kernels *k)
{
    for (size_t i = 0; i < sizeof weight_types / sizeof *weight_types; i++)
        bench_matmul(k, weight_types[i]);
    bench_vectors(k);
}
