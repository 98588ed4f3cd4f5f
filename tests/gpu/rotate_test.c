/* What is rotated on a GPU, and what lies in the cache then, has the bits of the scalar table. Pages are copied. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/attention.h"
#include "kernels/tables.h"
#include "tests/conformance/kernels_suite.h"
#include "tests/gpu/memory.h"

static struct gpu *gpu;

enum { ROTATED = 5, TABLE = 3, N_PAGES = ROTATED * TABLE }; /* tokens; pages of each of their sequences */
static const uint32_t position[ROTATED] = {0, 63, 64, 100, 191}, table[ROTATED] = {3, 0, 12, 6, 9};
static const float temper[ROTATED] = {1, 1.5f, 0.75f, 3.1f, 1.25f};
static const uint32_t tables[N_PAGES] = {4, 11, 3, 10, 2, 9, 1, 8, 0, 7, 14, 6, 13, 5, 12};

struct rotation {
    int64_t dim, n_kv, shared, half;
    bool neox, bias, norm, temper; /* temper: queries are multiplied */
};

static bool same_bits(float a, float b) { return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b)); }

/* The values of a token's own heads, on the CPU and on the GPU. */
struct vectors {
    int64_t heads, n;           /* n = heads * dim */
    float *x, *bias, *norm;     /* [ROTATED, n], [n], [dim] */
    float *x_gpu, *bias_gpu, *norm_gpu;
};

static struct vectors make_vectors(struct rng *r, const struct rotation *s, int64_t heads, bool norm, enum filling f)
{
    struct vectors v = {.heads = heads, .n = heads * s->dim};
    v.x = make_floats(r, ROTATED * v.n, f);
    v.x_gpu = gpu_copy_of(v.x, (size_t)(ROTATED * v.n) * sizeof(float));
    if (s->bias) {
        v.bias = make_floats(r, v.n, FILL_RANDOM);
        v.bias_gpu = gpu_copy_of(v.bias, (size_t)v.n * sizeof(float));
    }
    if (s->norm && norm) {
        v.norm = make_floats(r, s->dim, FILL_RANDOM);
        v.norm_gpu = gpu_copy_of(v.norm, (size_t)s->dim * sizeof(float));
    }
    return v;
}

static void free_vectors(struct vectors *v)
{
    free(v->x);
    free(v->bias);
    free(v->norm);
    gpu_release(v->x_gpu);
    if (v->bias_gpu)
        gpu_release(v->bias_gpu);
    if (v->norm_gpu)
        gpu_release(v->norm_gpu);
}

/* Bias, norm and rotation (half 0: none) by the reference. */
static void rotate_on_cpu(const struct rotation *s, struct vectors *v, const float *angles, int64_t half)
{
    for (int64_t t = 0; t < ROTATED; t++) {
        float *x = v->x + t * v->n;
        if (v->bias)
            kernels_scalar.add(x, v->bias, v->n);
        for (int64_t h = 0; v->norm && h < v->heads; h++)
            kernels_scalar.rms_norm(x + h * s->dim, v->norm, s->dim, 1e-5f, x + h * s->dim);
        if (half)
            kernels_scalar.rope(x, angles + t * 2 * half, v->heads, s->dim, half, s->neox);
    }
}

static void expect_vectors(const char *what, const struct rotation *s, const struct vectors *v)
{
    const size_t n = (size_t)(ROTATED * v->n);
    float *got = malloc(n * sizeof *got);
    gpu_read(got, v->x_gpu, n * sizeof *got);
    for (size_t i = 0; i < n; i++)
        if (!same_bits(v->x[i], got[i]))
            fail_msg("%s, heads of %d, %d pairs%s%s%s: value %d is %a, expected %a", what, (int)s->dim, (int)s->half,
                     s->neox ? ", neox" : "", s->bias ? ", bias" : "", s->norm ? ", norm" : "", (int)i, (double)got[i],
                     (double)v->x[i]);
    free(got);
}

/* ---- the cache ---- */

struct cache {
    size_t bytes;
    uint16_t *on_cpu, *on_gpu;
};

static struct cache make_cache(const struct rotation *s)
{
    struct cache c = {.bytes = (size_t)(s->n_kv * N_PAGES * KV_PAGE * s->dim) * sizeof(uint16_t)};
    c.on_cpu = malloc(c.bytes);
    memset(c.on_cpu, 0x5a, c.bytes);
    c.on_gpu = gpu_copy_of(c.on_cpu, c.bytes);
    return c;
}

/* The tokens' vectors into their places. */
static void store_on_cpu(struct cache *c, const struct rotation *s, const struct vectors *v, bool keys)
{
    uint16_t *half = malloc((size_t)v->n * sizeof *half);
    for (int t = 0; t < ROTATED; t++) {
        const int64_t page = tables[table[t] + position[t] / KV_PAGE], place = position[t] % KV_PAGE;
        kernels_scalar.to_f16(v->x + t * v->n, v->n, half);
        for (int64_t i = 0; i < v->n; i++) {
            const int64_t d = i % s->dim, first = (i / s->dim * N_PAGES + page) * KV_PAGE * s->dim;
            c->on_cpu[first + (keys ? d / 2 * 2 * KV_PAGE + 2 * place + d % 2 : place * s->dim + d)] = half[i];
        }
    }
    free(half);
}

static void expect_cache(const struct cache *c)
{
    uint16_t *got = malloc(c->bytes);
    gpu_read(got, c->on_gpu, c->bytes);
    assert_memory_equal(got, c->on_cpu, c->bytes);
    free(got);
}

static void free_cache(struct cache *c)
{
    free(c->on_cpu);
    gpu_release(c->on_gpu);
}

static void check_rotation(const struct rotation *s)
{
    struct rng r = {.state = (uint64_t)(s->dim * 8 + s->half)};
    struct vectors q = make_vectors(&r, s, s->n_kv * s->shared, true, FILL_RANDOM);
    struct vectors k = make_vectors(&r, s, s->n_kv, true, FILL_RANDOM);
    struct vectors v = make_vectors(&r, s, s->n_kv, false, FILL_EXTREME);
    struct cache keys = make_cache(s), values = make_cache(s);
    float *angles = make_floats(&r, ROTATED * 2 * s->half + 1, FILL_RANDOM);
    uint32_t *position_gpu = gpu_copy_of(position, sizeof position), *table_gpu = gpu_copy_of(table, sizeof table);
    uint32_t *tables_gpu = gpu_copy_of(tables, sizeof tables);
    float *angles_gpu = gpu_copy_of(angles, (size_t)(ROTATED * 2 * s->half + 1) * sizeof *angles);
    float *temper_gpu = gpu_copy_of(temper, sizeof temper);
    const struct gpu_batch b = {.n = ROTATED, .position = position_gpu, .table = table_gpu, .tables = tables_gpu,
                                .cos_sin = angles_gpu, .temper = s->temper ? temper_gpu : NULL,
                                .most_positions = 192};
    const struct gpu_heads h = {.n_kv = s->n_kv, .shared = s->shared, .dim = s->dim, .value = s->dim, .half = s->half,
                                .neox = s->neox,
                                .eps = 1e-5f, .q_bias = q.bias_gpu, .k_bias = k.bias_gpu, .v_bias = v.bias_gpu,
                                .q_norm = q.norm_gpu, .k_norm = k.norm_gpu, .k = keys.on_gpu, .v = values.on_gpu,
                                .n_pages = N_PAGES};
    struct gpu_clearing clearing = gpu_to_clear();
    gpu_rotate(gpu, &b, &h, q.x_gpu, k.x_gpu, v.x_gpu, &clearing);
    gpu_expect_cleared(&clearing);

    rotate_on_cpu(s, &q, angles, s->half);
    for (int64_t i = 0; i < ROTATED * q.n && s->temper; i++)
        q.x[i] *= temper[i / q.n];
    rotate_on_cpu(s, &k, angles, s->half);
    rotate_on_cpu(s, &v, angles, 0);
    store_on_cpu(&keys, s, &k, true);
    store_on_cpu(&values, s, &v, false);
    expect_vectors("queries", s, &q);
    expect_vectors("keys", s, &k);
    expect_vectors("values", s, &v);
    expect_cache(&keys);
    expect_cache(&values);

    gpu_release(position_gpu);
    gpu_release(table_gpu);
    gpu_release(tables_gpu);
    gpu_release(angles_gpu);
    gpu_release(temper_gpu);
    free(angles);
    free_cache(&keys);
    free_cache(&values);
    free_vectors(&q);
    free_vectors(&k);
    free_vectors(&v);
}

static void rotated_and_kept(void **state)
{
    (void)state;
    const struct { int64_t dim, half; } sizes[] = {{8, 4}, {64, 32}, {80, 20}, {96, 48}, {128, 64}, {256, 128},
                                                   {512, 16}, {64, 0}};
    for (size_t i = 0; i < 2 * sizeof sizes / sizeof *sizes; i++) {
        const struct rotation s = {sizes[i / 2].dim, 1 + (int64_t)i % 3, 1 + (int64_t)i % 4, sizes[i / 2].half,
                                   .neox = i % 2, .bias = i % 3 == 0, .norm = i % 4 < 2, .temper = i % 5 == 1};
        check_rotation(&s);
    }
}

/* ---- latent attention ---- */

/* A query's values, those of c, those that are turned. */
struct latent {
    int64_t heads, dim, rank, n_rot;
    bool neox, temper;
};

/* What gpu_turn_latent reads and writes, on the host. */
struct latent_values {
    int64_t key, plain;
    float *query, *kept, *norm, *angles, *parts, *q;
};

static void *copy_floats(const float *x, int64_t n) { return gpu_copy_of(x, (size_t)n * sizeof *x); }

static struct latent_values make_latent(const struct latent *l)
{
    struct rng r = {.state = (uint64_t)(l->dim * 8 + l->rank)};
    struct latent_values v = {.key = l->rank + l->n_rot, .plain = l->dim - l->n_rot};
    v.query = make_floats(&r, ROTATED * l->heads * l->dim, FILL_RANDOM);
    v.kept = make_floats(&r, ROTATED * v.key, FILL_RANDOM);
    v.norm = make_floats(&r, l->rank, FILL_RANDOM);
    v.angles = make_floats(&r, ROTATED * l->n_rot, FILL_RANDOM);
    v.parts = malloc((size_t)(ROTATED * l->heads * v.plain) * sizeof *v.parts);
    v.q = make_floats(&r, ROTATED * l->heads * v.key, FILL_RANDOM); /* what is not turned stays as it was */
    return v;
}

static void free_latent(struct latent_values *v)
{
    float *all[] = {v->query, v->kept, v->norm, v->angles, v->parts, v->q};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static void turn_on_cpu(const struct latent *l, struct latent_values *v)
{
    for (int64_t t = 0; t < ROTATED; t++) {
        float *c = v->kept + t * v->key, *angles = v->angles + t * l->n_rot;
        kernels_scalar.rms_norm(c, v->norm, l->rank, 1e-5f, c);
        kernels_scalar.rope(c + l->rank, angles, 1, l->n_rot, l->n_rot / 2, l->neox);
        for (int64_t h = 0; h < l->heads; h++) {
            float *from = v->query + (t * l->heads + h) * l->dim;
            kernels_scalar.rope(from + v->plain, angles, 1, l->n_rot, l->n_rot / 2, l->neox);
            for (int64_t i = 0; i < l->dim && l->temper; i++)
                from[i] *= temper[t];
            memcpy(v->parts + (h * ROTATED + t) * v->plain, from, (size_t)v->plain * sizeof *from);
            memcpy(v->q + (t * l->heads + h) * v->key + l->rank, from + v->plain, (size_t)l->n_rot * sizeof *from);
        }
    }
}

static void expect_floats(const char *what, const float *want, const float *on_gpu, int64_t n)
{
    float *got = malloc((size_t)n * sizeof *got);
    gpu_read(got, on_gpu, (size_t)n * sizeof *got);
    for (int64_t i = 0; i < n; i++)
        if (!same_bits(got[i], want[i]))
            fail_msg("%s: value %d is %a, expected %a", what, (int)i, (double)got[i], (double)want[i]);
    free(got);
}

/* c and the turned key of each token lie at its place, as keys and as values. */
static void expect_kept(const struct latent *l, const struct latent_values *v, const uint16_t *k,
                        const uint16_t *values)
{
    const size_t keys = (size_t)(N_PAGES * KV_PAGE * v->key), of_values = (size_t)(N_PAGES * KV_PAGE * l->rank);
    uint16_t *got_k = malloc(keys * 2), *got_v = malloc(of_values * 2), *half = malloc((size_t)v->key * 2);
    gpu_read(got_k, k, keys * 2);
    gpu_read(got_v, values, of_values * 2);
    for (int t = 0; t < ROTATED; t++) {
        const int64_t page = tables[table[t] + position[t] / KV_PAGE], place = position[t] % KV_PAGE;
        kernels_scalar.to_f16(v->kept + t * v->key, v->key, half);
        for (int64_t d = 0; d < v->key; d++)
            assert_int_equal(got_k[page * KV_PAGE * v->key + d / 2 * 2 * KV_PAGE + 2 * place + d % 2], half[d]);
        assert_memory_equal(got_v + (page * KV_PAGE + place) * l->rank, half, (size_t)l->rank * 2);
    }
    free(got_k);
    free(got_v);
    free(half);
}

static void check_latent(const struct latent *l)
{
    struct latent_values v = make_latent(l);
    const int64_t n = ROTATED, queries = n * l->heads;
    void *positions = gpu_copy_of(position, sizeof position), *first = gpu_copy_of(table, sizeof table);
    void *pages = gpu_copy_of(tables, sizeof tables), *factors = gpu_copy_of(temper, sizeof temper);
    float *angles = copy_floats(v.angles, n * l->n_rot), *norm = copy_floats(v.norm, l->rank);
    float *query = copy_floats(v.query, queries * l->dim), *kept = copy_floats(v.kept, n * v.key);
    float *plain = copy_floats(NULL, queries * v.plain), *q = copy_floats(v.q, queries * v.key);
    const struct gpu_batch b = {.n = n, .position = positions, .table = first, .tables = pages, .cos_sin = angles,
                                .temper = l->temper ? factors : NULL, .most_positions = 192};
    const struct gpu_heads h = {.n_kv = 1, .shared = l->heads, .dim = v.key, .value = l->rank, .neox = l->neox,
                                .eps = 1e-5f, .n_pages = N_PAGES,
                                .k = gpu_copy_of(NULL, (size_t)(N_PAGES * KV_PAGE * v.key) * 2),
                                .v = gpu_copy_of(NULL, (size_t)(N_PAGES * KV_PAGE * l->rank) * 2)};
    const struct gpu_latent of = {.dim = l->dim, .c_norm = norm, .query = query, .kept = kept, .plain = plain, .q = q};
    struct gpu_clearing clearing = gpu_to_clear();
    gpu_turn_latent(gpu, &b, &h, &of, &clearing);
    gpu_expect_cleared(&clearing);
    turn_on_cpu(l, &v);
    expect_floats("what is not turned", v.parts, plain, queries * v.plain);
    expect_floats("queries", v.q, q, queries * v.key);
    expect_kept(l, &v, h.k, h.v);
    void *all[] = {positions, first, pages, factors, angles, norm, query, kept, plain, q, h.k, h.v};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        gpu_release(all[i]);
    free_latent(&v);
}

static void latent_vectors(void **state)
{
    (void)state;
    static const struct latent some[] = {{4, 32, 32, 16, false, false}, {3, 24, 144, 8, true, true},
                                         {7, 192, 512, 64, false, true}, {8, 18, 16, 16, true, false}};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++)
        check_latent(&some[i]);
}

static void pages_are_copied(void **state)
{
    (void)state;
    enum { HEADS = 3, DIM = 80, PAGES = 5, SIZE = HEADS * PAGES * KV_PAGE * DIM };
    struct rng r = {.state = 3};
    uint16_t *cache[2] = {malloc(SIZE * 2), malloc(SIZE * 2)}, *got = malloc(SIZE * 2);
    for (int i = 0; i < 2 * SIZE; i++)
        cache[i / SIZE][i % SIZE] = (uint16_t)rng_next(&r);
    struct gpu_heads h = {.n_kv = HEADS, .shared = 1, .dim = DIM, .value = DIM, .n_pages = PAGES};
    h.k = gpu_copy_of(cache[0], SIZE * 2);
    h.v = gpu_copy_of(cache[1], SIZE * 2);
    gpu_copy_page(gpu, &h, 3, 1);
    for (int i = 0; i < 2; i++) {
        for (int head = 0; head < HEADS; head++)
            memcpy(cache[i] + (head * PAGES + 1) * KV_PAGE * DIM, cache[i] + (head * PAGES + 3) * KV_PAGE * DIM,
                   KV_PAGE * DIM * 2);
        gpu_read(got, i ? h.v : h.k, SIZE * 2);
        assert_memory_equal(got, cache[i], SIZE * 2);
        free(cache[i]);
    }
    gpu_release(h.k);
    gpu_release(h.v);
    free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rotated_and_kept),
        cmocka_unit_test(latent_vectors),
        cmocka_unit_test(pages_are_copied),
    };
    gpu = gpu_for_test();
    if (!gpu) {
        printf("SKIP: no GPU\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
