/* Routers on a GPU give the choices and the bits of the CPU's, for all kinds of them, equal scores among them; what is
 * no number is noted where it is. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/threads.h"
#include "device/cpu/router.h"
#include "kernels/cuda/router.h"
#include "tests/conformance/kernels_suite.h"
#include "tests/gpu/memory.h"

enum { MOST = 160, D = MOST + 1, N = 9 };

static struct gpu *gpu;
static float one[D * D], x[N * D], choice_bias[MOST]; /* rows that give x itself as logits */

struct trial {
    int n, used;
    struct router router;
    bool choice_bias, shared;
};

static const struct trial trials[] = {
    {8, 2, {.score = ROUTER_SOFTMAX, .normed = true, .scale = 1, .n_groups = 1, .n_groups_used = 1}, false, false},
    {48, 8, {.score = ROUTER_SOFTMAX, .scale = 1, .n_groups = 1, .n_groups_used = 1}, false, true},
    {33, 20, {.score = ROUTER_CHOSEN, .scale = 1, .n_groups = 1, .n_groups_used = 1}, false, false},
    {160, 6, {.score = ROUTER_SIGMOID, .normed = true, .scale = 2.5f, .n_groups = 8, .n_groups_used = 3}, true, false},
    {48, 1, {.score = ROUTER_SOFTMAX, .scale = 16, .n_groups = 24, .n_groups_used = 2}, true, true},
    {48, 6, {.score = ROUTER_SIGMOID, .scale = 1, .n_groups = 24, .n_groups_used = 3}, false, false},
    {5, 5, {.score = ROUTER_SIGMOID, .normed = true, .scale = 1, .n_groups = 1, .n_groups_used = 1}, false, false},
};

/* Logits beside each other, many of them equal; so are scores of groups. */
static void fill(void)
{
    struct rng r = {11};
    for (int i = 0; i < D; i++)
        one[i * D + i] = 1;
    for (int i = 0; i < N * D; i++)
        x[i] = (i / D) % 2 ? rng_float(&r) * 8 : roundf(rng_float(&r) * 6) / 2 + 0.0f;
    for (int i = 0; i < MOST; i++)
        choice_bias[i] = i % 3 ? 0.25f : 0.5f;
}

static void pack(struct packed *p, const float *of, int64_t n)
{
    packed_shape(p, DT_F32, n, D);
    p->data = aligned_alloc(64, (packed_bytes(p) + 63) / 64 * 64);
    assert_non_null(p->data);
    packed_fill(p, 0, p->groups, (const uint8_t *)of, D * sizeof *of, NULL);
}

/* By the CPU's router. */
static void expect(const struct trial *t, uint32_t *expert, float *weight)
{
    static struct layer_weights layer;
    struct model m = {.hp = {.d_model = D, .n_experts = t->n, .n_experts_used = t->used, .shared_routed = t->shared,
                             .router = t->router}, .layers = &layer};
    struct cpu cpu = {.o = {.model = &m, .kernels = kernels_available(0), .n_threads = 1, .n_batch = N}, .hp = &m.hp};
    struct routing routing = {malloc(N * D * sizeof(float)), malloc(N * D * sizeof(float))};
    struct router_weights weights = {.choice_bias = t->choice_bias ? choice_bias : NULL};
    assert_int_equal(pool_create(1, &cpu.o.pool), ST_OK);
    pack(&weights.rows, one, t->n);
    if (t->shared)
        pack(&weights.shared, one + MOST * D, 1);
    assert_int_equal(route(&cpu, &routing, &weights, &(struct work){.part = DEVICE_FFN, .n = N}, x,
                           &(struct routes){expert, weight}), ST_OK);
    pool_destroy(cpu.o.pool);
    free(weights.rows.data);
    free(weights.shared.data);
    free(routing.logits);
    free(routing.scores);
}

struct got {
    uint32_t expert[N * MOST];
    float weight[N * (MOST + 1)];
    unsigned long long fault;
};

/* logits [N, n + shared] */
static void choose(const struct trial *t, const float *logits, const float *bias, struct got *got)
{
    static const enum gpu_router_score scores[] = {[ROUTER_SOFTMAX] = GPU_ROUTER_SOFTMAX,
                                                   [ROUTER_SIGMOID] = GPU_ROUTER_SIGMOID,
                                                   [ROUTER_CHOSEN] = GPU_ROUTER_CHOSEN};
    const int n_weights = t->used + t->shared;
    const size_t experts = (size_t)(N * t->used) * sizeof(uint32_t), weights = (size_t)(N * n_weights) * sizeof(float);
    const struct gpu_routes to = {gpu_copy_of(NULL, experts), gpu_copy_of(NULL, weights)};
    unsigned long long *first = gpu_copy_of(&(unsigned long long){~0ull}, sizeof *first);
    float *on_gpu = gpu_copy_of(logits, (size_t)(N * (t->n + t->shared)) * sizeof *logits);
    float *biases = bias ? gpu_copy_of(bias, (size_t)t->n * sizeof *bias) : NULL;
    const struct gpu_router r = {.score = scores[t->router.score], .normed = t->router.normed,
                                 .weighs_shared = t->shared,
                                 .scale = t->router.scale, .n_experts = t->n, .used = t->used, .n_weights = n_weights,
                                 .n_groups = (int)t->router.n_groups, .groups_used = (int)t->router.n_groups_used,
                                 .choice_bias = biases};
    gpu_choose(gpu, &r, on_gpu, N, &to, (struct gpu_fault){first, 4}, (struct gpu_fault){first, 5});
    gpu_read(got->expert, to.expert, experts);
    gpu_read(got->weight, to.weight, weights);
    gpu_read(&got->fault, first, sizeof got->fault);
    gpu_release(to.expert);
    gpu_release(to.weight);
    gpu_release(first);
    gpu_release(on_gpu);
    gpu_release(biases);
}

/* What a router's product gives of x. */
static void take_logits(const struct trial *t, float *logits)
{
    for (int i = 0; i < N; i++) {
        memcpy(logits + i * (t->n + t->shared), x + i * D, (size_t)t->n * sizeof *x);
        if (t->shared)
            logits[i * (t->n + 1) + t->n] = x[i * D + MOST];
    }
}

static void gives_the_choices_of_the_cpu(void **state)
{
    static struct got got;
    uint32_t expert[N * MOST];
    float weight[N * (MOST + 1)], logits[N * D];
    (void)state;
    for (size_t i = 0; i < sizeof trials / sizeof *trials; i++) {
        const struct trial *t = &trials[i];
        const size_t n_weights = (size_t)(t->used + t->shared);
        expect(t, expert, weight);
        take_logits(t, logits);
        choose(t, logits, t->choice_bias ? choice_bias : NULL, &got);
        assert_true(got.fault == ~0ull);
        assert_memory_equal(got.expert, expert, (size_t)(N * t->used) * sizeof *expert);
        assert_memory_equal(got.weight, weight, N * n_weights * sizeof *weight);
    }
}

/* The first logit, or else the first score; the experts that such a token has can be read. */
static void notes_what_is_no_number(void **state)
{
    static struct got got;
    const struct trial *t = &trials[3];
    float logits[N * D], broken[MOST];
    (void)state;
    take_logits(t, logits);
    memcpy(broken, choice_bias, sizeof broken);
    broken[159] = INFINITY;
    choose(t, logits, broken, &got);
    assert_true(got.fault == (5ull << 32 | 159));
    logits[7 * 160 + 3] = NAN;
    logits[8 * 160 + 2] = -INFINITY;
    choose(t, logits, broken, &got);
    assert_true(got.fault == (4ull << 32 | (7 * 160 + 3)));
    for (int i = 0; i < t->used; i++) {
        assert_true(got.expert[7 * t->used + i] == (uint32_t)i);
        assert_true(isnan(got.weight[7 * t->used + i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(gives_the_choices_of_the_cpu),
                                       cmocka_unit_test(notes_what_is_no_number)};
    gpu = gpu_for_test();
    fill();
    return gpu ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
