/* Messages between ranks: layouts, encode, decode. All integers little-endian. A decoder never trusts a byte: it checks
 * every count against the message's size and the limits, and points into the message instead of copying. A sender may
 * write to a message while it is read: numbers are loaded once, and what could lead out of bounds (tokens, widths,
 * indices) is copied to memory that the caller lends, and checked there. What stays in the message are values. Messages
 * start on a multiple of 64, for encoding and decoding. What is not a count is checked where a reader relies on it:
 * tokens are in the vocabulary, codes not -128, scales and sampling parameters finite; hidden states, x in f32, sums,
 * activations and values are a peer's arithmetic and may be anything, as may its counts of work. Stateless and
 * thread-safe.
 *
 * Every encoder returns the message's size, 0 if `cap` is too small; every decoder ST_FORMAT (logged) unless each field
 * obeys the limits and the size is exact, and then leaves its output alone. Pointers in the structs point into the
 * message: where the caller puts a payload after encoding, and finds it after decoding (or into the copy). _max: the
 * largest size.
 *
 * coordinator -> first stage   STEP      runs of tokens of some sequences, on which pages of the KV cache they lie, and
 *                                          what is wanted of each run
 * stage -> next stage          HIDDEN    the same step with its hidden states; or STEP, where they go from GPU to GPU:
 *                                STATES    f32 [n_tokens, d_model] of the STEP before, which lies in GPU memory
 *   stage -> owners              REQUEST   x of a layer's attention or FFN, or of the output matrix; the owners answer
 *   owner -> stage               PARTIAL   its partial sum; or ACTIVE, its live activations, where the stage holds the
 *                                          down projection; LOGITS, its rows of the output matrix
 *                                          Where all ranks have the residual stream nobody asks: the home begins a
 *                                          step by sending HIDDEN to all others, each owner sends PARTIAL to all
 *                                          others, and LOGITS to the home
 *   last stage -> coordinator    RESULT    what was wanted of each run: tokens, scores, logits and the like
 *   any -> any                   FAILED    why this rank cannot go on; who prints it puts "rank N: " in front
 *   coordinator -> all           STOP      end of service
 *   coordinator -> all           QUERY     what has this rank sent, and where did its time go? Each answers USAGE
 *   start-up                     HELLO     who I am, first of all in every release; the coordinator answers WELCOME or
 *                                          FAILED
 * GPUS      which GPUs I have; the coordinator answers with those of every rank, in their
 *                                          order
 *                                HELLO     again, with the plan that follows; then CHUNKS, what of the file was loaded
 *                                          from, and READY
 *                                LINK      where stages that follow each other are on GPUs, after the second WELCOME:
 *                                          whether this rank can join its GPU to another; rank 0 answers all whether
 *                                          they are joined
 *
 * STEP, HIDDEN, REQUEST and RESULT are in wire/runs.h. */
#ifndef HEARTH_WIRE_WIRE_H
#define HEARTH_WIRE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

enum wire_kind {
    WIRE_HELLO, WIRE_WELCOME, WIRE_STEP, WIRE_HIDDEN, WIRE_REQUEST, WIRE_PARTIAL, WIRE_RESULT, WIRE_FAILED, WIRE_STOP,
    WIRE_READY, WIRE_LOGITS, WIRE_ACTIVE, WIRE_QUERY, WIRE_USAGE, WIRE_CHUNKS,
    WIRE_GPUS, WIRE_LINK, WIRE_STATES,
    WIRE_KINDS
};

enum { WIRE_VERSION = 14, WIRE_HEADER = 64 }; /* payloads that are read by kernels start WIRE_HEADER bytes in:
                                               * aligned */

/* "STEP". */
const char *wire_name(int kind);

/* Work done for a step, over all layers and ranks that have had it so far. */
struct wire_counts {
    uint64_t bytes;   /* of weights read */
    uint64_t neurons; /* looked at: held neurons times tokens */
    uint64_t flagged; /* of them, those whose rows were read because a predictor or an estimate said so */
    uint64_t live;    /* of them, those that fired */
};

static inline void wire_counts_add(struct wire_counts *sum, const struct wire_counts *c)
{
    sum->bytes += c->bytes;
    sum->neurons += c->neurons;
    sum->flagged += c->flagged;
    sum->live += c->live;
}

/* What messages may hold at most; the same on every rank, from the model and the options. */
struct wire_limits {
    uint32_t n_batch, n_ctx, n_vocab, n_layers, d_model; /* n_batch: tokens of a step; n_ctx: of a sequence */
    bool residual; /* every request for an FFN carries the residual stream, none otherwise */
    uint32_t n_experts, n_experts_used; /* of layers from n_dense_layers on; 0: none have any */
    uint32_t n_weights; /* of a token there: of its experts, and perhaps of what is shared */
    uint32_t n_dense_layers;
    uint32_t n_sequences, n_pages, n_runs; /* n_sequences: WIRE_SEQUENCES at most; n_runs: of a step */
    uint32_t n_grammar_ops; /* of the grammars that begin in a step, together; 0: there are none. UINT16_MAX at most */
    uint32_t n_states; /* of delta nets: one for each sequence, then those that are kept; 0: the model has no such
                        * net */
};

/* What several ranks hold parts of. */
enum wire_part {
    PART_ATTENTION, /* a layer's KV heads: x of consecutive tokens, whose keys and values the owner keeps */
    PART_FFN,       /* a layer's neurons */
    PART_OUTPUT,    /* the output matrix's rows */
    WIRE_PARTS
};

/* How REQUEST carries x. */
enum wire_form {
    FORM_Q8,  /* what quantised kernels read: codes i8 [n, d_model], scale f32 [n, d_model / WIRE_CODES] */
    FORM_F32  /* f32 [n, d_model] */
};
enum { WIRE_CODES = 32 };

/* LOGITS, what an owner has of the output matrix's product: WIRE_HEADER bytes, then values f32 [n_tokens, n_rows] of
 * the owner's rows. */
enum { WIRE_LOGIT_TOKENS = 16 }; /* tokens whose logits are asked for together, at most */
struct wire_logits {
    uint64_t id;
    uint32_t n_tokens, n_rows;
    struct wire_counts counts;
    uint64_t busy_ns; /* that the owner took for it: how much of a wait is the wire's */
    float *values; /* into the message */
};
size_t wire_logits_encode(struct wire_logits *l, const struct wire_limits *lim, uint8_t *out, size_t cap);
/* n_rows must be what the plan gives the sender. */
status wire_logits_decode(uint8_t *in, size_t n, const struct wire_limits *lim, uint32_t n_rows, struct wire_logits *l);
size_t wire_logits_max(uint32_t n_rows);

/* PARTIAL: WIRE_HEADER bytes, then a width u8 for every WIRE_SUMS values of a token [n_tokens, ceil(d_model /
 * WIRE_SUMS)], then from a multiple of 64 on the sums themselves, WIRE_SUMS times the width in bytes each
 * (kernels/sums.h says how they lie). Widths of 3 and more are exact: with less the result would depend on where heads
 * and neurons are cut. Width 2 is f16, sent where the ranks have agreed to that (HELLO's settings). */
enum { WIRE_SUMS = 32 };
struct wire_partial {
    uint64_t id;
    uint32_t part;      /* PART_ATTENTION or PART_FFN */
    uint32_t layer, n_tokens;
    struct wire_counts counts;
    uint64_t busy_ns; /* as in LOGITS */
    uint8_t *width;  /* into the message */
    uint8_t *packed;
};
/* Sets the pointers to where the caller puts widths and sums of p->n_tokens tokens; `out` has room for the largest. */
void wire_partial_place(struct wire_partial *p, const struct wire_limits *lim, uint8_t *out);
/* Then writes what goes around them. */
size_t wire_partial_encode(const struct wire_partial *p, const struct wire_limits *lim, uint8_t *out, size_t cap);
/* Every width is 2, 3, 4, 5, 6 or 8, and their sum is the message's size. `in` is aligned to 64 bytes. width
 * [limits.n_batch, wire_partial_widths]: takes the copy that p->width points to. */
status wire_partial_decode(uint8_t *in, size_t n, const struct wire_limits *lim, uint8_t *width,
                           struct wire_partial *p);
size_t wire_partial_max(const struct wire_limits *lim);
/* Of a token. */
static inline size_t wire_partial_widths(const struct wire_limits *lim)
{
    return (lim->d_model + WIRE_SUMS - 1) / WIRE_SUMS;
}
/* Bytes of the first n widths' sums. */
size_t wire_packed_bytes(const uint8_t *width, size_t n);

/* ACTIVE, the answer of an owner that has no down projection: its live neurons, token by token, by their own index (the
 * sender's neurons of the layer numbered from 0 in ascending order). WIRE_HEADER bytes, then first u32 [n_tokens + 1],
 * index u32 [n_pairs], value f32 [n_pairs], each starting on a multiple of 64. */
struct wire_active {
    uint64_t id;
    uint32_t layer, n_tokens, n_pairs;
    struct wire_counts counts;
    uint64_t busy_ns; /* as in LOGITS */
    uint32_t *first; /* into the message: pairs [first[t], first[t + 1]) are token t's; first[n_tokens] is n_pairs */
    uint32_t *index; /* ascending within a token */
    float *value;    /* activations, finite */
};
/* Writes the header and sets the pointers to where the caller puts the arrays. */
size_t wire_active_encode(struct wire_active *a, const struct wire_limits *lim, uint8_t *out, size_t cap);
/* n_own: how many neurons the plan gives the sender. `in` is aligned to 64 bytes. pairs [wire_active_pairs]: takes the
 * copies that a->first and a->index point to. */
status wire_active_decode(uint8_t *in, size_t n, const struct wire_limits *lim, uint32_t n_own, uint32_t *pairs,
                          struct wire_active *a);
size_t wire_active_pairs(const struct wire_limits *lim, uint32_t n_own);
size_t wire_active_max(const struct wire_limits *lim, uint32_t n_own);

/* Whose memory a rank shares with others (base/machine.h). */
struct wire_host {
    char name[64];                     /* NUL-terminated, printable after decoding */
    uint64_t id, memory_bytes;         /* of the machine; id 0: unknown */
    uint64_t limit_id, limit_bytes;    /* of the cgroup that limits it there; limit_id 0: none does */
};

/* HELLO: everything that ranks must agree in, and what they need. */
struct wire_hello {
    uint32_t version;      /* WIRE_VERSION */
    char release[16];      /* hearth's version, NUL-padded */
    uint64_t file_bytes, file_hash, plan_hash;
    uint64_t settings_hash; /* of everything else that changes results: */
    char settings[128];    /* the same for people, such as "sparse exact, activation relu"; as `reason` below */
    uint32_t n_ctx, n_batch, n_sequences, n_pages, n_grammar_ops;
    uint64_t need_bytes;   /* memory that this rank computed for itself */
    struct wire_host host; /* where it is */
    uint32_t failed;       /* this rank already knows that it cannot go on: reason says why */
    char reason[256];      /* NUL-terminated, printable after decoding */
};
enum { WIRE_HELLO_MAX = 768 };
size_t wire_hello_encode(const struct wire_hello *h, uint8_t *out, size_t cap);
/* The leading version is readable in every version: a hello of another version decodes with only `version` and
 * `release` set. */
status wire_hello_decode(const uint8_t *in, size_t n, struct wire_hello *h);

/* GPUS: those of a rank, and what they would have of its part of a plan or need by a plan. */
enum { WIRE_GPUS_MOST = 16, WIRE_GPUS_MAX = 4 + WIRE_GPUS_MOST * 52 };
struct wire_gpus {
    uint32_t n;                        /* WIRE_GPUS_MOST at most */
    struct wire_gpu {
        uint8_t id[16];                /* of the card: ranks of one host may see the same */
        uint32_t layers;               /* whole ones, the output matrix being one more */
        uint64_t bytes;                /* if there are none: what gains most, so many bytes of the model at most */
        uint64_t marks;                /* else: all but neurons, and those that a split file marks: its hash */
        uint64_t need_bytes, free_bytes;
    } at[WIRE_GPUS_MOST];
};
size_t wire_gpus_encode(const struct wire_gpus *g, uint8_t *out, size_t cap);
status wire_gpus_decode(const uint8_t *in, size_t n, struct wire_gpus *out);

/* LINK: a card, which may be of several ranks, then text. */
enum { WIRE_LINK_MAX = 16 + 255 };
struct wire_link {
    uint8_t id[16];
    char why_not[256];                 /* "": it can be; printable after decoding */
};
size_t wire_link_encode(const struct wire_link *l, uint8_t *out, size_t cap);
status wire_link_decode(const uint8_t *in, size_t n, struct wire_link *out);

/* CHUNKS: hashes of chunks of the model file, n of them (1 or more), in ascending order of chunks; several messages
 * where one cannot hold them. A header of 8 bytes, then u32 chunk, u64 hash, n times. */
enum { WIRE_CHUNKS_MOST = 1024, WIRE_CHUNKS_MAX = 8 + 12 * WIRE_CHUNKS_MOST };
struct wire_chunk {
    uint32_t chunk;
    uint64_t hash;
};
/* n <= WIRE_CHUNKS_MOST. */
size_t wire_chunks_encode(const struct wire_chunk *entries, uint32_t n, uint8_t *out, size_t cap);
/* Copies them. n_chunks: how many the file has. */
status wire_chunks_decode(const uint8_t *in, size_t n, uint32_t n_chunks, struct wire_chunk entries[WIRE_CHUNKS_MOST],
                          uint32_t *n_entries);

/* READY: how many bytes of memory the process really holds. */
enum { WIRE_READY_SIZE = 8 };
size_t wire_ready_encode(uint64_t held_bytes, uint8_t *out, size_t cap);
status wire_ready_decode(const uint8_t *in, size_t n, uint64_t *held_bytes);

/* USAGE: since this rank's start. Times are those of the steps that it ran as a stage: what it did not spend computing
 * went by while owners computed longer than itself (wait), or for messages (wire); both are parts of run. */
enum { WIRE_DEVICES_MOST = WIRE_GPUS_MOST + 1, WIRE_USAGE_MAX = 44 + WIRE_DEVICES_MOST * 40 };
struct wire_usage {
    uint64_t messages, bytes; /* sent to other ranks */
    uint64_t run_ns, wire_ns, wait_ns;
    uint32_t n_devices;       /* of this rank, WIRE_DEVICES_MOST at most, in the plan's order; the CPU is the first */
    struct wire_device {
        uint64_t bytes;       /* of weights that it has read */
        uint64_t neurons;     /* looked at: held neurons times tokens */
        uint64_t live;        /* of them, those that fired */
        uint64_t busy_ns;     /* from when it was given parts until the rank saw them done, for whichever rank they
                               * are */
        uint64_t wait_ns;     /* of it, while the rank could do nothing else; all of it where the rank itself
                               * computes */
    } devices[WIRE_DEVICES_MOST];
};
size_t wire_usage_encode(const struct wire_usage *u, uint8_t *out, size_t cap);
/* ST_FORMAT too if parts exceed the whole. */
status wire_usage_decode(const uint8_t *in, size_t n, struct wire_usage *u);

/* FAILED: a printable reason of at most 255 bytes (WELCOME, STOP and QUERY have no body: size 0). */
enum { WIRE_FAILED_MAX = 256 };
size_t wire_failed_encode(const char *reason, uint8_t *out, size_t cap);
status wire_failed_decode(const uint8_t *in, size_t n, char reason[WIRE_FAILED_MAX]);

#endif
