/* What ranks say that their GPUs get: a plan takes what can be, whatever a message says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/log.h"
#include "node/offload.h"
#include "sparsity/neurons.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(more_than_there_is_is_refused),
                                       cmocka_unit_test(marks_that_are_not_here_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
