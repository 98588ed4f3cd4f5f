/* Plans of layers with experts: each of them is cut over all ranks, in units that count within it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "placement/cost.h"
#include "placement/gpu_benefit.h"
#include "placement/plan.h"

/* As in Qwen3-30B-A3B, gpt-oss-20b, and DeepSeek V3's kind, smaller. */
static const struct plan_model qwen = {
    .architecture = "qwen3moe", .n_layers = 48, .n_vocab = 1000,
    .layer = {.d_ff = 768, .neuron_unit = 128, .n_kv_heads = 4, .head_unit = 1, .n_experts = 128, .n_experts_used = 8}};
static const struct plan_model oss = {
    .architecture = "gpt-oss", .n_layers = 24, .n_vocab = 1000,
    .layer = {.d_ff = 2880, .neuron_unit = 128, .n_kv_heads = 8, .head_unit = 1, .n_experts = 32, .n_experts_used = 4}};
static const struct plan_model deep = {
    .architecture = "deepseek2", .n_layers = 6, .n_vocab = 1000, .n_dense_layers = 2, .d_dense = 1500,
    .layer = {.d_ff = 200, .neuron_unit = 128, .n_experts = 16, .n_experts_used = 3, .d_shared = 300}};

static struct plan *make(const struct plan_model *m, enum plan_split split, int n, const double *shares)
{
    struct plan *p = NULL;
    assert_int_equal(plan_make(m, split, n, shares, &p), ST_OK);
    return p;
}

static struct plan *parse(const char *text)
{
    struct plan *p = NULL;
    assert_int_equal(plan_parse(text, strlen(text), "test", &p), ST_OK);
    return p;
}

/* Neurons of a bundle that a holder has; in plans by shares all of them lie together. */
static int64_t pieces_of_bundle(const struct plan *p, int layer, int holder, int bundle, int most_pieces)
{
    const struct plan_shape *shape = &p->layers[layer].shape;
    const struct neuron_range b = plan_bundle(shape, bundle), *ranges;
    int64_t sum = 0;
    int pieces = 0;
    for (int i = plan_neurons(p, layer, holder, &ranges); i > 0; i--) {
        const int32_t begin = ranges[i - 1].begin > b.begin ? ranges[i - 1].begin : b.begin;
        const int32_t end = ranges[i - 1].end < b.end ? ranges[i - 1].end : b.end;
        pieces += begin < end;
        sum += begin < end ? end - begin : 0;
        if (begin < end)
            assert_true(plan_on_unit(shape, begin, shape->neuron_unit) &&
                        (end == b.end || plan_on_unit(shape, end, shape->neuron_unit)));
    }
    assert_true(pieces <= most_pieces);
    return sum;
}

static int64_t neurons_of_bundle(const struct plan *p, int layer, int holder, int bundle)
{
    return pieces_of_bundle(p, layer, holder, bundle, 1);
}

/* Of each bundle every rank has its share to less than two units, and of all together to less than one. */
static void assert_cut_by_shares(const struct plan *p, int layer, const double *shares)
{
    const struct plan_shape *shape = &p->layers[layer].shape;
    double all = 0;
    for (int r = 0; r < p->n_ranks; r++)
        all += shares[r];
    for (int r = 0; r < p->n_ranks; r++) {
        int64_t sum = 0;
        for (int i = 0; i < plan_n_bundles(shape); i++) {
            const struct neuron_range b = plan_bundle(shape, i);
            const int64_t n = neurons_of_bundle(p, layer, r, i);
            assert_true(fabs((double)n - (b.end - b.begin) * shares[r] / all) < 2 * (double)shape->neuron_unit);
            sum += n;
        }
        assert_int_equal(sum, plan_n_neurons(p, layer, r));
        assert_true(fabs((double)sum - (double)plan_shape_neurons(shape) * shares[r] / all) <
                    (double)shape->neuron_unit);
    }
}

static void experts_are_cut_by_shares(void **state)
{
    (void)state;
    static const double shares[][4] = {{1, 1, 1, 1}, {3, 1, 1, 1}, {5, 2, 1, 0.5}, {1, 0, 0, 1}, {64, 24, 24, 32}};
    const struct plan_model *const models[] = {&qwen, &oss, &deep};
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
            for (int n = 1; n <= 4; n++) {
                struct plan *p = make(models[m], n % 2 ? SPLIT_SHARDS : SPLIT_BOTH, n, shares[i]);
                for (int l = 0; l < models[m]->n_layers; l += models[m]->n_layers - 1)
                    assert_cut_by_shares(p, l, shares[i]);
                plan_free(p);
            }
        }
    }
}

/* Six units over four ranks: two ranks have one more of an expert, the others of the next. */
static void odd_units_go_in_turn(void **state)
{
    (void)state;
    struct plan *p = make(&qwen, SPLIT_SHARDS, 4, NULL);
    for (int e = 0; e < 128; e++)
        for (int r = 0; r < 4; r++)
            assert_int_equal(neurons_of_bundle(p, 47, r, e), (r < 2) == (e % 2 == 0) ? 256 : 128);
    plan_free(p);
    p = make(&oss, SPLIT_SHARDS, 2, NULL); /* 22 units and a half: the half counts as one */
    int64_t even = 0;
    for (int e = 0; e < 32; e++)
        even += neurons_of_bundle(p, 0, 0, e) == 12 * 128;
    assert_in_range(even, 8, 24);
    plan_free(p);
}

static void stages_hold_experts_whole(void **state)
{
    (void)state;
    struct plan *p = make(&deep, SPLIT_STAGES, 2, NULL);
    const struct neuron_range *ranges;
    assert_int_equal(plan_neurons(p, 0, 0, &ranges), 1);
    assert_true(ranges->begin == 0 && ranges->end == 1500);
    assert_int_equal(plan_neurons(p, 5, 1, &ranges), 1);
    assert_true(ranges->begin == 0 && ranges->end == 16 * 200 + 300);
    assert_int_equal(plan_neurons(p, 2, 1, &ranges), 0);
    plan_free(p);
}

static void bundles_and_units_are_numbered_through(void **state)
{
    (void)state;
    const struct plan_shape dense = plan_model_shape(&deep, 1), experts = plan_model_shape(&deep, 2);
    assert_true(dense.n_experts == 0 && dense.d_ff == 1500 && dense.d_shared == 0 && dense.neuron_unit == 128);
    assert_int_equal(plan_n_bundles(&dense), 1);
    assert_int_equal(plan_n_bundles(&experts), 17);
    assert_int_equal(plan_shape_neurons(&experts), 3500);
    assert_int_equal(plan_bundle_of(&experts, 199), 0);
    assert_int_equal(plan_bundle_of(&experts, 200), 1);
    assert_int_equal(plan_bundle_of(&experts, 3199), 15);
    assert_int_equal(plan_bundle_of(&experts, 3200), 16);
    assert_int_equal(plan_bundle_of(&experts, 3499), 16); /* wider than an expert */
    assert_int_equal(plan_bundle_of(&dense, 1499), 0);
    assert_int_equal(plan_unit_end(&experts, 0), 128);
    assert_int_equal(plan_unit_end(&experts, 128), 200);
    assert_int_equal(plan_unit_end(&experts, 3200 + 256), 3500);
    assert_int_equal(plan_unit_end(&dense, 1408), 1500);
    assert_true(plan_on_unit(&experts, 400, 128) && plan_on_unit(&experts, 528, 128));
    assert_false(plan_on_unit(&experts, 384, 128));
}

/* The stage has the experts that are chosen most, the others what is left of each in equal parts. No unit is split. */
static void hot_experts_are_the_stages(void **state)
{
    (void)state;
    static float hot[128 * 768], dense[1500], shared[3500];
    const float *fired[48];
    struct plan *p;
    for (int i = 0; i < 128 * 768; i++)
        hot[i] = i / 768 % 4 == 1 ? 0.25f : 0.01f;
    for (int l = 0; l < 48; l++)
        fired[l] = hot;
    assert_int_equal(plan_make_hot(&qwen, 3, (const double[]){2, 1, 1}, fired, &p), ST_OK);
    assert_int_equal(p->layers[0].stage, 0);
    assert_false(p->layers[0].splits_units);
    assert_int_equal(plan_n_neurons(p, 0, 0), 128 * 384);
    for (int e = 0; e < 128; e++) {
        if (e % 4 == 1)
            assert_int_equal(neurons_of_bundle(p, 0, 0, e), 768);
    }
    assert_int_equal(plan_n_neurons(p, 0, 1), 128 * 192);
    assert_int_equal(plan_n_neurons(p, 47, 2), 128 * 192); /* a quarter of its own layers too */
    char *text = plan_format(p);
    plan_free(p);
    p = parse(text);
    assert_int_equal(plan_check(p, &qwen, 3), ST_OK);
    assert_true(strlen(text) < 1 << 17);
    free(text);
    plan_free(p);
    for (int i = 0; i < 1500; i++)
        dense[i] = (float)(i % 7) / 7;
    for (int i = 0; i < 3500; i++)
        shared[i] = i < 3200 ? 0.1f : 0.9f;
    for (int l = 0; l < 6; l++)
        fired[l] = l < 2 ? dense : shared;
    assert_int_equal(plan_make_hot(&deep, 2, NULL, fired, &p), ST_OK);
    assert_true(p->layers[0].splits_units && !p->layers[2].splits_units);
    assert_int_equal(neurons_of_bundle(p, 2, 0, 16), 300); /* what is shared, before all */
    assert_int_equal(plan_n_neurons(p, 5, 0) + plan_n_neurons(p, 5, 1), 3500);
    plan_free(p);
    p = NULL;
    shared[3499] = NAN;
    struct log_catcher caught;
    log_catch(&caught);
    assert_int_equal(plan_make_hot(&deep, 2, NULL, fired, &p), ST_USAGE);
    log_catch(NULL);
    assert_non_null(strstr(caught.first_error, "layer 2: neuron 3499 fires"));
}

/* ---- JSON ---- */

static void plans_are_written_and_read(void **state)
{
    (void)state;
    const struct plan_model *const models[] = {&qwen, &oss, &deep};
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        struct plan *p = make(models[m], SPLIT_BOTH, 4, (const double[]){4, 3, 2, 1});
        char *text = plan_format(p);
        struct plan *q = parse(text);
        char *again = plan_format(q);
        assert_string_equal(text, again);
        assert_int_equal(plan_check(q, models[m], 4), ST_OK);
        for (int l = 0; l < models[m]->n_layers; l++)
            assert_memory_equal(&p->layers[l].shape, &q->layers[l].shape, sizeof p->layers[l].shape);
        assert_true(strlen(text) < 64 << 10);
        free(text);
        free(again);
        plan_free(p);
        plan_free(q);
    }
}

static void refuses(const char *shape, const char *sets, const char *says)
{
    struct log_catcher caught;
    struct plan *p = NULL;
    char text[1024];
    snprintf(text, sizeof text,
             "{\"hearth_plan\": 2, \"model\": {\"architecture\": \"a\", \"layers\": 1}, \"ranks\": 1, \"holders\": "
             "[{\"rank\": 0, \"device\": \"cpu\"}], \"layers\": [{\"from\": 0, \"to\": 1, \"stage\": 0, %s, \"sets\": "
             "[%s]}]}", shape, sets);
    log_catch(&caught);
    assert_int_equal(plan_parse(text, strlen(text), "test", &p), ST_FORMAT);
    log_catch(NULL);
    if (!strstr(caught.first_error, says))
        print_error("expected '%s', got '%s'\n", says, caught.first_error);
    assert_non_null(strstr(caught.first_error, says));
}

static void wrong_plans_are_refused(void **state)
{
    (void)state;
    const char *const four =
        "\"d_ff\": 200, \"neuron_unit\": 128, \"experts\": 4, \"experts_used\": 2, \"d_shared\": 100";
    refuses(four, "{\"holder\": 0, \"neurons\": [[0, 800]]}", "sets: neuron 800 is in none of them");
    refuses(four, "{\"holder\": 0, \"neurons\": [[0, 901]]}", "neurons[0][1] is 901, expected 1 to 900");
    refuses(four, "{\"holder\": 0, \"neurons\": [[0, 256]]}, {\"holder\": 0, \"neurons\": [[256, 900]]}",
            "sets[1].neurons[0][0] is 256, expected a multiple of 128 of an expert's neurons where");
    refuses("\"d_ff\": 200, \"d_shared\": 1", "{\"holder\": 0, \"neurons\": [[0, 201]]}",
            "d_shared is 1, expected 0");
    refuses("\"d_ff\": 200, \"experts\": 4, \"experts_used\": 5", "", "experts_used is 5, expected 0 to 4");
    refuses("\"d_ff\": 2147483647, \"experts\": 2147483647", "", "experts is 2147483647, of 2147483647 neurons each");
}

static void refuses_model(const struct plan *p, const struct plan_model *m, const char *says)
{
    struct log_catcher caught;
    log_catch(&caught);
    assert_int_equal(plan_check(p, m, p->n_ranks), ST_MISMATCH);
    log_catch(NULL);
    assert_string_equal(caught.first_error, says);
}

static void other_models_are_refused(void **state)
{
    (void)state;
    struct plan *p = make(&deep, SPLIT_SHARDS, 2, NULL);
    struct plan_model m = deep;
    m.layer.n_experts = 15;
    refuses_model(p, &m, "plan: layer 2 is made for a number of experts of 16, found 15");
    m = deep;
    m.layer.n_experts_used = 4;
    refuses_model(p, &m, "plan: layer 2 is made for a number of experts for a token of 3, found 4");
    m = deep;
    m.layer.d_shared = 200;
    refuses_model(p, &m, "plan: layer 2 is made for a number of shared neurons (d_shared) of 300, found 200");
    m = deep;
    m.n_dense_layers = 1;
    refuses_model(p, &m, "plan: layer 1 is made for a number of neurons (d_ff) of 1500, found 200");
    m = deep;
    m.layer.neuron_unit = 256; /* an expert's second unit begins at neuron 128 of it */
    refuses_model(p, &m, "plan: layer 2 is cut at neuron 128, expected a multiple of 256 of an expert's neurons");
    plan_free(p);
}

/* ---- GPUs ---- */

static void units_are_counted_within_experts(void **state)
{
    (void)state;
    struct plan *p = make(&deep, SPLIT_SHARDS, 1, NULL);
    const int64_t dense = 12, experts = 16 * 2 + 3; /* units of a layer */
    assert_int_equal(plan_count_units(p, 0), 2 * dense + 4 * experts);
    bool stay[2 * 12 + 4 * 35], heads[6] = {false}, neurons[6];
    memset(neurons, true, sizeof neurons);
    for (size_t i = 0; i < sizeof stay; i++)
        stay[i] = i % 2; /* the second of each expert's two */
    assert_int_equal(plan_give(p, 0, "cuda:0", &(struct plan_gift){.heads = heads, .neurons = neurons, .units = stay}),
                     ST_OK);
    assert_int_equal(plan_n_neurons(p, 0, 1), 5 * 128 + 92);
    assert_int_equal(plan_n_neurons(p, 3, 0) + plan_n_neurons(p, 3, 1), 3500);
    assert_int_equal(plan_n_neurons(p, 2, 1), 16 * 72 + 128);
    assert_int_equal(neurons_of_bundle(p, 2, 1, 7), 72);
    plan_free(p);
    p = make(&qwen, SPLIT_BOTH, 2, NULL);
    assert_int_equal(plan_offload(p, 1, "cuda:0", 3), ST_OK);
    assert_int_equal(plan_n_neurons(p, 2, 2), 128 * 384);
    assert_int_equal(plan_n_neurons(p, 2, 1), 0);
    assert_int_equal(plan_n_neurons(p, 3, 2), 0);
    plan_free(p);
}

/* ---- what a token reads ---- */

enum { LAYERS = 3, D = 256, EXPERT = 128, EXPERTS = 16, USED = 2, SHARED = 64, DENSE = 512 };

/* A dense layer, then layers with experts; f32 weights that nobody reads. */
static void make_model(struct model *m, struct layer_weights layers[LAYERS], struct bundle *bundles)
{
    static const uint8_t somewhere;
    *m = (struct model){.layers = layers, .output = {DT_F32, 1024, D, &somewhere, "output"}};
    m->hp = (struct hparams){.n_layers = LAYERS, .d_model = D, .d_ff = EXPERTS * EXPERT + SHARED, .has_gate = true,
                             .n_vocab = 1024, .n_kv_heads = 8, .n_heads = 8, .head_dim = D / 8, .n_experts = EXPERTS,
                             .n_experts_used = USED, .d_expert = EXPERT, .d_shared = SHARED, .n_dense_layers = 1,
                             .d_dense = DENSE};
    for (int l = 0; l < LAYERS; l++) {
        const int n = l ? EXPERTS + 1 : 1;
        layers[l] = (struct layer_weights){.bundles = bundles, .n_bundles = n};
        for (int i = 0; i < n; i++) {
            const int64_t size = !l ? DENSE : i < EXPERTS ? EXPERT : SHARED;
            const struct matrix rows = {DT_F32, size, D, &somewhere, "rows"};
            *bundles++ = (struct bundle){.first = i * EXPERT, .n = size, .routed = l && i < EXPERTS, .gate = rows,
                                         .up = rows, .down = {DT_F32, D, size, &somewhere, "down"}};
        }
    }
}

static const struct plan_model costed = {.architecture = "a", .n_layers = LAYERS, .n_vocab = 1024, .n_dense_layers = 1,
                                         .d_dense = DENSE,
                                         .layer = {.d_ff = EXPERT, .neuron_unit = 128, .n_experts = EXPERTS,
                                                   .n_experts_used = USED, .d_shared = SHARED}};

/* One rank that reads 10^6 bytes a ms. */
static struct probe *slow_rank(void)
{
    struct probe *probe;
    assert_int_equal(probe_create(1, false, &probe), ST_OK);
    probe->ranks[0].n_curve = 1;
    probe->ranks[0].curve[0] = probe->ranks[0].shared_gb_per_s = 1;
    return probe;
}

static void a_token_reads_the_experts_that_it_chooses(void **state)
{
    (void)state;
    struct model model;
    struct layer_weights layers[LAYERS];
    struct bundle bundles[LAYERS * (EXPERTS + 1)];
    struct probe *probe = slow_rank();
    struct plan *p;
    make_model(&model, layers, bundles);
    const double held = 3 * 4 * D * (DENSE + 2 * (EXPERTS * EXPERT + SHARED)) + 4 * D * 1024;
    const double read = 3 * 4 * D * (DENSE + 2 * (USED * EXPERT + SHARED)) + 4 * D * 1024;
    for (int fits = 0; fits < 2; fits++) {
        const struct cost_model m = {.model = &model};
        probe->ranks[0].memory_bytes = (uint64_t)held - !fits;
        p = make(&costed, SPLIT_SHARDS, 1, NULL);
        const struct cost cost = cost_of_plan(probe, &m, p);
        assert_true(fabs(cost_ms(&cost) * 1e6 / read - 1) < 1e-9);
        assert_int_equal(cost.fits, fits);
        plan_free(p);
    }
    assert_int_equal(cost_x_bytes(&model), 64 + 4 * D + 8 * USED);
    probe_free(probe);
}

/* Tokens together read an expert once that several choose, and all else once. */
static void tokens_of_a_step_read_what_any_of_them_chooses(void **state)
{
    (void)state;
    struct model model;
    struct layer_weights layers[LAYERS];
    struct bundle bundles[LAYERS * (EXPERTS + 1)];
    struct probe *probe = slow_rank();
    make_model(&model, layers, bundles);
    struct plan *p = make(&costed, SPLIT_SHARDS, 1, NULL);
    for (int n = 1; n <= 4096; n *= 8) {
        const double of_experts = EXPERTS * EXPERT * (1 - pow(1 - (double)USED / EXPERTS, n));
        const double read = 3 * 4 * D * (DENSE + 2 * (of_experts + SHARED)) + 4 * D * 1024;
        const struct cost_model m = {.model = &model, .tokens = n};
        const struct cost cost = cost_of_plan(probe, &m, p);
        assert_true(fabs(cost_read_bytes(&model, p, 0, n) / read - 1) < 1e-9);
        assert_true(fabs(cost_ms(&cost) * 1e6 / read - 1) < 1e-9);
    }
    plan_free(p);
    probe_free(probe);
}

/* What a token reads of an expert is as much as it is chosen, and a GPU gets those that are chosen most. */
static void a_gpu_gets_the_experts_that_are_chosen_most(void **state)
{
    (void)state;
    struct model model;
    struct layer_weights layers[LAYERS];
    struct bundle bundles[LAYERS * (EXPERTS + 1)];
    float chosen[LAYERS * EXPERTS] = {0};
    make_model(&model, layers, bundles);
    for (int i = EXPERTS; i < LAYERS * EXPERTS; i++)
        chosen[i] = i % EXPERTS % 5 == 2 ? 0.5f : 0.02f;
    const double neuron = 3 * 4 * D, first = neuron * (DENSE + 2 * SHARED) + 4 * D * 1024; /* what all tokens read */
    const struct cost_model m = {.model = &model, .chosen = chosen};
    struct plan *p = make(&costed, SPLIT_SHARDS, 1, NULL);
    assert_int_equal(gpu_benefit_give(NULL, &m, p, 0, "cuda:0", first + 6 * neuron * EXPERT), ST_OK);
    assert_int_equal(plan_n_holders(p), 2);
    for (int l = 1; l < LAYERS; l++)
        for (int e = 0; e < EXPERTS; e++)
            assert_int_equal(neurons_of_bundle(p, l, 1, e), e % 5 == 2 ? EXPERT : 0);
    plan_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_are_cut_by_shares),
        cmocka_unit_test(odd_units_go_in_turn),
        cmocka_unit_test(stages_hold_experts_whole),
        cmocka_unit_test(bundles_and_units_are_numbered_through),
        cmocka_unit_test(hot_experts_are_the_stages),
        cmocka_unit_test(plans_are_written_and_read),
        cmocka_unit_test(wrong_plans_are_refused),
        cmocka_unit_test(other_models_are_refused),
        cmocka_unit_test(units_are_counted_within_experts),
        cmocka_unit_test(a_token_reads_the_experts_that_it_chooses),
        cmocka_unit_test(a_gpu_gets_the_experts_that_are_chosen_most),
        cmocka_unit_test(tokens_of_a_step_read_what_any_of_them_chooses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
