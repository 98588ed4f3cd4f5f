/* The parser of one GGUF file: header, metadata keys, tensor table. Every count, length, type and offset is compared
 * with what the file still holds before it is used; counts are compared with the least bytes they would need, so that
 * no allocation exceeds a small multiple of the file's size. */
#include "model/gguf_parts.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"

enum {
    KEY_MIN_BYTES = 8 + 1 + 4 + 1,         /* length, name, type, value */
    TENSOR_MIN_BYTES = 8 + 1 + 4 + 8 + 4 + 8, /* length, name, n_dims, one dim, type, offset */
    ALIGNMENT_DEFAULT = 32,
    ALIGNMENT_MIN = 8, /* gguf.md: a multiple of 8 */
    ALIGNMENT_MAX = 1 << 24,
};

struct cursor {
    struct reader r;
    const uint8_t *start;
    const char *path;
    char item[96]; /* " of key NAME" while inside one, for messages */
};

static uint64_t left(const struct cursor *c) { return (uint64_t)(c->r.end - c->r.at); }

/* Logs "PATH: WHAT of key NAME at byte N: DETAIL" and returns `code`. */
__attribute__((format(printf, 5, 6))) static status bad(const struct cursor *c, const uint8_t *at, status code,
                                                        const char *what, const char *format, ...)
{
    char detail[256];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    log_error("%s: %s%s at byte %" PRIu64 ": %s", c->path, what, c->item, (uint64_t)(at - c->start), detail);
    return code;
}

static void enter(struct cursor *c, const char *kind, const char *name)
{
    int n = snprintf(c->item, sizeof c->item, " of %s ", kind);
    gguf_printable(name, strlen(name), c->item + n, sizeof c->item - (size_t)n);
}

static void leave(struct cursor *c) { c->item[0] = 0; }

static status need(const struct cursor *c, uint64_t n, const char *what)
{
    if (left(c) < n)
        return bad(c, c->r.at, ST_FORMAT, what, "expected %" PRIu64 " bytes, found %" PRIu64 " to the end of the file",
                   n, left(c));
    return ST_OK;
}

static status take_u32(struct cursor *c, const char *what, uint32_t *out)
{
    status s = need(c, 4, what);
    if (s == ST_OK)
        *out = read_u32(&c->r);
    return s;
}

static status take_u64(struct cursor *c, const char *what, uint64_t *out)
{
    status s = need(c, 8, what);
    if (s == ST_OK)
        *out = read_u64(&c->r);
    return s;
}

/* A count of things that take at least `min_bytes` each. */
static status take_count(struct cursor *c, const char *what, uint64_t min_bytes, uint64_t max, uint64_t *out)
{
    const uint8_t *at = c->r.at;
    uint64_t n;
    status s = take_u64(c, what, &n);
    if (s != ST_OK)
        return s;
    uint64_t room = left(c) / min_bytes;
    if (n > room)
        return bad(c, at, ST_FORMAT, what, "expected at most %" PRIu64 " (the bytes left), found %" PRIu64, room, n);
    if (n > max)
        return bad(c, at, ST_FORMAT, what, "expected at most %" PRIu64 ", found %" PRIu64, max, n);
    *out = n;
    return ST_OK;
}

static status skip_string(struct cursor *c, const char *what)
{
    uint64_t n;
    status s = take_u64(c, what, &n);
    if (s == ST_OK)
        s = need(c, n, what);
    if (s == ST_OK)
        read_bytes(&c->r, n);
    return s;
}

static status no_memory(const struct cursor *c, uint64_t bytes)
{
    log_error("%s: no memory for %" PRIu64 " bytes of its index", c->path, bytes);
    return ST_NOMEM;
}

/* The name of a key or tensor as a C string that the caller frees. */
static status take_name(struct cursor *c, const char *what, char **out)
{
    const uint8_t *at = c->r.at;
    uint64_t n;
    status s = take_u64(c, what, &n);
    if (s != ST_OK)
        return s;
    if (n < 1 || n >= GGUF_MAX_NAME)
        return bad(c, at, ST_FORMAT, what, "expected a length of 1 to %d, found %" PRIu64, GGUF_MAX_NAME - 1, n);
    if ((s = need(c, n, what)) != ST_OK)
        return s;
    const uint8_t *bytes = read_bytes(&c->r, n);
    const uint8_t *nul = memchr(bytes, 0, n);
    if (nul)
        return bad(c, nul, ST_FORMAT, what, "expected text, found a NUL byte");
    char *name = malloc(n + 1);
    if (!name)
        return no_memory(c, n + 1);
    memcpy(name, bytes, n);
    name[n] = 0;
    *out = name;
    return ST_OK;
}

static status check_bools(const struct cursor *c, const uint8_t *at, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (at[i] > 1)
            return bad(c, at + i, ST_FORMAT, "bool", "expected 0 or 1, found %u", at[i]);
    return ST_OK;
}

static status parse_string_array(struct cursor *c, struct gguf_key *k)
{
    if (k->n == 0)
        return ST_OK;
    k->strings = malloc(k->n * sizeof *k->strings); /* n <= bytes of the file / 8: no overflow */
    if (!k->strings)
        return no_memory(c, k->n * sizeof *k->strings);
    for (uint64_t i = 0; i < k->n; i++) {
        k->strings[i] = c->r.at;
        status s = skip_string(c, "string in an array");
        if (s != ST_OK)
            return s;
    }
    return ST_OK;
}

static status parse_array(struct cursor *c, struct gguf_key *k)
{
    const uint8_t *at = c->r.at;
    uint32_t type;
    status s = take_u32(c, "element type", &type);
    if (s != ST_OK)
        return s;
    if (type == GGUF_ARRAY)
        return bad(c, at, ST_UNSUPPORTED, "element type", "expected a scalar or string, found a nested array");
    unsigned bytes = gguf_type_bytes(type);
    if (!bytes && type != GGUF_STRING)
        return bad(c, at, ST_FORMAT, "element type", "expected 0 to %d, found %" PRIu32, GGUF_F64, type);
    k->item_type = type;
    if ((s = take_count(c, "element count", bytes ? bytes : 8, UINT64_MAX, &k->n)) != ST_OK)
        return s;
    k->at = c->r.at;
    if (type == GGUF_STRING)
        return parse_string_array(c, k);
    read_bytes(&c->r, k->n * bytes);
    return type == GGUF_BOOL ? check_bools(c, k->at, k->n) : ST_OK;
}

static status parse_value(struct cursor *c, struct gguf_key *k)
{
    const uint8_t *at = c->r.at;
    uint32_t type;
    status s = take_u32(c, "value type", &type);
    if (s != ST_OK)
        return s;
    if (type > GGUF_F64)
        return bad(c, at, ST_FORMAT, "value type", "expected 0 to %d, found %" PRIu32, GGUF_F64, type);
    k->type = k->item_type = type;
    k->n = 1;
    k->at = c->r.at;
    if (type == GGUF_ARRAY)
        return parse_array(c, k);
    if (type == GGUF_STRING)
        return skip_string(c, "string");
    if ((s = need(c, gguf_type_bytes(type), "value")) != ST_OK)
        return s;
    read_bytes(&c->r, gguf_type_bytes(type));
    return type == GGUF_BOOL ? check_bools(c, k->at, 1) : ST_OK;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp((*(struct gguf_key *const *)a)->name, (*(struct gguf_key *const *)b)->name);
}

static status sort_keys(const struct cursor *c, struct gguf_part *p)
{
    if (p->n_keys == 0)
        return ST_OK;
    p->sorted = malloc(p->n_keys * sizeof *p->sorted);
    if (!p->sorted)
        return no_memory(c, p->n_keys * sizeof *p->sorted);
    for (uint64_t i = 0; i < p->n_keys; i++)
        p->sorted[i] = &p->keys[i];
    qsort(p->sorted, p->n_keys, sizeof *p->sorted, compare_keys);
    for (uint64_t i = 1; i < p->n_keys; i++)
        if (!strcmp(p->sorted[i - 1]->name, p->sorted[i]->name)) {
            char name[64];
            gguf_printable(p->sorted[i]->name, strlen(p->sorted[i]->name), name, sizeof name);
            return bad(c, p->sorted[i]->at, ST_FORMAT, "value", "expected one key %s, found two", name);
        }
    return ST_OK;
}

static status parse_keys(struct cursor *c, struct gguf_part *p, uint64_t n)
{
    p->keys = calloc(n ? n : 1, sizeof *p->keys);
    if (!p->keys)
        return no_memory(c, n * sizeof *p->keys);
    while (p->n_keys < n) {
        struct gguf_key *k = &p->keys[p->n_keys];
        status s = take_name(c, "key", &k->name);
        if (s != ST_OK)
            return s;
        p->n_keys++; /* from here on it is freed with the part */
        enter(c, "key", k->name);
        if ((s = parse_value(c, k)) != ST_OK)
            return s;
        leave(c);
    }
    return sort_keys(c, p);
}

static status read_alignment(struct cursor *c, const struct gguf_part *p, uint64_t *alignment)
{
    const struct gguf_key *k = gguf_part_key(p, "general.alignment");
    if (!k)
        return ST_OK;
    enter(c, "key", "general.alignment");
    uint64_t a;
    if (!gguf_key_u64(k, &a))
        return bad(c, k->at, ST_FORMAT, "value", "expected an integer, not negative, found another value (%s)",
                   gguf_type_name(k->type));
    if (a < ALIGNMENT_MIN || a > ALIGNMENT_MAX || (a & (a - 1)))
        return bad(c, k->at, ST_FORMAT, "value", "expected a power of two from %d to %d, found %" PRIu64,
                   ALIGNMENT_MIN, ALIGNMENT_MAX, a);
    leave(c);
    *alignment = a;
    return ST_OK;
}

/* Sets t->bytes from type and dims, or fails. */
static status size_tensor(const struct cursor *c, const uint8_t *at, struct gguf_tensor *t)
{
    int64_t block = dtype_block(t->type);
    if (t->dims[0] % block)
        return bad(c, at, ST_FORMAT, "row", "expected a multiple of %" PRId64 " elements (%s), found %" PRId64, block,
                   dtype_name(t->type), t->dims[0]);
    uint64_t bytes = (uint64_t)(t->dims[0] / block);
    bool overflow = __builtin_mul_overflow(bytes, (uint64_t)dtype_block_bytes(t->type), &bytes);
    /* A product of dimensions that fits int64 as elements is what the rest of the code may rely on. */
    int64_t elements = t->dims[0];
    for (int i = 1; i < GGUF_MAX_DIMS; i++) {
        overflow |= __builtin_mul_overflow(bytes, (uint64_t)t->dims[i], &bytes);
        overflow |= __builtin_mul_overflow(elements, t->dims[i], &elements);
    }
    if (overflow)
        return bad(c, at, ST_FORMAT, "size", "expected less than 2^63 elements, found %" PRId64 " x %" PRId64 " x %"
                   PRId64 " x %" PRId64, t->dims[0], t->dims[1], t->dims[2], t->dims[3]);
    t->bytes = bytes;
    return ST_OK;
}

/* `empty_lists`: an array may have no element; a matrix always has one. */
static status parse_dims(struct cursor *c, struct gguf_tensor *t, bool empty_lists)
{
    const uint8_t *at = c->r.at;
    uint32_t n_dims;
    status s = take_u32(c, "dimension count", &n_dims);
    if (s != ST_OK)
        return s;
    if (n_dims < 1 || n_dims > GGUF_MAX_DIMS)
        return bad(c, at, ST_FORMAT, "dimension count", "expected 1 to %d, found %" PRIu32, GGUF_MAX_DIMS, n_dims);
    t->n_dims = (int)n_dims;
    for (int i = 0; i < GGUF_MAX_DIMS; i++)
        t->dims[i] = 1;
    const unsigned least = empty_lists && n_dims == 1 ? 0 : 1;
    for (int i = 0; i < t->n_dims; i++) {
        uint64_t d;
        at = c->r.at;
        if ((s = take_u64(c, "dimension", &d)) != ST_OK)
            return s;
        if (d < least || d > INT64_MAX)
            return bad(c, at, ST_FORMAT, "dimension", "expected %u to %" PRId64 ", found %" PRIu64, least, INT64_MAX, d);
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
    if ((s = take_u32(c, "type", &t->type)) != ST_OK)
        return s;
    if (!dtype_known(t->type))
        return bad(c, at, ST_UNSUPPORTED, "type", "expected one that hearth can read, found %" PRIu32 " (%s)", t->type,
                   dtype_name(t->type));
    if ((s = size_tensor(c, at, t)) != ST_OK)
        return s;
    at = c->r.at;
    if ((s = take_u64(c, "offset", offset)) != ST_OK)
        return s;
    if (*offset % alignment)
        return bad(c, at, ST_FORMAT, "offset", "expected a multiple of %" PRIu64 ", found %" PRIu64, alignment,
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
            enter(c, "tensor", t->name);
            uint64_t found = offsets[i] < room ? room - offsets[i] : 0;
            log_error("%s: data%s at byte %" PRIu64 " + %" PRIu64 ": expected %" PRIu64 " bytes, found %" PRIu64
                      " to the end of the file", c->path, c->item, data_at, offsets[i], t->bytes, found);
            return ST_FORMAT;
        }
        t->data = c->start + p->data_at + offsets[i];
    }
    return ST_OK;
}

static status parse_tensors(struct cursor *c, struct gguf *g, int part, uint64_t n, uint64_t alignment)
{
    if (n == 0)
        return place_tensors(c, &g->parts[part], alignment, NULL, NULL, 0);
    status s;
    struct gguf_tensor *grown = realloc(g->tensors, ((uint64_t)g->n_tensors + n) * sizeof *grown);
    if (!grown)
        return no_memory(c, n * sizeof *grown);
    g->tensors = grown;
    struct gguf_tensor *mine = grown + g->n_tensors;
    uint64_t *offsets = malloc(n * sizeof *offsets);
    if (!offsets)
        return no_memory(c, n * sizeof *offsets);
    for (uint64_t i = 0; i < n; i++) {
        char *name;
        if ((s = take_name(c, "tensor name", &name)) != ST_OK)
            goto out;
        mine[i] = (struct gguf_tensor){.name = name, .part = part};
        g->n_tensors++; /* from here on it is freed with the gguf */
        enter(c, "tensor", name);
        if ((s = parse_tensor(c, &mine[i], alignment, g->parts[part].powerinfer, &offsets[i])) != ST_OK)
            goto out;
        leave(c);
    }
    s = place_tensors(c, &g->parts[part], alignment, mine, offsets, n);
out:
    free(offsets);
    return s;
}

static status parse_magic(struct cursor *c, struct gguf_part *p)
{
    status s = need(c, 4, "magic");
    if (s != ST_OK)
        return s;
    const uint8_t *magic = read_bytes(&c->r, 4);
    p->powerinfer = !memcmp(magic, "PWRI", 4);
    if (!p->powerinfer && memcmp(magic, "GGUF", 4)) {
        char text[8];
        gguf_printable((const char *)magic, 4, text, sizeof text);
        return bad(c, magic, ST_FORMAT, "magic", "expected GGUF or PWRI, found '%s' (%02x %02x %02x %02x)", text,
                   magic[0], magic[1], magic[2], magic[3]);
    }
    uint32_t version;
    if ((s = take_u32(c, "version", &version)) != ST_OK)
        return s;
    if (version != 2 && version != 3) {
        bool swapped = version && (version & 0xffff) == 0;
        return bad(c, magic + 4, ST_UNSUPPORTED, "version", "expected 2 or 3, found %" PRIu32 "%s", version,
                   swapped ? " (a big-endian file)" : "");
    }
    return ST_OK;
}

status gguf_parse_part(struct gguf *g, int i)
{
    struct gguf_part *p = &g->parts[i];
    struct cursor c = {.r = {p->bytes, p->bytes + p->size, false}, .start = p->bytes, .path = p->path};
    uint64_t n_tensors, n_keys, alignment = ALIGNMENT_DEFAULT;
    status s = parse_magic(&c, p);
    if (s != ST_OK)
        return s;
    uint64_t max_tensors = (uint64_t)(GGUF_MAX_TENSORS - g->n_tensors);
    if ((s = take_count(&c, "tensor count", TENSOR_MIN_BYTES, max_tensors, &n_tensors)) != ST_OK)
        return s;
    if ((s = take_count(&c, "key count", KEY_MIN_BYTES, GGUF_MAX_KEYS, &n_keys)) != ST_OK)
        return s;
    if ((s = parse_keys(&c, p, n_keys)) != ST_OK)
        return s;
    if ((s = read_alignment(&c, p, &alignment)) != ST_OK)
        return s;
    return parse_tensors(&c, g, i, n_tensors, alignment);
}
