/* What goes on without a wait: notices that have come, and the transfers that they are about. */
#include <string.h>

#include "base/log.h"
#include "transport/nccl_internal.h"

/* A peer is there: then both join the two links between them. */
static status greeted(struct nccl_transport *e, struct boxes *b, const struct notice *n, int from)
{
    if (b->in.greeted) {
        log_error("rank %d: a greeting of a bulk channel that is greeted, or none of its", from);
        return ST_FORMAT;
    }
    b->in.greeted = true;
    status st = nccl_link_open(&b->in.link, &e->lib, e->base.rank, from, false, &n->id);
    return st ? st : nccl_link_open(&b->out.link, &e->lib, e->base.rank, from, true, &b->out.telling.notice.id);
}

static status take_notice(struct nccl_transport *e, const struct arrival *a)
{
    struct boxes *b = boxes_of(e, a->kind, a->from);
    struct notice n;
    if (a->size == sizeof n)
        memcpy(&n, a->data, sizeof n);
    if (a->size != sizeof n || n.magic != NOTICE_MAGIC || n.what < NOTICE_HELLO || n.what > NOTICE_GOODBYE) {
        log_error("rank %d: %zu bytes of kind %d are no notice of a bulk message", a->from, a->size, a->kind);
        return ST_FORMAT;
    }
    if (n.what == NOTICE_HELLO)
        return greeted(e, b, &n, a->from);
    if (n.what == NOTICE_MESSAGE)
        return inbox_announced(&b->in, &n, a->from, a->kind);
    if (n.what != NOTICE_GOODBYE)
        return outbox_answered(&b->out, &n, a->from);
    b->in.parted = true;
    return ST_OK;
}

/* Takes the notices that have come, up to the first message of the control's own that is wanted. */
static status read_control(struct nccl_transport *e, uint32_t kinds, struct arrival *a, bool *found)
{
    for (;;) {
        status st = transport_poll(e->control, kinds | e->kinds, a, found);
        if (st || !*found || !is_bulk(e, a->kind))
            return st;
        *found = false;
        st = take_notice(e, a);
        status released = transport_release(e->control, a);
        if (st || released)
            return released ? released : st;
    }
}

static status advance(struct nccl_transport *e)
{
    status st = ST_OK;
    for (int i = 0; i < e->n_boxes && st == ST_OK; i++) {
        struct boxes *b = &e->boxes[i];
        int peer = i % e->base.n_ranks;
        st = outbox_advance(&b->out, e->control, peer);
        if (st == ST_OK)
            st = inbox_advance(&b->in, e->control, peer, peer == e->base.rank ? &b->out : NULL);
    }
    return st;
}

status nccl_progress(struct nccl_transport *e, uint32_t kinds, struct arrival *a, bool *found)
{
    *found = false;
    status st = read_control(e, kinds & ~e->kinds, a, found);
    return st ? st : advance(e);
}
