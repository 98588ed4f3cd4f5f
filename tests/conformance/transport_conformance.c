#include "tests/conformance/transport_conformance.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"

enum {
    USER_KINDS = 0x7fffffff,
    LENT = 4 * TRANSPORT_SLOT,            /* bytes in channels 0 .. 2 */
    LENT_MOST = 40 * TRANSPORT_SLOT + 17, /* in channel 3; none in channel 4 */
};

struct transport_config conformance_config(void)
{
    struct transport_config config = {.end_job = NULL};
    for (int kind = 0; kind < TRANSPORT_KINDS; kind++)
        config.channel[kind] = kind >= 30 ? 4 : (uint8_t)(kind % 4);
    return config;
}

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

/* Messages begin where a transport wants them to. */
static void *get_memory(size_t n)
{
    void *p = aligned_alloc(TRANSPORT_ALIGN, (n / TRANSPORT_ALIGN + 1) * TRANSPORT_ALIGN);
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
    CHECK(c, transport_post(t, to, kind, data, n, s) == ST_OK);
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
    *a = (struct arrival){0}; /* after a failure there is none */
    while (!look(t, c, kinds, a) && !c->failures)
        sched_yield();
}

static void release(struct transport *t, struct check *c, struct arrival *a)
{
    CHECK(c, c->failures || transport_release(t, a) == ST_OK);
}

static void check_message(struct check *c, const struct arrival *a, size_t n, uint32_t tag)
{
    CHECK(c, a->size == n);
    CHECK(c, a->size == 0 || (uintptr_t)a->data % TRANSPORT_ALIGN == 0);
    CHECK(c, holds(a->data, a->size, tag));
}

static void take_expecting(struct transport *t, struct check *c, struct arrival *a, size_t n, uint32_t tag)
{
    check_message(c, a, n, tag);
    release(t, c, a);
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
    _Alignas(TRANSPORT_ALIGN) uint8_t data[8];
    struct send send;
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

/* A poll finds only the kinds that it asks for; channels come in whatever order, a channel in the order of posting. */
static void poll_by_mask(struct transport *t, struct check *c)
{
    static const int sent[] = {1, 2, 1, 2, 7}, wanted[] = {7, 2, 2, 1, 1}, number[] = {0, 0, 1, 0, 1};
    int to = (t->rank + 1) % t->n_ranks, from = (t->rank + t->n_ranks - 1) % t->n_ranks;
    struct note notes[5];
    struct arrival a;
    for (int i = 0; i < 5; i++) {
        fill(notes[i].data, 8, tag_of(t->rank, to, sent[i], i == 2 || i == 3));
        start(t, c, to, sent[i], notes[i].data, 8, &notes[i].send);
    }
    for (int i = 0; i < 5; i++) {
        for (int tries = 0; tries < 50; tries++)
            CHECK(c, !look(t, c, 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6, &a) && !look(t, c, 0, &a));
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
    static const size_t sizes[] = {0, 1, 63, 4096, TRANSPORT_SLOT - 1, TRANSPORT_SLOT, TRANSPORT_SLOT + 1,
                                   2 * TRANSPORT_SLOT, LENT_MOST, LENT_MOST, 1};
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

/* What is held stays as it is while others come, and may be released in any order. */
static void held_arrivals(struct transport *t, struct check *c)
{
    enum { ROUNDS = 30, SIZE = 3000 };
    static const uint8_t orders[][TRANSPORT_SLOTS] = {{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}};
    int to = (t->rank + 1) % t->n_ranks, from = (t->rank + t->n_ranks - 1) % t->n_ranks;
    struct send sends[TRANSPORT_SLOTS];
    uint8_t *data = get_memory(TRANSPORT_SLOTS * 4096);
    for (int round = 0; round < ROUNDS && !c->failures; round++) {
        struct arrival held[TRANSPORT_SLOTS];
        for (int i = 0; i < TRANSPORT_SLOTS; i++) {
            fill(data + i * 4096, SIZE, tag_of(t->rank, to, 2, round * TRANSPORT_SLOTS + i));
            start(t, c, to, 2, data + i * 4096, SIZE, &sends[i]);
        }
        for (int i = 0; i < TRANSPORT_SLOTS; i++)
            await(t, c, 1u << 2, &held[i]);
        for (int k = 0; k < TRANSPORT_SLOTS; k++) {
            int i = orders[round % 3][k];
            take_expecting(t, c, &held[i], SIZE, tag_of(from, t->rank, 2, round * TRANSPORT_SLOTS + i));
        }
        for (int i = 0; i < TRANSPORT_SLOTS; i++)
            finish(t, c, &sends[i]);
    }
    free(data);
    meet(t, c);
}

/* A message that nobody wants yet holds up what is behind it in its channel, and nothing in any other, though many wait
 * and slots are few. */
static void channels_apart(struct transport *t, struct check *c)
{
    enum { UNWANTED = 40, EXCHANGES = 50 };
    int to = (t->rank + 1) % t->n_ranks, from = (t->rank + t->n_ranks - 1) % t->n_ranks;
    struct note *notes = get_memory((UNWANTED + 1) * sizeof *notes), note;
    struct arrival a;
    for (int i = 0; i <= UNWANTED; i++) {
        int kind = i < UNWANTED ? 8 : 12; /* both in channel 0 */
        fill(notes[i].data, 8, tag_of(t->rank, to, kind, i));
        start(t, c, to, kind, notes[i].data, 8, &notes[i].send);
    }
    for (int i = 0; i < EXCHANGES && !c->failures; i++) {
        int kind = 1 + i % 3;
        fill(note.data, 8, tag_of(t->rank, to, kind, i));
        start(t, c, to, kind, note.data, 8, &note.send);
        await(t, c, 1u << kind | 1u << 12, &a);
        CHECK(c, a.kind == kind);
        take_expecting(t, c, &a, 8, tag_of(from, t->rank, kind, i));
        finish(t, c, &note.send);
    }
    for (int i = 0; i <= UNWANTED && !c->failures; i++) {
        int kind = i < UNWANTED ? 8 : 12;
        await(t, c, 1u << 8 | 1u << 12, &a);
        CHECK(c, a.kind == kind);
        take_expecting(t, c, &a, 8, tag_of(from, t->rank, kind, i));
    }
    for (int i = 0; i <= UNWANTED; i++)
        finish(t, c, &notes[i].send);
    free(notes);
    meet(t, c);
}

/* Long messages between short ones of the same channel: all in order, the next long one when the last is released. */
static void long_and_short(struct transport *t, struct check *c)
{
    enum { N = 12 };
    static const size_t sizes[N] = {LENT, 5, LENT - 1, TRANSPORT_SLOT + 1, TRANSPORT_SLOT, 0, LENT, LENT, 1, 2, 3,
                                    2 * TRANSPORT_SLOT};
    int to = (t->rank + 1) % t->n_ranks, from = (t->rank + t->n_ranks - 1) % t->n_ranks;
    struct send sends[N];
    struct arrival a, held;
    uint8_t *data = get_memory(N * (size_t)LENT);
    for (int i = 0; i < N; i++) {
        fill(data + i * (size_t)LENT, sizes[i], tag_of(t->rank, to, 1 + 4 * (i & 1), i));
        start(t, c, to, 1 + 4 * (i & 1), data + i * (size_t)LENT, sizes[i], &sends[i]);
    }
    await(t, c, 1u << 1 | 1u << 5, &held);
    for (int i = 1; i < N && !c->failures; i++) {
        if (i == 2) { /* the second long one waits for the memory of the first */
            for (int tries = 0; tries < 200; tries++)
                CHECK(c, !look(t, c, 1u << 1 | 1u << 5, &a));
            take_expecting(t, c, &held, sizes[0], tag_of(from, t->rank, 1, 0));
        }
        await(t, c, 1u << 1 | 1u << 5, &a);
        CHECK(c, a.kind == 1 + 4 * (i & 1));
        take_expecting(t, c, &a, sizes[i], tag_of(from, t->rank, a.kind, i));
    }
    for (int i = 0; i < N; i++)
        finish(t, c, &sends[i]);
    free(data);
    meet(t, c);
}

/* A long message that came while a short one lay before it. */
static void long_behind_short(struct transport *t, struct check *c)
{
    enum { SHORT, LONG, OTHER, N };
    static const int kinds[N] = {2, 2, 1};
    static const size_t sizes[N] = {7, 2 * TRANSPORT_SLOT, 1};
    int to = (t->rank + 1) % t->n_ranks, from = (t->rank + t->n_ranks - 1) % t->n_ranks;
    uint8_t *data = get_memory(N * (size_t)LENT);
    struct send sends[N];
    struct arrival a;
    for (int i = 0; i < N; i++) {
        fill(data + i * (size_t)LENT, sizes[i], tag_of(t->rank, to, kinds[i], i));
        start(t, c, to, kinds[i], data + i * (size_t)LENT, sizes[i], &sends[i]);
    }
    await(t, c, 1u << kinds[OTHER], &a);
    take_expecting(t, c, &a, sizes[OTHER], tag_of(from, t->rank, kinds[OTHER], OTHER));
    for (int tries = 0; tries < 200; tries++)
        CHECK(c, !look(t, c, 1u << kinds[OTHER], &a));
    for (int i = SHORT; i <= LONG; i++) {
        await(t, c, 1u << kinds[i], &a);
        take_expecting(t, c, &a, sizes[i], tag_of(from, t->rank, kinds[i], i));
    }
    for (int i = 0; i < N; i++)
        finish(t, c, &sends[i]);
    free(data);
    meet(t, c);
}

/* Who computes wants nothing, and polls for nothing: long messages reach it, and leave it, all the same. */
static void moves_while_nothing_is_wanted(struct transport *t, struct check *c)
{
    const int to = (t->rank + 1) % t->n_ranks, from = (t->rank + t->n_ranks - 1) % t->n_ranks;
    const size_t n = LENT_MOST;
    uint8_t *data = get_memory(n);
    struct send first, sent;
    struct arrival a;
    bool goes = false; /* else it is read where it lies, and sent when it is released */
    start(t, c, to, 3, data, 0, &first);
    await(t, c, 1u << 3, &a);
    for (int tries = 0; tries < 200 && !goes; tries++)
        goes = is_sent(t, c, &first);
    meet(t, c);
    take_expecting(t, c, &a, 0, 0);
    finish(t, c, &first);
    fill(data, n, tag_of(t->rank, to, 3, 0));
    start(t, c, to, 3, data, n, &sent);
    while (goes && !atomic_load(&sent.done) && !c->failures) {
        CHECK(c, !look(t, c, 0, &a));
        sched_yield();
    }
    meet(t, c); /* no one has looked for a message of this kind */
    await(t, c, 1u << 3, &a);
    CHECK(c, a.from == from);
    take_expecting(t, c, &a, n, tag_of(from, t->rank, 3, 0));
    finish(t, c, &sent);
    free(data);
    meet(t, c);
}

/* Polls until a message is refused, with a line that names its sender. */
static void await_refusal(struct transport *t, struct check *c, uint32_t kinds, int from)
{
    struct log_catcher caught = {0};
    struct arrival a;
    char name[24];
    bool found = false;
    status st = ST_OK;
    snprintf(name, sizeof name, "rank %d:", from);
    log_catch(&caught);
    while (!st && !found)
        st = transport_poll(t, kinds, &a, &found);
    log_catch(NULL);
    CHECK(c, st == ST_FORMAT && !found);
    CHECK(c, strstr(caught.first_error, name) != NULL);
}

/* A message longer than what was lent, or for which nothing was lent, is refused; what comes before and behind it is
 * not. */
static void too_long(struct transport *t, struct check *c)
{
    enum { KIND = 2 };
    static const size_t sizes[] = {9, LENT + 1, 10, 3 * LENT, LENT};
    static const int last = sizeof sizes / sizeof *sizes;
    int to = (t->rank + 1) % t->n_ranks, from = (t->rank + t->n_ranks - 1) % t->n_ranks;
    struct send sends[sizeof sizes / sizeof *sizes], unlent;
    uint8_t *data = get_memory(3 * (size_t)LENT);
    fill(data, 3 * (size_t)LENT, 77);
    for (int i = 0; i < last; i++)
        start(t, c, to, KIND, data, sizes[i], &sends[i]);
    for (int i = 0; i < last && !c->failures; i++) {
        struct arrival a;
        if (sizes[i] > LENT) {
            await_refusal(t, c, 1u << KIND, from);
        } else {
            await(t, c, 1u << KIND, &a);
            take_expecting(t, c, &a, sizes[i], 77);
        }
    }
    for (int i = 0; i < last; i++)
        finish(t, c, &sends[i]);
    meet(t, c);
    start(t, c, to, 30, data, TRANSPORT_SLOT + 1, &unlent); /* nothing was lent in its channel */
    await_refusal(t, c, 1u << 30, from);
    finish(t, c, &unlent);
    meet(t, c);
    free(data);
}

static void counts(struct transport *t, struct check *c)
{
    const struct transport_counts before = t->counts;
    static const _Alignas(TRANSPORT_ALIGN) uint8_t data[TRANSPORT_SLOT + 5];
    struct send s;
    struct arrival a;
    start(t, c, t->rank, 3, data, sizeof data, &s);
    await(t, c, 1u << 3, &a);
    release(t, c, &a);
    finish(t, c, &s);
    CHECK(c, t->counts.messages == before.messages && t->counts.bytes == before.bytes); /* it went nowhere */
    start(t, c, (t->rank + 1) % t->n_ranks, 4, data, 5, &s);
    await(t, c, 1u << 4, &a);
    release(t, c, &a);
    finish(t, c, &s);
    const uint64_t sent = t->n_ranks > 1;
    CHECK(c, t->counts.messages == before.messages + sent && t->counts.bytes == before.bytes + sent * 5);
    CHECK(c, transport_register(t, (void *)data, sizeof data) == ST_OK);
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

enum { SLOTS = 16, COUNT_KIND = 29 };

struct traffic {
    struct transport *t;
    struct check *c;
    int *n_sent, *n_received; /* [n_ranks, TRANSPORT_KINDS] */
    struct {
        struct send send;
        uint8_t *data;
    } slots[SLOTS];
};

/* Mostly short, some longer than a slot. */
static size_t size_of(uint32_t tag)
{
    if ((tag & 63) == 0)
        return mix(tag) % (LENT + 1);
    return (mix(tag) & 0xffff) >> (mix(tag + 1) & 15);
}

static bool send_one(struct traffic *f, uint32_t *seed)
{
    int slot = 0;
    while (slot < SLOTS && f->slots[slot].data)
        slot++;
    if (slot == SLOTS)
        return false;
    int to = (int)(draw(seed) % (uint32_t)f->t->n_ranks), kind = (int)(draw(seed) % COUNT_KIND);
    uint32_t tag = tag_of(f->t->rank, to, kind, f->n_sent[to * TRANSPORT_KINDS + kind]++);
    f->slots[slot].data = get_memory(size_of(tag));
    fill(f->slots[slot].data, size_of(tag), tag);
    start(f->t, f->c, to, kind, f->slots[slot].data, size_of(tag), &f->slots[slot].send);
    return true;
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

static void delay(uint32_t *seed)
{
    const uint32_t how = draw(seed) % 1000;
    if (how == 0)
        nanosleep(&(struct timespec){.tv_nsec = draw(seed) % 200000}, NULL);
    else if (how < 20)
        sched_yield();
}

void transport_stress(struct transport *t, struct check *c, int n_messages, uint32_t seed)
{
    size_t cells = (size_t)t->n_ranks * TRANSPORT_KINDS;
    struct traffic f = {.t = t, .c = c, .n_sent = calloc(cells, sizeof(int)), .n_received = calloc(cells, sizeof(int))};
    struct note *told = get_memory((size_t)t->n_ranks * sizeof *told);
    int expected = 0, received = 0;
    uint32_t user_kinds = (1u << COUNT_KIND) - 1;
    seed += (uint32_t)t->rank * 1000003;
    for (int i = 0; i < n_messages && !c->failures;) {
        i += send_one(&f, &seed);
        if (draw(&seed) % 3 == 0)
            received += receive_some(&f, draw(&seed) & user_kinds);
        if (draw(&seed) % 4 == 0)
            reap(&f);
        if (draw(&seed) % 64 == 0) /* so that two with full hands do not wait for ever for each other's kinds */
            received += receive_some(&f, user_kinds);
        delay(&seed);
    }
    for (int to = 0; to < t->n_ranks; to++) {
        int n = 0;
        for (int k = 0; k < TRANSPORT_KINDS; k++)
            n += f.n_sent[to * TRANSPORT_KINDS + k];
        memcpy(told[to].data, &n, sizeof n);
        start(t, c, to, COUNT_KIND, told[to].data, sizeof n, &told[to].send);
    }
    for (int n = 0; n < t->n_ranks && !c->failures;) {
        struct arrival a;
        int count = 0;
        received += receive_some(&f, user_kinds);
        reap(&f);
        if (!look(t, c, 1u << COUNT_KIND, &a))
            continue;
        CHECK(c, a.size == sizeof count);
        memcpy(&count, a.data, sizeof count);
        release(t, c, &a);
        expected += count;
        n++;
    }
    while ((received < expected || reap(&f)) && !c->failures)
        received += receive_some(&f, user_kinds);
    CHECK(c, received == expected);
    for (int to = 0; to < t->n_ranks; to++)
        finish(t, c, &told[to].send);
    free(told);
    free(f.n_received);
    free(f.n_sent);
    meet(t, c);
}

static void random_traffic(struct transport *t, struct check *c) { transport_stress(t, c, 800, 1); }

const struct transport_case transport_cases[] = {
    {"order_per_kind", order_per_kind},
    {"poll_by_mask", poll_by_mask},
    {"self_send", self_send},
    {"sizes_around_the_ring", sizes_around_the_ring},
    {"many_outstanding", many_outstanding},
    {"all_to_all", all_to_all},
    {"held_arrivals", held_arrivals},
    {"channels_apart", channels_apart},
    {"long_and_short", long_and_short},
    {"long_behind_short", long_behind_short},
    {"moves_while_nothing_is_wanted", moves_while_nothing_is_wanted},
    {"too_long", too_long},
    {"counts", counts},
    {"buffer_reuse", buffer_reuse},
    {"random_traffic", random_traffic},
};
const int n_transport_cases = sizeof transport_cases / sizeof *transport_cases;

void *conformance_begin(struct transport *t, struct check *c)
{
    const size_t per_rank = 3 * (size_t)LENT + LENT_MOST + TRANSPORT_ALIGN;
    uint8_t *lent = get_memory((size_t)t->n_ranks * per_rank / TRANSPORT_ALIGN * TRANSPORT_ALIGN);
    CHECK(c, transport_connect(t) == ST_OK);
    for (int r = 0; r < t->n_ranks; r++) {
        uint8_t *at = lent + (size_t)r * (per_rank / TRANSPORT_ALIGN * TRANSPORT_ALIGN);
        for (int channel = 0; channel < 4; channel++, at += LENT)
            CHECK(c, transport_lend(t, r, channel, at, channel < 3 ? LENT : LENT_MOST) == ST_OK);
    }
    return lent;
}

void conformance_run(struct transport *t, struct check *c)
{
    void *lent = conformance_begin(t, c);
    for (int i = 0; i < n_transport_cases; i++)
        transport_cases[i].run(t, c);
    transport_close(t);
    free(lent);
}
