/* Messages longer than a slot: how they are cut, and put together again in memory that the receiver lent. For
 * transports that have slots; the pieces of a message follow each other in their channel. Not thread-safe: an
 * endpoint's own. */
#ifndef HEARTH_TRANSPORT_PIECES_H
#define HEARTH_TRANSPORT_PIECES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "transport/transport.h"

/* Bytes of the next piece of a send; more is coming after it if that does not bring s->at to s->size. */
static inline size_t piece_bytes(const struct send *s)
{
    return s->size - s->at < TRANSPORT_SLOT ? s->size - s->at : TRANSPORT_SLOT;
}
static inline bool piece_is_last(const struct send *s) { return s->size - s->at <= TRANSPORT_SLOT; }

/* The message of one rank and channel that is being put together. */
struct assembly {
    uint8_t *memory;       /* lent, NULL: none; */
    size_t capacity;       /* its bytes */
    size_t size;           /* of the message so far */
    int kind;
    enum {
        ASSEMBLY_EMPTY,    /* the next message longer than a slot may begin */
        ASSEMBLY_FILLING,  /* its next piece comes next */
        ASSEMBLY_SKIPPING, /* the same of a message that was refused */
        ASSEMBLY_WHOLE,    /* not yet found by a poll */
        ASSEMBLY_TAKEN     /* held by the caller; the owner sets ASSEMBLY_EMPTY when it is released */
    } state;
    size_t refused;        /* bytes of a message that was too long, until the owner has said so; 0: none */
    int refused_kind;
};

/* Whether what comes next is the next piece of a message, whatever it looks like. */
static inline bool assembly_expects(const struct assembly *a)
{
    return a->state == ASSEMBLY_FILLING || a->state == ASSEMBLY_SKIPPING;
}
/* Adds n bytes, `last` or not, while EMPTY, FILLING or SKIPPING. A message that is longer than what was lent is thrown
 * away from there on; true if this piece shows it (a->refused). */
bool assembly_add(struct assembly *a, int kind, const void *piece, size_t n, bool last);
/* ST_FORMAT, logged, if a message of one of `kinds` was refused since the last time. */
status assembly_refusal(struct assembly *a, int from, uint32_t kinds);

/* The refusal of a message, logged: `bytes` or more, and the receiver lent `capacity`. */
status refuse_long(int from, int kind, size_t bytes, size_t capacity);

#endif
