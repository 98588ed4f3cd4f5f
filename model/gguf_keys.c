/* Reading the metadata of a parsed GGUF. The parser has checked that every value lies within the mapping. */
#include "model/gguf_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

static const struct {
    const char *name;
    uint8_t bytes;
    bool is_signed, is_integer;
} types[] = {
    [GGUF_U8] = {"u8", 1, false, true},   [GGUF_I8] = {"i8", 1, true, true},    [GGUF_U16] = {"u16", 2, false, true},
    [GGUF_I16] = {"i16", 2, true, true},  [GGUF_U32] = {"u32", 4, false, true}, [GGUF_I32] = {"i32", 4, true, true},
    [GGUF_F32] = {"f32", 4, true, false}, [GGUF_BOOL] = {"bool", 1, false, false},
    [GGUF_STRING] = {"string", 0, false, false}, [GGUF_ARRAY] = {"array", 0, false, false},
    [GGUF_U64] = {"u64", 8, false, true}, [GGUF_I64] = {"i64", 8, true, true},  [GGUF_F64] = {"f64", 8, true, false},
};

unsigned gguf_type_bytes(uint32_t type) { return type <= GGUF_F64 ? types[type].bytes : 0; }
const char *gguf_type_name(uint32_t type) { return type <= GGUF_F64 ? types[type].name : "?"; }

void gguf_printable(const char *at, size_t n, char *out, size_t size)
{
    if (!size)
        return;
    bool cut = n >= size;
    if (cut) {
        n = size > 4 ? size - 4 : 0;
        while (n && ((unsigned char)at[n] & 0xc0) == 0x80)
            n--;
    }
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)at[i] < 0x20 || at[i] == 0x7f ? '?' : at[i];
    out[n] = 0;
    if (cut && size > 4)
        memcpy(out + n, "...", 4);
}

const struct gguf_key *gguf_part_key(const struct gguf_part *p, const char *name)
{
    uint64_t low = 0, high = p->n_keys;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        int order = strcmp(name, p->sorted[middle]->name);
        if (order == 0)
            return p->sorted[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* Element i of a value of fixed size, as the bits of a 64-bit integer, sign-extended where the type is signed. */
static uint64_t element(const struct gguf_key *k, uint64_t i)
{
    unsigned bytes = types[k->item_type].bytes;
    const uint8_t *at = k->at + i * bytes;
    struct reader r = {at, at + bytes, false};
    uint64_t v = read_uint(&r, (int)bytes);
    if (types[k->item_type].is_signed && bytes < 8 && v >> (8 * bytes - 1))
        v |= ~UINT64_C(0) << (8 * bytes);
    return v;
}

static bool element_u64(const struct gguf_key *k, uint64_t i, uint64_t *out)
{
    if (!types[k->item_type].is_integer)
        return false;
    uint64_t v = element(k, i);
    if (types[k->item_type].is_signed && v > INT64_MAX)
        return false;
    *out = v;
    return true;
}

static bool element_i64(const struct gguf_key *k, uint64_t i, int64_t *out)
{
    if (!types[k->item_type].is_integer)
        return false;
    uint64_t v = element(k, i);
    if (!types[k->item_type].is_signed && v > INT64_MAX)
        return false;
    *out = (int64_t)v;
    return true;
}

static bool element_f64(const struct gguf_key *k, uint64_t i, double *out)
{
    uint64_t bits = k->item_type == GGUF_F32 || k->item_type == GGUF_F64 ? element(k, i) : 0;
    if (k->item_type == GGUF_F32) {
        uint32_t low = (uint32_t)bits;
        float f;
        memcpy(&f, &low, sizeof f);
        *out = (double)f;
        return true;
    }
    if (k->item_type == GGUF_F64) {
        memcpy(out, &bits, sizeof *out);
        return true;
    }
    return false;
}

/* The string whose length prefix is at `at`. */
static struct gguf_string string_at(const uint8_t *at)
{
    struct reader r = {at, at + 8, false};
    return (struct gguf_string){(const char *)at + 8, (size_t)read_u64(&r)};
}

static const struct gguf_key *find(const struct gguf *g, const char *key) { return gguf_part_key(&g->parts[0], key); }

static const struct gguf_key *find_scalar(const struct gguf *g, const char *key)
{
    const struct gguf_key *k = find(g, key);
    return k && k->type != GGUF_ARRAY ? k : NULL;
}

/* The array of this name if it has an element i. */
static const struct gguf_key *find_element(const struct gguf *g, const char *key, uint64_t i)
{
    const struct gguf_key *k = find(g, key);
    return k && k->type == GGUF_ARRAY && i < k->n ? k : NULL;
}

bool gguf_key_u64(const struct gguf_key *k, uint64_t *out) { return k->type != GGUF_ARRAY && element_u64(k, 0, out); }

bool gguf_has_key(const struct gguf *g, const char *key) { return find(g, key) != NULL; }

bool gguf_get_u64(const struct gguf *g, const char *key, uint64_t *out)
{
    const struct gguf_key *k = find_scalar(g, key);
    return k && element_u64(k, 0, out);
}

bool gguf_get_i64(const struct gguf *g, const char *key, int64_t *out)
{
    const struct gguf_key *k = find_scalar(g, key);
    return k && element_i64(k, 0, out);
}

bool gguf_get_f64(const struct gguf *g, const char *key, double *out)
{
    const struct gguf_key *k = find_scalar(g, key);
    return k && element_f64(k, 0, out);
}

bool gguf_get_bool(const struct gguf *g, const char *key, bool *out)
{
    const struct gguf_key *k = find_scalar(g, key);
    if (!k || k->type != GGUF_BOOL)
        return false;
    *out = k->at[0] != 0;
    return true;
}

bool gguf_get_string(const struct gguf *g, const char *key, struct gguf_string *out)
{
    const struct gguf_key *k = find_scalar(g, key);
    if (!k || k->type != GGUF_STRING)
        return false;
    *out = string_at(k->at);
    return true;
}

bool gguf_get_array(const struct gguf *g, const char *key, enum gguf_type *type, uint64_t *n)
{
    const struct gguf_key *k = find(g, key);
    if (!k || k->type != GGUF_ARRAY)
        return false;
    *type = k->item_type;
    *n = k->n;
    return true;
}

bool gguf_array_string(const struct gguf *g, const char *key, uint64_t i, struct gguf_string *out)
{
    const struct gguf_key *k = find_element(g, key, i);
    if (!k || k->item_type != GGUF_STRING)
        return false;
    *out = string_at(k->strings[i]);
    return true;
}

bool gguf_array_i64(const struct gguf *g, const char *key, uint64_t i, int64_t *out)
{
    const struct gguf_key *k = find_element(g, key, i);
    return k && element_i64(k, i, out);
}

bool gguf_array_bool(const struct gguf *g, const char *key, uint64_t i, bool *out)
{
    const struct gguf_key *k = find_element(g, key, i);
    if (!k || k->item_type != GGUF_BOOL)
        return false;
    *out = k->at[i] != 0;
    return true;
}

bool gguf_array_f64(const struct gguf *g, const char *key, uint64_t i, double *out)
{
    const struct gguf_key *k = find_element(g, key, i);
    return k && element_f64(k, i, out);
}

bool gguf_key_at(const struct gguf *g, int i, const char **key, char *value, size_t n)
{
    if (i < 0 || (uint64_t)i >= g->parts[0].n_keys)
        return false;
    const struct gguf_key *k = &g->parts[0].keys[i];
    *key = k->name;
    double f;
    uint64_t u;
    int64_t s;
    if (k->type == GGUF_ARRAY)
        snprintf(value, n, "%" PRIu64 " x %s", k->n, types[k->item_type].name);
    else if (k->type == GGUF_STRING)
        gguf_printable(string_at(k->at).at, string_at(k->at).n, value, n);
    else if (k->type == GGUF_BOOL)
        snprintf(value, n, "%s", k->at[0] ? "true" : "false");
    else if (element_u64(k, 0, &u))
        snprintf(value, n, "%" PRIu64, u);
    else if (element_i64(k, 0, &s))
        snprintf(value, n, "%" PRId64, s);
    else if (element_f64(k, 0, &f))
        snprintf(value, n, k->type == GGUF_F32 ? "%.7g" : "%.15g", f);
    return true;
}
