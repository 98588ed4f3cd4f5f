/* Every wire decoder. The first byte picks the message and the limits; the rest is the message, which is copied to an
 * aligned block of exactly its size. What decodes is read to its last byte, as its users do. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "wire/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static volatile uint8_t sink;

static void read_all(const void *at, size_t n)
{
    const uint8_t *p = at;
    uint8_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum ^= p[i];
    sink = sum;
}

static void require(int holds)
{
    if (!holds)
        abort();
}

static void use_step(const struct wire_step *s, const struct wire_limits *lim)
{
    for (uint32_t i = 0; i < s->n_tokens; i++)
        require((uint32_t)wire_token(s->tokens, i) < lim->n_vocab);
    require(s->n_tokens <= lim->n_batch && (uint64_t)s->position + s->n_tokens <= lim->n_ctx);
}

static void use_ffn(const struct wire_ffn *f, const struct wire_limits *lim)
{
    size_t n = (size_t)f->n_tokens * lim->d_model;
    if (f->f32)
        read_all(f->f32, n * 4);
    if (!f->codes)
        return;
    for (size_t i = 0; i < n; i++)
        require(f->codes[i] != -128);
    read_all(f->scale, n / 32 * 4);
}

static void decode(int kind, uint8_t *in, size_t n, const struct wire_limits *lim)
{
    struct wire_step step;
    struct wire_ffn ffn;
    struct wire_partial partial;
    struct wire_result result;
    struct wire_sampling sampling;
    struct wire_hello hello;
    char reason[WIRE_FAILED_MAX];
    const float *hidden;
    if (kind == WIRE_STEP && wire_step_decode(in, n, lim, &step) == ST_OK)
        use_step(&step, lim);
    if (kind == WIRE_HIDDEN && wire_hidden_decode(in, n, lim, &step, &hidden) == ST_OK) {
        use_step(&step, lim);
        read_all(hidden, (size_t)step.n_tokens * lim->d_model * 4);
    }
    if (kind == WIRE_FFN && wire_ffn_decode(in, n, lim, &ffn) == ST_OK)
        use_ffn(&ffn, lim);
    if (kind == WIRE_PARTIAL && wire_partial_decode(in, n, lim, &partial) == ST_OK)
        read_all(partial.sum, (size_t)partial.n_tokens * lim->d_model * 4);
    if (kind == WIRE_RESULT && wire_result_decode(in, n, lim, &result) == ST_OK)
        read_all(result.values, (size_t)result.n_values * 4);
    if (kind == WIRE_SAMPLING && wire_sampling_decode(in, n, &sampling) == ST_OK)
        read_all(&sampling, sizeof sampling);
    if (kind == WIRE_HELLO && wire_hello_decode(in, n, &hello) == ST_OK)
        require(memchr(hello.reason, 0, sizeof hello.reason) && memchr(hello.release, 0, sizeof hello.release));
    if (kind == WIRE_FAILED && wire_failed_decode(in, n, reason) == ST_OK)
        require(memchr(reason, 0, sizeof reason) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct wire_limits limits[] = {
        {.n_batch = 4, .n_ctx = 64, .n_vocab = 300, .n_layers = 3, .d_model = 32},
        {.n_batch = 256, .n_ctx = 4096, .n_vocab = 49152, .n_layers = 30, .d_model = 20},
    };
    struct log_catcher quiet;
    void *message = NULL;
    if (n < 1 || posix_memalign(&message, 64, n - 1) != 0)
        return 0;
    memcpy(message, data + 1, n - 1);
    log_catch(&quiet);
    decode(data[0] % WIRE_KINDS, message, n - 1, &limits[data[0] / 128]);
    log_catch(NULL);
    free(message);
    return 0;
}
