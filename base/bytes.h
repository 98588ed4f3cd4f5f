/* Little-endian reading of bytes from outside, with bounds; and writing into a bounded buffer.
 *
 * A reader never reads past `end`: a read that would sets `failed`, returns 0 and leaves every later read failing too,
 * so a parser may read several fields and check once. Each number is loaded once: what is checked is what is used, even
 * if others write to the bytes meanwhile. */
#ifndef HEARTH_BASE_BYTES_H
#define HEARTH_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct reader {
    const uint8_t *at, *end;
    bool failed;
};

/* The next `n` bytes in place (not copied), or NULL with `failed` set. */
static inline const uint8_t *read_bytes(struct reader *r, uint64_t n)
{
    if (r->failed || n > (uint64_t)(r->end - r->at)) {
        r->failed = true;
        return NULL;
    }
    const uint8_t *p = r->at;
    r->at += n;
    return p;
}

static inline uint64_t read_uint(struct reader *r, int n_bytes)
{
    const uint8_t *p = read_bytes(r, (uint64_t)n_bytes);
    uint64_t v = 0;
    for (int i = 0; p && i < n_bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    __asm__("" : "+r"(v)); /* for the compiler a number of its own, not one that can be loaded again */
    return v;
}

static inline uint8_t read_u8(struct reader *r) { return (uint8_t)read_uint(r, 1); }
static inline uint16_t read_u16(struct reader *r) { return (uint16_t)read_uint(r, 2); }
static inline uint32_t read_u32(struct reader *r) { return (uint32_t)read_uint(r, 4); }
static inline uint64_t read_u64(struct reader *r) { return read_uint(r, 8); }

static inline float read_f32(struct reader *r)
{
    uint32_t u = read_u32(r);
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

struct writer {
    uint8_t *at, *end;
    bool failed; /* a write that did not fit; nothing after it was written */
};

static inline uint8_t *write_bytes(struct writer *w, uint64_t n)
{
    if (w->failed || n > (uint64_t)(w->end - w->at)) {
        w->failed = true;
        return NULL;
    }
    uint8_t *p = w->at;
    w->at += n;
    return p;
}

static inline void write_uint(struct writer *w, uint64_t v, int n_bytes)
{
    uint8_t *p = write_bytes(w, (uint64_t)n_bytes);
    for (int i = 0; p && i < n_bytes; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static inline void write_u16(struct writer *w, uint32_t v) { write_uint(w, v, 2); }
static inline void write_u32(struct writer *w, uint32_t v) { write_uint(w, v, 4); }
static inline void write_u64(struct writer *w, uint64_t v) { write_uint(w, v, 8); }

static inline void write_f32(struct writer *w, float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    write_u32(w, u);
}

#endif
