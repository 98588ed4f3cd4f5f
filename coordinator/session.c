#include "coordinator/session_parts.h"

#include <sched.h>
#include <stdlib.h>
#include "base/log.h"
#include "wire/channels.h"

/* Steps under way at most: one for each stage, and however few there are, so many that chunks of a prompt need not wait
 * for the RESULTs of those before, which are a message's way there and back. If this rank is the only stage, there is
 * no way. */
static uint32_t most_steps(const struct session_options *o)
{
    enum { CHUNKS_AHEAD = 4 };
    if (o->n_stages == 1 && o->first_stage == o->transport->rank)
        return 1;
    return o->n_stages > CHUNKS_AHEAD ? o->n_stages : CHUNKS_AHEAD;
}

/* Memory for a message. */
static void *aligned(size_t bytes)
{
    return aligned_alloc(TRANSPORT_ALIGN, (bytes + TRANSPORT_ALIGN - 1) / TRANSPORT_ALIGN * TRANSPORT_ALIGN);
}

void session_free(struct session *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; s->parcels && i < s->n_steps; i++)
        free(s->parcels[i].buffer);
    free(s->parcels);
    free(s->answers);
    free(s->long_result);
    messages_free(s->messages);
    schedule_free(s->schedule);
    free(s);
}

static bool make_parcels(struct session *s)
{
    s->step_max = wire_step_max(&s->o.limits);
    s->parcels = calloc(s->n_steps, sizeof *s->parcels);
    for (uint32_t i = 0; s->parcels && i < s->n_steps; i++) {
        s->parcels[i].buffer = aligned(s->step_max);
        if (!s->parcels[i].buffer)
            return false;
    }
    return s->parcels;
}

static status lend_result(struct session *s)
{
    const size_t result_max = wire_result_max(&s->o.limits);
    if (result_max <= TRANSPORT_SLOT)
        return ST_OK;
    s->long_result = aligned(result_max);
    if (!s->long_result) {
        log_error("out of memory for results");
        return ST_NOMEM;
    }
    return transport_lend(s->o.transport, s->o.last_stage, CHANNEL_RESULTS, s->long_result, result_max);
}

static status make(struct session *s)
{
    const struct schedule_options so = messages_schedule(&s->o.limits, s->o.n_stages, s->n_steps);
    status st = schedule_create(&so, &s->schedule);
    if (!st)
        st = messages_create(&s->o.limits, &s->messages);
    if (st)
        return st;
    s->answers = calloc(so.n_sequences, sizeof *s->answers);
    if (!s->answers || !make_parcels(s)) {
        log_error("out of memory for a session");
        return ST_NOMEM;
    }
    return lend_result(s);
}

status session_create(const struct session_options *o, struct session **out)
{
    struct session *s = calloc(1, sizeof *s);
    if (!s) {
        log_error("out of memory for a session");
        return ST_NOMEM;
    }
    s->o = *o;
    s->n_steps = most_steps(o);
    status st = make(s);
    if (st) {
        session_free(s);
        return st;
    }
    *out = s;
    return ST_OK;
}

/* Every operation begins with it that talks to the ranks: after a failure nothing that they say can be trusted. */
status session_check(const struct session *s)
{
    if (!s->broken)
        return ST_OK;
    log_error("the session broke earlier: start again");
    return ST_PEER;
}

/* ---- Sequences and turns ---- */

status session_open(struct session *s, struct sequence **out) { return schedule_open(s->schedule, out); }

static void answered(struct session *s, const struct sequence *q)
{
    if (s->asked == q)
        s->asked = NULL;
}

void session_close(struct session *s, struct sequence *q)
{
    answered(s, q);
    schedule_release(s->schedule, q);
}

status session_check_tokens(const struct session *s, const int32_t *tokens, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!messages_has_token(s->messages, tokens[i])) {
            log_error("token %zu is %d, the vocabulary has %u", i, tokens[i], s->o.limits.n_vocab);
            return ST_USAGE;
        }
    }
    return ST_OK;
}

status session_text(struct session *s, struct sequence *q, const int32_t *tokens, uint32_t n)
{
    status st = session_check_tokens(s, tokens, n);
    return st ? st : sequence_append(q, tokens, n);
}

void session_cut(struct session *s, struct sequence *q, uint32_t n) { schedule_cut(s->schedule, q, n); }

status session_submit(struct session *s, struct sequence *q, const struct wish *w, const struct sampler_params *p)
{
    status st = session_check(s);
    st = st ? st : messages_check(s->messages, w, p);
    return st ? st : schedule_submit(s->schedule, q, w, p);
}

void session_end(struct session *s, struct sequence *q)
{
    answered(s, q);
    schedule_end(s->schedule, q);
}

status session_append(struct session *s, struct sequence *q, int32_t token)
{
    status st = session_check_tokens(s, &token, 1);
    st = st ? st : schedule_append(s->schedule, q, token);
    if (!st)
        answered(s, q);
    return st;
}

void session_propose(struct session *s, struct sequence *q, const int32_t *drafts, uint32_t n)
{
    uint32_t n_known = 0;
    while (n_known < n && messages_has_token(s->messages, drafts[n_known]))
        n_known++;
    schedule_propose(s->schedule, q, drafts, n_known);
}

struct wire_limits session_limits(const struct session *s) { return s->o.limits; }

struct schedule_counts session_schedule(const struct session *s) { return schedule_counts(s->schedule); }

struct wire_counts session_counts(const struct session *s) { return s->counts; }

void session_reset_counts(struct session *s) { s->counts = (struct wire_counts){0}; }

/* ---- Steps and results ---- */

/* The turn that the last plan has ended. */
static bool tell_exhausted(struct session *s, struct session_event *e)
{
    struct sequence *q = schedule_exhausted(s->schedule);
    if (!q)
        return false;
    log_error("all KV memory is full at %u tokens of this text alone; --kv-budget sets it", q->n_tokens);
    *e = (struct session_event){.sequence = q, .st = ST_FULL, .kind = q->wish.kind, .n_run = q->n_run, .over = true};
    return true;
}

/* Whether a parcel's buffer may be written to. */
static status is_free(const struct session *s, struct parcel *p, bool *is)
{
    *is = !p->on_its_way;
    status st = *is ? ST_OK : transport_sent(s->o.transport, &p->send, is);
    p->on_its_way = !*is;
    return st;
}

/* Sends every step that can be under way now; stops at a turn that ends by it. */
static status send_steps(struct session *s, struct session_event *e, bool *found)
{
    for (;;) {
        struct parcel *p = &s->parcels[(schedule_n_steps(s->schedule) + 1) % s->n_steps];
        bool writable;
        status st = is_free(s, p, &writable);
        if (st || !writable)
            return st;
        const struct step *step = schedule_next(s->schedule);
        *found = tell_exhausted(s, e);
        if (step) {
            const size_t size = messages_encode(s->messages, step, p->buffer, s->step_max);
            st = transport_post(s->o.transport, s->o.first_stage, WIRE_STEP, p->buffer, size, &p->send);
            p->on_its_way = !st;
        }
        if (st || !step || *found)
            return st;
    }
}

/* Takes the result of the oldest step if it has come, or what a rank says of its time. */
static status take_result(struct session *s)
{
    struct arrival *a = &s->result;
    struct wire_counts counts;
    bool found;
    status st = transport_poll(s->o.transport, 1u << WIRE_RESULT | 1u << WIRE_USAGE, a, &found);
    if (st || !found)
        return st;
    if (a->kind == WIRE_USAGE)
        return session_take_usage(s, a);
    const struct step *step = schedule_oldest(s->schedule);
    if (!step || a->from != s->o.last_stage) {
        log_error("RESULT from rank %d, expected %s of rank %d", a->from, step ? "that" : "none", s->o.last_stage);
        return ST_FORMAT;
    }
    log_sender(a->from);
    st = messages_decode(s->messages, a->data, a->size, step, s->answers, &counts);
    log_sender(-1);
    if (st)
        return st;
    wire_counts_add(&s->counts, &counts);
    s->told = step;
    s->next_run = 0;
    return ST_OK;
}

/* What became of a run that somebody waits for. */
static void tell_run(struct session *s, const struct step_run *r, const struct session_answer *a,
                     struct session_event *e)
{
    struct sequence *q = r->sequence;
    const bool draws = r->wish.kind != WISH_NOTHING && !wants_each(&r->wish) && r->wish.kind != WISH_STATES;
    *e = (struct session_event){.sequence = q, .kind = r->wish.kind, .n_run = r->position + r->n_tokens, .answer = *a,
                                .over = r->last && !draws, .step = s->told->id, .step_tokens = s->told->n_tokens};
    if (r->wish.kind == WISH_TOKENS) {
        e->answer.n_tokens = schedule_accept(s->schedule, q, a->tokens) + 1;
        e->n_run = q->n_sent;
    }
    if (e->over)
        schedule_end(s->schedule, q);
    else if (r->last)
        s->asked = q;
}

static status end_told(struct session *s)
{
    s->told = NULL;
    schedule_returned(s->schedule);
    return transport_release(s->o.transport, &s->result);
}

/* The next event of the result that is being told; after the last the step is over. */
static status tell_result(struct session *s, struct session_event *e, bool *found)
{
    while (s->told && s->next_run < s->told->n_runs && !*found) {
        const uint32_t i = s->next_run++;
        if (s->told->runs[i].live) {
            tell_run(s, &s->told->runs[i], &s->answers[i], e);
            *found = true;
        }
    }
    return s->told && !*found ? end_told(s) : ST_OK;
}

status session_pump(struct session *s)
{
    enum { POLLS_BEFORE_YIELD = 64 };
    bool handled;
    status st = s->o.pump(s->o.pump_arg, &handled);
    s->idle = handled ? 0 : s->idle + 1;
    if (s->idle > POLLS_BEFORE_YIELD)
        sched_yield();
    return st;
}

static status look(struct session *s, struct session_event *e, bool *found)
{
    status st = tell_result(s, e, found);
    if (!st && !*found)
        st = send_steps(s, e, found);
    if (!st && !*found)
        st = take_result(s);
    if (!st && !*found)
        st = tell_result(s, e, found);
    if (!st && !*found)
        st = session_pump(s);
    return st;
}

status session_poll(struct session *s, struct session_event *e, bool *found)
{
    status st = session_check(s);
    if (st)
        return st;
    if (s->asked)
        session_end(s, s->asked);
    *found = false;
    st = look(s, e, found);
    s->broken = st;
    return st;
}

status session_wait(struct session *s, struct session_event *e)
{
    for (bool found = false;;) {
        const status st = session_poll(s, e, &found);
        if (st || found)
            return st;
        const struct schedule_counts c = session_schedule(s);
        if (c.running + c.waiting == 0) {
            log_error("no turn is under way to wait for");
            return ST_USAGE;
        }
    }
}

bool session_busy(const struct session *s) { return schedule_oldest(s->schedule) || s->awaited; }

status session_drain(struct session *s)
{
    status st = s->told ? end_told(s) : ST_OK;
    while (!st && session_busy(s)) {
        st = take_result(s);
        if (!st)
            st = s->told ? end_told(s) : session_pump(s);
    }
    return st;
}
