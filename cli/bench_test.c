#include "cli/bench_test.h"

#include <math.h>
#include <stdlib.h>
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/dialogue.h"
#include "model/tokenizer.h"

/* Any tokens will do, but the same ones every time. */
static int32_t some_token(const struct cluster *c, size_t i)
{
    return (int32_t)((i * 2654435761u + 12345) % (uint64_t)tokenizer_n_vocab(cluster_tokenizer(c)));
}

/* Whatever runs ends with a token that is drawn: a prompt from which nothing is wanted may still be on its way through
 * a GPU when all ranks have done their part. */
static const struct wish a_token = {.kind = WISH_TOKEN};

static status prompt(struct cluster *c, const int32_t *tokens, size_t n)
{
    int32_t next;
    status st = dialogue_sampling(cluster_dialogue(c), &sampler_greedy);
    return st ? st : dialogue_prompt(cluster_dialogue(c), tokens, n, &next, NULL, NULL);
}

/* tokens: [depth + n] */
static status begin_prompt(struct cluster *c, const struct test *t, const int32_t *tokens)
{
    dialogue_truncate(cluster_dialogue(c), 0);
    return t->depth ? prompt(c, tokens, t->depth) : ST_OK;
}

/* Token `at` of text i of a test: a text like no other. */
static int32_t text_token(const struct cluster *c, const struct test *t, uint32_t i, size_t at)
{
    return some_token(c, i * (t->depth + t->n) + at);
}

static status add_token(struct cluster *c, const struct test *t, uint32_t i, struct sequence *q)
{
    const int32_t token = text_token(c, t, i, q->n_tokens);
    return session_text(cluster_session(c), q, &token, 1);
}

/* Text i of a test, as long as it is before the clock starts. */
static status open_sequence(struct cluster *c, const struct test *t, uint32_t i, struct sequence **q)
{
    struct session_event e;
    status st = session_open(cluster_session(c), q);
    for (size_t at = 0; at < t->depth && st == ST_OK; at++)
        st = add_token(c, t, i, *q);
    if (st == ST_OK && t->depth)
        st = session_submit(cluster_session(c), *q, &a_token, &sampler_greedy);
    for (bool drawn = !t->depth; st == ST_OK && !drawn;) {
        st = session_wait(cluster_session(c), &e);
        st = st ? st : e.st;
        drawn = !st && e.answer.n_tokens;
    }
    if (st == ST_OK)
        session_end(cluster_session(c), *q);
    return st;
}

/* What prompts left behind goes first. */
static status begin_sequences(struct cluster *c, const struct test *t, struct sequence **q)
{
    status st = ST_OK;
    dialogue_truncate(cluster_dialogue(c), 0);
    for (uint32_t i = 0; i < t->sequences && st == ST_OK; i++)
        st = open_sequence(c, t, i, &q[i]);
    return st;
}

static status begin_decoding(struct cluster *c, const struct test *t, uint32_t i, struct sequence *q)
{
    status st = add_token(c, t, i, q);
    return st == ST_OK ? session_submit(cluster_session(c), q, &a_token, &sampler_greedy) : st;
}

/* Its next token, or its end: *left is one less then. */
static status go_on(struct cluster *c, const struct test *t, struct sequence *const *all, struct sequence *q,
                    uint32_t *left)
{
    uint32_t i = 0;
    while (all[i] != q)
        i++;
    if (q->n_tokens < t->depth + t->n)
        return session_append(cluster_session(c), q, text_token(c, t, i, q->n_tokens));
    session_end(cluster_session(c), q);
    --*left;
    return ST_OK;
}

static status run_decoding(struct cluster *c, const struct test *t, struct sequence *const *q)
{
    status st = ST_OK;
    for (uint32_t i = 0; i < t->sequences && st == ST_OK; i++)
        st = begin_decoding(c, t, i, q[i]);
    for (uint32_t left = t->sequences; left > 0 && st == ST_OK;) {
        struct session_event e;
        st = session_wait(cluster_session(c), &e);
        if (st == ST_OK)
            st = e.st ? e.st : go_on(c, t, q, e.sequence, &left);
    }
    return st;
}

/* Time and work since the clock was started, of all runs. */
struct spent {
    double seconds; /* of the last run */
    double elapsed;
    struct wire_usage usage;
    struct wire_counts counts;
    struct test_devices devices;
};

/* A moment. */
struct moment {
    double seconds;
    struct wire_usage usage, ranks[PLAN_MAX_RANKS];
};

/* The clock starts: what was spent before is not counted. */
static status start_clock(struct cluster *c, struct moment *before)
{
    session_reset_counts(cluster_session(c));
    status st = session_usage(cluster_session(c), &before->usage, before->ranks);
    before->seconds = clock_s();
    return st;
}

static status stop_clock(struct cluster *c, const struct moment *before, struct spent *all)
{
    struct wire_usage after, ranks[PLAN_MAX_RANKS];
    const struct wire_counts counts = session_counts(cluster_session(c));
    all->seconds = clock_s() - before->seconds;
    status st = session_usage(cluster_session(c), &after, ranks);
    if (st)
        return st;
    all->elapsed += all->seconds;
    wire_counts_add(&all->counts, &counts);
    all->usage.messages += after.messages - before->usage.messages;
    all->usage.bytes += after.bytes - before->usage.bytes;
    all->usage.run_ns += after.run_ns - before->usage.run_ns;
    all->usage.wire_ns += after.wire_ns - before->usage.wire_ns;
    all->usage.wait_ns += after.wait_ns - before->usage.wait_ns;
    devices_add(c, before->ranks, ranks, &all->devices);
    return ST_OK;
}

static status run_once(struct cluster *c, struct test *t, const int32_t *tokens, struct spent *spent)
{
    struct sequence *q[WIRE_SEQUENCES] = {NULL};
    struct moment before;
    status st = t->prompt ? begin_prompt(c, t, tokens) : begin_sequences(c, t, q);
    if (st == ST_OK)
        st = start_clock(c, &before);
    if (st == ST_OK)
        st = t->prompt ? prompt(c, tokens + t->depth, t->n) : run_decoding(c, t, q);
    if (st == ST_OK)
        st = stop_clock(c, &before, spent);
    const struct schedule_counts counts = session_schedule(cluster_session(c));
    t->kv_bytes = (counts.pages - counts.free_pages) * cluster_page_bytes(c);
    for (uint32_t i = 0; i < t->sequences && q[i]; i++)
        session_close(cluster_session(c), q[i]);
    return st;
}

static status run_all(struct cluster *c, struct test *t, int64_t runs, const int32_t *tokens, struct progress *p,
                      struct spent *spent)
{
    const double n_tokens = (double)t->n * t->sequences, n = (double)runs;
    double sum = 0, squares = 0;
    struct test warm_up = *t;
    warm_up.depth = 0;
    warm_up.n = t->prompt ? t->n : t->n < 8 ? t->n : 8;
    status st = run_once(c, &warm_up, tokens, &(struct spent){0});
    for (int64_t r = 0; r < runs && st == ST_OK; r++) {
        st = run_once(c, t, tokens, spent);
        const double rate = n_tokens / spent->seconds;
        sum += rate;
        squares += rate * rate;
        progress_update(p, t->name, (uint64_t)r + 1, (uint64_t)runs);
    }
    t->mean = sum / n;
    t->stddev = runs > 1 ? sqrt(fmax(0, squares - n * t->mean * t->mean) / (n - 1)) : 0;
    return st;
}

status test_measure(struct cluster *c, struct test *t, int64_t runs, struct progress *p)
{
    struct spent spent = {0};
    int32_t *tokens = malloc((t->depth + t->n) * sizeof *tokens);
    if (!tokens) {
        log_error("no memory for a test of %zu tokens", t->depth + t->n);
        return ST_NOMEM;
    }
    for (size_t i = 0; i < t->depth + t->n; i++)
        tokens[i] = some_token(c, i);
    status st = run_all(c, t, runs, tokens, p, &spent);
    free(tokens);
    if (st != ST_OK)
        return st;
    t->time = split_time(spent.elapsed, &spent.usage);
    t->sent_bytes = (double)spent.usage.bytes;
    t->messages = (double)spent.usage.messages;
    t->devices = spent.devices;
    t->bytes_per_token = (double)spent.counts.bytes / ((double)runs * (double)t->n * t->sequences);
    t->live = spent.counts.neurons ? (double)spent.counts.live / (double)spent.counts.neurons : 0;
    return ST_OK;
}
