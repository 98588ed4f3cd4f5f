/* Damage to messages, and what decoders must say to it. */
#ifndef HEARTH_TESTS_WIRE_CHECKS_H
#define HEARTH_TESTS_WIRE_CHECKS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "wire/wire.h"

static const struct wire_limits limits = {.n_batch = 8, .n_ctx = 100, .n_vocab = 1000, .n_layers = 4, .d_model = 96,
                                          .n_sequences = 5, .n_pages = 12, .n_runs = 3, .n_states = 8,
                                          .n_grammar_ops = 8};

/* A copy of a message in a block of exactly its size, so that the address sanitizer sees every read past it. */
static inline uint8_t *exact_copy(const uint8_t *message, size_t n)
{
    void *p = NULL;
    assert_int_equal(posix_memalign(&p, 64, n ? n : 1), 0);
    memcpy(p, message, n);
    return p;
}

/* One decoder behind one signature, so that damage can be done to every message alike. */
typedef status decoder(uint8_t *in, size_t n);

static inline void assert_refused(decoder *decode, const uint8_t *message, size_t n, const char *says)
{
    struct log_catcher catcher = {0};
    uint8_t *copy = exact_copy(message, n);
    log_catch(&catcher);
    status st = decode(copy, n);
    log_catch(NULL);
    free(copy);
    if (st != ST_FORMAT || !strstr(catcher.first_error, says))
        print_error("expected a refusal that says '%s', got %s: '%s'\n", says, status_name(st), catcher.first_error);
    assert_int_equal(st, ST_FORMAT);
    assert_non_null(strstr(catcher.first_error, says));
}

/* Every other size is refused: shorter ones byte by byte, and a byte too many. */
static inline void assert_size_is_exact(decoder *decode, const uint8_t *message, size_t n)
{
    uint8_t *longer = exact_copy(message, n);
    assert_int_equal(decode(longer, n), ST_OK);
    longer = realloc(longer, n + 1);
    assert_non_null(longer);
    longer[n] = 0;
    assert_refused(decode, longer, n + 1, "size");
    free(longer);
    for (size_t k = 0; k < n; k++)
        assert_refused(decode, message, k, "size");
}

/* The message with the u32 at `at` replaced is refused. */
static inline void assert_field_refused(decoder *decode, const uint8_t *message, size_t n, size_t at, uint32_t value,
                                 const char *says)
{
    uint8_t *copy = exact_copy(message, n);
    memcpy(copy + at, &value, 4);
    assert_refused(decode, copy, n, says);
    free(copy);
}

#endif
