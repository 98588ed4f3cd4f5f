/* Sparse modes within experts: exact has the bits of dense, the lossy ones have the same bits for every cut, and
 * whoever counts what was computed finds less. And from a skewed router to a plan: prepare counts which experts are
 * chosen, and the stage gets those. */
#include "tests/engine/trace.h"

#include "base/log.h"
#include "cli/command.h"
#include "coordinator/session.h"
#include "device/device.h"
#include "node/planning.h"
#include "sparsity/fit/neurons_save.h"
#include "sparsity/neurons.h"

enum { PROMPT = 29, VECTORS = 284 /* words of the recorded models */ };

/* ---- what is run ---- */

static void fill(int32_t *prompt)
{
    uint64_t state = 5;
    for (int i = 0; i < PROMPT; i++)
        prompt[i] = (int32_t)(made_draw(&state) % VECTORS);
}

static const struct way {
    int ranks, split, residual;
    const char *shares;
} ways[] = {
    {1, SPLIT_SHARDS, 0, NULL}, {2, SPLIT_SHARDS, 1, "3,1"}, {3, SPLIT_SHARDS, 0, NULL},
    {4, SPLIT_SHARDS, 1, NULL}, {2, SPLIT_STAGES, 0, NULL},  {4, SPLIT_SHARDS, 0, "1,4,2,2"},
};
enum { WAYS = sizeof ways / sizeof *ways };

static struct cluster_options options_of(const struct cluster_options *with, int way)
{
    struct cluster_options o = *with;
    o.ranks = ways[way].ranks;
    o.split = ways[way].split;
    o.residual = ways[way].residual;
    o.shares = ways[way].shares;
    vary(&o, way);
    return o;
}

/* Work for n tokens of the prompt. */
static struct wire_counts work_of(const struct cluster_options *o, const int32_t *prompt, size_t n)
{
    struct cluster *c = start(o);
    float *logits = malloc(vocabulary(c) * sizeof *logits);
    assert_non_null(logits);
    assert_int_equal(dialogue_logits(cluster_dialogue(c), prompt, n, logits), ST_OK);
    const struct wire_counts counts = session_counts(cluster_session(c));
    free(logits);
    cluster_stop(c);
    return counts;
}

/* Neurons that a token looks at. */
static uint64_t looked_at(const char *path)
{
    struct model *m;
    uint64_t sum = 0;
    assert_int_equal(model_load(path, &m), ST_OK);
    for (int l = 0; l < m->hp.n_layers; l++)
        sum += model_has_experts(m, l) ? (uint64_t)(m->hp.n_experts_used * m->hp.d_expert + m->hp.d_shared)
                                       : (uint64_t)model_layer_neurons(m, l);
    model_free(m);
    return sum;
}

/* All ways have these bits, and compute as many neurons: of those that tokens look at, fewer than all. */
static void check(const struct trace *expected, const struct cluster_options *with, const struct job *j)
{
    const uint64_t all = looked_at(with->model) * PROMPT;
    uint64_t live = 0;
    for (int i = 0; i < WAYS; i += SANITIZED ? 2 : 1) {
        const struct cluster_options o = options_of(with, i);
        must_equal(expected, &o, j);
        const struct wire_counts counts = work_of(&o, j->prompt, PROMPT);
        assert_int_equal(counts.neurons, all);
        live = live ? live : counts.live;
        assert_int_equal(counts.live, live);
    }
    assert_true(live > all / 10 && live < 8 * all / 10);
}

/* ---- exact ---- */

static void test_exact(void **state)
{
    (void)state;
    static const struct {
        const char *file, *activation;
    } models[] = {
        {"model-smallthinker.gguf", NULL}, {"model-llama-moe.gguf", "drelu"}, {"model-qwen3moe-q4_0.gguf", "relu"},
        {"model-deepseek2-q8_0.gguf", "relu2"}, {"model-qwen2moe.gguf", "drelu"},
    };
    int32_t prompt[PROMPT];
    const struct job j = {prompt, PROMPT, 3, 3};
    fill(prompt);
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char path[512];
        snprintf(path, sizeof path, TEST_DATA "/%s", models[i].file);
        struct cluster_options o = plain_options(path);
        o.activation = models[i].activation;
        o.kernels = "scalar";
        struct trace dense = run(&o, &j);
        const struct wire_counts all = work_of(&o, prompt, 1);
        assert_int_equal(all.neurons, looked_at(path));
        assert_int_equal(all.live, all.neurons);
        o.kernels = NULL;
        o.sparse = SPARSE_EXACT;
        check(&dense, &o, &j);
        trace_free(&dense);
    }
}

/* ---- the lossy modes, with a neuron file made by hand ---- */

struct recipe {
    enum activation activation;
    float bound, skip;
};

static float *values(int64_t n, float from, float step)
{
    float *v = malloc((size_t)n * sizeof *v);
    assert_non_null(v);
    for (int64_t i = 0; i < n; i++)
        v[i] = from + step * (float)(i % 7);
    return v;
}

static void write_neurons(const char *model, const struct recipe *r, char path[MADE_NAME])
{
    struct model *m;
    assert_int_equal(model_load(model, &m), ST_OK);
    struct neurons n = {.activation = r->activation, .model_hash = gguf_hash(m->file), .n_tokens = 1000,
                        .skip_share = 0.5f};
    neurons_shape_of(m, &n);
    float *share = values(n.d_ff, 0.02f, 0.01f), *bound = values(n.d_ff, r->bound, 0),
          *weight = values(n.d_ff, 0.5f, 0.1f);
    float *chosen = values(n.experts.n, 0.5f, 0.05f);
    n.layers = calloc((size_t)n.n_layers, sizeof *n.layers);
    assert_non_null(n.layers);
    for (int l = 0; l < n.n_layers; l++) {
        n.layers[l] = (struct neuron_layer){.fired = share, .strength = share, .live = 0.1f, .weight = weight,
                                            .bound = bound, .chosen = neurons_experts(&n, l) ? chosen : NULL};
        for (int i = 0; i < SKIP_STEPS; i++)
            n.layers[l].skip[i] = r->skip;
    }
    made_file_of("", 0, path);
    assert_int_equal(neurons_save(&n, path), ST_OK);
    free(n.layers);
    free(share);
    free(bound);
    free(weight);
    free(chosen);
    model_free(m);
}

static void check_lossy(const char *model, enum sparse_mode mode, const struct recipe *none, const struct recipe *some)
{
    int32_t prompt[PROMPT];
    const struct job j = {prompt, PROMPT, 3, 3};
    char path[512], neurons[MADE_NAME];
    fill(prompt);
    snprintf(path, sizeof path, TEST_DATA "/%s", model);
    struct cluster_options o = plain_options(path);
    o.activation = activation_name(none->activation);
    struct trace dense = run(&o, &j);
    o.sparse = mode;
    o.predictor = PREDICTOR_AUTO;
    o.neurons = neurons;
    write_neurons(path, none, neurons);
    must_equal(&dense, &o, &j);
    unlink(neurons);
    write_neurons(path, some, neurons);
    o.kernels = "scalar";
    struct trace lossy = run(&o, &j);
    assert_int_not_equal(memcmp(dense.rows, lossy.rows, dense.n_rows * dense.n_vocab * sizeof *dense.rows), 0);
    o.kernels = NULL;
    check(&lossy, &o, &j);
    unlink(neurons);
    trace_free(&lossy);
    trace_free(&dense);
}

static void test_threshold(void **state)
{
    (void)state;
    static const char *const models[] = {"model-qwen3moe-q4_0.gguf", "model-deepseek2-q8_0.gguf"};
    for (int i = 0; i < 2; i++)
        check_lossy(models[i], SPARSE_THRESHOLD, &(struct recipe){.activation = ACT_SILU},
                    &(struct recipe){.activation = ACT_SILU, .skip = 0.05f});
}

static void test_predicted(void **state)
{
    (void)state;
    check_lossy("model-qwen3moe-q4_0.gguf", SPARSE_PREDICTED, &(struct recipe){ACT_RELU, .bound = -1e6f},
                &(struct recipe){ACT_RELU, .bound = 0.2f});
}

static void test_mlps_are_refused(void **state)
{
    (void)state;
    struct cluster *c = NULL;
    struct log_catcher caught;
    char neurons[MADE_NAME];
    struct cluster_options o = plain_options(TEST_DATA "/model-qwen3moe-q4_0.gguf");
    write_neurons(o.model, &(struct recipe){.activation = ACT_RELU}, neurons);
    o.neurons = neurons;
    o.sparse = SPARSE_PREDICTED;
    o.predictor = PREDICTOR_MLP;
    log_catch(&caught);
    assert_int_equal(cluster_start(&o, &c), ST_USAGE);
    log_catch(NULL);
    assert_non_null(strstr(caught.first_error, "has no MLPs for experts"));
    assert_non_null(strstr(caught.first_error, "dense, exact, predicted"));
    unlink(neurons);
}

/* ---- what a dense run shows ---- */

struct seen {
    const struct model *m;
    uint64_t steps, partial; /* experts that some tokens have chosen and others not */
};

static bool has_chosen(const struct seen *s, const struct observed *o, uint32_t token, int64_t expert)
{
    const int64_t used = s->m->hp.n_experts_used;
    bool found = false;
    for (int64_t k = 0; k < used; k++)
        found |= o->expert[token * used + k] == expert;
    return found;
}

/* Each expert for whom it was chosen by, in their order, and each token as often as it has chosen. */
static void look(void *arg, const struct observed *o)
{
    struct seen *s = arg;
    const struct hparams *hp = &s->m->hp;
    const bool experts = model_has_experts(s->m, o->layer);
    uint64_t pairs = 0;
    assert_int_equal(o->expert != NULL, experts);
    for (const struct observed_neurons *of = o->neurons; of < o->neurons + o->n_neurons; of++) {
        const int64_t expert = of->first / hp->d_expert;
        const bool routed = experts && expert < hp->n_experts;
        assert_true(of->n_tokens <= o->n && (of->token || of->n_tokens == o->n));
        assert_int_equal(of->n, routed ? hp->d_expert : experts ? hp->d_shared : model_layer_neurons(s->m, o->layer));
        for (uint32_t i = 0; i < of->n_tokens; i++) {
            const uint32_t token = of->token ? of->token[i] : i;
            assert_true(!of->token || i == 0 || token > of->token[i - 1]);
            assert_true(!routed || has_chosen(s, o, token, expert));
            assert_true(of->h[i * of->stride] != 0 || of->h[i * of->stride + of->n - 1] != 0);
        }
        pairs += routed ? of->n_tokens : 0;
        s->partial += of->token != NULL;
    }
    assert_int_equal(pairs, experts ? o->n * (uint64_t)hp->n_experts_used : 0);
    s->steps++;
}

static void test_observed(void **state)
{
    (void)state;
    static const char *const models[] = {TEST_DATA "/model-deepseek2-lite.gguf", TEST_DATA "/model-qwen3moe.gguf"};
    int32_t prompt[PROMPT];
    const struct job j = {prompt, PROMPT, 2, 0};
    fill(prompt);
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        struct seen s = {0};
        struct model *m;
        assert_int_equal(model_load(models[i], &m), ST_OK);
        s.m = m;
        struct cluster_options o = plain_options(models[i]);
        struct trace expected = run(&o, &j);
        o.n_batch = 11;
        o.observe = look;
        o.observe_arg = &s;
        must_equal(&expected, &o, &j); /* looking changes nothing */
        assert_int_equal(s.steps, 4 * (uint64_t)m->hp.n_layers); /* 11, 11, 7 tokens, and one more */
        assert_true(s.partial > 0);
        trace_free(&expected);
        model_free(m);
    }
}

/* ---- a skewed router ---- */

/* A copy of a model whose router has this much against expert 0, in every layer. */
static void write_skewed(const char *from, float bias, char path[MADE_NAME])
{
    FILE *in = fopen(from, "rb");
    assert_non_null(in);
    uint8_t *bytes = malloc(1 << 22);
    assert_non_null(bytes);
    const size_t n = fread(bytes, 1, 1 << 22, in);
    assert_true(n > 0 && n < 1 << 22);
    fclose(in);
    struct gguf *g;
    struct model *m;
    assert_int_equal(gguf_open_bytes(bytes, n, from, &g), ST_OK);
    assert_int_equal(model_from_gguf(g, &m), ST_OK);
    for (int l = 0; l < m->hp.n_layers; l++) {
        assert_int_equal(m->layers[l].router_bias.type, DT_F32);
        memcpy((uint8_t *)(uintptr_t)m->layers[l].router_bias.data, &bias, sizeof bias); /* within bytes */
    }
    model_free(m);
    made_file_of(bytes, n, path);
    free(bytes);
}

static void count_neurons(const char *model, const char *neurons, const char *report)
{
    static const struct launch alone = {.local_ranks = 1};
    char text[MADE_NAME], words[2600], *const with[] = {
        "hearth prepare", "-q", "-m", (char *)model, "-f", text, "-c", "64", "-t", "1", "--neurons", (char *)neurons,
        "--report", (char *)report, NULL};
    uint64_t state = 9;
    for (size_t i = 0; i < sizeof words; i++)
        words[i] = (char)('a' + made_draw(&state) % 26);
    made_file_of(words, sizeof words, text);
    assert_int_equal(command_prepare(&alone, 14, (char **)with), ST_OK);
    unlink(text);
}

/* How many of an expert's neurons of a layer a rank has. */
static int64_t held_of_expert(const struct plan *p, int layer, int rank, const struct hparams *hp, int64_t expert)
{
    const struct neuron_range *ranges;
    const int64_t begin = expert * hp->d_expert, end = begin + hp->d_expert;
    int64_t sum = 0;
    for (int i = plan_neurons(p, layer, rank, &ranges); i > 0; i--) {
        const int64_t from = ranges[i - 1].begin > begin ? ranges[i - 1].begin : begin;
        const int64_t to = ranges[i - 1].end < end ? ranges[i - 1].end : end;
        sum += from < to ? to - from : 0;
    }
    return sum;
}

/* Every token chooses experts 1 and 2 of the three: the stage has 1 and what there is room for of 2, the other rank all
 * of 0, and the text is that of one rank. */
static void test_hot(void **state)
{
    (void)state;
    int32_t prompt[PROMPT];
    const struct job j = {prompt, PROMPT, 2, 2};
    char model[MADE_NAME], neurons[MADE_NAME], report[MADE_NAME];
    struct model *m;
    struct neurons *n;
    enum predictor predictor;
    fill(prompt);
    write_skewed(TEST_DATA "/model-gpt-oss.gguf", -100, model);
    made_file_of("", 0, neurons);
    made_file_of("", 0, report);
    count_neurons(model, neurons, report);
    struct cluster_options o = plain_options(model);
    struct trace expected = run(&o, &j);
    o.neurons = neurons;
    o.split = SPLIT_HOT;
    assert_int_equal(model_of_options(&o, 0, &m, &n, &predictor), ST_OK);
    for (int l = 0; l < m->hp.n_layers; l++) {
        const float *chosen = n->layers[l].chosen;
        assert_true(chosen[0] == 0 && chosen[1] == 1 && chosen[2] == 1);
        assert_true(n->layers[l].fired[0] == 0 && n->layers[l].live > 0.3f); /* of the chosen ones */
    }
    for (int ranks = 2; ranks <= 3; ranks++) {
        struct plan_reasons reasons;
        struct plan *p;
        o.ranks = ranks;
        assert_int_equal(plan_of_options(&o, m, n, ranks, &p, &reasons), ST_OK);
        for (int l = 0; l < m->hp.n_layers; l++) {
            const int stage = p->layers[l].stage;
            assert_int_equal(held_of_expert(p, l, stage, &m->hp, 0), 0);
            assert_true(held_of_expert(p, l, stage, &m->hp, 1) >= 128);
        }
        plan_reasons_free(&reasons);
        plan_free(p);
        must_equal(&expected, &o, &j);
    }
    trace_free(&expected);
    neurons_free(n);
    model_free(m);
    unlink(report);
    unlink(neurons);
    unlink(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact),       cmocka_unit_test(test_threshold), cmocka_unit_test(test_predicted),
        cmocka_unit_test(test_mlps_are_refused), cmocka_unit_test(test_observed), cmocka_unit_test(test_hot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
