/* Sessions over a transport, with the model of the ranks in the place of the own worker: every event comes once, to
 * whom it belongs, and nothing waits that says it does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "base/log.h"
#include "coordinator/sessions.h"
#include "tests/unit/ranks_model.h"
#include "wire/channels.h"

enum { STEP_BYTES = 64 };

/* Rank 0's worker, and what is on its way. */
static struct house {
    struct transport *transport;
    struct ranks ranks;
    struct sessions *s;
    struct result {
        _Alignas(TRANSPORT_ALIGN) uint8_t bytes[TRANSPORT_ALIGN];
        struct send send;
    } results[MOST_STAGES];
    struct model_step done[MOST_STAGES]; /* of each result */
    uint32_t n_done, n_decoded;
    int32_t tokens[MOST_SLOTS][MOST_CTX];
    float values[MOST_SLOTS][MOST_CTX];
    bool garbled;                        /* results are */
} h;

static size_t encode(const struct step *step, uint8_t *out, size_t cap)
{
    assert_true(cap >= sizeof step->id);
    ranks_send(&h.ranks, step, 0);
    memcpy(out, &step->id, sizeof step->id);
    return sizeof step->id;
}

static float as_float(uint64_t score_of_model) { return (float)(score_of_model >> 44); }

static status decode(void *in, size_t n, const struct step *step, struct session_answer *answers,
                     struct wire_counts *counts)
{
    const struct model_step *m = &h.done[h.n_decoded % MOST_STAGES];
    if (h.garbled) {
        log_error("RESULT message: garbled");
        return ST_FORMAT;
    }
    assert_int_equal(n, sizeof step->id);
    assert_memory_equal(in, &step->id, n);
    for (uint32_t i = 0; i < m->n_runs; i++) {
        const struct model_run *r = &m->runs[i];
        const bool scores = r->wish.kind == WISH_SCORES;
        for (uint32_t j = 0; j < r->n_values; j++) {
            h.tokens[i][j] = (int32_t)r->values[j];
            h.values[i][j] = as_float(r->values[j]);
        }
        answers[i] = (struct session_answer){.n_tokens = scores ? 0 : r->n_values, .tokens = h.tokens[i],
                                             .n_values = scores ? r->n_values : 0, .values = h.values[i]};
    }
    counts->bytes += 1000;
    h.n_decoded++;
    return ST_OK;
}

/* One step at a time, from STEP to RESULT. */
static status pump(void *arg, bool *handled)
{
    struct arrival a;
    uint64_t when;
    const struct model_step *m = NULL;
    (void)arg;
    assert_int_equal(transport_poll(h.transport, 1u << WIRE_STEP, &a, handled), ST_OK);
    if (!*handled)
        return ST_OK;
    while (!m)
        m = ranks_run(&h.ranks, ranks_next(&h.ranks, &when));
    assert_int_equal(h.ranks.wrong, 0);
    struct result *r = &h.results[h.n_done % MOST_STAGES];
    h.done[h.n_done++ % MOST_STAGES] = *m;
    memcpy(r->bytes, a.data, a.size);
    assert_int_equal(transport_post(h.transport, 0, WIRE_RESULT, r->bytes, a.size, &r->send), ST_OK);
    return transport_release(h.transport, &a);
}

static struct sessions *begin(uint32_t sequences, uint32_t pages, uint32_t ctx, uint32_t batch, uint32_t stages)
{
    struct transport_config c = {0};
    wire_channels(c.channel, TRANSPORT_KINDS);
    h.n_done = h.n_decoded = 0;
    h.garbled = false;
    assert_int_equal(transport_inproc_open(&c, 1, &h.transport), ST_OK);
    assert_int_equal(transport_connect(h.transport), ST_OK);
    ranks_reset(&h.ranks, stages, 1);
    const struct sessions_options o = {.transport = h.transport, .schedule = {sequences, pages, ctx, batch, stages},
                                       .n_vocab = VOCABULARY, .pump = pump, .step_max = STEP_BYTES,
                                       .result_max = STEP_BYTES, .encode = encode, .decode = decode};
    assert_int_equal(sessions_create(&o, &h.s), ST_OK);
    return h.s;
}

static void end(void)
{
    assert_int_equal(sessions_schedule(h.s).free_pages, sessions_schedule(h.s).pages);
    transport_close(h.transport);
    sessions_free(h.s);
}

static const struct wish token = {.kind = WISH_TOKEN};

/* A text and what the model would make of it. */
struct text {
    int32_t tokens[MOST_CTX];
    uint64_t held[MOST_CTX];
    uint32_t n;
};

static void add(struct text *t, int32_t next)
{
    t->held[t->n] = held(t->n ? t->held[t->n - 1] : 0, next, t->n);
    t->tokens[t->n++] = next;
}

static int32_t alone(const struct text *t, uint64_t seed) { return drawn(seed, t->held[t->n - 1]); }

static struct text some_text(uint32_t n, uint32_t which)
{
    struct text t = {.n = 0};
    while (t.n < n)
        add(&t, (int32_t)(mix(t.n < 40 ? t.n : t.n + 1000 * which) % VOCABULARY));
    return t;
}

static struct sequence *submit(const struct text *t, uint64_t seed)
{
    struct sequence *q = NULL;
    const struct sampler_params p = {.temperature = 1, .seed = seed};
    assert_int_equal(sessions_open(h.s, &q), ST_OK);
    assert_int_equal(sessions_text(h.s, q, t->tokens, t->n), ST_OK);
    assert_int_equal(sessions_submit(h.s, q, &token, &p), ST_OK);
    return q;
}

/* Nine texts, four at a time, in two stages: 20 tokens each, one of them given up on the way. */
static void everybody_gets_its_own_tokens(void **state)
{
    (void)state;
    enum { N = 9, MAKE = 20, GIVEN_UP = 4 };
    struct sessions *s = begin(4, 12, 150, 32, 2);
    struct sequence *q[N];
    struct text t[N];
    uint32_t made[N] = {0}, n_over = 0;
    bool found, waited = false;
    for (uint32_t i = 0; i < N; i++) {
        t[i] = some_text(20 + 10 * i, i);
        q[i] = submit(&t[i], i);
    }
    while (n_over < N) {
        struct session_event e;
        assert_int_equal(sessions_poll(s, &e, &found), ST_OK);
        waited = waited || !found;
        if (!found || e.kind == WISH_NOTHING)
            continue;
        uint32_t i = 0;
        while (q[i] != e.sequence)
            i++;
        assert_int_equal(e.answer.n_tokens, 1);
        assert_int_equal(e.answer.tokens[0], alone(&t[i], i));
        add(&t[i], e.answer.tokens[0]);
        if (++made[i] == MAKE || (i == GIVEN_UP && made[i] == 3)) {
            sessions_close(s, q[i]);
            q[i] = NULL;
            n_over++;
        } else {
            assert_int_equal(sessions_append(s, q[i], e.answer.tokens[0]), ST_OK);
        }
    }
    assert_true(waited);
    assert_true(sessions_counts(s).bytes > 0);
    sessions_reset_counts(s);
    assert_int_equal(sessions_counts(s).bytes, 0);
    while (sessions_schedule(s).free_pages < 12) /* what was under way for those who have gone */
        assert_int_equal(sessions_poll(s, &(struct session_event){0}, &found), ST_OK);
    end();
}

static void who_does_not_answer_has_ended(void **state)
{
    (void)state;
    struct sessions *s = begin(2, 4, 100, 32, 1);
    struct log_catcher caught;
    struct session_event e;
    struct text t = some_text(10, 1);
    struct sequence *q = submit(&t, 3);
    assert_int_equal(sessions_await(s, q, &e, NULL, NULL), ST_OK);
    assert_int_equal(q->state, SEQUENCE_RUNNING);
    log_catch(&caught);
    assert_int_equal(sessions_wait(s, &e), ST_USAGE);
    log_catch(NULL);
    assert_int_equal(q->state, SEQUENCE_IDLE);
    assert_int_equal(q->n_tokens, 10);
    /* The same again, and then it is answered by another token than was drawn. */
    assert_int_equal(sessions_submit(s, q, &token, NULL), ST_OK);
    assert_int_equal(sessions_await(s, q, &e, NULL, NULL), ST_OK);
    assert_int_equal(e.answer.tokens[0], alone(&t, 3));
    add(&t, (e.answer.tokens[0] + 1) % VOCABULARY);
    assert_int_equal(sessions_append(s, q, t.tokens[t.n - 1]), ST_OK);
    assert_int_equal(sessions_await(s, q, &e, NULL, NULL), ST_OK);
    assert_int_equal(e.answer.tokens[0], alone(&t, 3));
    sessions_close(s, q);
    sessions_poll(s, &e, &(bool){false});
    end();
}

static void right_drafts_come_with_the_token_after_them(void **state)
{
    (void)state;
    struct sessions *s = begin(2, 4, 100, 32, 1);
    struct session_event e;
    struct text t = some_text(10, 1);
    struct sequence *q = submit(&t, 3);
    assert_int_equal(sessions_await(s, q, &e, NULL, NULL), ST_OK);
    assert_int_equal(sessions_append(s, q, e.answer.tokens[0]), ST_OK);
    add(&t, e.answer.tokens[0]);
    const int32_t right = alone(&t, 3);
    sessions_propose(s, q, (const int32_t[]){right, (right + 1) % VOCABULARY, 0}, 3);
    add(&t, right);
    const int32_t wrong = alone(&t, 3) == (right + 1) % VOCABULARY; /* by chance: then it is right */
    assert_int_equal(sessions_await(s, q, &e, NULL, NULL), ST_OK);
    assert_int_equal(e.kind, WISH_TOKENS);
    if (!wrong)
        assert_int_equal(e.answer.n_tokens, 2);
    assert_int_equal(e.answer.tokens[0], right);
    assert_int_equal(e.answer.tokens[1], alone(&t, 3));
    assert_int_equal(q->n_tokens, t.n + e.answer.n_tokens - 2);
    sessions_close(s, q);
    sessions_poll(s, &e, &(bool){false});
    end();
}

struct scored {
    const struct text *windows;
    size_t n;
    uint32_t from;
    status stop;
};

static status check_window(void *arg, size_t window, const float *nll)
{
    struct scored *c = arg;
    const struct text *t = &c->windows[window];
    assert_int_equal(window, c->n);
    c->n++;
    for (uint32_t i = c->from; i + 1 < t->n; i++)
        assert_true(nll[i - c->from] == as_float(score(t->held[i], t->tokens[i + 1])));
    return window == 5 ? c->stop : ST_OK;
}

static void windows_are_scored_in_order(void **state)
{
    (void)state;
    enum { SIZE = 70, N = 10 };
    static struct text windows[N];
    static int32_t tokens[N * SIZE];
    struct log_catcher caught;
    for (uint32_t i = 0; i < N; i++) {
        windows[i] = some_text(SIZE, i);
        memcpy(tokens + i * SIZE, windows[i].tokens, SIZE * sizeof *tokens);
    }
    for (uint32_t from = 0; from < SIZE - 1; from += 17) {
        struct sessions *s = begin(4, from % 2 ? 8 : 3, 100, 40, 1 + from % 3);
        struct scored c = {.windows = windows, .from = from};
        assert_int_equal(sessions_score(s, tokens, N, SIZE, from, check_window, &c), ST_OK);
        assert_int_equal(c.n, N);
        c = (struct scored){.windows = windows, .from = from, .stop = ST_CANCELLED};
        assert_int_equal(sessions_score(s, tokens, N, SIZE, from, check_window, &c), ST_CANCELLED);
        assert_int_equal(c.n, 6);
        log_catch(&caught);
        assert_int_equal(sessions_score(s, tokens, N, SIZE, SIZE - 1, check_window, &c), ST_USAGE);
        log_catch(NULL);
        for (int i = 0; i < 20; i++)
            assert_int_equal(sessions_poll(s, &(struct session_event){0}, &(bool){false}), ST_OK);
        end();
    }
}

static void memory_that_is_too_small_is_an_event(void **state)
{
    (void)state;
    struct sessions *s = begin(2, 1, 100, 32, 1);
    struct session_event e;
    struct text t = some_text(63, 1);
    struct sequence *q = submit(&t, 3);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(sessions_await(s, q, &e, NULL, NULL), ST_OK);
        assert_int_equal(sessions_append(s, q, e.answer.tokens[0]), ST_OK);
    }
    assert_int_equal(sessions_await(s, q, &e, NULL, NULL), ST_FULL);
    assert_true(e.over);
    assert_int_equal(q->n_tokens, 65);
    sessions_close(s, q);
    end();
}

static void a_token_of_no_vocabulary_is_refused(void **state)
{
    (void)state;
    struct sessions *s = begin(2, 4, 8, 32, 1);
    struct log_catcher caught;
    struct sequence *q = NULL;
    assert_int_equal(sessions_open(s, &q), ST_OK);
    log_catch(&caught);
    assert_int_equal(sessions_text(s, q, (const int32_t[]){1, VOCABULARY}, 2), ST_USAGE);
    assert_string_equal(caught.first_error, "token 1 is 32, the vocabulary has 32");
    assert_int_equal(sessions_text(s, q, (const int32_t[]){-1}, 1), ST_USAGE);
    assert_int_equal(sessions_text(s, q, (const int32_t[9]){0}, 9), ST_FULL);
    assert_int_equal(sessions_submit(s, q, &token, NULL), ST_USAGE);
    log_catch(NULL);
    assert_int_equal(q->n_tokens, 0);
    sessions_close(s, q);
    end();
}

static void a_garbled_result_breaks_all_sessions(void **state)
{
    (void)state;
    struct sessions *s = begin(2, 4, 100, 32, 1);
    struct log_catcher caught;
    struct session_event e;
    struct text t = some_text(10, 1);
    struct sequence *q = submit(&t, 3);
    h.garbled = true;
    log_catch(&caught);
    assert_int_equal(sessions_wait(s, &e), ST_FORMAT);
    log_catch(NULL);
    assert_string_equal(caught.first_error, "from rank 0: RESULT message: garbled");
    log_catch(&caught);
    assert_int_equal(sessions_wait(s, &e), ST_PEER);
    assert_int_equal(sessions_submit(s, q, &token, NULL), ST_PEER);
    log_catch(NULL);
    assert_string_equal(caught.first_error, "the session broke earlier: start again");
    sessions_close(s, q);
    transport_close(h.transport);
    sessions_free(s); /* the sequence too, whose step never came back */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everybody_gets_its_own_tokens),
        cmocka_unit_test(who_does_not_answer_has_ended),
        cmocka_unit_test(right_drafts_come_with_the_token_after_them),
        cmocka_unit_test(windows_are_scored_in_order),
        cmocka_unit_test(memory_that_is_too_small_is_an_event),
        cmocka_unit_test(a_token_of_no_vocabulary_is_refused),
        cmocka_unit_test(a_garbled_result_breaks_all_sessions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
