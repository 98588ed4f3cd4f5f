/* The table of one GGUF file's tensors. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/log.h"
#include "model/gguf_cursor.h"

/* Sets t->bytes from type and dims, or fails. */
static status size_tensor(const struct cursor *c, const uint8_t *at, struct gguf_tensor *t)
{
    int64_t block = dtype_block(t->type);
    if (t->dims[0] % block)
        return cursor_bad(c, at, ST_FORMAT, "row", "expected a multiple of %" PRId64 " elements (%s), found %" PRId64,
                          block, dtype_name(t->type), t->dims[0]);
    uint64_t bytes = (uint64_t)(t->dims[0] / block);
    bool overflow = __builtin_mul_overflow(bytes, (uint64_t)dtype_block_bytes(t->type), &bytes);
    /* A product of dimensions that fits int64 as elements is what the rest of the code may rely on. */
    int64_t elements = t->dims[0];
    for (int i = 1; i < GGUF_MAX_DIMS; i++) {
        overflow |= __builtin_mul_overflow(bytes, (uint64_t)t->dims[i], &bytes);
        overflow |= __builtin_mul_overflow(elements, t->dims[i], &elements);
    }
    if (overflow)
        return cursor_bad(c, at, ST_FORMAT, "size", "expected less than 2^63 elements, found %" PRId64 " x %" PRId64
                          " x %" PRId64 " x %" PRId64, t->dims[0], t->dims[1], t->dims[2], t->dims[3]);
    t->bytes = bytes;
    return ST_OK;
}

/* `empty_lists`: an array may have no element; a matrix always has one. */
static status parse_dims(struct cursor *c, struct gguf_tensor *t, bool empty_lists)
{
    const uint8_t *at = c->r.at;
    uint32_t n_dims;
    status s = cursor_u32(c, "dimension count", &n_dims);
    if (s != ST_OK)
        return s;
    if (n_dims < 1 || n_dims > GGUF_MAX_DIMS)
        return cursor_bad(c, at, ST_FORMAT, "dimension count", "expected 1 to %d, found %" PRIu32, GGUF_MAX_DIMS,
                          n_dims);
    t->n_dims = (int)n_dims;
    for (int i = 0; i < GGUF_MAX_DIMS; i++)
        t->dims[i] = 1;
    const unsigned least = empty_lists && n_dims == 1 ? 0 : 1;
    for (int i = 0; i < t->n_dims; i++) {
        uint64_t d;
        at = c->r.at;
        if ((s = cursor_u64(c, "dimension", &d)) != ST_OK)
            return s;
        if (d < least || d > INT64_MAX)
            return cursor_bad(c, at, ST_FORMAT, "dimension", "expected %u to %" PRId64 ", found %" PRIu64, least,
                              INT64_MAX, d);
        t->dims[i] = (int64_t)d;
    }
    return ST_OK;
}

/* Everything of a tensor but its name and data. */
static status parse_tensor(struct cursor *c, struct gguf_tensor *t, uint64_t alignment, bool empty_lists,
                           uint64_t *offset)
{
    status s = parse_dims(c, t, empty_lists);
    if (s != ST_OK)
        return s;
    const uint8_t *at = c->r.at;
    if ((s = cursor_u32(c, "type", &t->type)) != ST_OK)
        return s;
    if (!dtype_known(t->type))
        return cursor_bad(c, at, ST_UNSUPPORTED, "type", "expected one that hearth can read, found %" PRIu32 " (%s)",
                          t->type, dtype_name(t->type));
    if ((s = size_tensor(c, at, t)) != ST_OK)
        return s;
    at = c->r.at;
    if ((s = cursor_u64(c, "offset", offset)) != ST_OK)
        return s;
    if (*offset % alignment)
        return cursor_bad(c, at, ST_FORMAT, "offset", "expected a multiple of %" PRIu64 ", found %" PRIu64, alignment,
                          *offset);
    return ST_OK;
}

/* Where the data begins is known only after the last table entry, hence this second pass. */
static status place_tensors(struct cursor *c, struct gguf_part *p, uint64_t alignment, struct gguf_tensor *tensors,
                            const uint64_t *offsets, uint64_t n)
{
    uint64_t table_end = (uint64_t)(c->r.at - c->start);
    uint64_t data_at = table_end + (alignment - table_end % alignment) % alignment;
    p->data_at = data_at < p->size ? data_at : p->size;
    uint64_t room = p->size - p->data_at;
    for (uint64_t i = 0; i < n; i++) {
        struct gguf_tensor *t = &tensors[i];
        if (offsets[i] > room || t->bytes > room - offsets[i]) {
            cursor_enter(c, "tensor", t->name);
            uint64_t found = offsets[i] < room ? room - offsets[i] : 0;
            log_error("%s: data%s at byte %" PRIu64 " + %" PRIu64 ": expected %" PRIu64 " bytes, found %" PRIu64
                      " to the end of the file", c->path, c->item, data_at, offsets[i], t->bytes, found);
            return ST_FORMAT;
        }
        t->data = c->start + p->data_at + offsets[i];
    }
    return ST_OK;
}

status gguf_parse_tensors(struct cursor *c, struct gguf *g, int part, uint64_t n, uint64_t alignment)
{
    if (n == 0)
        return place_tensors(c, &g->parts[part], alignment, NULL, NULL, 0);
    status s;
    struct gguf_tensor *grown = realloc(g->tensors, ((uint64_t)g->n_tensors + n) * sizeof *grown);
    if (!grown)
        return cursor_no_memory(c, n * sizeof *grown);
    g->tensors = grown;
    struct gguf_tensor *mine = grown + g->n_tensors;
    uint64_t *offsets = malloc(n * sizeof *offsets);
    if (!offsets)
        return cursor_no_memory(c, n * sizeof *offsets);
    for (uint64_t i = 0; i < n; i++) {
        char *name;
        if ((s = cursor_name(c, "tensor name", &name)) != ST_OK)
            goto out;
        mine[i] = (struct gguf_tensor){.name = name, .part = part};
        g->n_tensors++; /* from here on it is freed with the gguf */
        cursor_enter(c, "tensor", name);
        if ((s = parse_tensor(c, &mine[i], alignment, g->parts[part].powerinfer, &offsets[i])) != ST_OK)
            goto out;
        cursor_leave(c);
    }
    s = place_tensors(c, &g->parts[part], alignment, mine, offsets, n);
out:
    free(offsets);
    return s;
}
