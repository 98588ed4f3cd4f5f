/* A session over a transport, with the model of the ranks in the place of the own worker: every event comes once, to
 * whom it belongs, and nothing waits that says it does not. And a dialogue on it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

#include "base/log.h"
#include "coordinator/dialogue.h"
#include "coordinator/scoring.h"
#include "coordinator/session_parts.h"
#include "tests/unit/alloc_fail.h"
#include "tests/unit/ranks_model.h"
#include "wire/channels.h"

enum { WIDTH = 8, RESULT_BYTES = 16384 };

/* Rank 0's worker, and what is on its way. */
static struct house {
    struct transport *transport;
    struct ranks ranks;
    struct wire_limits limits;
    struct session *s;
    struct arena memory;                   /* of what STEP is copied to */
    struct sequence heard[MOST_SLOTS];     /* what the ranks know of whom a slot belongs to */
    int32_t text[MOST_SLOTS][MOST_CTX];
    struct result {
        _Alignas(TRANSPORT_ALIGN) uint8_t bytes[RESULT_BYTES];
        struct send send;
    } results[MOST_STEPS];
    uint32_t n_done, n_steps;
    bool garbled;                          /* results are */
    bool asleep;                           /* the worker: it takes no step */
} h;

static float as_float(uint64_t score_of_model) { return (float)(score_of_model >> 44); }

/* A run as the ranks hear of it. */
static struct step_run hear_run(const struct wire_run *r, const int32_t *tokens, uint32_t first)
{
    static const enum wish_kind kind[] = {
        [WANT_NOTHING] = WISH_NOTHING, [WANT_TOKEN] = WISH_TOKEN,   [WANT_TOKENS] = WISH_TOKENS,
        [WANT_SCORES] = WISH_SCORES,   [WANT_LOGITS] = WISH_LOGITS, [WANT_TOP] = WISH_TOP, [WANT_STATES] = WISH_STATES,
        [WANT_SUM] = WISH_SUM,         [WANT_LOG_PROBS] = WISH_LOG_PROBS};
    memcpy(h.text[r->sequence] + r->position, tokens + first, r->n_tokens * sizeof *tokens);
    return (struct step_run){.sequence = &h.heard[r->sequence], .slot = r->sequence, .position = r->position,
                             .first = first, .n_tokens = r->n_tokens,
                             .wish = {.kind = kind[r->want], .from = r->from, .successor = r->next_token}};
}

static void hear_begin(const struct wire_begin *b, struct step *step)
{
    memcpy(h.text[b->sequence], b->text, b->n_text * sizeof *b->text);
    h.heard[b->sequence].sampling.seed = b->sampling.seed;
    for (uint32_t i = 0; i < step->n_runs; i++) {
        if (step->runs[i].slot != b->sequence)
            continue;
        assert_int_equal(b->n_text, step->runs[i].position);
        step->runs[i].begins = true;
    }
}

static void hear_step(const struct wire_step *w)
{
    static struct step_run runs[MOST_SLOTS];
    static struct change changes[MOST_CHANGES];
    struct step step = {.id = w->id, .n_runs = w->n_runs, .n_tokens = w->n_tokens, .n_changes = w->n_changes,
                        .runs = runs, .changes = changes, .tokens = (int32_t *)w->tokens};
    uint32_t first = 0;
    for (uint32_t i = 0; i < w->n_runs; first += w->runs[i++].n_tokens)
        runs[i] = hear_run(&w->runs[i], w->tokens, first);
    for (uint32_t i = 0; i < w->n_begins; i++)
        hear_begin(&w->begins[i], &step);
    for (uint32_t i = 0; i < w->n_changes; i++)
        changes[i] = (struct change){w->changes[i].sequence, w->changes[i].index, w->changes[i].page,
                                     w->changes[i].from_page};
    ranks_send(&h.ranks, &step, 0);
}

/* What the ranks answer: of scores and tokens what the model says, of all else numbers in order. */
static size_t answer(const struct wire_step *w, const struct model_step *m, uint8_t *out)
{
    struct wire_answer answers[MOST_SLOTS];
    int32_t tokens[MOST_BATCH];
    struct wire_top tops[MOST_BATCH * WIRE_TOP];
    struct wire_result r = {.id = w->id, .n_runs = w->n_runs, .counts = {.bytes = 1000}, .answers = answers,
                            .tokens = tokens, .tops = tops};
    for (uint32_t i = 0; i < w->n_runs; i++) {
        answers[i] = wire_answer_to(&w->runs[i], &h.limits);
        for (uint32_t j = 0; j < answers[i].n_tokens; j++)
            tokens[r.n_tokens++] = (int32_t)m->runs[i].values[j];
        for (uint32_t j = 0; j < answers[i].n_top; j++)
            tops[r.n_tops++] = (struct wire_top){(int32_t)j, -(float)j};
        r.n_values += answers[i].n_values;
    }
    const size_t size = wire_result_encode(&r, out, RESULT_BYTES);
    float *value = r.values;
    for (uint32_t i = 0; i < w->n_runs; i++)
        for (uint32_t j = 0; j < answers[i].n_values; j++)
            *value++ = w->runs[i].want == WANT_SCORES || w->runs[i].want == WANT_LOG_PROBS
                           ? as_float(m->runs[i].values[j]) : (float)j;
    return size;
}

/* One step at a time, from STEP to RESULT. */
static status pump(void *arg, bool *handled)
{
    struct arrival a;
    struct wire_copy copy;
    struct wire_step w;
    uint64_t when;
    const struct model_step *m = NULL;
    (void)arg;
    *handled = false;
    if (h.asleep)
        return ST_OK;
    assert_int_equal(transport_poll(h.transport, 1u << WIRE_STEP, &a, handled), ST_OK);
    if (!*handled)
        return ST_OK;
    h.memory.used = 0;
    wire_lay_copy(&copy, &h.limits, &h.memory);
    assert_int_equal(wire_step_decode(a.data, a.size, &h.limits, &copy, &w), ST_OK);
    hear_step(&w);
    while (!m)
        m = ranks_run(&h.ranks, ranks_next(&h.ranks, &when));
    assert_int_equal(h.ranks.wrong, 0);
    struct result *r = &h.results[h.n_done++ % MOST_STEPS];
    const size_t size = answer(&w, m, r->bytes) - h.garbled;
    assert_int_equal(transport_post(h.transport, 0, WIRE_RESULT, r->bytes, size, &r->send), ST_OK);
    return transport_release(h.transport, &a);
}

static struct session *begin(uint32_t sequences, uint32_t pages, uint32_t ctx, uint32_t batch, uint32_t stages)
{
    struct transport_config c = {0};
    struct arena dry;
    wire_channels(c.channel, TRANSPORT_KINDS);
    h.n_done = 0;
    h.garbled = h.asleep = false;
    h.limits = (struct wire_limits){.n_batch = batch, .n_ctx = ctx, .n_vocab = VOCABULARY, .n_layers = 1,
                                    .d_model = WIDTH, .n_sequences = sequences, .n_pages = pages, .n_runs = sequences};
    for (uint32_t i = 0; i < MOST_SLOTS; i++)
        h.heard[i].tokens = h.text[i];
    arena_dry(&dry);
    wire_lay_copy(&(struct wire_copy){0}, &h.limits, &dry);
    assert_int_equal(arena_map(&h.memory, dry.used), ST_OK);
    assert_int_equal(transport_inproc_open(&c, 1, &h.transport), ST_OK);
    assert_int_equal(transport_connect(h.transport), ST_OK);
    ranks_reset(&h.ranks, stages < MOST_STAGES ? stages : MOST_STAGES, 1);
    const struct session_options o = {.transport = h.transport, .limits = h.limits, .n_stages = stages, .pump = pump};
    assert_int_equal(session_create(&o, &h.s), ST_OK);
    return h.s;
}

/* The next event of q that is not a chunk's. */
static status await(struct sequence *q, struct session_event *e)
{
    status st;
    do
        st = session_wait(h.s, e);
    while (!st && !e->st && (e->sequence != q || (e->kind == WISH_NOTHING && !e->over)));
    return st ? st : e->st;
}

static void end(void)
{
    assert_int_equal(session_stop(h.s), ST_OK);
    assert_int_equal(session_schedule(h.s).free_pages, session_schedule(h.s).pages);
    transport_close(h.transport);
    session_free(h.s);
    arena_unmap(&h.memory);
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

static struct sequence *open_text(const struct text *t)
{
    struct sequence *q = NULL;
    assert_int_equal(session_open(h.s, &q), ST_OK);
    assert_int_equal(session_text(h.s, q, t->tokens, t->n), ST_OK);
    return q;
}

static struct sequence *submit(const struct text *t, uint64_t seed)
{
    struct sequence *q = open_text(t);
    const struct sampler_params p = {.temperature = 1, .seed = seed};
    assert_int_equal(session_submit(h.s, q, &token, &p), ST_OK);
    return q;
}

/* Nine texts, four at a time, in two stages: 20 tokens each, one of them given up on the way. */
static void everybody_gets_its_own_tokens(void **state)
{
    (void)state;
    enum { N = 9, MAKE = 20, GIVEN_UP = 4 };
    struct session *s = begin(4, 12, 150, 32, 2);
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
        assert_int_equal(session_poll(s, &e, &found), ST_OK);
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
            session_close(s, q[i]);
            q[i] = NULL;
            n_over++;
        } else {
            assert_int_equal(session_append(s, q[i], e.answer.tokens[0]), ST_OK);
        }
    }
    assert_true(waited);
    assert_true(session_counts(s).bytes > 0);
    session_reset_counts(s);
    assert_int_equal(session_counts(s).bytes, 0);
    end(); /* with what was under way for those who have gone */
}

static void who_does_not_answer_has_ended(void **state)
{
    (void)state;
    struct session *s = begin(2, 4, 100, 32, 1);
    struct log_catcher caught;
    struct session_event e;
    struct text t = some_text(10, 1);
    struct sequence *q = submit(&t, 3);
    assert_int_equal(await(q, &e), ST_OK);
    assert_int_equal(q->state, SEQUENCE_RUNNING);
    log_catch(&caught);
    assert_int_equal(session_wait(s, &e), ST_USAGE);
    log_catch(NULL);
    assert_int_equal(q->state, SEQUENCE_IDLE);
    assert_int_equal(q->n_tokens, 10);
    /* The same again, and then it is answered by another token than was drawn. */
    assert_int_equal(session_submit(s, q, &token, NULL), ST_OK);
    assert_int_equal(await(q, &e), ST_OK);
    assert_int_equal(e.answer.tokens[0], alone(&t, 3));
    add(&t, (e.answer.tokens[0] + 1) % VOCABULARY);
    assert_int_equal(session_append(s, q, t.tokens[t.n - 1]), ST_OK);
    assert_int_equal(await(q, &e), ST_OK);
    assert_int_equal(e.answer.tokens[0], alone(&t, 3));
    session_close(s, q);
    end();
}

static void right_drafts_come_with_the_token_after_them(void **state)
{
    (void)state;
    struct session *s = begin(2, 4, 100, 32, 1);
    struct session_event e;
    struct text t = some_text(10, 1);
    struct sequence *q = submit(&t, 3);
    assert_int_equal(await(q, &e), ST_OK);
    assert_int_equal(session_append(s, q, e.answer.tokens[0]), ST_OK);
    add(&t, e.answer.tokens[0]);
    const int32_t right = alone(&t, 3);
    session_propose(s, q, (const int32_t[]){right, (right + 1) % VOCABULARY, 0}, 3);
    add(&t, right);
    const int32_t wrong = alone(&t, 3) == (right + 1) % VOCABULARY; /* by chance: then it is right */
    assert_int_equal(await(q, &e), ST_OK);
    assert_int_equal(e.kind, WISH_TOKENS);
    if (!wrong)
        assert_int_equal(e.answer.n_tokens, 2);
    assert_int_equal(e.answer.tokens[0], right);
    assert_int_equal(e.answer.tokens[1], alone(&t, 3));
    assert_int_equal(q->n_tokens, t.n + e.answer.n_tokens - 2);
    session_close(s, q);
    end();
}

/* As many as there are stages, or four; one where the only stage is here. */
static void so_many_steps_are_under_way(void **state)
{
    (void)state;
    static const uint32_t expected[] = {0, 1, 4, 4, 4, 5, 6};
    for (uint32_t stages = 1; stages < sizeof expected / sizeof *expected; stages++) {
        struct session *s = begin(2, 4, 100, 8, stages);
        struct session_event e;
        struct text t = some_text(100, 1);
        struct sequence *q = submit(&t, 3);
        bool found;
        h.asleep = true;
        for (int i = 0; i < 3; i++)
            assert_int_equal(session_poll(s, &e, &found), ST_OK);
        assert_int_equal(schedule_n_steps(s->schedule), expected[stages]);
        h.asleep = false;
        assert_int_equal(await(q, &e), ST_OK);
        assert_int_equal(e.answer.tokens[0], alone(&t, 3));
        session_close(s, q);
        end();
    }
}

struct scored {
    const struct text *windows;
    size_t n;
    status stop;
};

static status check_window(void *arg, size_t window, const struct score *found)
{
    struct scored *c = arg;
    const struct text *t = &c->windows[window];
    struct score expected = {.windows = 1};
    assert_int_equal(window, c->n);
    c->n++;
    for (uint32_t i = t->n / 2; i + 1 < t->n; i++) {
        const float nll = as_float(score(t->held[i], t->tokens[i + 1]));
        expected.scored++;
        expected.sum += nll;
        expected.squares += (double)nll * nll;
    }
    assert_memory_equal(found, &expected, sizeof expected);
    return window == 5 ? c->stop : ST_OK;
}

static void windows_are_scored_in_order(void **state)
{
    (void)state;
    enum { N = 10, MOST = 90 };
    static struct text texts[N];
    static int32_t tokens[N * MOST];
    for (uint32_t size = 3; size <= MOST; size += 29) {
        const struct windows w = {.tokens = tokens, .size = size, .n = N};
        for (uint32_t i = 0; i < N; i++) {
            texts[i] = some_text(size, i);
            memcpy(tokens + i * size, texts[i].tokens, size * sizeof *tokens);
        }
        struct session *s = begin(4, size % 2 ? 8 : 3, 100, 40, 1 + size % 3);
        struct scored c = {.windows = texts};
        assert_int_equal(windows_score(s, &w, 0, N, check_window, &c), ST_OK);
        assert_int_equal(c.n, N);
        c = (struct scored){.windows = texts, .n = 3, .stop = ST_CANCELLED};
        assert_int_equal(windows_score(s, &w, 3, N, check_window, &c), ST_CANCELLED);
        assert_int_equal(c.n, 6);
        assert_int_equal(windows_score(s, &w, 4, 4, check_window, &c), ST_OK);
        end();
    }
}

/* Every object is made whole or not at all, and nobody's pages are kept. */
static void memory_that_is_not_there_is_no_session(void **state)
{
    (void)state;
    enum { N = 4, SIZE = 20 };
    static struct text texts[N];
    static int32_t tokens[N * SIZE];
    struct session *s = begin(3, 8, 100, 40, 2), *another = NULL;
    const struct session_options o = {.transport = h.transport, .limits = h.limits, .n_stages = 3, .pump = pump};
    const struct windows w = {.tokens = tokens, .size = SIZE, .n = N};
    struct scored c = {.windows = texts};
    struct dialogue *d = NULL;
    struct log_catcher caught;
    status st;
    for (uint32_t i = 0; i < N; i++) {
        texts[i] = some_text(SIZE, i);
        memcpy(tokens + i * SIZE, texts[i].tokens, SIZE * sizeof *tokens);
    }
    log_catch(&caught);
    for (long n = 0; alloc_fail_at(n), st = session_create(&o, &another), alloc_failed(); n++)
        assert_int_equal(st, ST_NOMEM);
    assert_int_equal(st, ST_OK);
    session_free(another);
    for (long n = 0; alloc_fail_at(n), st = dialogue_create(s, &d), alloc_failed(); n++)
        assert_int_equal(st, ST_NOMEM);
    assert_int_equal(st, ST_OK);
    dialogue_free(d);
    for (long n = 0; alloc_fail_at(n), st = windows_score(s, &w, 0, N, check_window, &c), alloc_failed(); n++)
        assert_int_equal(st, ST_NOMEM);
    log_catch(NULL);
    assert_int_equal(st, ST_OK);
    assert_int_equal(c.n, N);
    end();
}

/* Whatever is wanted comes, of each run its own. */
static void all_that_can_be_wanted_comes(void **state)
{
    (void)state;
    static const struct wish wishes[] = {{.kind = WISH_TOP, .n_top = 3}, {.kind = WISH_STATES}, {.kind = WISH_LOGITS},
                                         {.kind = WISH_LOGITS}, {.kind = WISH_SCORES, .from = 7, .successor = 5},
                                         {.kind = WISH_SUM, .from = 3},
                                         {.kind = WISH_LOG_PROBS, .from = 5, .successor = 5, .n_top = 2}};
    enum { N = sizeof wishes / sizeof *wishes };
    static const uint32_t values[N] = {1, WIDTH, VOCABULARY, VOCABULARY, 5, 2 * WIDTH, 7};
    struct session *s = begin(N, 8, 100, 96, 1);
    struct sequence *q[N];
    struct text t[N];
    for (uint32_t i = 0; i < N; i++) {
        t[i] = some_text(12, i);
        q[i] = open_text(&t[i]);
        assert_int_equal(session_submit(s, q[i], &wishes[i], NULL), ST_OK);
    }
    for (uint32_t n = 0; n < N; n++) {
        struct session_event e;
        uint32_t i = 0;
        assert_int_equal(session_wait(s, &e), ST_OK);
        while (q[i] != e.sequence || (i == 2 && e.kind == WISH_NOTHING))
            i++;
        if (e.kind == WISH_NOTHING) { /* of two that want logits one waits with its last token */
            n--;
            continue;
        }
        assert_int_equal(e.kind, wishes[i].kind);
        assert_int_equal(e.over, e.kind == WISH_STATES || wants_each(&wishes[i]));
        assert_int_equal(e.answer.n_tokens, !e.over);
        assert_int_equal(e.answer.n_tops, wishes[i].n_top * (e.kind == WISH_LOG_PROBS ? values[i] : 1));
        assert_int_equal(e.answer.n_values, values[i]);
        for (uint32_t j = 0; j < e.answer.n_values && i < 4; j++)
            assert_true(e.answer.values[j] == (float)j);
        for (uint32_t j = 0; j < e.answer.n_tops; j++)
            assert_int_equal(e.answer.tops[j].token, j);
    }
    for (uint32_t i = 0; i < N; i++)
        session_close(s, q[i]);
    end();
}

static uint64_t told;

static void note_progress(void *arg, const char *what, uint64_t done, uint64_t total)
{
    (void)what;
    assert_ptr_equal(arg, &told);
    assert_true(done > told && done <= total);
    told = done;
}

/* Cut back, gone on with, refused: a dialogue says what the model would say to its text alone. */
static void a_dialogue_is_its_text(void **state)
{
    (void)state;
    struct session *s = begin(2, 4, 100, 8, 2);
    const struct sampler_params p = {.temperature = 1, .seed = 9};
    struct log_catcher caught;
    struct dialogue *d;
    struct text t = some_text(30, 1);
    int32_t next;
    float values[VOCABULARY];
    assert_int_equal(dialogue_create(s, &d), ST_OK);
    assert_int_equal(dialogue_sampling(d, &p), ST_OK);
    told = 0;
    assert_int_equal(dialogue_prompt(d, t.tokens, 30, &next, note_progress, &told), ST_OK);
    assert_int_equal(told, 30);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(next, alone(&t, 9));
        add(&t, (next + i) % VOCABULARY);
        assert_int_equal(dialogue_next(d, t.tokens[t.n - 1], &next), ST_OK);
    }
    log_catch(&caught);
    assert_int_equal(dialogue_prompt(d, t.tokens, 31, &next, NULL, NULL), ST_FULL);
    assert_int_equal(dialogue_next(d, VOCABULARY, &next), ST_USAGE);
    assert_int_equal(dialogue_logits(d, t.tokens, 0, values), ST_USAGE);
    assert_int_equal(dialogue_score(d, t.tokens, 101, 1, values), ST_FULL);
    log_catch(NULL);
    assert_int_equal(dialogue_length(d), 70);
    t.n = 20;
    dialogue_truncate(d, 20);
    dialogue_truncate(d, 50);
    add(&t, 7);
    assert_int_equal(dialogue_logits(d, &t.tokens[20], 1, values), ST_OK);
    assert_true(values[3] == 3);
    add(&t, 8);
    told = 0;
    assert_int_equal(dialogue_prompt(d, &t.tokens[21], 1, NULL, note_progress, &told), ST_OK);
    assert_int_equal(told, 0); /* a chunk alone is none */
    add(&t, 9);
    assert_int_equal(dialogue_next(d, 9, &next), ST_OK);
    assert_int_equal(next, alone(&t, 9));
    t = some_text(30, 2);
    assert_int_equal(dialogue_score(d, t.tokens, 30, 4, values), ST_OK);
    for (uint32_t i = 4; i < 29; i++)
        assert_true(values[i - 4] == as_float(score(t.held[i], t.tokens[i + 1])));
    assert_int_equal(dialogue_length(d), 29);
    dialogue_free(d);
    end();
}

/* Refused before anything is forgotten. */
static void memory_that_is_too_small_leaves_a_dialogue_as_it_was(void **state)
{
    (void)state;
    struct session *s = begin(2, 1, 100, 32, 1);
    struct log_catcher caught;
    struct dialogue *d;
    struct text t = some_text(90, 1);
    float values[VOCABULARY + 100];
    int32_t next;
    assert_int_equal(dialogue_create(s, &d), ST_OK);
    assert_int_equal(dialogue_prompt(d, t.tokens, 60, NULL, NULL, NULL), ST_OK);
    log_catch(&caught);
    assert_int_equal(dialogue_score(d, t.tokens, 80, 1, values), ST_FULL);
    assert_int_equal(dialogue_prompt(d, &t.tokens[60], 5, &next, NULL, NULL), ST_FULL);
    log_catch(NULL);
    assert_string_equal(caught.first_error, "all KV memory has room for 64 tokens, 0 are taken and 80 more are wanted; "
                                            "--kv-budget sets it");
    assert_int_equal(dialogue_length(d), 60);
    t.n = 64;
    assert_int_equal(dialogue_prompt(d, &t.tokens[60], 4, &next, NULL, NULL), ST_OK);
    assert_int_equal(next, alone(&t, 0));
    dialogue_free(d);
    end();
}

static void memory_that_is_too_small_is_an_event(void **state)
{
    (void)state;
    struct session *s = begin(2, 1, 100, 32, 1);
    struct log_catcher caught;
    struct session_event e;
    struct text t = some_text(63, 1);
    struct sequence *q = submit(&t, 3);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(await(q, &e), ST_OK);
        assert_int_equal(session_append(s, q, e.answer.tokens[0]), ST_OK);
    }
    log_catch(&caught);
    assert_int_equal(await(q, &e), ST_FULL);
    log_catch(NULL);
    assert_non_null(strstr(caught.first_error, "all KV memory is full at 65 tokens"));
    assert_true(e.over);
    assert_int_equal(q->n_tokens, 65);
    session_close(s, q);
    end();
}

static void a_token_of_no_vocabulary_is_refused(void **state)
{
    (void)state;
    struct session *s = begin(2, 4, 8, 32, 1);
    struct log_catcher caught;
    struct sequence *q = NULL;
    assert_int_equal(session_open(s, &q), ST_OK);
    log_catch(&caught);
    assert_int_equal(session_text(s, q, (const int32_t[]){1, VOCABULARY}, 2), ST_USAGE);
    assert_string_equal(caught.first_error, "token 1 is 32, the vocabulary has 32");
    assert_int_equal(session_text(s, q, (const int32_t[]){-1}, 1), ST_USAGE);
    assert_int_equal(session_text(s, q, (const int32_t[9]){0}, 9), ST_FULL);
    assert_int_equal(session_submit(s, q, &token, NULL), ST_USAGE);
    log_catch(NULL);
    assert_int_equal(q->n_tokens, 0);
    session_close(s, q);
    end();
}

/* What the ranks would refuse, and end everybody's turns for, ends nobody's. */
static void what_ranks_would_refuse_is_not_sent(void **state)
{
    (void)state;
    static const struct token_bias biases[2] = {{31, -1}, {32, 1}};
    static const struct grammar_op op = {.kind = GRAMMAR_RETURN};
    static const struct grammar grammar = {&op, 1};
    static const struct {
        struct wish w;
        struct sampler_params p;
        const char *line;
    } bad[] = {
        {{.kind = WISH_TOKEN}, {.n_bias = 2, .bias = biases}, "token 32 has a bias of 1: the vocabulary has 32, and "
         "biases are finite"},
        {{.kind = WISH_TOKEN}, {.n_bias = WIRE_BIASES + 1, .bias = biases}, "513 tokens have a bias: at most 512"},
        {{.kind = WISH_TOKEN}, {.grammar = &grammar}, "a grammar of 1 ops where there are none"},
        {{.kind = WISH_TOP, .n_top = WIRE_TOP + 1}, {.seed = 1}, "the 21 best tokens are wanted: at most 20"},
        {{.kind = WISH_TOKENS}, {.seed = 1}, "wish 2 is none that a turn can have"},
        {{.kind = 9}, {.seed = 1}, "wish 9 is none that a turn can have"},
        {{.kind = WISH_SCORES, .successor = -1}, {.seed = 1},
         "the last token's successor is -1, the vocabulary has 32"},
        {{.kind = WISH_LOG_PROBS, .n_top = WIRE_TOP + 1}, {.seed = 1}, "the 21 best tokens are wanted: at most 20"},
        {{.kind = WISH_LOG_PROBS, .successor = 32}, {.seed = 1},
         "the last token's successor is 32, the vocabulary has 32"},
        {{.kind = WISH_TOKEN}, {.temperature = NAN}, "a sampling parameter is not finite"},
        {{.kind = WISH_TOKEN}, {.frequency_penalty = -INFINITY}, "a sampling parameter is not finite"},
    };
    struct session *s = begin(2, 4, 100, 32, 1);
    struct log_catcher caught;
    struct session_event e;
    struct text t = some_text(10, 1);
    struct sequence *other = submit(&t, 3), *q = open_text(&t);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        log_catch(&caught);
        assert_int_equal(session_submit(s, q, &bad[i].w, &bad[i].p), ST_USAGE);
        log_catch(NULL);
        assert_string_equal(caught.first_error, bad[i].line);
    }
    assert_int_equal(await(other, &e), ST_OK);
    assert_int_equal(session_append(s, other, e.answer.tokens[0]), ST_OK);
    add(&t, e.answer.tokens[0]);
    session_propose(s, other, (const int32_t[]){alone(&t, 3), VOCABULARY, 1}, 3);
    assert_int_equal(await(other, &e), ST_OK);
    assert_int_equal(e.answer.n_tokens, 2);
    session_close(s, other);
    session_close(s, q);
    end();
}

static void a_garbled_result_breaks_the_session(void **state)
{
    (void)state;
    struct session *s = begin(2, 4, 100, 32, 1);
    struct log_catcher caught;
    struct session_event e;
    struct text t = some_text(10, 1);
    struct sequence *q = submit(&t, 3);
    h.garbled = true;
    log_catch(&caught);
    assert_int_equal(session_wait(s, &e), ST_FORMAT);
    log_catch(NULL);
    assert_non_null(strstr(caught.first_error, "from rank 0: RESULT message: size"));
    log_catch(&caught);
    assert_int_equal(session_wait(s, &e), ST_PEER);
    assert_int_equal(session_submit(s, q, &token, NULL), ST_PEER);
    log_catch(NULL);
    assert_string_equal(caught.first_error, "the session broke earlier: start again");
    session_close(s, q);
    transport_close(h.transport);
    session_free(s); /* the sequence too, whose step never came back */
    arena_unmap(&h.memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everybody_gets_its_own_tokens),
        cmocka_unit_test(who_does_not_answer_has_ended),
        cmocka_unit_test(right_drafts_come_with_the_token_after_them),
        cmocka_unit_test(so_many_steps_are_under_way),
        cmocka_unit_test(windows_are_scored_in_order),
        cmocka_unit_test(memory_that_is_not_there_is_no_session),
        cmocka_unit_test(all_that_can_be_wanted_comes),
        cmocka_unit_test(a_dialogue_is_its_text),
        cmocka_unit_test(memory_that_is_too_small_leaves_a_dialogue_as_it_was),
        cmocka_unit_test(memory_that_is_too_small_is_an_event),
        cmocka_unit_test(a_token_of_no_vocabulary_is_refused),
        cmocka_unit_test(what_ranks_would_refuse_is_not_sent),
        cmocka_unit_test(a_garbled_result_breaks_the_session),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
