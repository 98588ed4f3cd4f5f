/* How attention of a step goes: its pieces, its scratch, and which way. */
#include "kernels/cuda/attention.cuh"

enum { MOST_Z = 65535 };               /* of a grid */
static const uint64_t most_scratch = 64 << 20; /* more tokens go one group after the other */

/* What shared memory holds at once of keys or values: less of it where queries are long. */
static int staged_values(int64_t dim) { return dim > GPU_HEAD_DIM ? STAGE_VALUES / 2 : STAGE_VALUES; }

/* Rows that a piece may have. */
static int rows_of_pieces(const struct gpu_heads *h)
{
    const int64_t most = h->dim > GPU_HEAD_DIM ? 2 * ROW_VALUES : ROW_VALUES;
    int64_t rows = MOST_ROWS;
    while (rows * h->dim > most || rows > MANY * mix_groups((int)h->value))
        rows /= 2;
    return (int)rows;
}

/* Segments that n neighbouring tokens together look at, at most. */
static int64_t most_segments(const struct gpu_heads *h, int64_t n, uint32_t positions)
{
    const int64_t all = ((int64_t)positions + ATTN_SEGMENT - 1) / ATTN_SEGMENT;
    const int64_t seen = (h->window + n - 1 + ATTN_SEGMENT - 2) / ATTN_SEGMENT + 1;
    return h->window && seen < all ? seen : all;
}

static uint64_t token_scores(const struct gpu_heads *h, int64_t slots)
{
    return (uint64_t)(h->n_kv * h->shared * slots) * ATTN_SEGMENT * sizeof(float);
}

static uint64_t token_scratch(const struct gpu_heads *h, int64_t slots)
{
    const uint64_t rows = (uint64_t)(h->n_kv * h->shared);
    const uint64_t others = (uint64_t)(slots * (h->value + SUM_LANES + 1)) * sizeof(float);
    return token_scores(h, slots) + rows * (others + sizeof(unsigned));
}

uint64_t gpu_attention_scratch(const struct gpu_heads *h, int64_t n, uint32_t n_ctx)
{
    const uint64_t token = token_scratch(h, most_segments(h, 1, n_ctx)), all = (uint64_t)n * token;
    const uint64_t most = token > most_scratch ? token : most_scratch;
    return all < most ? all : most;
}

/* The rows of pieces; shared memory of a thread block: the stage, then queries or weights. */
static void lay_pieces(struct attending *a)
{
    const int longer = larger(a->dim, a->value), stage = staged_values(a->dim);
    const int rows = (a->n < a->tokens ? a->n : a->tokens) * a->heads;
    a->few = rows <= FEW * WARPS && rows <= FEW * mix_groups(a->value);
    int padded = WARPS;
    while (padded < rows)
        padded *= 2;
    a->stage = smaller(longer * ATTN_SEGMENT, stage);
    a->staged = a->stage * (int)sizeof(uint16_t);
    a->room = a->staged + padded * (a->dim > ATTN_SEGMENT ? a->dim : ATTN_SEGMENT) * (int)sizeof(float);
}

static void lay_scratch(struct attending *a, void *scratch)
{
    const int64_t slots = (int64_t)a->n * a->n_q * a->slots;
    a->scores = (float *)scratch;
    a->parts = a->scores + slots * ATTN_SEGMENT;
    a->sums = a->parts + slots * a->value;
    a->most = a->sums + slots * SUM_LANES;
    a->done = (unsigned *)(a->most + slots);
}

/* Tokens [t0, t0 + n) of the batch. */
static struct attending attending_of(const struct gpu_batch *b, const struct gpu_heads *h, const float *q,
                                     const struct acts *mixed, void *scratch, int64_t t0, int64_t n)
{
    const int64_t n_q = h->n_kv * h->shared, rows = rows_of_pieces(h);
    struct attending a = {};
    a.position = b->position + t0;
    a.table = b->table + t0;
    a.tables = b->tables;
    a.k = h->k;
    a.v = h->v;
    a.n_pages = h->n_pages;
    a.q = q + t0 * n_q * h->dim;
    a.of_head = h->by_head ? b->n * h->value : h->value;
    a.of_token = h->by_head ? h->value : n_q * h->value;
    a.mixed.f32 = mixed->f32 + t0 * a.of_token;
    a.scale = h->scale;
    a.softcap = h->softcap;
    a.inverse_cap = h->softcap > 0 ? 1.0f / h->softcap : 0.0f;
    a.sinks = h->sinks;
    a.n = (int)n;
    a.n_q = (int)n_q;
    a.shared = (int)h->shared;
    a.dim = (int)h->dim;
    a.value = (int)h->value;
    a.window = h->window < b->most_positions ? (int)h->window : 0;
    a.heads = (int)(h->shared < rows ? h->shared : rows);
    a.tokens = 1;
    while (2 * a.tokens * a.heads <= rows)
        a.tokens *= 2;
    a.cuts = (a.shared + a.heads - 1) / a.heads;
    a.pieces = (int)h->n_kv * a.cuts;
    a.divide_heads = reciprocal(a.heads);
    a.divide_last = reciprocal(a.shared - (a.cuts - 1) * a.heads);
    a.divide_lanes = reciprocal(a.value / FOUR);
    a.slots = (int)most_segments(h, 1, b->most_positions);
    lay_pieces(&a);
    lay_scratch(&a, scratch);
    return a;
}

/* Of the tokens that scratch has room for: whole pieces if there are several, and no more than a grid takes. */
static int64_t tokens_at_once(uint64_t room, const struct attending &a)
{
    int64_t tokens = (int64_t)(room < MOST_Z ? room : (uint64_t)MOST_Z);
    if (tokens > a.tokens)
        tokens -= tokens % a.tokens;
    return tokens < a.n ? tokens : a.n;
}

void gpu_attend(const struct gpu *g, const struct gpu_batch *b, const struct gpu_heads *h, const float *q,
                void *scratch, uint32_t n_ctx, const struct acts *mixed, bool quantise)
{
    const uint64_t bytes = gpu_attention_scratch(h, b->n, n_ctx);
    const struct attending all = attending_of(b, h, q, mixed, scratch, 0, b->n);
    int64_t at_once = tokens_at_once(bytes / token_scores(h, all.slots), all);
    const int64_t pieces = (at_once + all.tokens - 1) / all.tokens * all.pieces;
    const bool rows = b->most_positions <= ROW_POSITIONS && b->n * all.n_q <= ROWS_OF_SM * g->n_sms;
    const bool whole = all.slots <= SHORT_SLOTS || 2 * pieces >= g->n_sms;
    if (rows)
        at_once = b->n;
    else if (!whole)
        at_once = tokens_at_once(bytes / token_scratch(h, all.slots), all);
    for (int64_t t = 0; t < b->n; t += at_once) {
        const int64_t n = b->n - t < at_once ? b->n - t : at_once;
        struct attending a = attending_of(b, h, q, mixed, scratch, t, n);
        if (quantise && h->value % ACT_BLOCK == 0) {
            a.quantise = true;
            a.mixed.codes = mixed->codes + t * a.of_token;
            a.mixed.blocks = mixed->blocks + t * (a.of_token / ACT_BLOCK);
        }
        if (rows)
            attend_rows(g, a);
        else if (whole)
            attend_whole(g, a);
        else
            attend_cut(g, a, (int)most_segments(h, a.tokens, b->most_positions));
    }
    if (quantise && h->value % ACT_BLOCK) /* heads share blocks */
        gpu_quantize(g, mixed, b->n);
}
