/* CHUNKS. */
#include "wire/parts.h"

enum { CHUNKS_HEADER = 8, ENTRY = 12 };

size_t wire_chunks_encode(const struct wire_chunk *entries, uint32_t n, uint8_t *out, size_t cap)
{
    struct writer w = {out, out + cap, false};
    write_u32(&w, n);
    write_u32(&w, 0);
    for (uint32_t i = 0; i < n; i++) {
        write_u32(&w, entries[i].chunk);
        write_u64(&w, entries[i].hash);
    }
    return w.failed ? 0 : CHUNKS_HEADER + ENTRY * (size_t)n;
}

status wire_chunks_decode(const uint8_t *in, size_t n, uint32_t n_chunks, struct wire_chunk entries[WIRE_CHUNKS_MOST],
                          uint32_t *n_entries)
{
    struct reader r = {in, in + n, false};
    const uint32_t count = read_u32(&r);
    read_u32(&r);
    status st = wire_in_range(WIRE_CHUNKS, "n", r.failed ? 0 : count, 1, WIRE_CHUNKS_MOST);
    if (st != ST_OK || (st = wire_size_is(WIRE_CHUNKS, n, CHUNKS_HEADER + ENTRY * (size_t)count)) != ST_OK)
        return st;
    int64_t last = -1;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t chunk = read_u32(&r);
        if ((st = wire_in_range(WIRE_CHUNKS, "a chunk", chunk, last + 1, (int64_t)n_chunks - 1)) != ST_OK)
            return st;
        entries[i] = (struct wire_chunk){chunk, read_u64(&r)};
        last = chunk;
    }
    *n_entries = count;
    return ST_OK;
}
