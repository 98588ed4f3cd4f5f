/* A worker whose heads others ask for, or that has the residual stream like the others, among ranks that send what they
 * should not: an error that names the rank, never a crash or a hang. The test plays ranks 0 and 2; rank 1 is the
 * worker. */
#include "tests/engine/hostile_stand.h"

static char model_path[MADE_NAME];
static struct model *model;

static int open_model(void **state)
{
    (void)state;
    made_model_write(&made_quantised, model_path);
    return model_load(model_path, &model);
}

static int close_model(void **state)
{
    (void)state;
    model_free(model);
    return unlink(model_path);
}

/* Rank 1 has a KV head of two, and some neurons. */
#define CUT "\"heads\": [0, 1, 2, 2], \"neurons\": [0, 256, 384, 672]}]"
static const char owner[] = "{\"from\": 0, \"to\": 4, \"stage\": 0, " CUT;
static const char member[] = "{\"from\": 0, \"to\": 4, \"stage\": 0, " CUT ", \"residual\": \"all\"";
static const char home[] = "{\"from\": 0, \"to\": 4, \"stage\": 1, " CUT ", \"residual\": \"all\"";

static void stand_open(struct stand *s, const char *layers)
{
    char text[512];
    struct plan *p;
    int n = snprintf(text, sizeof text, "{\"hearth_plan\": 1, \"model\": {\"architecture\": \"llama\", \"layers\": 4, "
                     "\"d_ff\": 672}, \"ranks\": 3, \"layers\": [%s}", layers);
    assert_int_equal(plan_parse(text, (size_t)n, "plan", &p), ST_OK);
    stand_open_plan(s, model, p);
}

static uint8_t widths[MESSAGE_MAX];

/* A request for two tokens, for attention at `position` of sequence 0. */
static void ask_changed(struct stand *s, int from, uint64_t step, enum wire_part part, uint32_t layer,
                        uint32_t position, const struct wire_change *changes, uint32_t n_changes)
{
    const bool attention = part == PART_ATTENTION;
    const struct wire_run run = {.position = position, .n_tokens = 2};
    struct wire_request q = {.id = step, .part = part, .layer = layer, .n_tokens = 2, .form = FORM_Q8, .runs = &run,
                             .n_runs = attention, .changes = changes, .n_changes = attention ? n_changes : 0};
    size_t size = wire_request_encode(&q, &s->limits, message, sizeof message);
    for (uint32_t i = 0; i < 2 * s->limits.d_model; i++)
        q.codes[i] = (int8_t)(i % 100);
    for (uint32_t i = 0; i < 2 * s->limits.d_model / ACT_BLOCK; i++)
        q.scale[i] = 0.01f;
    throw(s, from, WIRE_REQUEST, message, size);
}

static void expect_partial(struct stand *s, int to, enum wire_part part, uint32_t layer, uint32_t n)
{
    struct wire_partial p;
    assert_int_equal(wire_partial_decode(reply, answer(s, to, WIRE_PARTIAL), &s->limits, widths, &p), ST_OK);
    assert_true(p.id == 1 && p.part == part && p.layer == layer && p.n_tokens == n && p.counts.bytes > 0);
}

static void ask(struct stand *s, int from, enum wire_part part, uint32_t layer, uint32_t position)
{
    ask_changed(s, from, 1, part, layer, position, &(struct wire_change){.page = 1, .from_page = WIRE_NO_PAGE}, 1);
}

static void stand_refuses(struct stand *s, int r, const char *says)
{
    expect_refusal(s, r, says);
    stand_close(s, NULL);
}

/* An owner keeps keys and values in pages: a step's changes come with each layer's request and count once. */
static void test_attention_requests(void **state)
{
    (void)state;
    static const struct wire_change next = {.index = 1, .page = 4, .from_page = WIRE_NO_PAGE};
    static const struct wire_change gap = {.index = 3, .page = 4, .from_page = WIRE_NO_PAGE};
    struct stand s;
    stand_open(&s, owner);
    static const uint32_t positions[] = {0, 2, 3, 0, 62};
    for (size_t i = 0; i < sizeof positions / sizeof *positions; i++) {
        ask(&s, 0, PART_ATTENTION, 3, positions[i]);
        expect_partial(&s, 0, PART_ATTENTION, 3, 2);
        ask(&s, 0, PART_FFN, 1, 0);
        expect_partial(&s, 0, PART_FFN, 1, 2);
    }
    ask(&s, 0, PART_ATTENTION, 3, 63);
    stand_refuses(&s, 0, "a run of sequence 0 to position 65, expected at most 64: its table has 1 pages");

    stand_open(&s, owner);
    ask(&s, 0, PART_ATTENTION, 0, 0);
    expect_partial(&s, 0, PART_ATTENTION, 0, 2);
    ask_changed(&s, 0, 2, PART_ATTENTION, 0, 63, &next, 1);
    answer(&s, 0, WIRE_PARTIAL);
    ask_changed(&s, 0, 2, PART_ATTENTION, 1, 63, &next, 1);
    answer(&s, 0, WIRE_PARTIAL);
    ask_changed(&s, 0, 3, PART_ATTENTION, 0, 63, &gap, 1);
    stand_refuses(&s, 0, "a change's index is 3, expected 0 to 2");

    stand_open(&s, owner);
    ask_changed(&s, 0, 1, PART_ATTENTION, 0, 63, &next, 1);
    stand_refuses(&s, 0, "page 4 for entry 1 of the table of sequence 0, expected at most entry 0");

    stand_open(&s, owner);
    ask(&s, 0, PART_ATTENTION, 0, N_CTX - 1);
    stand_refuses(&s, 0, "position is 159, expected 0 to 158");

    stand_open(&s, owner);
    ask(&s, 2, PART_ATTENTION, 0, 0);
    stand_refuses(&s, 2, "from rank 2, which the plan does not foresee");
}

/* Nobody asks where all ranks have the residual stream. */
static void test_requests_of_members(void **state)
{
    (void)state;
    for (uint32_t part = PART_ATTENTION; part < WIRE_PARTS; part++) {
        struct stand s;
        stand_open(&s, member);
        ask(&s, 0, part, 0, 0);
        stand_refuses(&s, 0, "from rank 0, which the plan does not foresee");
    }
}

static size_t a_step(void)
{
    struct made_step m;
    return wire_step_encode(made_step(&m, 0, WANT_TOKEN), message, sizeof message);
}

/* The same step as the home passes it on, with x. */
static size_t a_hidden(const struct stand *s)
{
    struct made_step m;
    float *hidden;
    const size_t size = wire_hidden_encode(made_step(&m, 0, WANT_TOKEN), &s->limits, message, sizeof message, &hidden);
    memset(hidden, 0, 3 * s->limits.d_model * sizeof *hidden);
    return size;
}

static void give(struct stand *s, int from, enum wire_part part, uint32_t layer, uint64_t step)
{
    struct wire_partial p = {.id = step, .part = part, .layer = layer, .n_tokens = 3};
    const size_t n_widths = 3 * wire_partial_widths(&s->limits);
    wire_partial_place(&p, &s->limits, message);
    memset(p.width, 4, n_widths);
    memset(p.packed, 0, wire_packed_bytes(p.width, n_widths));
    throw(s, from, WIRE_PARTIAL, message, wire_partial_encode(&p, &s->limits, message, sizeof message));
}

/* What is right is taken, also a block too early, for rank 0 need not wait for what rank 2 has not sent to rank 1 yet;
 * and all blocks too early. */
static void test_right_parts(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        const bool at_home = way % 2, at_once = way / 2;
        struct stand s;
        stand_open(&s, at_home ? home : member);
        throw(&s, 0, at_home ? WIRE_STEP : WIRE_HIDDEN, message, at_home ? a_step() : a_hidden(&s));
        for (int r = 0; r < RANKS && at_home; r += 2) { /* the home passes it on, with the rows of its tokens */
            struct wire_step step;
            const float *x;
            const size_t d = s.limits.d_model; /* below 1024 */
            const size_t size = answer(&s, r, WIRE_HIDDEN);
            assert_int_equal(wire_hidden_decode(reply, size, &s.limits, &s.copy, &step, &x), ST_OK);
            for (uint32_t t = 0; t < 3; t++) {
                float row[1024];
                dequantize_row(model->embedding.type,
                               model->embedding.data + (5 + t) * dtype_row_bytes(model->embedding.type, (int64_t)d),
                               (int64_t)d, row);
                assert_int_equal(step.tokens[t], 5 + t);
                assert_memory_equal(x + t * d, row, d * sizeof *row);
            }
        }
        for (uint32_t layer = 0; layer < s.limits.n_layers && at_once; layer++) {
            give(&s, 0, PART_ATTENTION, layer, 1);
            give(&s, 0, PART_FFN, layer, 1);
        }
        for (uint32_t layer = 0; layer < s.limits.n_layers; layer++) {
            expect_partial(&s, 0, PART_ATTENTION, layer, 3);
            expect_partial(&s, 2, PART_ATTENTION, layer, 3);
            if (layer == 0 && !at_once)
                give(&s, 0, PART_ATTENTION, layer, 1);
            expect_partial(&s, 0, PART_FFN, layer, 3);
            if (!at_once)
                give(&s, 0, PART_FFN, layer, 1);
            if (layer + 1 < s.limits.n_layers && !at_once)
                give(&s, 0, PART_ATTENTION, layer + 1, 1); /* ahead */
            give(&s, 2, PART_FFN, layer, 1);
            expect_partial(&s, 2, PART_FFN, layer, 3);
        }
        if (at_home) {
            struct wire_result r;
            const size_t size = answer(&s, 0, WIRE_RESULT);
            assert_int_equal(wire_result_decode(reply, size, &s.limits, &s.results, &r), ST_OK);
            assert_true(r.id == 1 && r.n_tokens == 1);
        }
        stand_close(&s, NULL);
    }
}

static void test_wrong_parts(void **state)
{
    (void)state;
    struct stand s;
    stand_open(&s, member);
    throw(&s, 0, WIRE_HIDDEN, message, a_hidden(&s));
    give(&s, 0, PART_FFN, 0, 1);
    stand_close(&s, "partial sum from rank 0 is of step 1, FFN of layer 0, 3 tokens; expected 1, attention of 0, 3");

    stand_open(&s, member);
    throw(&s, 0, WIRE_HIDDEN, message, a_hidden(&s));
    give(&s, 0, PART_ATTENTION, 0, 2);
    stand_close(&s, "partial sum from rank 0 is of step 2");

    stand_open(&s, member); /* rank 2 has no heads */
    throw(&s, 0, WIRE_HIDDEN, message, a_hidden(&s));
    give(&s, 2, PART_ATTENTION, 0, 1); /* kept for the next block, */
    give(&s, 0, PART_ATTENTION, 0, 1);
    give(&s, 0, PART_FFN, 0, 1);       /* of which it is not */
    stand_close(&s, "partial sum from rank 2 is of step 1, attention of layer 0, 3 tokens; expected 1, FFN of 0, 3");

    stand_open(&s, member);
    throw(&s, 0, WIRE_HIDDEN, message, a_hidden(&s));
    give(&s, 0, PART_ATTENTION, 0, 1);
    give(&s, 0, PART_FFN, 0, 1);       /* taken; rank 2's is missing */
    give(&s, 0, PART_ATTENTION, 1, 1); /* kept */
    give(&s, 0, PART_ATTENTION, 1, 1); /* the same again */
    give(&s, 2, PART_FFN, 0, 1);
    stand_close(&s, "partial sum from rank 0 is of step 1, attention of layer 1, 3 tokens; expected 1, FFN of 1, 3");

    stand_open(&s, "{\"from\": 0, \"to\": 4, \"stage\": 0, \"heads\": [0, 1, 2, 2], \"neurons\": [0, 256, 672, 672]}], "
                   "\"rows\": [0, 200, 299, 300], \"residual\": \"all\"");
    throw(&s, 0, WIRE_HIDDEN, message, a_hidden(&s));
    give(&s, 2, PART_FFN, 0, 1); /* it has no neurons, nor heads */
    stand_close(&s, "PARTIAL for layer 0 from rank 2, which was not asked for it or has answered");
}

/* A rank that is told to stop stays until the others have what they need of it, though its own part is done. */
static void test_stop_waits_for_parts(void **state)
{
    (void)state;
    struct stand s;
    stand_open(&s, "{\"from\": 0, \"to\": 4, \"stage\": 1, \"heads\": [0, 1, 2, 2], \"neurons\": [0, 0, 672, 672]}], "
                   "\"rows\": [0, 0, 299, 300], \"residual\": \"all\"");
    struct made_step m;
    throw(&s, 0, WIRE_STEP, message,
          wire_step_encode(made_step(&m, 0, WANT_NOTHING), message, sizeof message));
    for (uint32_t layer = 0; layer < s.limits.n_layers; layer++) {
        give(&s, 0, PART_ATTENTION, layer, 1);
        for (int part = PART_ATTENTION; part <= PART_FFN; part++) {
            expect_partial(&s, 0, (enum wire_part)part, layer, 3);
            if (layer + 1 < s.limits.n_layers)
                expect_partial(&s, 2, (enum wire_part)part, layer, 3);
        }
    }
    answer(&s, 0, WIRE_RESULT);
    throw(&s, 0, WIRE_STOP, NULL, 0);
    usleep(30000);
    assert_int_not_equal(pthread_tryjoin_np(s.thread, NULL), 0); /* rank 2 lacks the last layer's parts */
    expect_partial(&s, 2, PART_ATTENTION, s.limits.n_layers - 1, 3);
    expect_partial(&s, 2, PART_FFN, s.limits.n_layers - 1, 3);
    answer(&s, 2, WIRE_HIDDEN);
    answer(&s, 0, WIRE_HIDDEN);
    assert_int_equal(pthread_join(s.thread, NULL), 0);
    assert_int_equal(s.end, ST_OK);
    stand_free(&s);
}

/* Hidden states come from the home; if this rank is the home, steps from the coordinator. Nothing else is taken. */
static void test_wrong_steps(void **state)
{
    (void)state;
    struct stand s;
    for (int at_home = 0; at_home < 2; at_home++) {
        for (int from = 0; from < RANKS; from += 2) {
            for (int hidden = 0; hidden < 2; hidden++) {
                if (from == 0 && hidden != at_home)
                    continue; /* right */
                stand_open(&s, at_home ? home : member);
                throw(&s, from, hidden ? WIRE_HIDDEN : WIRE_STEP, message, hidden ? a_hidden(&s) : a_step());
                stand_close(&s, from ? "from rank 2, which the plan does not foresee"
                                     : "from rank 0, which the plan does not foresee");
            }
        }
    }
}

/* Messages of every kind that a member gets, some bytes changed, from both ranks in any order. */
static void test_random_parts(void **state)
{
    (void)state;
    uint64_t random = 5;
    int counts[ST_INTERNAL + 1] = {0};
    for (int round = 0; round < (SANITIZED ? 60 : 200); round++) {
        static const char *const plans[] = {owner, member, home};
        struct stand s;
        stand_open(&s, plans[round % 3]);
        s.random = &random;
        for (uint64_t n = 2 + made_draw(&random) % 8; n > 0; n--) {
            const uint64_t kind = made_draw(&random) % 4;
            const int from = made_draw(&random) % 4 ? 0 : 2;
            const uint32_t layer = (uint32_t)(made_draw(&random) % 2);
            const enum wire_part part = (enum wire_part)(made_draw(&random) % 2);
            if (kind == 0)
                throw(&s, from, WIRE_STEP, message, a_step());
            else if (kind == 1)
                throw(&s, from, WIRE_HIDDEN, message, a_hidden(&s));
            else if (kind == 2)
                give(&s, from, part, layer, 1);
            else
                ask(&s, from, part, layer, 0);
        }
        s.random = NULL;
        stand_end(&s, 0);
        assert_true(s.line[0]);
        counts[s.end]++;
    }
    assert_int_equal(counts[ST_OK] + counts[ST_INTERNAL], 0);
    assert_true(counts[ST_FORMAT] > 0 && counts[ST_PEER] > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_requests),   cmocka_unit_test(test_requests_of_members),
        cmocka_unit_test(test_right_parts),          cmocka_unit_test(test_wrong_parts),
        cmocka_unit_test(test_stop_waits_for_parts), cmocka_unit_test(test_wrong_steps),
        cmocka_unit_test(test_random_parts),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
