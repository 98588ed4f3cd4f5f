/* RESULT of many runs: what is encoded comes back, its size is exact, each broken field is refused with one line, and
 * so is what answers another step. */
#include <math.h>

#include "tests/unit/wire_lent.h"

static status decode_result(uint8_t *in, size_t n)
{
    struct wire_result r;
    lend();
    return returned(wire_result_decode(in, n, &limits, &result_copy, &r));
}

/* The result of a_step: 3 scores; one token; one token with 20 best and its log probability. */
static const int32_t drawn[2] = {0, 999};
enum { ANSWER_AT = WIRE_HEADER, DRAWN_AT = ANSWER_AT + 3 * 16, TOP_AT = DRAWN_AT + 2 * 4, VALUE_AT = TOP_AT + 20 * 8 };

static size_t make_result(struct wire_answer answers[3], struct wire_top tops[20], uint8_t *message, size_t cap)
{
    struct wire_result r = {.id = a_step.id, .n_runs = 3, .counts = {1, 2, 3, 4}, .answers = answers, .tokens = drawn,
                            .tops = tops};
    for (int i = 0; i < 3; i++) {
        answers[i] = wire_answer_to(&runs[i], &limits);
        r.n_tokens += answers[i].n_tokens;
        r.n_tops += answers[i].n_top;
        r.n_values += answers[i].n_values;
    }
    for (int i = 0; i < 20; i++)
        tops[i] = (struct wire_top){999 - i, i == 19 ? -INFINITY : -(float)i};
    const size_t n = wire_result_encode(&r, message, cap);
    assert_int_equal(n, VALUE_AT + 4 * 4);
    assert_int_equal(wire_result_encode(&r, message, n - 1), 0);
    memcpy(r.values, (float[]){1.5f, NAN, 3, -0.25f}, 16); /* a peer's arithmetic may give anything */
    return n;
}

static void result_round_trip_and_refusals(void **state)
{
    (void)state;
    _Alignas(64) uint8_t message[512];
    struct wire_answer answers[3];
    struct wire_top tops[20];
    struct wire_result r;
    const size_t n = make_result(answers, tops, message, sizeof message);
    assert_true(n <= wire_result_max(&limits));
    lend();
    assert_int_equal(returned(wire_result_decode(message, n, &limits, &result_copy, &r)), ST_OK);
    assert_true(r.id == a_step.id && r.n_runs == 3 && r.n_tokens == 2 && r.n_tops == 20 && r.n_values == 4);
    assert_memory_equal(&r.counts, (&(struct wire_counts){1, 2, 3, 4}), sizeof r.counts);
    assert_memory_equal(r.answers, answers, sizeof answers);
    assert_memory_equal(r.tokens, drawn, sizeof drawn);
    assert_memory_equal(r.tops, tops, sizeof tops);
    assert_true(r.values[0] == 1.5f && isnan(r.values[1]) && r.values[3] == -0.25f);
    assert_int_equal(wire_result_answers(&r, &a_step, &limits), ST_OK);
    assert_size_is_exact(decode_result, message, n);
    assert_field_refused(decode_result, message, n, 8, 0, "n_runs is 0, expected 1 to 3");
    assert_field_refused(decode_result, message, n, 8, 4, "n_runs is 4");
    assert_field_refused(decode_result, message, n, 12, 9, "n_tokens is 9, expected 0 to 8");
    assert_field_refused(decode_result, message, n, 16, 161, "n_tops is 161, expected 0 to 160");
    assert_field_refused(decode_result, message, n, 20, 1000 + 3 * 192 + 8 + 1, "n_values is 1585, expected 0 to 1584");
    assert_field_refused(decode_result, message, n, ANSWER_AT, 5, "an answer's sequence is 5, expected 0 to 4");
    assert_field_refused(decode_result, message, n, ANSWER_AT, 2, "sequence 2 has two answers");
    assert_field_refused(decode_result, message, n, ANSWER_AT + 4, 1,
                         "the answers' n_tokens together is 3, expected 2");
    assert_field_refused(decode_result, message, n, ANSWER_AT + 4, UINT32_MAX, "the answers' n_tokens together");
    assert_field_refused(decode_result, message, n, ANSWER_AT + 8, 1, "the answers' n_top together is 21, expected 20");
    assert_field_refused(decode_result, message, n, ANSWER_AT + 12, 2,
                         "the answers' n_values together is 3, expected 4");
    assert_field_refused(decode_result, message, n, DRAWN_AT + 4, 1000, "a token is 1000, expected 0 to 999");
    assert_field_refused(decode_result, message, n, TOP_AT, (uint32_t)-1, "one of the best tokens is -1");
}

/* A result that is well formed and answers something else. */
static void a_result_answers_its_step(void **state)
{
    (void)state;
    _Alignas(64) uint8_t message[512];
    struct wire_answer answers[3];
    struct wire_top tops[20];
    struct wire_result r;
    const size_t n = make_result(answers, tops, message, sizeof message);
    assert_int_equal(wire_result_decode(message, n, &limits, &result_copy, &r), ST_OK);
    struct wire_run other[3];
    struct wire_step s = a_step;
    s.runs = other;
    for (int broken = -1; broken < 6; broken++) {
        memcpy(other, runs, sizeof other);
        s.id = a_step.id + (broken == 0);
        s.n_runs = broken == 1 ? 2 : 3;
        other[0].sequence += broken == 2;
        other[0].from += broken == 3;
        other[1].from -= broken == 4;
        other[2].n_top -= broken == 5;
        assert_int_equal(wire_result_answers(&r, &s, &limits), broken < 0 ? ST_OK : ST_FORMAT);
    }
}

/* How much each want brings. */
static void answers_are_as_long_as_what_is_wanted(void **state)
{
    (void)state;
    static const struct {
        enum wire_want want;
        uint32_t n_tokens, n_top, n_values;
    } cases[] = {
        {WANT_NOTHING, 0, 0, 0}, {WANT_TOKEN, 1, 0, 0}, {WANT_TOKENS, 4, 0, 0}, {WANT_SCORES, 0, 0, 4},
        {WANT_LOGITS, 1, 0, 1000}, {WANT_TOP, 1, 3, 1}, {WANT_STATES, 0, 0, 96}, {WANT_SUM, 0, 0, 192},
        {WANT_LOG_PROBS, 0, 3, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const bool probs = cases[i].want == WANT_LOG_PROBS;
        const bool many = probs || cases[i].want == WANT_TOKENS || cases[i].want == WANT_SCORES ||
                          cases[i].want == WANT_SUM;
        const struct wire_run q = {.sequence = 3, .n_tokens = 6, .want = cases[i].want, .from = many ? 2 : 0,
                                   .n_top = cases[i].n_top};
        const struct wire_answer a = wire_answer_to(&q, &limits);
        assert_int_equal(a.sequence, 3);
        assert_int_equal(a.n_tokens, cases[i].n_tokens);
        assert_int_equal(a.n_top, cases[i].n_top * (probs ? 4 : 1));
        assert_int_equal(a.n_values, cases[i].n_values);
    }
}

/* Whatever bytes change, decoders stay within what they are lent (the guards). */
static void changed_bytes_harm_nobody(void **state)
{
    (void)state;
    _Alignas(64) uint8_t message[512];
    struct wire_answer answers[3];
    struct wire_top tops[20];
    const size_t n = make_result(answers, tops, message, sizeof message);
    uint32_t accepted = 0;
    for (uint32_t seed = 0; seed < 10000; seed++)
        accepted += decode_damaged(decode_result, message, n, seed) == ST_OK;
    assert_in_range(accepted, 1, 9999);
}

/* Sums are integers: exact in any order, and bounded whatever comes. */
static void states_add_up(void **state)
{
    (void)state;
    enum { N = 4, STATES = 1000 };
    static float states[STATES][N];
    float values[2 * N], mean[N];
    int64_t all[N] = {0}, parts[N] = {0}, part[N] = {0};
    uint32_t x = 1;
    for (int i = 0; i < STATES; i++)
        for (int k = 0; k < N; k++)
            states[i][k] = (float)(int32_t)(x = x * 1664525 + 1013904223) / (float)(1u << (7 * k + 8));
    for (int i = 0; i < STATES; i++)
        wire_sum_state(all, states[i], N);
    for (int i = STATES; i-- > 0;) {
        wire_sum_state(part, states[i], N);
        if (i % 37 == 0) {
            wire_sum_put(part, N, values);
            wire_sum_add(parts, values, N);
            memset(part, 0, sizeof part);
        }
    }
    assert_memory_equal(all, parts, sizeof all);
    wire_sum_mean(all, N, STATES, mean);
    for (int k = 1; k < N; k++) {
        double plain = 0;
        for (int i = 0; i < STATES; i++)
            plain += (double)states[i][k] / STATES;
        assert_true(fabs(mean[k] - plain) < 1e-7 + 1e-7 * fabs(plain));
    }
    /* Halves go to the even one; what is too large, or none, is the largest. */
    const float strange[N] = {0x1p-25f, 0x3p-25f, INFINITY, NAN};
    memset(part, 0, sizeof part);
    wire_sum_state(part, strange, N);
    assert_true(part[0] == 0 && part[1] == 2 && part[2] == INT64_C(1) << 42 && part[3] == -(INT64_C(1) << 42));
    memset(values, 0xff, sizeof values); /* a peer's sum: -1 */
    wire_sum_add(part, values, N);
    assert_true(part[0] == -1 && part[2] == (INT64_C(1) << 42) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(result_round_trip_and_refusals),
        cmocka_unit_test(a_result_answers_its_step),
        cmocka_unit_test(answers_are_as_long_as_what_is_wanted),
        cmocka_unit_test(states_add_up),
        cmocka_unit_test(changed_bytes_harm_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
