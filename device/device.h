/* What a rank computes with: its CPU, its GPUs. One table of operations on opaque handles.
 *
 * A device owns its memory, its weights in a layout of its own, its pages of the KV cache and its scratch. It knows
 * neither ranks nor messages: the bytes that messages carry go in and out by export and import. The CPU's table
 * (device/cpu/table.h) is the reference; every other gives the same bits.
 *
 * How a token is made of them (worker/stage.c, block.c, head.c), on the device that is the home of x:
 *   embed                       x, the residual stream, from the tokens of a step
 *   for every layer             attention, then the FFN:
 *     norm                        what the part reads, from x
 *     part                        sums: what the own heads or neurons make of it
 *     add                         x += sums
 *   norm, logits                of the tokens after which one is drawn
 * Other holders have heads and neurons too. Between norm and add they get what the part reads (export_input here,
 * import_input there), compute theirs, and their sums are added to the own ones (export_sums, import_sums).
 *
 * A device belongs to the thread that opened it; only `need` may be called by any. Operations are begun in the order of
 * the calls and each sees what those before it have done. One that gives nothing back to the host may return before it
 * is done (`done`); one that does, returns when that is there. What a work and its batch point to is read before an
 * operation returns. None but need, open and load allocates.
 *
 * Errors: a failure is logged by the device, one line that says what and where. ST_NAN says that numbers are none (NaN,
 * infinities): a weight or a peer's message is damaged. A device that computes by itself may find it late: it is logged
 * by the next operation that waits (export_*, fire, logits), with what it was and where, and returned by the next one
 * that returns a status. What such an operation then gives is no numbers either. The same holds for a device that fails
 * (ST_INTERNAL): from then on it computes nothing, and all that it gives is NaN.
 *
 * Tokens of a step are written n, d_model d. */
#ifndef HEARTH_DEVICE_DEVICE_H
#define HEARTH_DEVICE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "sparsity/mode.h"

struct chunks;
struct kernels;
struct model;
struct neurons;
struct pool;

/* ---- what a step asks for ---- */

/* What several holders have parts of. */
enum device_part {
    DEVICE_ATTENTION, /* a layer's KV heads, with the query heads that share them */
    DEVICE_FFN,       /* a layer's neurons */
    DEVICE_OUTPUT,    /* the output matrix's rows */
    DEVICE_PARTS
};

enum { DEVICE_PAGE = 64 }; /* positions whose keys and values lie together */

/* States of delta nets are numbered from 1: first each sequence's own, then those that are kept for later. */
static inline uint32_t device_state_of(uint32_t sequence) { return sequence + 1; }

/* Consecutive tokens of one sequence. */
struct run {
    uint32_t sequence, position, n; /* n tokens, the first of them at `position` of the sequence */
    uint32_t begin_with, keep_as;   /* of delta nets, states by number, 0: none. Before anything of the step runs, the
                                     * sequence's own state becomes a copy of begin_with, in the order of runs (at
                                     * position 0 without one: zero); when all of it has run, keep_as a copy of the
                                     * own */
};

/* The runs of a step, their tokens one after the other; a sequence has one at most. */
struct batch {
    const struct run *runs;
    uint32_t n_runs, n_tokens;       /* n_tokens: of all runs together */
    const uint32_t *tables;          /* tables[sequence * stride + i]: the page of positions from i * DEVICE_PAGE on */
    uint32_t table_stride;
};

/* The run of a batch's token, whose number in that run *token becomes. */
static inline const struct run *batch_run(const struct batch *b, uint32_t *token)
{
    const struct run *r = b->runs;
    for (; *token >= r->n; r++)
        *token -= r->n;
    return r;
}

/* Where in its sequence a batch's token is. */
static inline uint32_t batch_position(const struct batch *b, uint32_t token)
{
    const struct run *r = batch_run(b, &token);
    return r->position + token;
}

struct work {
    enum device_part part;
    int layer;                 /* 0 for DEVICE_OUTPUT */
    uint32_t n;                /* tokens */
    const struct batch *batch; /* they are of; NULL where no operation asks which */
    const uint32_t *tokens;    /* [n] which of the batch; NULL: all */
};

/* ---- what a device holds ---- */

/* Neurons [begin, end) of a bundle (model/model.h). */
struct span {
    int32_t begin, end;
};

struct neuron_list {
    const struct span *spans; /* ascending, none empty, apart from each other */
    int n_spans;
    int bundle;               /* of the layer's, that they are neurons of */
};

static inline int64_t neuron_list_count(const struct neuron_list *l)
{
    int64_t n = 0;
    for (int i = 0; i < l->n_spans; i++)
        n += l->spans[i].end - l->spans[i].begin;
    return n;
}

struct shard_layer {
    int64_t head_begin, head_end; /* of n_kv_heads; equal: none */
    const struct neuron_list *sets; /* [n_sets] neurons that are rounded together, none empty; apart from each other */
    int n_sets;
    bool down;                    /* with their down projections; else there is one set at most, for `fire` */
};

/* The pieces of the model that a device keeps. */
struct shard {
    const struct shard_layer *layers; /* [n_layers] */
    int64_t row_begin, row_end;       /* of the output matrix's n_vocab rows */
    int first, last;                  /* layers whose residual stream is at home here: their norms and biases */
    bool embeds, ends;                /* the embedding; the norm before the output matrix */
    bool uses[2];                     /* which of its inputs and sums are used (enum device_use) */
    /* Neurons of other holders whose down projections are here: `project` takes the index. Some may be none. */
    const struct guest_neurons {
        int layer;
        struct neuron_list neurons;
    } *guests;
    int n_guests;
};

/* ---- what a dense run shows ---- */

/* Own neurons [first, first + n) of a layer, all of one bundle, and what they are for the tokens that need them. */
struct observed_neurons {
    int64_t first, n;
    uint32_t n_tokens;
    const uint32_t *token;         /* [n_tokens] which of the step's, ascending; NULL: all of them */
    const float *h;                /* [n_tokens, stride], n of each count: activations, times the weight of their
                                    * expert */
    int64_t stride;
};

struct observed {
    int layer;
    uint32_t n;                    /* tokens of the step */
    const float *x;                /* [n, d] normed, as neurons read it */
    const uint32_t *expert;        /* [n, n_experts_used] those that tokens have chosen; NULL: the layer has none */
    const float *weight;           /* [n, model_route_weights] theirs */
    const struct observed_neurons *neurons; /* [n_neurons] those that some token needs */
    int n_neurons;
};

struct device_options {
    int index;                     /* which of its kind it is: 1 of "cuda:1" */
    uint64_t vram_budget;          /* bytes that a GPU may take, 0: what is free */
    const struct model *model;     /* borrowed, all of them */
    const struct neurons *neurons; /* NULL: none */
    const struct shard *shard;
    enum sparse_mode sparse;       /* checked (sparse_mode_check) */
    enum predictor predictor;      /* not PREDICTOR_AUTO, where sparse is SPARSE_PREDICTED */
    float skip_share;              /* of neurons that `threshold` skips; 0: what the neuron file says */
    uint32_t n_ctx, n_batch;       /* positions of a sequence, tokens of a step, at most */
    uint32_t n_pages;              /* of the KV cache */
    uint32_t n_states;             /* of delta nets (device_states) */
    uint32_t n_passing;            /* x of so many steps lies in a GPU's memory on its way from or to another
                                    * (`passing`) */
    /* NULL, or called in a dense run after every FFN part of in[USE_OWN], of which the shard has one range of neurons a
     * bundle. What it is given is there until it returns. CPU only. */
    void (*observe)(void *arg, const struct observed *o);
    void *observe_arg;
    /* What the CPU computes with. A dry run needs no pool. */
    const struct kernels *kernels;
    struct pool *pool;             /* of n_threads */
    int n_threads;
};

/* Bytes that a device takes, known before anything is loaded. */
struct device_memory {
    uint64_t weights, kv, states, buffers; /* repacked matrices, norms, biases; the pages; states of delta nets;
                                            * activations, scratch */
    uint64_t total;                /* alignment included */
};

/* Told what is loaded. */
struct device_loading {
    struct chunks *chunks;         /* NULL, or told what of the model's file is read */
    void (*loaded)(void *arg, uint64_t bytes); /* so many more bytes of weights are in place; NULL: nobody asks */
    void *arg;
};

/* Work done since it was last asked for. */
struct device_counts {
    uint64_t bytes;                /* of weights read */
    uint64_t neurons;              /* looked at: held neurons times tokens */
    uint64_t flagged, live;        /* of them, those whose rows were read because a predictor said so; that fired */
};

/* ---- handles ---- */

struct input;  /* what a part reads: x normed, as floats, quantised or both; with x itself where predictors read that */
struct sums;   /* [n, d] a part of a block, exact: adding sums never rounds (kernels.h, SEGMENT_GRID) */

/* Who serves a request while it waits for answers of its own needs two of each. */
enum device_use { USE_OWN, USE_SERVED, DEVICE_USES };

struct device {
    const struct device_ops *ops;
    struct input *in[DEVICE_USES];    /* what the shard says is used; allocated at open */
    struct sums *sums[DEVICE_USES];
};

/* Bytes of an input in a message. */
struct input_bytes {
    int8_t *codes;   /* [n, d] in [-127, 127] and */
    float *scale;    /* [n, d / 32], finite; or */
    float *f32;      /* [n, d]; NULL: the codes count */
    float *residual; /* [n, d] x itself, or NULL */
    uint32_t *expert; /* [n, n_experts_used] those that tokens have chosen, the best first, each below n_experts and
                       * once; NULL: the part or layer has none */
    float *weight;   /* [n, model_route_weights] theirs, finite */
};

/* Bytes of sums in a message: a width for every 32 values of a token, then so many bytes for each of the 32
 * (kernels/sums.h). */
struct sum_bytes {
    uint8_t *width;  /* [n, ceil(d / 32)] each 2, 3, 4, 5, 6 or 8 */
    uint8_t *packed; /* 32 times the sum of the widths */
};

/* Neurons that fire, token by token, by their number among the holder's of the layer. */
struct live {
    uint32_t *first; /* [n + 1]: token t's are [first[t], first[t + 1]) */
    uint32_t *index; /* ascending within a token */
    float *value;
};

/* ---- the table ---- */

struct device_ops {
    const char *name;

    /* What open will take, to the byte. Thread-safe. ST_NOMEM, ST_USAGE, ST_UNSUPPORTED for a model that no such device
     * runs. */
    status (*need)(const struct device_options *o, struct device_memory *out);
    /* Takes it. What o points to is borrowed until close. Errors as need. */
    status (*open)(const struct device_options *o, struct device **out);
    void (*close)(struct device *d);
    /* Reads the shard's weights from the model's file and the neuron file, of which no byte is read later. */
    status (*load)(struct device *d, const struct device_loading *l);
    /* Copies a layer's keys and values of all positions of a page into another page. */
    void (*copy_page)(struct device *d, int layer, uint32_t from, uint32_t to);

    /* -- at home: x -- */
    /* x = the embedding of tokens [n], with learned positions. ST_NAN. */
    status (*embed)(struct device *d, const struct batch *b, const int32_t *tokens);
    /* x = from [b->n_tokens, d]. ST_NAN: `what` says whose they are ("the hidden state from rank 3"). */
    status (*import_states)(struct device *d, const struct batch *b, const float *from, const char *what);
    /* to [n, d] = x. */
    void (*export_states)(struct device *d, uint32_t n, float *to);
    /* The same from GPU to GPU, on what is one (else all three are NULL). passing(i) is memory of the device's own for
     * [n_batch, d], i below n_passing: give_states writes such memory, take_states reads any that it can read. Either
     * is done when it returns; a GPU that fails gives nothing, and `found` says so. */
    float *(*passing)(struct device *d, uint32_t i);
    void (*give_states)(struct device *d, uint32_t n, float *to);
    status (*take_states)(struct device *d, const struct batch *b, const float *from, const char *what);
    /* Says that messages lie in this memory of the host's, for as long as the device is open: what a GPU reads and
     * writes there it needs no copy for. Once at most. It need not be possible, which is said. NULL: a CPU needs
     * none. */
    void (*pin)(struct device *d, void *memory, size_t bytes);
    /* in[USE_OWN] = norm of x before this part, for the work's tokens. ST_NAN. */
    status (*norm)(struct device *d, const struct work *w);
    /* x += sums[USE_OWN] + the block's bias. Where attention and FFN read the same x (hp.parallel), attention's waits
     * until the FFN's is added. ST_NAN. */
    status (*add)(struct device *d, const struct work *w);

    /* -- in and out -- */
    /* x as part and layer read it: f32 where device_reads_floats says so, else codes and scale (to->f32 NULL). What was
     * normed here can be had as f32 in any case. */
    void (*export_input)(struct device *d, const struct work *w, const struct input *in, const struct input_bytes *to);
    /* The bytes stay where they are, and as they are, until nothing that reads the input is under way any more. */
    void (*import_input)(struct device *d, const struct work *w, const struct input_bytes *from, struct input *in);
    /* Packs sums [n, d]. f16: lossy, and shorter. */
    void (*export_sums)(struct device *d, uint32_t n, const struct sums *sums, bool f16, const struct sum_bytes *to);
    /* sums += packed ones. */
    void (*import_sums)(struct device *d, uint32_t n, const struct sum_bytes *from, struct sums *sums);
    /* sums = 0. */
    void (*clear_sums)(struct device *d, uint32_t n, struct sums *sums);

    /* -- parts -- */
    /* sums = attention of the own heads, whose keys and values of these tokens are kept; or the own neurons' part, down
     * projection included. The shard holds some. */
    void (*part)(struct device *d, const struct work *w, const struct input *in, struct sums *sums);
    /* Computes own neurons (of one set), whose down projection is elsewhere. Returns how many are live; `live` then
     * writes them, before the device computes anything else. */
    uint32_t (*fire)(struct device *d, const struct work *w, const struct input *in);
    void (*live)(struct device *d, const struct work *w, const struct live *to);
    /* sums += the down projection of a guest's live neurons. */
    void (*project)(struct device *d, const struct work *w, int guest, const struct live *from, struct sums *sums);
    /* logits[t * stride + i] = own row i of the output matrix times token t. */
    void (*logits)(struct device *d, const struct work *w, const struct input *in, float *logits, int64_t stride);

    /* -- the end of a step, on logits [n, n_vocab] in the host's memory -- */
    /* ST_NAN. */
    status (*check_logits)(struct device *d, const struct work *w, const float *logits);
    /* scores[i] = minus the log probability of word next[i] (-1: as if its logit were 0). The logits are used up. */
    void (*score)(struct device *d, uint32_t n, float *logits, const int32_t *next, float *scores);

    /* What was found late and has not been returned yet: ST_NAN, ST_INTERNAL. Asked before anything that came from the
     * device leaves the rank: others would look for its cause where they are. */
    status (*found)(struct device *d);
    /* Work done since the last call. */
    struct device_counts (*counts)(struct device *d);
    /* Whether all that was begun is done: true for a device that computes while it is called. */
    bool (*done)(struct device *d);
};

/* ---- what every device of every rank decides alike, from model and modes ---- */

/* Whether anybody reads a part's input as floats: it is then sent so. */
bool device_reads_floats(const struct device_options *o, enum device_part part, int layer);
/* Whether predictors read x itself: an input for the FFN then has it (a PowerInfer model's own). */
bool device_reads_residual(const struct device_options *o);

/* Numbers of a model that cutting it and sending of it need. */
struct device_shape {
    const struct model *model; /* borrowed, for device_heads */
    int n_layers;
    int64_t d_model, n_vocab;
    int64_t n_experts, n_experts_used; /* of layers from n_dense_layers on; 0: none have any */
    int64_t n_weights; /* of a token there (model_route_weights) */
    int n_dense_layers;
};
struct device_shape device_shape(const struct model *m);
/* Heads of a layer that are cut over holders (model_heads). */
int64_t device_heads(const struct device_shape *s, int layer);
/* States that n_sequences need: one for each, and as many in which beginnings are kept; 0: the model has no delta
 * nets. */
uint32_t device_states(const struct model *m, uint32_t n_sequences);

#endif
