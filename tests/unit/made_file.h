/* A made model file in memory, with a tokenizer: what tests of vocabularies and chats write into w they open here. */
#ifndef HEARTH_TESTS_MADE_FILE_H
#define HEARTH_TESTS_MADE_FILE_H

#include "model/tokenizer.h"
#include "tests/unit/gguf_writer.h"

struct made {
    struct gguf_writer w;
    struct gguf *g;
    struct tokenizer *t;
};

int byte_character(uint8_t byte, char out[2]); /* model/tokenizer_internal.h has a struct piece, as serve/ has */

/* Of an array of tokens the 256 bytes. */
static inline void made_put_bytes(struct gguf_writer *w)
{
    for (int i = 0; i < 256; i++) {
        char name[3] = "";
        byte_character((uint8_t)i, name);
        gguf_put_string(w, name);
    }
}

/* Begins a file whose tokens are the 256 bytes, and `more` [n] behind them. */
static inline void made_begin_bytes(struct made *m, const char *const *more, uint32_t n)
{
    gguf_writer_begin(&m->w, "GGUF", 3);
    gguf_key_string(&m->w, "tokenizer.ggml.model", "gpt2");
    gguf_key_string(&m->w, "tokenizer.ggml.pre", "default");
    gguf_key_array(&m->w, "tokenizer.ggml.tokens", GGUF_STRING, 256 + n);
    made_put_bytes(&m->w);
    for (uint32_t i = 0; i < n; i++)
        gguf_put_string(&m->w, more[i]);
    gguf_key_strings(&m->w, "tokenizer.ggml.merges", (const char *const[]){"a b"}, 1);
}

/* All keys are written. */
static inline void made_open(struct made *m)
{
    gguf_writer_end(&m->w);
    assert_int_equal(gguf_open_bytes(m->w.bytes, m->w.n, "test.gguf", &m->g), ST_OK);
    assert_int_equal(tokenizer_create(m->g, &m->t), ST_OK);
}

static inline void unmake(struct made *m)
{
    tokenizer_free(m->t);
    gguf_close(m->g);
    gguf_writer_free(&m->w);
}

#endif
