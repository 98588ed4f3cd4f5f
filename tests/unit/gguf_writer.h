/* Builds GGUF files in memory, for tests: keys first, then tensors, then gguf_writer_end. Nothing is checked, so that
 * malformed files can be made as easily as good ones. */
#ifndef HEARTH_TESTS_GGUF_WRITER_H
#define HEARTH_TESTS_GGUF_WRITER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "model/gguf.h"

enum { GGUF_WRITER_TENSORS = 128, GGUF_WRITER_N_TENSORS_AT = 8, GGUF_WRITER_N_KEYS_AT = 16 };

struct gguf_writer {
    uint8_t *bytes; /* [n], owned */
    size_t n, capacity;
    uint64_t n_keys, n_tensors;
    uint64_t alignment;
    uint64_t data_bytes; /* of all tensors so far, padded */
    struct {
        size_t offset, bytes;
        const void *data; /* NULL: a pattern */
    } tensors[GGUF_WRITER_TENSORS];
    size_t header_bytes; /* set by gguf_writer_end: where the data begins */
};

static inline void gguf_put(struct gguf_writer *w, const void *bytes, size_t n)
{
    if (w->n + n > w->capacity) {
        w->capacity = (w->n + n) * 2;
        w->bytes = realloc(w->bytes, w->capacity);
        if (!w->bytes)
            abort();
    }
    if (n)
        memcpy(w->bytes + w->n, bytes, n);
    w->n += n;
}

static inline void gguf_put_uint(struct gguf_writer *w, uint64_t v, int n_bytes)
{
    uint8_t b[8];
    for (int i = 0; i < n_bytes; i++)
        b[i] = (uint8_t)(v >> (8 * i));
    gguf_put(w, b, (size_t)n_bytes);
}

static inline void gguf_put_string(struct gguf_writer *w, const char *s)
{
    gguf_put_uint(w, strlen(s), 8);
    gguf_put(w, s, strlen(s));
}

static inline void gguf_put_f32(struct gguf_writer *w, float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    gguf_put_uint(w, u, 4);
}

static inline void gguf_writer_begin(struct gguf_writer *w, const char *magic, uint32_t version)
{
    *w = (struct gguf_writer){.alignment = 32};
    gguf_put(w, magic, 4);
    gguf_put_uint(w, version, 4);
    gguf_put_uint(w, 0, 8);
    gguf_put_uint(w, 0, 8);
}

static inline void gguf_key_begin(struct gguf_writer *w, const char *key, enum gguf_type type)
{
    gguf_put_string(w, key);
    gguf_put_uint(w, type, 4);
    w->n_keys++;
}

/* Any scalar but a string: the low bytes of `bits`. */
static inline void gguf_key_uint(struct gguf_writer *w, const char *key, enum gguf_type type, uint64_t bits)
{
    static const int bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    gguf_key_begin(w, key, type);
    gguf_put_uint(w, bits, bytes[type]);
}

static inline void gguf_key_u32(struct gguf_writer *w, const char *key, uint32_t v)
{
    gguf_key_uint(w, key, GGUF_U32, v);
}

static inline void gguf_key_f32(struct gguf_writer *w, const char *key, float v)
{
    gguf_key_begin(w, key, GGUF_F32);
    gguf_put_f32(w, v);
}

static inline void gguf_key_string(struct gguf_writer *w, const char *key, const char *v)
{
    gguf_key_begin(w, key, GGUF_STRING);
    gguf_put_string(w, v);
}

/* The caller puts n elements after it. */
static inline void gguf_key_array(struct gguf_writer *w, const char *key, enum gguf_type item_type, uint64_t n)
{
    gguf_key_begin(w, key, GGUF_ARRAY);
    gguf_put_uint(w, item_type, 4);
    gguf_put_uint(w, n, 8);
}

static inline void gguf_key_strings(struct gguf_writer *w, const char *key, const char *const *v, uint64_t n)
{
    gguf_key_array(w, key, GGUF_STRING, n);
    for (uint64_t i = 0; i < n; i++)
        gguf_put_string(w, v[i]);
}

/* A tensor's table entry; dims fastest first. `data` (not copied, may be NULL) must live until gguf_writer_end. */
static inline void gguf_add_tensor(struct gguf_writer *w, const char *name, uint32_t type, int n_dims,
                                   const int64_t *dims, const void *data)
{
    size_t bytes = dtype_row_bytes(type, dims[0]);
    for (int i = 1; i < n_dims; i++)
        bytes *= (size_t)dims[i];
    gguf_put_string(w, name);
    gguf_put_uint(w, (uint64_t)n_dims, 4);
    for (int i = 0; i < n_dims; i++)
        gguf_put_uint(w, (uint64_t)dims[i], 8);
    gguf_put_uint(w, type, 4);
    gguf_put_uint(w, w->data_bytes, 8);
    if (w->n_tensors >= GGUF_WRITER_TENSORS)
        abort();
    w->tensors[w->n_tensors].offset = w->data_bytes;
    w->tensors[w->n_tensors].bytes = bytes;
    w->tensors[w->n_tensors].data = data;
    w->n_tensors++;
    w->data_bytes += (bytes + w->alignment - 1) / w->alignment * w->alignment;
}

/* Fills in the counts and appends the data: byte i of a tensor without data is i % 61, which is a finite number in
 * every float type. The file ends with the last tensor's last byte. */
static inline void gguf_writer_end(struct gguf_writer *w)
{
    for (int i = 0; i < 8; i++) {
        w->bytes[GGUF_WRITER_N_TENSORS_AT + i] = (uint8_t)(w->n_tensors >> (8 * i));
        w->bytes[GGUF_WRITER_N_KEYS_AT + i] = (uint8_t)(w->n_keys >> (8 * i));
    }
    if (w->n_tensors == 0)
        return;
    while (w->n % w->alignment)
        gguf_put_uint(w, 0, 1);
    w->header_bytes = w->n;
    for (uint64_t t = 0; t < w->n_tensors; t++) {
        while (w->n - w->header_bytes < w->tensors[t].offset)
            gguf_put_uint(w, 0, 1);
        if (w->tensors[t].data)
            gguf_put(w, w->tensors[t].data, w->tensors[t].bytes);
        else
            for (size_t i = 0; i < w->tensors[t].bytes; i++)
                gguf_put_uint(w, i % 61, 1);
    }
}

static inline void gguf_writer_free(struct gguf_writer *w)
{
    free(w->bytes);
    *w = (struct gguf_writer){0};
}

/* Writes the file to `path`; 0 if it went well. */
static inline int gguf_writer_save(const struct gguf_writer *w, const char *path)
{
    FILE *f = fopen(path, "wb");
    if (!f)
        return -1;
    size_t n = fwrite(w->bytes, 1, w->n, f);
    return fclose(f) == 0 && n == w->n ? 0 : -1;
}

#endif
