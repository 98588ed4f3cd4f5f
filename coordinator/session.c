#include "coordinator/session.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "placement/plan.h"
#include "transport/deliver.h"
#include "wire/channels.h"

/* Chunks of a prompt on their way at once: while the second stage runs one, the first runs the next. */
enum { IN_FLIGHT = 4 };

struct slot {
    uint8_t *buffer;
    struct send send;
};

struct session {
    struct session_options o;
    size_t n_tokens;
    bool broken;                 /* an operation failed: the ranks' state is unknown */
    uint64_t next_id;            /* of the next step, from 1 */
    struct slot slots[IN_FLIGHT];
    struct wire_counts counts;   /* since the last reset */
    size_t step_max;
    uint8_t *long_result;        /* lent to the transport; NULL: a slot holds every result */
    struct arrival result;       /* the last one, held until it is read */
    _Alignas(TRANSPORT_ALIGN) uint8_t sampling[WIRE_SAMPLING_SIZE];
    struct send control;         /* of `sampling` */
    struct send queries[PLAN_MAX_RANKS]; /* one to each rank */
    uint64_t n_queries;          /* of usage, asked of every rank, so far */
};

void session_free(struct session *s)
{
    for (int i = 0; s && i < IN_FLIGHT; i++)
        free(s->slots[i].buffer);
    if (s)
        free(s->long_result);
    free(s);
}

/* Memory for a message, or for a struct that holds one. */
static void *aligned(size_t bytes)
{
    return aligned_alloc(TRANSPORT_ALIGN, (bytes + TRANSPORT_ALIGN - 1) / TRANSPORT_ALIGN * TRANSPORT_ALIGN);
}

status session_create(const struct session_options *o, struct session **out)
{
    const size_t result_max = wire_result_max(&o->limits);
    struct session *s = aligned(sizeof *s);
    status st = ST_NOMEM;
    if (!s)
        goto err;
    *s = (struct session){.o = *o, .next_id = 1, .step_max = wire_step_max(&o->limits)};
    for (int i = 0; i < IN_FLIGHT; i++) {
        s->slots[i].buffer = aligned(s->step_max);
        atomic_store(&s->slots[i].send.done, true);
        if (!s->slots[i].buffer)
            goto err;
    }
    if (result_max > TRANSPORT_SLOT) {
        s->long_result = aligned(result_max);
        if (!s->long_result)
            goto err;
        st = transport_lend(o->transport, o->last_stage, CHANNEL_RESULTS, s->long_result, result_max);
        if (st)
            goto err;
    }
    *out = s;
    return ST_OK;
err:
    if (st == ST_NOMEM)
        log_error("out of memory for a session");
    session_free(s);
    return st;
}

/* Every operation begins with it: after a failure nothing that the ranks say can be trusted. */
static status check_usable(const struct session *s)
{
    if (!s->broken)
        return ST_OK;
    log_error("the session broke earlier: start again");
    return ST_PEER;
}

/* And this is how every one ends that talks to the ranks. */
static status end(struct session *s, status st)
{
    s->broken = s->broken || st;
    return st;
}

/* Lets the own worker run; gives the processor away when it had nothing to do. */
static status pump(struct session *s, unsigned *idle)
{
    enum { POLLS_BEFORE_YIELD = 64 };
    bool handled;
    status st = s->o.pump(s->o.pump_arg, &handled);
    if (handled)
        *idle = 0;
    else if (++*idle > POLLS_BEFORE_YIELD)
        sched_yield();
    return st;
}

static status wait_sent(struct session *s, struct send *send)
{
    bool done = false;
    unsigned idle = 0;
    for (;;) {
        status st = transport_sent(s->o.transport, send, &done);
        if (st || done)
            return st;
        if ((st = pump(s, &idle)))
            return st;
    }
}

static status wait_for(struct session *s, enum wire_kind kind, struct arrival *a)
{
    bool found = false;
    unsigned idle = 0;
    for (;;) {
        status st = transport_poll(s->o.transport, 1u << kind, a, &found);
        if (st || found)
            return st;
        if ((st = pump(s, &idle)))
            return st;
    }
}

/* *r lies in s->result, which is released when it is read. */
static status wait_result(struct session *s, uint64_t id, struct wire_result *r)
{
    struct arrival *a = &s->result;
    status st = wait_for(s, WIRE_RESULT, a);
    if (st)
        return st;
    if (a->from != s->o.last_stage) {
        log_error("RESULT from rank %d, expected from rank %d", a->from, s->o.last_stage);
        return ST_FORMAT;
    }
    log_sender(a->from);
    st = wire_result_decode(a->data, a->size, &s->o.limits, r);
    log_sender(-1);
    if (!st && r->id != id) {
        log_error("RESULT of step %llu from rank %d, expected %llu", (unsigned long long)r->id, a->from,
                  (unsigned long long)id);
        st = ST_FORMAT;
    }
    return st;
}

static status send_step(struct session *s, struct slot *slot, const struct wire_step *step, const int32_t *tokens)
{
    status st = wait_sent(s, &slot->send);
    if (st)
        return st;
    size_t size = wire_step_encode(step, tokens, slot->buffer, s->step_max);
    return transport_post(s->o.transport, s->o.first_stage, WIRE_STEP, slot->buffer, size, &slot->send);
}

/* A text on its way through the ranks, in chunks. */
struct passage {
    const int32_t *tokens;  /* [n] */
    size_t n;
    enum wire_want want;    /* of the last chunk; WANT_SCORES: of every chunk past score_from */
    size_t score_from;
    int32_t successor;      /* of the last token, for scores; -1: unknown */
    int32_t token;          /* out: the token picked */
    float *values;          /* out: scores or logits; may be NULL */
    session_progress *progress;
    void *progress_arg;
};

static struct wire_step step_of(const struct session *s, const struct passage *p, size_t begin)
{
    size_t end = p->n - begin > s->o.limits.n_batch ? begin + s->o.limits.n_batch : p->n;
    struct wire_step step = {.position = (uint32_t)(s->n_tokens + begin),
                             .n_tokens = (uint32_t)(end - begin),
                             .next_token = end < p->n ? p->tokens[end] : p->successor};
    if (p->want == WANT_SCORES && end > p->score_from) {
        step.want = WANT_SCORES;
        step.score_from = (uint32_t)(p->score_from > begin ? p->score_from - begin : 0);
    } else {
        step.want = end == p->n && p->want != WANT_SCORES ? p->want : WANT_NOTHING;
        step.next_token = -1;
    }
    return step;
}

static status take_result(struct session *s, struct passage *p, uint64_t id, size_t *n_values)
{
    struct wire_result r;
    status st = wait_result(s, id, &r);
    if (st)
        return st;
    p->token = r.token;
    wire_counts_add(&s->counts, &r.counts);
    if (p->values && r.n_values)
        memcpy(p->values + *n_values, r.values, r.n_values * sizeof *r.values);
    *n_values += r.n_values;
    return transport_release(s->o.transport, &s->result);
}

static status run_chunks(struct session *s, struct passage *p)
{
    const size_t batch = s->o.limits.n_batch, n_chunks = (p->n + batch - 1) / batch;
    const uint64_t first_id = s->next_id;
    size_t sent = 0, n_values = 0;
    for (size_t done = 0; done < n_chunks; done++) {
        for (; sent < n_chunks && sent < done + IN_FLIGHT; sent++) {
            struct wire_step step = step_of(s, p, sent * batch);
            step.id = s->next_id++;
            status st = send_step(s, &s->slots[sent % IN_FLIGHT], &step, p->tokens + sent * batch);
            if (st)
                return st;
        }
        status st = take_result(s, p, first_id + done, &n_values);
        if (st)
            return st;
        if (p->progress && n_chunks > 1)
            p->progress(p->progress_arg, "prompt", done + 1 < n_chunks ? (done + 1) * batch : p->n, p->n);
    }
    s->n_tokens += p->n;
    return ST_OK;
}

static status run_passage(struct session *s, struct passage *p) { return end(s, run_chunks(s, p)); }

/* Whether tokens[n] may be appended. */
static status check_tokens(const struct session *s, const int32_t *tokens, size_t n)
{
    status st = check_usable(s);
    if (st)
        return st;
    if (n < 1) {
        log_error("no tokens to run");
        return ST_USAGE;
    }
    if (n > s->o.limits.n_ctx - s->n_tokens) {
        log_error("the context is full: it has room for %u tokens, %zu are taken and %zu more are wanted; -c sets it",
                  s->o.limits.n_ctx, s->n_tokens, n);
        return ST_FULL;
    }
    for (size_t i = 0; i < n; i++) {
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= s->o.limits.n_vocab) {
            log_error("token %zu is %d, the vocabulary has %u", i, tokens[i], s->o.limits.n_vocab);
            return ST_USAGE;
        }
    }
    return ST_OK;
}

status session_prompt(struct session *s, const int32_t *tokens, size_t n, int32_t *next, session_progress *progress,
                      void *arg)
{
    struct passage p = {.tokens = tokens, .n = n, .want = next ? WANT_TOKEN : WANT_NOTHING, .successor = -1,
                        .progress = progress, .progress_arg = arg};
    status st = check_tokens(s, tokens, n);
    if (!st)
        st = run_passage(s, &p);
    if (!st && next)
        *next = p.token;
    return st;
}

status session_next(struct session *s, int32_t token, int32_t *next)
{
    return session_prompt(s, &token, 1, next, NULL, NULL);
}

status session_score(struct session *s, const int32_t *tokens, size_t n, size_t score_from, float *nll)
{
    const size_t held = s->n_tokens;
    session_truncate(s, 0);
    status st = check_tokens(s, tokens, n);
    if (st)
        s->n_tokens = held;
    if (st || score_from + 1 >= n)
        return st;
    /* The last token is only a successor: it need not run. */
    struct passage p = {.tokens = tokens, .n = n - 1, .want = WANT_SCORES, .score_from = score_from,
                        .successor = tokens[n - 1], .values = nll};
    return run_passage(s, &p);
}

status session_logits(struct session *s, const int32_t *tokens, size_t n, float *logits)
{
    struct passage p = {.tokens = tokens, .n = n, .want = WANT_LOGITS, .successor = -1, .values = logits};
    status st = check_tokens(s, tokens, n);
    return st ? st : run_passage(s, &p);
}

void session_truncate(struct session *s, size_t n_tokens)
{
    if (n_tokens < s->n_tokens)
        s->n_tokens = n_tokens;
}

size_t session_length(const struct session *s) { return s->n_tokens; }

struct wire_counts session_counts(const struct session *s) { return s->counts; }

void session_reset_counts(struct session *s) { s->counts = (struct wire_counts){0}; }

status session_sampling(struct session *s, const struct sampler_params *p)
{
    const struct wire_sampling w = {.temperature = p->temperature, .top_p = p->top_p, .min_p = p->min_p,
                                    .repeat_penalty = p->repeat_penalty,
                                    .presence_penalty = p->presence_penalty,
                                    .frequency_penalty = p->frequency_penalty, .top_k = p->top_k,
                                    .repeat_last = p->repeat_last, .seed = p->seed};
    struct wire_result r;
    status st = check_usable(s);
    if (st)
        return st;
    size_t size = wire_sampling_encode(&w, s->sampling, sizeof s->sampling);
    st = transport_post(s->o.transport, s->o.last_stage, WIRE_SAMPLING, s->sampling, size, &s->control);
    if (!st)
        st = wait_result(s, 0, &r); /* only then may the next step follow: it may come another way */
    if (!st)
        st = transport_release(s->o.transport, &s->result);
    return end(s, st ? st : wait_sent(s, &s->control));
}

/* Waits for one rank's USAGE and adds it. */
static status take_usage(struct session *s, uint64_t *answered, struct wire_usage *sum)
{
    struct wire_usage u;
    struct arrival a;
    status st = wait_for(s, WIRE_USAGE, &a);
    if (st)
        return st;
    if (*answered >> a.from & 1) {
        log_error("rank %d: a second USAGE", a.from);
        return ST_FORMAT;
    }
    *answered |= UINT64_C(1) << a.from;
    log_sender(a.from);
    st = wire_usage_decode(a.data, a.size, &u);
    log_sender(-1);
    if (st)
        return st;
    sum->messages += u.messages;
    sum->bytes += u.bytes;
    sum->run_ns += u.run_ns;
    sum->wire_ns += u.wire_ns;
    sum->wait_ns += u.wait_ns;
    return transport_release(s->o.transport, &a);
}

static status ask_usage(struct session *s, struct wire_usage *sum)
{
    struct transport *t = s->o.transport;
    uint64_t answered = 0; /* ranks, a bit each */
    status st = ST_OK;
    for (int r = 0; r < t->n_ranks && !st; r++)
        st = transport_post(t, r, WIRE_QUERY, NULL, 0, &s->queries[r]);
    for (int r = 0; r < t->n_ranks && !st; r++)
        st = take_usage(s, &answered, sum);
    for (int r = 0; r < t->n_ranks && !st; r++)
        st = wait_sent(s, &s->queries[r]);
    return st;
}

status session_usage(struct session *s, struct wire_usage *out)
{
    struct wire_usage sum = {0};
    status st = check_usable(s);
    if (st || (st = end(s, ask_usage(s, &sum))))
        return st;
    /* This time's queries and, of the times before, answers too: each rank counted before it answered. */
    const uint64_t others = (uint64_t)s->o.transport->n_ranks - 1;
    sum.messages -= (2 * s->n_queries + 1) * others;
    sum.bytes -= s->n_queries * others * WIRE_USAGE_SIZE;
    s->n_queries++;
    *out = sum;
    return ST_OK;
}

status session_stop(struct session *s)
{
    static const char why[] = "gave up";
    _Alignas(TRANSPORT_ALIGN) uint8_t reason[WIRE_FAILED_MAX];
    struct log_catcher said; /* why it broke was; another rank may say so too */
    if (!s)
        return ST_OK;
    if (!s->broken)
        return deliver_all(s->o.transport, WIRE_STOP, NULL, 0);
    /* A stage may still wait for rank 0's answer, deaf to STOP but not to FAILED. */
    log_catch(&said);
    deliver_last(s->o.transport, WIRE_FAILED, reason, wire_failed_encode(why, reason, sizeof reason), why);
    log_catch(NULL);
    return ST_PEER;
}
