/* How a rank notices that a peer is gone, and how it goes itself.
 *
 * Where something is sent, the card notices: it repeats a packet RETRIES times (verbs_connect.c) and then reports the
 * connection as broken, within half a second. Where nothing is, a heartbeat goes, a write of nothing, five times a
 * second while this rank looks at its messages: the peer's card acknowledges it without the peer's help, so a rank may
 * compute for as long as it likes. Cards whose time-outs are longer than they were asked for are overruled by our own
 * clock. */
#include <stdio.h>
#include <string.h>

#include "transport/verbs_internal.h"

static const double beat_every_s = 0.2;
static const double longest_stall_s = 0.6;
static const double longest_step_s = 0.1; /* a rank that did not look meanwhile cannot say that nothing came */
static const double last_words_s = 0.25;

status verbs_beat(struct verbs_transport *v)
{
    const double now_s = v->calls->clock_s();
    double step_s = now_s - v->beat_s;
    status st = ST_OK;
    if (step_s > longest_step_s)
        step_s = longest_step_s;
    v->beat_s = now_s;
    for (int r = 0; r < v->base.n_ranks && !st; r++) {
        struct peer *p = &v->peers[r];
        if (!peer_is_there(p))
            continue;
        const bool waiting = peer_owes_answer(p);
        p->stalled_s = p->completed || !waiting ? 0 : p->stalled_s + step_s;
        p->idle_s = p->completed || waiting ? 0 : p->idle_s + step_s;
        p->completed = 0;
        if (p->stalled_s > longest_stall_s)
            st = verbs_lost(v, p, "its network card does not answer");
        else if (p->idle_s >= beat_every_s)
            st = verbs_post_beat(v, p);
    }
    return st;
}

const char *verbs_what_failed(const struct ibv_wc *wc)
{
    switch (wc->status) {
    case IBV_WC_RETRY_EXC_ERR:
        return "it does not answer: it ended, or the link is down";
    case IBV_WC_RNR_RETRY_EXC_ERR:
        return "it takes no messages";
    case IBV_WC_REM_ACCESS_ERR:
    case IBV_WC_REM_INV_REQ_ERR:
    case IBV_WC_REM_OP_ERR:
        return "it refuses what is written to it";
    case IBV_WC_WR_FLUSH_ERR:
        return "the connection was closed";
    case IBV_WC_LOC_PROT_ERR:
    case IBV_WC_LOC_LEN_ERR:
    case IBV_WC_LOC_ACCESS_ERR:
        return "a message to it does not lie in registered memory";
    default:
        return "the connection failed";
    }
}

/* Takes completions until every write that still can has finished, or for a moment. */
static void finish_writes(struct verbs_transport *v)
{
    const double end_s = v->calls->clock_s() + last_words_s;
    for (bool waiting = true; waiting && v->calls->clock_s() < end_s;) {
        struct ibv_wc wc;
        int n;
        while ((n = ibv_poll_cq(v->cq, 1, &wc)) == 1) {
            struct peer *p = &v->peers[wc.wr_id >> 16 & 0xffff];
            if (wc.status != IBV_WC_SUCCESS)
                p->lost = true;
            else if (wc.wr_id >> 48 != WORK_RECEIVE)
                verbs_complete_send(v, p, wc.wr_id);
        }
        waiting = false;
        if (n < 0)
            return;
        for (int r = 0; r < v->base.n_ranks; r++)
            waiting = waiting || (peer_is_there(&v->peers[r]) && peer_owes_answer(&v->peers[r]));
    }
}

void verbs_quit(struct verbs_transport *v, const char *why)
{
    if (v->failed)
        return;
    v->failed = true;
    if (v->connected) {
        char *notice = (char *)v->bounces + BOUNCES * TRANSPORT_SLOT;
        snprintf(notice, NOTICE_BYTES, "%s", why);
        for (int r = 0; *notice && r < v->base.n_ranks; r++)
            if (peer_is_there(&v->peers[r]))
                (void)verbs_control(v, &v->peers[r], CONTROL_ABANDON, strlen(notice));
        finish_writes(v);
        verbs_break(v);
    }
    verbs_cancel_sends(v);
}
