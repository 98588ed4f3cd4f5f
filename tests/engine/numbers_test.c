/* Models with weights that are no numbers: whatever mode runs them on however many ranks, the first step ends with one
 * line that says where they are. */
#include "tests/engine/made_neurons.h"

#include "base/log.h"
#include "model/gguf.h"

enum { PROMPT = 12 };

static const struct made_model model = {3, 96, 384, 3, 3, 32, 0, DT_Q8_0, DT_Q4_0, DT_Q4_1, DT_Q4_0, DT_F16};

static const struct place {
    const char *tensor, *says;
    size_t at;           /* byte of the tensor: a norm's value, a block's scale, an f16 */
} places[] = {
    {"token_embd.weight", ": the embedding", 0},
    {"blk.1.attn_norm.weight", ": layer 1: the norm before attention", 4 * 7},
    {"blk.0.attn_q.weight", ": layer 0: attention", 34 * 5},
    {"blk.1.attn_k.weight", ": layer 1: attention", 34 * 200},
    {"blk.2.attn_v.weight", ": layer 2: attention", 34 * 100},
    {"blk.1.attn_output.weight", ": layer 1: attention", 34 * 7},
    {"blk.2.ffn_norm.weight", ": layer 2: the norm before the FFN", 4 * 95},
    {"blk.1.ffn_gate.weight", ": layer 1: the FFN", 18 * 600},
    {"blk.2.ffn_up.weight", ": layer 2: the FFN", 20 * 900},
    {"blk.0.ffn_down.weight", ": layer 0: the FFN", 18 * 11},
    {"output_norm.weight", ": the norm before the output matrix", 4 * 50},
    {"output.weight", ": the logits", 2 * 96 * 299},
};

/* NaN and infinities, as f16 and f32. */
static const struct { uint16_t half; uint32_t single; } values[] = {{0x7e00, 0x7fc00000}, {0x7c00, 0x7f800000},
                                                                    {0xfe01, 0xffc00001}};

static const struct {
    const char *activation;
    enum sparse_mode mode;
    enum predictor predictor;
} modes[] = {{NULL, SPARSE_DENSE, PREDICTOR_AUTO},       {"relu", SPARSE_DENSE, PREDICTOR_AUTO},
             {"relu", SPARSE_EXACT, PREDICTOR_AUTO},     {"relu2", SPARSE_EXACT, PREDICTOR_AUTO},
             {"relu", SPARSE_PREDICTED, PREDICTOR_PLANES}, {"relu", SPARSE_PREDICTED, PREDICTOR_MLP},
             {NULL, SPARSE_THRESHOLD, PREDICTOR_AUTO}};

static const struct { int ranks, split, residual; bool down_at_stage; } cuts[] = {
    {1, -1, -1, false},          {2, SPLIT_SHARDS, 1, false}, {2, SPLIT_SHARDS, 0, false},
    {2, SPLIT_STAGES, 0, false}, {3, SPLIT_BOTH, 0, true},    {3, SPLIT_SHARDS, 1, false}};

static const char *plugin; /* folder of one whose GPUs get one layer, two or all, which find such numbers late; or
                            * NULL */

/* Puts bytes into a tensor of the file. */
static void damage(const char *path, const struct place *where, size_t value)
{
    struct model *m;
    static uint8_t bytes[1 << 21];
    assert_int_equal(model_load(path, &m), ST_OK);
    const struct gguf_tensor *t = gguf_find_tensor(m->file, where->tensor);
    FILE *f = fopen(path, "r+b");
    assert_true(t && f);
    const size_t n = fread(bytes, 1, sizeof bytes, f);
    const uint8_t *at = memmem(bytes, n, t->data, 64); /* random weights: they are there once */
    assert_non_null(at);
    fseek(f, (long)(at - bytes) + (long)where->at, SEEK_SET);
    if (t->type == DT_F32)
        assert_int_equal(fwrite(&values[value].single, 4, 1, f), 1);
    else
        assert_int_equal(fwrite(&values[value].half, 2, 1, f), 1);
    fclose(f);
    model_free(m);
}

/* The first step of a run ends with this line, and nothing comes of it. */
static void must_say(const struct cluster_options *o, const char *says, int how)
{
    struct log_catcher caught;
    int32_t prompt[PROMPT], next = -7;
    float nll[PROMPT];
    struct cluster *c = start(o);
    fill_prompt(prompt, PROMPT);
    prompt[3] = 0; /* the embedding's first row */
    log_catch(&caught);
    status st = how % 2 ? dialogue_score(cluster_dialogue(c), prompt, PROMPT, 2, nll)
                        : dialogue_prompt(cluster_dialogue(c), prompt, PROMPT, &next, NULL, NULL);
    log_catch(NULL);
    cluster_stop(c);
    if ((st != ST_NAN && st != ST_PEER) || next != -7 || !strstr(caught.first_error, says) ||
        !strstr(caught.first_error, "no number")) {
        describe(o);
        fail_msg("expected '...%s...', got %s, token %d: '%s'", says, status_name(st), next, caught.first_error);
    }
}

static void test_what_is_no_number_is_named(void **state)
{
    (void)state;
    const size_t n_places = sizeof places / sizeof *places, n_values = sizeof values / sizeof *values;
    const size_t n_modes = sizeof modes / sizeof *modes, n_cuts = sizeof cuts / sizeof *cuts;
    int i = 0;
    for (size_t p = 0; p < n_places; p++) {
        for (size_t v = 0; v < n_values; v++) {
            char path[MADE_NAME], neurons[MADE_NAME];
            made_model_write(&model, path);
            damage(path, &places[p], v);
            for (size_t m = 0; m < n_modes; m++) {
                const bool silu = !modes[m].activation;
                const struct made_recipe r = {.activation = silu ? ACT_SILU : ACT_RELU, .bound = -0.5f, .skip = 0.05f,
                                              .mlp = -0.5f, .fc1 = DT_Q8_0, .fc2 = DT_F16};
                made_neurons_write(path, &model, &r, neurons);
                for (size_t c = 0; c < n_cuts; c++, i++) {
                    struct cluster_options o = plain_options(path);
                    o.activation = modes[m].activation;
                    o.sparse = modes[m].mode;
                    o.predictor = modes[m].predictor;
                    o.neurons = neurons;
                    o.ranks = cuts[c].ranks;
                    o.split = cuts[c].split;
                    o.residual = cuts[c].residual;
                    o.down_at_stage = cuts[c].down_at_stage;
                    o.device = plugin ? DEVICES_CUDA : DEVICES_PLANNED;
                    o.gpu_layers = i % 3 ? i % 3 : -1;
                    o.plugin_dir = plugin;
                    vary(&o, i);
                    if (i % (plugin ? 31 : SANITIZED ? 23 : 11) == 0)
                        must_say(&o, places[p].says, i);
                }
                unlink(neurons);
            }
            unlink(path);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_is_no_number_is_named)};
    plugin = getenv("HEARTH_TEST_PLUGIN");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
