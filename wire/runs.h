/* The messages of a step of many runs: STEP, HIDDEN, REQUEST and RESULT. What wire.h says of its functions holds here
 * too.
 *
 * STEP: WIRE_HEADER bytes, then runs (40 bytes each), changes (16), begins (60), the texts of the begins i32 [n_text],
 * their biases (8), the ops of their grammars (12), tokens i32 [n_tokens]. HIDDEN: the same, then, from a multiple of
 * 64, hidden states f32 [n_tokens, d_model]. */
#ifndef HEARTH_WIRE_RUNS_H
#define HEARTH_WIRE_RUNS_H

#include "base/arena.h"
#include "wire/wire.h"

enum {
    WIRE_SEQUENCES = 64,  /* limits.n_sequences at most */
    WIRE_PAGE = 64,       /* positions of a page */
    WIRE_LOGIT_RUNS = 1,  /* runs of a step that may want logits: they are long */
    WIRE_TOP = 20,        /* of the best tokens of a run, at most */
    WIRE_BIASES = 512     /* of the samplers that begin in a step, together */
};

static const uint32_t WIRE_NO_PAGE = UINT32_MAX;

/* What is wanted of a run. */
enum wire_want {
    WANT_NOTHING, /* an inner chunk of a prompt */
    WANT_TOKEN,   /* a token drawn after the last one */
    WANT_SCORES,  /* minus the log probability of each token's successor, from `from` on */
    WANT_LOGITS,  /* a token drawn, and the logits after the last one */
    WANT_TOKENS,  /* a token drawn after each from `from` on, which sees the run's tokens up to there */
    WANT_TOP,     /* a token drawn, and the best tokens with their log probabilities */
    WANT_STATES,  /* the final state of the last token, normed */
    WANT_SUM,     /* the sum of the final states, normed, of the tokens from `from` on */
    WANT_LOG_PROBS /* the log probability of each token's successor, and the best tokens in its place, from `from` on:
                    * the same bits that WANT_TOP brings */
};

/* Consecutive tokens of one sequence; a sequence has one run of a step at most. */
struct wire_run {
    uint32_t sequence;    /* below limits.n_sequences */
    uint32_t position;    /* of the first token: the KV cache is valid below it */
    uint32_t n_tokens;    /* 1 or more; of all runs together: the step's */
    /* States of delta nets by number, 0: none. Sequence i's own is i + 1, those that are kept follow. Before anything
     * of the step runs in a layer, the own state becomes a copy of begin_with, in the order of runs, or at position 0
     * zero; when all of it has run there, keep_as becomes a copy of the own. */
    uint32_t begin_with;  /* limits.n_states at most */
    uint32_t keep_as;     /* above limits.n_sequences */
    uint32_t want;        /* enum wire_want */
    uint32_t from;        /* WANT_SCORES, WANT_TOKENS, WANT_SUM, WANT_LOG_PROBS: the first token of the run that
                           * something is wanted of; else 0 */
    uint32_t n_top;       /* WANT_TOP, WANT_LOG_PROBS: best tokens wanted, WIRE_TOP at most; else 0 */
    int32_t next_token;   /* WANT_SCORES, WANT_LOG_PROBS: the successor of the last token, for scores -1: unknown; else
                           * -1 */
};

/* Entry `index` of a sequence's table, the page of positions from index * WIRE_PAGE on, is `page` from now on, and
 * there are no entries behind it. First what lies in page `from_page` is copied there, layer by layer, unless it is
 * WIRE_NO_PAGE. Changes are carried out in their order; each layer's copies before anything else of the layer. */
struct wire_change {
    uint32_t sequence, index, page, from_page;
};

/* The fields of sampling/sampler.h's parameters, which wire may not include. */
struct wire_sampling {
    float temperature, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty;
    int32_t top_k, repeat_last;
    uint64_t seed;
};
/* Whether its floats are finite; a step with others is refused. */
bool wire_sampling_finite(const struct wire_sampling *s);

/* As in sampling/sampler.h. */
struct wire_bias {
    int32_t token;
    float bias; /* finite */
};

/* As in sampling/grammar.h, which alone knows what makes a grammar: any numbers come through. */
struct wire_op {
    uint8_t kind, lo, hi;
    uint32_t a, b;
};

/* The sampler of a run's sequence is made anew. */
struct wire_begin {
    uint32_t sequence;
    uint32_t n_text;      /* run.position at most */
    const int32_t *text;  /* [n_text] the last tokens before the run's position, which do not run: penalties look
                           * back */
    struct wire_sampling sampling;
    uint32_t n_bias, n_ops;       /* n_ops 0: no grammar */
    uint32_t grammar_from;        /* the text is of it from this position on, which is not before the text; else 0 */
    const struct wire_bias *bias; /* [n_bias] */
    const struct wire_op *ops;    /* [n_ops] */
};

struct wire_step {
    uint64_t id;               /* ascending */
    uint32_t n_runs, n_tokens; /* 1 .. limits.n_runs, limits.n_batch */
    uint32_t n_changes;        /* wire_most_changes at most */
    uint32_t n_begins;         /* n_runs at most */
    uint32_t n_text;           /* of all begins together, limits.n_ctx at most */
    uint32_t n_bias, n_ops;    /* likewise; WIRE_BIASES, limits.n_grammar_ops */
    struct wire_counts counts; /* of earlier stages; zero in STEP */
    const struct wire_run *runs;
    const struct wire_change *changes;
    const struct wire_begin *begins;
    const int32_t *tokens;     /* [n_tokens] run after run */
};

/* Changes of a step at most: a table that begins as a copy of another's; a page more, and the copy of a page, for every
 * run; and what the step's tokens fill. No page is in two of them. */
uint32_t wire_most_changes(const struct wire_limits *lim);
/* Entries of a table at most. */
static inline uint32_t wire_table(const struct wire_limits *lim)
{
    return lim->n_ctx / WIRE_PAGE + (lim->n_ctx % WIRE_PAGE != 0);
}

/* What decoders take out of a message before they check it, and the decoded structs then point to. */
struct wire_copy {
    struct wire_run *runs;       /* [limits.n_runs] */
    struct wire_change *changes; /* [wire_most_changes] */
    struct wire_begin *begins;   /* [limits.n_runs] */
    int32_t *tokens, *text;      /* [limits.n_batch], [limits.n_ctx] */
    uint64_t *pages;             /* [limits.n_pages / 64, rounded up] of a decoder's own: bits, 0 between two calls */
    uint32_t *experts;           /* [limits.n_batch, limits.n_experts_used] */
    float *weights;              /* [limits.n_batch, limits.n_weights] */
    struct wire_bias *bias;      /* [WIRE_BIASES] */
    struct wire_op *ops;         /* [limits.n_grammar_ops] */
};
/* Takes its memory from an arena; a dry one counts it. */
void wire_lay_copy(struct wire_copy *c, const struct wire_limits *lim, struct arena *a);

/* STEP. n_text, n_bias and n_ops are the sums of the begins'. */
size_t wire_step_encode(const struct wire_step *s, uint8_t *out, size_t cap);
status wire_step_decode(const uint8_t *in, size_t n, const struct wire_limits *lim, const struct wire_copy *c,
                        struct wire_step *s);
size_t wire_step_max(const struct wire_limits *lim);

/* HIDDEN. The hidden states are written by the caller to where *hidden says. */
size_t wire_hidden_encode(const struct wire_step *s, const struct wire_limits *lim, uint8_t *out, size_t cap,
                          float **hidden);
status wire_hidden_decode(const uint8_t *in, size_t n, const struct wire_limits *lim, const struct wire_copy *c,
                          struct wire_step *s, const float **hidden);
size_t wire_hidden_max(const struct wire_limits *lim);

/* REQUEST: WIRE_HEADER bytes; for PART_ATTENTION runs (20 bytes each: sequence, position, n_tokens, begin_with,
 * keep_as) and changes (16); then the parts of x in the order of its form; for PART_FFN of a layer with experts those
 * that each token has chosen, u32 [n_tokens, n_experts_used], and weights f32 [n_tokens, n_weights]; and what
 * predictors read where limits.residual says so: the un-normalised residual stream, f32 [n_tokens, d_model]. Each part
 * starts on a multiple of 64. */
struct wire_request {
    uint64_t id;        /* of the step */
    uint32_t part;      /* enum wire_part */
    uint32_t layer;     /* 0 for PART_OUTPUT */
    uint32_t n_tokens, form;
    uint32_t n_runs;    /* 0 unless PART_ATTENTION; nothing is wanted of them here */
    uint32_t n_changes; /* 0 unless PART_ATTENTION: the step's, to whoever asks for whichever layer */
    const struct wire_run *runs;
    const struct wire_change *changes;
    int8_t *codes;      /* into the message (NULL unless FORM_Q8) */
    float *scale;
    float *f32;         /* into the message (NULL unless FORM_F32) */
    uint32_t n_used;    /* set by both functions: experts of a token, where the layer has any, for PART_FFN */
    uint32_t n_weights; /* likewise */
    uint32_t *expert;   /* into the message or the copy (NULL unless n_used) [n_tokens, n_used] a token's are
                         * different */
    float *weight;      /* as `expert` (NULL unless n_used) [n_tokens, n_weights] finite */
    bool with_residual; /* set by both functions: limits.residual, for PART_FFN */
    float *residual;    /* into the message (NULL unless with_residual) */
};
size_t wire_request_encode(struct wire_request *r, const struct wire_limits *lim, uint8_t *out, size_t cap);
status wire_request_decode(uint8_t *in, size_t n, const struct wire_limits *lim, const struct wire_copy *c,
                           struct wire_request *r);
size_t wire_request_max(const struct wire_limits *lim);

/* RESULT: WIRE_HEADER bytes, then answers (16 bytes each), tokens i32, tops (8 bytes each: i32, f32), values f32. */
struct wire_answer {
    uint32_t sequence;
    uint32_t n_tokens; /* drawn: 1 for WANT_TOKEN, WANT_LOGITS and WANT_TOP; for WANT_TOKENS one for each place */
    uint32_t n_top;    /* best tokens, best first; WANT_LOG_PROBS: run.n_top for each token */
    uint32_t n_values; /* WANT_SCORES, WANT_LOG_PROBS: a value for each token; WANT_LOGITS: n_vocab; WANT_TOP: 1, the
                        * log probability of the token drawn; WANT_STATES: d_model; WANT_SUM: two for each of
                        * d_model */
};

struct wire_top {
    int32_t token;
    float log_p;
};

struct wire_result {
    uint64_t id;
    uint32_t n_runs, n_tokens, n_tops, n_values; /* of all answers together, but n_runs: one for each run of the step */
    struct wire_counts counts; /* of the whole step, on all ranks */
    const struct wire_answer *answers;
    const int32_t *tokens;
    const struct wire_top *tops;
    float *values;             /* into the message: where the caller puts them, and finds them */
};

/* The sum of states: each value of a state is rounded to a multiple of 2^-24 (to the nearest, of two the even one; what
 * is beyond 2^18 on either side is that), and these integers are added, which is exact in any order: however a text is
 * cut into runs, the sums of its runs add up to the same. An i64 travels as two values, bits of f32, the lower half
 * first. */
enum { WIRE_SUM_ONE = 1 << 24, WIRE_SUM_MOST = 1 << 18 };
void wire_sum_state(int64_t *sum, const float *state, uint32_t n);    /* sum[n] += state[n] */
void wire_sum_put(const int64_t *sum, uint32_t n, float *values);     /* values [2 n] */
void wire_sum_add(int64_t *sum, const float *values, uint32_t n);     /* sum[n] += values [2 n]; wraps around */
/* The mean of n_tokens >= 1 states. */
void wire_sum_mean(const int64_t *sum, uint32_t n, uint32_t n_tokens, float *mean);

/* What RESULT brings of a run. */
struct wire_answer wire_answer_to(const struct wire_run *r, const struct wire_limits *lim);

struct wire_result_copy {
    struct wire_answer *answers; /* [limits.n_runs] */
    int32_t *tokens;             /* [limits.n_batch] */
    struct wire_top *tops;       /* [limits.n_batch * WIRE_TOP] */
};
void wire_lay_result_copy(struct wire_result_copy *c, const struct wire_limits *lim, struct arena *a);

size_t wire_result_encode(struct wire_result *r, uint8_t *out, size_t cap);
status wire_result_decode(uint8_t *in, size_t n, const struct wire_limits *lim, const struct wire_result_copy *c,
                          struct wire_result *r);
size_t wire_result_max(const struct wire_limits *lim);
/* Of all answers together: one run's logits, every other run's sum of states, and a value for every token. */
uint32_t wire_most_values(const struct wire_limits *lim);
/* ST_FORMAT (logged) unless it has the step's id, and the answers to exactly its runs, in their order. */
status wire_result_answers(const struct wire_result *r, const struct wire_step *s, const struct wire_limits *lim);

#endif
