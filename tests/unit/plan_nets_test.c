/* Plans for models whose layers have different heads: delta nets between attention. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "device/decisions.h"
#include "placement/parts.h"
#include "placement/plan.h"

/* Qwen3-Next in small: every fourth layer is attention of 2 KV heads, the others have 16 key heads, in pairs. */
static const struct plan_model model = {
    .architecture = "qwen3next", .n_layers = 8, .n_vocab = 1000,
    .layer = {.d_ff = 512, .neuron_unit = 128, .n_kv_heads = 2, .head_unit = 1, .n_experts = 4, .n_experts_used = 2},
    .is_net = {true, true, true, false, true, true, true, false}, .key_heads = 16, .key_head_unit = 2};

static struct plan *make(enum plan_split split, int ranks)
{
    struct plan *p = NULL;
    assert_int_equal(plan_make(&model, split, ranks, NULL, &p), ST_OK);
    return p;
}

static void assert_heads(const struct plan *p, int layer, int holder, int64_t begin, int64_t end)
{
    int64_t b, e;
    plan_heads(p, layer, holder, model.is_net[layer] ? 16 : 2, &b, &e);
    assert_int_equal(b, begin);
    assert_int_equal(e, end);
}

static void each_kind_is_cut_in_its_own_units(void **state)
{
    (void)state;
    struct plan *p = make(SPLIT_SHARDS, 3);
    for (int l = 0; l < model.n_layers; l++) {
        const bool net = model.is_net[l];
        assert_heads(p, l, 0, 0, net ? 6 : 1);
        assert_heads(p, l, 1, net ? 6 : 1, net ? 12 : 2);
        assert_heads(p, l, 2, net ? 12 : 2, net ? 16 : 2);
        assert_int_equal(plan_rank_holds(p, PLAN_HEADS, l, 2), net);
    }
    plan_free(p);
    p = make(SPLIT_STAGES, 2);
    assert_heads(p, 0, 0, 0, 16);
    assert_heads(p, 3, 0, 0, 2);
    assert_heads(p, 4, 0, 0, 0);
    assert_heads(p, 4, 1, 0, 16);
    plan_free(p);
}

static void what_is_written_is_read_back_and_fits(void **state)
{
    (void)state;
    struct plan *p = make(SPLIT_BOTH, 3), *again = NULL;
    char *text = plan_format(p);
    assert_non_null(text);
    assert_int_equal(plan_parse(text, strlen(text), "text", &again), ST_OK);
    assert_int_equal(plan_check(again, &model, 3), ST_OK);
    for (int l = 0; l < model.n_layers; l++)
        assert_memory_equal(again->layers[l].heads, p->layers[l].heads, 4 * sizeof *p->layers->heads);
    free(text);
    plan_free(again);
    plan_free(p);
}

static void refused(const struct plan *p, const struct plan_model *found, const char *says)
{
    struct log_catcher caught = {0};
    log_catch(&caught);
    assert_int_equal(plan_check(p, found, 3), ST_MISMATCH);
    log_catch(NULL);
    assert_string_equal(caught.first_error, says);
}

static void others_are_refused(void **state)
{
    (void)state;
    struct plan *p = make(SPLIT_SHARDS, 3);
    struct plan_model other = model;
    other.is_net[1] = false;
    refused(p, &other, "plan: layer 1 is made for a number of KV heads of 16, found 2");
    other = model;
    other.key_heads = 32;
    refused(p, &other, "plan: layer 0 is made for a number of KV heads of 16, found 32");
    p->layers[2].heads[1] = 5;
    refused(p, &model, "plan: layer 2 is cut at KV head 5, expected a multiple of 2");
    plan_free(p);
}

/* Weights are read once for all texts of a step, each text's state by itself; and states are no weights. */
static void each_text_moves_its_own_state(void **state)
{
    (void)state;
    enum { D = 64, WEIGHTS = 4 * 3 * D * D, STATE = 4 * 32 * (4 * 32 + 3 * (2 + 2 + 4)) };
    const struct matrix square = {.type = DT_F32, .rows = D, .cols = D, .data = (const uint8_t *)""};
    struct layer_weights layer = {.qkv = square, .z = square, .o = square};
    const struct model of = {.layers = &layer, .hp = {.n_layers = 1, .d_model = D, .layer = {{.kind = LAYER_DELTA}},
                             .delta = {.size = 32, .key_heads = 2, .value_heads = 4, .taps = 4}}};
    struct cost_model m = {.model = &of, .states = 16, .tokens = 8};
    assert_int_equal(model_state_bytes(&of.hp), STATE);
    struct weight w = weight_of_heads(&m, 0, 1);
    assert_int_equal((int64_t)w.held, WEIGHTS + 16 * STATE);
    assert_int_equal((int64_t)w.read, WEIGHTS + 8 * 2 * STATE);
    m.tokens = 0;
    assert_int_equal((int64_t)weight_of_heads(&m, 0, 0.5).read, WEIGHTS / 2 + STATE);
    m.states = 0;
    assert_int_equal((int64_t)weight_of_heads(&m, 0, 1).read, WEIGHTS);
}

/* Segments end where heads may be cut, and, of quantised weights, with blocks. */
static void segments_are_whole_blocks(void **state)
{
    (void)state;
    static const struct {
        int64_t key_heads, size;
        enum dtype type;
        int64_t segment;
    } some[] = {{16, 128, DT_Q4_K, 128}, {4, 32, DT_Q8_0, 32}, {1, 16, DT_Q8_0, 32}, {3, 16, DT_Q8_0, 96},
                {1, 48, DT_Q8_0, 96},    {2, 16, DT_Q8_0, 64}, {1, 16, DT_F16, 32}};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        struct model m;
        struct layer_weights layer = {.o = {.type = some[i].type, .cols = 2 * some[i].key_heads * some[i].size}};
        m.layers = &layer;
        m.hp = (struct hparams){.n_layers = 1, .layer[0].kind = LAYER_DELTA,
                                .delta = {.key_heads = some[i].key_heads, .value_heads = 2 * some[i].key_heads,
                                          .size = some[i].size, .in_turn = true}};
        assert_int_equal(head_segment(&m, 0), some[i].segment);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_is_cut_in_its_own_units), cmocka_unit_test(what_is_written_is_read_back_and_fits),
        cmocka_unit_test(each_text_moves_its_own_state), cmocka_unit_test(others_are_refused),
        cmocka_unit_test(segments_are_whole_blocks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
