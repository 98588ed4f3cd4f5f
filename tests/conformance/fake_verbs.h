/* A network of RDMA cards within the test process, in place of libibverbs: reliable connections, registered memory with
 * its keys, writes with immediate data, inline data, receives that may run out, completions, events. A write takes
 * place some polls after it was posted, whoever polls, as a card works beside its host. Time is the network's own:
 * every poll takes a little.
 *
 * One network per process, under one lock. What goes wrong is chosen by the functions below. */
#ifndef HEARTH_TESTS_FAKE_VERBS_H
#define HEARTH_TESTS_FAKE_VERBS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"
#include "transport/verbs_calls.h"

enum { FAKE_RANKS = 8 };

/* A write at the moment it takes place, for who wants to change it. */
struct fake_write {
    int from, to; /* ranks */
    enum ibv_wr_opcode opcode;
    uint64_t address;
    uint32_t length, rkey, imm; /* imm in network order; length: what the receiver is told */
};

struct fake_counts {
    long send_posts, receive_posts, receives, writes, notifies, events, calls;
};

extern const struct verbs_calls fake_verbs;

/* Whatever went before is forgotten: one device "fake0", one active RoCE port with an IPv4 address, nothing fails. */
void fake_reset(void);
/* The rank that the calling thread's devices belong to, from now on. */
void fake_i_am(int rank);
/* Objects that are open: 0 after everything was closed. */
int fake_live(void);
struct fake_counts fake_counts(void);

/* The n-th fallible call from now on fails with error `e` (n from 1; 0: none). Whether it did. */
void fake_fail_call(long n, int e);
bool fake_failed_call(void);
/* Writes take place up to `polls` polls after they were posted (default 3). */
void fake_delay(unsigned polls);
/* What a poll takes (default 1 us). */
void fake_poll_takes(double seconds);
/* The next write of `rank` completes with `st`; what the card does then is as if it were so. */
void fake_break_write(int rank, enum ibv_wc_status st);
/* The card of a rank has no receives left for anybody, from now on. */
void fake_receives_run_out(int rank);
void fake_cut(int a, int b);
/* The rank's process has ended: its connections are gone, its endpoint must not be used but to close it. */
void fake_kill(int rank);
double fake_killed_s(void); /* when, on the network's clock */
/* Called, under the lock, for every write; NULL: none. */
void fake_tamper(void (*change)(void *arg, struct fake_write *w), void *arg);

/* What devices there are. */
void fake_devices(int n);                  /* fake0, fake1, ... */
void fake_no_device(int rank);
void fake_port(int device, enum ibv_port_state state, bool ethernet, enum ibv_mtu mtu);
void fake_gids(int device, const struct ibv_gid_entry *entries, int n); /* kept by reference */
struct ibv_gid_entry fake_gid(uint32_t index, uint32_t type, const char *address); /* IPv6 notation */
/* The most inline bytes and the most bytes that may be registered in all. */
void fake_limits(uint32_t max_inline, size_t locked_bytes);
/* What the last connection was made with. */
struct ibv_qp_attr fake_last_rtr(void);
struct ibv_qp_attr fake_last_rts(void);

/* How ranks that are threads gather. */
struct fake_gather;
struct fake_gather *fake_gather_new(int n_ranks);
void fake_gather_free(struct fake_gather *g);
struct fake_seat {
    struct fake_gather *gather;
    int rank;
};
status fake_gather(void *seat, const void *mine, size_t bytes, void *all);

#endif
