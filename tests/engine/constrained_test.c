/* Texts of a grammar, and biased ones: whatever the plan, and whoever runs beside them, they are what they are alone,
 * and of their grammar, however they were drafted, and after they had to give their pages back. */
#include "tests/engine/crowd.h"

#include "base/log.h"
#include "sampling/grammar.h"

enum { CONTEXT = 200, TEXTS = SANITIZED ? 8 : 24, MADE = 60, FIRST_BYTE = 3, END = 2 /* tokens */ };

static char path[MADE_NAME];
static struct grammar record, largest_one; /* the same, as long as a grammar may be */

/* ---- {"name": "[a-z]{0,6}", "n": [0-9]{1,3}, "ok": true|false} ---- */

static void add_text(struct grammar_maker *m, const char *text) { grammar_text(m, text, strlen(text)); }

/* One of a range, `most` times at most. */
static void add_some(struct grammar_maker *m, uint8_t lo, uint8_t hi, int most)
{
    uint32_t leave[8];
    for (int i = 0; i < most; i++) {
        leave[i] = grammar_split(m, grammar_here(m) + 1, UINT32_MAX);
        grammar_byte(m, lo, hi);
    }
    for (int i = 0; i < most; i++)
        grammar_patch(m, leave[i], grammar_here(m));
}

static struct grammar make_record(uint32_t least_ops)
{
    struct grammar_maker m = {0};
    struct grammar g;
    add_text(&m, "{\"name\": \"");
    add_some(&m, 'a', 'z', 6);
    add_text(&m, "\", \"n\": ");
    grammar_byte(&m, '1', '9');
    add_some(&m, '0', '9', 2);
    add_text(&m, ", \"ok\": ");
    const uint32_t either = grammar_split(&m, grammar_here(&m) + 1, UINT32_MAX);
    add_text(&m, "true");
    const uint32_t done = grammar_jump(&m, UINT32_MAX);
    grammar_patch(&m, either, grammar_here(&m));
    add_text(&m, "false");
    grammar_patch(&m, done, grammar_here(&m));
    add_text(&m, "}");
    do
        grammar_return(&m);
    while (grammar_here(&m) < least_ops);
    assert_int_equal(grammar_made(&m, &g), ST_OK);
    return g;
}

/* ---- texts ---- */

static const struct token_bias biases[3] = {{FIRST_BYTE + 'a', -100}, {FIRST_BYTE + 'b', 4}, {END, -2}};

struct text {
    int32_t prompt[CONTEXT];
    uint32_t n;
    struct sampler_params sampling;
    int32_t made[MADE];
    uint32_t n_made;
};
static struct text alone[TEXTS], found[TEXTS];

static bool is_over(const struct text *t) { return t->n_made == MADE || (t->n_made && t->made[t->n_made - 1] == END); }

/* Half of them begin alike; of three two have a grammar, of two one is biased. */
static void write_texts(void)
{
    for (uint64_t i = 0; i < TEXTS; i++) {
        struct text *t = &alone[i];
        uint64_t common = 7, own = 100 + i;
        t->n = 1 + (uint32_t)(made_draw(&own) % (CONTEXT - MADE));
        for (uint32_t j = 0; j < t->n; j++)
            t->prompt[j] = (int32_t)(made_draw(j < 70 && i % 2 ? &common : &own) % MADE_VOCABULARY);
        t->sampling = (struct sampler_params){.temperature = i % 4 ? 1 : 0, .top_p = 0.95f, .repeat_penalty = 1.1f,
                                              .repeat_last = 30, .seed = i};
        if (i % 3) {
            t->sampling.grammar = i % 3 == 1 ? &record : &largest_one;
            t->sampling.grammar_from = t->n;
        }
        if (i / 2 % 2) {
            t->sampling.bias = biases;
            t->sampling.n_bias = 3;
        }
    }
}

/* What was made is a record, whole; biased, without an 'a'. */
static void check_record(const struct text *t)
{
    char bytes[MADE];
    uint32_t n = 0;
    if (!t->sampling.grammar)
        return;
    assert_int_equal(t->made[t->n_made - 1], END);
    for (uint32_t i = 0; i + 1 < t->n_made; i++) {
        assert_in_range(t->made[i], FIRST_BYTE, FIRST_BYTE + 255);
        bytes[n++] = (char)(t->made[i] - FIRST_BYTE);
    }
    json_error_t error;
    json_t *j = json_loadb(bytes, n, 0, &error);
    if (!j)
        fail_msg("%.*s: %s", (int)n, bytes, error.text);
    const char *name = json_string_value(json_object_get(j, "name"));
    assert_true(name && strlen(name) <= 6 && json_is_boolean(json_object_get(j, "ok")));
    assert_in_range(json_integer_value(json_object_get(j, "n")), 1, 999);
    assert_true(!t->sampling.n_bias || !strchr(name, 'a'));
    json_decref(j);
}

static struct cluster_options options(void)
{
    struct cluster_options o = plain_options(path);
    o.n_ctx = CONTEXT;
    o.grammars = true;
    return o;
}

static void make_alone(struct cluster *c, int i)
{
    struct dialogue *d = cluster_dialogue(c);
    struct text *t = &alone[i];
    dialogue_truncate(d, 0);
    assert_int_equal(dialogue_sampling(d, &t->sampling), ST_OK);
    assert_int_equal(dialogue_prompt(d, t->prompt, t->n, &t->made[0], NULL, NULL), ST_OK);
    for (t->n_made = 1; !is_over(t); t->n_made++)
        assert_int_equal(dialogue_next(d, t->made[t->n_made - 1], &t->made[t->n_made]), ST_OK);
    check_record(t);
}

static int take_made(void **state)
{
    (void)state;
    record = make_record(0);
    largest_one = make_record(GRAMMAR_OPS);
    made_model_write(&made_quantised, path);
    write_texts();
    const struct cluster_options o = options();
    run_alone(&o, TEXTS, make_alone);
    return 0;
}

static int remove_made(void **state)
{
    (void)state;
    free((void *)record.ops);
    free((void *)largest_one.ops);
    return unlink(path);
}

/* ---- all in one session ---- */

struct crowd {
    struct session *s;
    struct sequence *q[TEXTS];
    uint32_t n_begun, n_over;
    uint64_t random;
};

static void begin_text(struct crowd *c, uint32_t i)
{
    const struct text *t = &found[i];
    c->q[i] = begin(c->s, t->prompt, t->n, &(struct wish){.kind = WISH_TOKEN}, &t->sampling);
}

/* Drafts are right for a while, and then leave the grammar. */
static void go_on(struct crowd *c, uint32_t i, int32_t token)
{
    const struct text *a = &alone[i];
    int32_t guess[6];
    uint32_t n = 0, right = (uint32_t)(made_draw(&c->random) % 4);
    for (; n < right && found[i].n_made + n < a->n_made; n++)
        guess[n] = a->made[found[i].n_made + n];
    for (uint32_t k = 0; k < 2; k++)
        guess[n++] = (int32_t)(made_draw(&c->random) % MADE_VOCABULARY);
    assert_int_equal(session_append(c->s, c->q[i], token), ST_OK);
    session_propose(c->s, c->q[i], guess, made_draw(&c->random) % 2 ? n : 0);
}

static void take_event(struct crowd *c, uint32_t i, const struct session_event *e)
{
    struct text *t = &found[i];
    assert_int_equal(e->st, ST_OK);
    for (uint32_t j = 0; j < e->answer.n_tokens && !is_over(t); j++)
        t->made[t->n_made++] = e->answer.tokens[j];
    if (is_over(t)) {
        session_close(c->s, c->q[i]);
        c->q[i] = NULL;
        c->n_over++;
    } else if (e->answer.n_tokens) {
        go_on(c, i, e->answer.tokens[e->answer.n_tokens - 1]);
    }
}

static void run_crowd(struct cluster *cluster)
{
    struct crowd c = {.s = cluster_session(cluster), .random = 5};
    memcpy(found, alone, sizeof found);
    for (int i = 0; i < TEXTS; i++) {
        memset(found[i].made, 0xff, sizeof found[i].made);
        found[i].n_made = 0;
    }
    while (c.n_over < TEXTS) {
        struct session_event e;
        bool happened;
        while (c.n_begun < TEXTS && made_draw(&c.random) % 8 < 3)
            begin_text(&c, c.n_begun++);
        assert_int_equal(session_poll(c.s, &e, &happened), ST_OK);
        if (happened)
            take_event(&c, whose(c.q, &e), &e);
    }
    for (int i = 0; i < TEXTS; i++) {
        if (found[i].n_made != alone[i].n_made ||
            memcmp(found[i].made, alone[i].made, alone[i].n_made * sizeof *alone[i].made) != 0)
            fail_msg("text %d, of %u tokens, is another than alone", i, alone[i].n);
    }
}

static void a_text_of_a_grammar_is_what_it_is_alone(void **state)
{
    (void)state;
    static const struct crowd_way ways[] = {
        {1, -1, -1, SPARSE_DENSE, 16, 96, 0},
        {1, -1, -1, SPARSE_DENSE, 8, 16, 4}, /* too few for those who come */
        {2, SPLIT_STAGES, 0, SPARSE_DENSE, 24, 30, 0},
        {3, SPLIT_SHARDS, 1, SPARSE_DENSE, 12, 40, 0},
        {3, SPLIT_BOTH, 0, SPARSE_DENSE, 5, 33, 12},
    };
    uint64_t page_bytes = 0;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct cluster *c = start_way(options(), &ways[i], &page_bytes);
        run_crowd(c);
        if (i == 1)
            assert_true(session_schedule(cluster_session(c)).sent_away > 0);
        cluster_stop(c);
    }
}

/* ---- what is refused ---- */

static void refused(struct session *s, const struct sampler_params *p, const char *says)
{
    struct sequence *q;
    struct log_catcher caught;
    assert_int_equal(session_open(s, &q), ST_OK);
    assert_int_equal(session_text(s, q, &(int32_t){5}, 1), ST_OK);
    log_catch(&caught);
    assert_int_equal(session_submit(s, q, &(struct wish){.kind = WISH_TOKEN}, p), ST_USAGE);
    log_catch(NULL);
    if (!strstr(caught.first_error, says))
        fail_msg("expected '%s', got '%s'", says, caught.first_error);
    session_close(s, q);
}

/* Nothing is sent that ranks would end with. */
static void what_no_rank_would_take_is_refused(void **state)
{
    (void)state;
    static const struct grammar_op broken[1] = {{.kind = GRAMMAR_JUMP, .a = 1}};
    static struct token_bias many[513];
    const struct grammar bad = {broken, 1}, long_one = {broken, GRAMMAR_OPS + 1};
    struct cluster_options o = options();
    struct cluster *c = start(&o);
    struct session *s = cluster_session(c);
    refused(s, &(struct sampler_params){.grammar = &bad}, "goes on at op 1");
    refused(s, &(struct sampler_params){.grammar = &long_one}, "a grammar of 16385 ops: at most 16384");
    refused(s, &(struct sampler_params){.grammar = &record, .grammar_from = CONTEXT + 1}, "from position 201 on");
    refused(s, &(struct sampler_params){.n_bias = 513, .bias = many}, "513 tokens have a bias: at most 512");
    many[1].token = MADE_VOCABULARY;
    refused(s, &(struct sampler_params){.n_bias = 2, .bias = many}, "token 300 has a bias of 0");
    many[1] = (struct token_bias){1, NAN};
    refused(s, &(struct sampler_params){.n_bias = 2, .bias = many}, "biases are finite");
    cluster_stop(c);
    o.grammars = false;
    c = start(&o);
    refused(cluster_session(c), &(struct sampler_params){.grammar = &record}, "where there are none");
    cluster_stop(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_of_a_grammar_is_what_it_is_alone),
        cmocka_unit_test(what_no_rank_would_take_is_refused),
    };
    return cmocka_run_group_tests(tests, take_made, remove_made);
}
