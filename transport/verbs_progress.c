/* What comes out of the completion queue: writes that are finished, and messages that have arrived. What a peer says is
 * checked: its words may be wrong. */
#include <stdio.h>
#include <string.h>

#include "transport/verbs_internal.h"

enum { COMPLETIONS = 16, LOOKS_PER_BEAT = 64 };

static status take_message(struct verbs_transport *v, struct peer *p, const struct word *w, uint32_t size)
{
    const int channel = v->config.channel[w->kind], index = channel * TRANSPORT_SLOTS + w->slot;
    struct lane *l = &p->lanes[channel];
    if (size > TRANSPORT_SLOT || (p->filled | p->freed) >> index & 1)
        return verbs_lost(v, p, size > TRANSPORT_SLOT ? "a message runs over its slot"
                                                      : "a message into a slot that is not the sender's");
    p->filled |= 1u << index;
    if (v->closing) { /* thrown away */
        verbs_free_slot(p, index);
        return ST_OK;
    }
    l->pieces[(l->first + l->n++) % TRANSPORT_SLOTS] =
        (struct piece){.slot = (uint8_t)w->slot, .kind = (uint8_t)w->kind, .more = w->more, .size = size};
    v->n_waiting++;
    verbs_assemble(v, p, l);
    return ST_OK;
}

/* The peer has said that it is going for good, and why. It has told everyone itself. */
static status abandoned(struct verbs_transport *v, struct peer *p, size_t notice_bytes)
{
    char why[NOTICE_BYTES] = "";
    memcpy(why, p->slots + RING_SLOTS * TRANSPORT_SLOT, notice_bytes);
    for (char *c = why; *c; c++)
        if ((unsigned char)*c < ' ')
            *c = ' ';
    p->lost = true;
    verbs_error(v, "rank %d: %s", p->rank, *why ? why : "it gave up");
    v->told = true;
    return ST_PEER;
}

static status take_control(struct verbs_transport *v, struct peer *p, const struct word *w, uint32_t size)
{
    if (w->kind == CONTROL_ABANDON && size < NOTICE_BYTES)
        return abandoned(v, p, size);
    if (size || w->kind > CONTROL_LEAVE)
        return verbs_lost(v, p, "a control word that does not exist");
    p->left = p->left || w->kind == CONTROL_LEAVE;
    return ST_OK;
}

static status receive(struct verbs_transport *v, struct peer *p, const struct ibv_wc *wc)
{
    const struct word w = word_decode(wc->imm_data);
    const uint32_t vacant = w.channel < TRANSPORT_CHANNELS ? w.freed << w.channel * TRANSPORT_SLOTS : 0;
    char what[128];
    p->n_receives++;
    if (wc->opcode != IBV_WC_RECV_RDMA_WITH_IMM || !(wc->wc_flags & IBV_WC_WITH_IMM))
        return verbs_lost(v, p, "what arrived is not a write with immediate data");
    if (w.sequence != p->sequence_in) {
        snprintf(what, sizeof what, "message number %u, expected %u", w.sequence, p->sequence_in);
        return verbs_lost(v, p, what);
    }
    if ((w.freed && !vacant) || vacant & p->vacant)
        return verbs_lost(v, p, "credits for slots that are not in use");
    p->sequence_in++;
    p->vacant |= vacant;
    status st = p->n_receives >= RECEIVE_BATCH ? verbs_post_receives(v, p) : ST_OK;
    if (st)
        return st;
    return w.control ? take_control(v, p, &w, wc->byte_len) : take_message(v, p, &w, wc->byte_len);
}

static status complete(struct verbs_transport *v, const struct ibv_wc *wc)
{
    struct peer *p = &v->peers[wc->wr_id >> 16 & 0xffff];
    char what[256];
    if (wc->status == IBV_WC_SUCCESS && wc->wr_id >> 48 == WORK_RECEIVE)
        return receive(v, p, wc);
    if (wc->status == IBV_WC_SUCCESS) {
        verbs_complete_send(v, p, wc->wr_id);
        return ST_OK;
    }
    if (p->lost)
        return ST_OK;
    if (p->left && p->leaving) { /* both have said goodbye; that it has heard us it could no longer say */
        p->lost = true;
        return ST_OK;
    }
    snprintf(what, sizeof what, "%s (%s, vendor code 0x%x)", verbs_what_failed(wc), ibv_wc_status_str(wc->status),
             wc->vendor_err);
    return verbs_lost(v, p, what);
}

status verbs_progress(struct verbs_transport *v)
{
    struct ibv_wc wc[COMPLETIONS];
    status st = ST_OK;
    bool any = false;
    for (int n = COMPLETIONS; n == COMPLETIONS;) {
        n = ibv_poll_cq(v->cq, COMPLETIONS, wc);
        if (n < 0) {
            verbs_error(v, "rank %d: its completion queue failed: %s", v->base.rank, strerror(-n));
            return ST_PEER;
        }
        for (int i = 0; i < n && !st; i++)
            st = complete(v, &wc[i]);
        if (st)
            return st;
        v->n_completed += (unsigned)n;
        any = any || n;
    }
    if (any && v->n_queued)
        st = verbs_push_all(v);
    if (!st)
        st = verbs_pay_credits(v);
    if (!st && ++v->looks % LOOKS_PER_BEAT == 0)
        st = verbs_beat(v);
    return st;
}
