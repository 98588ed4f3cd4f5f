/* A layer that proves to be dense changes its layout: with the bits of dense before, at and after that, and then with
 * its work. A layer of which few neurons fire stays as it is. */
#include "tests/engine/trace.h"
#include "tests/engine/small_shapes.h"


enum { TOKENS = 10, MODELS = 4 };

static const struct {
    const struct shape *shape;
    const char *type;
    enum ffn ffn;
    const char *activation;
} models[MODELS] = {{&llama, "q4_0", FFN_REGLU, "relu"},
                    {&llama, "q4_k", FFN_DRELU, "drelu"},
                    {&opt, "q8_0", FFN_RELU, "relu"},
                    {&llama, "q8_0", FFN_REGLU, "relu"}};

/* Options for it; the caller removes the file `path`. */
static struct cluster_options write_model(int i, float live, char path[MADE_NAME])
{
    struct synth_file file;
    made_file_of("", 0, path);
    struct synth_options o = {.shape = models[i].shape, .type = weight_type_of(models[i].type), .ffn = models[i].ffn,
                              .layers = LAYERS, .seed = 5, .path = path, .live = live};
    assert_int_equal(synth_write(&o, &file), ST_OK);
    free(file.norms);
    struct cluster_options with = plain_options(path);
    with.activation = models[i].activation;
    return with;
}

/* What a cluster makes of one token after the other. */
struct steps {
    float logits[TOKENS][WORDS];
    struct wire_counts counts[TOKENS];
};

/* `several`: tokens of the first call. */
static void run_steps(const struct cluster_options *o, size_t several, struct steps *out)
{
    struct cluster *c = start(o);
    struct session *s = cluster_session(c);
    int32_t tokens[TOKENS];
    fill_prompt(tokens, TOKENS);
    assert_int_equal(vocabulary(c), WORDS);
    for (size_t i = several - 1, from = 0; i < TOKENS; from = ++i) {
        session_reset_counts(s);
        assert_int_equal(dialogue_logits(cluster_dialogue(c), tokens + from, i + 1 - from, out->logits[i]), ST_OK);
        out->counts[i] = session_counts(s);
    }
    cluster_stop(c);
}

static bool same_counts(const struct wire_counts *a, const struct wire_counts *b)
{
    return a->bytes == b->bytes && a->neurons == b->neurons && a->flagged == b->flagged && a->live == b->live;
}

/* Exact against dense, cut alike: `relays` tells whether the work becomes that of dense. */
static void check(struct cluster_options o, size_t several, bool relays)
{
    static struct steps dense, exact;
    o.sparse = SPARSE_DENSE;
    run_steps(&o, several, &dense);
    o.sparse = SPARSE_EXACT;
    run_steps(&o, several, &exact);
    for (size_t i = several - 1; i < TOKENS; i++) {
        const bool relaid = relays && i >= (several > 4 ? several : 4); /* the layers have seen four tokens */
        const bool same = memcmp(dense.logits[i], exact.logits[i], sizeof dense.logits[i]) == 0;
        if (!same || same_counts(&dense.counts[i], &exact.counts[i]) != relaid) {
            describe(&o);
            fail_msg("token %zu, %zu at first: %s, should be %s; bytes %llu, dense %llu; live %llu of %llu", i, several,
                     same ? "the bits of dense" : "other bits than dense", relaid ? "relaid" : "as it was laid out",
                     (unsigned long long)exact.counts[i].bytes,
                     (unsigned long long)dense.counts[i].bytes, (unsigned long long)exact.counts[i].live,
                     (unsigned long long)exact.counts[i].neurons);
        }
    }
}

/* In every cut, by turns from the first on: one token at first, or several. */
static void sweep(const struct cluster_options *with, int first, bool relays)
{
    int v = 0;
    for (int ranks = 1; ranks <= 3; ranks++) {
        for (int split = SPLIT_STAGES; split <= SPLIT_BOTH; split++, v++) {
            struct cluster_options o = *with;
            o.ranks = ranks;
            o.split = split;
            o.down_at_stage = ranks > 1 && split == SPLIT_SHARDS;
            vary(&o, v);
            check(o, (v + first) % 2 ? 1 : 2 + (size_t)v % 5, relays);
        }
    }
}

static void test_dense_layers(void **state)
{
    (void)state;
    for (int i = 0; i < (SANITIZED ? 2 : MODELS); i++) {
        char model[MADE_NAME];
        const struct cluster_options o = write_model(i, 1, model);
        sweep(&o, i, true);
        unlink(model);
    }
}

static void test_sparse_layers(void **state)
{
    (void)state;
    for (int i = 0; i < (SANITIZED ? 1 : MODELS); i++) {
        char model[MADE_NAME];
        const struct cluster_options o = write_model(i, 0.2f, model);
        sweep(&o, i, false);
        unlink(model);
    }
}

/* Sets that no slice of the down projection stands for: up alone changes. One neuron's packed group is larger than its
 * row, so it needs the room that was kept for it. */
static void test_odd_sets(void **state)
{
    (void)state;
    static const char plan_text[] =
        "{\"hearth_plan\": 1, \"model\": {\"architecture\": \"llama\", \"layers\": 2, \"d_ff\": 1024}, \"ranks\": 3, "
        "\"layers\": [{\"from\": 0, \"to\": 2, \"stage\": 1, \"neurons\": [[[5, 6]], [[0, 5], [6, 300]], [[300, "
        "1024]]]}]}";
    char model[MADE_NAME], plan[MADE_NAME];
    struct cluster_options o = write_model(0, 1, model);
    made_file_of(plan_text, sizeof plan_text - 1, plan);
    o.plan = plan;
    o.ranks = 3;
    check(o, 1, true);
    check(o, 7, true);
    unlink(plan);
    unlink(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense_layers),
        cmocka_unit_test(test_sparse_layers),
        cmocka_unit_test(test_odd_sets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
