/* A worker among ranks that send what they should not: an error, never a crash or a hang. */
#include "tests/engine/played_ranks.h"

#include "node/member.h"
#include "sampling/token_trie.h"
#include "tests/engine/made_step.h"
#include "worker/worker.h"

enum { N_CTX = 112, N_BATCH = 8, MOST_SENDS = 64, BUSY_AT = 52 /* in a PARTIAL */ };

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

static _Alignas(64) uint8_t reply[MESSAGE_MAX], taken[MESSAGE_MAX];

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
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
