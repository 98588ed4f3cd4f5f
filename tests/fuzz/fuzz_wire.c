/* Every wire decoder. The first byte picks the message and the limits; the rest is the message, which is copied to an
 * aligned block of exactly its size; or, since exact sizes are hard to guess, what a valid message is changed by. What
 * decodes is read to its last byte, as its users do. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "kernels/kernels.h"
#include "tests/fuzz/runs.h"
#include "wire/blob.h"
#include "wire/wire.h"

enum { BLOB = WIRE_KINDS, KINDS };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Every table unpacks it without leaving the message or the row. */
static void use_partial(const struct wire_partial *p, const struct wire_limits *lim, const uint8_t *end)
{
    const size_t n_widths = wire_partial_widths(lim);
    const uint8_t *at = p->packed;
    const struct kernels *k;
    double *sum = malloc(lim->d_model * sizeof *sum);
    require(sum != NULL);
    for (uint32_t t = 0; t < p->n_tokens; t++) {
        const uint8_t *width = p->width + t * n_widths;
        memset(sum, 0, lim->d_model * sizeof *sum);
        for (int i = 0; (k = kernels_available(i)); i++)
            k->add_packed(at, width, lim->d_model, sum);
        at += wire_packed_bytes(width, n_widths);
    }
    require(at == end);
    free(sum);
}

static void use_usage(const struct wire_usage *u)
{
    require(u->wire_ns <= u->run_ns && u->wait_ns <= u->run_ns - u->wire_ns && u->n_devices <= WIRE_DEVICES_MOST);
    for (uint32_t i = 0; i < u->n_devices; i++)
        require(u->devices[i].wait_ns <= u->devices[i].busy_ns && u->devices[i].live <= u->devices[i].neurons);
}

/* How many neurons the sender of ACTIVE has. */
static uint32_t n_own(const struct wire_limits *lim)
{
    return lim->n_vocab / 2;
}

static void use_active(const struct wire_active *a, const struct wire_limits *lim)
{
    require(a->layer < lim->n_layers && a->n_tokens >= 1 && a->n_tokens <= lim->n_batch);
    require(a->first[0] == 0 && a->first[a->n_tokens] == a->n_pairs);
    for (uint32_t t = 0; t < a->n_tokens; t++) {
        require(a->first[t] <= a->first[t + 1] && a->first[t + 1] <= a->n_pairs);
        for (uint32_t i = a->first[t]; i < a->first[t + 1]; i++) {
            require(a->index[i] < n_own(lim));
            require(i == a->first[t] || a->index[i - 1] < a->index[i]);
        }
    }
}

/* Of exactly what decoders take out of a message. */
static void *room_for(int kind, const struct wire_limits *lim)
{
    const size_t bytes = kind == WIRE_PARTIAL  ? lim->n_batch * wire_partial_widths(lim)
                                               : wire_active_pairs(lim, n_own(lim)) * sizeof(uint32_t);
    void *room = malloc(bytes);
    require(room != NULL);
    return room;
}

static void decode(int kind, uint8_t *in, size_t n, const struct wire_limits *lim)
{
    if (is_of_runs(kind)) {
        runs_decode(kind, in, n, lim);
        return;
    }
    void *room = room_for(kind, lim);
    struct wire_partial partial;
    struct wire_active active;
    struct wire_blob blob;
    struct wire_logits logits;
    uint64_t held_bytes;
    struct wire_usage usage;
    struct wire_hello hello;
    static struct wire_chunk chunks[WIRE_CHUNKS_MOST];
    uint32_t n_chunks = 0;
    char reason[WIRE_FAILED_MAX];
    struct wire_gpus gpus;
    struct wire_link link;
    if (kind == WIRE_PARTIAL && wire_partial_decode(in, n, lim, room, &partial) == ST_OK)
        use_partial(&partial, lim, in + n);
    if (kind == BLOB && wire_blob_decode(in, n, &blob) == ST_OK) {
        require(blob.offset <= blob.total && blob.n <= blob.total - blob.offset && blob.n <= WIRE_BLOB_PIECE);
        read_all(blob.bytes, blob.n);
    }
    if (kind == WIRE_ACTIVE && wire_active_decode(in, n, lim, n_own(lim), room, &active) == ST_OK)
        use_active(&active, lim);
    if (kind == WIRE_LOGITS && wire_logits_decode(in, n, lim, lim->n_vocab / 2, &logits) == ST_OK)
        read_all(logits.values, (size_t)logits.n_tokens * logits.n_rows * 4);
    if (kind == WIRE_READY && wire_ready_decode(in, n, &held_bytes) == ST_OK)
        read_all(&held_bytes, sizeof held_bytes);
    if (kind == WIRE_USAGE && wire_usage_decode(in, n, &usage) == ST_OK)
        use_usage(&usage);
    if (kind == WIRE_HELLO && wire_hello_decode(in, n, &hello) == ST_OK)
        require(memchr(hello.reason, 0, sizeof hello.reason) && memchr(hello.release, 0, sizeof hello.release) &&
                memchr(hello.settings, 0, sizeof hello.settings) &&
                memchr(hello.host.name, 0, sizeof hello.host.name));
    if (kind == WIRE_CHUNKS && wire_chunks_decode(in, n, lim->n_vocab, chunks, &n_chunks) == ST_OK)
        for (uint32_t i = 0; i < n_chunks; i++)
            require(chunks[i].chunk < lim->n_vocab && (i == 0 || chunks[i - 1].chunk < chunks[i].chunk));
    if (kind == WIRE_GPUS && wire_gpus_decode(in, n, &gpus) == ST_OK)
        require(gpus.n <= WIRE_GPUS_MOST);
    if (kind == WIRE_LINK && wire_link_decode(in, n, &link) == ST_OK)
        require(memchr(link.why_not, 0, sizeof link.why_not) != NULL);
    if (kind == WIRE_FAILED && wire_failed_decode(in, n, reason) == ST_OK)
        require(memchr(reason, 0, sizeof reason) != NULL);
    free(room);
}

/* Two live neurons for every token but the first. */
static size_t encode_active(uint32_t n_tokens, const struct wire_limits *lim, uint8_t *out, size_t cap)
{
    struct wire_active a = {.id = 1, .n_tokens = n_tokens, .n_pairs = 2 * (n_tokens - 1)};
    size_t size = wire_active_encode(&a, lim, out, cap);
    for (uint32_t t = 0; t <= n_tokens && size; t++)
        a.first[t] = t ? 2 * (t - 1) : 0;
    for (uint32_t i = 0; i < a.n_pairs && size; i++) {
        a.index[i] = 1 + i % 2;
        a.value[i] = 1;
    }
    return size;
}

/* A valid message of n_tokens into `out`, which is zero. Returns its size. */
static size_t encode(int kind, uint32_t n_tokens, const struct wire_limits *lim, uint8_t *out, size_t cap)
{
    static const uint8_t widths[] = {2, 3, 4, 5, 6, 8};
    struct wire_partial partial = {.id = 1, .part = n_tokens % 2, .n_tokens = n_tokens};
    struct wire_logits logits = {.id = 1, .n_rows = lim->n_vocab / 2};
    struct wire_hello hello = {.version = WIRE_VERSION};
    struct wire_usage usage = {.run_ns = 2, .wire_ns = 1};
    if (is_of_runs(kind))
        return runs_encode(kind, n_tokens, lim, out, cap);
    switch (kind) {
    case WIRE_PARTIAL:
        wire_partial_place(&partial, lim, out);
        for (size_t i = 0; i < n_tokens * wire_partial_widths(lim); i++)
            partial.width[i] = widths[i % sizeof widths];
        return wire_partial_encode(&partial, lim, out, cap);
    case BLOB:
        return wire_blob_encode(&(struct wire_blob){.total = 8, .offset = 2, .n = 4, .bytes = widths}, out, cap);
    case WIRE_ACTIVE:
        return encode_active(n_tokens, lim, out, cap);
    case WIRE_LOGITS:
        logits.n_tokens = n_tokens < WIRE_LOGIT_TOKENS ? n_tokens : WIRE_LOGIT_TOKENS;
        return wire_logits_encode(&logits, lim, out, cap);
    case WIRE_READY:
        return wire_ready_encode(1, out, cap);
    case WIRE_USAGE:
        usage.n_devices = n_tokens % (WIRE_DEVICES_MOST + 1);
        return wire_usage_encode(&usage, out, cap);
    case WIRE_CHUNKS:
        return wire_chunks_encode((const struct wire_chunk[]){{1, 2}, {4, 5}, {6, 7}}, n_tokens % 3 + 1, out, cap);
    case WIRE_GPUS:
        return wire_gpus_encode(&(struct wire_gpus){.n = n_tokens % (WIRE_GPUS_MOST + 1)}, out, cap);
    case WIRE_LINK:
        return wire_link_encode(&(struct wire_link){.why_not = "a reason"}, out, cap);
    case WIRE_HELLO:
        return wire_hello_encode(&hello, out, cap);
    default:
        return wire_failed_encode("a reason", out, cap);
    }
}

static void decode_changed(int kind, const uint8_t *data, size_t n, const struct wire_limits *lim)
{
    static _Alignas(64) uint8_t valid[1 << 21];
    void *message = NULL;
    size_t size = encode(kind, n ? data[0] % lim->n_batch + 1 : 1, lim, valid, sizeof valid);
    require(size > 0);
    if (posix_memalign(&message, 64, size) != 0)
        return;
    memcpy(message, valid, size);
    for (size_t i = 1; i < n && i <= size; i++)
        ((uint8_t *)message)[i - 1] ^= data[i];
    decode(kind, message, size, lim);
    free(message);
}

static void decode_as_is(int kind, const uint8_t *data, size_t n, const struct wire_limits *lim)
{
    void *message = NULL;
    if (posix_memalign(&message, 64, n) != 0)
        return;
    memcpy(message, data, n);
    decode(kind, message, n, lim);
    free(message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct wire_limits limits[] = {
        {.n_batch = 4, .n_ctx = 64, .n_vocab = 300, .n_layers = 3, .d_model = 32,
         .n_sequences = 4, .n_runs = 3, .n_pages = 5, .n_states = 8, .n_grammar_ops = 7},
        {.n_batch = 256, .n_ctx = 4096, .n_vocab = 49152, .n_layers = 30, .d_model = 20,
         .n_sequences = 64, .n_runs = 64, .n_pages = 1000},
        {.n_batch = 3, .n_ctx = 64, .n_vocab = 8, .n_layers = 3, .d_model = 64, .residual = true,
         .n_sequences = 1, .n_runs = 1, .n_pages = 1},
        {.n_batch = 5, .n_ctx = 64, .n_vocab = 8, .n_layers = 3, .d_model = 64, .residual = true, .n_experts = 6,
         .n_experts_used = 3, .n_weights = 4, .n_dense_layers = 1, .n_sequences = 1, .n_runs = 1, .n_pages = 1},
    };
    struct log_catcher quiet;
    if (n < 1)
        return 0;
    log_catch(&quiet);
    int which = data[0] % 64;
    const struct wire_limits *lim = &limits[which / KINDS % 4];
    (data[0] & 64 ? decode_changed : decode_as_is)(which % KINDS, data + 1, n - 1, lim);
    log_catch(NULL);
    return 0;
}
