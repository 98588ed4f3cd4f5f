/* The engine of a server on a real session: many jobs at once are what each is alone, keys are treated alike,
 * beginnings are kept, and whoever leaves, whatever fails, every job is over once and nothing is left behind. */
#include "tests/engine/made_model.h"

#include <malloc.h>
#include <pthread.h>
#include "base/log.h"
#include "serve/engine.h"
#include "transport/transport.h"

enum { CONTEXT = 512, MOST_MADE = 40, MOST_PROMPT = 400, MANY = 60, END = 77 };

/* Two layers, little of everything. */
static const struct made_model small = {2, 64, 256, 2, 2, 32, 0, DT_Q8_0, DT_Q4_0, DT_Q8_0, DT_Q4_1, DT_Q4_0};
static char model_path[MADE_NAME];

/* What runs: a model with pages alone, or one with states of delta nets too, where drafts cannot be. */
static struct {
    const char *path;
    uint32_t vocabulary;
    bool nets;
} subject;

static int write_model(void **state)
{
    (void)state;
    made_model_write(&small, model_path);
    subject.path = model_path;
    subject.vocabulary = MADE_VOCABULARY;
    subject.nets = false;
    return 0;
}

static int take_net(void **state)
{
    (void)state;
    subject.path = TEST_DATA "/model-qwen35.gguf";
    subject.vocabulary = 284;
    subject.nets = true;
    return 0;
}

static int remove_model(void **state)
{
    (void)state;
    return unlink(model_path);
}

/* ---- a transport that ends, when a test says so ---- */

static struct {
    int rank, n;
    _Atomic int at; /* at the at-th message that the rank sends, from 1; 0: never */
} plot;

struct torn {
    struct transport base;
    struct transport *inner;
};

static struct transport *inner(struct transport *t) { return ((struct torn *)t)->inner; }
static status torn_connect(struct transport *t) { return transport_connect(inner(t)); }
static status torn_register(struct transport *t, void *p, size_t n) { return transport_register(inner(t), p, n); }
static status torn_sent(struct transport *t, struct send *s, bool *done) { return transport_sent(inner(t), s, done); }
static status torn_release(struct transport *t, struct arrival *a) { return transport_release(inner(t), a); }
static void torn_idle(struct transport *t) { transport_idle(inner(t)); }
static void torn_abandon(struct transport *t, const char *why) { transport_abandon(inner(t), why); }

static status torn_lend(struct transport *t, int from, int channel, void *p, size_t n)
{
    return transport_lend(inner(t), from, channel, p, n);
}

static status torn_post(struct transport *t, int to, int kind, const void *data, size_t size, struct send *s)
{
    if (plot.at && t->rank == plot.rank && ++plot.n == plot.at) {
        transport_abandon(inner(t), "it is torn");
        log_error("it is torn");
        return ST_PEER;
    }
    return transport_post(inner(t), to, kind, data, size, s);
}

static status torn_poll(struct transport *t, uint32_t kinds, struct arrival *a, bool *found)
{
    return transport_poll(inner(t), kinds, a, found);
}

static void torn_close(struct transport *t)
{
    transport_close(inner(t));
    free(t);
}

status __real_transport_inproc_open(const struct transport_config *c, int n_ranks, struct transport **out);
status __wrap_transport_inproc_open(const struct transport_config *c, int n_ranks, struct transport **out);

status __wrap_transport_inproc_open(const struct transport_config *c, int n_ranks, struct transport **out)
{
    static const struct transport_ops ops = {
        .name = "torn", .connect = torn_connect, .register_memory = torn_register, .lend = torn_lend,
        .post = torn_post, .sent = torn_sent, .poll = torn_poll, .release = torn_release, .idle = torn_idle,
        .abandon = torn_abandon, .close = torn_close};
    assert_int_equal(__real_transport_inproc_open(c, n_ranks, out), ST_OK);
    for (int r = 0; r < n_ranks; r++) {
        struct torn *t = malloc(sizeof *t);
        assert_non_null(t);
        *t = (struct torn){.base = {.ops = &ops, .rank = r, .n_ranks = n_ranks}, .inner = out[r]};
        out[r] = &t->base;
    }
    return ST_OK;
}

/* ---- a clock that ticks when it is looked at: steps take as long however many drafts they have ---- */

static _Atomic bool still;
static _Atomic long n_looks;

double __real_clock_s(void);
double __wrap_clock_s(void);

double __wrap_clock_s(void) { return still ? 1 + 1e-6 * (double)++n_looks : __real_clock_s(); }

/* ---- jobs ---- */

struct text {
    struct job job;
    int32_t prompt[MOST_PROMPT], made[MOST_MADE];
    uint32_t n_made, n_told, stop_at; /* stop_at: the owner ends the answer with that many tokens; 0: he does not */
    float log_p[MOST_MADE], states[64];
    struct wire_top tops[MOST_MADE][4];
    uint32_t n_tops, n_states, n_progress, done;
    uint32_t order;           /* of its end among all, from 1; 0: it is not over */
    enum job_end end;
    struct job_usage usage;
    char why[256];
};

/* The cluster, its engine, and what happened. */
static struct world {
    struct cluster *c;
    struct engine *e;
    struct counts counts;
    uint32_t n_open, n_over;          /* jobs */
    bool stays;                       /* the engine is not stopped when no job is open */
    void (*on_token)(struct text *t); /* NULL: nothing more */
    void (*on_over)(struct text *t);
} w;

static struct text texts[MANY], alone[MANY];

static bool is_end(const void *arg, int32_t token) { return token == *(const int32_t *)arg; }

static bool take_token(struct job *j, int32_t token, float log_p, const struct wire_top *tops, uint32_t n_tops)
{
    struct text *t = j->owner;
    assert_int_equal(t->order, 0);
    assert_true(t->n_made < MOST_MADE && n_tops <= 4);
    t->log_p[t->n_made] = log_p;
    if (n_tops)
        memcpy(t->tops[t->n_made], tops, n_tops * sizeof *tops);
    t->n_tops = n_tops;
    t->made[t->n_made++] = token;
    if (w.on_token)
        w.on_token(t);
    return t->n_made != t->stop_at;
}

static void take_progress(struct job *j, uint32_t done)
{
    struct text *t = j->owner;
    assert_true(done > t->done && done <= j->n_prompt && t->n_made == 0);
    t->done = done;
    t->n_progress++;
}

static void take_states(struct job *j, const float *values, uint32_t n)
{
    struct text *t = j->owner;
    assert_true(n <= 64);
    memcpy(t->states, values, n * sizeof *values);
    t->n_states = n;
}

static void take_end(struct job *j, enum job_end end, const struct job_usage *u, const char *why)
{
    struct text *t = j->owner;
    assert_int_equal(t->order, 0);
    assert_true((why != NULL) == (end == JOB_FAILED));
    t->order = ++w.n_over;
    t->end = end;
    t->usage = *u;
    snprintf(t->why, sizeof t->why, "%s", why ? why : "");
    if (w.on_over)
        w.on_over(t);
    if (--w.n_open == 0 && !w.stays)
        engine_stop(w.e, 100);
}

/* A text of n tokens, of which the first `common` are those of all texts of the family. */
static struct text *make(struct text *t, uint64_t family, uint32_t common, uint64_t own, uint32_t n)
{
    *t = (struct text){.job = {.kind = JOB_TEXT, .prompt = t->prompt, .n_prompt = n, .sampling = sampler_greedy,
                               .n_top = UINT32_MAX, .max_tokens = MOST_MADE, .progress = take_progress,
                               .token = take_token, .states = take_states, .over = take_end, .owner = t}};
    own += 1000;
    for (uint32_t i = 0; i < n; i++)
        t->prompt[i] = (int32_t)(made_draw(i < common ? &family : &own) % subject.vocabulary);
    return t;
}

static void submit(struct text *t)
{
    struct job *j = &t->job;
    assert_int_equal(engine_submit(w.e, &j, 1), ST_OK);
    w.n_open++;
}

static struct cluster_options options(int ranks, int split, uint32_t slots, uint32_t n_batch)
{
    struct cluster_options o = plain_options(subject.path);
    o.ranks = ranks;
    o.split = ranks > 1 ? split : -1;
    o.n_ctx = CONTEXT;
    o.n_sequences = slots;
    o.n_batch = n_batch;
    return o;
}

static void open_world(const struct cluster_options *o, uint32_t n_sequences, uint32_t max_queue, bool lookup)
{
    static const int32_t end = END;
    w = (struct world){.c = start(o)};
    counts_init(&w.counts);
    const struct engine_options e = {.session = cluster_session(w.c), .n_ctx = cluster_context(w.c),
                                     .n_sequences = n_sequences, .max_queue = max_queue, .lookup = lookup,
                                     .is_end = is_end, .is_end_arg = &end, .counts = &w.counts};
    assert_int_equal(engine_create(&e, &w.e), ST_OK);
}

/* Until all jobs are over. */
static void run(void) { assert_int_equal(engine_run(w.e), ST_OK); }

/* Nothing is left: no sequence, no page. */
static void close_world(void)
{
    struct wire_usage usage;
    assert_int_equal(session_usage(cluster_session(w.c), &usage, NULL), ST_OK); /* waits for what nobody waits for */
    const struct schedule_counts c = session_schedule(cluster_session(w.c));
    assert_int_equal(c.running + c.waiting + c.idle, 0);
    assert_int_equal(c.free_pages, c.pages);
    assert_int_equal(w.counts.running + w.counts.waiting, 0);
    engine_free(w.e);
    cluster_stop(w.c);
}

static void equal_made(const struct text *found, const struct text *expected)
{
    assert_int_equal(found->n_made, expected->n_made);
    assert_memory_equal(found->made, expected->made, expected->n_made * sizeof *found->made);
}

/* What texts are alone: of a cluster's dialogue, token by token. */
static void run_alone(struct text *t, uint32_t n)
{
    struct cluster_options o = options(1, -1, 1, 256);
    struct cluster *c = start(&o);
    struct dialogue *d = cluster_dialogue(c);
    for (uint32_t i = 0; i < n; i++, t++) {
        int32_t next;
        dialogue_truncate(d, 0);
        assert_int_equal(dialogue_sampling(d, &t->job.sampling), ST_OK);
        assert_int_equal(dialogue_prompt(d, t->prompt, t->job.n_prompt, &next, NULL, NULL), ST_OK);
        while (next != END || t->job.ignore_end) {
            t->made[t->n_made++] = next;
            if (t->n_made == t->job.max_tokens)
                break;
            assert_int_equal(dialogue_next(d, next, &next), ST_OK);
        }
        t->end = t->n_made < t->job.max_tokens ? JOB_ANSWERED : JOB_LIMIT;
    }
    cluster_stop(c);
}

/* Of all lengths and kinds; half of them begin alike. */
static void make_crowd(struct text *t, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        make(&t[i], 5, i % 2 ? 0 : 90, i, 91 + i * 37 % 200);
        t[i].job.key = i % 3;
        if (i % 4)
            t[i].job.sampling = (struct sampler_params){
                .temperature = i % 4 == 1 ? 1 : 0.3f, .top_p = 0.95f, .top_k = 40, .seed = i,
                .repeat_penalty = i % 4 == 2 ? 1.1f : 1, .repeat_last = 30};
    }
}

static void jobs_are_what_they_are_alone(void **state)
{
    (void)state;
    enum { N = 16 };
    static const struct {
        int ranks, split;
        uint32_t slots, n_batch, n_sequences;
        bool lookup;
    } ways[] = {
        {1, -1, 24, 64, 16, false}, {1, -1, 24, 64, 16, true}, {1, -1, 4, 256, 3, true},
        {2, SPLIT_SHARDS, 16, 40, 16, true}, {3, SPLIT_STAGES, 24, 32, 8, true},
    };
    make_crowd(alone, N);
    run_alone(alone, N);
    still = true;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        const struct cluster_options o = options(ways[i].ranks, ways[i].split, ways[i].slots, ways[i].n_batch);
        uint64_t drafts = 0, accepted = 0, made = 0, prompts = 0;
        open_world(&o, ways[i].n_sequences, N, ways[i].lookup);
        make_crowd(texts, N);
        for (int j = 0; j < N; j++)
            submit(&texts[j]);
        run();
        for (int j = 0; j < N; j++) {
            const struct job_usage *u = &texts[j].usage;
            equal_made(&texts[j], &alone[j]);
            assert_int_equal(texts[j].end, alone[j].end);
            assert_int_equal(u->made_tokens, texts[j].n_made);
            assert_int_equal(u->prompt_tokens, texts[j].job.n_prompt);
            assert_true(u->accepted <= u->drafts && u->queued_s >= 0 && u->prompt_s > 0 && u->decode_s >= 0);
            drafts += u->drafts;
            accepted += u->accepted;
            made += u->made_tokens;
            prompts += u->prompt_tokens;
        }
        if (!ways[i].lookup || subject.nets)
            assert_int_equal(drafts, 0);
        else if (ways[i].ranks == 1) /* else it looks at the clock while it waits */
            assert_true(accepted > 0 && accepted < drafts);
        print_message("%d ranks: %lu drafts, %lu of them right, %lu tokens\n", ways[i].ranks, drafts, accepted, made);
        assert_true(w.counts.drafts == drafts && w.counts.accepted == accepted);
        assert_true(w.counts.made_tokens == made && w.counts.prompt_tokens == prompts);
        assert_int_equal(w.counts.ended[JOB_ANSWERED] + w.counts.ended[JOB_LIMIT], N);
        assert_true(w.counts.steps > 0 && w.counts.busy > w.counts.steps);
        close_world();
    }
    still = false;
}

/* Where the answer ends: with the context, with the owner's word, at once. */
static void answers_end_where_they_are_told_to(void **state)
{
    (void)state;
    struct cluster_options o = options(1, -1, 8, 64);
    o.n_ctx = 100;
    open_world(&o, 8, 8, true);
    make(&texts[0], 1, 0, 1, 90)->job.max_tokens = UINT32_MAX;
    make(&texts[1], 1, 0, 2, 30)->stop_at = 3;
    make(&texts[2], 1, 0, 3, 30)->job.max_tokens = 0;
    make(&texts[3], 1, 0, 4, 30)->job.max_tokens = 1;
    make(&texts[4], 1, 0, 5, 101);
    make(&texts[5], 1, 0, 6, 20)->job.sampling.temperature = NAN;
    make(&texts[6], 1, 0, 7, 20)->job.n_top = WIRE_TOP + 1;
    make(&texts[7], 1, 0, 8, 99);
    for (int i = 0; i < 8; i++) {
        texts[i].job.ignore_end = true;
        submit(&texts[i]);
    }
    run();
    static const struct {
        enum job_end end;
        uint32_t n_made;
        const char *why;
    } expected[] = {{JOB_LIMIT, 10, ""}, {JOB_ANSWERED, 3, ""}, {JOB_LIMIT, 0, ""}, {JOB_LIMIT, 1, ""},
                    {JOB_FAILED, 0, "context"}, {JOB_FAILED, 0, "not finite"}, {JOB_FAILED, 0, "best tokens"},
                    {JOB_LIMIT, 1, ""}};
    for (int i = 0; i < 8; i++) {
        assert_int_equal(texts[i].end, expected[i].end);
        assert_int_equal(texts[i].n_made, expected[i].n_made);
        assert_non_null(strstr(texts[i].why, expected[i].why));
    }
    close_world();
}

/* Texts that must give their pages back to others, and run again, are the same; and no chunk of a prompt is told
 * twice. */
static void kv_memory_may_be_short(void **state)
{
    (void)state;
    enum { N = 12 };
    struct cluster_options o = options(1, -1, 12, 64);
    struct cluster *c = start(&o);
    o.kv_budget = 8 * cluster_page_bytes(c);
    cluster_stop(c);
    make_crowd(alone, N);
    run_alone(alone, N);
    open_world(&o, N, N, true);
    make_crowd(texts, N);
    for (int i = 0; i < N; i++)
        submit(&texts[i]);
    run();
    assert_true(session_schedule(cluster_session(w.c)).sent_away > 0);
    for (int i = 0; i < N; i++)
        equal_made(&texts[i], &alone[i]);
    close_world();
}

static void best_tokens_come_with_their_probabilities(void **state)
{
    (void)state;
    const struct cluster_options o = options(1, -1, 4, 64);
    open_world(&o, 4, 4, true);
    make(&texts[0], 1, 0, 1, 20)->job.n_top = 0;
    make(&texts[1], 1, 0, 1, 20)->job.n_top = 3;
    make(&texts[2], 1, 0, 1, 20);
    for (int i = 0; i < 3; i++) {
        texts[i].job.ignore_end = true;
        submit(&texts[i]);
    }
    run();
    for (uint32_t i = 0; i < MOST_MADE; i++) {
        assert_true(texts[0].log_p[i] < 0 && texts[0].log_p[i] == texts[1].log_p[i] && texts[2].log_p[i] == 0);
        assert_int_equal(texts[1].tops[i][0].token, texts[1].made[i]);
        assert_true(texts[1].tops[i][0].log_p == texts[1].log_p[i]);
    }
    assert_int_equal(texts[0].n_tops, 0);
    assert_int_equal(texts[1].n_tops, 3);
    equal_made(&texts[1], &texts[2]);
    close_world();
}

/* What the session alone says of a text's states. */
static void states_alone(struct session *s, const struct text *t, float expected[64])
{
    const struct wish wish = {.kind = t->job.pool == POOL_MEAN ? WISH_SUM : WISH_STATES};
    int64_t sum[64] = {0};
    struct session_event event;
    struct sequence *q;
    assert_int_equal(session_open(s, &q), ST_OK);
    assert_int_equal(session_text(s, q, t->prompt, t->job.n_prompt), ST_OK);
    assert_int_equal(session_submit(s, q, &wish, NULL), ST_OK);
    do {
        assert_int_equal(session_wait(s, &event), ST_OK);
        if (event.kind == WISH_SUM)
            wire_sum_add(sum, event.answer.values, 64);
    } while (!event.over);
    if (event.kind == WISH_SUM)
        wire_sum_mean(sum, 64, t->job.n_prompt, expected);
    else
        memcpy(expected, event.answer.values, 64 * sizeof *expected);
    session_close(s, q);
}

static void states_of_a_text(void **state)
{
    (void)state;
    struct cluster_options o = options(2, SPLIT_STAGES, 8, 16);
    float expected[64];
    open_world(&o, 8, 8, true);
    struct session *s = cluster_session(w.c);
    for (uint32_t i = 0; i < 4; i++) {
        make(&texts[i], 9, 70, i, 71 + i)->job.kind = JOB_STATES;
        submit(&texts[i]);
    }
    make(&texts[4], 9, 70, 0, 71)->job.kind = JOB_STATES;
    texts[4].job.pool = POOL_MEAN;
    submit(&texts[4]);
    make_crowd(&texts[5], 3);
    for (int i = 5; i < 8; i++)
        submit(&texts[i]);
    run();
    for (uint32_t i = 0; i < 5; i++) {
        states_alone(s, &texts[i], expected);
        assert_int_equal(texts[i].end, JOB_ANSWERED);
        assert_int_equal(texts[i].n_states, 64);
        assert_memory_equal(texts[i].states, expected, sizeof expected);
    }
    close_world();
}

/* ---- cancelling ---- */

/* Whenever somebody has a fifth token another leaves. */
static uint32_t n_cancelled;
static void cancel_one(struct text *t)
{
    if (t->n_made % 5 == 0 && n_cancelled < 50)
        texts[n_cancelled++].job.cancelled = true;
}

static void fifty_leave_and_nobody_notices(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= 2; ranks++) {
        const struct cluster_options o = options(ranks, SPLIT_SHARDS, 24, 64);
        make_crowd(alone, MANY);
        run_alone(alone + 50, MANY - 50);
        make_crowd(texts, MANY);
        open_world(&o, 16, MANY, true);
        w.on_token = cancel_one;
        n_cancelled = 0;
        for (int i = 0; i < MANY; i++)
            submit(&texts[i]);
        run();
        uint32_t left = 0;
        for (int i = 0; i < MANY; i++) {
            left += texts[i].end == JOB_CANCELLED;
            if (i >= 50)
                equal_made(&texts[i], &alone[i]);
        }
        assert_true(left >= 25 && left <= 50);
        assert_int_equal(w.counts.ended[JOB_CANCELLED], left);
        close_world();
    }
}

/* ---- fairness, queue, end ---- */

static void a_key_with_one_job_does_not_wait_for_one_with_forty(void **state)
{
    (void)state;
    const struct cluster_options o = options(1, -1, 8, 64);
    open_world(&o, 4, 100, false);
    for (uint32_t i = 0; i < 40; i++) {
        make(&texts[i], 1, 0, i, 20 + i)->job.key = 1;
        texts[i].job.max_tokens = 10;
        submit(&texts[i]);
    }
    make(&texts[40], 1, 0, 40, 30)->job.key = 2;
    submit(&texts[40]);
    run();
    assert_in_range(texts[40].order, 1, 12); /* of 41 ends: it is begun within 4 turns, which end, and 4 run beside
                                              * it */
    close_world();
}

static void submit_late(struct text *t)
{
    if (t == &texts[9] && t->n_made == 1)
        submit(&texts[40]);
}

static void a_key_that_comes_late_is_next(void **state)
{
    (void)state;
    const struct cluster_options o = options(1, -1, 8, 64);
    open_world(&o, 4, 100, false);
    w.on_token = submit_late;
    for (uint32_t i = 0; i < 40; i++) {
        make(&texts[i], 1, 0, i, 20)->job.key = 1;
        texts[i].job.max_tokens = 6;
        submit(&texts[i]);
    }
    make(&texts[40], 1, 0, 40, 30)->job.key = 2;
    texts[40].job.max_tokens = 6;
    run();
    assert_true(texts[40].order <= texts[9].order + 8);
    close_world();
}

static void leave_at_first_chunk(struct job *j, uint32_t done)
{
    (void)done;
    j->cancelled = true;
}

/* A long prompt of which a chunk has run, and one that is too long, cost what ran: who sent them has not had his turn
 * for long. */
static void what_never_ran_is_not_paid(void **state)
{
    (void)state;
    const struct cluster_options o = options(1, -1, 4, 16);
    open_world(&o, 1, 100, false);
    make(&texts[0], 1, 0, 0, 400)->job.progress = leave_at_first_chunk;
    make(&texts[1], 1, 0, 1, 20)->job.n_prompt = CONTEXT + 1; /* of which no token is read */
    for (uint32_t i = 2; i < 20; i++)
        make(&texts[i], 1, 0, i, 20)->job.max_tokens = 6;
    for (uint32_t i = 0; i < 20; i++) {
        texts[i].job.key = i < 3 ? 1 : 2;
        submit(&texts[i]);
    }
    run();
    assert_int_equal(texts[0].end, JOB_CANCELLED);
    assert_int_equal(texts[1].end, JOB_FAILED);
    assert_in_range(texts[2].order, 3, 8); /* of 20 */
    close_world();
}

static void a_full_queue_takes_nobody(void **state)
{
    (void)state;
    const struct cluster_options o = options(1, -1, 4, 64);
    struct job *more[2] = {&texts[5].job, &texts[6].job};
    open_world(&o, 2, 4, false);
    for (uint32_t i = 0; i < 7; i++)
        make(&texts[i], 1, 0, i, 20)->job.max_tokens = 3;
    for (int i = 0; i < 5; i++)
        submit(&texts[i]);
    assert_int_equal(engine_submit(w.e, more, 2), ST_FULL); /* all or none */
    submit(&texts[5]);
    assert_int_equal(engine_submit(w.e, &more[1], 1), ST_FULL);
    run();
    assert_int_equal(w.counts.refused, 3);
    assert_int_equal(w.n_over, 6);
    assert_int_equal(texts[6].order, 0);
    assert_int_equal(engine_submit(w.e, &more[1], 1), ST_PEER); /* it has stopped */
    close_world();
}

/* As many as can run find room beside another's crowd, until there are twice as many as may wait. */
static void a_crowd_of_one_key_shuts_no_other_out(void **state)
{
    (void)state;
    static const uint32_t key[] = {1, 1, 1, 1, 1, 1, /* all that there is room for */ 1, 2, 2, 2, 3, 3, 4};
    static const bool fits[] = {true, true, true, true, true, true, false, true, true, false, true, true, false};
    const struct cluster_options o = options(1, -1, 4, 64);
    open_world(&o, 2, 4, false);
    for (uint32_t i = 0; i < sizeof key / sizeof *key; i++) {
        struct job *j = &make(&texts[i], 1, 0, i, 20)->job;
        j->key = key[i];
        j->max_tokens = 3;
        assert_int_equal(engine_submit(w.e, &j, 1), fits[i] ? ST_OK : ST_FULL);
        w.n_open += fits[i];
    }
    run();
    assert_int_equal(w.n_over, 10);
    close_world();
}

static double drain_s;
static void stop_now(struct text *t)
{
    struct job *more = &texts[50].job;
    if (t != &texts[0] || t->n_made != 3)
        return;
    engine_stop(w.e, drain_s);
    engine_stop(w.e, 200); /* the earlier end counts */
    assert_int_equal(engine_submit(w.e, &more, 1), ST_PEER);
}

static void a_server_that_stops_ends_its_jobs(void **state)
{
    (void)state;
    const struct cluster_options o = options(1, -1, 8, 64);
    for (drain_s = 0; drain_s <= 100; drain_s += 100) {
        open_world(&o, 4, 100, false);
        w.on_token = stop_now;
        make_crowd(texts, 20);
        for (int i = 0; i < 20; i++) {
            texts[i].job.ignore_end = true;
            submit(&texts[i]);
        }
        run();
        assert_int_equal(w.n_over, 20);
        for (int i = 0; i < 20; i++) {
            assert_int_equal(texts[i].end, drain_s > 0 ? JOB_LIMIT : JOB_FAILED);
            assert_non_null(strstr(texts[i].why, drain_s > 0 ? "" : "stops"));
        }
        close_world();
    }
}

/* ---- beginnings ---- */

/* The next turn of a chat: what was said, and more. */
static void follow_up(struct text *t)
{
    struct text *next = t + 1;
    if (t >= &texts[3])
        return;
    make(next, 1, 0, (uint64_t)(t - texts), t->job.n_prompt + t->n_made + 30);
    memcpy(next->prompt, t->prompt, t->job.n_prompt * sizeof *t->prompt);
    memcpy(next->prompt + t->job.n_prompt, t->made, t->n_made * sizeof *t->made);
    next->job.max_tokens = 20;
    next->job.ignore_end = true;
    submit(next);
}

static void a_chat_goes_on_where_it_was(void **state)
{
    (void)state;
    for (int lookup = 0; lookup < 2; lookup++) {
        const struct cluster_options o = options(1, -1, 8, 64);
        open_world(&o, 4, 8, lookup);
        w.on_over = follow_up;
        make(&texts[0], 1, 0, 50, 150)->job.max_tokens = 20;
        texts[0].job.ignore_end = true;
        submit(&texts[0]);
        run();
        assert_int_equal(texts[0].usage.cached_tokens, 0);
        for (int i = 1; i < 4; i++) { /* all but the last token, which was told but did not run */
            assert_int_equal(texts[i].usage.cached_tokens, texts[i - 1].job.n_prompt + 19);
            alone[i] = texts[i];
            alone[i].n_made = 0;
        }
        assert_int_equal(w.counts.cached_tokens, 169 + 219 + 269);
        close_world();
        run_alone(alone + 1, 3);
        for (int i = 1; i < 4; i++)
            equal_made(&texts[i], &alone[i]);
    }
}

/* Also for those who come together. */
static void a_beginning_runs_once(void **state)
{
    (void)state;
    enum { N = 8, COMMON = 256 };
    for (int ranks = 1; ranks <= 2; ranks++) {
        const struct cluster_options o = options(ranks, SPLIT_STAGES, 16, 48);
        struct job *together[N];
        uint32_t cached = 0;
        open_world(&o, N, N, true);
        for (uint32_t i = 0; i < N; i++) {
            make(&texts[i], 7, COMMON, i, COMMON + 10 + i)->job.max_tokens = 5;
            alone[i] = texts[i];
            together[i] = &texts[i].job;
        }
        assert_int_equal(engine_submit(w.e, together, N), ST_OK);
        w.n_open = N;
        run();
        for (int i = 0; i < N; i++)
            cached += texts[i].usage.cached_tokens;
        assert_int_equal(cached, (N - 1) * COMMON);
        close_world();
        run_alone(alone, N);
        for (int i = 0; i < N; i++)
            equal_made(&texts[i], &alone[i]);
    }
}

static void submit_next(struct text *t)
{
    if (t < &texts[19])
        submit(t + 1);
}

/* Sequences that are kept give way, the oldest first: a system prompt that all have stays. */
static void what_all_begin_with_stays(void **state)
{
    (void)state;
    struct cluster_options o = options(1, -1, 4, 64);
    struct cluster *c = start(&o);
    o.kv_budget = 10 * cluster_page_bytes(c);
    cluster_stop(c);
    open_world(&o, 2, 8, true);
    w.on_over = submit_next;
    for (uint32_t i = 0; i < 20; i++)
        make(&texts[i], 3, 128, i, 200 + i)->job.max_tokens = 5;
    submit(&texts[0]);
    run();
    for (int i = 1; i < 20; i++)
        assert_int_equal(texts[i].usage.cached_tokens, 128);
    close_world();
}

/* Where there is no slot but for those that run, a new text sends the oldest away: not the one that it begins with. */
static void the_oldest_is_gone_on_with_before_it_leaves(void **state)
{
    (void)state;
    const struct cluster_options o = options(1, -1, 4, 64);
    open_world(&o, 4, 8, false);
    w.on_over = submit_next;
    for (uint32_t i = 0; i < 20; i++) {
        make(&texts[i], 1, 0, i % 4, 100 + i % 4)->job.max_tokens = 30;
        texts[i].job.ignore_end = true;
    }
    submit(&texts[0]);
    run();
    for (uint32_t i = 4; i < 20; i++)
        assert_int_equal(texts[i].usage.cached_tokens, texts[i].job.n_prompt - 1);
    close_world();
}

/* ---- others' time ---- */

static uint32_t tokens_between, chunks_seen;
static void count_between(struct text *t)
{
    tokens_between += t == &texts[0];
    if (t == &texts[0] && t->n_made == 2)
        submit(&texts[1]);
}

static void chunk_ran(struct job *j, uint32_t done)
{
    take_progress(j, done);
    assert_true(chunks_seen++ == 0 || tokens_between > 0);
    tokens_between = 0;
}

static void a_long_prompt_lets_a_running_text_have_a_token_a_chunk(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= 2; ranks++) {
        const struct cluster_options o = options(ranks, SPLIT_SHARDS, 4, 16);
        open_world(&o, 4, 4, false);
        w.on_token = count_between;
        chunks_seen = tokens_between = 0;
        make(&texts[0], 1, 0, 1, 10)->job.ignore_end = true;
        make(&texts[1], 1, 0, 2, 400)->job.progress = chunk_ran;
        submit(&texts[0]);
        run();
        assert_in_range(chunks_seen, 400 / 16, 400 / 15 + 1);
        close_world();
    }
}

static struct house seen_house;
static void look_at_house(struct text *t)
{
    (void)t;
    if (seen_house.at_s == 0)
        engine_house(w.e, &seen_house);
}

static void the_house_is_asked_while_texts_run(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= 3; ranks += 2) {
        const struct cluster_options o = options(ranks, SPLIT_SHARDS, 8, 64);
        open_world(&o, 8, 8, true);
        w.on_token = look_at_house;
        seen_house = (struct house){0};
        make_crowd(texts, 8);
        for (int i = 0; i < 8; i++)
            submit(&texts[i]);
        run();
        assert_int_equal(seen_house.n_ranks, ranks);
        assert_true(seen_house.at_s > 0);
        for (int r = 0; r < ranks; r++)
            assert_true(seen_house.ranks[r].n_devices > 0);
        close_world();
    }
}

/* ---- threads ---- */

enum { THREADS = 4, EACH = 15 };

/* Submits, waits, cancels some. */
static struct text *threads_texts;
static void *submit_some(void *arg)
{
    struct text *t = &threads_texts[*(const int *)arg * EACH];
    for (int i = 0; i < EACH; i++) {
        struct job *j = &t[i].job;
        while (engine_submit(w.e, &j, 1) == ST_FULL)
            sched_yield();
        if (i % 5 == 4)
            t[i - 1].job.cancelled = true;
        struct house house;
        struct counts counts;
        engine_house(w.e, &house);
        counts_copy(&w.counts, &counts);
    }
    return NULL;
}

static void jobs_come_from_many_threads(void **state)
{
    (void)state;
    static const int numbers[THREADS] = {0, 1, 2, 3};
    pthread_t threads[THREADS];
    const struct cluster_options o = options(2, SPLIT_SHARDS, 8, 32);
    make_crowd(alone, MANY);
    run_alone(alone, MANY);
    make_crowd(texts, MANY);
    open_world(&o, 6, 10, true);
    threads_texts = texts;
    w.n_open = THREADS * EACH;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, submit_some, (void *)&numbers[i]), 0);
    run();
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(w.n_over, MANY);
    for (int i = 0; i < MANY; i++)
        if (texts[i].end != JOB_CANCELLED)
            equal_made(&texts[i], &alone[i]);
    close_world();
}

/* ---- memory ---- */

static uint32_t n_short, n_short_all;
static size_t bytes_before;

static size_t bytes_in_use(void)
{
    const struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

/* Two chats that never end, on and on. */
static void submit_again(struct text *t)
{
    if (++n_short == n_short_all / 2)
        bytes_before = bytes_in_use();
    if (n_short + w.n_open > n_short_all)
        return;
    const uint64_t own = n_short;
    make(t, own % 5, 20, own, 21 + (uint32_t)(own % 100))->job.max_tokens = 4;
    t->job.key = (uint32_t)own;
    t->job.cancelled = own % 7 == 0;
    submit(t);
}

static void memory_does_not_grow(void **state)
{
    (void)state;
    const char *all = getenv("HEARTH_TEST_JOBS"); /* 10,000 take some seconds */
    const struct cluster_options o = options(2, SPLIT_SHARDS, 12, 64);
    n_short = 0;
    n_short_all = all ? (uint32_t)atoi(all) : SANITIZED ? 100 : 500;
    open_world(&o, 4, 8, true);
    w.on_over = submit_again;
    for (uint32_t i = 0; i < 8; i++) {
        make(&texts[i], i, 0, i, 30)->job.max_tokens = 4;
        submit(&texts[i]);
    }
    run();
    assert_int_equal(n_short, n_short_all);
    if (!SANITIZED)
        assert_true(bytes_in_use() <= bytes_before + 65536);
    close_world();
}

/* ---- failure ---- */

static void a_rank_that_dies_ends_all_jobs(void **state)
{
    (void)state;
    static const struct {
        int ranks, split;
    } shapes[] = {{2, SPLIT_SHARDS}, {3, SPLIT_STAGES}};
    int n = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const struct cluster_options o = options(shapes[i].ranks, shapes[i].split, 8, 16);
        for (int rank = 0; rank < shapes[i].ranks; rank++) {
            for (int at = 1; at < 2000; at = at * 3 + 1) {
                struct log_catcher caught;
                open_world(&o, 4, 20, true);
                make_crowd(texts, 12);
                for (int j = 0; j < 12; j++) {
                    texts[j].job.ignore_end = true;
                    submit(&texts[j]);
                }
                plot.n = 0;
                plot.rank = rank;
                plot.at = at;
                log_catch(&caught);
                const status st = engine_run(w.e);
                struct job *late = &texts[12].job;
                assert_int_equal(engine_submit(w.e, &late, 1), ST_PEER);
                for (int j = 0; j < 12; j++) {
                    assert_true(texts[j].order > 0);
                    assert_true(st || texts[j].end == JOB_LIMIT);
                }
                assert_true(st == ST_OK || (st == ST_PEER && caught.first_error[0]));
                n += st == ST_PEER;
                plot.at = 0;
                engine_free(w.e);
                cluster_stop(w.c);
                log_catch(NULL);
            }
        }
    }
    assert_true(n >= 25);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_are_what_they_are_alone),
        cmocka_unit_test(answers_end_where_they_are_told_to),
        cmocka_unit_test(kv_memory_may_be_short),
        cmocka_unit_test(best_tokens_come_with_their_probabilities),
        cmocka_unit_test(states_of_a_text),
        cmocka_unit_test(fifty_leave_and_nobody_notices),
        cmocka_unit_test(a_key_with_one_job_does_not_wait_for_one_with_forty),
        cmocka_unit_test(a_key_that_comes_late_is_next),
        cmocka_unit_test(what_never_ran_is_not_paid),
        cmocka_unit_test(a_full_queue_takes_nobody),
        cmocka_unit_test(a_crowd_of_one_key_shuts_no_other_out),
        cmocka_unit_test(a_server_that_stops_ends_its_jobs),
        cmocka_unit_test(a_chat_goes_on_where_it_was),
        cmocka_unit_test(a_beginning_runs_once),
        cmocka_unit_test(what_all_begin_with_stays),
        cmocka_unit_test(the_oldest_is_gone_on_with_before_it_leaves),
        cmocka_unit_test(a_long_prompt_lets_a_running_text_have_a_token_a_chunk),
        cmocka_unit_test(the_house_is_asked_while_texts_run),
        cmocka_unit_test(jobs_come_from_many_threads),
        cmocka_unit_test(memory_does_not_grow),
        cmocka_unit_test(a_rank_that_dies_ends_all_jobs),
    };
    const struct CMUnitTest of_net[] = {
        cmocka_unit_test(jobs_are_what_they_are_alone),
        cmocka_unit_test(a_chat_goes_on_where_it_was),
    };
    return cmocka_run_group_tests(tests, write_model, remove_model) + cmocka_run_group_tests(of_net, take_net, NULL);
}
