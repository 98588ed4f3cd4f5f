#include "coordinator/sessions.h"

#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "wire/channels.h"

/* A step's message; free again when the transport has sent it. */
struct parcel {
    uint8_t *buffer;
    struct send send;
};

struct sessions {
    struct sessions_options o;
    struct schedule *schedule;
    struct parcel *parcels;        /* [n_stages] a step's is that of its id modulo n_stages */
    bool broken;                   /* an operation failed: the ranks' state is unknown */
    struct arrival result;         /* of the oldest step, held while its events are told */
    const struct step *told;       /* that step; NULL: none is being told */
    uint32_t next_run;             /* of it, the next to be told of */
    struct session_answer *answers; /* [n_sequences] */
    struct sequence *asked;        /* has a token that is not answered yet */
    struct wire_counts counts;     /* since the last reset */
    uint8_t *long_result;          /* lent to the transport; NULL: a slot holds every result */
};

/* Memory for a message. */
static void *aligned(size_t bytes)
{
    return aligned_alloc(TRANSPORT_ALIGN, (bytes + TRANSPORT_ALIGN - 1) / TRANSPORT_ALIGN * TRANSPORT_ALIGN);
}

void sessions_free(struct sessions *s)
{
    for (uint32_t i = 0; s && s->parcels && i < s->o.schedule.n_stages; i++)
        free(s->parcels[i].buffer);
    if (s) {
        schedule_free(s->schedule);
        free(s->parcels);
        free(s->answers);
        free(s->long_result);
    }
    free(s);
}

static bool make_parcels(struct sessions *s)
{
    s->parcels = calloc(s->o.schedule.n_stages, sizeof *s->parcels);
    for (uint32_t i = 0; s->parcels && i < s->o.schedule.n_stages; i++) {
        atomic_store(&s->parcels[i].send.done, true);
        s->parcels[i].buffer = aligned(s->o.step_max);
        if (!s->parcels[i].buffer)
            return false;
    }
    return s->parcels;
}

static status lend_result(struct sessions *s)
{
    if (s->o.result_max <= TRANSPORT_SLOT)
        return ST_OK;
    s->long_result = aligned(s->o.result_max);
    if (!s->long_result) {
        log_error("out of memory for results");
        return ST_NOMEM;
    }
    return transport_lend(s->o.transport, s->o.last_stage, CHANNEL_RESULTS, s->long_result, s->o.result_max);
}

status sessions_create(const struct sessions_options *o, struct sessions **out)
{
    struct schedule *schedule = NULL;
    status st = schedule_create(&o->schedule, &schedule);
    if (st)
        return st;
    struct sessions *s = calloc(1, sizeof *s);
    if (s) {
        *s = (struct sessions){.o = *o, .schedule = schedule};
        s->answers = calloc(o->schedule.n_sequences, sizeof *s->answers);
    }
    if (!s || !s->answers || !make_parcels(s)) {
        log_error("out of memory for sessions");
        st = ST_NOMEM;
    } else {
        st = lend_result(s);
    }
    if (st) {
        if (!s)
            schedule_free(schedule);
        sessions_free(s);
        return st;
    }
    *out = s;
    return ST_OK;
}

/* Every operation begins with it that talks to the ranks: after a failure nothing that they say can be trusted. */
static status check_usable(const struct sessions *s)
{
    if (!s->broken)
        return ST_OK;
    log_error("the session broke earlier: start again");
    return ST_PEER;
}

/* ---- Sequences and turns ---- */

status sessions_open(struct sessions *s, struct sequence **out) { return schedule_open(s->schedule, out); }

static void answered(struct sessions *s, const struct sequence *q)
{
    if (s->asked == q)
        s->asked = NULL;
}

void sessions_close(struct sessions *s, struct sequence *q)
{
    answered(s, q);
    schedule_release(s->schedule, q);
}

status sessions_text(struct sessions *s, struct sequence *q, const int32_t *tokens, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= s->o.n_vocab) {
            log_error("token %u is %d, the vocabulary has %u", i, tokens[i], s->o.n_vocab);
            return ST_USAGE;
        }
    }
    return sequence_append(q, tokens, n);
}

void sessions_cut(struct sessions *s, struct sequence *q, uint32_t n) { schedule_cut(s->schedule, q, n); }

status sessions_submit(struct sessions *s, struct sequence *q, const struct wish *w, const struct sampler_params *p)
{
    status st = check_usable(s);
    return st ? st : schedule_submit(s->schedule, q, w, p);
}

void sessions_end(struct sessions *s, struct sequence *q)
{
    answered(s, q);
    schedule_end(s->schedule, q);
}

status sessions_append(struct sessions *s, struct sequence *q, int32_t token)
{
    status st = sessions_text(s, q, &token, 1);
    if (!st)
        answered(s, q);
    return st;
}

void sessions_propose(struct sessions *s, struct sequence *q, const int32_t *drafts, uint32_t n)
{
    schedule_propose(s->schedule, q, drafts, n);
}

uint32_t sessions_slots(const struct sessions *s) { return s->o.schedule.n_sequences; }

struct schedule_counts sessions_schedule(const struct sessions *s) { return schedule_counts(s->schedule); }

struct wire_counts sessions_counts(const struct sessions *s) { return s->counts; }

void sessions_reset_counts(struct sessions *s) { s->counts = (struct wire_counts){0}; }

/* ---- Steps and results ---- */

/* The turn that the last plan has ended. */
static bool tell_exhausted(struct sessions *s, struct session_event *e)
{
    struct sequence *q = schedule_exhausted(s->schedule);
    if (!q)
        return false;
    *e = (struct session_event){.sequence = q, .st = ST_FULL, .kind = q->wish.kind, .n_run = q->n_run, .over = true};
    return true;
}

/* Sends every step that can be under way now; stops at a turn that ends by it. */
static status send_steps(struct sessions *s, struct session_event *e, bool *found)
{
    for (;;) {
        struct parcel *p = &s->parcels[(schedule_n_steps(s->schedule) + 1) % s->o.schedule.n_stages];
        bool sent;
        status st = transport_sent(s->o.transport, &p->send, &sent);
        if (st || !sent)
            return st;
        const struct step *step = schedule_next(s->schedule);
        *found = tell_exhausted(s, e);
        if (step) {
            const size_t size = s->o.encode(step, p->buffer, s->o.step_max);
            st = transport_post(s->o.transport, s->o.first_stage, WIRE_STEP, p->buffer, size, &p->send);
        }
        if (st || !step || *found)
            return st;
    }
}

/* Takes the result of the oldest step if it has come. */
static status take_result(struct sessions *s)
{
    struct arrival *a = &s->result;
    bool found;
    status st = transport_poll(s->o.transport, 1u << WIRE_RESULT, a, &found);
    if (st || !found)
        return st;
    const struct step *step = schedule_oldest(s->schedule);
    if (!step || a->from != s->o.last_stage) {
        log_error("RESULT from rank %d, expected %s", a->from, step ? "from the last stage" : "none");
        return ST_FORMAT;
    }
    log_sender(a->from);
    st = s->o.decode(a->data, a->size, step, s->answers, &s->counts);
    log_sender(-1);
    if (st)
        return st;
    s->told = step;
    s->next_run = 0;
    return ST_OK;
}

/* What became of a run that somebody waits for. */
static void tell_run(struct sessions *s, const struct step_run *r, const struct session_answer *a,
                     struct session_event *e)
{
    struct sequence *q = r->sequence;
    *e = (struct session_event){.sequence = q, .kind = r->wish.kind, .n_run = r->position + r->n_tokens, .answer = *a,
                                .over = r->last && (r->wish.kind == WISH_NOTHING || r->wish.kind == WISH_SCORES)};
    if (r->wish.kind == WISH_TOKENS) {
        e->answer.n_tokens = schedule_accept(s->schedule, q, a->tokens) + 1;
        e->n_run = q->n_sent;
    }
    if (e->over)
        schedule_end(s->schedule, q);
    else if (r->last)
        s->asked = q;
}

/* The next event of the result that is being told; after the last the step is over. */
static status tell_result(struct sessions *s, struct session_event *e, bool *found)
{
    while (s->told && s->next_run < s->told->n_runs && !*found) {
        const uint32_t i = s->next_run++;
        if (s->told->runs[i].live) {
            tell_run(s, &s->told->runs[i], &s->answers[i], e);
            *found = true;
        }
    }
    if (!s->told || *found)
        return ST_OK;
    s->told = NULL;
    schedule_returned(s->schedule);
    return transport_release(s->o.transport, &s->result);
}

static status look(struct sessions *s, struct session_event *e, bool *found)
{
    bool handled;
    status st = tell_result(s, e, found);
    if (!st && !*found)
        st = send_steps(s, e, found);
    if (!st && !*found)
        st = take_result(s);
    if (!st && !*found)
        st = tell_result(s, e, found);
    if (!st && !*found)
        st = s->o.pump(s->o.pump_arg, &handled);
    return st;
}

status sessions_poll(struct sessions *s, struct session_event *e, bool *found)
{
    status st = check_usable(s);
    if (st)
        return st;
    if (s->asked)
        sessions_end(s, s->asked);
    *found = false;
    st = look(s, e, found);
    s->broken = st;
    return st;
}
