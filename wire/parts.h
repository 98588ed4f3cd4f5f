/* What the encoders and decoders share. Private to wire/. */
#ifndef HEARTH_WIRE_PARTS_H
#define HEARTH_WIRE_PARTS_H

#include <stdatomic.h>
#include "base/bytes.h"
#include "wire/wire.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "floats lie in messages as they lie in memory");

/* `n` rounded up to where the next part may start. */
static inline size_t wire_align(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

/* Bytes of f32 [n_tokens, d_model]. */
static inline size_t wire_dense_bytes(uint32_t n_tokens, const struct wire_limits *lim)
{
    return (size_t)n_tokens * lim->d_model * sizeof(float);
}

/* Copies n bytes of a message to where its sender cannot write any more: what is checked afterwards is the copy. */
static inline void wire_own(void *out, const void *in, size_t n)
{
    if (n)
        memcpy(out, in, n);
    atomic_signal_fence(memory_order_seq_cst); /* the compiler may not read the message instead */
}

/* Fills the header up to WIRE_HEADER with zeros. */
static inline void wire_pad_header(struct writer *w, const uint8_t *start)
{
    size_t n = (size_t)(start + WIRE_HEADER - w->at);
    uint8_t *gap = write_bytes(w, n);
    if (gap)
        memset(gap, 0, n);
}

/* The same for a reader whose message began at `start`. */
static inline void wire_skip_header(struct reader *r, const uint8_t *start)
{
    read_bytes(r, r->failed ? 0 : (uint64_t)(start + WIRE_HEADER - r->at));
}

static inline void write_counts(struct writer *w, const struct wire_counts *c)
{
    write_u64(w, c->bytes);
    write_u64(w, c->neurons);
    write_u64(w, c->flagged);
    write_u64(w, c->live);
}

static inline struct wire_counts read_counts(struct reader *r)
{
    struct wire_counts c;
    c.bytes = read_u64(r);
    c.neurons = read_u64(r);
    c.flagged = read_u64(r);
    c.live = read_u64(r);
    return c;
}

/* Copies text of at most n bytes, up to its NUL, into out [n + 1]; control characters become '?'. */
void wire_printable(char *out, const uint8_t *text, size_t n);

/* The status of a message that does not obey its format, logged: "STEP message: n_tokens is 0, expected 1 to 256". */
status wire_refuse(int kind, const char *field, int64_t found, int64_t low, int64_t high);

/* Checks one field, or the message's exact size. */
static inline status wire_in_range(int kind, const char *field, int64_t found, int64_t low, int64_t high)
{
    return found >= low && found <= high ? ST_OK : wire_refuse(kind, field, found, low, high);
}
static inline status wire_size_is(int kind, size_t found, size_t expected)
{
    return found == expected ? ST_OK : wire_refuse(kind, "size", (int64_t)found, (int64_t)expected, (int64_t)expected);
}

#endif
