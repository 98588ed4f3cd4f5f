/* The parts of a worker, shared by the files of this folder. d_model is written d, tokens of a step n. */
#ifndef HEARTH_WORKER_INTERNAL_H
#define HEARTH_WORKER_INTERNAL_H

#include "base/arena.h"
#include "base/threads.h"
#include "kernels/columns.h"
#include "kernels/rows.h"
#include "sampling/sampler.h"
#include "worker/worker.h"

enum {
    QUERY_ROWS = 32, /* query vectors of one KV head that one piece of attention takes together */
    LOGIT_ROWS = WIRE_LOGIT_TOKENS, /* tokens whose logits are computed together when a text is scored */
    PIECE_PAIRS = 32768, /* pairs of a neuron and a token that a thread takes together, if a piece has more neurons than: */
    PIECE_NEURONS = 32,
    MOST_PIECE = 512, /* neurons of a piece: the top bits of their rows stay in the second-level cache */
    MOST_HEAD_DIM = 1024, /* values of a head, so that one converts on the stack */
    STAGE_BUFFERS = 2, /* hidden states on their way to the next stage; parts on their way to all others */
    MULTICASTS = 3 + STAGE_BUFFERS
};

/* The weights of a norm; hp.norm says of which kind. */
struct norm_weights {
    float *weight, *bias;            /* [d]; bias NULL: none */
};

/* What a layer of this rank's stage has beside its shards, f32; NULL: the model has none. */
struct stage_layer {
    struct norm_weights attn_norm, ffn_norm;
    float *o_bias, *down_bias;       /* [d] */
};

/* This rank's KV heads of a layer, and the query heads that share them. Weight matrices are packed, vectors are f32;
 * NULL: the model has none. */
struct heads {
    int64_t begin, end;              /* of n_kv_heads; equal: none */
    struct packed q, k, v;           /* [own heads * head_dim, d] */
    struct packed o;                 /* [d, own query heads * head_dim], in segments that end where head units do */
    float *q_bias, *k_bias, *v_bias;
    float *q_norm, *k_norm;          /* [head_dim] */
    uint16_t *k_cache;               /* [pages, own KV heads, KV_PAGE / KV_TILE, head_dim, KV_TILE] f16 */
    uint16_t *v_cache;               /* [pages, own KV heads, KV_PAGE, head_dim] f16 */
    uint32_t length;                 /* tokens in the cache */
};

/* A set of neurons of a layer, numbered 0 .. n - 1 in ascending order: the own index. Activations have 32 slots for
 * each block of the file that has a neuron in the set (kernels/columns.h). Arrays are the arena's. */
struct neuron_set {
    int64_t n, n_blocks;
    bool whole;                      /* one range of whole units: slots are own indices */
    int32_t *ids;                    /* [n] numbers in the file */
    int32_t *slot;                   /* [n] */
    int32_t *block;                  /* [n_blocks] numbers of the blocks in the file */
    int32_t *column;                 /* [n_blocks * 32] own index, -1: not in the set */
};

/* The down projection of a set of neurons. */
struct down {
    const struct neuron_set *set;    /* NULL: not here */
    bool by_column;                  /* the live neurons' columns are read, else all of the matrix */
    struct packed matrix;            /* [d, n] */
    struct neuron_columns columns;
};

/* How a layer decides which of its neurons are computed. */
enum decision {
    DECIDE_NOT,       /* all of them: dense */
    DECIDE_GATE,      /* the gate of all, up and down of those that fire */
    DECIDE_ESTIMATE,  /* the gate of those whose estimate exceeds their bound */
    DECIDE_MLP,       /* the gate of those that an MLP flags */
    DECIDE_PRODUCT    /* gate and up of those whose estimated activation is large */
};

/* Above this share of firing neurons a layer is computed whole: single rows and columns gain nothing. */
#define DENSE_FROM 0.7f

/* This rank's neurons of a layer. In a layer without a gate, up is in its place and `up` is empty. */
struct shard {
    struct neuron_set set;
    enum decision decision;
    bool has_gate;
    struct packed gate, up;            /* [n, d] where all are computed */
    struct neuron_rows gate_rows, up_rows; /* [n, d] where single ones are */
    float *bias;                       /* [n] of the gate's place, or NULL */
    struct packed fc1, fc2;            /* [r, d], [n, r] */
    float fc2_threshold;
    float *bound;                      /* [n] DECIDE_ESTIMATE */
    float *gate_slope, *gate_offset;   /* [n] DECIDE_PRODUCT: what estimates of the gate stand for */
    float *up_slope, *up_offset;       /* [n] the same of up, times the neuron's weight */
    float skip;                        /* products that are smaller */
    struct down down;
    uint64_t seen, fired;              /* DECIDE_GATE: pairs of a neuron and a token so far, and those that fired */
};

/* This rank's rows of the output matrix. */
struct rows {
    int64_t begin, end;              /* of n_vocab; equal: none */
    struct packed weights;           /* [end - begin, d] */
};

/* Memory lent to the transport, for what is longer than a slot. */
struct room {
    int from, channel;
    size_t bytes;
    void *memory;
};

/* A message this rank sends again and again. */
struct outbox {
    uint8_t *buffer;
    size_t capacity;
    struct send send;                /* one under way at most */
};

/* What a thread needs to compute single neurons: pairs of an own neuron and a token for which it is computed. */
struct live_scratch {
    int32_t *row, *token;            /* [n_pairs] */
    float *gate, *up;                /* [n_pairs] */
    struct wire_counts counts;       /* of this thread, since they were collected */
};

/* What a thread needs for attention. */
struct attention_scratch {
    float *q, *out;                  /* [QUERY_ROWS, head_dim] */
    float *scores;                   /* [QUERY_ROWS, score_stride] */
    const uint16_t **keys, **values; /* [kv_pages] of a KV head */
};

/* The angles of rotated positions. */
struct angles {
    uint32_t position, n;            /* of n tokens from position on */
    float *cos_sin;                  /* [n, n_rot] */
};

/* A part of a step: what is asked for and answered. */
struct task {
    enum wire_part part;
    int layer;                       /* 0 for PART_OUTPUT */
    uint64_t step;
    uint32_t position, n;            /* n tokens from position on */
};

/* A message that goes to several ranks: a send each. */
struct multicast {
    uint8_t *buffer;
    size_t capacity;
    struct send *sends;              /* [n_ranks] */
};

/* PARTIALs of one rank that came before their block began, the oldest first. They lie where they arrived; the transport
 * lets nobody hold more, nor more than one that is longer than a slot. */
struct ahead {
    struct arrival held[TRANSPORT_SLOTS];
    unsigned first, n, most;         /* most 0: that rank sends none unasked */
};

/* The layers whose residual stream this rank has. Where the plan has it on all ranks, each that takes part runs all
 * layers; the first and last stage is then the home, which gets the steps and passes them on. */
struct stage {
    int first, last;                 /* layers [first, last); equal: none */
    bool embeds;                     /* its steps are tokens, not hidden states: it has */
    uint8_t *embedding, *positions;  /* [n_vocab, d], [n_ctx, d] (or NULL: not learned), rows as the file has them */
    bool is_last;                    /* it samples */
    int before, next;                /* ranks that its steps come from and go to; next -1: they end here */
    struct stage_layer *layers;      /* [last - first] */
    struct norm_weights out_norm;    /* where logits are computed of the residual stream */
    uint32_t length;                 /* tokens in the KV cache */
    struct wire_counts counts;       /* of the step under way, on all ranks so far */

    float *x;                        /* [n, d] the residual stream */
    struct acts in;                  /* [n, d] what a block reads */
    float *y;                        /* [n, d] attention's output, where it runs in parallel with the FFN: it waits here
                                        for the FFN's end, for the FFN reads the layer's input */
    double *own;                     /* [n, d] the part of a block that is computed here; then the others' too */
    double *other;                   /* [n, d] the part of another owner's activations; NULL where the plan has none */
    struct neuron_set *sets;         /* [(last - first), n_ranks] the owners' neurons of layers whose */
    struct down *downs;              /* [(last - first), n_ranks] down projections lie here */
    float *logits;                   /* [LOGIT_ROWS, n_vocab], last stage */
    float *scores;                   /* [n_batch] minus log probabilities, last stage */

    /* What is taken out of messages before it is checked: */
    uint8_t *tokens;                 /* [n] i32 of the step under way (wire_token) */
    uint8_t *widths;                 /* [n, wire_partial_widths] of a PARTIAL */
    uint32_t *pairs;                 /* [wire_active_pairs] of an ACTIVE; NULL where none comes */
    struct outbox hidden[STAGE_BUFFERS]; /* to the next stage */
    int hidden_turn;
    struct multicast request;        /* x to the owners */
    struct multicast step;           /* HIDDEN, from the home to all others that take part */
    struct multicast shared[STAGE_BUFFERS]; /* PARTIAL to all others that take part */
    int shared_turn;
    struct ahead *ahead;             /* [n_ranks] */
    struct outbox result;
    struct sampler sampler;          /* last stage */
    struct sampler_scratch picking;
};

struct worker {
    struct worker_options o;
    int rank, n_ranks;
    struct wire_limits limits;
    struct arena arena;
    uint64_t weight_bytes, kv_bytes; /* of the arena */
    struct pool *pool;
    struct stage stage;
    struct heads *heads;             /* [n_layers] */
    struct shard *shards;            /* [n_layers] */
    struct rows rows;

    /* What serving and the own part of a block need: never two at a time. */
    struct acts request;             /* [n, d] x of a received request */
    double *rope_freq;               /* [n_rot / 2] */
    struct angles angles;
    float *q, *k, *v;                /* [n, own heads of a layer * head_dim] */
    struct acts mixed;               /* [n, own query heads of a layer * head_dim] what attention gives */
    struct attention_scratch *scratch; /* [n_threads] */
    int64_t score_stride;
    struct acts residual;            /* [n, d] what a PowerInfer model's predictors read */
    double *sum;                     /* [n, d] the answer to it, before it is packed */
    float *gate, *up;                /* [n, widest own shard] */
    struct acts activated;           /* [n, slots of the widest set] */
    struct acts hidden;              /* [n, widest r] of an MLP */
    struct lane_acts lanes;          /* [n, d] x, for single rows */
    struct live_scratch *live;       /* [n_threads] */
    uint8_t *aside;                  /* rows or columns of a layer whose layout changes; NULL: none ever does */
    int64_t most_pairs;              /* of a thread */
    struct wire_counts counts;       /* since they were collected */
    struct outbox *replies;          /* [n_ranks] PARTIAL to each stage that may ask */
    struct outbox logits_reply;      /* LOGITS to the last stage */
    struct multicast refusal;        /* FAILED to who sent a request that cannot be answered, and to rank 0 */
    struct room *rooms;              /* [n_rooms] lent to the transport */
    int n_rooms;
    struct wire_usage usage;         /* since the start; the transport knows what was sent */
    struct outbox usage_reply;
    uint64_t asked_ns, slowest_ns;   /* the exchange under way: its begin, and the longest that an owner computed */
    bool moving;                     /* messages of the work at hand are longer than a transport holds by itself */
    uint64_t served_ns;              /* when the request began that is being served */
    unsigned polls;                  /* in a row that found nothing */
};

/* layout.c: hands out every array from w->arena; the same code on a dry arena counts. */
status worker_lay_out(struct worker *w);
float *lay_floats(struct worker *w, int64_t n);
void lay_matrix(struct worker *w, struct packed *p, const struct matrix *m, int64_t rows, int64_t cols);
float *lay_vector(struct worker *w, const struct matrix *m); /* NULL: the model has none */
void lay_acts(struct worker *w, struct acts *a, int64_t n, int64_t cols);
/* heads_layout.c: the KV heads of all layers: weights; caches; what computing needs. */
void worker_lay_heads(struct worker *w);
void worker_lay_caches(struct worker *w);
void worker_lay_attention(struct worker *w);
/* shard_layout.c: the neurons of all layers. */
struct widths {
    int64_t neurons, slots, hidden; /* the most of a layer: own neurons, slots of a set, hidden values of an MLP */
    bool sparse;                    /* single neurons are computed in some layer */
    size_t aside;                   /* bytes that changing a layer's layout needs beside the layer */
};
struct widths worker_lay_shards(struct worker *w);
/* Whether predictors read the un-normalised residual stream (a PowerInfer model's own). */
bool mlp_reads_residual(const struct worker_options *o);

/* load.c: fills in the weights. */
struct loading {
    struct worker *w;
    uint64_t done, total, shown; /* bytes of the arena */
};
status worker_load(struct worker *w);
/* Counts bytes of the arena that are filled in, and shows them now and then. */
void loading_done(struct loading *l, uint64_t bytes);
/* Says that rows [row, row + n) will be read, whole: before that is done. */
void loading_reads(struct loading *l, const struct matrix *from, int64_t row, int64_t n);
/* Rows [row, row + to->rows), columns [col, col + to->cols) of `from`. */
void load_slice(struct loading *l, struct packed *to, const struct matrix *from, int64_t row, int64_t col);
void load_vector(struct loading *l, float *to, const struct matrix *from);
/* Rows [row, row + n) as the file has them. */
void load_bytes(struct loading *l, uint8_t *to, const struct matrix *from, int64_t row, int64_t n);
/* Rows ids[i] of `from`, all of their columns. */
void load_packed(struct loading *l, struct packed *to, const struct matrix *from, const int32_t *ids);
void load_shard(struct loading *l, int layer);
void load_heads(struct loading *l, int layer);

/* exchange.c */
status send_wait(struct worker *w, struct send *s);      /* until it is done, serving meanwhile */
status outbox_wait(struct worker *w, struct outbox *b); /* the same for its last send */
status outbox_send(struct worker *w, struct outbox *b, int to, int kind, size_t size);
/* The same for a message to several ranks, before its buffer is written to. */
status multicast_wait(struct worker *w, struct multicast *m);
/* Starts sending it to one of them. */
status multicast_send(struct worker *w, struct multicast *m, int to, int kind, size_t size);
/* Serves what requests have arrived (and ends with ST_PEER at a FAILED), then looks for a message whose kind is in
 * `kinds`: *found, it is in *a and the caller's to release. w->polls starts anew when there was anything. */
status serve_or_find(struct worker *w, uint32_t kinds, struct arrival *a, bool *found);
/* What follows has messages of n tokens. Long ones move on while this rank computes: their sender, or whom they are for,
 * must lend a hand for every few slots of them. */
void keep_moving(struct worker *w, uint32_t n);
void move_messages(void *worker);
/* Between polls that found nothing: gives the processor away, the longer the wait the more. */
void be_idle(struct transport *t, unsigned *polls);

/* stage.c */
status stage_run(struct worker *w, struct arrival *a);
/* norm.c: stage.in = norm(x[n, d]), quantised too if kernels will read it so, for the task's n tokens. ST_NAN, logged. */
status norm_tokens(struct worker *w, struct norm_weights norm, const float *x, const struct task *t);
/* numbers.c: whether x[0 .. n) has neither NaN nor infinities. */
bool all_numbers(const float *x, int64_t n);
/* ST_NAN, logged: x[t->n, n], which `what` made ("attention"), has one of them. */
status not_numbers(const struct worker *w, const struct task *t, const char *what, const float *x, int64_t n);
/* attention.c: sum[n, d] = the part of this rank's heads of a layer, for n tokens from position on, whose keys and
 * values are kept. */
void attention_compute(struct worker *w, int layer, const struct acts *x, uint32_t position, uint32_t n, double *sum);
/* kv.c: stores a token's keys and values at a position. */
void kv_store(const struct worker *w, const struct heads *own, uint32_t position, const float *k, const float *v);
/* Pages that n_ctx positions take. */
int64_t kv_pages(const struct worker *w);
/* f16 elements of a layer's keys, or values. */
size_t kv_elements(const struct worker *w, const struct heads *h);
/* A page of own KV head `head`'s keys, and of its values. */
const uint16_t *kv_keys(const struct worker *w, const struct heads *own, int64_t page, int64_t head);
const uint16_t *kv_values(const struct worker *w, const struct heads *own, int64_t page, int64_t head);
/* readers.c: who reads an activation of a layer (0 where there is none): codes, floats, or both; on any rank. */
enum operand {
    X_OF_ATTENTION, X_OF_FFN, X_OF_OUTPUT, /* what a part is asked with */
    RESIDUAL,  /* what a PowerInfer model's predictor reads */
    MIXED,     /* what attention gives its output projection */
    HIDDEN,    /* an MLP's hidden values */
    ACTIVATED  /* what neurons give the down projection */
};
struct readers {
    bool q8, f32;
};
struct readers readers_of(const struct worker *w, enum operand what, int layer);
enum operand x_of(enum wire_part part);
/* owners.c: who holds what of a part. */
bool owner_of(const struct worker *w, enum wire_part part, int layer, int rank);
/* An exchange begins with this rank's own part of it: from here on its time is taken. */
void exchange_begin(struct worker *w);
/* Starts sending the task's tokens of stage.in to every other owner. */
status owners_ask(struct worker *w, const struct task *t);
/* Waits for their answers, messages of one kind, one from each other owner, and hands each to `take`, which releases it;
 * serves requests of other stages meanwhile. */
typedef status take_answer(struct worker *w, struct arrival *a, const struct task *t);
status owners_await(struct worker *w, const struct task *t, int kind, take_answer *take);
/* What an owner has counted, and how long it took. */
void count_answer(struct worker *w, const struct wire_counts *counts, uint64_t busy_ns);
/* block.c: x += part(norm(x)), with the heads or neurons of all ranks. Where hp.parallel attention leaves y instead. */
status block_run(struct worker *w, const struct task *t);
/* An answer must be of this task. ST_FORMAT (logged, naming the rank) if not. */
status check_answer(int from, const char *what, const struct task *found, const struct task *t);
/* active.c: adds to own what an owner's live activations make, whose down projection lies here. */
take_answer take_active;
/* fire.c: w->activated[n, slots] = what this rank's neurons of a layer make of x, for n tokens. `residual` is what a
 * PowerInfer model's predictor reads, or NULL. */
void shard_fire(struct worker *w, int layer, const struct acts *x, const struct acts *residual, uint32_t n);
/* relay.c: a layer that proves to be dense. Lets what the arena has handed out from `begin` on, rows or columns, take as
 * much as the packed form of this matrix. */
void relay_reserve(struct worker *w, size_t begin, const struct matrix *m, int64_t rows, int64_t cols);
/* Bytes of the rows or columns that must lie aside while the packed form takes their place; 0: it never does. */
size_t relay_aside(const struct shard *s);
/* Whether the packed form can take the place of these columns. */
bool relay_packs_down(const struct down *d);
/* Counts what has fired of n tokens, before take_counts does. */
void relay_count(const struct worker *w, struct shard *s, uint32_t n);
/* Changes the layer's layout if nearly all of its neurons fire. The layer's work for the step at hand is done. */
void relay_shard(struct worker *w, int layer);
/* down.c: sum[n, d] = the part of a set of neurons whose activations are in w->activated. */
void down_project(struct worker *w, const struct down *d, uint32_t n, double *sum);
/* shard.c: sum[n, d] = the part of this rank's neurons. */
void shard_compute(struct worker *w, int layer, const struct acts *x, const struct acts *residual, uint32_t n,
                   double *sum);
/* w->residual of n tokens: what predictors of a PowerInfer model read; NULL where nobody does. */
const struct acts *take_residual(struct worker *w, int layer, const float *residual, uint32_t n);
status shard_serve(struct worker *w, struct arrival *a);
/* Sends the last stage what this rank has of n tokens' logits, unasked. */
status logits_send(struct worker *w, uint64_t step, const struct acts *x, uint32_t n);
/* What was counted since the last call, all threads together. */
struct wire_counts take_counts(struct worker *w);
/* logits[t * stride + i] = own row i times x, for n tokens. */
void rows_compute(struct worker *w, const struct acts *x, uint32_t n, float *logits, int64_t stride);
/* sums.c: packs sum [to->n_tokens, d] to where `to` points. */
void sums_pack(struct worker *w, const double *sum, const struct wire_partial *to);
/* sum[n, d] += a message's. */
void sums_add(struct worker *w, const struct wire_partial *from, double *sum);
/* head.c: norm, logits, and what the step wants; sends RESULT. Where another rank is the home: the logits of the own
 * rows, if the step wants any, to the home. */
status head_run(struct worker *w, const struct wire_step *s);
/* Answers SAMPLING: an empty RESULT of step 0. */
status head_acknowledge(struct worker *w);

/* How many of n groups a thread takes at a time: small enough to share evenly, large enough to stay in cache. */
static inline int64_t group_grain(const struct worker *w, int64_t groups)
{
    enum { PIECES_PER_THREAD = 4, MOST_GROUPS = 16 };
    int64_t grain = groups / (w->o.n_threads * PIECES_PER_THREAD);
    return grain < 1 ? 1 : grain > MOST_GROUPS ? MOST_GROUPS : grain;
}
/* acts of tokens [t, t + 1), columns [begin, begin + cols). */
static inline struct acts acts_slice(const struct acts *a, int64_t t, int64_t begin, int64_t cols)
{
    return (struct acts){.cols = cols,
                         .f32 = a->f32 + t * a->cols + begin,
                         .codes = a->codes + t * a->cols + begin,
                         .blocks = a->blocks + (t * a->cols + begin) / ACT_BLOCK};
}

#endif
