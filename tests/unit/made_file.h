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
