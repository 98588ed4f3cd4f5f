/* Devices, ports, memory regions, queues and connections of the fake network, and its faults. */
#include "tests/conformance/fake_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/status.h"

struct fake_network fake_net = {.lock = PTHREAD_MUTEX_INITIALIZER};
static _Thread_local int own_rank;
static struct ibv_device devices[FAKE_DEVICES]; /* only their addresses are used */

#define LOCKED(...)                              \
    do {                                         \
        pthread_mutex_lock(&fake_net.lock);      \
        __VA_ARGS__;                             \
        pthread_mutex_unlock(&fake_net.lock);    \
    } while (0)

bool fake_refuses(void)
{
    fake_net.counts.calls++;
    if (!fake_net.fail_at || --fake_net.fail_at)
        return false;
    fake_net.failed = true;
    errno = fake_net.fail_error;
    return true;
}

/* A fallible call that makes an object of `size` bytes; NULL with errno. */
static void *make(size_t size)
{
    pthread_mutex_lock(&fake_net.lock);
    void *p = fake_refuses() ? NULL : calloc(1, size);
    fake_net.live += p != NULL;
    pthread_mutex_unlock(&fake_net.lock);
    return p;
}

static int unmake(void *p)
{
    LOCKED(fake_net.live--);
    free(p);
    return 0;
}

static bool refuses(void)
{
    bool r;
    LOCKED(r = fake_refuses());
    return r;
}

/* ---- devices ---- */

static struct ibv_device **get_device_list(int *n)
{
    struct ibv_device **list = make((FAKE_DEVICES + 1) * sizeof *list);
    *n = 0;
    if (!list)
        return NULL;
    if (!fake_net.lacks_device[own_rank])
        for (; *n < fake_net.n_devices; ++*n)
            list[*n] = &devices[*n];
    return list;
}

static void free_device_list(struct ibv_device **list) { unmake(list); }

static const char *get_device_name(struct ibv_device *device)
{
    static const char *const names[FAKE_DEVICES] = {"fake0", "fake1", "fake2", "fake3"};
    return names[device - devices];
}

static struct ibv_context *open_device(struct ibv_device *device)
{
    struct fake_context *c = make(sizeof *c);
    if (!c)
        return NULL;
    c->base.device = device;
    c->base.ops.poll_cq = fake_poll_cq;
    c->base.ops.req_notify_cq = fake_req_notify_cq;
    c->base.ops.post_send = fake_post_send;
    c->base.ops.post_recv = fake_post_recv;
    c->rank = own_rank;
    c->device = (int)(device - devices);
    return &c->base;
}

static int close_device(struct ibv_context *context) { return unmake(context); }

static int query_device(struct ibv_context *context, struct ibv_device_attr *attr)
{
    (void)context;
    if (refuses())
        return errno;
    *attr = (struct ibv_device_attr){.phys_port_cnt = 1};
    return 0;
}

static int query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr)
{
    if (refuses())
        return errno;
    if (port != 1)
        return EINVAL;
    *attr = fake_net.ports[((struct fake_context *)context)->device];
    return 0;
}

static ssize_t query_gid_table(struct ibv_context *context, struct ibv_gid_entry *entries, size_t max)
{
    const int d = ((struct fake_context *)context)->device;
    if (refuses())
        return -errno;
    for (int i = 0; i < fake_net.n_gids[d] && (size_t)i < max; i++)
        entries[i] = fake_net.gids[d][i];
    return fake_net.n_gids[d];
}

/* ---- memory ---- */

static struct ibv_pd *alloc_pd(struct ibv_context *context)
{
    struct ibv_pd *pd = make(sizeof *pd);
    if (pd)
        pd->context = context;
    return pd;
}

static int dealloc_pd(struct ibv_pd *pd) { return unmake(pd); }

static struct ibv_mr *reg_mr(struct ibv_pd *pd, void *memory, size_t bytes, int access)
{
    struct fake_mr *m = make(sizeof *m);
    if (!m)
        return NULL;
    pthread_mutex_lock(&fake_net.lock);
    bool fits = fake_net.locked_bytes + bytes <= fake_net.max_locked;
    if (fits) {
        fake_net.locked_bytes += bytes;
        m->base = (struct ibv_mr){.context = pd->context, .pd = pd, .addr = memory, .length = bytes};
        m->base.lkey = m->base.rkey = ++fake_net.next_number * 256;
        m->access = access;
        m->next = fake_net.mrs;
        fake_net.mrs = m;
    }
    pthread_mutex_unlock(&fake_net.lock);
    if (fits)
        return &m->base;
    unmake(m);
    errno = ENOMEM;
    return NULL;
}

static int dereg_mr(struct ibv_mr *mr)
{
    pthread_mutex_lock(&fake_net.lock);
    struct fake_mr **at = &fake_net.mrs;
    while (*at != (struct fake_mr *)mr)
        at = &(*at)->next;
    *at = (*at)->next;
    fake_net.locked_bytes -= mr->length;
    pthread_mutex_unlock(&fake_net.lock);
    return unmake(mr);
}

/* ---- completions ---- */

static struct ibv_comp_channel *create_comp_channel(struct ibv_context *context)
{
    struct ibv_comp_channel *c = make(sizeof *c);
    if (!c)
        return NULL;
    c->context = context;
    c->fd = eventfd(0, EFD_SEMAPHORE);
    return c;
}

static int destroy_comp_channel(struct ibv_comp_channel *c)
{
    close(c->fd);
    return unmake(c);
}

static struct ibv_cq *create_cq(struct ibv_context *context, int entries, struct ibv_comp_channel *channel)
{
    struct fake_cq *cq = entries > CQ_MAX ? NULL : make(sizeof *cq);
    if (!cq)
        return NULL;
    cq->base.context = context;
    cq->base.channel = channel;
    cq->wc = calloc(CQ_MAX, sizeof *cq->wc);
    return &cq->base;
}

static int destroy_cq(struct ibv_cq *base)
{
    struct fake_cq *cq = (struct fake_cq *)base;
    if (cq->base.comp_events_completed) /* libibverbs would wait for ever */
        abort();
    free(cq->wc);
    return unmake(cq);
}

static int get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq)
{
    uint64_t one;
    (void)cq;
    if (refuses() || read(channel->fd, &one, sizeof one) != sizeof one)
        return -1;
    LOCKED(fake_net.counts.events++);
    return 0;
}

static void ack_cq_events(struct ibv_cq *cq, unsigned n)
{
    (void)cq;
    LOCKED(fake_net.counts.events -= n);
}

/* ---- connections ---- */

static struct ibv_qp *create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
    struct fake_qp *q = make(sizeof *q);
    if (!q)
        return NULL;
    if (attr->cap.max_inline_data > fake_net.max_inline || attr->cap.max_send_wr > QUEUE ||
        attr->cap.max_recv_wr > QUEUE) {
        unmake(q);
        errno = EINVAL;
        return NULL;
    }
    q->base = (struct ibv_qp){.context = pd->context, .pd = pd, .send_cq = attr->send_cq, .recv_cq = attr->recv_cq,
                              .state = IBV_QPS_RESET, .qp_type = attr->qp_type};
    q->rank = ((struct fake_context *)pd->context)->rank;
    q->max_inline = attr->cap.max_inline_data;
    q->max_send = attr->cap.max_send_wr;
    q->max_recv = attr->cap.max_recv_wr;
    q->sends = calloc(QUEUE, sizeof *q->sends);
    LOCKED(q->base.qp_num = ++fake_net.next_number; q->next = fake_net.qps; fake_net.qps = q);
    return &q->base;
}

static int change_state(struct fake_qp *q, const struct ibv_qp_attr *attr)
{
    const enum ibv_qp_state from = q->base.state, to = attr->qp_state;
    if (fake_refuses())
        return errno;
    if (to != IBV_QPS_ERR && to != from + 1)
        return EINVAL;
    if (to == IBV_QPS_RTR)
        q->rtr = fake_net.last_rtr = *attr;
    if (to == IBV_QPS_RTS)
        q->rts = fake_net.last_rts = *attr;
    q->base.state = to;
    if (to == IBV_QPS_ERR)
        fake_flush(q);
    return 0;
}

static int modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
    int e;
    if (!(mask & IBV_QP_STATE))
        return EINVAL;
    LOCKED(e = change_state((struct fake_qp *)qp, attr));
    return e;
}

static int destroy_qp(struct ibv_qp *qp)
{
    struct fake_qp *q = (struct fake_qp *)qp;
    pthread_mutex_lock(&fake_net.lock);
    struct fake_qp **at = &fake_net.qps;
    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
    pthread_mutex_unlock(&fake_net.lock);
    free(q->sends);
    return unmake(q);
}

static double now_s(void)
{
    double now;
    LOCKED(now = fake_net.now_s += 1e-6);
    return now;
}

const struct verbs_calls fake_verbs = {
    .get_device_list = get_device_list,
    .free_device_list = free_device_list,
    .get_device_name = get_device_name,
    .open_device = open_device,
    .close_device = close_device,
    .query_device = query_device,
    .query_port = query_port,
    .query_gid_table = query_gid_table,
    .alloc_pd = alloc_pd,
    .dealloc_pd = dealloc_pd,
    .reg_mr = reg_mr,
    .dereg_mr = dereg_mr,
    .create_comp_channel = create_comp_channel,
    .destroy_comp_channel = destroy_comp_channel,
    .create_cq = create_cq,
    .destroy_cq = destroy_cq,
    .get_cq_event = get_cq_event,
    .ack_cq_events = ack_cq_events,
    .create_qp = create_qp,
    .modify_qp = modify_qp,
    .destroy_qp = destroy_qp,
    .clock_s = now_s,
};

/* ---- what tests ask for ---- */

struct ibv_gid_entry fake_gid(uint32_t index, uint32_t type, const char *address)
{
    struct ibv_gid_entry e = {.gid_index = index, .port_num = 1, .gid_type = type};
    if (inet_pton(AF_INET6, address, e.gid.raw) != 1)
        abort();
    return e;
}

void fake_reset(void)
{
    static struct ibv_gid_entry gid;
    gid = fake_gid(1, IBV_GID_TYPE_ROCE_V2, "::ffff:10.0.0.1");
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    fake_net = (struct fake_network){.lock = lock, .max_locked = SIZE_MAX, .max_delay = 3, .seed = 1, .now_s = 1,
                                     .poll_s = 1e-6, .n_devices = 1, .max_inline = 256, .next_number = 16};
    for (int i = 0; i < FAKE_DEVICES; i++) {
        fake_port(i, IBV_PORT_ACTIVE, true, IBV_MTU_4096);
        fake_gids(i, &gid, 1);
    }
}

void fake_i_am(int rank) { own_rank = rank; }

int fake_live(void)
{
    int n;
    LOCKED(n = fake_net.live);
    return n;
}

struct fake_counts fake_counts(void)
{
    struct fake_counts c;
    LOCKED(c = fake_net.counts);
    return c;
}

void fake_fail_call(long n, int e) { LOCKED(fake_net.fail_at = n; fake_net.fail_error = e; fake_net.failed = false); }

bool fake_failed_call(void)
{
    bool f;
    LOCKED(f = fake_net.failed);
    return f;
}

void fake_delay(unsigned polls) { LOCKED(fake_net.max_delay = polls); }
void fake_poll_takes(double seconds) { LOCKED(fake_net.poll_s = seconds); }
void fake_break_write(int rank, enum ibv_wc_status st) { LOCKED(fake_net.fate[rank] = st); }
void fake_receives_run_out(int rank) { LOCKED(fake_net.dry[rank] = true); }
void fake_cut(int a, int b) { LOCKED(fake_net.cut[a][b] = fake_net.cut[b][a] = true); }
void fake_kill(int rank) { LOCKED(fake_net.dead[rank] = true; fake_net.killed_s = fake_net.now_s); }
double fake_killed_s(void) { return fake_net.killed_s; }

void fake_tamper(void (*change)(void *arg, struct fake_write *w), void *arg)
{
    LOCKED(fake_net.change = change; fake_net.change_arg = arg);
}

void fake_devices(int n) { fake_net.n_devices = n; }
void fake_no_device(int rank) { fake_net.lacks_device[rank] = true; }

void fake_port(int device, enum ibv_port_state state, bool ethernet, enum ibv_mtu mtu)
{
    fake_net.ports[device] = (struct ibv_port_attr){
        .state = state, .max_mtu = IBV_MTU_4096, .active_mtu = mtu, .lid = 17,
        .link_layer = ethernet ? IBV_LINK_LAYER_ETHERNET : IBV_LINK_LAYER_INFINIBAND};
}

void fake_gids(int device, const struct ibv_gid_entry *entries, int n)
{
    fake_net.gids[device] = entries;
    fake_net.n_gids[device] = n;
}

void fake_limits(uint32_t max_inline, size_t locked_bytes)
{
    fake_net.max_inline = max_inline;
    fake_net.max_locked = locked_bytes;
}

struct ibv_qp_attr fake_last_rtr(void) { return fake_net.last_rtr; }
struct ibv_qp_attr fake_last_rts(void) { return fake_net.last_rts; }

/* ---- gathering ---- */

struct fake_gather {
    pthread_barrier_t barrier;
    int n_ranks;
    uint8_t *all;
    size_t bytes; /* each rank's part of it */
    pthread_mutex_t lock;
};

struct fake_gather *fake_gather_new(int n_ranks)
{
    struct fake_gather *g = calloc(1, sizeof *g);
    if (!g)
        abort();
    g->n_ranks = n_ranks;
    pthread_barrier_init(&g->barrier, NULL, (unsigned)n_ranks);
    pthread_mutex_init(&g->lock, NULL);
    return g;
}

void fake_gather_free(struct fake_gather *g)
{
    pthread_barrier_destroy(&g->barrier);
    pthread_mutex_destroy(&g->lock);
    free(g->all);
    free(g);
}

status fake_gather(void *arg, const void *mine, size_t bytes, void *all)
{
    const struct fake_seat *s = arg;
    struct fake_gather *g = s->gather;
    const size_t n = (size_t)g->n_ranks;
    pthread_mutex_lock(&g->lock);
    if (bytes > g->bytes) {
        g->all = realloc(g->all, n * bytes);
        if (!g->all)
            abort();
        g->bytes = bytes;
    }
    memcpy(g->all + (size_t)s->rank * bytes, mine, bytes);
    pthread_mutex_unlock(&g->lock);
    pthread_barrier_wait(&g->barrier);
    memcpy(all, g->all, n * bytes);
    pthread_barrier_wait(&g->barrier);
    return ST_OK;
}
