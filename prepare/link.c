#include "prepare/link.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/log.h"
#include "placement/plan.h"
#include "transport/deliver.h"
#include "wire/blob.h"
#include "wire/channels.h"

/* A blob whose pieces are coming in. */
struct incoming {
    uint8_t *bytes; /* NULL: none */
    uint64_t have, total;
    uint32_t what, index;
};

struct link {
    struct transport *transport;
    uint8_t *message;      /* [MESSAGE_MAX] of the piece that is sent */
    struct arrival waiting; /* if `found` */
    bool found;
    struct incoming from[PLAN_MAX_RANKS];
};

enum { MESSAGE_MAX = WIRE_BLOB_HEADER + WIRE_BLOB_PIECE };
_Static_assert((int)MESSAGE_MAX == (int)TRANSPORT_SLOT, "a piece of a blob fills a slot");

status link_open(void (*end_job)(void), struct link **out)
{
    struct transport_config config = {.end_job = end_job};
    struct transport *t;
    wire_channels(config.channel, TRANSPORT_KINDS);
    status st = transport_mpi_open(&config, &t);
    if (st)
        return st;
    struct link *l = calloc(1, sizeof *l);
    if (l)
        l->message = aligned_alloc(TRANSPORT_ALIGN, MESSAGE_MAX);
    if (!l || !l->message) {
        log_error("no memory for messages between ranks");
        transport_abandon(t, "it cannot meet the others"); /* who are waiting for it */
        transport_close(t);
        free(l);
        return ST_NOMEM;
    }
    l->transport = t;
    if (t->n_ranks > PLAN_MAX_RANKS) {
        if (t->rank == 0)
            log_error("mpirun started %d ranks: at most %d", t->n_ranks, PLAN_MAX_RANKS);
        st = ST_USAGE;
    }
    if (!st)
        st = transport_connect(l->transport);
    if (st) {
        link_close(l);
        return st;
    }
    *out = l;
    return ST_OK;
}

void link_close(struct link *l)
{
    if (!l)
        return;
    transport_close(l->transport);
    for (int r = 0; r < PLAN_MAX_RANKS; r++)
        free(l->from[r].bytes);
    free(l->message);
    free(l);
}

void link_abandon(struct link *l, const char *why) { transport_abandon(l->transport, why); }

int link_rank(const struct link *l) { return l->transport->rank; }
int link_ranks(const struct link *l) { return l->transport->n_ranks; }

static void rest(void) { nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL); }

status link_send(struct link *l, int to, enum link_what what, uint32_t index, const void *bytes, size_t n)
{
    struct wire_blob b = {.what = what, .index = index, .total = n};
    status st = ST_OK;
    do {
        b.n = n - b.offset < WIRE_BLOB_PIECE ? (uint32_t)(n - b.offset) : WIRE_BLOB_PIECE;
        b.bytes = (const uint8_t *)bytes + b.offset;
        size_t size = wire_blob_encode(&b, l->message, MESSAGE_MAX);
        st = deliver(l->transport, to, WIRE_BLOB, l->message, size);
        b.offset += b.n;
    } while (!st && b.offset < n);
    return st;
}

status link_send_all(struct link *l, enum link_what what, const void *bytes, size_t n)
{
    status st = ST_OK;
    for (int r = 0; l && r < link_ranks(l) && !st; r++)
        if (r != link_rank(l))
            st = link_send(l, r, what, 0, bytes, n);
    return st;
}

bool link_waiting(struct link *l)
{
    if (!l->found && transport_poll(l->transport, 1u << WIRE_BLOB, &l->waiting, &l->found) != ST_OK)
        return true; /* link_receive says why */
    return l->found;
}

/* Adds a piece; *whole: it was the last. */
static status take_piece(struct incoming *in, const struct wire_blob *b, bool *whole)
{
    const uint64_t most = 1ull << 36;
    if (!in->bytes) {
        if (b->what >= LINK_WHATS || b->offset != 0 || b->total > most) {
            log_error("a message between ranks that nobody expects: %u, %llu bytes", b->what,
                      (unsigned long long)b->total);
            return ST_FORMAT;
        }
        *in = (struct incoming){.what = b->what, .index = b->index, .total = b->total,
                                .bytes = malloc(b->total + 1)};
        if (!in->bytes) {
            log_error("no memory for %llu bytes from another rank", (unsigned long long)b->total);
            return ST_NOMEM;
        }
    }
    if (b->what != in->what || b->index != in->index || b->total != in->total || b->offset != in->have) {
        log_error("a message between ranks whose pieces do not fit");
        return ST_FORMAT;
    }
    memcpy(in->bytes + in->have, b->bytes, b->n);
    in->have += b->n;
    *whole = in->have == in->total;
    return ST_OK;
}

status link_receive(struct link *l, struct blob *out)
{
    for (;;) {
        struct wire_blob b;
        bool whole = false;
        status st = ST_OK;
        while (!st && !l->found) {
            st = transport_poll(l->transport, 1u << WIRE_BLOB, &l->waiting, &l->found);
            if (!st && !l->found)
                rest();
        }
        l->found = false;
        if (!st)
            st = wire_blob_decode(l->waiting.data, l->waiting.size, &b);
        struct incoming *in = &l->from[l->waiting.from];
        if (!st)
            st = take_piece(in, &b, &whole);
        if (!st)
            st = transport_release(l->transport, &l->waiting);
        if (st)
            return st;
        if (!whole)
            continue;
        *out = (struct blob){.from = l->waiting.from, .what = (enum link_what)in->what, .index = in->index,
                             .bytes = in->bytes, .n = in->total};
        out->bytes[out->n] = '\0';
        *in = (struct incoming){0};
        if (out->what != ANSWER_FAILED)
            return ST_OK;
        log_error("rank %d: %s", out->from, (const char *)out->bytes);
        free(out->bytes);
        return ST_PEER;
    }
}

status link_receive_only(struct link *l, enum link_what what, size_t n, struct blob *b)
{
    status st = link_receive(l, b);
    if (st || (b->what == what && (n == SIZE_MAX || b->n == n)))
        return st;
    log_error("rank %d: message %d of %zu bytes between ranks, expected %d", b->from, (int)b->what, b->n, (int)what);
    free(b->bytes);
    return ST_FORMAT;
}
