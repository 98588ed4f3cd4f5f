/* Layers with experts among what should not be: requests whose experts or weights are wrong, routers that give no
 * numbers, experts that do not. One line, and nothing else is disturbed. */
#include "tests/engine/hostile_stand.h"
#include "tests/engine/trace.h"

#include "node/planning.h"
#include "placement/plan.h"
#include "tools/synth/synth.h"

/* ---- requests ---- */

enum { LAYERS = 2, EXPERTS = 7, USED = 3, N = 2 /* tokens of a request */ };
static const struct shape shape = {"experts", QWEN3MOE, LAYERS, 256, 352, 4, 2, 64, MADE_VOCABULARY, 512, 10000, false,
                                   0, EXPERTS, USED};

static char model_path[MADE_NAME];
static struct model *model;

static int open_model(void **state)
{
    struct synth_file file;
    (void)state;
    made_file_of("", 0, model_path);
    const struct synth_options o = {.shape = &shape, .type = weight_type_of("q4_0"), .layers = LAYERS, .seed = 3,
                                    .path = model_path};
    assert_int_equal(synth_write(&o, &file), ST_OK);
    return model_load(model_path, &model);
}

static int close_model(void **state)
{
    (void)state;
    model_free(model);
    return unlink(model_path);
}

/* Rank 0 is the stage; all ranks have a third of each expert. */
static void open_owner(struct stand *s)
{
    struct plan_model of;
    struct plan *p;
    plan_model_of(model, &of);
    assert_int_equal(plan_make(&of, SPLIT_SHARDS, RANKS, NULL, &p), ST_OK);
    stand_open_plan(s, model, p);
}

/* A right request of layer 1; *q points into the message. */
static size_t make_request(const struct stand *s, struct wire_request *q)
{
    static const uint32_t chosen[N * USED] = {6, 0, 3, 1, 2, 6};
    static const float weights[N * USED] = {.5f, .25f, .25f, .75f, .125f, .125f};
    *q = (struct wire_request){.id = 1, .part = PART_FFN, .layer = 1, .n_tokens = N, .form = FORM_Q8};
    const size_t size = wire_request_encode(q, &s->limits, message, sizeof message);
    assert_true(size && q->n_used == USED && q->n_weights == USED);
    for (uint32_t i = 0; i < N * s->limits.d_model; i++)
        q->codes[i] = (int8_t)(i % 100);
    for (uint32_t i = 0; i < N * s->limits.d_model / ACT_BLOCK; i++)
        q->scale[i] = 0.01f;
    memcpy(q->expert, chosen, sizeof chosen);
    memcpy(q->weight, weights, sizeof weights);
    return size;
}

static uint8_t widths[MESSAGE_MAX];

/* What the worker makes of the right request: the same sums every time. */
static void expect_the_same(struct stand *s, uint8_t *sums, size_t *n)
{
    struct wire_request q;
    struct wire_partial p;
    throw(s, 0, WIRE_REQUEST, message, make_request(s, &q));
    const size_t size = answer(s, 0, WIRE_PARTIAL);
    assert_int_equal(wire_partial_decode(reply, size, &s->limits, widths, &p), ST_OK);
    assert_true(p.id == 1 && p.part == PART_FFN && p.layer == 1 && p.n_tokens == N && p.counts.bytes > 0);
    const size_t bytes = wire_packed_bytes(p.width, N * wire_partial_widths(&s->limits));
    if (*n == 0)
        memcpy(sums, p.packed, bytes);
    assert_true(*n == 0 || *n == bytes);
    assert_memory_equal(sums, p.packed, bytes);
    *n = bytes;
}

static void set_word(void *at, uint32_t value) { memcpy(at, &value, sizeof value); }

static void test_wrong_routes(void **state)
{
    (void)state;
    static uint8_t sums[MESSAGE_MAX];
    const uint32_t nan = 0x7fc00000, infinity = 0xff800000;
    size_t n = 0;
    struct stand s;
    struct wire_request q;
    open_owner(&s);
    expect_the_same(&s, sums, &n);
    const struct {
        size_t at; /* of ids, then of weights */
        uint32_t value;
        const char *says;
    } wrong[] = {
        {0, EXPERTS,
         "from rank 0: REQUEST message of layer 1: token 0 has chosen expert 7, expected different ones of 0 to 6"},
        {5, UINT32_MAX, "token 1 has chosen expert 4294967295,"},
        {3, 0x80000001, "token 1 has chosen expert 2147483649,"},
        {1, 6, "token 0 has chosen expert 6 twice"},
        {5, 1, "token 1 has chosen expert 1 twice"},
        {6, nan, "an expert's weight is not finite"},
        {11, infinity, "an expert's weight is not finite"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const size_t size = make_request(&s, &q);
        set_word(wrong[i].at < N * USED ? (void *)(q.expert + wrong[i].at)
                                        : (void *)(q.weight + wrong[i].at - N * USED),
                 wrong[i].value);
        throw(&s, 0, WIRE_REQUEST, message, size);
        expect_refusal(&s, 0, wrong[i].says);
        expect_the_same(&s, sums, &n);
    }
    stand_close(&s, NULL);
}

/* The layer has experts, the message has none, or the other way round; and some that lack a part. */
static void test_missing_routes(void **state)
{
    (void)state;
    static uint8_t sums[MESSAGE_MAX];
    size_t n = 0;
    struct stand s;
    struct wire_request q;
    open_owner(&s);
    expect_the_same(&s, sums, &n);
    struct wire_limits none = s.limits;
    none.n_experts = none.n_experts_used = none.n_weights = 0;
    for (int how = 0; how < 5; how++) {
        size_t size = make_request(&s, &q);
        q = (struct wire_request){.id = 1, .part = PART_FFN, .layer = 1, .n_tokens = N, .form = FORM_Q8};
        if (how == 0)
            size = wire_request_encode(&q, &none, message, sizeof message);
        else if (how < 4)
            size -= (size_t[]){0, 4, 64, N * USED * 4}[how];
        else
            size += 4;
        throw(&s, 0, WIRE_REQUEST, message, size);
        expect_refusal(&s, 0, "size");
        expect_the_same(&s, sums, &n);
    }
    stand_close(&s, NULL);
}

/* Weights that are finite and far beyond any: the sums are no numbers, or large ones, which their stage looks at. */
static void test_huge_weights(void **state)
{
    (void)state;
    static uint8_t sums[MESSAGE_MAX];
    static const float huge[] = {3e38f, -3e38f, 1e-45f, 0, -0.0f};
    size_t n = 0;
    struct stand s;
    struct wire_request q;
    struct wire_partial p;
    open_owner(&s);
    expect_the_same(&s, sums, &n);
    for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
        const size_t size = make_request(&s, &q);
        for (int k = 0; k < N * USED; k++)
            q.weight[k] = huge[i];
        throw(&s, 0, WIRE_REQUEST, message, size);
        assert_int_equal(wire_partial_decode(reply, answer(&s, 0, WIRE_PARTIAL), &s.limits, widths, &p), ST_OK);
        expect_the_same(&s, sums, &n);
    }
    stand_close(&s, NULL);
}

/* Right requests with some bits changed: an answer or a refusal, and the next one is answered as before. */
static void test_random_routes(void **state)
{
    (void)state;
    static uint8_t sums[MESSAGE_MAX];
    uint64_t random = 11;
    size_t n = 0;
    int refused = 0, rounds = SANITIZED ? 60 : 220;
    struct stand s;
    struct wire_request q;
    open_owner(&s);
    expect_the_same(&s, sums, &n);
    for (int round = 0; round < rounds; round++) {
        const size_t size = make_request(&s, &q), routes = (size_t)((uint8_t *)q.expert - message);
        for (uint64_t changes = 1 + made_draw(&random) % 3; changes > 0; changes--) {
            const size_t from = made_draw(&random) % 4 ? routes : 0;
            message[from + made_draw(&random) % (size - from)] ^= (uint8_t)(1u << made_draw(&random) % 8);
        }
        throw(&s, 0, WIRE_REQUEST, message, size);
        struct arrival a;
        bool found = false;
        while (!found)
            assert_int_equal(transport_poll(s.t[0], 1u << WIRE_PARTIAL | 1u << WIRE_FAILED, &a, &found), ST_OK);
        refused += a.kind == WIRE_FAILED;
        assert_int_equal(transport_release(s.t[0], &a), ST_OK);
        expect_the_same(&s, sums, &n);
    }
    assert_in_range(refused, 1, rounds - 1);
    stand_close(&s, NULL);
}

/* ---- files ---- */

static uint8_t file[1 << 20];

/* Reads a model; how long it is. */
static size_t read_file(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, TEST_DATA "/%s", name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    const size_t n = fread(file, 1, sizeof file, f);
    assert_true(n < sizeof file);
    fclose(f);
    return n;
}

/* A copy of the model in which a tensor's value is another. The caller removes it. */
static void poison(const char *name, const char *tensor, size_t value_at, float value, char path[MADE_NAME])
{
    const size_t n = read_file(name);
    struct gguf *g;
    assert_int_equal(gguf_open_bytes(file, n, name, &g), ST_OK);
    const struct gguf_tensor *t = gguf_find_tensor(g, tensor);
    if (!t)
        fail_msg("%s: no tensor %s", name, tensor);
    assert_true(t->type == DT_F32 || t->type == DT_F16);
    uint8_t *at = file + (t->data - file) + value_at * (t->type == DT_F32 ? 4 : 2);
    if (t->type == DT_F32)
        memcpy(at, &value, sizeof value);
    else
        made_half(at, value);
    gguf_close(g);
    made_file_of(file, n, path);
}

static const int32_t prompt[] = {5, 17, 101, 33, 8, 250, 61};
enum { N_PROMPT = sizeof prompt / sizeof *prompt };

/* Runs the prompt; the line that says why it failed. */
static status run_prompt(const char *path, int ranks, int residual, uint32_t batch, float *logits, char line[256])
{
    struct cluster_options o = plain_options(path);
    struct log_catcher caught;
    struct cluster *c = NULL;
    o.ranks = ranks;
    o.split = ranks > 1 ? SPLIT_SHARDS : -1;
    o.residual = residual;
    o.n_batch = batch;
    o.n_ctx = 64;
    log_catch(&caught);
    status st = cluster_start(&o, &c);
    if (st == ST_OK)
        st = dialogue_logits(cluster_dialogue(c), prompt, N_PROMPT, logits);
    cluster_stop(c);
    log_catch(NULL);
    snprintf(line, 256, "%.255s", caught.first_error);
    return st;
}

/* ---- counts that do not fit ---- */

/* Of five experts in two layers; what stands behind a name in the header becomes another number. */
static void test_counts(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t behind; /* bytes between: of a key its type, of a tensor how many dimensions it has, and some of these */
        uint32_t value;
        const char *says;
    } wrong[] = {
        {"qwen3moe.expert_count", 4, 0, "key qwen3moe.expert_count: expected 1 to 4096, found 0"},
        {"qwen3moe.expert_count", 4, 4, "expected [32, 4], found [32, 5]"},
        {"qwen3moe.expert_count", 4, 4097, "key qwen3moe.expert_count: expected 1 to 4096, found 4097"},
        {"qwen3moe.expert_used_count", 4, 0, "key qwen3moe.expert_used_count: expected 1 to 5, found 0"},
        {"qwen3moe.expert_used_count", 4, 6, "key qwen3moe.expert_used_count: expected 1 to 5, found 6"},
        {"blk.0.ffn_gate_inp.weight", 12, 4, "tensor blk.0.ffn_gate_inp.weight: expected [32, 5], found [32, 4]"},
        {"blk.1.ffn_gate_exps.weight", 20, 3,
         "tensor blk.1.ffn_gate_exps.weight: expected [32, 160, 5], found [32, 160, 3]"},
        {"blk.1.ffn_down_exps.weight", 20, 0, "blk.1.ffn_down_exps.weight"},
    };
    float logits[MADE_VOCABULARY];
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char path[MADE_NAME], line[256];
        const size_t n = read_file("model-qwen3moe.gguf"), length = strlen(wrong[i].name);
        uint8_t *at = memmem(file, n, wrong[i].name, length);
        assert_non_null(at);
        set_word(at + length + wrong[i].behind, wrong[i].value);
        made_file_of(file, n, path);
        const status st = run_prompt(path, 1 + (int)i % 2, -1, 64, logits, line);
        if (st != ST_FORMAT || !strstr(line, wrong[i].says))
            fail_msg("expected '%s', got %s: '%s'", wrong[i].says, status_name(st), line);
        unlink(path);
    }
}

/* ---- numbers that are none ---- */

static void test_routers_that_give_no_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *file, *tensor, *says;
    } cases[] = {
        {"model-qwen3moe.gguf", "blk.1.ffn_gate_inp.weight", "layer 1: the router: value "},
        {"model-smallthinker.gguf", "blk.0.ffn_gate_inp.weight", "layer 0: the router: value "},
        {"model-gpt-oss.gguf", "blk.1.ffn_gate_inp.bias", "layer 1: the router: value "},
        {"model-glm4moe.gguf", "blk.1.ffn_gate_inp.weight", "layer 1: the router: value "},
        {"model-glm4moe.gguf", "blk.1.exp_probs_b.bias",
         "layer 1: the router's scores: value 2 of the token at position "},
        {"model-qwen2moe.gguf", "blk.0.ffn_gate_inp_shexp.weight", "layer 0: the router: value "},
        {"model-deepseek2.gguf", "blk.2.exp_probs_b.bias", "layer 2: the router's scores: value 2 "},
    };
    static const struct {
        int ranks, residual;
        uint32_t batch;
    } ways[] = {{1, -1, 64}, {1, -1, 1}, {2, 0, 64}, {3, 1, 64}};
    static const float values[] = {NAN, INFINITY};
    float logits[MADE_VOCABULARY];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
            char path[MADE_NAME], line[256];
            poison(cases[i].file, cases[i].tensor, 2, values[(i + w) % 2], path);
            const status st = run_prompt(path, ways[w].ranks, ways[w].residual, ways[w].batch, logits, line);
            if (st != ST_NAN && st != ST_PEER)
                fail_msg("%s, %s, %d ranks: %s", cases[i].file, cases[i].tensor, ways[w].ranks, status_name(st));
            if (!strstr(line, cases[i].says))
                fail_msg("%s, %s, %d ranks: '%s'", cases[i].file, cases[i].tensor, ways[w].ranks, line);
            unlink(path);
        }
    }
}

/* A value of an expert that is none is found where a token has chosen that expert, and else changes no bit. */
static void test_experts_that_are_no_numbers(void **state)
{
    (void)state;
    enum { N_EXPERTS = 5, D = 32, WIDTH = 160 };
    static const char *const tensors[] = {"blk.0.ffn_gate_exps.weight", "blk.0.ffn_down_exps.weight"};
    float clean[MADE_VOCABULARY], logits[MADE_VOCABULARY];
    char line[256];
    int found = 0, unseen = 0;
    assert_int_equal(run_prompt(TEST_DATA "/model-qwen3moe.gguf", 1, -1, 64, clean, line), ST_OK);
    for (size_t t = 0; t < sizeof tensors / sizeof *tensors; t++) {
        for (size_t e = 0; e < N_EXPERTS; e++) {
            for (int ranks = 1; ranks <= 2; ranks++) {
                char path[MADE_NAME];
                poison("model-qwen3moe.gguf", tensors[t], e * D * WIDTH + 7, NAN, path);
                const status st = run_prompt(path, ranks, 0, 64, logits, line);
                if (st == ST_OK)
                    assert_memory_equal(logits, clean, sizeof(float) * 284);
                else if (!strstr(line, "layer 0: the FFN"))
                    fail_msg("expert %zu: '%s'", e, line);
                found += st != ST_OK;
                unseen += st == ST_OK;
                unlink(path);
            }
        }
    }
    print_message("%d found, %d not chosen\n", found, unseen);
    assert_true(found > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_routes),
        cmocka_unit_test(test_missing_routes),
        cmocka_unit_test(test_huge_weights),
        cmocka_unit_test(test_random_routes),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_routers_that_give_no_numbers),
        cmocka_unit_test(test_experts_that_are_no_numbers),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
