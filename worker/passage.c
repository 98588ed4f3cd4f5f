#include "worker/passage.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "transport/nccl.h"
#include "wire/channels.h"

struct passage {
    struct rank *r;
    struct stage_place at;
    struct outbox hidden[STAGE_BUFFERS]; /* to the next stage: HIDDEN, or STEP and */
    struct outbox states[STAGE_BUFFERS]; /* STATES: the GPU's memory */
    int turn;
    bool gives, takes;                   /* from GPU to GPU */
    size_t start, bytes;                 /* all that lies in the rank's arena */
};

status passage_new(struct rank *r, struct passage **out)
{
    struct passage *p = calloc(1, sizeof *p);
    if (!p) {
        log_error("out of memory for what goes from stage to stage");
        return ST_NOMEM;
    }
    *p = (struct passage){.r = r, .at = stage_place(r->o->plan, r->rank)};
    *out = p;
    return ST_OK;
}

void passage_free(struct passage *p) { free(p); }

/* ---- memory ---- */

static size_t states_bytes(const struct rank *r, uint32_t n) { return (size_t)n * r->limits.d_model * sizeof(float); }

status passage_lay(struct passage *p)
{
    struct rank *r = p->r;
    const size_t step = p->at.embeds ? wire_step_max(&r->limits) : wire_hidden_max(&r->limits);
    p->start = r->arena.used;
    status st = room_lay(r->exchange, &r->arena, p->at.before, CHANNEL_STEPS, step);
    for (int i = 0; i < STAGE_BUFFERS && p->at.next >= 0; i++)
        outbox_lay(&r->arena, &p->hidden[i], wire_hidden_max(&r->limits));
    p->bytes = r->arena.used - p->start;
    return st;
}

/* Where x lies in the home's memory: on its way out, then on its way in. */
static void lay_states(struct passage *p)
{
    struct device *home = p->r->home;
    for (int i = 0; i < STAGE_BUFFERS; i++) {
        p->states[i] = (struct outbox){.buffer = (uint8_t *)home->ops->passing(home, (uint32_t)i),
                                       .capacity = states_bytes(p->r, p->r->limits.n_batch)};
        atomic_store(&p->states[i].send.done, true);
    }
}

status passage_open(struct passage *p)
{
    struct rank *r = p->r;
    struct device *home = r->home;
    struct transport *t = r->o->transport;
    const bool takes_states = !p->at.embeds && p->at.first < p->at.last && !p->at.joins;
    p->gives = home->ops->passing && p->at.next >= 0 && transport_nccl_reaches(t, p->at.next);
    p->takes = home->ops->passing && takes_states && transport_nccl_reaches(t, p->at.before);
    if (home->ops->pin && p->bytes && ((p->at.next >= 0 && !p->gives) || (takes_states && !p->takes)))
        home->ops->pin(home, r->arena.base + p->start, p->bytes);
    if (p->gives)
        lay_states(p);
    if (!p->takes)
        return ST_OK;
    float *in = home->ops->passing(home, p->at.next >= 0 ? STAGE_BUFFERS : 0);
    return transport_lend(t, p->at.before, CHANNEL_STATES, in, states_bytes(r, r->limits.n_batch));
}

/* ---- out ---- */

size_t passage_write(struct rank *r, const struct wire_step *step, uint8_t *out, size_t cap)
{
    float *hidden;
    const size_t size = wire_hidden_encode(step, &r->limits, out, cap, &hidden);
    r->home->ops->export_states(r->home, step->n_tokens, hidden);
    return size;
}

status passage_ready(struct passage *p, bool *ready)
{
    struct outbox *box = &p->hidden[p->turn], *states = &p->states[p->turn];
    status st = ST_OK;
    *ready = outbox_free(box);
    if (!*ready)
        st = outbox_sent(p->r->exchange, box, ready);
    if (!st && *ready && p->gives && !outbox_free(states))
        st = outbox_sent(p->r->exchange, states, ready);
    return st;
}

/* Messages move on while a GPU computes. */
static status await_home(struct rank *r)
{
    struct arrival a;
    bool found;
    status st = ST_OK;
    while (!st && !r->home->ops->done(r->home)) {
        st = serve_or_find(r->exchange, 0, &a, &found);
        sched_yield();
    }
    return st;
}

static status send_apart(struct passage *p, const struct wire_step *step, struct outbox *box, struct outbox *states)
{
    struct rank *r = p->r;
    const size_t size = wire_step_encode(step, box->buffer, box->capacity);
    r->home->ops->give_states(r->home, step->n_tokens, (float *)(void *)states->buffer);
    status st = devices_found(r->devices);
    st = st ? st : outbox_send(r->exchange, box, p->at.next, WIRE_STEP, size);
    return st ? st : outbox_send(r->exchange, states, p->at.next, WIRE_STATES, states_bytes(r, step->n_tokens));
}

status passage_send(struct passage *p, const struct wire_step *step)
{
    struct rank *r = p->r;
    struct outbox *box = &p->hidden[p->turn], *states = &p->states[p->turn];
    p->turn = (p->turn + 1) % STAGE_BUFFERS;
    status st = outbox_wait(r->exchange, box);
    if (!st && p->gives)
        st = outbox_wait(r->exchange, states);
    devices_idle_until(r->devices, clock_ns()); /* so far it waited for others */
    st = st ? st : await_home(r);
    if (st || p->gives)
        return st ? st : send_apart(p, step, box, states);
    const size_t size = passage_write(r, step, box->buffer, box->capacity);
    st = devices_found(r->devices);
    return st ? st : outbox_send(r->exchange, box, p->at.next, WIRE_HIDDEN, size);
}

/* ---- in ---- */

bool passage_is_hidden(const struct passage *p) { return !p->at.embeds && !p->takes; }

/* The STATES of the step that has come: they are on their way, and until they are here the step waits for a message. */
static status await_states(struct passage *p, uint32_t n, struct arrival *a)
{
    struct rank *r = p->r;
    const uint64_t since_ns = clock_ns();
    bool found = false;
    status st = ST_OK;
    while (!st && !found) {
        st = serve_or_find(r->exchange, 1u << WIRE_STATES, a, &found);
        if (!st && !found)
            exchange_idle(r->exchange);
    }
    r->usage.wire_ns += clock_ns() - since_ns;
    if (st || (a->size == states_bytes(r, n) && a->from == p->at.before))
        return st;
    log_error("STATES of %zu bytes from rank %d, expected %zu from rank %d", a->size, a->from, states_bytes(r, n),
              p->at.before);
    return ST_FORMAT;
}

status passage_take(struct passage *p, const struct batch *b, const float *hidden)
{
    struct rank *r = p->r;
    struct arrival a;
    char what[48];
    snprintf(what, sizeof what, "the hidden state from rank %d", p->at.before);
    if (!p->takes)
        return r->home->ops->import_states(r->home, b, hidden, what);
    status st = await_states(p, b->n_tokens, &a);
    st = st ? st : r->home->ops->take_states(r->home, b, a.data, what);
    return st ? st : exchange_release(r->exchange, &a);
}
