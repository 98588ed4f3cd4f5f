/* Layers with experts over ranks and their devices: whoever has whichever of an expert's neurons, the logits are the
 * bits of one rank with one device. */
#include "tests/engine/trace.h"
#include "tests/engine/stand_in.h"

#include "base/log.h"
#include "device/held_neurons.h"
#include "node/planning.h"
#include "tools/synth/synth.h"
#include "worker/holders.h"

enum { LAYERS = 3, PROMPT = 37 };

/* Seven experts of 352 neurons, units of 128, 128 and 96; a token uses three. */
static const struct shape shape = {"experts", QWEN3MOE, LAYERS, 256, 352, 4, 2, 64, MADE_VOCABULARY, 512, 10000, false,
                                   0, 7, 3};

static void write_model(const char *type, char path[MADE_NAME])
{
    struct synth_file file;
    made_file_of("", 0, path);
    const struct synth_options o = {.shape = &shape, .type = weight_type_of(type), .layers = LAYERS, .seed = 3,
                                    .path = path};
    assert_int_equal(synth_write(&o, &file), ST_OK);
}

static void test_shares(void **state)
{
    (void)state;
    static const struct {
        int ranks, split, residual;
        const char *shares;
    } ways[] = {
        {2, SPLIT_SHARDS, 0, NULL},     {2, SPLIT_SHARDS, 1, "5,2"},   {3, SPLIT_SHARDS, 0, "1,7,2"},
        {3, SPLIT_BOTH, 0, "3,2,1"},    {4, SPLIT_SHARDS, 1, NULL},    {4, SPLIT_SHARDS, 1, "9,1,1,5"},
        {2, SPLIT_STAGES, 0, "1,2"},    {4, SPLIT_BOTH, 0, "1,0.01,2,1"},
    };
    static const char *const types[] = {"q4_0", "q8_0", "mxfp4"};
    int32_t prompt[PROMPT];
    const struct job j = {prompt, PROMPT, SANITIZED ? 3 : 6, SANITIZED ? 3 : 12};
    char model[MADE_NAME];
    fill_prompt(prompt, PROMPT);
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        write_model(types[t], model);
        struct trace expected = reference(model, &j);
        for (size_t i = SANITIZED ? t : 0; i < sizeof ways / sizeof *ways; i += SANITIZED ? 3 : 1) {
            struct cluster_options o = plain_options(model);
            o.ranks = ways[i].ranks;
            o.split = ways[i].split;
            o.residual = ways[i].residual;
            o.shares = ways[i].shares;
            vary(&o, (int)(i + t));
            must_equal(&expected, &o, &j);
        }
        trace_free(&expected);
        unlink(model);
    }
}

/* ---- plans by hand ---- */

#define CPU(rank) "{\"rank\": " #rank ", \"device\": \"cpu\"}"
#define SECOND(rank) ", {\"rank\": " #rank ", \"device\": \"cpu:1\"}"
#define RUN(from, to) "{\"from\": " #from ", \"to\": " #to ", \"stage\": 0, \"d_ff\": 352, \"experts\": 7, " \
                      "\"experts_used\": 3, "
#define SET(holder, neurons) "{\"holder\": " #holder ", \"neurons\": [" neurons "]}"

struct cut {
    int ranks;
    const char *holders, *layers;
};

static void write_plan(const struct cut *c, char path[MADE_NAME])
{
    char text[2048];
    const int n = snprintf(text, sizeof text,
                           "{\"hearth_plan\": 2, \"model\": {\"architecture\": \"qwen3moe\", \"layers\": 3}, "
                           "\"ranks\": %d, \"holders\": [%s], \"layers\": [%s]}", c->ranks, c->holders, c->layers);
    assert_true(n < (int)sizeof text);
    made_file_of(text, (size_t)n, path);
}

static void test_cuts(void **state)
{
    (void)state;
    static const struct cut cuts[] = {
        /* parts of some experts, whole ones, several at once */
        {1, CPU(0) SECOND(0), RUN(0, 3) "\"sets\": [" SET(0, "[0, 128], [352, 1056], [2240, 2464]") ", "
            SET(1, "[128, 352], [1056, 2240]") "]}"},
        /* whole experts, dealt out; then none for the home of x */
        {2, CPU(0) ", " CPU(1), RUN(0, 1) "\"sets\": [" SET(0, "[0, 352], [704, 1056], [1408, 2464]") ", "
            SET(1, "[352, 704], [1056, 1408]") "]}, " RUN(1, 3) "\"sets\": [" SET(1, "[0, 2464]") "]}"},
        /* two devices of each of two ranks; a holder has two sets */
        {2, CPU(0) ", " CPU(1) SECOND(0) SECOND(1), RUN(0, 3) "\"sets\": [" SET(2, "[0, 480]") ", "
         SET(1, "[480, 832]") ", "
            SET(3, "[832, 1184]") ", " SET(0, "[1184, 2368]") ", " SET(2, "[2368, 2464]") "]}"},
    };
    int32_t prompt[PROMPT];
    const struct job j = {prompt, PROMPT, SANITIZED ? 3 : 6, 3};
    char model[MADE_NAME], plan[MADE_NAME];
    fill_prompt(prompt, PROMPT);
    write_model("q4_0", model);
    struct trace expected = reference(model, &j);
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        struct cluster_options o = plain_options(model);
        write_plan(&cuts[i], plan);
        o.plan = plan;
        o.ranks = cuts[i].ranks;
        must_equal(&expected, &o, &j);
        vary(&o, (int)i);
        must_equal(&expected, &o, &j);
        unlink(plan);
    }
    trace_free(&expected);
    unlink(model);
}

/* A plan by heat takes no unit of an expert apart, so it changes nothing either. */
static void test_hot(void **state)
{
    (void)state;
    float fired[7 * 352];
    const float *of_layers[LAYERS] = {fired, fired, fired};
    int32_t prompt[PROMPT];
    const struct job j = {prompt, PROMPT, 3, 3};
    char path[MADE_NAME], plan_path[MADE_NAME];
    struct model *m;
    struct plan_model model;
    struct plan *p;
    for (int i = 0; i < 7 * 352; i++)
        fired[i] = (float)(i * 31 % 97) / 97;
    fill_prompt(prompt, PROMPT);
    write_model("q8_0", path);
    assert_int_equal(model_load(path, &m), ST_OK);
    plan_model_of(m, &model);
    assert_int_equal(plan_make_hot(&model, 3, (const double[]){3, 1, 2}, of_layers, &p), ST_OK);
    char *text = plan_format(p);
    made_file_of(text, strlen(text), plan_path);
    struct trace expected = reference(path, &j);
    struct cluster_options o = plain_options(path);
    o.plan = plan_path;
    o.ranks = 3;
    must_equal(&expected, &o, &j);
    trace_free(&expected);
    free(text);
    plan_free(p);
    model_free(m);
    unlink(plan_path);
    unlink(path);
}

/* ---- a GPU, for which the CPU stands in ---- */

static struct cluster_options gpu_options(const char *model, enum devices_wanted device)
{
    struct cluster_options o = plain_options(model);
    setenv("STAND_IN_GPUS", "1", 1);
    setenv("STAND_IN_FREE", "1073741824", 1);
    setenv("STAND_IN_CAPABILITY", "90", 1);
    o.device = device;
    o.gpu_layers = -1;
    o.plugin_dir = STAND_IN_GPU;
    return o;
}

/* Layers, or what of their experts fits. */
static void test_gpu(void **state)
{
    (void)state;
    int32_t prompt[PROMPT];
    const struct job j = {prompt, PROMPT, 2, 3};
    char model[MADE_NAME];
    fill_prompt(prompt, PROMPT);
    write_model("q4_0", model);
    struct trace expected = reference(model, &j);
    struct cluster_options o = gpu_options(model, DEVICES_AUTO);
    for (int ranks = 1; ranks <= 2; ranks++) {
        o.ranks = ranks;
        o.gpu_layers = -1;
        o.vram_budget = 0;
        must_equal(&expected, &o, &j);
        const unsigned all = stand_in_parts();
        o.gpu_layers = 2;
        must_equal(&expected, &o, &j);
        const unsigned two = stand_in_parts();
        assert_true(two > 0 && two < all);
        o.gpu_layers = -1;
        o.vram_budget = 9 << 20;
        must_equal(&expected, &o, &j);
        const unsigned some = stand_in_parts();
        assert_true(some > 0 && some <= all);
    }
    trace_free(&expected);
    unlink(model);
}

/* A GPU of whatever has none of something: the CPU does it all, unless somebody insists on the GPU. */
static void test_gpu_that_lacks(void **state)
{
    (void)state;
    int32_t prompt[PROMPT];
    const struct job j = {prompt, PROMPT, 2, 3};
    static const struct cut insists = {1, CPU(0) ", {\"rank\": 0, \"device\": \"cuda:0\"}",
                                       RUN(0, 3) "\"sets\": [" SET(1, "[0, 2464]") "]}"};
    char model[MADE_NAME], plan[MADE_NAME];
    struct log_catcher caught;
    fill_prompt(prompt, PROMPT);
    write_model("q4_0", model);
    write_plan(&insists, plan);
    struct trace expected = reference(model, &j);
    setenv("STAND_IN_LACKS", "gated delta nets", 1);
    for (int ranks = 1; ranks <= 2; ranks++) {
        struct cluster_options o = gpu_options(model, DEVICES_AUTO);
        o.ranks = ranks;
        must_equal(&expected, &o, &j);
        o.gpu_layers = 2;
        must_equal(&expected, &o, &j);
        assert_int_equal(stand_in_parts(), 0);
        for (int how = 0; how < 2; how++) { /* an option, a plan */
            struct cluster *c = NULL;
            o = gpu_options(model, how ? DEVICES_AUTO : DEVICES_CUDA);
            o.ranks = how ? 1 : ranks;
            o.plan = how ? plan : NULL;
            log_catch(&caught);
            assert_int_equal(cluster_start(&o, &c), ST_UNSUPPORTED);
            log_catch(NULL);
            assert_non_null(strstr(caught.first_error, "a GPU does not compute gated delta nets"));
        }
    }
    unsetenv("STAND_IN_LACKS");
    trace_free(&expected);
    unlink(plan);
    unlink(model);
}

/* Sets that split units decide the bits; who holds them does not. */
static void test_split_sets(void **state)
{
    (void)state;
    static const struct cut ways[] = {
        {2, CPU(0) ", " CPU(1), RUN(0, 3) "\"units\": \"split\", \"sets\": [" SET(0, "[0, 70], [300, 1000]") ", "
            SET(1, "[70, 300], [1000, 2464]") "]}"},
        {1, CPU(0) SECOND(0), RUN(0, 3) "\"units\": \"split\", \"sets\": [" SET(1, "[0, 70], [300, 1000]") ", "
            SET(0, "[70, 300], [1000, 2464]") "]}"},
        {1, CPU(0), RUN(0, 3) "\"units\": \"split\", \"sets\": [" SET(0, "[0, 70], [300, 1000]") ", "
            SET(0, "[70, 300], [1000, 2464]") "]}"},
    };
    int32_t prompt[PROMPT];
    const struct job j = {prompt, PROMPT, 3, 3};
    char model[MADE_NAME], plan[MADE_NAME];
    struct trace expected = {0};
    fill_prompt(prompt, PROMPT);
    write_model("q4_0", model);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct cluster_options o = plain_options(model);
        write_plan(&ways[i], plan);
        o.plan = plan;
        o.ranks = ways[i].ranks;
        if (i == 0)
            expected = run(&o, &j);
        vary(&o, (int)i);
        must_equal(&expected, &o, &j);
        unlink(plan);
    }
    trace_free(&expected);
    unlink(model);
}

/* Neurons that a rank has of an expert, of whichever layer it has most of any. */
static int64_t widest_part(const struct plan *p, int rank)
{
    int64_t most = 0;
    for (int i = 0; i < LAYERS * (int)shape.experts; i++) {
        const struct neuron_range *ranges, expert = plan_bundle(&p->layers[0].shape, i / LAYERS);
        int64_t part = 0;
        for (int n = plan_neurons(p, i % LAYERS, rank, &ranges); n > 0; n--) {
            const int32_t begin = ranges[n - 1].begin > expert.begin ? ranges[n - 1].begin : expert.begin;
            const int32_t end = ranges[n - 1].end < expert.end ? ranges[n - 1].end : expert.end;
            part += begin < end ? end - begin : 0;
        }
        most = part > most ? part : most;
    }
    return most;
}

/* What a token needs at most: of the experts that it uses as much as of the widest part of any. */
static void test_widest(void **state)
{
    (void)state;
    char path[MADE_NAME];
    struct model *m;
    struct plan_model model;
    struct plan *p;
    write_model("q4_0", path);
    assert_int_equal(model_load(path, &m), ST_OK);
    plan_model_of(m, &model);
    for (int n_ranks = 1; n_ranks <= 3; n_ranks += 2) {
        assert_int_equal(plan_make(&model, SPLIT_SHARDS, n_ranks, NULL, &p), ST_OK);
        for (int r = 0; r < n_ranks; r++) {
            const struct device_shape of = device_shape(m);
            struct arena dry = {0};
            struct held_neurons held = {0};
            struct shard *shard;
            assert_int_equal(shard_new(p, &of, r, 0, &shard), ST_OK);
            const struct device_options o = {.model = m, .shard = shard, .n_batch = 1};
            const struct laying to = {.arena = &dry, .o = &o, .unit = model_neuron_unit(m)};
            assert_int_equal(held_neurons_new(&o, &held), ST_OK);
            for (int l = 0; l < LAYERS; l++)
                held_neurons_lay(&to, &held, l);
            const struct widths widest = held_neurons_widest(&o, &held);
            assert_int_equal(widest.neurons, shape.experts_used * widest_part(p, r));
            assert_int_equal(widest.slots, widest.neurons); /* units are of whole blocks of 32 */
            held_neurons_free(&o, &held);
            shard_free(shard);
        }
        plan_free(p);
    }
    model_free(m);
    unlink(path);
}

static void test_refused(void **state)
{
    (void)state;
    struct cluster_options o;
    struct cluster *c = NULL;
    struct log_catcher caught;
    char model[MADE_NAME];
    write_model("q4_0", model);
    o = plain_options(model);
    o.ranks = 2;
    o.residual = 0;
    o.down_at_stage = true;
    log_catch(&caught);
    assert_int_equal(cluster_start(&o, &c), ST_UNSUPPORTED);
    log_catch(NULL);
    assert_non_null(strstr(caught.first_error, "down projections of experts"));
    unlink(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_hot),
        cmocka_unit_test(test_gpu),
        cmocka_unit_test(test_gpu_that_lacks),
        cmocka_unit_test(test_split_sets),
        cmocka_unit_test(test_widest),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
