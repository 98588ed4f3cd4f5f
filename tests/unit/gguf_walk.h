/* Touches everything that an open GGUF offers, so that a sanitizer sees any pointer that leads out of the file. */
#ifndef HEARTH_TESTS_GGUF_WALK_H
#define HEARTH_TESTS_GGUF_WALK_H

#include <string.h>

#include "model/gguf.h"

static inline uint64_t gguf_walk_key(const struct gguf *g, const char *key)
{
    uint64_t sum = gguf_has_key(g, key), u, n;
    int64_t i;
    double f;
    bool b;
    struct gguf_string s;
    enum gguf_type type;
    if (gguf_get_u64(g, key, &u))
        sum += u;
    if (gguf_get_i64(g, key, &i))
        sum += (uint64_t)i;
    if (gguf_get_f64(g, key, &f))
        sum += f > 0;
    if (gguf_get_bool(g, key, &b))
        sum += b;
    if (gguf_get_string(g, key, &s))
        for (size_t j = 0; j < s.n; j++)
            sum += (unsigned char)s.at[j];
    if (!gguf_get_array(g, key, &type, &n))
        return sum;
    for (uint64_t j = 0; j <= n; j++) {
        if (gguf_array_i64(g, key, j, &i))
            sum += (uint64_t)i;
        if (gguf_array_f64(g, key, j, &f))
            sum += f > 0;
        if (gguf_array_string(g, key, j, &s) && s.n)
            sum += (unsigned char)s.at[0] + (unsigned char)s.at[s.n - 1];
    }
    return sum;
}

/* A checksum of no meaning that keeps the reads alive. */
static inline uint64_t gguf_walk(const struct gguf *g)
{
    uint64_t sum = gguf_hash(g) + gguf_file_bytes(g) + gguf_is_powerinfer(g) + strlen(gguf_path(g));
    const char *key;
    char value[40];
    for (int i = 0; gguf_key_at(g, i, &key, value, sizeof value); i++)
        sum += strlen(value) + gguf_walk_key(g, key);
    for (int i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        sum += gguf_find_tensor(g, t->name) == t;
        if (t->bytes)
            sum += t->data[0] + t->data[t->bytes - 1];
    }
    return sum;
}

#endif
