/* GPUS and LINK. */
#include "wire/parts.h"

enum { HEAD_BYTES = 4, GPU_BYTES = 16 + 4 + 4 * 8 };
_Static_assert((int)WIRE_GPUS_MAX == (int)HEAD_BYTES + (int)WIRE_GPUS_MOST * (int)GPU_BYTES, "GPUS has its size");

size_t wire_gpus_encode(const struct wire_gpus *g, uint8_t *out, size_t cap)
{
    struct writer w = {out, out + cap, false};
    write_u32(&w, g->n);
    for (uint32_t i = 0; i < g->n; i++) {
        uint8_t *id = write_bytes(&w, sizeof g->at[i].id);
        if (id)
            memcpy(id, g->at[i].id, sizeof g->at[i].id);
        write_u32(&w, g->at[i].layers);
        write_u64(&w, g->at[i].bytes);
        write_u64(&w, g->at[i].marks);
        write_u64(&w, g->at[i].need_bytes);
        write_u64(&w, g->at[i].free_bytes);
    }
    return w.failed ? 0 : HEAD_BYTES + g->n * GPU_BYTES;
}

status wire_gpus_decode(const uint8_t *in, size_t n, struct wire_gpus *out)
{
    struct reader r = {in, in + n, false};
    struct wire_gpus g = {.n = read_u32(&r)};
    status st = n < HEAD_BYTES ? wire_size_is(WIRE_GPUS, n, HEAD_BYTES)
                               : wire_in_range(WIRE_GPUS, "n", g.n, 0, WIRE_GPUS_MOST);
    st = st ? st : wire_size_is(WIRE_GPUS, n, HEAD_BYTES + g.n * GPU_BYTES);
    if (st)
        return st;
    for (uint32_t i = 0; i < g.n; i++) {
        wire_own(g.at[i].id, read_bytes(&r, sizeof g.at[i].id), sizeof g.at[i].id);
        g.at[i].layers = read_u32(&r);
        g.at[i].bytes = read_u64(&r);
        g.at[i].marks = read_u64(&r);
        g.at[i].need_bytes = read_u64(&r);
        g.at[i].free_bytes = read_u64(&r);
    }
    *out = g;
    return ST_OK;
}

size_t wire_link_encode(const struct wire_link *l, uint8_t *out, size_t cap)
{
    const size_t n = strnlen(l->why_not, sizeof l->why_not - 1);
    if (cap < sizeof l->id + n)
        return 0;
    memcpy(out, l->id, sizeof l->id);
    memcpy(out + sizeof l->id, l->why_not, n);
    return sizeof l->id + n;
}

status wire_link_decode(const uint8_t *in, size_t n, struct wire_link *out)
{
    status st = wire_in_range(WIRE_LINK, "size", (int64_t)n, sizeof out->id, WIRE_LINK_MAX);
    if (st)
        return st;
    wire_own(out->id, in, sizeof out->id);
    wire_printable(out->why_not, in + sizeof out->id, n - sizeof out->id);
    return ST_OK;
}
