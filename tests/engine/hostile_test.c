/* A worker, the roll call and a session among ranks that send what they should not: an error, never a crash or a hang.
 * The test plays the other ranks by hand over the in-process transport. */
#include "tests/engine/made_model.h"
#include "tests/engine/made_step.h"

#include <pthread.h>

#include "base/log.h"
#include "node/roll_call.h"
#include "placement/measure/ping.h"
#include "sampling/token_trie.h"
#include "wire/channels.h"
#include "node/member.h"
#include "worker/worker.h"

enum { N_CTX = 112, N_BATCH = 8, MOST_SENDS = 64, MESSAGE_MAX = 1 << 16, BUSY_AT = 52 /* in a PARTIAL */ };

static status open_transports(int n_ranks, struct transport **t)
{
    struct transport_config config;
    wire_channels(config.channel, TRANSPORT_KINDS);
    return transport_inproc_open(&config, n_ranks, t);
}

static char model_path[MADE_NAME];
static struct model *model;
static struct token_trie *trie;

static int open_model(void **state)
{
    (void)state;
    struct tokenizer *t;
    made_model_write(&made_quantised, model_path);
    if (model_load(model_path, &model) || tokenizer_create(model->file, &t))
        return -1;
    status st = token_trie_create(t, &trie);
    tokenizer_free(t);
    return st;
}

static int close_model(void **state)
{
    (void)state;
    token_trie_free(trie);
    model_free(model);
    return unlink(model_path);
}

/* What rank 1, the worker, is in the plan; rank 0 is the test. */
enum role { OWNER, ONLY_STAGE, LAST_STAGE, ACTIVE_OWNER, ACTIVE_STAGE, N_ROLES };

static struct plan *make_plan(enum role role)
{
    static const char *const layers[] = {
        [OWNER] = "{\"from\": 0, \"to\": 4, \"stage\": 0, \"neurons\": [0, 256, 672]}",
        [ONLY_STAGE] = "{\"from\": 0, \"to\": 4, \"stage\": 1, \"neurons\": [0, 256, 672]}",
        [LAST_STAGE] = "{\"from\": 0, \"to\": 2, \"stage\": 0, \"neurons\": [0, 256, 672]},"
                       "{\"from\": 2, \"to\": 4, \"stage\": 1, \"neurons\": [0, 0, 672]}",
        [ACTIVE_OWNER] = "{\"from\": 0, \"to\": 4, \"stage\": 0, \"down\": \"stage\", \"neurons\": [0, 256, 672]}",
        [ACTIVE_STAGE] = "{\"from\": 0, \"to\": 4, \"stage\": 1, \"down\": \"stage\", \"neurons\": [[[0, 250], "
                         "[300, 306]], [[250, 300], [306, 672]]]}",
    };
    char text[512];
    struct plan *p;
    int n = snprintf(text, sizeof text, "{\"hearth_plan\": 1, \"model\": {\"architecture\": \"llama\", \"layers\": 4, "
                     "\"d_ff\": 672}, \"ranks\": 2, \"layers\": [%s]}", layers[role]);
    assert_int_equal(plan_parse(text, (size_t)n, "plan", &p), ST_OK);
    return p;
}

struct stand { /* the worker and what is thrown at it */
    struct plan *plan;
    struct transport *t[2];
    struct worker_options o;
    struct wire_limits limits;
    struct wire_copy copy;   /* for what is decoded */
    struct wire_result_copy results;
    struct arena arena;      /* theirs */
    struct worker *worker;
    pthread_t thread;
    status end;
    char line[256]; /* the worker's first error */
    struct send sends[MOST_SENDS];
    uint8_t *messages[MOST_SENDS];
    int n;
};

static void *run_worker(void *arg)
{
    struct stand *s = arg;
    struct log_catcher caught;
    log_catch(&caught);
    s->end = worker_run(s->worker);
    snprintf(s->line, sizeof s->line, "%.255s", caught.first_error);
    /* The line names who sent the message, or the layer; this rank is named by who passes it on. */
    const char *named = s->end == ST_NAN ? "layer 0: the FFN" : "rank 0";
    if (s->end && (!strstr(caught.first_error, named) || strstr(caught.first_error, "rank 1")))
        s->end = ST_INTERNAL;
    log_catch(NULL);
    return NULL;
}

static void lay_copies(struct stand *s)
{
    assert_int_equal(arena_map(&s->arena, 1 << 20), ST_OK);
    wire_lay_copy(&s->copy, &s->limits, &s->arena);
    wire_lay_result_copy(&s->results, &s->limits, &s->arena);
}

static void stand_open(struct stand *s, enum role role)
{
    *s = (struct stand){.plan = make_plan(role)};
    assert_int_equal(open_transports(2, s->t), ST_OK);
    s->o = (struct worker_options){.model = model, .plan = s->plan, .transport = s->t[1],
                                   .devices = member_devices, .n_devices = 1, .n_threads = 1,
                                   .n_ctx = N_CTX, .n_batch = N_BATCH, .n_grammar_ops = 8, .trie = trie,
                                   .n_sequences = MADE_SEQUENCES, .n_pages = MADE_PAGES};
    assert_int_equal(kernels_select(NULL, &s->o.kernels), ST_OK);
    s->limits = worker_limits(&s->o);
    lay_copies(s);
    assert_int_equal(worker_create(&s->o, &s->worker), ST_OK);
    assert_int_equal(pthread_create(&s->thread, NULL, run_worker, s), 0);
}

/* A copy of the message goes to the worker. */
static void throw(struct stand *s, int kind, const void *bytes, size_t size)
{
    assert_true(s->n < MOST_SENDS);
    uint8_t *copy = aligned_alloc(64, (size + 64) / 64 * 64); /* its own piece of memory: a sanitizer sees its end */
    assert_non_null(copy);
    if (size)
        memcpy(copy, bytes, size);
    s->messages[s->n] = copy;
    assert_int_equal(transport_post(s->t[0], 1, kind, copy, size, &s->sends[s->n++]), ST_OK);
}

/* Ends the worker, with the message that always does; returns how it ended. */
static status stand_close(struct stand *s)
{
    uint8_t enough[WIRE_FAILED_MAX];
    throw(s, WIRE_FAILED, enough, wire_failed_encode("enough", enough, sizeof enough));
    while (pthread_tryjoin_np(s->thread, NULL) != 0) { /* takes whatever it has to say */
        struct arrival a;
        bool found;
        assert_int_equal(transport_poll(s->t[0], ~0u, &a, &found), ST_OK);
        if (found)
            assert_int_equal(transport_release(s->t[0], &a), ST_OK);
    }
    transport_close(s->t[1]);
    transport_close(s->t[0]);
    worker_free(s->worker);
    plan_free(s->plan);
    arena_unmap(&s->arena);
    for (int i = 0; i < s->n; i++)
        free(s->messages[i]);
    return s->end;
}

/* One message to a fresh worker: it ends with ST_FORMAT. */
static void refuses(enum role role, int kind, const void *bytes, size_t size)
{
    struct stand s;
    stand_open(&s, role);
    throw(&s, kind, bytes, size);
    status end = stand_close(&s);
    if (end != ST_FORMAT)
        fail_msg("role %d, %s of %zu bytes: ended with '%s'", role, wire_name(kind), size, status_name(end));
}

/* ---- messages as they should be ---- */

static size_t good_step(uint32_t position, uint8_t *out)
{
    struct made_step m;
    return wire_step_encode(made_step(&m, position, WANT_TOKEN), out, MESSAGE_MAX);
}

static size_t good_hidden(const struct wire_limits *l, uint32_t position, uint8_t *out)
{
    struct made_step m;
    float *hidden;
    size_t size = wire_hidden_encode(made_step(&m, position, WANT_TOKEN), l, out, MESSAGE_MAX, &hidden);
    for (uint32_t i = 0; i < 3 * l->d_model; i++)
        hidden[i] = (float)(i % 7) - 3;
    return size;
}

static size_t good_request(const struct wire_limits *l, uint32_t part, uint32_t layer, uint32_t form, uint8_t *out)
{
    struct made_step m;
    struct wire_request f = {.id = 1, .part = part, .layer = layer, .n_tokens = 2, .form = form};
    made_step(&m, 0, WANT_NOTHING);
    m.run.n_tokens = 2;
    if (part == PART_ATTENTION) {
        f.n_runs = f.n_changes = 1;
        f.runs = &m.run;
        f.changes = &m.change;
    }
    size_t size = wire_request_encode(&f, l, out, MESSAGE_MAX);
    for (uint32_t i = 0; i < 2 * l->d_model; i++) {
        if (form == FORM_F32)
            f.f32[i] = (float)(i % 5) - 2;
        else
            f.codes[i] = (int8_t)(i % 100);
    }
    for (uint32_t i = 0; form == FORM_Q8 && i < 2 * l->d_model / ACT_BLOCK; i++)
        f.scale[i] = 0.01f;
    return size;
}

static size_t good_partial(const struct wire_limits *l, uint32_t layer, uint8_t *out)
{
    struct wire_partial p = {.id = 1, .part = PART_FFN, .layer = layer, .n_tokens = 3};
    const size_t n_widths = 3 * wire_partial_widths(l);
    wire_partial_place(&p, l, out);
    for (size_t i = 0; i < n_widths; i++)
        p.width[i] = (uint8_t)(i % 2 ? 8 : 4);
    memset(p.packed, 0, wire_packed_bytes(p.width, n_widths));
    return wire_partial_encode(&p, l, out, MESSAGE_MAX);
}

enum { TEST_HAS = 256, WORKER_HAS = 416 }; /* neurons */

/* Every third of rank 0's neurons is live. */
static size_t good_active(const struct wire_limits *l, uint32_t layer, uint8_t *out)
{
    enum { LIVE = (TEST_HAS + 2) / 3 };
    struct wire_active a = {.id = 1, .layer = layer, .n_tokens = 3, .n_pairs = 3 * LIVE};
    size_t size = wire_active_encode(&a, l, out, MESSAGE_MAX);
    for (uint32_t t = 0; t <= 3; t++)
        a.first[t] = t * LIVE;
    for (uint32_t i = 0; i < a.n_pairs; i++) {
        a.index[i] = 3 * (i % LIVE);
        a.value[i] = (float)(i % 5) - 2;
    }
    return size;
}

/* Waits for a message of the worker; its size. */
static size_t answer_of(struct transport *t, int kind, uint8_t *out)
{
    struct arrival a;
    bool found = false;
    while (!found)
        assert_int_equal(transport_poll(t, 1u << kind, &a, &found), ST_OK);
    assert_true(a.size <= MESSAGE_MAX);
    memcpy(out, a.data, a.size);
    assert_int_equal(transport_release(t, &a), ST_OK);
    return a.size;
}

static size_t answer(struct stand *s, int kind, uint8_t *out) { return answer_of(s->t[0], kind, out); }

static _Alignas(64) uint8_t message[MESSAGE_MAX], reply[MESSAGE_MAX], taken[MESSAGE_MAX];

/* What a rank says in FAILED, which it must have sent to the one at `t`. */
static void refused_with(struct transport *t, const char *says)
{
    char reason[WIRE_FAILED_MAX];
    assert_int_equal(wire_failed_decode(reply, answer_of(t, WIRE_FAILED, reply), reason), ST_OK);
    if (!strstr(reason, says))
        fail_msg("expected '%s', got '%s'", says, reason);
}

/* One request to a fresh worker: it says why it does not answer, and answers the next one. */
static void refuses_request(enum role role, const void *bytes, size_t size, const char *says)
{
    struct stand s;
    stand_open(&s, role);
    throw(&s, WIRE_REQUEST, bytes, size);
    refused_with(s.t[0], "refused a request of rank 0: ");
    throw(&s, WIRE_REQUEST, bytes, size);
    refused_with(s.t[0], says);
    if (role == OWNER) {
        throw(&s, WIRE_REQUEST, message, good_request(&s.limits, PART_FFN, 3, FORM_Q8, message));
        answer(&s, WIRE_PARTIAL, reply);
    }
    assert_int_equal(stand_close(&s), ST_PEER);
}

/* A stage that gets right answers goes on to a token. */
static void right_answers(enum role role)
{
    struct stand s;
    struct wire_result r;
    stand_open(&s, role);
    throw(&s, WIRE_STEP, message, good_step(0, message));
    for (uint32_t layer = 0; layer < s.limits.n_layers; layer++) {
        struct wire_request f;
        assert_int_equal(wire_request_decode(reply, answer(&s, WIRE_REQUEST, reply), &s.limits, &s.copy, &f), ST_OK);
        assert_true(f.layer == layer && f.n_tokens == 3);
        if (role == ACTIVE_STAGE)
            throw(&s, WIRE_ACTIVE, message, good_active(&s.limits, layer, message));
        else
            throw(&s, WIRE_PARTIAL, message, good_partial(&s.limits, layer, message));
    }
    if (plan_last_stage(s.plan) == 1) {
        struct arrival a;
        bool found = false, ffn = false;
        while (!found && !ffn) { /* rows of the output matrix may be the test's as well: then it is asked for them */
            assert_int_equal(transport_poll(s.t[0], 1u << WIRE_RESULT | 1u << WIRE_REQUEST, &a, &found), ST_OK);
            ffn = found && a.kind == WIRE_REQUEST;
        }
        if (!ffn) {
            assert_int_equal(wire_result_decode(a.data, a.size, &s.limits, &s.results, &r), ST_OK);
            assert_true(r.id == 1 && r.n_runs == 1 && r.n_tokens == 1);
        }
        assert_int_equal(transport_release(s.t[0], &a), ST_OK);
    }
    assert_int_equal(stand_close(&s), ST_PEER);
}

/* The messages below are refused for what is wrong with them, not because all are: right ones are answered. */
static void test_right_messages(void **state)
{
    (void)state;
    struct stand s;
    struct wire_partial p;
    struct wire_active a;
    stand_open(&s, OWNER);
    for (uint32_t form = FORM_Q8; form <= FORM_F32; form++) {
        throw(&s, WIRE_REQUEST, message, good_request(&s.limits, PART_FFN, 3, form, message));
        assert_int_equal(wire_partial_decode(reply, answer(&s, WIRE_PARTIAL, reply), &s.limits, taken, &p), ST_OK);
        assert_true(p.id == 1 && p.layer == 3 && p.n_tokens == 2);
    }
    assert_int_equal(stand_close(&s), ST_PEER);

    stand_open(&s, ACTIVE_OWNER);
    for (uint32_t form = FORM_Q8; form <= FORM_F32; form++) {
        throw(&s, WIRE_REQUEST, message, good_request(&s.limits, PART_FFN, 3, form, message));
        size_t size = answer(&s, WIRE_ACTIVE, reply);
        assert_int_equal(wire_active_decode(reply, size, &s.limits, WORKER_HAS, (uint32_t *)taken, &a), ST_OK);
        assert_true(a.id == 1 && a.layer == 3 && a.n_tokens == 2 && a.n_pairs > 0);
    }
    assert_int_equal(stand_close(&s), ST_PEER);

    for (int role = ONLY_STAGE; role <= ACTIVE_STAGE; role += ACTIVE_STAGE - ONLY_STAGE)
        right_answers(role);
}

/* Kinds that the worker's role does not foresee, and sizes that no message has. */
static void test_unforeseen(void **state)
{
    (void)state;
    static const struct {
        enum role role;
        int kind;
        size_t size;
    } cases[] = {
        {OWNER, WIRE_STEP, 76},         {OWNER, WIRE_HIDDEN, 1000},      {OWNER, WIRE_STOP, 1},
        {ONLY_STAGE, WIRE_HIDDEN, 1000}, {ONLY_STAGE, WIRE_STEP, 0},     {ONLY_STAGE, WIRE_STEP, 63},
        {ONLY_STAGE, WIRE_STEP, 64},    {ONLY_STAGE, WIRE_STEP, MESSAGE_MAX}, {LAST_STAGE, WIRE_STEP, 76},
        {LAST_STAGE, WIRE_HIDDEN, 0},   {LAST_STAGE, WIRE_HIDDEN, 128},  {LAST_STAGE, WIRE_HIDDEN, MESSAGE_MAX},
    };
    memset(message, 0, sizeof message);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuses(cases[i].role, cases[i].kind, message, cases[i].size);
}

/* Right in form, wrong in what they say. */
static void test_wrong_fields(void **state)
{
    (void)state;
    struct stand s;
    stand_open(&s, ONLY_STAGE); /* for the limits */
    struct wire_limits l = s.limits;
    stand_close(&s);
    refuses(ONLY_STAGE, WIRE_STEP, message, good_step(N_CTX - 2, message));
    refuses(LAST_STAGE, WIRE_HIDDEN, message, good_hidden(&l, N_CTX - 2, message));
    refuses_request(OWNER, message, good_request(&l, PART_FFN, l.n_layers, FORM_Q8, message),
                    "from rank 0: REQUEST message: layer is 4, expected 0 to 3");
    refuses_request(OWNER, message, good_request(&l, PART_ATTENTION, 0, FORM_Q8, message), "this rank holds no head");
    size_t size = good_request(&l, PART_FFN, 0, FORM_Q8, message);
    message[WIRE_HEADER + 5] = 0x80; /* a code of -128 */
    refuses_request(OWNER, message, size, "a code is -128");
    static const size_t sizes[] = {0, 20, WIRE_HEADER, MESSAGE_MAX};
    for (int i = 0; i < 4; i++)
        refuses_request(OWNER, message, sizes[i], "REQUEST message");
    refuses_request(ONLY_STAGE, message, MESSAGE_MAX, "which the plan does not foresee");
    size = good_request(&l, PART_FFN, 0, FORM_Q8, message);
    message[20] = 7; /* no such form */
    refuses_request(OWNER, message, size, "form 7");
    size = good_step(0, message);
    message[size - 11] = 2; /* token 517 */
    refuses(ONLY_STAGE, WIRE_STEP, message, size);
}

/* A step's runs and changes, of which one thing is wrong, to a stage that has run nothing. */
static void refuses_step(struct made_step *m, const char *says)
{
    struct stand s;
    stand_open(&s, ONLY_STAGE);
    throw(&s, WIRE_STEP, message, wire_step_encode(&m->step, message, sizeof message));
    assert_int_equal(stand_close(&s), ST_FORMAT);
    if (!strstr(s.line, says))
        fail_msg("expected '%s', got '%s'", says, s.line);
}

/* A grammar that is none ends the step before it begins, with one line. */
static void test_wrong_grammars(void **state)
{
    (void)state;
    static const struct {
        struct wire_op ops[2];
        const char *says;
    } cases[] = {
        {{{9, 0, 0, 0, 0}, {4, 0, 0, 0, 0}}, "from rank 0: grammar: op 0 is of kind 9"},
        {{{0, 'a', 'z', 0, 0}, {0, 'a', 'z', 0, 0}}, "from rank 0: grammar: its last op, 1, goes on at the next"},
        {{{3, 0, 0, 2, 0}, {4, 0, 0, 0, 0}}, "from rank 0: grammar: op 0 goes on at op 2, expected one of 2"},
    };
    struct made_step m;
    struct wire_begin begin;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        made_step(&m, 0, WANT_TOKEN);
        begin = (struct wire_begin){.n_ops = 2, .ops = cases[i].ops};
        m.step.n_begins = 1;
        m.step.n_ops = 2;
        m.step.begins = &begin;
        refuses_step(&m, cases[i].says);
    }
    made_step(&m, 0, WANT_TOKEN); /* longer than any there is */
    struct wire_op many[9] = {{4, 0, 0, 0, 0}};
    begin = (struct wire_begin){.n_ops = 9, .ops = many};
    m.step.n_begins = 1;
    m.step.n_ops = 9;
    m.step.begins = &begin;
    refuses_step(&m, "n_ops is 9, expected 0 to 8");
}

static void test_wrong_runs(void **state)
{
    (void)state;
    struct made_step m;
    struct wire_run runs[MADE_SEQUENCES + 1];
    struct wire_change changes[2];
    made_step(&m, 0, WANT_TOKEN)->n_changes = 0;
    refuses_step(&m, "from rank 0: a run of sequence 0 to position 3, expected at most 0: its table has 0 pages");
    made_step(&m, 62, WANT_TOKEN);
    refuses_step(&m, "a run of sequence 0 to position 65, expected at most 64: its table has 1 pages");
    made_step(&m, 0, WANT_TOKEN);
    m.run.sequence = m.change.sequence = MADE_SEQUENCES;
    refuses_step(&m, "a run's sequence is 3, expected 0 to 2");
    made_step(&m, 0, WANT_TOKEN);
    m.change.index = 1;
    refuses_step(&m, "page 1 for entry 1 of the table of sequence 0, expected at most entry 0");
    made_step(&m, 0, WANT_TOKEN);
    m.change.page = MADE_PAGES;
    refuses_step(&m, "a change's page is 5, expected 0 to 4");

    made_step(&m, 0, WANT_TOKEN); /* two runs of one sequence */
    runs[0] = runs[1] = m.run;
    runs[0].n_tokens = 1;
    runs[1].n_tokens = 2;
    m.step.runs = runs;
    m.step.n_runs = 2;
    refuses_step(&m, "sequence 0 has two runs, expected one");

    made_step(&m, 0, WANT_TOKEN); /* a page twice */
    changes[0] = changes[1] = m.change;
    changes[1].sequence = 1;
    m.step.changes = changes;
    m.step.n_changes = 2;
    refuses_step(&m, "page 1 is in two changes, expected one");

    made_step(&m, 0, WANT_TOKEN); /* more runs than sequences */
    for (uint32_t i = 0; i <= MADE_SEQUENCES; i++)
        runs[i] = m.run;
    m.step.runs = runs;
    m.step.n_runs = MADE_SEQUENCES + 1;
    refuses_step(&m, "n_runs is 4, expected 1 to 3");
}

/* A stage that waits for a partial sum gets another one. */
static void test_wrong_partials(void **state)
{
    (void)state;
    for (int how = 0; how < 8; how++) {
        struct stand s;
        stand_open(&s, ONLY_STAGE);
        throw(&s, WIRE_STEP, message, good_step(0, message));
        answer(&s, WIRE_REQUEST, reply);
        size_t size = good_partial(&s.limits, how == 0 ? 1 : 0, message);
        if (how == 1)
            message[0] = 2; /* of another step */
        if (how == 2)
            message[16] = 2; /* of fewer tokens than its size says */
        if (how == 3)
            size -= 8;
        if (how == 4)
            size = 0;
        if (how == 5)
            size = MESSAGE_MAX;
        if (how == 6)
            message[WIRE_HEADER + 1] = 7; /* a width that there is not */
        if (how == 7)
            message[WIRE_HEADER] = 3; /* a narrower one */
        throw(&s, WIRE_PARTIAL, message, size);
        assert_int_equal(stand_close(&s), ST_FORMAT);
    }
    for (int kind = 0; kind < 2; kind++) { /* an answer to something else, though the right one follows */
        struct stand s;
        stand_open(&s, ONLY_STAGE);
        throw(&s, WIRE_STEP, message, good_step(0, message));
        answer(&s, WIRE_REQUEST, reply);
        throw(&s, kind ? WIRE_LOGITS : WIRE_ACTIVE, message, 64);
        throw(&s, WIRE_PARTIAL, message, good_partial(&s.limits, 0, message));
        assert_int_equal(stand_close(&s), ST_FORMAT);
    }
    for (int how = 0; how < 2; how++) { /* answers that come before the question, once and twice */
        struct stand s;
        stand_open(&s, ONLY_STAGE);
        for (int i = 0; i <= how; i++)
            throw(&s, WIRE_PARTIAL, message, good_partial(&s.limits, 0, message));
        throw(&s, WIRE_STEP, message, good_step(0, message));
        status end = stand_close(&s);
        assert_true(end == ST_PEER || end == ST_FORMAT);
    }
}

/* A sum that is no number ends the run like one that is made here. */
static void test_sums_that_are_no_numbers(void **state)
{
    (void)state;
    static const double values[] = {NAN, INFINITY, -INFINITY, 1e300};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct stand s;
        struct wire_partial p;
        stand_open(&s, ONLY_STAGE);
        throw(&s, WIRE_STEP, message, good_step(0, message));
        answer(&s, WIRE_REQUEST, reply);
        size_t size = good_partial(&s.limits, 0, message);
        assert_int_equal(wire_partial_decode(message, size, &s.limits, taken, &p), ST_OK);
        assert_true(p.width[0] == 4 && p.width[1] == 8);
        memcpy(p.packed + SUM_BLOCK * p.width[0] + 8 * 5, &values[i], sizeof *values);
        throw(&s, WIRE_PARTIAL, message, size);
        assert_int_equal(stand_close(&s), ST_NAN);
    }
}

/* A stage that waits for live activations gets others. */
static void test_wrong_activations(void **state)
{
    (void)state;
    for (int how = 0; how < 8; how++) {
        struct stand s;
        struct wire_active a;
        stand_open(&s, ACTIVE_STAGE);
        throw(&s, WIRE_STEP, message, good_step(0, message));
        answer(&s, WIRE_REQUEST, reply);
        size_t size = good_active(&s.limits, how == 0 ? 1 : 0, message);
        assert_int_equal(wire_active_decode(message, size, &s.limits, TEST_HAS, (uint32_t *)taken, &a), ST_OK);
        assert_int_equal(wire_active_encode(&a, &s.limits, message, MESSAGE_MAX), size); /* it points there again */
        if (how == 1)
            message[0] = 2; /* of another step */
        if (how == 2)
            a.index[a.n_pairs - 1] = TEST_HAS; /* the worker has so many, the sender has not */
        if (how == 3)
            a.value[7] = NAN; /* a broken model may make it: the block's end shows it */
        if (how == 4)
            a.first[1] = a.first[2] + 1;
        if (how == 5)
            size -= 4;
        if (how == 6)
            size = 0;
        if (how == 7)
            size = MESSAGE_MAX;
        throw(&s, WIRE_ACTIVE, message, size);
        assert_int_equal(stand_close(&s), how == 3 ? ST_NAN : ST_FORMAT);
    }
}

/* A worker, rank 1, that owns all neurons of two stages, ranks 0 and 2, which the test plays. It does not run yet. */
struct thirds {
    struct transport *t[3];
    struct stand s;
};

static void thirds_open(struct thirds *x)
{
    static const char text[] =
        "{\"hearth_plan\": 1, \"model\": {\"architecture\": \"llama\", \"layers\": 4, \"d_ff\": 672}, \"ranks\": 3, "
        "\"layers\": [{\"from\": 0, \"to\": 2, \"stage\": 0, \"neurons\": [0, 0, 672, 672]},"
        "{\"from\": 2, \"to\": 4, \"stage\": 2, \"neurons\": [0, 0, 672, 672]}]}";
    struct stand *s = &x->s;
    *s = (struct stand){0};
    assert_int_equal(plan_parse(text, sizeof text - 1, "plan", &s->plan), ST_OK);
    assert_int_equal(open_transports(3, x->t), ST_OK);
    s->o = (struct worker_options){.model = model, .plan = s->plan, .transport = x->t[1],
                                   .devices = member_devices, .n_devices = 1, .n_threads = 1,
                                   .n_ctx = N_CTX, .n_batch = N_BATCH,
                                   .n_sequences = MADE_SEQUENCES, .n_pages = MADE_PAGES};
    assert_int_equal(kernels_select(NULL, &s->o.kernels), ST_OK);
    s->limits = worker_limits(&s->o);
    assert_int_equal(worker_create(&s->o, &s->worker), ST_OK);
    s->t[0] = x->t[0];
}

/* How the worker ended when it was told to stop. */
static status thirds_close(struct thirds *x)
{
    throw(&x->s, WIRE_STOP, NULL, 0);
    pthread_join(x->s.thread, NULL);
    for (int r = 0; r < 3; r++)
        transport_close(x->t[r]);
    worker_free(x->s.worker);
    plan_free(x->s.plan);
    free(x->s.messages[0]);
    return x->s.end;
}

/* A stage that does not take its answer and asks again, while another stage asks: nobody's x is computed twice. */
static void test_requests_do_not_mix(void **state)
{
    (void)state;
    struct thirds x;
    thirds_open(&x);
    struct send sends[3];
    static _Alignas(64) uint8_t asked[3][MESSAGE_MAX];
    bool handled, stopped;
    size_t sizes[] = {good_request(&x.s.limits, PART_FFN, 0, FORM_Q8, asked[0]),
                      good_request(&x.s.limits, PART_FFN, 0, FORM_F32, asked[1]),
                      good_request(&x.s.limits, PART_FFN, 2, FORM_Q8, asked[2])};
    assert_int_equal(transport_post(x.t[0], 1, WIRE_REQUEST, asked[1], sizes[1], &sends[0]), ST_OK);
    assert_int_equal(worker_poll(x.s.worker, &handled, &stopped), ST_OK);
    const size_t n = answer_of(x.t[0], WIRE_PARTIAL, message); /* of the second question alone: what it must be */
    assert_int_equal(transport_post(x.t[0], 1, WIRE_REQUEST, asked[0], sizes[0], &sends[0]), ST_OK);
    assert_int_equal(transport_post(x.t[0], 1, WIRE_REQUEST, asked[1], sizes[1], &sends[1]), ST_OK);
    assert_int_equal(transport_post(x.t[2], 1, WIRE_REQUEST, asked[2], sizes[2], &sends[2]), ST_OK);
    pthread_create(&x.s.thread, NULL, run_worker, &x.s);
    usleep(20000); /* the worker waits for its first answer to be taken, the others lie before it */
    const size_t first = answer_of(x.t[0], WIRE_PARTIAL, reply);
    assert_true(first != n || memcmp(reply, message, n) != 0);
    assert_int_equal(answer_of(x.t[0], WIRE_PARTIAL, reply), n);
    memset(message + BUSY_AT, 0, 8); /* how long it took */
    memset(reply + BUSY_AT, 0, 8);
    assert_memory_equal(reply, message, n);
    answer_of(x.t[2], WIRE_PARTIAL, reply);
    assert_int_equal(thirds_close(&x), ST_OK);
}

/* A rank that asks wrongly is told so, as is rank 0; the others' requests are answered before and after. */
static void test_others_go_on(void **state)
{
    (void)state;
    struct thirds x;
    thirds_open(&x);
    struct send sends[3];
    static _Alignas(64) uint8_t wrong[MESSAGE_MAX], right[MESSAGE_MAX];
    const size_t n = good_request(&x.s.limits, PART_FFN, 0, FORM_Q8, right);
    const size_t m = good_request(&x.s.limits, PART_FFN, 0, FORM_Q8, wrong); /* rank 2 is not the stage of layer 0 */
    assert_int_equal(transport_post(x.t[0], 1, WIRE_REQUEST, right, n, &sends[0]), ST_OK);
    assert_int_equal(transport_post(x.t[2], 1, WIRE_REQUEST, wrong, m, &sends[2]), ST_OK);
    pthread_create(&x.s.thread, NULL, run_worker, &x.s);
    refused_with(x.t[2], "refused a request of rank 2: request of layer 0 from rank 2, which is not its stage");
    refused_with(x.t[0], "refused a request of rank 2: ");
    answer_of(x.t[0], WIRE_PARTIAL, reply);
    assert_int_equal(transport_post(x.t[0], 1, WIRE_REQUEST, right, n, &sends[1]), ST_OK);
    answer_of(x.t[0], WIRE_PARTIAL, reply);
    assert_int_equal(thirds_close(&x), ST_OK);
}

/* Right messages with random bytes changed, in random order, to workers of every role: whatever they make of it. */
static void test_random_messages(void **state)
{
    (void)state;
    uint64_t random = 3;
    int counts[ST_INTERNAL + 1] = {0};
    for (int round = 0; round < (SANITIZED ? 200 : 400); round++) {
        struct stand s;
        stand_open(&s, (enum role)(round % N_ROLES));
        int n = 1 + (int)(made_draw(&random) % 6);
        for (int i = 0; i < n; i++) {
            static const int kinds[] = {WIRE_STEP, WIRE_HIDDEN, WIRE_REQUEST, WIRE_PARTIAL, WIRE_LOGITS, WIRE_ACTIVE};
            int kind = kinds[made_draw(&random) % 6];
            uint32_t layer = (uint32_t)(made_draw(&random) % (s.limits.n_layers + 1));
            struct wire_logits logits = {.id = 1, .n_tokens = 1, .n_rows = 150};
            size_t size = kind == WIRE_STEP       ? good_step((uint32_t)i, message)
                          : kind == WIRE_HIDDEN   ? good_hidden(&s.limits, 0, message)
                          : kind == WIRE_REQUEST  ? good_request(&s.limits, layer % WIRE_PARTS, layer % 4,
                                                                 made_draw(&random) % 2, message)
                          : kind == WIRE_ACTIVE   ? good_active(&s.limits, layer % s.limits.n_layers, message)
                          : kind == WIRE_PARTIAL  ? good_partial(&s.limits, layer % s.limits.n_layers, message)
                                                  : wire_logits_encode(&logits, &s.limits, message, sizeof message);
            for (uint64_t changes = made_draw(&random) % 4; changes > 0 && size; changes--)
                message[made_draw(&random) % (made_draw(&random) % 2 && size > 32 ? 32 : size)] ^=
                    (uint8_t)(1u << made_draw(&random) % 8);
            if (made_draw(&random) % 8 == 0)
                size = made_draw(&random) % (size + 70);
            throw(&s, kind, message, size);
        }
        counts[stand_close(&s)]++;
    }
    assert_int_equal(counts[ST_OK] + counts[ST_INTERNAL], 0);
    assert_true(counts[ST_FORMAT] > 0 && counts[ST_PEER] > 0);
    print_message("%d workers ended with an error of format, %d were told to\n", counts[ST_FORMAT], counts[ST_PEER]);
}

/* ---- what rank 0 hears ---- */

enum { HELLOS = 2 };

/* Ranks 1 and 2, played by one thread: they say hello, and wait for what comes back. */
struct callers {
    struct transport *t[3];
    int from[HELLOS];
    const uint8_t *hello[HELLOS];
    size_t size[HELLOS];
    int answers[3]; /* kinds */
};

static void *call(void *arg)
{
    struct callers *c = arg;
    struct send sends[HELLOS];
    for (int i = 0; i < HELLOS; i++)
        transport_post(c->t[c->from[i]], 0, WIRE_HELLO, c->hello[i], c->size[i], &sends[i]);
    for (int r = 1; r < 3; r++) {
        struct arrival a;
        bool found = false;
        while (!found && transport_poll(c->t[r], 1u << WIRE_WELCOME | 1u << WIRE_FAILED, &a, &found) == ST_OK)
            continue;
        c->answers[r] = found ? a.kind : WIRE_FAILED; /* rank 0 does not wait long for who is slow to hear it */
        if (found)
            transport_release(c->t[r], &a);
    }
    for (int r = 1; r < 3; r++)
        transport_close(c->t[r]);
    return NULL;
}

static const struct wire_hello own = {.version = WIRE_VERSION, .release = "1.2", .file_bytes = 7, .n_ctx = 8,
                                      .settings = "sparse exact", .need_bytes = 1 << 30,
                                      .host = {.name = "pc", .id = 1, .memory_bytes = 3ull << 30}};

/* What the roll call says of two hellos, and in which line (`says` is part of it); both ranks hear the same. */
static status roll_call_says(int from_1, const uint8_t *first, size_t n_first, int from_2, const uint8_t *second,
                             size_t n_second, const char *says)
{
    struct callers c = {.from = {from_1, from_2}, .hello = {first, second}, .size = {n_first, n_second}};
    struct wire_hello hellos[3];
    struct log_catcher caught;
    pthread_t thread;
    assert_int_equal(open_transports(3, c.t), ST_OK);
    assert_int_equal(pthread_create(&thread, NULL, call, &c), 0);
    log_catch(&caught);
    status st = roll_call(c.t[0], &own, hellos);
    log_catch(NULL);
    pthread_join(thread, NULL);
    transport_close(c.t[0]);
    assert_true((st != ST_OK) == (caught.first_error[0] != 0));
    if (!strstr(caught.first_error, says))
        fail_msg("expected '%s', got '%s'", says, caught.first_error);
    assert_int_equal(c.answers[1], st ? WIRE_FAILED : WIRE_WELCOME);
    assert_int_equal(c.answers[2], c.answers[1]);
    return st;
}

static status roll_call_of(int from_1, const uint8_t *first, size_t n_first, int from_2, const uint8_t *second,
                           size_t n_second)
{
    return roll_call_says(from_1, first, n_first, from_2, second, n_second, "");
}

/* Rank 2 differs from the others in what `other` says. */
static void assert_disagrees(struct wire_hello other, const char *says)
{
    uint8_t same[WIRE_HELLO_MAX], different[WIRE_HELLO_MAX];
    size_t n = wire_hello_encode(&own, same, sizeof same), m = wire_hello_encode(&other, different, sizeof different);
    assert_int_equal(roll_call_says(1, same, n, 2, different, m, says), ST_MISMATCH);
}

static void test_disagreements(void **state)
{
    (void)state;
    char says[160];
    struct wire_hello h = own;
    h.version++;
    snprintf(says, sizeof says, "rank 2 runs hearth 1.2 (protocol %d), rank 0 runs 1.2 (protocol %d)", WIRE_VERSION + 1,
             WIRE_VERSION);
    assert_disagrees(h, says);
    h = own;
    strcpy(h.release, "1.3");
    snprintf(says, sizeof says, "rank 2 runs hearth 1.3 (protocol %d), rank 0 runs 1.2 (protocol %d): install the same "
             "version", WIRE_VERSION, WIRE_VERSION);
    assert_disagrees(h, says);
    h = own;
    h.file_bytes = 8;
    assert_disagrees(h, "rank 2 has another model file: 8 bytes, rank 0's has 7");
    h = own;
    h.file_hash = 1;
    assert_disagrees(h, "rank 2 has another model file: hash 0000000000000001");
    h = own;
    h.plan_hash = 1;
    assert_disagrees(h, "rank 2 has another plan");
    h = own;
    h.settings_hash = 1;
    assert_disagrees(h, "rank 2 was started with other settings: hash 0000000000000001, expected rank 0's: 00000000");
    h = own;
    strcpy(h.settings, "sparse dense");
    assert_disagrees(h, "rank 2 was started with other settings: 'sparse dense', expected rank 0's: 'sparse exact'");
    h = own;
    h.n_ctx = 9;
    assert_disagrees(h, "rank 2 was started with a context of 9");
    h = own;
    h.n_pages = 5;
    assert_disagrees(h,
                     "rank 2 was started for 0 sequences and 5 pages of KV memory (--kv-budget), rank 0 for 0 and 0");
    h = own;
    h.n_sequences = 2;
    assert_disagrees(h, "rank 2 was started for 2 sequences and 0 pages");
    h = own;
    h.n_grammar_ops = 7;
    assert_disagrees(h, "rank 2 was started for grammars of 7 ops, rank 0 for 0");
    h = own;
    h.failed = 1;
    strcpy(h.reason, "no such file");
    assert_disagrees(h, "rank 2: no such file");
}

/* Each alone would fit. */
static void test_ranks_need_too_much_together(void **state)
{
    (void)state;
    uint8_t first[WIRE_HELLO_MAX], second[WIRE_HELLO_MAX];
    struct wire_hello h = own;
    size_t n = wire_hello_encode(&own, first, sizeof first);
    h.need_bytes++;
    size_t m = wire_hello_encode(&h, second, sizeof second);
    assert_int_equal(roll_call_says(1, first, n, 2, second, m, "the ranks of host pc need 3.00 GiB of memory together "
                                    "(rank 0 1.00, rank 1 1.00, rank 2 1.00), the machine has 3.00"), ST_BUDGET);
    h.host.id = 2; /* another machine of that name */
    m = wire_hello_encode(&h, second, sizeof second);
    assert_int_equal(roll_call_says(1, first, n, 2, second, m, ""), ST_OK);
}

static void test_hellos(void **state)
{
    (void)state;
    uint8_t good[WIRE_HELLO_MAX], bad[WIRE_HELLO_MAX + 64] = {0};
    size_t n = wire_hello_encode(&own, good, sizeof good);
    assert_int_equal(roll_call_of(1, good, n, 2, good, n), ST_OK);
    assert_int_equal(roll_call_of(2, good, n, 1, good, n), ST_OK);
    assert_int_equal(roll_call_of(1, good, n, 1, good, n), ST_FORMAT); /* rank 1 says it twice, rank 2 never */
    assert_int_equal(roll_call_of(2, good, n, 2, good, n), ST_FORMAT);
    for (size_t size = 0; size < n; size += 7)
        assert_int_not_equal(roll_call_of(1, good, n, 2, good, size), ST_OK);
    assert_int_equal(roll_call_of(1, bad, sizeof bad, 2, good, n), ST_FORMAT);
    uint64_t random = 17;
    for (int i = 0; i < 200; i++) {
        memcpy(bad, good, n);
        for (int changes = 0; changes < 3; changes++)
            bad[made_draw(&random) % n] ^= (uint8_t)(1u << made_draw(&random) % 8);
        roll_call_of(1, good, n, 2, bad, n);
    }
}

static void test_ready(void **state)
{
    (void)state;
    static const struct {
        int kind;
        size_t size;
        status expected;
    } cases[] = {{WIRE_READY, 8, ST_OK},      {WIRE_READY, 0, ST_FORMAT},   {WIRE_READY, 7, ST_FORMAT},
                 {WIRE_READY, 9, ST_FORMAT},  {WIRE_READY, 1000, ST_FORMAT}, {WIRE_FAILED, 6, ST_PEER},
                 {WIRE_FAILED, 0, ST_PEER}, {WIRE_FAILED, 1000, ST_FORMAT}};
    memset(message, 'x', sizeof message);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct transport *t[2];
        struct send s;
        uint64_t held[2];
        struct log_catcher caught;
        assert_int_equal(open_transports(2, t), ST_OK);
        assert_int_equal(transport_post(t[1], 0, cases[i].kind, message, cases[i].size, &s), ST_OK);
        log_catch(&caught);
        status st = roll_call_ready(t[0], &(struct same_file){0}, held);
        log_catch(NULL);
        if (st != cases[i].expected)
            fail_msg("case %zu: '%s'", i, status_name(st));
        assert_true((st != ST_OK) == (caught.first_error[0] != 0));
        transport_close(t[1]);
        transport_close(t[0]);
    }
}

/* Who is ready twice does not stand for who is not: nobody would look at the other's chunks. */
static void test_ready_twice(void **state)
{
    (void)state;
    static const struct {
        int from, kind;
        status expected;
    } second[] = {{2, WIRE_READY, ST_OK}, {1, WIRE_READY, ST_FORMAT}, {1, WIRE_CHUNKS, ST_FORMAT}};
    for (size_t i = 0; i < sizeof second / sizeof *second; i++) {
        struct transport *t[3];
        struct send s[2];
        uint64_t held[3];
        struct log_catcher caught;
        assert_int_equal(open_transports(3, t), ST_OK);
        assert_int_equal(transport_post(t[1], 0, WIRE_READY, message, WIRE_READY_SIZE, &s[0]), ST_OK);
        assert_int_equal(transport_post(t[second[i].from], 0, second[i].kind, message, WIRE_READY_SIZE, &s[1]), ST_OK);
        log_catch(&caught);
        assert_int_equal(roll_call_ready(t[0], &(struct same_file){0}, held), second[i].expected);
        log_catch(NULL);
        assert_true((second[i].expected != ST_OK) == (caught.first_error[0] != 0));
        for (int r = 2; r >= 0; r--)
            transport_close(t[r]);
    }
}

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

/* Rank `rank` takes what lies waiting for it, now. */
static int take_all(struct transport *t)
{
    int n = 0;
    struct arrival a;
    for (bool found = true; found; n += found) {
        assert_int_equal(transport_poll(t, ~0u, &a, &found), ST_OK);
        if (found)
            assert_int_equal(transport_release(t, &a), ST_OK);
    }
    return n;
}

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

/* ---- a rank that gives up, or does not listen ---- */

/* What rank 2 hears while rank 1 says hello and no more. */
struct listener {
    struct transport *t[3];
    int heard; /* a kind; -1: that the transport ended */
};

static void *listen_as_2(void *arg)
{
    struct listener *l = arg;
    struct arrival a;
    bool found = false;
    while (!found && transport_poll(l->t[2], 1u << WIRE_WELCOME | 1u << WIRE_FAILED, &a, &found) == ST_OK)
        continue;
    l->heard = found ? a.kind : -1;
    if (found)
        (void)transport_release(l->t[2], &a);
    if (l->heard == WIRE_WELCOME) /* only now does rank 1 listen */
        assert_int_equal(take_all(l->t[1]), 1);
    return NULL;
}

static void test_deaf_rank(void **state)
{
    (void)state;
    for (int agree = 0; agree < 2; agree++) {
        static _Alignas(64) uint8_t other[WIRE_HELLO_MAX];
        struct wire_hello h = own, hellos[3];
        struct listener l;
        struct send sends[2];
        struct log_catcher caught;
        pthread_t thread;
        h.file_bytes += agree ? 0 : 1;
        const size_t n = wire_hello_encode(&own, message, sizeof message);
        const size_t m = wire_hello_encode(&h, other, sizeof other);
        assert_int_equal(open_transports(3, l.t), ST_OK);
        assert_int_equal(transport_post(l.t[1], 0, WIRE_HELLO, message, n, &sends[0]), ST_OK);
        assert_int_equal(transport_post(l.t[2], 0, WIRE_HELLO, other, m, &sends[1]), ST_OK);
        assert_int_equal(pthread_create(&thread, NULL, listen_as_2, &l), 0);
        log_catch(&caught);
        assert_int_equal(roll_call(l.t[0], &own, hellos), agree ? ST_OK : ST_MISMATCH);
        log_catch(NULL);
        pthread_join(thread, NULL);
        assert_true(agree ? l.heard == WIRE_WELCOME : l.heard == WIRE_FAILED || l.heard == -1);
        for (int r = 2; r >= 0; r--)
            transport_close(l.t[r]);
    }
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
        cmocka_unit_test(test_right_messages),
        cmocka_unit_test(test_unforeseen),
        cmocka_unit_test(test_wrong_fields),
        cmocka_unit_test(test_wrong_runs),
        cmocka_unit_test(test_wrong_grammars),
        cmocka_unit_test(test_wrong_partials),
        cmocka_unit_test(test_sums_that_are_no_numbers),
        cmocka_unit_test(test_wrong_activations),
        cmocka_unit_test(test_requests_do_not_mix),
        cmocka_unit_test(test_others_go_on),
        cmocka_unit_test(test_random_messages),
        cmocka_unit_test(test_ranks_need_too_much_together),
        cmocka_unit_test(test_hellos),
        cmocka_unit_test(test_disagreements),
        cmocka_unit_test(test_ready),
        cmocka_unit_test(test_ready_twice),
        cmocka_unit_test(test_results),
        cmocka_unit_test(test_usage_given_up),
        cmocka_unit_test(test_token_given_up),
        cmocka_unit_test(test_ping_given_up),
        cmocka_unit_test(test_deaf_rank),
        cmocka_unit_test(test_fail_unheard),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
