#include "tests/conformance/transport_conformance.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CANARY = 64, USER_KINDS = 0x7fffffff };

void check_that(struct check *c, bool ok, const char *file, int line, const char *what)
{
    if (ok)
        return;
    if (c->failures++ == 0)
        snprintf(c->first, sizeof c->first, "%s:%d: %s", file, line, what);
}

static uint32_t mix(uint32_t x)
{
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

static uint32_t draw(uint32_t *seed)
{
    *seed += 0x9e3779b9u;
    return mix(*seed);
}

static void *get_memory(size_t n)
{
    void *p = malloc(n ? n : 1);
    if (!p)
        abort();
    return p;
}

/* The bytes of a message depend on who sends what to whom, so a message that goes astray is noticed. */
static uint32_t tag_of(int from, int to, int kind, int number)
{
    return mix((uint32_t)from * 7919 + (uint32_t)to * 104729 + (uint32_t)kind * 1299709 + (uint32_t)number * 15485863);
}

static void fill(uint8_t *at, size_t n, uint32_t tag)
{
    for (size_t i = 0; i < n; i++)
        at[i] = (uint8_t)(tag >> (8 * (i & 3))) ^ (uint8_t)(i >> 2) * 37;
}

static bool holds(const uint8_t *at, size_t n, uint32_t tag)
{
    for (size_t i = 0; i < n; i++) {
        if (at[i] != (uint8_t)((uint8_t)(tag >> (8 * (i & 3))) ^ (uint8_t)(i >> 2) * 37))
            return false;
    }
    return true;
}

static void start(struct transport *t, struct check *c, int to, int kind, const void *data, size_t n, struct send *s)
{
    CHECK(c, transport_send(t, to, kind, data, n, s) == ST_OK);
}

static bool is_sent(struct transport *t, struct check *c, struct send *s)
{
    bool done = false;
    CHECK(c, transport_sent(t, s, &done) == ST_OK);
    return done;
}

static void finish(struct transport *t, struct check *c, struct send *s)
{
    while (!is_sent(t, c, s) && !c->failures)
        sched_yield();
}

static bool look(struct transport *t, struct check *c, uint32_t kinds, struct arrival *a)
{
    bool found = false;
    CHECK(c, transport_poll(t, kinds, a, &found) == ST_OK);
    CHECK(c, !found || (kinds >> a->kind & 1 && a->from >= 0 && a->from < t->n_ranks));
    return found;
}

static void await(struct transport *t, struct check *c, uint32_t kinds, struct arrival *a)
{
    while (!look(t, c, kinds, a) && !c->failures)
        sched_yield();
}

/* Receives between canaries; the caller frees the result minus CANARY through release(). */
static uint8_t *take(struct transport *t, struct check *c, struct arrival *a)
{
    uint8_t *block = get_memory(a->size + 2 * CANARY);
    memset(block, 0xa5, a->size + 2 * CANARY);
    CHECK(c, transport_receive(t, a, block + CANARY) == ST_OK);
    for (int i = 0; i < CANARY; i++)
        CHECK(c, block[i] == 0xa5 && block[CANARY + a->size + (size_t)i] == 0xa5);
    return block + CANARY;
}

static void release(uint8_t *message)
{
    free(message - CANARY);
}

static void take_expecting(struct transport *t, struct check *c, struct arrival *a, size_t n, uint32_t tag)
{
    CHECK(c, a->size == n);
    uint8_t *message = take(t, c, a);
    CHECK(c, holds(message, a->size, tag));
    release(message);
}

/* All ranks have come here: they tell rank 0, which then tells them. Kind 31 is for this alone, so that a rank which
 * is already in the next case disturbs none that is still here. */
static void meet(struct transport *t, struct check *c)
{
    struct send *sends = get_memory((size_t)t->n_ranks * sizeof *sends);
    int n_peers = t->rank ? 1 : t->n_ranks - 1;
    struct arrival a;
    if (t->rank)
        start(t, c, 0, 31, NULL, 0, &sends[0]);
    for (int n = 0; n < n_peers; n++) {
        await(t, c, 1u << 31, &a);
        take_expecting(t, c, &a, 0, 0);
    }
    for (int r = 1; r < t->n_ranks && !t->rank; r++)
        start(t, c, r, 31, NULL, 0, &sends[r - 1]);
    for (int n = 0; n < n_peers; n++)
        finish(t, c, &sends[n]);
    free(sends);
}

struct note {
    struct send send;
    uint8_t data[8];
};

/* Every rank sends numbered messages of three kinds to every rank, itself included; each kind's arrive in order. */
static void order_per_kind(struct transport *t, struct check *c)
{
    static const int kinds[] = {0, 7, 30};
    enum { EACH = 100, N_KINDS = 3 };
    int n = t->n_ranks, total = n * N_KINDS * EACH;
    struct note *notes = get_memory((size_t)total * sizeof *notes);
    int *next = calloc((size_t)n * TRANSPORT_KINDS, sizeof *next);
    int i = 0;
    for (int number = 0; number < EACH; number++) {
        for (int to = 0; to < n; to++) {
            for (int k = 0; k < N_KINDS; k++, i++) {
                fill(notes[i].data, 8, tag_of(t->rank, to, kinds[k], number));
                start(t, c, to, kinds[k], notes[i].data, 8, &notes[i].send);
            }
        }
    }
    for (i = 0; i < total && !c->failures; i++) {
        struct arrival a;
        await(t, c, USER_KINDS, &a);
        int *number = &next[a.from * TRANSPORT_KINDS + a.kind];
        take_expecting(t, c, &a, 8, tag_of(a.from, t->rank, a.kind, (*number)++));
    }
    for (i = 0; i < total; i++)
        finish(t, c, &notes[i].send);
    free(next);
    free(notes);
    meet(t, c);
}

/* A poll finds only the kinds that it asks for, in whatever order they came. */
static void poll_by_mask(struct transport *t, struct check *c)
{
    static const int sent[] = {1, 2, 1, 2, 30}, wanted[] = {30, 2, 2, 1, 1}, number[] = {0, 0, 1, 0, 1};
    int to = (t->rank + 1) % t->n_ranks, from = (t->rank + t->n_ranks - 1) % t->n_ranks;
    struct note notes[5];
    struct arrival a;
    for (int i = 0; i < 5; i++) {
        fill(notes[i].data, 8, tag_of(t->rank, to, sent[i], i == 2 || i == 3));
        start(t, c, to, sent[i], notes[i].data, 8, &notes[i].send);
    }
    for (int i = 0; i < 5; i++) {
        for (int tries = 0; tries < 50; tries++)
            CHECK(c, !look(t, c, 1u << 3 | 1u << 4, &a) && !look(t, c, 0, &a));
        await(t, c, 1u << wanted[i], &a);
        CHECK(c, a.from == from && a.kind == wanted[i]);
        take_expecting(t, c, &a, 8, tag_of(from, t->rank, wanted[i], number[i]));
    }
    CHECK(c, !look(t, c, USER_KINDS, &a));
    for (int i = 0; i < 5; i++)
        finish(t, c, &notes[i].send);
    meet(t, c);
}

static void sizes_to(struct transport *t, struct check *c, int to, int from)
{
    static const size_t sizes[] = {0, 1, 63, 4096, 65536, 8u << 20, 8u << 20, 1};
    for (int i = 0; i < (int)(sizeof sizes / sizeof *sizes) && !c->failures; i++) {
        uint8_t *data = get_memory(sizes[i]);
        struct send s;
        struct arrival a;
        fill(data, sizes[i], tag_of(t->rank, to, 3, i));
        start(t, c, to, 3, data, sizes[i], &s);
        await(t, c, 1u << 3, &a);
        CHECK(c, a.from == from);
        take_expecting(t, c, &a, sizes[i], tag_of(from, t->rank, 3, i));
        finish(t, c, &s);
        free(data);
    }
    meet(t, c);
}

static void self_send(struct transport *t, struct check *c)
{
    sizes_to(t, c, t->rank, t->rank);
}

static void sizes_around_the_ring(struct transport *t, struct check *c)
{
    sizes_to(t, c, (t->rank + 1) % t->n_ranks, (t->rank + t->n_ranks - 1) % t->n_ranks);
}

/* Thousands of sends start before anyone receives, and a message behind all of them is found first. */
static void many_outstanding(struct transport *t, struct check *c)
{
    enum { MANY = 3000 };
    int to = (t->rank + 1) % t->n_ranks, from = (t->rank + t->n_ranks - 1) % t->n_ranks;
    struct note *notes = get_memory((MANY + 1) * sizeof *notes);
    struct arrival a;
    for (int i = 0; i <= MANY; i++) {
        int kind = i < MANY ? 5 : 6;
        fill(notes[i].data, 8, tag_of(t->rank, to, kind, i));
        start(t, c, to, kind, notes[i].data, 8, &notes[i].send);
    }
    await(t, c, 1u << 6, &a);
    take_expecting(t, c, &a, 8, tag_of(from, t->rank, 6, MANY));
    for (int i = 0; i < MANY && !c->failures; i++) {
        await(t, c, 1u << 5, &a);
        take_expecting(t, c, &a, 8, tag_of(from, t->rank, 5, i));
    }
    for (int i = MANY; i >= 0; i--)
        finish(t, c, &notes[i].send);
    free(notes);
    meet(t, c);
}

static void all_to_all(struct transport *t, struct check *c)
{
    enum { ROUNDS = 20, SIZE = 65536 };
    int n = t->n_ranks;
    struct send *sends = get_memory((size_t)n * sizeof *sends);
    uint8_t *data = get_memory((size_t)n * SIZE);
    for (int round = 0; round < ROUNDS && !c->failures; round++) {
        int kind = round & 1; /* a fast rank may be one round ahead, not two */
        for (int to = 0; to < n; to++) {
            fill(data + (size_t)to * SIZE, SIZE, tag_of(t->rank, to, kind, round));
            start(t, c, to, kind, data + (size_t)to * SIZE, SIZE, &sends[to]);
        }
        for (int i = 0; i < n; i++) {
            struct arrival a;
            await(t, c, 1u << kind, &a);
            take_expecting(t, c, &a, SIZE, tag_of(a.from, t->rank, kind, round));
        }
        for (int to = 0; to < n; to++)
            finish(t, c, &sends[to]);
    }
    free(data);
    free(sends);
    meet(t, c);
}

/* One struct send and one buffer serve again as soon as the message before is sent. */
static void buffer_reuse(struct transport *t, struct check *c)
{
    enum { TIMES = 500 };
    static const size_t sizes[] = {8, 2880, 8256, 100000};
    int to = (t->rank + 1) % t->n_ranks, from = (t->rank + t->n_ranks - 1) % t->n_ranks;
    uint8_t *data = get_memory(100000);
    struct send s;
    int n_sent = 0, n_received = 0;
    bool busy = false;
    while ((n_sent < TIMES || n_received < TIMES || busy) && !c->failures) {
        struct arrival a;
        if (busy && is_sent(t, c, &s)) {
            memset(data, 0xee, 100000);
            busy = false;
        }
        if (!busy && n_sent < TIMES) {
            fill(data, sizes[n_sent & 3], tag_of(t->rank, to, 9, n_sent));
            start(t, c, to, 9, data, sizes[n_sent & 3], &s);
            n_sent++;
            busy = true;
        }
        if (n_received < TIMES && look(t, c, 1u << 9, &a)) {
            take_expecting(t, c, &a, sizes[n_received & 3], tag_of(from, t->rank, 9, n_received));
            n_received++;
        } else {
            sched_yield();
        }
    }
    free(data);
    meet(t, c);
}

enum { TRAFFIC = 800, SLOTS = 16, COUNT_KIND = 29 };

struct traffic {
    struct transport *t;
    struct check *c;
    int *n_sent, *n_received; /* [n_ranks, TRANSPORT_KINDS] */
    struct {
        struct send send;
        uint8_t *data;
    } slots[SLOTS];
};

static size_t size_of(uint32_t tag)
{
    return (mix(tag) & 0xffff) >> (mix(tag + 1) & 15);
}

static void send_one(struct traffic *f, uint32_t *seed)
{
    int slot = 0;
    while (slot < SLOTS && f->slots[slot].data)
        slot++;
    if (slot == SLOTS)
        return;
    int to = (int)(draw(seed) % (uint32_t)f->t->n_ranks), kind = (int)(draw(seed) % COUNT_KIND);
    uint32_t tag = tag_of(f->t->rank, to, kind, f->n_sent[to * TRANSPORT_KINDS + kind]++);
    f->slots[slot].data = get_memory(size_of(tag));
    fill(f->slots[slot].data, size_of(tag), tag);
    start(f->t, f->c, to, kind, f->slots[slot].data, size_of(tag), &f->slots[slot].send);
}

static int receive_some(struct traffic *f, uint32_t kinds)
{
    struct arrival a;
    int n = 0;
    for (; !f->c->failures && look(f->t, f->c, kinds, &a); n++) {
        uint32_t tag = tag_of(a.from, f->t->rank, a.kind, f->n_received[a.from * TRANSPORT_KINDS + a.kind]++);
        take_expecting(f->t, f->c, &a, size_of(tag), tag);
    }
    return n;
}

static bool reap(struct traffic *f)
{
    bool any = false;
    for (int i = 0; i < SLOTS; i++) {
        if (f->slots[i].data && is_sent(f->t, f->c, &f->slots[i].send)) {
            free(f->slots[i].data);
            f->slots[i].data = NULL;
        }
        any |= f->slots[i].data != NULL;
    }
    return any;
}

/* Sends, receipts by random masks and tests for completion in random turn; then everyone tells everyone how many
 * messages it sent them, and all of them have come. */
static void random_traffic(struct transport *t, struct check *c)
{
    size_t cells = (size_t)t->n_ranks * TRANSPORT_KINDS;
    struct traffic f = {.t = t, .c = c, .n_sent = calloc(cells, sizeof(int)), .n_received = calloc(cells, sizeof(int))};
    struct send *sends = get_memory((size_t)t->n_ranks * sizeof *sends);
    int *told = get_memory((size_t)t->n_ranks * sizeof *told), expected = 0, received = 0;
    uint32_t seed = (uint32_t)t->rank + 1, user_kinds = (1u << COUNT_KIND) - 1;
    for (int i = 0; i < TRAFFIC && !c->failures; i++) {
        send_one(&f, &seed);
        if (draw(&seed) % 3 == 0)
            received += receive_some(&f, draw(&seed) & user_kinds);
        if (draw(&seed) % 4 == 0)
            reap(&f);
    }
    for (int to = 0; to < t->n_ranks; to++) {
        told[to] = 0;
        for (int k = 0; k < TRANSPORT_KINDS; k++)
            told[to] += f.n_sent[to * TRANSPORT_KINDS + k];
        start(t, c, to, COUNT_KIND, &told[to], sizeof told[to], &sends[to]);
    }
    for (int n = 0; n < t->n_ranks && !c->failures;) {
        struct arrival a;
        int count = 0;
        received += receive_some(&f, user_kinds);
        reap(&f);
        if (!look(t, c, 1u << COUNT_KIND, &a))
            continue;
        CHECK(c, a.size == sizeof count && transport_receive(t, &a, &count) == ST_OK);
        expected += count;
        n++;
    }
    while ((received < expected || reap(&f)) && !c->failures)
        received += receive_some(&f, user_kinds);
    CHECK(c, received == expected);
    for (int to = 0; to < t->n_ranks; to++)
        finish(t, c, &sends[to]);
    free(told);
    free(sends);
    free(f.n_received);
    free(f.n_sent);
    meet(t, c);
}

const struct transport_case transport_cases[] = {
    {"order_per_kind", order_per_kind},
    {"poll_by_mask", poll_by_mask},
    {"self_send", self_send},
    {"sizes_around_the_ring", sizes_around_the_ring},
    {"many_outstanding", many_outstanding},
    {"all_to_all", all_to_all},
    {"buffer_reuse", buffer_reuse},
    {"random_traffic", random_traffic},
};
const int n_transport_cases = sizeof transport_cases / sizeof *transport_cases;
