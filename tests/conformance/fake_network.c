/* What moves in the fake network: writes that were posted take place, complete, and fail as cards report it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/conformance/fake_internal.h"

static const double retries_take_s = 0.47; /* as verbs_connect.c asks for: seven times 67 ms */
enum { RECEIVER_TRIES = 200 };

static unsigned draw(void)
{
    fake_net.seed = fake_net.seed * 1664525u + 1013904223u;
    return fake_net.seed >> 8;
}

static void complete(struct fake_cq *cq, const struct ibv_wc *wc)
{
    if (cq->n == CQ_MAX)
        abort(); /* an overrun */
    cq->wc[(cq->first + cq->n++) % CQ_MAX] = *wc;
    if (cq->armed && cq->base.channel) {
        const uint64_t one = 1;
        cq->armed = false;
        if (write(cq->base.channel->fd, &one, sizeof one) != sizeof one)
            abort();
    }
}

static void complete_send(struct fake_qp *q, enum ibv_wc_status st)
{
    struct posted *w = &q->sends[q->first_send];
    q->first_send = (q->first_send + 1) % QUEUE;
    q->n_sends--;
    if (w->wr.send_flags & IBV_SEND_SIGNALED || st != IBV_WC_SUCCESS)
        complete((struct fake_cq *)q->base.send_cq,
                 &(struct ibv_wc){.wr_id = w->wr.wr_id, .status = st, .opcode = IBV_WC_RDMA_WRITE, .vendor_err = 7,
                                  .qp_num = q->base.qp_num});
}

void fake_flush(struct fake_qp *q)
{
    while (q->n_sends)
        complete_send(q, IBV_WC_WR_FLUSH_ERR);
    for (; q->n_receives; q->n_receives--) {
        complete((struct fake_cq *)q->base.recv_cq,
                 &(struct ibv_wc){.wr_id = q->receives[q->first_receive], .status = IBV_WC_WR_FLUSH_ERR});
        q->first_receive = (q->first_receive + 1) % QUEUE;
    }
}

static void fail(struct fake_qp *q, enum ibv_wc_status st)
{
    q->base.state = IBV_QPS_ERR;
    complete_send(q, st);
    fake_flush(q);
}

static const struct fake_mr *find_key(const struct ibv_pd *pd, uint32_t key, uint64_t at, uint64_t n, int access)
{
    for (const struct fake_mr *m = fake_net.mrs; m; m = m->next)
        if (m->base.lkey == key && m->base.pd == pd && (m->access & access) == access &&
            at >= (uintptr_t)m->base.addr && at + n <= (uintptr_t)m->base.addr + m->base.length)
            return m;
    return NULL;
}

static struct fake_qp *other_end(const struct fake_qp *q)
{
    for (struct fake_qp *o = fake_net.qps; o; o = o->next)
        if (o->base.qp_num == q->rtr.dest_qp_num)
            return o->rtr.dest_qp_num == q->base.qp_num && o->base.state >= IBV_QPS_RTR && o->base.state <= IBV_QPS_RTS
                       ? o : NULL;
    return NULL;
}

/* The write at the head of the queue takes place, if everything is as it should be. */
static void deliver(struct fake_qp *q)
{
    struct posted *w = &q->sends[q->first_send];
    struct fake_qp *o = other_end(q);
    const uint32_t n = w->wr.num_sge ? w->sge.length : 0;
    const bool takes_receive = w->wr.opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
    struct fake_write f = {.from = q->rank, .to = o ? o->rank : -1, .opcode = w->wr.opcode, .length = n,
                           .address = w->wr.wr.rdma.remote_addr, .rkey = w->wr.wr.rdma.rkey, .imm = w->wr.imm_data};
    if (w->written) {
        complete_send(q, IBV_WC_SUCCESS);
        return;
    }
    if (w->fate != IBV_WC_SUCCESS) {
        fail(q, w->fate);
        return;
    }
    if (!o || fake_net.cut[q->rank][o->rank] || fake_net.dead[o->rank]) {
        if (!w->first_try_s)
            w->first_try_s = fake_net.now_s;
        if (fake_net.now_s - w->first_try_s >= retries_take_s)
            fail(q, IBV_WC_RETRY_EXC_ERR);
        return;
    }
    if (takes_receive && (!o->n_receives || fake_net.dry[o->rank])) {
        if (++w->tries > RECEIVER_TRIES)
            fail(q, IBV_WC_RNR_RETRY_EXC_ERR);
        return;
    }
    if (n && !(w->wr.send_flags & IBV_SEND_INLINE) && !find_key(q->base.pd, w->sge.lkey, w->sge.addr, n, 0)) {
        fail(q, IBV_WC_LOC_PROT_ERR);
        return;
    }
    if (fake_net.change)
        fake_net.change(fake_net.change_arg, &f);
    if (n && !find_key(o->base.pd, f.rkey, f.address, n, IBV_ACCESS_REMOTE_WRITE)) {
        o->base.state = IBV_QPS_ERR;
        fake_flush(o);
        fail(q, IBV_WC_REM_ACCESS_ERR);
        return;
    }
    if (n)
        memcpy((void *)(uintptr_t)f.address,
               w->wr.send_flags & IBV_SEND_INLINE ? w->inlined : (void *)(uintptr_t)w->sge.addr, n);
    fake_net.counts.writes++;
    if (takes_receive) {
        complete((struct fake_cq *)o->base.recv_cq,
                 &(struct ibv_wc){.wr_id = o->receives[o->first_receive], .status = IBV_WC_SUCCESS,
                                  .opcode = f.opcode == IBV_WR_RDMA_WRITE_WITH_IMM ? IBV_WC_RECV_RDMA_WITH_IMM
                                                                                   : IBV_WC_RECV,
                                  .byte_len = f.length, .imm_data = f.imm, .wc_flags = IBV_WC_WITH_IMM,
                                  .qp_num = o->base.qp_num});
        o->first_receive = (o->first_receive + 1) % QUEUE;
        o->n_receives--;
    }
    w->written = true;
    w->delay = draw() % (fake_net.max_delay + 1);
}

/* A little time passes for every card. */
static bool step(void)
{
    bool moved = false;
    for (struct fake_qp *q = fake_net.qps; q; q = q->next) {
        const unsigned before = q->n_sends;
        if (!q->n_sends || fake_net.dead[q->rank])
            continue;
        if (q->base.state == IBV_QPS_ERR)
            fake_flush(q);
        else if (q->sends[q->first_send].delay)
            q->sends[q->first_send].delay--, moved = true;
        else
            deliver(q);
        moved = moved || q->n_sends != before || q->sends[q->first_send].written;
    }
    return moved;
}

static int post_one(struct fake_qp *q, const struct ibv_send_wr *wr)
{
    struct posted *w = &q->sends[(q->first_send + q->n_sends) % QUEUE];
    if (q->base.state != IBV_QPS_RTS && q->base.state != IBV_QPS_ERR)
        return EINVAL;
    if (q->n_sends == q->max_send || wr->num_sge > 1)
        return ENOMEM;
    *w = (struct posted){.wr = *wr, .delay = draw() % (fake_net.max_delay + 1)};
    if (wr->num_sge)
        w->sge = *wr->sg_list;
    if (wr->num_sge && wr->send_flags & IBV_SEND_INLINE) {
        if (w->sge.length > q->max_inline)
            return ENOMEM;
        memcpy(w->inlined, (void *)(uintptr_t)w->sge.addr, w->sge.length);
    }
    if (wr->num_sge) {
        w->fate = fake_net.fate[q->rank];
        fake_net.fate[q->rank] = IBV_WC_SUCCESS;
    }
    q->n_sends++;
    return 0;
}

int fake_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
    struct fake_qp *q = (struct fake_qp *)qp;
    int e = 0;
    pthread_mutex_lock(&fake_net.lock);
    if (fake_refuses())
        e = errno;
    fake_net.counts.send_posts++;
    for (; wr && !e; wr = e ? wr : wr->next)
        e = post_one(q, wr);
    *bad = wr;
    pthread_mutex_unlock(&fake_net.lock);
    return e;
}

int fake_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
    struct fake_qp *q = (struct fake_qp *)qp;
    int e = 0;
    pthread_mutex_lock(&fake_net.lock);
    if (fake_refuses())
        e = errno;
    fake_net.counts.receive_posts++;
    for (; wr && !e; wr = wr->next) {
        if (q->n_receives == q->max_recv) {
            e = ENOMEM;
            break;
        }
        q->receives[(q->first_receive + q->n_receives++) % QUEUE] = wr->wr_id;
        fake_net.counts.receives++;
    }
    *bad = wr;
    if (q->base.state == IBV_QPS_ERR)
        fake_flush(q);
    pthread_mutex_unlock(&fake_net.lock);
    return e;
}

int fake_poll_cq(struct ibv_cq *base, int n, struct ibv_wc *wc)
{
    struct fake_cq *cq = (struct fake_cq *)base;
    int got = 0;
    pthread_mutex_lock(&fake_net.lock);
    if (fake_net.dead[((struct fake_context *)base->context)->rank]) { /* its time is over: it is only closed */
        pthread_mutex_unlock(&fake_net.lock);
        return -EIO;
    }
    fake_net.now_s += fake_net.poll_s;
    step();
    if (fake_refuses())
        got = -errno;
    for (; got >= 0 && got < n && cq->n; got++) {
        wc[got] = cq->wc[cq->first];
        cq->first = (cq->first + 1) % CQ_MAX;
        cq->n--;
    }
    pthread_mutex_unlock(&fake_net.lock);
    return got;
}

/* Who asks for an event may sleep: all that is on its way arrives now, and time passes. */
int fake_req_notify_cq(struct ibv_cq *cq, int solicited_only)
{
    int e = 0;
    (void)solicited_only;
    pthread_mutex_lock(&fake_net.lock);
    fake_net.counts.notifies++;
    if (fake_refuses())
        e = errno;
    fake_net.now_s += 0.05;
    while (step())
        ;
    ((struct fake_cq *)cq)->armed = !e;
    pthread_mutex_unlock(&fake_net.lock);
    return e;
}
