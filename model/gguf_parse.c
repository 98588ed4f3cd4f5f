/* The parser of one GGUF file: header, metadata keys, tensor table. Every count, length, type and offset is compared
 * with what the file still holds before it is used; counts are compared with the least bytes they would need, so that
 * no allocation exceeds a small multiple of the file's size. */
#include "model/gguf_cursor.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_MIN_BYTES = 8 + 1 + 4 + 1,         /* length, name, type, value */
    TENSOR_MIN_BYTES = 8 + 1 + 4 + 8 + 4 + 8, /* length, name, n_dims, one dim, type, offset */
    ALIGNMENT_DEFAULT = 32,
    ALIGNMENT_MIN = 8, /* gguf.md: a multiple of 8 */
    ALIGNMENT_MAX = 1 << 24,
};

static status check_bools(const struct cursor *c, const uint8_t *at, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (at[i] > 1)
            return cursor_bad(c, at + i, ST_FORMAT, "bool", "expected 0 or 1, found %u", at[i]);
    return ST_OK;
}

static status parse_string_array(struct cursor *c, struct gguf_key *k)
{
    if (k->n == 0)
        return ST_OK;
    k->strings = malloc(k->n * sizeof *k->strings); /* n <= bytes of the file / 8: no overflow */
    if (!k->strings)
        return cursor_no_memory(c, k->n * sizeof *k->strings);
    for (uint64_t i = 0; i < k->n; i++) {
        k->strings[i] = c->r.at;
        status s = cursor_skip_string(c, "string in an array");
        if (s != ST_OK)
            return s;
    }
    return ST_OK;
}

static status parse_array(struct cursor *c, struct gguf_key *k)
{
    const uint8_t *at = c->r.at;
    uint32_t type;
    status s = cursor_u32(c, "element type", &type);
    if (s != ST_OK)
        return s;
    if (type == GGUF_ARRAY)
        return cursor_bad(c, at, ST_UNSUPPORTED, "element type", "expected a scalar or string, found a nested array");
    unsigned bytes = gguf_type_bytes(type);
    if (!bytes && type != GGUF_STRING)
        return cursor_bad(c, at, ST_FORMAT, "element type", "expected 0 to %d, found %" PRIu32, GGUF_F64, type);
    k->item_type = type;
    if ((s = cursor_count(c, "element count", bytes ? bytes : 8, UINT64_MAX, &k->n)) != ST_OK)
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
    status s = cursor_u32(c, "value type", &type);
    if (s != ST_OK)
        return s;
    if (type > GGUF_F64)
        return cursor_bad(c, at, ST_FORMAT, "value type", "expected 0 to %d, found %" PRIu32, GGUF_F64, type);
    k->type = k->item_type = type;
    k->n = 1;
    k->at = c->r.at;
    if (type == GGUF_ARRAY)
        return parse_array(c, k);
    if (type == GGUF_STRING)
        return cursor_skip_string(c, "string");
    if ((s = cursor_need(c, gguf_type_bytes(type), "value")) != ST_OK)
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
        return cursor_no_memory(c, p->n_keys * sizeof *p->sorted);
    for (uint64_t i = 0; i < p->n_keys; i++)
        p->sorted[i] = &p->keys[i];
    qsort(p->sorted, p->n_keys, sizeof *p->sorted, compare_keys);
    for (uint64_t i = 1; i < p->n_keys; i++)
        if (!strcmp(p->sorted[i - 1]->name, p->sorted[i]->name)) {
            char name[64];
            gguf_printable(p->sorted[i]->name, strlen(p->sorted[i]->name), name, sizeof name);
            return cursor_bad(c, p->sorted[i]->at, ST_FORMAT, "value", "expected one key %s, found two", name);
        }
    return ST_OK;
}

static status parse_keys(struct cursor *c, struct gguf_part *p, uint64_t n)
{
    p->keys = calloc(n ? n : 1, sizeof *p->keys);
    if (!p->keys)
        return cursor_no_memory(c, n * sizeof *p->keys);
    while (p->n_keys < n) {
        struct gguf_key *k = &p->keys[p->n_keys];
        status s = cursor_name(c, "key", &k->name);
        if (s != ST_OK)
            return s;
        p->n_keys++; /* from here on it is freed with the part */
        cursor_enter(c, "key", k->name);
        if ((s = parse_value(c, k)) != ST_OK)
            return s;
        cursor_leave(c);
    }
    return sort_keys(c, p);
}

static status read_alignment(struct cursor *c, const struct gguf_part *p, uint64_t *alignment)
{
    const struct gguf_key *k = gguf_part_key(p, "general.alignment");
    if (!k)
        return ST_OK;
    cursor_enter(c, "key", "general.alignment");
    uint64_t a;
    if (!gguf_key_u64(k, &a))
        return cursor_bad(c, k->at, ST_FORMAT, "value", "expected an integer, not negative, found another value (%s)",
                          gguf_type_name(k->type));
    if (a < ALIGNMENT_MIN || a > ALIGNMENT_MAX || (a & (a - 1)))
        return cursor_bad(c, k->at, ST_FORMAT, "value", "expected a power of two from %d to %d, found %" PRIu64,
                          ALIGNMENT_MIN, ALIGNMENT_MAX, a);
    cursor_leave(c);
    *alignment = a;
    return ST_OK;
}

static status parse_magic(struct cursor *c, struct gguf_part *p)
{
    status s = cursor_need(c, 4, "magic");
    if (s != ST_OK)
        return s;
    const uint8_t *magic = read_bytes(&c->r, 4);
    p->powerinfer = !memcmp(magic, "PWRI", 4);
    if (!p->powerinfer && memcmp(magic, "GGUF", 4)) {
        char text[8];
        gguf_printable((const char *)magic, 4, text, sizeof text);
        return cursor_bad(c, magic, ST_FORMAT, "magic", "expected GGUF or PWRI, found '%s' (%02x %02x %02x %02x)", text,
                          magic[0], magic[1], magic[2], magic[3]);
    }
    uint32_t version;
    if ((s = cursor_u32(c, "version", &version)) != ST_OK)
        return s;
    if (version != 2 && version != 3) {
        bool swapped = version && (version & 0xffff) == 0;
        return cursor_bad(c, magic + 4, ST_UNSUPPORTED, "version", "expected 2 or 3, found %" PRIu32 "%s", version,
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
    if ((s = cursor_count(&c, "tensor count", TENSOR_MIN_BYTES, max_tensors, &n_tensors)) != ST_OK)
        return s;
    if ((s = cursor_count(&c, "key count", KEY_MIN_BYTES, GGUF_MAX_KEYS, &n_keys)) != ST_OK)
        return s;
    if ((s = parse_keys(&c, p, n_keys)) != ST_OK)
        return s;
    if ((s = read_alignment(&c, p, &alignment)) != ST_OK)
        return s;
    return gguf_parse_tensors(&c, g, i, n_tensors, alignment);
}
