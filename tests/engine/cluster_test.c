/* Law 3, and more: the logits are the same bits for every plan, number of ranks, threads and tokens of a batch, and for
 * every table of kernels. */
#include "tests/engine/trace.h"

/* Every `step`-th of the ways, from the first-th on. Steps have no factor in common with what vary() counts by. */
static void sweep(const char *model, const struct job *j, int most_ranks, int first, int step)
{
    static const char *const shares[] = {NULL, "3", "3,1", "1,5,2", "2,1,1,4"};
    struct trace expected = reference(model, j);
    int i = step - first % step;
    for (int ranks = 1; ranks <= most_ranks; ranks++) {
        for (int split = SPLIT_STAGES; split <= SPLIT_BOTH; split++) {
            for (int way = 0; way < (split == SPLIT_SHARDS ? 4 : 2); way++, i++) {
                struct cluster_options o = plain_options(model);
                o.ranks = ranks;
                o.split = split;
                o.shares = way % 2 ? shares[ranks] : NULL;
                o.residual = way / 2;
                vary(&o, i);
                if (i % step == 0)
                    must_equal(&expected, &o, j);
            }
        }
    }
    trace_free(&expected);
}

enum { PROMPT = THREAD_SANITIZED ? 15 : 45, TEXT = 40 /* it ends on another page than the prompt */ };

static void test_made_models(void **state)
{
    (void)state;
    static const struct made_model *const models[] = {&made_quantised, &made_three, &made_pairs, &made_mixed,
                                                       &made_k};
    int32_t prompt[PROMPT];
    fill_prompt(prompt, PROMPT);
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        struct job j = {prompt, PROMPT, i || SANITIZED ? 6 : 16, i || SANITIZED ? 6 : TEXT};
        char path[MADE_NAME];
        made_model_write(models[i], path);
        sweep(path, &j, 4, (int)i, SANITIZED || i ? 7 : 1);
        unlink(path);
    }
}

static void test_tiny_models(void **state)
{
    (void)state;
    int32_t prompt[PROMPT];
    fill_prompt(prompt, PROMPT);
    for (int m = 0; tiny_model(m); m += SANITIZED ? 6 : 1) {
        struct job j = {prompt, PROMPT, 3, 3};
        char path[512];
        snprintf(path, sizeof path, "%s", tiny_model(m));
        sweep(path, &j, 3, m, 7);
    }
}

/* Each setting by itself, with one rank and two. */
static void test_settings(void **state)
{
    (void)state;
    static const uint32_t batches[] = {1, 2, 7, 16, 33, 256};
    int32_t prompt[PROMPT];
    struct job j = {prompt, PROMPT, 2, 0};
    char path[MADE_NAME];
    fill_prompt(prompt, PROMPT);
    made_model_write(&made_quantised, path);
    struct trace expected = reference(path, &j);
    for (int ranks = 1; ranks <= 2; ranks++) {
        struct cluster_options o = plain_options(path);
        o.ranks = ranks;
        o.residual = ranks > 1;
        for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
            o.n_batch = batches[i];
            must_equal(&expected, &o, &j);
        }
        for (o.threads = 2; o.threads <= 5; o.threads++)
            must_equal(&expected, &o, &j);
        o.threads = 1;
        for (int i = 0; kernels_available(i); i++) {
            o.kernels = kernels_available(i)->name;
            must_equal(&expected, &o, &j);
            must_equal(&expected, &o, &j); /* again */
        }
        o.kernels = NULL;
        o.n_ctx = 131; /* the caches lie otherwise */
        must_equal(&expected, &o, &j);
    }
    trace_free(&expected);
    unlink(path);
}

/* Plans that no option makes, for the first made model: 4 layers, 672 neurons, 2 KV heads; 300 rows. */
static const struct {
    int ranks;
    const char *layers, *more;
} plans[] = {
    /* rank 1 does nothing at all */
    {3, "{\"from\": 0, \"to\": 4, \"stage\": 0, \"neurons\": [0, 256, 256, 672]}", ""},
    /* rank 0 only coordinates; the stages go down */
    {3, "{\"from\": 0, \"to\": 2, \"stage\": 2, \"neurons\": [0, 0, 0, 672]},"
        "{\"from\": 2, \"to\": 4, \"stage\": 1, \"neurons\": [0, 0, 640, 672]}", ""},
    /* the first stage is not rank 0, the last one is */
    {2, "{\"from\": 0, \"to\": 3, \"stage\": 1, \"neurons\": [0, 0, 672]},"
        "{\"from\": 3, \"to\": 4, \"stage\": 0, \"neurons\": [0, 128, 672]}", ""},
    /* no stage holds a neuron of its own layers: everybody asks everybody */
    {4, "{\"from\": 0, \"to\": 1, \"stage\": 3, \"neurons\": [0, 128, 384, 672, 672]},"
        "{\"from\": 1, \"to\": 2, \"stage\": 0, \"neurons\": [0, 0, 128, 256, 672]},"
        "{\"from\": 2, \"to\": 3, \"stage\": 2, \"neurons\": [0, 512, 640, 640, 672]},"
        "{\"from\": 3, \"to\": 4, \"stage\": 1, \"neurons\": [0, 672, 672, 672, 672]}", ""},
    /* one rank is every stage, the others hold every neuron */
    {3, "{\"from\": 0, \"to\": 4, \"stage\": 1, \"neurons\": [0, 640, 640, 672]}", ""},
    /* one rank has heads alone, one neurons alone, one rows alone; the stage has nothing */
    {4, "{\"from\": 0, \"to\": 4, \"stage\": 0, \"heads\": [0, 0, 2, 2, 2], \"neurons\": [0, 0, 0, 672, 672]}",
     ", \"rows\": [0, 0, 0, 0, 300]"},
    {4, "{\"from\": 0, \"to\": 4, \"stage\": 0, \"heads\": [0, 0, 2, 2, 2], \"neurons\": [0, 0, 0, 672, 672]}",
     ", \"rows\": [0, 0, 0, 0, 300], \"residual\": \"all\""},
    /* layers cut in different ways, or not at all; rank 2 has only a part of one layer */
    {3, "{\"from\": 0, \"to\": 1, \"stage\": 1, \"heads\": [0, 1, 2, 2], \"neurons\": [0, 0, 0, 672]},"
        "{\"from\": 1, \"to\": 3, \"stage\": 1, \"neurons\": [0, 128, 672, 672]},"
        "{\"from\": 3, \"to\": 4, \"stage\": 1, \"heads\": [0, 2, 2, 2], \"neurons\": [0, 0, 672, 672]}",
     ", \"residual\": \"all\""},
    /* stages that have their heads elsewhere */
    {3, "{\"from\": 0, \"to\": 2, \"stage\": 2, \"heads\": [0, 1, 2, 2], \"neurons\": [0, 0, 256, 672]},"
        "{\"from\": 2, \"to\": 4, \"stage\": 1, \"heads\": [0, 1, 1, 2], \"down\": \"stage\", "
        "\"neurons\": [0, 0, 640, 672]}", ""},
    /* rank 1 takes no part: it has nothing of the residual stream */
    {3, "{\"from\": 0, \"to\": 4, \"stage\": 2, \"heads\": [0, 1, 1, 2], \"neurons\": [0, 384, 384, 672]}",
     ", \"residual\": \"all\""},
};

static void test_plans_by_hand(void **state)
{
    (void)state;
    int32_t prompt[PROMPT];
    struct job j = {prompt, PROMPT, SANITIZED ? 3 : 8, SANITIZED ? 3 : TEXT};
    char model[MADE_NAME], plan[MADE_NAME], text[1024];
    fill_prompt(prompt, PROMPT);
    made_model_write(&made_quantised, model);
    struct trace expected = reference(model, &j);
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        int n = snprintf(text, sizeof text,
                         "{\"hearth_plan\": 1, \"model\": {\"architecture\": \"llama\", \"layers\": 4, \"d_ff\": 672}, "
                         "\"ranks\": %d, \"layers\": [%s]%s}", plans[i].ranks, plans[i].layers,
                         plans[i].more);
        made_file_of(text, (size_t)n, plan);
        struct cluster_options o = plain_options(model);
        o.plan = plan;
        o.ranks = plans[i].ranks;
        must_equal(&expected, &o, &j);
        vary(&o, 2 * (int)i);
        must_equal(&expected, &o, &j);
        unlink(plan);
    }
    trace_free(&expected);
    unlink(model);
}

/* More ranks than anything can be cut into. */
static void test_many_ranks(void **state)
{
    (void)state;
    int32_t prompt[PROMPT];
    struct job j = {prompt, PROMPT, 2, 2};
    char path[MADE_NAME];
    fill_prompt(prompt, PROMPT);
    made_model_write(&made_quantised, path);
    struct trace expected = reference(path, &j);
    for (int split = SPLIT_STAGES; split <= SPLIT_BOTH; split++) {
        struct cluster_options o = plain_options(path);
        o.ranks = SANITIZED ? 6 : 12;
        o.split = split;
        o.n_batch = 10;
        must_equal(&expected, &o, &j);
    }
    trace_free(&expected);
    unlink(path);
}

static int32_t *large_prompt(const char *model, size_t *n)
{
    static const char text[] = "The old clock in the hall struck nine as Maria closed her book and looked out of the "
                               "window, where the rain had finally stopped.";
    struct model *m;
    struct tokenizer *t;
    int32_t *ids;
    assert_int_equal(model_load(model, &m), ST_OK);
    assert_int_equal(tokenizer_create(m->file, &t), ST_OK);
    assert_int_equal(tokenizer_encode(t, text, sizeof text - 1, true, false, &ids, n), ST_OK);
    tokenizer_free(t);
    model_free(m);
    return ids;
}

static void test_large_model(void **state)
{
    (void)state;
    const char *model = large_model();
    if (!model)
        skip();
    size_t n;
    int32_t *prompt = large_prompt(model, &n);
    struct job j = {prompt, n, 4, TEXT};
    struct cluster_options o = plain_options(model);
    struct trace expected = run(&o, &j);
    static const struct {
        int ranks, split, residual;
        const char *shares;
        uint32_t n_batch;
        int threads;
    } cases[] = {
        {1, SPLIT_SHARDS, 0, NULL, 7, 2},    {2, SPLIT_SHARDS, 0, NULL, 256, 1},
        {2, SPLIT_SHARDS, 1, NULL, 256, 1},  {2, SPLIT_STAGES, 0, "3,1", 7, 1},
        {3, SPLIT_BOTH, 0, "1,2,1", 256, 1}, {4, SPLIT_SHARDS, 0, "5,1,3,1", 11, 1},
        {4, SPLIT_SHARDS, 1, NULL, 11, 1},   {4, SPLIT_STAGES, 0, NULL, 5, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        o = plain_options(model);
        o.ranks = cases[i].ranks;
        o.split = cases[i].split;
        o.residual = cases[i].residual;
        o.shares = cases[i].shares;
        o.n_batch = cases[i].n_batch;
        o.threads = cases[i].threads;
        must_equal(&expected, &o, &j);
    }
    trace_free(&expected);
    free(prompt);
}

/* The scalar kernels take a quarter of a second for a token of this model. */
static void test_large_model_kernels(void **state)
{
    (void)state;
    const char *model = large_model();
    if (!model)
        skip();
    static const int32_t prompt[] = {504, 3575, 282, 4649, 314};
    struct job j = {prompt, 5, 3, 0};
    struct trace expected = reference(model, &j);
    for (int i = 1; kernels_available(i); i++) {
        struct cluster_options o = plain_options(model);
        o.kernels = kernels_available(i)->name;
        o.ranks = i;
        must_equal(&expected, &o, &j);
    }
    trace_free(&expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_made_models),
        cmocka_unit_test(test_tiny_models),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_plans_by_hand),
        cmocka_unit_test(test_many_ranks),
        cmocka_unit_test(test_large_model),
        cmocka_unit_test(test_large_model_kernels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
