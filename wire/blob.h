/* Bytes too many for one message, sent in pieces between the ranks of a command that works outside of any session
 * (hearth prepare). A transport carries either blobs or the messages of wire.h, so their kinds may not be confused. */
#ifndef HEARTH_WIRE_BLOB_H
#define HEARTH_WIRE_BLOB_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

enum { WIRE_BLOB = 31, WIRE_BLOB_HEADER = 64, WIRE_BLOB_PIECE = 65536 - WIRE_BLOB_HEADER };

/* A piece. */
struct wire_blob {
    uint32_t what, index;  /* the sender's: what the blob is, and which of several */
    uint64_t offset;       /* of this piece in the blob */
    uint64_t total;        /* bytes of the blob, the same in all its pieces */
    uint32_t n;            /* bytes of this piece, at most WIRE_BLOB_PIECE; 0 only of an empty blob */
    const uint8_t *bytes;  /* [n]; after decoding, into the message */
};

/* WIRE_BLOB_HEADER bytes, then the piece. 0 if `cap` is too small. */
size_t wire_blob_encode(const struct wire_blob *b, uint8_t *out, size_t cap);
/* ST_FORMAT (logged) unless the piece lies within the blob; leaves *b alone then. */
status wire_blob_decode(const uint8_t *in, size_t n, struct wire_blob *b);

#endif
