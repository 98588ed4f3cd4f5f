#include "model/chunks.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/log.h"
#include "model/chunk_list.h"
#include "model/gguf_parts.h"

/* A chunk's hash is that of its pieces' hashes, so that threads may share it. */
enum { PIECE_BYTES = 1 << 20, MOST_PIECES = 64 };
_Static_assert(PIECE_BYTES * (uint64_t)MOST_PIECES == CHUNK_BYTES, "a chunk is whole pieces");

/* The chunks of a part. */
struct part_chunks {
    const struct gguf_part *part;
    uint32_t first, n; /* their numbers are [first, first + n) */
    bool learnt;       /* more than is remembered */
};

struct chunks {
    const struct gguf *file;
    const char *folder;
    uint32_t n;
    uint64_t *hash;    /* [n], 0: not known */
    bool *used;        /* [n] */
    struct part_chunks *parts; /* [file->n_parts] */
    uint64_t hashed;
};

static uint32_t chunks_of(uint64_t bytes) { return (uint32_t)((bytes + CHUNK_BYTES - 1) / CHUNK_BYTES); }

static status fill(struct chunks *c)
{
    const int n_parts = c->file->n_parts;
    c->parts = calloc((size_t)n_parts, sizeof *c->parts);
    for (int i = 0; c->parts && i < n_parts; i++) {
        c->parts[i] = (struct part_chunks){.part = &c->file->parts[i], .first = c->n,
                                           .n = chunks_of(c->file->parts[i].size)};
        c->n += c->parts[i].n;
    }
    c->hash = calloc((size_t)c->n + 1, sizeof *c->hash);
    c->used = calloc((size_t)c->n + 1, sizeof *c->used);
    if (!c->parts || !c->hash || !c->used) {
        log_error("%s: no memory for the hashes of its chunks", gguf_path(c->file));
        return ST_NOMEM;
    }
    for (int i = 0; c->folder && i < n_parts; i++)
        chunk_list_read(c->folder, &c->parts[i].part->identity, c->hash + c->parts[i].first, c->parts[i].n);
    return ST_OK;
}

status chunks_create(const struct gguf *g, const char *folder, struct chunks **out)
{
    struct chunks *c = calloc(1, sizeof *c);
    if (!c) {
        log_error("%s: no memory for the hashes of its chunks", gguf_path(g));
        return ST_NOMEM;
    }
    *c = (struct chunks){.file = g, .folder = folder};
    status s = fill(c);
    if (s == ST_OK)
        *out = c;
    else
        chunks_free(c);
    return s;
}

void chunks_free(struct chunks *c)
{
    if (!c)
        return;
    free(c->hash);
    free(c->used);
    free(c->parts);
    free(c);
}

uint32_t chunks_count(const struct chunks *c) { return c->n; }
bool chunks_used(const struct chunks *c, uint32_t chunk) { return c->used[chunk]; }
uint64_t chunks_hashed(const struct chunks *c) { return c->hashed; }

static struct part_chunks *part_of(const struct chunks *c, uint32_t chunk)
{
    struct part_chunks *p = c->parts;
    while (chunk >= p->first + p->n)
        p++;
    return p;
}

const char *chunks_place(const struct chunks *c, uint32_t chunk, uint64_t *begin, uint64_t *end)
{
    const struct part_chunks *p = part_of(c, chunk);
    const uint64_t at = (chunk - p->first) * CHUNK_BYTES, left = p->part->size - at;
    *begin = at;
    *end = at + (left < CHUNK_BYTES ? left : CHUNK_BYTES);
    return p->part->path;
}

struct hashing {
    const uint8_t *data;
    uint64_t bytes;
    uint64_t piece[MOST_PIECES];
};

static void hash_pieces(void *arg, int64_t begin, int64_t end, int thread)
{
    struct hashing *h = arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const uint64_t at = (uint64_t)i * PIECE_BYTES, left = h->bytes - at;
        h->piece[i] = XXH3_64bits(h->data + at, left < PIECE_BYTES ? left : PIECE_BYTES);
    }
}

uint64_t chunks_hash(struct chunks *c, struct pool *pool, uint32_t chunk)
{
    if (c->hash[chunk])
        return c->hash[chunk];
    struct part_chunks *p = part_of(c, chunk);
    uint64_t begin, end;
    chunks_place(c, chunk, &begin, &end);
    struct hashing h = {.data = p->part->bytes + begin, .bytes = end - begin};
    const uint64_t n = (h.bytes + PIECE_BYTES - 1) / PIECE_BYTES;
    pool_for(pool, (int64_t)n, 1, hash_pieces, &h);
    const uint64_t hash = XXH3_64bits(h.piece, n * sizeof *h.piece);
    c->hashed += h.bytes;
    p->learnt = true;
    return c->hash[chunk] = hash ? hash : 1;
}

void chunks_use(struct chunks *c, struct pool *pool, const uint8_t *data, uint64_t bytes)
{
    for (struct part_chunks *p = c->parts; bytes && p < c->parts + c->file->n_parts; p++) {
        const uint64_t at = (uintptr_t)data - (uintptr_t)p->part->bytes; /* huge if it lies before */
        if (at >= p->part->size || bytes > p->part->size - at)
            continue;
        for (uint64_t i = at / CHUNK_BYTES; i <= (at + bytes - 1) / CHUNK_BYTES; i++) {
            const uint32_t chunk = p->first + (uint32_t)i;
            c->used[chunk] = true;
            (void)chunks_hash(c, pool, chunk);
        }
        return;
    }
}

/* Another rank of this machine may have learnt others meanwhile. */
void chunks_remember(struct chunks *c)
{
    for (struct part_chunks *p = c->parts; c->folder && p < c->parts + c->file->n_parts; p++) {
        if (!p->learnt)
            continue;
        chunk_list_read(c->folder, &p->part->identity, c->hash + p->first, p->n);
        chunk_list_write(c->folder, &p->part->identity, c->hash + p->first, p->n);
        p->learnt = false;
    }
}
