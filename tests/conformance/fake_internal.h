/* What the fake network is made of; for fake_verbs.c (objects) and fake_network.c (what moves). */
#ifndef HEARTH_TESTS_FAKE_INTERNAL_H
#define HEARTH_TESTS_FAKE_INTERNAL_H

#include <pthread.h>
#include "tests/conformance/fake_verbs.h"

enum { FAKE_DEVICES = 4, QUEUE = 128, CQ_MAX = 1 << 12 };

struct fake_context {
    struct ibv_context base; /* first */
    int rank, device;
};

struct fake_mr {
    struct ibv_mr base;
    int access;
    struct fake_mr *next;
};

struct fake_cq {
    struct ibv_cq base;
    struct ibv_wc *wc; /* [CQ_MAX] */
    unsigned first, n;
    bool armed;
};

struct posted {
    struct ibv_send_wr wr;
    struct ibv_sge sge;
    uint8_t inlined[1024];
    unsigned delay;
    double first_try_s; /* 0: not tried */
    int tries;
    bool written; /* the other side has it, and its acknowledgement is on its way */
    enum ibv_wc_status fate;
};

struct fake_qp {
    struct ibv_qp base;
    int rank;
    uint32_t max_inline, max_send, max_recv;
    struct ibv_qp_attr rtr, rts;
    struct posted *sends;        /* [QUEUE] */
    unsigned first_send, n_sends;
    uint64_t receives[QUEUE];
    unsigned first_receive, n_receives;
    struct fake_qp *next;
};

struct fake_network {
    pthread_mutex_t lock;
    struct fake_qp *qps;
    struct fake_mr *mrs;
    uint32_t next_number;
    int live;
    size_t locked_bytes, max_locked;
    struct fake_counts counts;
    long fail_at;
    int fail_error;
    bool failed;
    unsigned max_delay, seed;
    double now_s, poll_s, killed_s;
    enum ibv_wc_status fate[FAKE_RANKS];
    bool dry[FAKE_RANKS], dead[FAKE_RANKS], cut[FAKE_RANKS][FAKE_RANKS], lacks_device[FAKE_RANKS];
    void (*change)(void *arg, struct fake_write *w);
    void *change_arg;
    int n_devices;
    struct ibv_port_attr ports[FAKE_DEVICES];
    const struct ibv_gid_entry *gids[FAKE_DEVICES];
    int n_gids[FAKE_DEVICES];
    uint32_t max_inline;
    struct ibv_qp_attr last_rtr, last_rts;
};

extern struct fake_network fake_net;

/* Under the lock: counts a fallible call; true if it is the one that fails, with errno set. */
bool fake_refuses(void);
/* The operations that a context has. */
int fake_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
int fake_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);
int fake_poll_cq(struct ibv_cq *cq, int n, struct ibv_wc *wc);
int fake_req_notify_cq(struct ibv_cq *cq, int solicited_only);
/* Under the lock: completes everything that a connection in error still has. */
void fake_flush(struct fake_qp *q);

#endif
