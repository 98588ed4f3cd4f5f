/* The file being written: fields of GGUF, little-endian. The first failure is logged and kept; nothing is written
 * after it. */
#ifndef HEARTH_TOOLS_SYNTH_OUTPUT_H
#define HEARTH_TOOLS_SYNTH_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "base/status.h"
#include "model/gguf.h"

struct output {
    FILE *file;      /* NULL: bytes and keys are counted */
    const char *path;
    uint64_t at;     /* bytes written */
    uint64_t n_keys;
    bool failed;
};

void put(struct output *o, const void *bytes, size_t n);
void put_u32(struct output *o, uint32_t v);
void put_u64(struct output *o, uint64_t v);
void put_f32(struct output *o, float v);
void put_string(struct output *o, const char *s);
void put_padding(struct output *o); /* to the alignment of tensor data */
uint64_t output_aligned(uint64_t n);

/* Keys with their values; an array's elements follow. */
void key_u32(struct output *o, const char *name, uint32_t v);
void key_f32(struct output *o, const char *name, float v);
void key_string(struct output *o, const char *name, const char *v);
void key_array(struct output *o, const char *name, enum gguf_type type, uint64_t n);

/* A vocabulary of made-up words, and the keys of its tokenizer. */
enum { MIN_VOCABULARY = 3 + 256 + 1 };
void put_tokenizer(struct output *o, uint32_t vocab);

#endif
