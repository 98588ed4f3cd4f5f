#include "wire/blob.h"

#include <inttypes.h>
#include "base/bytes.h"
#include "base/log.h"

enum { USED = 4 + 4 + 8 + 8 }; /* of the header; the rest is zero */

size_t wire_blob_encode(const struct wire_blob *b, uint8_t *out, size_t cap)
{
    struct writer w = {out, out + cap, false};
    write_u32(&w, b->what);
    write_u32(&w, b->index);
    write_u64(&w, b->offset);
    write_u64(&w, b->total);
    uint8_t *gap = write_bytes(&w, WIRE_BLOB_HEADER - USED), *piece = write_bytes(&w, b->n);
    if (w.failed)
        return 0;
    memset(gap, 0, WIRE_BLOB_HEADER - USED);
    if (b->n)
        memcpy(piece, b->bytes, b->n);
    return WIRE_BLOB_HEADER + (size_t)b->n;
}

status wire_blob_decode(const uint8_t *in, size_t n, struct wire_blob *out)
{
    struct reader r = {in, in + n, false};
    struct wire_blob b = {0};
    b.what = read_u32(&r);
    b.index = read_u32(&r);
    b.offset = read_u64(&r);
    b.total = read_u64(&r);
    read_bytes(&r, WIRE_BLOB_HEADER - USED);
    size_t left = r.failed ? 0 : (size_t)(r.end - r.at);
    if (r.failed || left > WIRE_BLOB_PIECE || (left == 0) != (b.total == 0) || b.offset > b.total ||
        left > b.total - b.offset) {
        log_error("BLOB message of %zu bytes: piece at %" PRIu64 " of %" PRIu64 " bytes, which it does not fit", n,
                  b.offset, b.total);
        return ST_FORMAT;
    }
    b.n = (uint32_t)left;
    b.bytes = r.at;
    *out = b;
    return ST_OK;
}
