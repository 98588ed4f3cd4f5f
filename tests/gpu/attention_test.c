/* Attention on a GPU has the bits of the scalar table: over shuffled pages, with windows, capped scores and sinks, for
 * runs of unlike lengths, by whole pieces and cut into segments. HEARTH_GPU_LARGE=1 adds the shapes of real models. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/attention.h"
#include "kernels/layout.h"
#include "kernels/tables.h"
#include "tests/conformance/kernels_suite.h"
#include "tests/gpu/memory.h"

static struct gpu *gpu;
static const struct kernels *reference;

enum { NOTHING = 0x7e }; /* bytes that make NaN: of places where no position is */

/* A run: n tokens that stand at positions from `position` on. */
struct tokens {
    uint32_t position, n;
};

struct shape {
    int64_t dim, n_kv, shared, window;
    const struct tokens *runs; /* a sequence each; n 0: past the last */
    float softcap;             /* 0: scores are not capped */
    bool sinks;
    int64_t value;             /* values of what is mixed; 0: dim. Else what comes out lies by head */
};

/* A batch, what it looks at, and what comes out. Keys and values lie once for the GPU, and once for the CPU in pages
 * that follow each other, [n_kv, n_pages]: a sequence's are those from first[sequence] on. */
struct scene {
    struct shape s;
    int64_t n, n_q, n_pages;
    uint32_t most;             /* positions */
    uint32_t *position, *table, *tables, *sequence, *first; /* [n], [n], [n_pages], [n], [sequences] */
    uint16_t *k, *v;           /* the GPU's */
    uint16_t *keys, *values;   /* the CPU's */
    int64_t value;             /* values of a head's values */
    float *q, *want;           /* [n, n_q, dim], [n, n_q, value] or by head */
    float scale, *sinks;       /* [n_q] -INFINITY where there are none */
};

static bool same_bits(float a, float b) { return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b)); }

static size_t positions_of(const struct scene *c) { return (size_t)(c->s.n_kv * c->n_pages * KV_PAGE); }
static size_t keys_size(const struct scene *c) { return positions_of(c) * (size_t)c->s.dim * sizeof *c->k; }
static size_t values_size(const struct scene *c) { return positions_of(c) * (size_t)c->value * sizeof *c->v; }
static size_t mixed_values(const struct scene *c) { return (size_t)(c->n * c->n_q * c->value); }

static void *filled(size_t bytes)
{
    void *p = malloc(bytes);
    assert_non_null(p);
    memset(p, NOTHING, bytes);
    return p;
}

/* A key and a value of a position, in both orders. `page` is the CPU's. */
static void put(struct scene *c, int64_t head, uint32_t page, uint32_t place, const uint16_t *key,
                const uint16_t *value)
{
    const int64_t dim = c->s.dim;
    const size_t cpu = (size_t)((head * c->n_pages + page) * KV_PAGE);
    const size_t at = (size_t)((head * c->n_pages + c->tables[page]) * KV_PAGE);
    for (int64_t d = 0; d < dim; d++) {
        c->keys[cpu * (size_t)dim + (size_t)((place / KV_TILE * dim + d) * KV_TILE + place % KV_TILE)] = key[d];
        c->k[at * (size_t)dim + (size_t)(d / 2 * 2 * KV_PAGE + 2 * place + d % 2)] = key[d];
    }
    memcpy(c->values + (cpu + place) * (size_t)c->value, value, (size_t)c->value * sizeof *value);
    memcpy(c->v + (at + place) * (size_t)c->value, value, (size_t)c->value * sizeof *value);
}

static void put_sequence(struct scene *c, struct rng *r, uint32_t first, uint32_t positions)
{
    const int64_t both = c->s.dim + c->value;
    float *x = malloc((size_t)both * sizeof *x);
    uint16_t *half = malloc((size_t)both * sizeof *half);
    for (int64_t h = 0; h < c->s.n_kv; h++) {
        for (uint32_t p = 0; p < positions; p++) {
            for (int64_t d = 0; d < both; d++)
                x[d] = rng_float(r);
            kernels_scalar.to_f16(x, both, half);
            put(c, h, first + p / KV_PAGE, p % KV_PAGE, half, half + c->s.dim);
        }
    }
    free(x);
    free(half);
}

static void shuffle(struct rng *r, uint32_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (uint32_t)i;
    for (int64_t i = n - 1; i > 0; i--) {
        const int64_t j = (int64_t)(rng_next(r) % (uint64_t)(i + 1));
        const uint32_t kept = x[i];
        x[i] = x[j];
        x[j] = kept;
    }
}

static struct scene make_scene(const struct shape *s)
{
    struct scene c = {.s = *s, .n_q = s->n_kv * s->shared, .value = s->value ? s->value : s->dim};
    struct rng r = {.state = (uint64_t)(s->dim * 1000 + s->n_kv * 100 + s->shared * 10 + s->window)};
    uint32_t runs = 0;
    for (; s->runs[runs].n; runs++) {
        const uint32_t positions = s->runs[runs].position + s->runs[runs].n;
        c.n += s->runs[runs].n;
        c.n_pages += (positions + KV_PAGE - 1) / KV_PAGE;
        c.most = positions > c.most ? positions : c.most;
    }
    c.position = malloc((size_t)c.n * sizeof *c.position);
    c.table = malloc((size_t)c.n * sizeof *c.table);
    c.sequence = malloc((size_t)c.n * sizeof *c.sequence);
    c.first = malloc(runs * sizeof *c.first);
    c.tables = malloc((size_t)c.n_pages * sizeof *c.tables);
    shuffle(&r, c.tables, c.n_pages);
    c.k = filled(keys_size(&c));
    c.v = filled(values_size(&c));
    c.keys = filled(keys_size(&c));
    c.values = filled(values_size(&c));
    for (uint32_t i = 0, t = 0, page = 0; i < runs; i++) {
        const uint32_t positions = s->runs[i].position + s->runs[i].n;
        c.first[i] = page;
        put_sequence(&c, &r, page, positions);
        for (uint32_t j = 0; j < s->runs[i].n; j++, t++) {
            c.position[t] = s->runs[i].position + j;
            c.table[t] = page;
            c.sequence[t] = i;
        }
        page += (positions + KV_PAGE - 1) / KV_PAGE;
    }
    c.q = make_floats(&r, c.n * c.n_q * s->dim, FILL_RANDOM);
    c.want = malloc(mixed_values(&c) * sizeof *c.want);
    c.scale = (s->softcap > 0 ? 3.0f : 1.0f) / sqrtf((float)s->dim);
    c.sinks = make_floats(&r, c.n_q, FILL_RANDOM);
    for (int64_t h = 0; h < c.n_q; h++) /* some are above all scores, some below */
        c.sinks[h] = s->sinks ? c.sinks[h] * (h % 2 ? 8 : 1) : -INFINITY;
    return c;
}

static void free_scene(struct scene *c)
{
    void *all[] = {c->position, c->table, c->sequence, c->first, c->tables, c->k,
                   c->v, c->keys, c->values, c->q, c->want, c->sinks};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

/* What the CPU makes of own query head h of token t. */
static void attend_row(struct scene *c, int64_t t, int64_t h, float *scores, const uint16_t **keys,
                       const uint16_t **values)
{
    const int64_t dim = c->s.dim, at = (t * c->n_q + h) * dim, position = c->position[t], end = position + 1;
    const int64_t begin = c->s.window && position >= c->s.window ? position - c->s.window + 1 : 0;
    const int64_t origin = begin / KV_TILE * KV_TILE;
    for (int64_t i = begin / KV_PAGE; i * KV_PAGE < end; i++) {
        const int64_t page = h / c->s.shared * c->n_pages + c->first[c->sequence[t]] + i;
        keys[i] = c->keys + page * KV_PAGE * dim;
        values[i] = c->values + page * KV_PAGE * c->value;
    }
    reference->attn_scores(c->q + at, dim, 1, keys, dim, origin, end, c->scale, scores, end - origin + KV_TILE);
    if (c->s.softcap > 0)
        reference->softcap(scores + begin - origin, end - begin, c->s.softcap);
    const float inverse = reference->attn_weights(scores + begin - origin, end - begin, begin, c->sinks[h]);
    float *want = c->want + (c->s.value ? h * c->n + t : t * c->n_q + h) * c->value;
    reference->attn_mix(scores, end - origin, origin, 1, &begin, &end, &inverse, values, c->value, want, c->value);
}

static void attend_on_cpu(struct scene *c)
{
    float *scores = malloc((c->most + 2 * KV_TILE) * sizeof *scores);
    const uint16_t **pages = malloc(2 * (size_t)c->n_pages * sizeof *pages);
    for (int64_t t = 0; t < c->n; t++)
        for (int64_t h = 0; h < c->n_q; h++)
            attend_row(c, t, h, scores, pages, pages + c->n_pages);
    free(scores);
    free(pages);
}

/* The same on the GPU. */
struct on_gpu {
    struct gpu_batch b;
    struct gpu_heads h;
    uint32_t *position, *table, *tables;
    float *q, *sinks;
    void *scratch;
    struct acts mixed;
    bool quantised;
    uint32_t n_ctx;
};

static struct on_gpu copy_scene(const struct scene *c, uint32_t n_ctx)
{
    const size_t n = (size_t)c->n, values = mixed_values(c), queries = n * (size_t)(c->n_q * c->s.dim);
    struct on_gpu o = {.n_ctx = n_ctx, .quantised = (c->s.value ? 1 : c->n_q) * c->value % ACT_BLOCK == 0};
    o.position = gpu_copy_of(c->position, n * sizeof *c->position);
    o.table = gpu_copy_of(c->table, n * sizeof *c->table);
    o.tables = gpu_copy_of(c->tables, (size_t)c->n_pages * sizeof *c->tables);
    o.b = (struct gpu_batch){.n = c->n, .position = o.position, .table = o.table, .tables = o.tables,
                             .most_positions = c->most};
    o.sinks = gpu_copy_of(c->sinks, (size_t)c->n_q * sizeof *c->sinks);
    o.h = (struct gpu_heads){.n_kv = c->s.n_kv, .shared = c->s.shared, .dim = c->s.dim, .value = c->value,
                             .by_head = c->s.value > 0, .window = c->s.window, .n_pages = c->n_pages,
                             .scale = c->scale, .softcap = c->s.softcap, .sinks = c->s.sinks ? o.sinks : NULL};
    o.h.k = gpu_copy_of(c->k, keys_size(c));
    o.h.v = gpu_copy_of(c->v, values_size(c));
    o.q = gpu_copy_of(c->q, queries * sizeof *c->q);
    o.scratch = gpu_copy_of(NULL, gpu_attention_scratch(&o.h, c->n, n_ctx));
    o.mixed.cols = c->n_q * c->value;
    o.mixed.f32 = gpu_copy_of(NULL, values * sizeof(float));
    o.mixed.codes = gpu_copy_of(NULL, values);
    o.mixed.blocks = gpu_copy_of(NULL, (values / ACT_BLOCK + 1) * sizeof *o.mixed.blocks);
    return o;
}

static void release_scene(struct on_gpu *o)
{
    gpu_release(o->position);
    gpu_release(o->table);
    gpu_release(o->tables);
    gpu_release(o->h.k);
    gpu_release(o->h.v);
    gpu_release(o->q);
    gpu_release(o->sinks);
    gpu_release(o->scratch);
    gpu_release(o->mixed.f32);
    gpu_release(o->mixed.codes);
    gpu_release(o->mixed.blocks);
}

static void expect_mixed(const struct scene *c, const struct on_gpu *o, const char *way)
{
    const size_t values = mixed_values(c);
    float *got = malloc(values * sizeof *got);
    gpu_read(got, o->mixed.f32, values * sizeof *got);
    for (size_t i = 0; i < values; i++) {
        if (same_bits(got[i], c->want[i]))
            continue;
        const int64_t row = (int64_t)i / c->value, token = c->s.value ? row % c->n : row / c->n_q;
        fail_msg("%s, heads of %d, %d share, window %d: token %d at %d, head %d, value %d is %a, expected %a", way,
                 (int)c->s.dim, (int)c->s.shared, (int)c->s.window, (int)token, (int)c->position[token],
                 (int)(c->s.value ? row / c->n : row % c->n_q), (int)((int64_t)i % c->value), (double)got[i],
                 (double)c->want[i]);
    }
    free(got);
}

static void expect_codes(struct scene *c, const struct on_gpu *o)
{
    const size_t values = mixed_values(c), blocks = values / ACT_BLOCK;
    int8_t *codes[2] = {malloc(values), malloc(values)};
    struct act_block *sums[2] = {malloc(blocks * sizeof **sums), malloc(blocks * sizeof **sums)};
    struct acts want = {.cols = c->n_q * c->value, .f32 = c->want, .codes = codes[0], .blocks = sums[0]};
    kernels_scalar.quantize(&want, 0, c->n);
    gpu_read(codes[1], o->mixed.codes, values);
    gpu_read(sums[1], o->mixed.blocks, blocks * sizeof **sums);
    assert_memory_equal(codes[0], codes[1], values);
    for (size_t i = 0; i < blocks; i++) {
        const struct act_block *a = &sums[0][i], *b = &sums[1][i];
        assert_true(same_bits(a->scale, b->scale) && same_bits(a->scaled_sum, b->scaled_sum));
        assert_true(a->minus_sum == b->minus_sum && a->minus_sum_low == b->minus_sum_low);
    }
    for (int i = 0; i < 2; i++) {
        free(codes[i]);
        free(sums[i]);
    }
}

/* Many multiprocessors: a row is a thread block's, also of two that share one; few: a piece is; many, and positions
 * that may be far off: pieces are cut into segments. n_ctx below the positions that there are makes scratch scarce, so
 * that tokens go in groups. */
static void check_ways(struct scene *c, uint32_t n_ctx)
{
    enum { SOME_ROWS = 600, FAR = 1025 };
    static const struct {
        int n_sms;
        uint32_t most;
        const char *name;
    } ways[] = {{SOME_ROWS, 0, "rows"}, {0, 0, "rows that share"}, {1, 0, "whole"}, {1 << 20, FAR, "cut"}};
    for (size_t i = c->n * c->n_q > SOME_ROWS; i < sizeof ways / sizeof *ways; i++) {
        struct gpu g = *gpu;
        g.n_sms = ways[i].n_sms ? ways[i].n_sms : (int)(c->n * c->n_q + 1) / 2;
        struct on_gpu o = copy_scene(c, n_ctx == c->most && n_ctx < ways[i].most ? ways[i].most : n_ctx);
        if (o.b.most_positions < ways[i].most)
            o.b.most_positions = ways[i].most;
        gpu_attend(&g, &o.b, &o.h, o.q, o.scratch, o.n_ctx, &o.mixed, o.quantised);
        expect_mixed(c, &o, ways[i].name);
        if (o.quantised)
            expect_codes(c, &o);
        release_scene(&o);
    }
}

static void check_shape(struct shape s)
{
    struct scene c = make_scene(&s);
    attend_on_cpu(&c);
    check_ways(&c, c.most);
    free_scene(&c);
}

/* A token each of several sequences, at the edges of pages and segments. */
static const struct tokens decoding[] = {{0, 1}, {62, 1}, {63, 1}, {64, 1}, {126, 1}, {127, 1}, {128, 1}, {299, 1},
                                         {0, 0}};
/* Chunks of prompts beside them; one begins amid a page, one crosses a segment, one more than a piece. */
static const struct tokens chunks[] = {{0, 5}, {131, 1}, {123, 39}, {17, 1}, {260, 9}, {0, 0}};

/* Windows begin far behind the first position. */
static const struct tokens far_off[] = {{0, 3}, {600, 2}, {20, 1}, {509, 4}, {1, 1}, {0, 0}};

static void tokens_of_several_sequences(void **state)
{
    (void)state;
    const int64_t dims[] = {8, 16, 64, 80, 96, 128, 256, 512}, shared[] = {1, 3, 4, 8, 3, 4, 8, 1};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        check_shape((struct shape){dims[i], 1 + i % 2, shared[i], 0, .runs = decoding});
}

static void chunks_of_prompts(void **state)
{
    (void)state;
    const int64_t dims[] = {16, 64, 96, 128, 256, 160}, shared[] = {1, 8, 3, 1, 4, 40};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        check_shape((struct shape){dims[i], 1 + i % 2, shared[i], 0, .runs = chunks});
}

static void windows(void **state)
{
    (void)state;
    const int64_t sizes[] = {1, 30, 64, 128, 200};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_shape((struct shape){64, 1, 3, sizes[i], .runs = chunks});
        check_shape((struct shape){16, 1, 1, sizes[i], .runs = decoding});
        check_shape((struct shape){8, 2, 1, sizes[i], .runs = far_off});
    }
}

static void capped_scores_and_sinks(void **state)
{
    (void)state;
    check_shape((struct shape){64, 1, 3, 0, chunks, .sinks = true});
    check_shape((struct shape){16, 2, 1, 30, decoding, .sinks = true});
    check_shape((struct shape){80, 1, 8, 0, decoding, .softcap = 0.5f});
    check_shape((struct shape){16, 1, 4, 64, chunks, .softcap = 0.5f, .sinks = true});
    check_shape((struct shape){8, 2, 1, 128, far_off, .softcap = 30, .sinks = true});
}

/* Of latent attention: all heads share one of the cache, whose keys are longer than its values. */
static void keys_longer_than_values(void **state)
{
    (void)state;
    check_shape((struct shape){48, 1, 4, 0, chunks, .value = 32});
    check_shape((struct shape){24, 1, 5, 0, decoding, .value = 16});
    check_shape((struct shape){576, 1, 3, 0, chunks, .value = 512});
    check_shape((struct shape){576, 1, 20, 0, decoding, .value = 512});
    check_shape((struct shape){160, 1, 16, 30, chunks, .value = 128});
    check_shape((struct shape){1024, 1, 2, 0, decoding, .value = 256});
}

static void short_contexts(void **state)
{
    (void)state;
    const uint32_t positions[] = {1, 20, 65, 128};
    for (size_t i = 0; i < sizeof positions / sizeof *positions; i++) {
        const struct tokens runs[] = {{positions[i] - 1, 1}, {0, 0}};
        check_shape((struct shape){64, 3, 3, 0, .runs = runs});
    }
}

static void tokens_in_groups_where_scratch_is_scarce(void **state)
{
    (void)state;
    struct scene c = make_scene(&(struct shape){32, 1, 2, 0, .runs = chunks});
    attend_on_cpu(&c);
    check_ways(&c, ATTN_SEGMENT);
    free_scene(&c);
}

/* A device has one scratch for all its layers, which may have unlike heads. */
static void scratch_for_more_heads_is_enough_for_fewer(void **state)
{
    (void)state;
    const uint32_t contexts[] = {1, 4096, 60000, 131072, 500000};
    for (size_t i = 0; i < sizeof contexts / sizeof *contexts; i++) {
        uint64_t fewer = 0;
        for (int64_t heads = 1; heads <= 12; heads++) {
            const struct gpu_heads h = {.n_kv = heads, .shared = 4, .dim = 128, .value = 128};
            const uint64_t bytes = gpu_attention_scratch(&h, 300, contexts[i]);
            assert_true(bytes >= fewer && bytes >= gpu_attention_scratch(&h, 299, contexts[i]));
            fewer = bytes;
        }
    }
}

/* A NaN in q makes its head's values NaN and no other's; values of later tokens that are none reach nobody. */
static void no_numbers_stay_where_they_are(void **state)
{
    (void)state;
    struct scene c = make_scene(&(struct shape){64, 1, 2, 0, .runs = chunks});
    c.q[(7 * c.n_q + 1) * c.s.dim + 3] = NAN;
    uint16_t key[64], value[64];
    for (int d = 0; d < 64; d++) {
        key[d] = f16_of_f32((float)d / 64);
        value[d] = 0x7e00;
    }
    put(&c, 0, c.first[2] + 140 / KV_PAGE, 140 % KV_PAGE, key, value); /* a token in the middle of the long chunk */
    attend_on_cpu(&c);
    check_ways(&c, c.most);
    int64_t nans = 0;
    for (int64_t i = 0; i < c.n * c.n_q * c.s.dim; i++)
        nans += isnan(c.want[i]);
    assert_int_equal(nans, 64 * (1 + 2 * (123 + 39 - 140))); /* the token's own run sees it from there on */
    free_scene(&c);
}

/* ---- real shapes ---- */

static void long_contexts(void **state)
{
    (void)state;
    static const struct tokens one[] = {{4095, 1}, {0, 0}}, some[] = {{8191, 1}, {4095, 1}, {700, 3}, {0, 0}},
                               prompt[] = {{0, 300}, {3900, 200}, {0, 0}};
    if (!getenv("HEARTH_GPU_LARGE"))
        skip();
    assert_int_equal(kernels_select(NULL, &reference), ST_OK); /* equal bit for bit, and quicker */
    check_shape((struct shape){128, 32, 1, 0, .runs = one});
    check_shape((struct shape){128, 8, 4, 0, .runs = some});
    check_shape((struct shape){64, 3, 3, 0, .runs = some});
    check_shape((struct shape){256, 4, 2, 1024, .runs = some});
    check_shape((struct shape){128, 8, 4, 0, .runs = prompt});
    check_shape((struct shape){128, 32, 1, 0, .runs = prompt});
    reference = &kernels_scalar;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_contexts),
        cmocka_unit_test(tokens_of_several_sequences),
        cmocka_unit_test(chunks_of_prompts),
        cmocka_unit_test(windows),
        cmocka_unit_test(capped_scores_and_sinks),
        cmocka_unit_test(keys_longer_than_values),
        cmocka_unit_test(tokens_in_groups_where_scratch_is_scarce),
        cmocka_unit_test(scratch_for_more_heads_is_enough_for_fewer),
        cmocka_unit_test(no_numbers_stay_where_they_are),
        cmocka_unit_test(long_contexts),
    };
    gpu = gpu_for_test();
    if (!gpu) {
        printf("SKIP: no GPU\n");
        return 77;
    }
    if (kernels_select("scalar", &reference))
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
