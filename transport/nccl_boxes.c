#include "transport/nccl_boxes.h"

#include <inttypes.h>

#include "base/log.h"

status nccl_tell(struct telling *t, struct transport *control, int to, int kind, enum notice_what what, uint64_t number,
                 size_t size)
{
    t->notice.magic = NOTICE_MAGIC;
    t->notice.what = what;
    t->notice.number = number;
    t->notice.size = size;
    t->told = false;
    return transport_post(control, to, kind, &t->notice, sizeof t->notice, &t->send);
}

static status check_told(struct telling *t, struct transport *control)
{
    return t->told ? ST_OK : transport_sent(control, &t->send, &t->told);
}

/* ---- out ---- */

status outbox_answered(struct outbox *o, const struct notice *n, int from)
{
    if (o->state != OUT_ANNOUNCED || n->number != o->number) {
        log_error("rank %d: answers bulk message %" PRIu64 ", which does not wait for an answer", from, n->number);
        return ST_FORMAT;
    }
    const struct send *s = o->first;
    o->state = n->what == NOTICE_GRANT ? OUT_GRANTED : OUT_REFUSED;
    /* What goes to oneself has been copied when it is granted. */
    return o->state == OUT_GRANTED && s->size && s->to != s->from ? nccl_link_send(&o->link, s->data, s->size) : ST_OK;
}

static void finish_first(struct outbox *o)
{
    struct send *s = o->first;
    o->first = s->next;
    if (!o->first)
        o->last = &o->first;
    o->state = OUT_IDLE;
    atomic_store_explicit(&s->done, true, memory_order_relaxed);
}

status outbox_advance(struct outbox *o, struct transport *control, int to)
{
    status st = check_told(&o->telling, control);
    if (st == ST_OK)
        st = nccl_link_advance(&o->link);
    if (st || !o->telling.told || o->link.state != LINK_IDLE)
        return st;
    if (o->state == OUT_GRANTED || o->state == OUT_REFUSED)
        finish_first(o);
    if (!o->first || o->state != OUT_IDLE)
        return ST_OK;
    o->state = OUT_ANNOUNCED;
    return nccl_tell(&o->telling, control, to, o->first->kind, NOTICE_MESSAGE, ++o->number, o->first->size);
}

/* ---- in ---- */

/* Where the announced message stands in the ring. */
static int last_of(const struct inbox *in)
{
    return (in->first + in->n_whole + in->receiving) % PLACES;
}

status inbox_announced(struct inbox *in, const struct notice *n, int from, int kind)
{
    if (in->announced || in->parted || in->link.state == LINK_CLOSED || n->number != in->number + 1) {
        log_error("rank %d: announces bulk message %" PRIu64 " out of turn, expected %" PRIu64 " after the one before",
                  from, n->number, in->number + 1);
        return ST_FORMAT;
    }
    in->messages[last_of(in)].kind = kind;
    in->messages[last_of(in)].size = n->size;
    in->announced = true;
    in->number++;
    return ST_OK;
}

static void *memory_of(const struct inbox *in, int place)
{
    return place == LENT ? in->lent : in->slots + (size_t)place * TRANSPORT_SLOT;
}

static bool too_long(const struct inbox *in, size_t size)
{
    return size > TRANSPORT_SLOT && size > in->lent_bytes;
}

/* A place that is free for a message of this size, or -1. */
static int find_place(const struct inbox *in, size_t size)
{
    if (__builtin_popcount(in->held) >= TRANSPORT_SLOTS || too_long(in, size))
        return -1;
    if (size > TRANSPORT_SLOT)
        return in->held >> LENT & 1 ? -1 : LENT;
    return __builtin_ctz(~in->held);
}

/* Begins to receive the announced message, if there is a place, and grants it. */
static status start_announced(struct inbox *in, struct transport *control, int from, const struct outbox *own)
{
    int kind = in->messages[last_of(in)].kind;
    size_t size = in->messages[last_of(in)].size;
    int place = find_place(in, size);
    if (place < 0)
        return ST_OK;
    in->messages[last_of(in)].place = place;
    in->held |= 1u << place;
    in->receiving = true;
    in->announced = false;
    if (own && size)
        return nccl_link_copy(&in->link, memory_of(in, place), own->first->data, size);
    status st = size ? nccl_link_receive(&in->link, memory_of(in, place), size) : ST_OK;
    return st ? st : nccl_tell(&in->telling, control, from, kind, NOTICE_GRANT, in->number, 0);
}

status inbox_advance(struct inbox *in, struct transport *control, int from, const struct outbox *own)
{
    status st = check_told(&in->telling, control);
    if (st == ST_OK)
        st = nccl_link_advance(&in->link);
    if (st || !in->telling.told || in->link.state != LINK_IDLE)
        return st;
    if (!in->receiving)
        return in->announced ? start_announced(in, control, from, own) : ST_OK;
    in->receiving = false;
    int kind = in->messages[last_of(in)].kind;
    size_t size = in->messages[last_of(in)].size;
    in->n_whole++;
    return own && size ? nccl_tell(&in->telling, control, from, kind, NOTICE_GRANT, in->number, 0) : ST_OK;
}

static status refuse(struct inbox *in, struct transport *control, int from, int kind, size_t size)
{
    log_error("rank %d: a bulk message of kind %d has %zu bytes, expected at most %zu", from, kind, size,
              in->lent_bytes > TRANSPORT_SLOT ? in->lent_bytes : TRANSPORT_SLOT);
    in->announced = false;
    status st = nccl_tell(&in->telling, control, from, kind, NOTICE_REFUSAL, in->number, 0);
    return st ? st : ST_FORMAT;
}

status inbox_look(struct inbox *in, struct transport *control, uint32_t kinds, int from, struct arrival *a,
                  bool *found)
{
    int kind = in->messages[in->first].kind, place = in->messages[in->first].place;
    size_t size = in->messages[in->first].size;
    *found = false;
    if (!in->n_whole && (!in->announced || in->receiving))
        return ST_OK;
    if (!(kinds >> kind & 1))
        return ST_OK;
    if (!in->n_whole) /* refused only when it is looked for: until then memory may be lent for it */
        return in->telling.told && too_long(in, size) ? refuse(in, control, from, kind, size) : ST_OK;
    *a = (struct arrival){.from = from, .kind = kind, .size = size, .data = memory_of(in, place)};
    a->handle[0] = in;
    a->handle[1] = (void *)(uintptr_t)place;
    in->first = (in->first + 1) % PLACES;
    in->n_whole--;
    *found = true;
    return ST_OK;
}

void inbox_release(struct inbox *in, const struct arrival *a)
{
    in->held &= ~(1u << (uintptr_t)a->handle[1]);
}
