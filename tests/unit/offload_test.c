/* What ranks say that their GPUs get: a plan takes what can be, whatever a message says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "node/offload.h"
#include "sparsity/neurons.h"
#include "tests/unit/shapes_model.h"

enum { LAYERS = 2, NEURONS = 512, UNIT = 128, RANKS = 2 };

static const struct plan_model model = {
    .architecture = "llama", .n_layers = LAYERS, .n_vocab = 1000,
    .layer = {.d_ff = NEURONS, .neuron_unit = UNIT, .n_kv_heads = 4, .head_unit = 1}};

/* NULL: it is taken; else what is said instead. */
static void apply(struct plan *p, struct wire_gpu gpu, const char *says)
{
    const struct plan_reasons why = {0};
    const struct wire_gpus offers[RANKS] = {{.n = 1, .at = {gpu}}};
    struct log_catcher caught;
    log_catch(&caught);
    const status st = offload_apply(p, offers, &why, false);
    log_catch(NULL);
    assert_int_equal(st, says ? ST_MISMATCH : ST_OK);
    assert_int_equal(plan_n_holders(p), says ? p->n_ranks : p->n_ranks + 1);
    if (says && !strstr(caught.first_error, says))
        fail_msg("\"%s\" does not say \"%s\"", caught.first_error, says);
    plan_free(p);
}

static struct plan *whole(void)
{
    struct plan *p = NULL;
    assert_int_equal(plan_make(&model, SPLIT_SHARDS, 1, NULL, &p), ST_OK);
    return p;
}

static void more_than_there_is_is_refused(void **state)
{
    (void)state;
    apply(whole(), (struct wire_gpu){.layers = LAYERS + 1}, NULL);
    apply(whole(), (struct wire_gpu){.layers = LAYERS + 2}, "rank 0 gives its GPU 4 layers, expected 3 at most");
    apply(whole(), (struct wire_gpu){.layers = UINT32_MAX}, "gives its GPU 4294967295 layers");
}

static void marks_that_are_not_here_are_refused(void **state)
{
    (void)state;
    apply(whole(), (struct wire_gpu){.marks = 7}, "rank 0 gives its GPU what a split file marks, and here is another");
    apply(whole(), (struct wire_gpu){.marks = UINT64_MAX}, "what a split file marks");
}

/* Two PCs whose GPUs, which the probe has measured, are slower than their CPUs. */
static struct probe *slow_gpus(void)
{
    struct probe *p;
    assert_int_equal(probe_create(RANKS, true, &p), ST_OK);
    p->n_sizes = 1;
    p->sizes[0] = 1 << 20;
    for (int r = 0; r < RANKS; r++) {
        struct probe_rank *rank = &p->ranks[r];
        snprintf(rank->host, sizeof rank->host, "host%d", r);
        rank->cores = rank->threads = rank->n_curve = rank->n_gpus = 1;
        rank->memory_bytes = UINT64_C(1) << 40;
        rank->curve[0] = rank->shared_gb_per_s = 50;
        rank->gpus[0] = (struct probe_gpu){.device = "cuda:0", .name = "GPU", .memory_bytes = UINT64_C(1) << 30,
                                           .read_gb_per_s = 1, .up_gb_per_s = 1, .down_gb_per_s = 1, .launch_us = 1,
                                           .wait_us = 100};
        p->transports[0].links[r ? RANKS : 1] = (struct probe_link){.us = {50}, .gb_per_s = 10};
    }
    return p;
}

/* What a rank has chosen for itself is taken back where it is slower for all; what people have said of another's GPU is
 * obeyed, and so is what they have said of it all. */
static void what_is_asked_for_is_obeyed_on_every_rank(void **state)
{
    (void)state;
    static const int32_t every[NEURONS] = {1}, *marks[LAYERS] = {every, every};
    static const struct {
        struct wire_gpu gpus[RANKS];
        int holders[RANKS]; /* beside CPUs */
    } cases[] = {
        {{{.bytes = 1 << 30}, {.bytes = 1 << 30}}, {0, 0}},
        {{{.layers = 1}, {.bytes = 1 << 30}}, {1, 0}},
        {{{.bytes = 1 << 30}, {.layers = 2}}, {0, 1}},
        {{{.marks = 7}, {.bytes = 1 << 30}}, {1, 0}},
        {{{.layers = 1}, {.layers = 1}}, {1, 1}},
        {{{.bytes = 0}, {.bytes = 1 << 30}}, {0, 0}},
    };
    struct layer_weights layers[LAYERS];
    struct bundle bundle;
    struct model shapes;
    shapes_model(LAYERS, 1024, NEURONS, 1000, layers, &bundle, &shapes);
    struct plan_reasons why = {.probe = slow_gpus(), .marks = marks, .marks_hash = 7,
                               .model = {.model = &shapes, .residual = -1, .gpus = true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct wire_gpus offers[RANKS] = {{.n = 1, .at = {cases[i].gpus[0]}}, {.n = 1, .at = {cases[i].gpus[1]}}};
        int found[RANKS] = {0};
        struct plan *p;
        offers[1].at[0].id[0] = 1; /* another card */
        assert_int_equal(plan_make(&model, SPLIT_SHARDS, RANKS, NULL, &p), ST_OK);
        assert_int_equal(offload_apply(p, offers, &why, false), ST_OK);
        for (int h = RANKS; h < plan_n_holders(p); h++)
            found[plan_holder_rank(p, h)]++;
        assert_memory_equal(found, cases[i].holders, sizeof found);
        plan_free(p);
    }
    probe_free(why.probe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(more_than_there_is_is_refused),
                                       cmocka_unit_test(marks_that_are_not_here_are_refused),
                                       cmocka_unit_test(what_is_asked_for_is_obeyed_on_every_rank)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
