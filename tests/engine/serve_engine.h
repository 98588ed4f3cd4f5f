/* The engine of a server on a real session: jobs that remember what came of them, what their texts are alone, and the
 * world that they run in. Include it first. */
#ifndef HEARTH_TESTS_SERVE_ENGINE_H
#define HEARTH_TESTS_SERVE_ENGINE_H

#include "tests/engine/made_model.h"

#include "serve/engine.h"

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

static inline int write_model(void **state)
{
    (void)state;
    made_model_write(&small, model_path);
    subject.path = model_path;
    subject.vocabulary = MADE_VOCABULARY;
    subject.nets = false;
    return 0;
}

static inline int take_net(void **state)
{
    (void)state;
    subject.path = TEST_DATA "/model-qwen35.gguf";
    subject.vocabulary = 284;
    subject.nets = true;
    return 0;
}

static inline int remove_model(void **state)
{
    (void)state;
    return unlink(model_path);
}

/* ---- jobs ---- */

struct text {
    struct job job;
    int32_t prompt[MOST_PROMPT], made[MOST_MADE];
    uint32_t n_made, stop_at; /* stop_at: the owner ends the answer with that many tokens; 0: he does not */
    float log_p[MOST_MADE], states[64];
    struct wire_top tops[MOST_MADE][4];
    uint32_t n_tops, n_states, done;
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
    void (*on_token)(struct text *t); /* NULL: nothing more */
    void (*on_over)(struct text *t);
} w;

static struct text texts[MANY];

static inline bool is_end(const void *arg, int32_t token) { return token == *(const int32_t *)arg; }

static inline bool take_token(struct job *j, int32_t token, float log_p, const struct wire_top *tops, uint32_t n_tops)
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

static inline void take_progress(struct job *j, uint32_t done)
{
    struct text *t = j->owner;
    assert_true(done > t->done && done <= j->n_prompt && t->n_made == 0);
    t->done = done;
}

static inline void take_states(struct job *j, const float *values, uint32_t n)
{
    struct text *t = j->owner;
    assert_true(n <= 64);
    memcpy(t->states, values, n * sizeof *values);
    t->n_states = n;
}

static inline void take_end(struct job *j, enum job_end end, const struct job_usage *u, const char *why)
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
    if (--w.n_open == 0)
        engine_stop(w.e, 100);
}

/* A text of n tokens, of which the first `common` are those of all texts of the family. */
static inline struct text *make(struct text *t, uint64_t family, uint32_t common, uint64_t own, uint32_t n)
{
    *t = (struct text){.job = {.kind = JOB_TEXT, .prompt = t->prompt, .n_prompt = n, .sampling = sampler_greedy,
                               .n_top = UINT32_MAX, .max_tokens = MOST_MADE, .progress = take_progress,
                               .token = take_token, .states = take_states, .over = take_end, .owner = t}};
    own += 1000;
    for (uint32_t i = 0; i < n; i++)
        t->prompt[i] = (int32_t)(made_draw(i < common ? &family : &own) % subject.vocabulary);
    return t;
}

static inline void submit(struct text *t)
{
    struct job *j = &t->job;
    assert_int_equal(engine_submit(w.e, &j, 1), ST_OK);
    w.n_open++;
}

static inline struct cluster_options options(int ranks, int split, uint32_t slots, uint32_t n_batch)
{
    struct cluster_options o = plain_options(subject.path);
    o.ranks = ranks;
    o.split = ranks > 1 ? split : -1;
    o.n_ctx = CONTEXT;
    o.n_sequences = slots;
    o.n_batch = n_batch;
    return o;
}

static inline void open_world(const struct cluster_options *o, uint32_t n_sequences, uint32_t max_queue, bool lookup)
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
static inline void run(void) { assert_int_equal(engine_run(w.e), ST_OK); }

/* Nothing is left: no sequence, no page. */
static inline void close_world(void)
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

static inline void equal_made(const struct text *found, const struct text *expected)
{
    assert_int_equal(found->n_made, expected->n_made);
    assert_memory_equal(found->made, expected->made, expected->n_made * sizeof *found->made);
}

/* What texts are alone: of a cluster's dialogue, token by token. */
static inline void run_alone(struct text *t, uint32_t n)
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
static inline void make_crowd(struct text *t, uint32_t n)
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

#endif
