/* A tokenizer of given words, for tests: byte-level, so words are any bytes. */
#ifndef HEARTH_TESTS_VOCABULARY_H
#define HEARTH_TESTS_VOCABULARY_H

#include "model/tokenizer_internal.h"
#include "tests/unit/gguf_writer.h"

enum word_type { WORD_NORMAL = 1, WORD_CONTROL = 3, WORD_USER = 4 }; /* as files have them */

struct word {
    const char *bytes;
    size_t n;
    enum word_type type;
};

struct vocabulary {
    struct gguf_writer w; /* the tokenizer points into its bytes */
    struct gguf *file;
    struct tokenizer *t;
};

/* All words [n] must differ; `end` ends an answer. Aborts if that is no vocabulary. */
static inline void vocabulary_make(struct vocabulary *v, const struct word *words, size_t n, uint32_t end)
{
    static const char *const merges[] = {"a b"};
    struct gguf_writer *w = &v->w;
    gguf_writer_begin(w, "GGUF", 3);
    gguf_key_string(w, "tokenizer.ggml.model", "gpt2");
    gguf_key_string(w, "tokenizer.ggml.pre", "gpt-2");
    gguf_key_array(w, "tokenizer.ggml.tokens", GGUF_STRING, n);
    for (size_t i = 0; i < n; i++) {
        char characters[2 * 1024];
        size_t bytes = 0;
        for (size_t k = 0; k < words[i].n; k++)
            if (words[i].type == WORD_NORMAL)
                bytes += (size_t)byte_character((uint8_t)words[i].bytes[k], characters + bytes);
            else
                characters[bytes++] = words[i].bytes[k];
        gguf_put_uint(w, bytes, 8);
        gguf_put(w, characters, bytes);
    }
    gguf_key_array(w, "tokenizer.ggml.token_type", GGUF_I32, n);
    for (size_t i = 0; i < n; i++)
        gguf_put_uint(w, words[i].type, 4);
    gguf_key_strings(w, "tokenizer.ggml.merges", merges, 1);
    gguf_key_u32(w, "tokenizer.ggml.eos_token_id", end);
    gguf_writer_end(w);
    if (gguf_open_bytes(w->bytes, w->n, "vocabulary", &v->file) != ST_OK || tokenizer_create(v->file, &v->t) != ST_OK)
        abort();
}

static inline void vocabulary_free(struct vocabulary *v)
{
    tokenizer_free(v->t);
    gguf_close(v->file);
    gguf_writer_free(&v->w);
}

#endif
