/* One rank of the verbs transport on a real device. Ranks are processes, in one guest or two, that tell each other
 * their addresses through files in a folder which they share.
 *   transport_verbs FOLDER RANK RANKS MODE
 *     cases           the conformance cases
 *     polled N        N exchanges between neighbours, of random sizes, checked byte for byte; who waits polls
 *     asleep N        the same; who waits sleeps until the device wakes it
 *     wrong_key N     the same, but rank 1's writes carry a wrong key after the first N: the transport must fail
 *     until_failure   exchanges until the transport fails, as it must
 *     watch           waits for messages until the transport fails, as it must
 * FOLDER is empty at first. Ends with 0 if all went as it must, with one line on standard output. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "tests/conformance/transport_conformance.h"
#include "transport/verbs.h"
#include "transport/verbs_calls.h"

/* ---- how ranks meet ---- */

struct meeting {
    const char *folder;
    int rank, n_ranks, times;
};

static bool read_whole(const char *path, void *to, size_t bytes)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return false;
    bool whole = fread(to, 1, bytes, f) == bytes;
    return !fclose(f) && whole;
}

/* FOLDER/TIME.RANK holds what that rank gave. It appears whole: it is written under another name. */
static status meet(void *arg, const void *mine, size_t bytes, void *all)
{
    struct meeting *m = arg;
    const double end_s = clock_s() + 60;
    char path[512], part[520];
    snprintf(path, sizeof path, "%s/%d.%d", m->folder, m->times, m->rank);
    snprintf(part, sizeof part, "%s.part", path);
    FILE *f = fopen(part, "wb");
    if (!f || fwrite(mine, 1, bytes, f) != bytes || fclose(f) || rename(part, path)) {
        log_error("%s: %s", path, strerror(errno));
        return ST_IO;
    }
    for (int r = 0; r < m->n_ranks; r++) {
        snprintf(path, sizeof path, "%s/%d.%d", m->folder, m->times, r);
        while (!read_whole(path, (char *)all + (size_t)r * bytes, bytes)) {
            if (clock_s() > end_s) {
                log_error("rank %d does not come", r);
                return ST_PEER;
            }
            nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        }
    }
    m->times++;
    return ST_OK;
}

/* ---- a device whose writes can be spoilt ---- */

static bool spoil;
static int (*post_send)(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);

static int post_spoilt(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
    for (struct ibv_send_wr *w = wr; w && spoil; w = w->next)
        w->wr.rdma.rkey ^= 0x5500;
    return post_send(qp, wr, bad);
}

static struct ibv_context *open_spoilt(struct ibv_device *device)
{
    struct ibv_context *context = ibv_open_device(device);
    if (context) {
        post_send = context->ops.post_send;
        context->ops.post_send = post_spoilt;
    }
    return context;
}

/* ---- what ranks do ---- */

enum { MOST = 200000 };

static _Alignas(TRANSPORT_ALIGN) uint8_t data[MOST];

static uint32_t next_random(uint32_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 17;
    *x ^= *x << 5;
    return *x;
}

/* What rank `from` sends as its `number`th message; both sides know it. */
static size_t compose(int from, int number, uint8_t *to)
{
    uint32_t x = 1 + (uint32_t)number * 2654435761u + (uint32_t)from * 40503u;
    next_random(&x);
    size_t size = number % 10 ? next_random(&x) % 9000 : next_random(&x) % MOST;
    for (size_t i = 0; i < size; i++)
        to[i] = (uint8_t)(x >> (i & 15)) + (uint8_t)(i >> 8);
    return size;
}

/* One message to the next rank, one from the one before. */
static status exchange(struct transport *t, int number, bool asleep, struct check *c)
{
    static uint8_t expected[MOST];
    const int to = (t->rank + 1) % t->n_ranks, from = (t->rank + t->n_ranks - 1) % t->n_ranks;
    struct send s;
    struct arrival a;
    bool found = false, done = false;
    status st = transport_post(t, to, 1, data, compose(t->rank, number, data), &s);
    while (!st && !found) {
        st = transport_poll(t, 1u << 1, &a, &found);
        if (!st && !found && asleep)
            transport_idle(t);
    }
    if (!st) {
        CHECK(c, a.size == compose(from, number, expected) && !memcmp(a.data, expected, a.size));
        st = transport_release(t, &a);
    }
    while (!st && !done)
        st = transport_sent(t, &s, &done);
    return st;
}

static status exchanges(struct transport *t, int n, bool asleep, struct check *c)
{
    status st = transport_register(t, data, sizeof data);
    for (int i = 0; i < n && !st; i++)
        st = exchange(t, i, asleep, c);
    return st;
}

static status run_cases(struct transport *t, struct check *c)
{
    for (int i = 0; i < n_transport_cases; i++) {
        const int before = c->failures;
        transport_cases[i].run(t, c);
        if (c->failures > before)
            fprintf(stderr, "rank %d of %d: case %s failed\n", t->rank, t->n_ranks, transport_cases[i].name);
    }
    return ST_OK;
}

static status run(struct transport *t, const char *mode, int n, struct check *c)
{
    status st = ST_OK;
    struct arrival a;
    bool found;
    if (!strcmp(mode, "cases"))
        return run_cases(t, c);
    if (!strcmp(mode, "polled") || !strcmp(mode, "asleep"))
        return exchanges(t, n, !strcmp(mode, "asleep"), c);
    if (!strcmp(mode, "wrong_key")) {
        st = exchanges(t, n, false, c);
        spoil = t->rank == 1;
    }
    printf("ready\n");
    fflush(stdout);
    for (int i = n; !st && strcmp(mode, "watch"); i++)
        st = exchange(t, i, false, c);
    while (!st)
        st = transport_poll(t, ~0u, &a, &found);
    CHECK(c, st == ST_PEER);
    return ST_OK;
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: transport_verbs FOLDER RANK RANKS MODE [N]\n");
        return 2;
    }
    struct meeting m = {argv[1], atoi(argv[2]), atoi(argv[3]), 0};
    const struct verbs_gather gather = {meet, &m};
    const struct transport_config config = conformance_config();
    struct verbs_calls calls = verbs_libibverbs;
    const struct verbs_options options = {.calls = &calls};
    struct transport *t;
    struct check c = {0};
    calls.open_device = open_spoilt;
    if (transport_verbs_open(&config, &options, m.rank, m.n_ranks, &gather, &t))
        return 1;
    void *lent = conformance_begin(t, &c);
    status st = c.failures ? ST_INTERNAL : run(t, argv[4], argc > 5 ? atoi(argv[5]) : 0, &c);
    printf("rank %d of %d on %s: %s, %d failures%s%s\n", m.rank, m.n_ranks, transport_verbs_port(t), status_name(st),
           c.failures, c.failures ? ": " : "", c.failures ? c.first : "");
    transport_close(t);
    free(lent);
    return st || c.failures;
}
