/* Which experts tokens are given to, against the same said in double precision; with every table of kernels. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/threads.h"
#include "device/cpu/router.h"
#include "tests/conformance/kernels_suite.h"

enum { D = 96, MOST = 48, N = 7 };

static float rows[(MOST + 1) * D], x[N * D], bias[MOST], choice_bias[MOST];
static uint32_t expert[N * MOST];
static float weight[N * (MOST + 1)];

struct trial {
    int64_t n, used;
    struct router router;
    bool bias, choice_bias, shared;
};

static const struct trial trials[] = {
    {8, 2, {.score = ROUTER_SOFTMAX, .normed = true, .scale = 1, .n_groups = 1, .n_groups_used = 1}, false, false,
     false},
    {48, 8, {.score = ROUTER_SOFTMAX, .scale = 1, .n_groups = 1, .n_groups_used = 1}, false, false, true},
    {33, 4, {.score = ROUTER_CHOSEN, .scale = 1, .n_groups = 1, .n_groups_used = 1}, true, false, false},
    {48, 6, {.score = ROUTER_SIGMOID, .normed = true, .scale = 2.5f, .n_groups = 8, .n_groups_used = 3}, false, true,
     false},
    {48, 1, {.score = ROUTER_SOFTMAX, .scale = 16, .n_groups = 6, .n_groups_used = 2}, true, true, true},
    {5, 5, {.score = ROUTER_SIGMOID, .normed = true, .scale = 1, .n_groups = 1, .n_groups_used = 1}, false, false,
     false},
};

/* ---- the same in double precision ---- */

static void expected_scores(const struct trial *t, const float *of, double *score)
{
    double sum = 0;
    for (int64_t e = 0; e < t->n; e++) {
        score[e] = t->bias ? bias[e] : 0;
        for (int c = 0; c < D; c++)
            score[e] += (double)rows[e * D + c] * (double)of[c];
        sum += exp(score[e]);
    }
    for (int64_t e = 0; e < t->n; e++)
        score[e] = t->router.score == ROUTER_SOFTMAX ? exp(score[e]) / sum
                   : t->router.score == ROUTER_SIGMOID ? 1 / (1 + exp(-score[e])) : score[e];
}

static int64_t best(const double *value, int64_t n)
{
    int64_t at = 0;
    for (int64_t i = 1; i < n; i++)
        at = value[i] > value[at] ? i : at;
    return at;
}

/* Values of groups that do not count become -infinity. */
static void expected_groups(const struct trial *t, double *by)
{
    const int64_t of_group = t->n / t->router.n_groups;
    double group[MOST], kept[MOST] = {0};
    for (int64_t g = 0; g < t->router.n_groups; g++) {
        double *of = by + g * of_group;
        const int64_t first = best(of, of_group);
        const double largest = of[first];
        of[first] = -INFINITY;
        group[g] = largest + of[best(of, of_group)];
        of[first] = largest;
    }
    for (int64_t i = 0; i < t->router.n_groups_used; i++) {
        const int64_t g = best(group, t->router.n_groups);
        kept[g] = 1;
        group[g] = -INFINITY;
    }
    for (int64_t e = 0; e < t->n; e++)
        by[e] = kept[e / of_group] > 0 ? by[e] : -INFINITY;
}

static void expect_token(const struct trial *t, int token, const uint32_t *found, const float *weights)
{
    double score[MOST], by[MOST], chosen[MOST], sum = 0, shared = 0;
    expected_scores(t, x + token * D, score);
    for (int64_t e = 0; e < t->n; e++)
        by[e] = score[e] + (t->choice_bias ? choice_bias[e] : 0);
    if (t->router.n_groups > 1)
        expected_groups(t, by);
    for (int64_t i = 0; i < t->used; i++) {
        const int64_t e = best(by, t->n);
        assert_int_equal(found[i], e);
        by[e] = -INFINITY;
        chosen[i] = t->router.score == ROUTER_CHOSEN ? exp(score[e]) : score[e];
        sum += chosen[i];
    }
    for (int64_t i = 0; i < t->used; i++) {
        const double w = t->router.normed || t->router.score == ROUTER_CHOSEN ? chosen[i] / sum : chosen[i];
        assert_true(fabs((double)weights[i] - w * (double)t->router.scale) <= 2e-6 * (double)t->router.scale);
    }
    for (int c = 0; t->shared && c < D; c++)
        shared += (double)rows[MOST * D + c] * (double)x[token * D + c];
    if (t->shared)
        assert_true(fabs((double)weights[t->used] - 1 / (1 + exp(-shared))) <= 1e-6);
}

/* ---- a router ---- */

static struct model *any; /* whose file the lines name */

struct bed {
    struct model model;
    struct layer_weights layer;
    struct cpu cpu;
    struct routing routing;
    struct router_weights weights;
};

static void pack(struct packed *p, const float *of, int64_t n)
{
    packed_shape(p, DT_F32, n, D);
    p->data = aligned_alloc(64, (packed_bytes(p) + 63) / 64 * 64);
    assert_non_null(p->data);
    packed_fill(p, 0, p->groups, (const uint8_t *)of, D * sizeof *of, NULL);
}

static void bed_begin(struct bed *b, const struct trial *t, const struct kernels *k, int threads)
{
    *b = (struct bed){.model.hp = {.d_model = D, .n_experts = t->n, .n_experts_used = t->used,
                                   .shared_routed = t->shared, .router = t->router}};
    b->model.layers = &b->layer;
    b->model.file = any->file;
    b->cpu.o = (struct device_options){.model = &b->model, .kernels = k, .n_threads = threads, .n_batch = N};
    b->cpu.hp = &b->model.hp;
    assert_int_equal(pool_create(threads, &b->cpu.o.pool), ST_OK);
    pack(&b->weights.rows, rows, t->n);
    if (t->shared)
        pack(&b->weights.shared, rows + MOST * D, 1);
    b->weights.bias = t->bias ? bias : NULL;
    b->weights.choice_bias = t->choice_bias ? choice_bias : NULL;
    b->routing.logits = guarded((size_t)(N * (t->n + 1)) * sizeof(float));
    b->routing.scores = guarded((size_t)(N * t->n) * sizeof(float));
}

static void bed_end(struct bed *b)
{
    pool_destroy(b->cpu.o.pool);
    free(b->weights.rows.data);
    free(b->weights.shared.data);
    guarded_free(b->routing.logits);
    guarded_free(b->routing.scores);
}

static status route_tokens(struct bed *b, uint32_t first, uint32_t n)
{
    static const struct run run = {.sequence = 0, .position = 20, .n = N};
    const struct batch batch = {&run, 1, N, NULL, 0};
    const struct work w = {.part = DEVICE_FFN, .layer = 3, .n = n, .batch = &batch};
    const struct routes out = {expert + first * b->model.hp.n_experts_used,
                               weight + first * model_route_weights(&b->model.hp)};
    return route(&b->cpu, &b->routing, &b->weights, &w, x + first * D, &out);
}

static void fill(void)
{
    struct rng r = {5};
    for (int i = 0; i < (MOST + 1) * D; i++)
        rows[i] = rng_float(&r) / 3;
    for (int i = 0; i < N * D; i++)
        x[i] = rng_float(&r);
    for (int i = 0; i < MOST; i++) {
        bias[i] = rng_float(&r);
        choice_bias[i] = rng_float(&r) / 2;
    }
}

/* Tokens together and one by one, on every table: the same bits, and what they should be. */
static void test_choice(void **state)
{
    (void)state;
    fill();
    for (size_t i = 0; i < sizeof trials / sizeof *trials; i++) {
        const struct trial *t = &trials[i];
        const size_t weights = (size_t)(t->used + t->shared);
        float first[N * (MOST + 1)];
        for (int k = 0; kernels_available(k); k++) {
            struct bed b;
            bed_begin(&b, t, kernels_available(k), 1 + k % 3);
            assert_int_equal(route_tokens(&b, 0, N), ST_OK);
            for (int token = 0; token < N; token++)
                expect_token(t, token, expert + token * t->used, weight + (size_t)token * weights);
            if (k == 0)
                memcpy(first, weight, sizeof first);
            for (uint32_t token = 0; token < N; token++)
                assert_int_equal(route_tokens(&b, token, 1), ST_OK);
            assert_memory_equal(first, weight, N * weights * sizeof *weight);
            bed_end(&b);
        }
    }
}

/* Of equal experts, and of equal groups, the first are chosen. */
static void test_ties(void **state)
{
    (void)state;
    const struct trial t = {
        12, 4, {.score = ROUTER_SOFTMAX, .normed = true, .scale = 1, .n_groups = 3, .n_groups_used = 2},
        false, false, false};
    struct bed b;
    fill();
    memset(rows, 0, sizeof rows);
    bed_begin(&b, &t, kernels_available(0), 1);
    assert_int_equal(route_tokens(&b, 0, N), ST_OK);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(expert[i], i);
        assert_true(weight[i] == 0.25f);
    }
    bed_end(&b);
}

/* Weights are not divided by a sum that is next to nothing. */
static void test_small_sum(void **state)
{
    (void)state;
    const struct trial t = {
        8, 2, {.score = ROUTER_SIGMOID, .normed = true, .scale = 1, .n_groups = 1, .n_groups_used = 1},
        true, false, false};
    struct bed b;
    fill();
    memset(rows, 0, sizeof rows);
    for (int i = 0; i < 8; i++)
        bias[i] = -40;
    bed_begin(&b, &t, kernels_available(0), 1);
    assert_int_equal(route_tokens(&b, 0, 1), ST_OK);
    assert_true(weight[0] > 0 && weight[0] < 1e-12f);
    bed_end(&b);
}

/* A router that is no number says so, and where. */
static void expect_broken(const struct trial *t, const char *says)
{
    struct log_catcher caught;
    struct bed b;
    bed_begin(&b, t, kernels_available(0), 2);
    log_catch(&caught);
    status st = route_tokens(&b, 0, N);
    log_catch(NULL);
    assert_int_equal(st, ST_NAN);
    if (!strstr(caught.first_error, says))
        fail_msg("expected '%s', found '%s'", says, caught.first_error);
    bed_end(&b);
}

static void test_no_numbers(void **state)
{
    (void)state;
    fill();
    x[4 * D + 3] = NAN;
    expect_broken(&trials[0],
                  "layer 3: the router: value 0 of the token at position 24 of sequence 0 is nan, no number");
    fill();
    rows[5 * D + 9] = INFINITY;
    expect_broken(&trials[2], "layer 3: the router: value 5 of the token at position 20");
    fill();
    rows[MOST * D] = NAN;
    expect_broken(&trials[1], "layer 3: the router: value 48 of the token at position 20");
    fill();
    choice_bias[47] = NAN;
    expect_broken(&trials[3], "layer 3: the router's scores: value 47 of the token at position 20");
}

static int open_any(void **state)
{
    (void)state;
    return model_load(TEST_DATA "/tiny-f32.gguf", &any);
}

static int close_any(void **state)
{
    (void)state;
    model_free(any);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_ties),
        cmocka_unit_test(test_small_sum),
        cmocka_unit_test(test_no_numbers),
    };
    return cmocka_run_group_tests(tests, open_any, close_any);
}
