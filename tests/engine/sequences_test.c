/* Many texts in one session, as anybody who submits and polls has them: however many run at once, whoever begins or
 * ends beside it, and whether it has to give its pages back, a text is what it is alone. */
#include "tests/engine/crowd.h"

#include "base/log.h"

enum { CONTEXT = 200, TEXTS = SANITIZED ? 20 : 65, MADE = 8, FAMILIES = 3 };

static char made_path[MADE_NAME];

/* What runs: a model with pages alone, or one with states of delta nets too. */
static struct {
    const char *path, *activation;
    uint32_t vocabulary; /* MADE_VOCABULARY at most */
} subject;

/* A text, what is wanted of it, and what came of it. */
struct text {
    int32_t prompt[CONTEXT];
    uint32_t n;
    struct wish wish;
    struct sampler_params sampling;
    int32_t made[MADE];
    float logits[MADE_VOCABULARY]; /* WISH_LOGITS: behind the last token made */
};
static struct text alone[TEXTS], found[TEXTS];

/* Lengths of all kinds, many of them such that another page is soon needed; texts of a family begin alike, and part
 * within a page or behind some. */
static void write_texts(void)
{
    static const uint32_t common[FAMILIES] = {0, 40, 150};
    for (int i = 0; i < TEXTS; i++) {
        struct text *t = &alone[i];
        uint64_t random = (uint64_t)i % FAMILIES, own = 1000 + (uint64_t)i;
        t->n = i % 2 ? 61 : 1 + (uint32_t)(made_draw(&own) % (CONTEXT - MADE));
        for (uint32_t j = 0; j < t->n; j++)
            t->prompt[j] = (int32_t)(made_draw(j < common[i % FAMILIES] ? &random : &own) % subject.vocabulary);
        t->wish = (struct wish){.kind = i % 5 == 4 ? WISH_LOGITS : i % 5 == 3 ? WISH_TOP : WISH_TOKEN, .n_top = 4};
        t->sampling = sampler_greedy;
        if (t->wish.kind != WISH_LOGITS)
            t->sampling = (struct sampler_params){.temperature = 0.9f, .top_p = 0.95f, .repeat_penalty = 1.2f,
                                                  .repeat_last = 20, .top_k = 40, .seed = (uint64_t)i};
    }
}

static void make_alone(struct cluster *c, int i)
{
    struct dialogue *d = cluster_dialogue(c);
    struct text *t = &alone[i];
    dialogue_truncate(d, 0);
    assert_int_equal(dialogue_sampling(d, &t->sampling), ST_OK);
    if (t->wish.kind != WISH_LOGITS) {
        assert_int_equal(dialogue_prompt(d, t->prompt, t->n, &t->made[0], NULL, NULL), ST_OK);
        for (int j = 1; j < MADE; j++)
            assert_int_equal(dialogue_next(d, t->made[j - 1], &t->made[j]), ST_OK);
        return;
    }
    for (int j = 0; j < MADE; j++) {
        const int32_t *last = j ? &t->made[j - 1] : t->prompt;
        assert_int_equal(dialogue_logits(d, last, j ? 1 : t->n, t->logits), ST_OK);
        t->made[j] = largest(t->logits, subject.vocabulary);
    }
}

static struct cluster_options options(void)
{
    struct cluster_options o = plain_options(subject.path);
    o.n_ctx = CONTEXT;
    o.activation = subject.activation;
    return o;
}

static void make_all_alone(void)
{
    memset(alone, 0, sizeof alone);
    write_texts();
    const struct cluster_options o = options();
    run_alone(&o, TEXTS, make_alone);
}

static int take_made(void **state)
{
    (void)state;
    made_model_write(&made_quantised, made_path);
    subject.path = made_path;
    subject.activation = "relu";
    subject.vocabulary = MADE_VOCABULARY;
    make_all_alone();
    return 0;
}

static int remove_made(void **state)
{
    (void)state;
    return unlink(made_path);
}

static int take_net(void **state)
{
    (void)state;
    subject.path = TEST_DATA "/model-qwen35.gguf";
    subject.activation = NULL;
    subject.vocabulary = 284;
    make_all_alone();
    return 0;
}

/* ---- all in one session ---- */

struct crowd {
    struct session *s;
    struct sequence *q[TEXTS];
    uint32_t n_made[TEXTS], n_begun, n_over;
    uint64_t random;
};

static void begin_text(struct crowd *c, uint32_t i)
{
    const struct text *t = &found[i];
    c->q[i] = begin(c->s, t->prompt, t->n, &t->wish, &t->sampling);
    c->n_made[i] = 0;
}

static void end_text(struct crowd *c, uint32_t i)
{
    session_close(c->s, c->q[i]);
    c->q[i] = NULL;
}

static void take_token(struct text *t, uint32_t *n, int32_t token)
{
    if (*n < MADE)
        t->made[(*n)++] = token;
}

/* Takes what an event brings. Now and then the text is given up and begun anew. */
static void take_event(struct crowd *c, uint32_t i, const struct session_event *e)
{
    struct text *t = &found[i];
    assert_int_equal(e->st, ST_OK);
    if (made_draw(&c->random) % 50 == 0) {
        end_text(c, i);
        begin_text(c, i);
        return;
    }
    for (uint32_t j = 0; j < e->answer.n_tokens; j++)
        take_token(t, &c->n_made[i], e->answer.tokens[j]);
    if (e->answer.n_values == subject.vocabulary)
        memcpy(t->logits, e->answer.values, subject.vocabulary * sizeof *t->logits);
    if (e->kind == WISH_TOP)
        assert_int_equal(e->answer.n_tops, 4);
    if (c->n_made[i] == MADE) {
        end_text(c, i);
        c->n_over++;
    } else if (e->answer.n_tokens) {
        const int32_t guess[] = {alone[i].made[c->n_made[i]], (int32_t)(made_draw(&c->random) % subject.vocabulary)};
        assert_int_equal(session_append(c->s, c->q[i], e->answer.tokens[e->answer.n_tokens - 1]), ST_OK);
        session_propose(c->s, c->q[i], guess, made_draw(&c->random) % 3); /* the first is right */
    }
}

/* Texts come one by one, some at once, some when others are long under way. */
static void run_crowd(struct cluster *cluster)
{
    static struct crowd c;
    c = (struct crowd){.s = cluster_session(cluster), .random = 3};
    memcpy(found, alone, sizeof found);
    for (int i = 0; i < TEXTS; i++) {
        memset(found[i].made, 0xff, sizeof found[i].made);
        memset(found[i].logits, 0, sizeof found[i].logits);
    }
    while (c.n_over < TEXTS) {
        struct session_event e;
        bool happened;
        while (c.n_begun < TEXTS && made_draw(&c.random) % 16 < 7)
            begin_text(&c, c.n_begun++);
        assert_int_equal(session_poll(c.s, &e, &happened), ST_OK);
        if (happened)
            take_event(&c, whose(c.q, &e), &e);
    }
    for (int i = 0; i < TEXTS; i++) {
        if (memcmp(found[i].made, alone[i].made, sizeof found[i].made) != 0 ||
            memcmp(found[i].logits, alone[i].logits, sizeof found[i].logits) != 0)
            fail_msg("text %d, of %u tokens, is another than alone", i, alone[i].n);
    }
}

static void a_text_is_what_it_is_alone(void **state)
{
    (void)state;
    static const struct crowd_way ways[] = {
        {1, -1, -1, SPARSE_DENSE, 64, 96, 0},
        {1, -1, -1, SPARSE_EXACT, 8, 16, 4}, /* too few for those who come: they give theirs back */
        {3, SPLIT_SHARDS, 1, SPARSE_DENSE, 24, 40, 0},
        {3, SPLIT_SHARDS, 0, SPARSE_EXACT, 5, 7, 12},
        {3, SPLIT_BOTH, 0, SPARSE_DENSE, 12, 33, 12},
        {2, SPLIT_STAGES, 0, SPARSE_EXACT, 64, 20, 0},
    };
    uint64_t page_bytes = 0;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct crowd_way way = ways[i];
        if (!subject.activation)
            way.sparse = SPARSE_DENSE;
        struct cluster *c = start_way(options(), &way, &page_bytes);
        run_crowd(c);
        if (i == 1) {
            const struct schedule_counts counts = session_schedule(cluster_session(c));
            assert_int_equal(counts.pages, ways[i].pages);
            assert_true(counts.sent_away > 0);
        }
        cluster_stop(c);
    }
}

/* What a page takes is the same bytes under every plan, and a budget is kept by each rank. */
static void kv_memory_is_what_was_asked_for(void **state)
{
    (void)state;
    const struct made_model *m = &made_quantised;
    const uint64_t page = (uint64_t)m->layers * m->kv_heads * m->head_dim * 64 * 2 * sizeof(uint16_t);
    struct log_catcher caught;
    for (int ranks = 1; ranks <= 3; ranks++) {
        struct cluster_options o = options();
        o.activation = NULL;
        o.ranks = ranks;
        o.split = SPLIT_BOTH;
        o.n_sequences = 3;
        struct cluster *c = start(&o);
        assert_int_equal(cluster_page_bytes(c), page);
        assert_int_equal(session_schedule(cluster_session(c)).pages, 3 * 4);
        cluster_stop(c);
        o.ranks = 1;
        o.kv_budget = 5 * page + page / 2;
        c = start(&o);
        assert_int_equal(session_schedule(cluster_session(c)).pages, 5);
        cluster_stop(c);
        o.kv_budget = 4 * page - 1;
        log_catch(&caught);
        assert_int_equal(cluster_start(&o, &c), ST_BUDGET);
        log_catch(NULL);
        assert_non_null(strstr(caught.first_error, "--kv-budget"));
    }
}

/* A text that is cut back and goes on as before is the same, wherever that is: its state is one that was kept, or all
 * of it runs again. */
static void a_text_that_is_cut_back_goes_on_as_it_went(void **state)
{
    (void)state;
    static const uint32_t places[] = {179, 178, 129, 128, 127, 100, 64, 63, 1, 0};
    static float first[MADE_VOCABULARY], again[MADE_VOCABULARY];
    int32_t text[180];
    uint64_t random = 17;
    for (uint32_t i = 0; i < 180; i++)
        text[i] = (int32_t)(made_draw(&random) % subject.vocabulary);
    for (int ranks = 1; ranks <= 3; ranks++) {
        struct cluster_options o = options();
        o.ranks = ranks;
        o.n_batch = ranks == 2 ? 50 : 256;
        struct cluster *c = start(&o);
        struct dialogue *d = cluster_dialogue(c);
        assert_int_equal(dialogue_logits(d, text, 180, first), ST_OK);
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
            dialogue_truncate(d, places[i]);
            assert_int_equal(dialogue_logits(d, text + places[i], 180 - places[i], again), ST_OK);
            assert_memory_equal(again, first, subject.vocabulary * sizeof *again);
        }
        cluster_stop(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_is_what_it_is_alone),
        cmocka_unit_test(a_text_that_is_cut_back_goes_on_as_it_went),
        cmocka_unit_test(kv_memory_is_what_was_asked_for),
    };
    const struct CMUnitTest of_net[] = {
        cmocka_unit_test(a_text_is_what_it_is_alone),
        cmocka_unit_test(a_text_that_is_cut_back_goes_on_as_it_went),
    };
    return cmocka_run_group_tests(tests, take_made, remove_made) + cmocka_run_group_tests(of_net, take_net, NULL);
}
