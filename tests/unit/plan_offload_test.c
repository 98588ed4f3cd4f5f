/* A rank's layers on a device beside its CPU: what went there, that nothing is lost, and that the plan is as good as
 * one that was written so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "placement/plan.h"
#include "tests/unit/alloc_fail.h"

enum { LAYERS = 4, HEADS = 4, NEURONS = 512, VOCAB = 1000 };

static const struct plan_model model = {
    .architecture = "llama", .n_layers = LAYERS, .n_vocab = VOCAB,
    .layer = {.d_ff = NEURONS, .neuron_unit = 128, .n_kv_heads = HEADS, .head_unit = 1}};

static int64_t heads(const struct plan *p, int layer, int holder)
{
    int64_t begin, end;
    plan_heads(p, layer, holder, HEADS, &begin, &end);
    return end - begin;
}

static int64_t rows(const struct plan *p, int holder)
{
    int64_t begin, end;
    plan_rows(p, holder, VOCAB, &begin, &end);
    return end - begin;
}

/* What a holder has of a layer. */
static void assert_has(const struct plan *p, int layer, int holder, int64_t n_heads, int64_t n_neurons)
{
    assert_int_equal(heads(p, layer, holder), n_heads);
    assert_int_equal(plan_n_neurons(p, layer, holder), n_neurons);
}

/* It is read back as it is, which checks that every piece has one holder, and it fits the model. */
static void assert_whole(const struct plan *p)
{
    struct plan *again = NULL;
    char *text = plan_format(p);
    assert_non_null(text);
    assert_int_equal(plan_parse(text, strlen(text), "offloaded", &again), ST_OK);
    assert_int_equal(plan_check(again, &model, p->n_ranks), ST_OK);
    char *text_again = plan_format(again);
    assert_string_equal(text_again, text);
    for (int r = 0; r < p->n_ranks; r++)
        assert_int_equal(plan_home(again, r), plan_home(p, r));
    free(text_again);
    free(text);
    plan_free(again);
}

static struct plan *make(enum plan_split split, int n_ranks)
{
    struct plan *p = NULL;
    assert_int_equal(plan_make(&model, split, n_ranks, NULL, &p), ST_OK);
    return p;
}

static void a_lone_rank_gives_its_first_layers(void **state)
{
    (void)state;
    for (int n = 1; n <= LAYERS + 2; n++) {
        struct plan *p = make(SPLIT_SHARDS, 1);
        assert_int_equal(plan_count_layers(p, 0), LAYERS);
        assert_int_equal(plan_offload(p, 0, "cuda:3", n), ST_OK);
        assert_string_equal(plan_holder_device(p, 1), "cuda:3");
        assert_int_equal(plan_holder_rank(p, 1), 0);
        assert_int_equal(plan_home(p, 0), 1);
        for (int l = 0; l < LAYERS; l++) {
            assert_has(p, l, 1, l < n ? HEADS : 0, l < n ? NEURONS : 0);
            assert_has(p, l, 0, l < n ? 0 : HEADS, l < n ? 0 : NEURONS);
        }
        assert_int_equal(rows(p, 1), n > LAYERS ? VOCAB : 0);
        assert_int_equal(rows(p, 0), n > LAYERS ? 0 : VOCAB);
        assert_whole(p);
        plan_free(p);
    }
}

/* Each its own part, of layers that are cut; a third rank keeps all on its CPU. */
static void ranks_of_shards_give_their_parts(void **state)
{
    (void)state;
    struct plan *p = make(SPLIT_SHARDS, 3), *before = make(SPLIT_SHARDS, 3);
    assert_int_equal(plan_offload(p, 1, "cuda:0", LAYERS + 1), ST_OK);
    assert_int_equal(plan_offload(p, 0, "cuda:1", 2), ST_OK);
    for (int l = 0; l < LAYERS; l++) {
        assert_has(p, l, 3, heads(before, l, 1), plan_n_neurons(before, l, 1));
        assert_has(p, l, 1, 0, 0);
        assert_has(p, l, l < 2 ? 4 : 0, heads(before, l, 0), plan_n_neurons(before, l, 0));
        assert_has(p, l, l < 2 ? 0 : 4, 0, 0);
        assert_has(p, l, 2, heads(before, l, 2), plan_n_neurons(before, l, 2));
    }
    assert_int_equal(rows(p, 3), rows(before, 1));
    assert_int_equal(rows(p, 0), rows(before, 0));
    assert_int_equal(rows(p, 4), 0);
    assert_true(plan_home(p, 0) == 4 && plan_home(p, 1) == 3 && plan_home(p, 2) == 2);
    assert_whole(p);
    plan_free(before);
    plan_free(p);
}

static void ranks_of_stages_give_theirs(void **state)
{
    (void)state;
    struct plan *p = make(SPLIT_STAGES, 2);
    assert_int_equal(plan_count_layers(p, 1), 2);
    assert_int_equal(plan_offload(p, 1, "cuda:0", 1), ST_OK);
    assert_has(p, 0, 0, HEADS, NEURONS);
    assert_has(p, 2, 2, HEADS, NEURONS);
    assert_has(p, 3, 1, HEADS, NEURONS);
    assert_int_equal(rows(p, 1), VOCAB);
    assert_true(plan_home(p, 0) == 0 && plan_home(p, 1) == 2);
    assert_whole(p);
    plan_free(p);
}

/* Sets stay sets, which decide bits. */
static void hot_sets_stay_apart(void **state)
{
    (void)state;
    float fired[LAYERS][NEURONS];
    const float *of[LAYERS];
    for (int l = 0; l < LAYERS; l++) {
        of[l] = fired[l];
        for (int j = 0; j < NEURONS; j++)
            fired[l][j] = (float)((j * 7 + l) % 97) / 100;
    }
    struct plan *p = NULL, *before = NULL;
    assert_int_equal(plan_make_hot(&model, 2, NULL, of, &p), ST_OK);
    assert_int_equal(plan_make_hot(&model, 2, NULL, of, &before), ST_OK);
    assert_int_equal(plan_count_units(p, 0), 0); /* they are not of whole units */
    assert_int_equal(plan_offload(p, 0, "cuda:0", 3), ST_OK);
    for (int l = 0; l < LAYERS; l++) {
        const struct neuron_range *a, *b;
        const int n = plan_set(before, l, 0, 0, &a), found = plan_set(p, l, l < 3 ? 2 : 0, 0, &b);
        assert_int_equal(found, n);
        assert_memory_equal(b, a, (size_t)n * sizeof *a);
        assert_int_equal(plan_n_neurons(p, l, 1), plan_n_neurons(before, l, 1));
    }
    assert_whole(p);
    plan_free(before);
    plan_free(p);
}

/* A rank's own are chosen among; the other's stay where they are. */
static void units_of_a_rank_are_its_own(void **state)
{
    (void)state;
    static const bool stay[LAYERS * 2] = {[0] = true, [2] = true, [4] = true};
    struct plan *p = make(SPLIT_SHARDS, 2);
    assert_int_equal(plan_offload(p, 1, "cuda:0", LAYERS + 1), ST_OK);
    assert_int_equal(plan_count_units(p, 2), LAYERS * 2);
    assert_int_equal(plan_keep_units(p, 2, stay), ST_OK);
    for (int l = 0; l < LAYERS; l++) {
        const struct neuron_range *ranges;
        assert_has(p, l, 0, HEADS / 2, NEURONS / 2);
        assert_has(p, l, 2, HEADS / 2, l < 3 ? 128 : 0);
        assert_has(p, l, 1, 0, l < 3 ? 128 : 256);
        if (l < 3) {
            plan_neurons(p, l, 2, &ranges);
            assert_true(ranges[0].begin == 256 && ranges[0].end == 384);
        }
    }
    assert_whole(p);
    plan_free(p);
}

/* Two ranks have two units of 128 each: as many go to each one's GPU as its marks would fill, rounded. */
static void marked_units_stay(void **state)
{
    (void)state;
    static const struct {
        int begin, end;        /* marks */
        int from[2], units[2]; /* of each rank */
    } cases[] = {{0, 0, {0}, {0, 0}},          {0, NEURONS, {0, 256}, {2, 2}}, {130, 193, {0}, {0, 0}},
                 {130, 194, {128}, {1, 0}},    {320, 384, {0, 256}, {0, 1}},   {100, 256, {128}, {1, 0}},
                 {200, 440, {128, 256}, {0, 1}}, {90, 256, {128}, {1, 0}},     {64, 256, {0}, {2, 0}}};
    int32_t marks[NEURONS];
    static const int32_t none[NEURONS];
    const int32_t *const of[LAYERS] = {none, marks, none, marks};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plan *p = make(SPLIT_SHARDS, 2);
        for (int j = 0; j < NEURONS; j++)
            marks[j] = j >= cases[i].begin && j < cases[i].end;
        for (int r = 0; r < 2; r++) {
            assert_int_equal(plan_offload(p, r, "cuda:0", LAYERS + 1), ST_OK);
            assert_int_equal(plan_keep_marked(p, 2 + r, of), ST_OK);
        }
        for (int l = 0; l < LAYERS; l++) {
            for (int r = 0; r < 2; r++) {
                const struct neuron_range *ranges;
                const int n = l % 2 ? 128 * cases[i].units[r] : 0;
                assert_has(p, l, 2 + r, HEADS / 2, n);
                assert_has(p, l, r, 0, NEURONS / 2 - n);
                assert_int_equal(plan_neurons(p, l, 2 + r, &ranges), n > 0);
                assert_true(!n || ranges[0].begin == cases[i].from[r]);
            }
        }
        assert_whole(p);
        plan_free(p);
    }
}

/* The last unit of a layer is a shorter one, which fewer marks fill. */
static void fewer_marks_fill_a_ragged_unit(void **state)
{
    (void)state;
    enum { RAGGED = 3 * 128 + 32 };
    struct plan_model ragged = model;
    int32_t marks[RAGGED] = {0};
    const int32_t *const of[LAYERS] = {marks, marks, marks, marks};
    const struct neuron_range *ranges;
    ragged.layer.d_ff = RAGGED;
    for (int all = 0; all < 2; all++) {
        struct plan *p = NULL;
        for (int j = all ? 0 : 256; j < RAGGED; j++)
            marks[j] = 1;
        assert_int_equal(plan_make(&ragged, SPLIT_SHARDS, 1, NULL, &p), ST_OK);
        assert_int_equal(plan_offload(p, 0, "cuda:0", LAYERS + 1), ST_OK);
        assert_int_equal(plan_keep_marked(p, 1, of), ST_OK);
        for (int l = 0; l < LAYERS; l++) {
            assert_int_equal(plan_neurons(p, l, 1, &ranges), 1);
            assert_int_equal(ranges[0].begin, all ? 0 : 256);
            assert_int_equal(ranges[0].end, RAGGED);
        }
        plan_free(p);
    }
}

static void a_copy_is_its_own(void **state)
{
    (void)state;
    struct plan *p = make(SPLIT_SHARDS, 2), *copy = plan_copy(p);
    char *before = plan_format(p);
    assert_non_null(copy);
    assert_int_equal(plan_offload(copy, 0, "cuda:0", 3), ST_OK);
    assert_whole(copy);
    plan_free(copy);
    char *after = plan_format(p);
    assert_string_equal(after, before);
    free(before);
    free(after);
    plan_free(p);
}

static void too_many_devices_and_no_memory_are_said(void **state)
{
    (void)state;
    struct log_catcher caught;
    struct plan *p = make(SPLIT_SHARDS, 1);
    char name[PLAN_DEVICE_BYTES];
    log_catch(&caught);
    for (int i = 1; i < PLAN_MAX_HOLDERS; i++) {
        snprintf(name, sizeof name, "cuda:%d", i);
        assert_int_equal(plan_offload(p, 0, name, 1), ST_OK);
    }
    assert_int_equal(plan_offload(p, 0, "cuda:200", 1), ST_USAGE);
    log_catch(NULL);
    assert_string_equal(caught.first_error, "plan: more than 128 devices");
    plan_free(p);
    p = make(SPLIT_SHARDS, 2);
    log_catch(&caught);
    for (int n = 0; n < 4; n++) {
        alloc_fail_at(n);
        struct plan *copy = plan_copy(p);
        assert_int_equal(copy == NULL, alloc_failed());
        plan_free(copy);
    }
    log_catch(NULL);
    assert_string_equal(caught.first_error, "plan: no memory for a copy");
    plan_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lone_rank_gives_its_first_layers),
        cmocka_unit_test(ranks_of_shards_give_their_parts),
        cmocka_unit_test(ranks_of_stages_give_theirs),
        cmocka_unit_test(hot_sets_stay_apart),
        cmocka_unit_test(units_of_a_rank_are_its_own),
        cmocka_unit_test(marked_units_stay),
        cmocka_unit_test(fewer_marks_fill_a_ragged_unit),
        cmocka_unit_test(a_copy_is_its_own),
        cmocka_unit_test(too_many_devices_and_no_memory_are_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
