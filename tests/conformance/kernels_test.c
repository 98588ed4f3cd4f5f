/* The conformance suite of the kernel tables: every table that this machine runs equals the scalar reference bit for
 * bit, writes nothing outside its output, and does not depend on how many tokens or groups a call takes. The scalar
 * matmul itself is held against plain double arithmetic over dequantised weights.
 *
 * kernels_test --bench prints each operation's speed instead. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/tables.h"
#include "tests/conformance/kernels_suite.h"
#include "tests/conformance/sanitized.h"

/* Runs `check` for every table but the scalar one. */
static void each_table(void (*check)(const struct kernels *k))
{
    const struct kernels *k;
    for (int i = 1; (k = kernels_available(i)); i++)
        check(k);
    if (!kernels_available(1))
        print_message("SKIP: this machine runs the scalar kernels only\n");
}

/* Compares n values of two guarded outputs, bit for bit; NaN equals NaN. */
static void expect_same(const char *what, const char *name, const float *want, const float *got, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (memcmp(&want[i], &got[i], sizeof *want) && !(isnan(want[i]) && isnan(got[i])))
            fail_msg("%s, %s: value %lld is %a, expected %a", name, what, (long long)i, (double)got[i],
                     (double)want[i]);
}

/* A few sizes around the group, the tile and the block. */
static const int64_t some_rows[] = {1, 15, 16, 17, 48, 67};
static const int64_t some_tokens[] = {1, 2, 3, 5, 8, 9, 17, 70};

static void check_segments(const struct kernels *k, const struct packed *m, const struct acts *a, int64_t n_tokens,
                           int64_t stride)
{
    size_t bytes = (size_t)(n_tokens * stride) * sizeof(double);
    double *want = guarded(bytes), *got = guarded(bytes);
    kernels_scalar.matmul_partial(m, 0, m->groups, a, n_tokens, want, stride);
    k->matmul_partial(m, 0, m->groups, a, n_tokens, got, stride);
    for (int64_t i = 0; i < n_tokens * stride; i++)
        if (memcmp(&want[i], &got[i], sizeof *want) && !(isnan(want[i]) && isnan(got[i])))
            fail_msg("%s, partial %s: value %lld is %a, expected %a", k->name, dtype_name(m->type), (long long)i,
                     got[i], want[i]);
    assert_true(guarded_intact(got, bytes));
    guarded_free(want);
    guarded_free(got);
}

/* In segments of the usual length, of one block, of three, and all in one. */
static void check_partial(const struct kernels *k, struct packed m, const struct acts *a, int64_t n_tokens,
                          int64_t stride)
{
    const int64_t segments[] = {SUM_SEGMENT, ACT_BLOCK, 3 * ACT_BLOCK, m.cols};
    for (size_t i = 0; i < sizeof segments / sizeof *segments; i++) {
        m.segment = segments[i];
        check_segments(k, &m, a, n_tokens, stride);
    }
}

static void check_matmul(const struct kernels *k, enum dtype type, int64_t rows, int64_t cols, int64_t n_tokens,
                         enum filling f)
{
    struct rng r = {.state = (uint64_t)(rows * 1000003 + cols * 31 + n_tokens * 7 + type + f)};
    uint8_t *weights = make_weights(&r, type, rows, cols, f);
    struct packed m = make_packed(type, rows, cols, weights);
    struct acts a = make_acts(&r, n_tokens, cols, f);
    int64_t stride = rows + 3;
    size_t bytes = (size_t)(n_tokens * stride) * sizeof(float);
    float *want = guarded(bytes), *got = guarded(bytes), *split = guarded(bytes);

    kernels_scalar.matmul(&m, 0, m.groups, &a, n_tokens, want, stride);
    k->matmul(&m, 0, m.groups, &a, n_tokens, got, stride);
    expect_same(dtype_name(type), k->name, want, got, n_tokens * stride);
    /* One token and one group at a time: the same bits. */
    for (int64_t t = 0; t < n_tokens; t++) {
        struct acts one = {.cols = cols,
                           .f32 = a.f32 + t * cols,
                           .codes = a.codes + t * cols,
                           .blocks = a.blocks + t * (cols / ACT_BLOCK)};
        for (int64_t g = 0; g < m.groups; g++)
            k->matmul(&m, g, g + 1, &one, 1, split + t * stride, stride);
    }
    expect_same("one by one", k->name, want, split, n_tokens * stride);
    check_partial(k, m, &a, n_tokens, stride);
    assert_true(guarded_intact(got, bytes));
    assert_true(guarded_intact(m.data, packed_bytes(&m)));

    guarded_free(want);
    guarded_free(got);
    guarded_free(split);
    guarded_free(m.data);
    free_acts(&a);
    free(weights);
}

/* Under a sanitizer each type and size is tried with a filling, and another size of the type with the next. */
static bool tried(size_t type, int filling, size_t size)
{
    return !SANITIZED || (type + (size_t)filling + size) % FILLINGS == 0;
}

static void check_matmul_all(const struct kernels *k)
{
    for (size_t i = 0; i < sizeof weight_types / sizeof *weight_types; i++) {
        enum dtype type = weight_types[i];
        int64_t block = dtype_block(type);
        for (int f = 0; f < FILLINGS; f++) {
            for (size_t j = 0; j < sizeof some_rows / sizeof *some_rows; j++)
                if (tried(i, f, j))
                    check_matmul(k, type, some_rows[j], block * 3 + (block == 1 ? 4 : 0), 3, f);
            for (size_t j = 0; j < sizeof some_tokens / sizeof *some_tokens; j++)
                if (tried(i, f, j))
                    check_matmul(k, type, 33, block < 32 ? 96 : block, some_tokens[j], f);
        }
    }
}

static void matmul_equals_reference(void **state)
{
    (void)state;
    each_table(check_matmul_all);
}

/* The reference against double arithmetic on what the file's blocks mean. */
static void reference_is_right(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof weight_types / sizeof *weight_types; i++) {
        enum dtype type = weight_types[i];
        const int64_t rows = 21, cols = 512, n_tokens = 2;
        struct rng r = {.state = type};
        uint8_t *weights = make_weights(&r, type, rows, cols, FILL_RANDOM);
        struct packed m = make_packed(type, rows, cols, weights);
        struct acts a = make_acts(&r, n_tokens, cols, FILL_RANDOM);
        float y[2 * 21], w[512];
        kernels_scalar.matmul(&m, 0, m.groups, &a, n_tokens, y, rows);
        for (int64_t row = 0; row < rows; row++) {
            dequantize_row(type, weights + (size_t)row * dtype_row_bytes(type, cols), cols, w);
            for (int64_t t = 0; t < n_tokens; t++) {
                double sum = 0, size = 0;
                for (int64_t c = 0; c < cols; c++) {
                    double x = dtype_is_quantised(type) ? (double)a.blocks[(t * cols + c) / ACT_BLOCK].scale *
                                                              a.codes[t * cols + c]
                                                        : (double)a.f32[t * cols + c];
                    sum += (double)w[c] * x;
                    size += fabs((double)w[c] * x);
                }
                if (fabs(sum - (double)y[t * rows + row]) > 1e-5 * size)
                    fail_msg("%s: row %d is %g, expected %g", dtype_name(type), (int)row, (double)y[t * rows + row],
                             sum);
            }
        }
        guarded_free(m.data);
        free_acts(&a);
        free(weights);
    }
}

/* Where the columns of a product are cut, between segments, changes no bit of the sum of its parts. */
static void check_cuts_between(const struct kernels *k, int64_t segment)
{
    enum { ROWS = 19, COLS = 1024, CUTS = 3 };
    const int64_t cut[CUTS] = {segment == 512 ? 512 : 256, 512, segment == 512 ? 512 : 768};
    for (size_t i = 0; i < sizeof weight_types / sizeof *weight_types; i++) {
        enum dtype type = weight_types[i];
        struct rng r = {.state = type};
        uint8_t *weights = make_weights(&r, type, ROWS, COLS, FILL_RANDOM);
        struct acts a = make_acts(&r, 1, COLS, FILL_RANDOM);
        struct packed whole = make_packed(type, ROWS, COLS, weights);
        double want[ROWS], left[ROWS], right[ROWS];
        whole.segment = segment;
        k->matmul_partial(&whole, 0, whole.groups, &a, 1, want, ROWS);
        for (int j = 0; j < CUTS; j++) {
            struct packed part[2];
            struct acts x[2] = {a, a};
            for (int p = 0; p < 2; p++) {
                int64_t first = p ? cut[j] : 0;
                packed_shape(&part[p], type, ROWS, p ? COLS - cut[j] : cut[j]);
                part[p].segment = segment;
                part[p].data = guarded(packed_bytes(&part[p]));
                packed_fill(&part[p], 0, part[p].groups, weights + dtype_row_bytes(type, first),
                            dtype_row_bytes(type, COLS), NULL);
                x[p] = (struct acts){.cols = part[p].cols, .f32 = a.f32 + first, .codes = a.codes + first,
                                     .blocks = a.blocks + first / ACT_BLOCK};
                k->matmul_partial(&part[p], 0, part[p].groups, &x[p], 1, p ? right : left, ROWS);
                guarded_free(part[p].data);
            }
            for (int row = 0; row < ROWS; row++)
                if (left[row] + right[row] != want[row])
                    fail_msg("%s, %s cut at %d: row %d is %a, expected %a", k->name, dtype_name(type), (int)cut[j], row,
                             left[row] + right[row], want[row]);
        }
        guarded_free(whole.data);
        free_acts(&a);
        free(weights);
    }
}

static void check_cuts(const struct kernels *k)
{
    check_cuts_between(k, 64);
    check_cuts_between(k, SUM_SEGMENT);
    check_cuts_between(k, 512);
}

static void cuts_change_nothing(void **state)
{
    (void)state;
    check_cuts(&kernels_scalar);
    each_table(check_cuts);
}

static void check_quantize(const struct kernels *k)
{
    for (int f = 0; f < FILLINGS; f++) {
        struct rng r = {.state = 77 + (uint64_t)f};
        const int64_t n = 5, cols = 96, nb = n * cols / ACT_BLOCK;
        struct acts want = make_acts(&r, n, cols, f), got = want;
        got.codes = guarded((size_t)(n * cols));
        got.blocks = guarded((size_t)nb * sizeof *got.blocks);
        k->quantize(&got, 0, 2);
        k->quantize(&got, 2, n);
        assert_memory_equal(want.codes, got.codes, (size_t)(n * cols));
        assert_memory_equal(want.blocks, got.blocks, (size_t)nb * sizeof *got.blocks);
        for (int64_t i = 0; i < nb; i++)
            got.blocks[i] = (struct act_block){.scale = want.blocks[i].scale};
        k->sum_blocks(&got, 0, n);
        assert_memory_equal(want.blocks, got.blocks, (size_t)nb * sizeof *got.blocks);
        assert_true(guarded_intact(got.codes, (size_t)(n * cols)));
        assert_true(guarded_intact(got.blocks, (size_t)nb * sizeof *got.blocks));
        for (int64_t i = 0; i < n * cols; i++)
            assert_true(got.codes[i] >= -127);
        guarded_free(got.codes);
        guarded_free(got.blocks);
        free_acts(&want);
    }
}

static void quantize_equals_reference(void **state)
{
    (void)state;
    check_quantize(&kernels_scalar);
    each_table(check_quantize);
}

/* Without a sink, and with one that is below all scores, above all of them, and among them. */
static void check_weights(const struct kernels *k, const float *x, int64_t n, float *want, float *got)
{
    const float sinks[] = {-INFINITY, -20, 1e4f, x[n / 2]};
    for (int64_t first = 0; first < 300; first += 37) {
        for (int i = 0; i < 4; i++) {
            memcpy(want, x, (size_t)n * sizeof *x);
            memcpy(got, x, (size_t)n * sizeof *x);
            const float inverse[] = {kernels_scalar.attn_weights(want, n, first, sinks[i]),
                                     k->attn_weights(got, n, first, sinks[i])};
            expect_same("attn_weights", k->name, want, got, n);
            expect_same("attn_weights' sum", k->name, &inverse[0], &inverse[1], 1);
        }
    }
}

/* The operations on vectors of n. */
static void check_vectors_of(const struct kernels *k, int64_t n, enum filling f)
{
    const struct kernels *s = &kernels_scalar;
    struct rng r = {.state = (uint64_t)n * 10 + (uint64_t)f};
    size_t bytes = (size_t)n * sizeof(float);
    float *x = make_floats(&r, n, f), *y = make_floats(&r, n, FILL_RANDOM);
    float *want = guarded(bytes), *got = guarded(bytes);

    s->rms_norm(x, y, n, 1e-5f, want);
    k->rms_norm(x, y, n, 1e-5f, got);
    expect_same("rms_norm", k->name, want, got, n);
    for (int a = 0; a < ACTIVATIONS; a++) {
        s->activate((enum activation)a, x, y, n, want);
        k->activate((enum activation)a, x, y, n, got);
        expect_same(activation_name((enum activation)a), k->name, want, got, n);
        s->activate((enum activation)a, NULL, x, n, want);
        k->activate((enum activation)a, NULL, x, n, got);
        expect_same("activation without a gate", k->name, want, got, n);
    }
    for (int bias = 0; bias < 2; bias++) {
        s->layer_norm(x, y, bias ? x : NULL, n, 1e-5f, want);
        k->layer_norm(x, y, bias ? x : NULL, n, 1e-5f, got);
        expect_same("layer_norm", k->name, want, got, n);
    }
    memcpy(want, x, bytes);
    memcpy(got, x, bytes);
    s->add(want, y, n);
    k->add(got, y, n);
    expect_same("add", k->name, want, got, n);
    memcpy(want, x, bytes);
    memcpy(got, x, bytes);
    s->softmax(want, n);
    k->softmax(got, n);
    expect_same("softmax", k->name, want, got, n);
    for (int i = 0; i < 3; i++) {
        const float cap = (const float[]){30, 50, 0.7f}[i];
        memcpy(want, x, bytes);
        memcpy(got, x, bytes);
        s->softcap(want, n, cap);
        k->softcap(got, n, cap);
        expect_same("softcap", k->name, want, got, n);
    }
    check_weights(k, x, n, want, got);
    assert_true(guarded_intact(got, bytes));

    if (n % 64 == 0)
        assert_int_equal(s->read_words((const uint32_t *)x, n), k->read_words((const uint32_t *)x, n));
    uint16_t *want16 = guarded(bytes / 2), *got16 = guarded(bytes / 2);
    s->to_f16(x, n, want16);
    k->to_f16(x, n, got16);
    assert_memory_equal(want16, got16, bytes / 2);
    assert_true(guarded_intact(got16, bytes / 2));
    guarded_free(want16);
    guarded_free(got16);
    guarded_free(want);
    guarded_free(got);
    free(x);
    free(y);
}

static void check_vectors(const struct kernels *k)
{
    const int64_t sizes[] = {1, 7, 16, 31, 32, 33, 64, 576, 1000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int f = 0; f < FILLINGS; f++)
            check_vectors_of(k, sizes[i], f);
}

static void vectors_equal_reference(void **state)
{
    (void)state;
    each_table(check_vectors);
}

static void check_rope(const struct kernels *k)
{
    const struct { int64_t head_dim, half; } shapes[] = {{64, 32}, {128, 64}, {80, 20}, {24, 12}, {2, 1}};
    for (size_t i = 0; i < 2 * sizeof shapes / sizeof *shapes; i++) {
        int64_t head_dim = shapes[i / 2].head_dim, half = shapes[i / 2].half, n = 3 * head_dim;
        struct rng r = {.state = i};
        float *x = make_floats(&r, n, FILL_RANDOM), *angles = make_floats(&r, 2 * half, FILL_RANDOM);
        float *want = guarded((size_t)n * sizeof *want), *got = guarded((size_t)n * sizeof *got);
        memcpy(want, x, (size_t)n * sizeof *want);
        memcpy(got, x, (size_t)n * sizeof *got);
        kernels_scalar.rope(want, angles, 3, head_dim, half, i % 2);
        k->rope(got, angles, 3, head_dim, half, i % 2);
        expect_same("rope", k->name, want, got, n);
        assert_true(guarded_intact(got, (size_t)n * sizeof *got));
        guarded_free(want);
        guarded_free(got);
        free(x);
        free(angles);
    }
}

static void rope_equals_reference(void **state)
{
    (void)state;
    each_table(check_rope);
}

/* Pages of one head's keys or values, one behind the other and scattered over memory: here from the last to the first.
 * There is none of positions before `begin`, and none past `end`. */
enum { MOST_PAGES = 8 };
struct pages {
    uint16_t *memory[2];
    const uint16_t *in_order[MOST_PAGES], *scattered[MOST_PAGES];
};

static struct pages make_pages(struct rng *r, int64_t begin, int64_t end, int64_t head_dim)
{
    const int64_t first = begin / KV_PAGE, n = (end + KV_PAGE - 1) / KV_PAGE - first, size = KV_PAGE * head_dim;
    struct pages p = {.in_order = {NULL}, .scattered = {NULL}};
    float *x = make_floats(r, n * size, FILL_RANDOM);
    for (int i = 0; i < 2; i++)
        p.memory[i] = malloc((size_t)(n * size) * sizeof *p.memory[i]);
    kernels_scalar.to_f16(x, n * size, p.memory[0]);
    for (int64_t i = 0; i < n; i++) {
        uint16_t *at = p.memory[1] + (n - 1 - i) * size;
        memcpy(at, p.memory[0] + i * size, (size_t)size * sizeof *at);
        p.in_order[first + i] = p.memory[0] + i * size;
        p.scattered[first + i] = at;
    }
    free(x);
    return p;
}

static void free_pages(struct pages *p)
{
    free(p->memory[0]);
    free(p->memory[1]);
}

static void check_scores(const struct kernels *k, int64_t head_dim, int64_t n_q, int64_t begin, int64_t end)
{
    struct rng r = {.state = (uint64_t)(head_dim + n_q * 3 + end)};
    int64_t tiles = (end + KV_TILE - 1) / KV_TILE, stride = tiles * KV_TILE - begin;
    struct pages keys = make_pages(&r, begin, end, head_dim);
    float *q = make_floats(&r, n_q * head_dim, FILL_RANDOM);
    size_t bytes = (size_t)(n_q * stride) * sizeof(float);
    float *want = guarded(bytes), *got = guarded(bytes);
    kernels_scalar.attn_scores(q, head_dim, n_q, keys.in_order, head_dim, begin, end, 0.125f, want, stride);
    k->attn_scores(q, head_dim, n_q, keys.scattered, head_dim, begin, end, 0.125f, got, stride);
    for (int64_t i = 0; i < n_q; i++)
        expect_same("attn_scores", k->name, want + i * stride, got + i * stride, end - begin);
    assert_true(guarded_intact(got, bytes));
    guarded_free(want);
    guarded_free(got);
    free_pages(&keys);
    free(q);
}

/* Infinities in the last page past the end: they must not be read into a sum. */
static void spoil_past(struct pages *p, int64_t end, int64_t head_dim)
{
    const uint16_t *const at[2] = {p->in_order[(end - 1) / KV_PAGE], p->scattered[(end - 1) / KV_PAGE]};
    for (int i = 0; i < 2; i++)
        for (int64_t v = ((end - 1) % KV_PAGE + 1) * head_dim; v < KV_PAGE * head_dim; v++)
            p->memory[i][at[i] - p->memory[i] + v] = 0x7c00;
}

static void check_mix(const struct kernels *k, int64_t head_dim, int64_t n_q, int64_t origin, int64_t last, bool window)
{
    struct rng r = {.state = (uint64_t)(head_dim * 5 + n_q + last)};
    int64_t stride = last + n_q - origin, begin[16], end[16];
    float inverse[16];
    float *w = make_floats(&r, n_q * stride, FILL_RANDOM);
    size_t bytes = (size_t)(n_q * head_dim) * sizeof(float);
    float *want = guarded(bytes), *got = guarded(bytes);
    for (int64_t i = 0; i < n_q; i++) {
        begin[i] = origin + (window ? i : 0);
        end[i] = last + 1 + i / 3;
        inverse[i] = rng_float(&r);
    }
    struct pages values = make_pages(&r, origin, end[n_q - 1], head_dim);
    spoil_past(&values, end[n_q - 1], head_dim);
    kernels_scalar.attn_mix(w, stride, origin, n_q, begin, end, inverse, values.in_order, head_dim, want, head_dim);
    k->attn_mix(w, stride, origin, n_q, begin, end, inverse, values.scattered, head_dim, got, head_dim);
    expect_same("attn_mix", k->name, want, got, n_q * head_dim);
    assert_true(guarded_intact(got, bytes));
    guarded_free(want);
    guarded_free(got);
    free_pages(&values);
    free(w);
}

static void check_attention(const struct kernels *k)
{
    const int64_t dims[] = {64, 128, 80, 24, 8}, queries[] = {1, 3, 4, 9, 16};
    for (size_t i = 0; i < 5; i++) {
        for (size_t j = 0; j < 5; j++) {
            check_scores(k, dims[i], queries[j], 0, 1);
            check_scores(k, dims[i], queries[j], 16, 75);
            check_scores(k, dims[i], queries[j], 176, 330);
            check_mix(k, dims[i], queries[j], 0, 40, false);
            check_mix(k, dims[i], queries[j], 32, 60, false);
            check_mix(k, dims[i], queries[j], 0, 40, true);
            check_mix(k, dims[i], queries[j], 0, 127, true);
            check_mix(k, dims[i], queries[j], 112, 300, i % 2);
        }
    }
}

/* Where pages and segments begin and end. */
static void check_edges(const struct kernels *k)
{
    static const int64_t edges[] = {63, 64, 65, 127, 128, 129, 191, 192, 256};
    enum { EDGES = sizeof edges / sizeof *edges };
    for (int i = 0; i < EDGES; i++) {
        for (int64_t begin = 0; begin < edges[i]; begin += 16) {
            check_scores(k, 24, 5, begin, edges[i]);
            for (int64_t n_q = 1; n_q <= 13; n_q += 4) {
                check_mix(k, 80, n_q, begin, edges[i] - 1, false);
                check_mix(k, 80, n_q, begin, edges[i] - 1, edges[i] - begin > n_q);
            }
        }
    }
}

static void attention_equals_reference(void **state)
{
    (void)state;
    check_attention(&kernels_scalar); /* pages in order against scattered ones */
    check_edges(&kernels_scalar);
    each_table(check_attention);
    each_table(check_edges);
}

static void selection_is_by_name(void **state)
{
    (void)state;
    const struct kernels *k = NULL;
    assert_int_equal(kernels_select("scalar", &k), ST_OK);
    assert_string_equal(k->name, "scalar");
    assert_int_equal(kernels_select(NULL, &k), ST_OK);
    assert_int_equal(kernels_select("mmx", &k), ST_USAGE);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--bench") == 0) {
        const struct kernels *k;
        for (int i = 0; (k = kernels_available(i)); i++)
            bench_kernels(k);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_is_right),        cmocka_unit_test(matmul_equals_reference),
        cmocka_unit_test(quantize_equals_reference), cmocka_unit_test(vectors_equal_reference),
        cmocka_unit_test(rope_equals_reference),     cmocka_unit_test(attention_equals_reference),
        cmocka_unit_test(selection_is_by_name),      cmocka_unit_test(cuts_change_nothing),
    };
    return cmocka_run_group_tests_name("kernels", tests, NULL, NULL);
}
