/* Ranks with several devices: whatever they hold, the logits are the bits of one rank with one device. */
#include "tests/engine/made_neurons.h"

#include "base/log.h"

enum { PROMPT = 45 };

#define CPUS1 "{\"rank\": 0, \"device\": \"cpu\"}"
#define CPUS2 CPUS1 ", {\"rank\": 1, \"device\": \"cpu\"}"
#define SECOND_CPU(rank) "{\"rank\": " #rank ", \"device\": \"cpu:1\"}"
#define SECOND(rank) ", " SECOND_CPU(rank)
#define SECOND_HOME(rank) ", \"stages\": [" SECOND_CPU(rank) "]"
#define LAYERS(from, to, stage) "{\"from\": " #from ", \"to\": " #to ", \"stage\": " #stage ", \"d_ff\": 672, "
#define SET(holder, neurons) "{\"holder\": " #holder ", \"neurons\": [" neurons "]}"

/* The first made model: 4 layers, 672 neurons, 2 KV heads; 300 rows. */
struct cut {
    int ranks;
    const char *holders, *layers, *more;
};

static const struct cut cuts[] = {
    /* heads, neurons and rows between the two */
    {1, CPUS1 SECOND(0), LAYERS(0, 4, 0) "\"kv_heads\": 2, \"heads\": [0, 1, 2], \"sets\": ["
        SET(0, "[0, 256]") ", " SET(1, "[256, 672]") "]}", ", \"rows\": [0, 128, 300]"},
    /* the home of x has nothing else */
    {1, CPUS1 SECOND(0), LAYERS(0, 4, 0) "\"kv_heads\": 2, \"heads\": [0, 0, 2], \"sets\": [" SET(1, "[0, 672]") "]}",
     ", \"rows\": [0, 0, 300]"},
    /* layers cut in different ways; a holder has two sets, and neurons on both sides of another's */
    {1, CPUS1 SECOND(0), LAYERS(0, 2, 0) "\"kv_heads\": 2, \"heads\": [0, 2, 2], \"sets\": ["
        SET(0, "[0, 128]") ", " SET(1, "[128, 384]") ", " SET(0, "[384, 672]") "]}, "
        LAYERS(2, 4, 0) "\"kv_heads\": 2, \"heads\": [0, 1, 2], \"sets\": ["
        SET(1, "[0, 128], [256, 672]") ", " SET(0, "[128, 256]") "]}", ""},
    /* two ranks of two devices: asked */
    {2, CPUS2 SECOND(0) SECOND(1), LAYERS(0, 4, 0) "\"kv_heads\": 2, \"heads\": [0, 0, 1, 1, 2], \"sets\": ["
        SET(0, "[0, 128]") ", " SET(1, "[128, 256]") ", " SET(2, "[256, 384]") ", " SET(3, "[384, 672]") "]}",
     ", \"rows\": [0, 32, 64, 128, 300]"},
    /* two stages, each asking the other's */
    {2, CPUS2 SECOND(1) SECOND(0), LAYERS(0, 2, 0) "\"kv_heads\": 2, \"heads\": [0, 1, 1, 2, 2], \"sets\": ["
        SET(2, "[0, 128]") ", " SET(1, "[128, 256]") ", " SET(3, "[256, 672]") "]}, "
        LAYERS(2, 4, 1) "\"kv_heads\": 2, \"sets\": [" SET(2, "[0, 640]") ", " SET(0, "[640, 672]") "]}",
     ", \"rows\": [0, 16, 64, 300, 300]"},
    /* the residual stream on both */
    {2, CPUS2 SECOND(0) SECOND(1), LAYERS(0, 4, 1) "\"kv_heads\": 2, \"heads\": [0, 0, 1, 1, 2], \"sets\": ["
        SET(0, "[0, 128]") ", " SET(1, "[128, 256]") ", " SET(2, "[256, 384]") ", " SET(3, "[384, 672]") "]}",
     ", \"rows\": [0, 32, 64, 128, 300], \"residual\": \"all\""},
    /* the second one is the home of x, and has all, half of it, or nothing else; what is not cut goes with it */
    {1, CPUS1 SECOND(0), LAYERS(0, 4, 0) "\"sets\": [" SET(1, "[0, 672]") "]}", SECOND_HOME(0)},
    {1, CPUS1 SECOND(0), LAYERS(0, 2, 0) "\"kv_heads\": 2, \"heads\": [0, 0, 2], \"sets\": [" SET(1, "[0, 672]") "]}, "
        LAYERS(2, 4, 0) "\"kv_heads\": 2, \"heads\": [0, 2, 2], \"sets\": [" SET(0, "[0, 672]") "]}",
     ", \"rows\": [0, 300, 300]" SECOND_HOME(0)},
    {1, CPUS1 SECOND(0), LAYERS(0, 4, 0) "\"kv_heads\": 2, \"heads\": [0, 2, 2], \"sets\": [" SET(0, "[0, 672]") "]}",
     ", \"rows\": [0, 128, 300]" SECOND_HOME(0)},
    /* such a rank asks, and is asked */
    {2, CPUS2 SECOND(1) SECOND(0), LAYERS(0, 2, 0) "\"kv_heads\": 2, \"heads\": [0, 1, 1, 2, 2], \"sets\": ["
        SET(3, "[0, 128]") ", " SET(1, "[128, 256]") ", " SET(2, "[256, 672]") "]}, "
        LAYERS(2, 4, 1) "\"kv_heads\": 2, \"sets\": [" SET(3, "[0, 640]") ", " SET(0, "[640, 672]") "]}",
     ", \"rows\": [0, 16, 64, 300, 300], \"stages\": [" SECOND_CPU(1) ", " SECOND_CPU(0) "]"},
    /* one of two that have the residual stream has it on its second device */
    {2, CPUS2 SECOND(0) SECOND(1), LAYERS(0, 4, 1) "\"kv_heads\": 2, \"heads\": [0, 0, 1, 1, 2], \"sets\": ["
        SET(0, "[0, 128]") ", " SET(1, "[128, 256]") ", " SET(2, "[256, 384]") ", " SET(3, "[384, 672]") "]}",
     ", \"rows\": [0, 32, 64, 128, 300], \"residual\": \"all\"" SECOND_HOME(0)},
    /* and has the down projections of another's neurons there */
    {2, CPUS2 SECOND(0), LAYERS(0, 4, 0) "\"down\": \"stage\", \"sets\": ["
        SET(0, "[0, 128]") ", " SET(1, "[128, 256]") ", " SET(2, "[256, 672]") "]}", SECOND_HOME(0)},
    /* down projections on the stage, of one that has them on its own second device */
    {2, CPUS2 SECOND(0), LAYERS(0, 4, 0) "\"down\": \"stage\", \"sets\": ["
        SET(0, "[0, 128]") ", " SET(1, "[128, 256]") ", " SET(2, "[256, 672]") "]}", ""},
    /* the same of an owner whose neurons are on its second device */
    {2, CPUS2 SECOND(1), LAYERS(0, 2, 0) "\"down\": \"stage\", \"sets\": ["
        SET(0, "[0, 128]") ", " SET(2, "[128, 672]") "]}, "
        LAYERS(2, 4, 0) "\"down\": \"stage\", \"sets\": [" SET(0, "[0, 384]") ", " SET(1, "[384, 672]") "]}", ""},
};

static void write_plan(const struct cut *c, char path[MADE_NAME])
{
    char text[2048];
    const int n = snprintf(text, sizeof text,
                           "{\"hearth_plan\": 2, \"model\": {\"architecture\": \"llama\", \"layers\": 4}, \"ranks\": "
                           "%d, \"holders\": [%s], \"layers\": [%s]%s}", c->ranks, c->holders, c->layers, c->more);
    assert_true(n < (int)sizeof text);
    made_file_of(text, (size_t)n, path);
}

static void cut_equals(const struct cluster_options *with, const struct cut *c, const struct trace *expected,
                       const struct job *j, int i)
{
    char plan[MADE_NAME];
    write_plan(c, plan);
    struct cluster_options o = *with;
    o.plan = plan;
    o.ranks = c->ranks;
    must_equal(expected, &o, j);
    vary(&o, i);
    must_equal(expected, &o, j);
    unlink(plan);
}

static void test_cuts(void **state)
{
    (void)state;
    int32_t prompt[PROMPT];
    struct job j = {prompt, PROMPT, SANITIZED ? 3 : 8, SANITIZED ? 3 : 32};
    char model[MADE_NAME];
    fill_prompt(prompt, PROMPT);
    made_model_write(&made_quantised, model);
    struct trace expected = reference(model, &j);
    const struct cluster_options o = plain_options(model);
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++)
        cut_equals(&o, &cuts[i], &expected, &j, 2 * (int)i);
    trace_free(&expected);
    unlink(model);
}

/* A page is as large as on one device, and a rank's budget is for all of its devices. */
static void test_kv_memory(void **state)
{
    (void)state;
    const struct made_model *m = &made_quantised;
    const uint64_t page = (uint64_t)m->layers * m->kv_heads * m->head_dim * 64 * 2 * sizeof(uint16_t);
    char model[MADE_NAME], plan[MADE_NAME];
    made_model_write(m, model);
    struct cluster_options o = plain_options(model);
    o.plan = plan;
    o.n_sequences = 3;
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        write_plan(&cuts[i], plan);
        o.ranks = cuts[i].ranks;
        o.kv_budget = o.ranks == 1 ? 5 * page + page / 2 : 0;
        struct cluster *c = start(&o);
        assert_int_equal(cluster_page_bytes(c), page);
        assert_int_equal(session_schedule(cluster_session(c)).pages, o.ranks == 1 ? 5 : 3 * 4);
        cluster_stop(c);
        unlink(plan);
    }
    unlink(model);
}

/* Every device decides which of its neurons fire as one device decides for all. */
static void test_sparse(void **state)
{
    (void)state;
    static const struct {
        enum sparse_mode mode;
        enum predictor predictor;
        struct made_recipe recipe;
    } modes[] = {
        {SPARSE_EXACT, PREDICTOR_AUTO, {.activation = ACT_RELU}},
        {SPARSE_PREDICTED, PREDICTOR_PLANES, {.activation = ACT_RELU, .bound = 0.2f}},
        {SPARSE_PREDICTED, PREDICTOR_MLP, {.activation = ACT_RELU, .mlp = 0}},
        {SPARSE_THRESHOLD, PREDICTOR_AUTO, {.activation = ACT_SILU, .skip = 0.05f}},
    };
    int32_t prompt[PROMPT];
    const struct job j = {prompt, PROMPT, 2, 0};
    char model[MADE_NAME], neurons[MADE_NAME];
    fill_prompt(prompt, PROMPT);
    made_model_write(&made_quantised, model);
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        struct made_recipe r = modes[m].recipe;
        r.fc1 = r.fc2 = DT_Q8_0;
        made_neurons_write(model, &made_quantised, &r, neurons);
        struct cluster_options o = plain_options(model);
        o.activation = modes[m].mode == SPARSE_THRESHOLD ? NULL : "relu";
        o.neurons = neurons;
        o.sparse = modes[m].mode;
        o.predictor = modes[m].predictor;
        struct trace expected = run(&o, &j);
        for (size_t i = SANITIZED ? m : 0; i < sizeof cuts / sizeof *cuts; i += SANITIZED ? 4 : 1)
            cut_equals(&o, &cuts[i], &expected, &j, 2 * (int)i);
        trace_free(&expected);
        unlink(neurons);
    }
    unlink(model);
}

/* Sets that split units decide the bits; who holds them does not. */
static void test_split_sets(void **state)
{
    (void)state;
    static const char ranges[2][40] = {"[0, 70], [300, 333]", "[70, 300], [333, 672]"};
    static const struct {
        int ranks, first, second; /* holders of the sets */
        const char *holders;
    } ways[] = {{2, 0, 1, CPUS2}, {1, 0, 1, CPUS1 SECOND(0)}, {1, 0, 0, CPUS1}, {1, 1, 1, CPUS1 SECOND(0)},
                {2, 1, 0, CPUS2}, {2, 1, 2, CPUS2 SECOND(1)}, {2, 1, 1, CPUS2}};
    int32_t prompt[PROMPT];
    struct job j = {prompt, PROMPT, 3, 3};
    struct trace expected = {0};
    char model[MADE_NAME];
    fill_prompt(prompt, PROMPT);
    made_model_write(&made_quantised, model);
    const struct cluster_options plain = plain_options(model);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        char layers[512], plan[MADE_NAME];
        snprintf(layers, sizeof layers, LAYERS(0, 4, 0) "\"units\": \"split\", \"sets\": ["
                 "{\"holder\": %d, \"neurons\": [%s]}, {\"holder\": %d, \"neurons\": [%s]}]}", ways[i].first, ranges[0],
                 ways[i].second, ranges[1]);
        const struct cut c = {ways[i].ranks, ways[i].holders, layers, ""};
        if (i) {
            cut_equals(&plain, &c, &expected, &j, (int)i);
            continue;
        }
        write_plan(&c, plan);
        struct cluster_options o = plain;
        o.plan = plan;
        o.ranks = c.ranks;
        expected = run(&o, &j);
        unlink(plan);
    }
    trace_free(&expected);
    unlink(model);
}

static void refused(const struct cut *c, status expected, const char *named)
{
    char model[MADE_NAME], plan[MADE_NAME];
    struct cluster *cluster = NULL;
    struct log_catcher caught;
    made_model_write(&made_quantised, model);
    write_plan(c, plan);
    struct cluster_options o = plain_options(model);
    o.plan = plan;
    o.ranks = c->ranks;
    log_catch(&caught);
    assert_int_equal(cluster_start(&o, &cluster), expected);
    log_catch(NULL);
    if (!strstr(caught.first_error, named))
        fail_msg("\"%s\" does not say \"%s\"", caught.first_error, named);
    unlink(plan);
    unlink(model);
}

static void test_refused(void **state)
{
    (void)state;
    refused(&(struct cut){1, CPUS1 ", {\"rank\": 0, \"device\": \"cuda:0\"}",
                          LAYERS(0, 4, 0) "\"sets\": [" SET(1, "[0, 672]") "]}", ""}, ST_UNSUPPORTED, "cuda:0");
    refused(&(struct cut){2, CPUS2 SECOND(1), LAYERS(0, 4, 0) "\"down\": \"stage\", \"sets\": ["
                          SET(1, "[0, 256]") ", " SET(2, "[256, 672]") "]}", ""}, ST_UNSUPPORTED, "down projection");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_kv_memory),
        cmocka_unit_test(test_sparse),
        cmocka_unit_test(test_split_sets),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
