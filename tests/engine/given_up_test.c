/* Rank 0 in the middle of its work, among ranks that answer what they should not or fail: an error, and what was sent
 * is taken safely by whoever takes it when its sender has given up. */
#include "tests/engine/played_ranks.h"

#include "placement/measure/ping.h"
#include "worker/worker.h"

static status nothing_to_do(void *arg, bool *handled)
{
    (void)arg;
    *handled = false;
    return ST_OK;
}

static const struct wire_limits result_limits = {.n_batch = 4, .n_ctx = 16, .n_vocab = 20, .n_layers = 1, .d_model = 32,
                                                 .n_sequences = 2, .n_pages = 2, .n_runs = 2};

/* A session of which rank 1 is every stage, and a dialogue. */
static void open_dialogue(struct transport *t, status (*pump)(void *arg, bool *handled), void *arg, struct session **s,
                          struct dialogue **d)
{
    const struct session_options o = {.transport = t, .limits = result_limits, .n_stages = 1, .first_stage = 1,
                                      .last_stage = 1, .pump = pump, .pump_arg = arg};
    assert_int_equal(session_create(&o, s), ST_OK);
    assert_int_equal(dialogue_create(*s, d), ST_OK);
}

/* What it makes of one RESULT. */
static status result_of(int from, const uint8_t *bytes, size_t size)
{
    struct transport *t[3];
    struct session *s;
    struct dialogue *d;
    struct send send;
    struct log_catcher caught;
    int32_t token = 1, next;
    assert_int_equal(open_transports(3, t), ST_OK);
    open_dialogue(t[0], nothing_to_do, NULL, &s, &d);
    assert_int_equal(transport_post(t[from], 0, WIRE_RESULT, bytes, size, &send), ST_OK);
    log_catch(&caught);
    status st = dialogue_next(d, token, &next);
    log_catch(NULL);
    assert_true((st != ST_OK) == (caught.first_error[0] != 0));
    assert_int_equal(dialogue_length(d), st == ST_OK);
    for (int r = 0; r < 3; r++)
        transport_close(t[r]);
    dialogue_free(d);
    session_free(s);
    return st;
}

/* One token for one run. */
static size_t encode_token(uint64_t id, uint32_t sequence, int32_t token)
{
    const struct wire_answer a = {.sequence = sequence, .n_tokens = 1};
    struct wire_result r = {.id = id, .n_runs = 1, .n_tokens = 1, .answers = &a, .tokens = &token};
    return wire_result_encode(&r, message, sizeof message);
}

static void test_results(void **state)
{
    (void)state;
    const size_t n = encode_token(1, 0, 3);
    assert_int_equal(result_of(1, message, n), ST_OK);
    assert_int_equal(result_of(2, message, n), ST_FORMAT); /* rank 2 is no stage */
    for (size_t size = 0; size < n; size += 3)
        assert_int_equal(result_of(1, message, size), ST_FORMAT);
    assert_int_equal(result_of(1, message, MESSAGE_MAX), ST_FORMAT);
    assert_int_equal(result_of(1, message, encode_token(2, 0, 3)), ST_FORMAT);  /* of no step */
    assert_int_equal(result_of(1, message, encode_token(1, 1, 3)), ST_FORMAT);  /* of no run */
    assert_int_equal(result_of(1, message, encode_token(1, 0, 20)), ST_FORMAT); /* of no vocabulary */
    struct wire_result nothing = {.id = 1, .n_runs = 1, .answers = &(struct wire_answer){0}};
    assert_int_equal(result_of(1, message, wire_result_encode(&nothing, message, sizeof message)), ST_FORMAT);
}

/* ---- messages that somebody takes after their sender has given up ---- */

static status fails_after_a_while(void *arg, bool *handled)
{
    int *left = arg;
    *handled = true;
    return (*left)-- > 0 ? ST_OK : ST_PEER;
}

/* Asking for usage ends with a failure of another rank; the queries are taken later, when the stack has changed. Then
 * nothing more can be asked of the session. */
static void test_usage_given_up(void **state)
{
    (void)state;
    for (int polls = 0; polls < 4; polls++) {
        struct transport *t[3];
        struct session *s;
        struct dialogue *d;
        struct wire_usage usage;
        struct log_catcher caught;
        int left = polls;
        assert_int_equal(open_transports(3, t), ST_OK);
        open_dialogue(t[0], fails_after_a_while, &left, &s, &d);
        assert_int_equal(session_usage(s, &usage, NULL), ST_PEER);
        for (int r = 0; r < 3; r++)
            assert_int_equal(take_all(t[r]), 1);
        log_catch(&caught);
        assert_int_equal(session_usage(s, &usage, NULL), ST_PEER);
        log_catch(NULL);
        assert_non_null(strstr(caught.first_error, "the session broke earlier"));
        for (int r = 0; r < 3; r++) {
            assert_int_equal(take_all(t[r]), 0);
            transport_close(t[r]);
        }
        dialogue_free(d);
        session_free(s);
    }
}

/* A token fails: every operation is then refused with a line. */
static void test_token_given_up(void **state)
{
    (void)state;
    struct transport *t[2];
    struct session *s;
    struct wire_usage usage;
    struct log_catcher caught;
    struct dialogue *d;
    static const int32_t tokens[] = {1, 2, 3};
    int32_t next = -7;
    float values[20];
    assert_int_equal(open_transports(2, t), ST_OK);
    open_dialogue(t[0], fails_after_a_while, &(int){3}, &s, &d);
    assert_int_equal(dialogue_next(d, 1, &next), ST_PEER);
    assert_int_equal(take_all(t[1]), 1);
    for (int i = 0; i < 6; i++) {
        log_catch(&caught);
        status st = i == 0   ? dialogue_sampling(d, &sampler_greedy)
                    : i == 1 ? dialogue_prompt(d, tokens, 3, &next, NULL, NULL)
                    : i == 2 ? dialogue_next(d, 1, &next)
                    : i == 3 ? dialogue_score(d, tokens, 3, 0, values)
                    : i == 4 ? dialogue_logits(d, tokens, 3, values)
                             : session_usage(s, &usage, NULL);
        log_catch(NULL);
        assert_int_equal(st, ST_PEER);
        assert_non_null(strstr(caught.first_error, "the session broke earlier"));
    }
    assert_int_equal(next, -7);
    assert_int_equal(dialogue_length(d), 0);
    assert_int_equal(take_all(t[1]), 0); /* nothing more was sent */
    transport_close(t[1]);
    assert_int_equal(session_stop(s), ST_PEER);
    transport_close(t[0]);
    dialogue_free(d);
    session_free(s);
}

/* A link is measured, and the peer answers what it should not. What was sent to it is taken later. */
static void test_ping_given_up(void **state)
{
    (void)state;
    static struct ping p;
    struct transport *t[2];
    struct probe_link link;
    struct send pong;
    struct log_catcher caught;
    assert_int_equal(transport_inproc_open(&probe_channels, 2, t), ST_OK);
    p = (struct ping){.transport = t[0], .data = message, .n_sizes = 1, .sizes = {64}};
    assert_int_equal(transport_post(t[1], 0, PROBE_PONG, "xx", 2, &pong), ST_OK);
    log_catch(&caught);
    assert_int_equal(ping_measure(&p, 1, &link), ST_FORMAT);
    log_catch(NULL);
    assert_int_equal(take_all(t[1]), 1);
    transport_close(t[0]); /* it holds what is refused */
    transport_close(t[1]);
}

/* Nobody takes its message; its memory is not touched when somebody does at last. */
static void test_fail_unheard(void **state)
{
    (void)state;
    struct transport *t[2];
    struct arrival a;
    bool found;
    struct log_catcher caught;
    assert_int_equal(open_transports(2, t), ST_OK);
    worker_fail(t[1], "the disk burns");
    memset(message, 0xff, sizeof message);
    log_catch(&caught);
    assert_int_equal(transport_poll(t[0], ~0u, &a, &found), ST_PEER);
    log_catch(NULL);
    assert_string_equal(caught.first_error, "rank 1: the disk burns");
    transport_close(t[0]);
    transport_close(t[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_results),
        cmocka_unit_test(test_usage_given_up),
        cmocka_unit_test(test_token_given_up),
        cmocka_unit_test(test_ping_given_up),
        cmocka_unit_test(test_fail_unheard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
