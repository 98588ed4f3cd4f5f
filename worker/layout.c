/* Every array of a worker, handed out from one arena. A dry arena counts the same calls: memory is known before
 * loading. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "wire/channels.h"
#include "worker/internal.h"

float *lay_floats(struct worker *w, int64_t n) { return arena_alloc(&w->arena, (size_t)n * sizeof(float)); }

void lay_matrix(struct worker *w, struct packed *p, const struct matrix *m, int64_t rows, int64_t cols)
{
    packed_shape(p, m->type, rows, cols);
    p->data = arena_alloc(&w->arena, packed_bytes(p));
}

static float *lay_vector(struct worker *w, const struct matrix *m)
{
    return m->data ? lay_floats(w, m->cols) : NULL;
}

static void lay_acts(struct worker *w, struct acts *a, int64_t n, int64_t cols)
{
    *a = (struct acts){.cols = cols, .f32 = lay_floats(w, n * cols)};
    a->codes = arena_alloc(&w->arena, (size_t)(n * cols));
    a->blocks = arena_alloc(&w->arena, (size_t)(n * cols / ACT_BLOCK) * sizeof *a->blocks);
}

static void lay_outbox(struct worker *w, struct outbox *b, size_t capacity)
{
    *b = (struct outbox){.buffer = arena_alloc(&w->arena, capacity), .capacity = capacity};
    atomic_store(&b->send.done, true);
}

/* Where messages of `bytes` at most come together; they need no room of ours if a slot holds them. */
static void lay_room(struct worker *w, int from, int channel, size_t bytes)
{
    if (bytes > TRANSPORT_SLOT)
        w->rooms[w->n_rooms++] = (struct room){from, channel, bytes, arena_alloc(&w->arena, bytes)};
}

static struct norm_weights lay_norm(struct worker *w, const struct matrix *weight, const struct matrix *bias)
{
    float *of = lay_vector(w, weight);
    return (struct norm_weights){of, lay_vector(w, bias)};
}

static void lay_layer(struct worker *w, int layer)
{
    const struct layer_weights *f = &w->o.model->layers[layer];
    struct stage_layer *l = &w->stage.layers[layer - w->stage.first];
    l->attn_norm = lay_norm(w, &f->attn_norm, &f->attn_norm_bias);
    l->ffn_norm = lay_norm(w, &f->ffn_norm, &f->ffn_norm_bias);
    lay_matrix(w, &l->q, &f->q, f->q.rows, f->q.cols);
    lay_matrix(w, &l->k, &f->k, f->k.rows, f->k.cols);
    lay_matrix(w, &l->v, &f->v, f->v.rows, f->v.cols);
    lay_matrix(w, &l->o, &f->o, f->o.rows, f->o.cols);
    l->q_bias = lay_vector(w, &f->q_bias);
    l->k_bias = lay_vector(w, &f->k_bias);
    l->v_bias = lay_vector(w, &f->v_bias);
    l->o_bias = lay_vector(w, &f->o_bias);
    l->q_norm = lay_vector(w, &f->q_norm);
    l->k_norm = lay_vector(w, &f->k_norm);
}

static void lay_kv(struct worker *w)
{
    for (int i = 0; i < w->stage.last - w->stage.first; i++) {
        w->stage.layers[i].k_cache = arena_alloc(&w->arena, kv_elements(w) * sizeof(uint16_t));
        w->stage.layers[i].v_cache = arena_alloc(&w->arena, kv_elements(w) * sizeof(uint16_t));
    }
}

/* Whether this stage has the down projections of any other owner. */
static bool down_comes_here(const struct worker *w)
{
    for (int i = 0; i < (w->stage.last - w->stage.first) * w->n_ranks; i++)
        if (w->stage.sets[i].n)
            return true;
    return false;
}

/* Whether this stage's steps come from rank r. */
static bool is_before(const struct worker *w, int r)
{
    int first, last;
    if (w->stage.is_first)
        return r == 0;
    plan_stage(w->o.plan, r, &first, &last);
    return first < last && plan_next_stage(w->o.plan, r) == w->rank;
}

static void lay_stage_buffers(struct worker *w)
{
    const struct hparams *hp = &w->o.model->hp;
    struct stage *s = &w->stage;
    int64_t n = w->o.n_batch, heads = hp->n_heads * hp->head_dim, kv_heads = hp->n_kv_heads * hp->head_dim;
    s->x = lay_floats(w, n * hp->d_model);
    s->y = lay_floats(w, n * hp->d_model);
    s->own = arena_alloc(&w->arena, (size_t)(n * hp->d_model) * sizeof *s->own);
    if (down_comes_here(w))
        s->other = arena_alloc(&w->arena, (size_t)(n * hp->d_model) * sizeof *s->other);
    s->cos_sin = lay_floats(w, n * hp->n_rot);
    lay_acts(w, &s->in, n, hp->d_model);
    s->q = lay_floats(w, n * heads);
    s->k = lay_floats(w, n * kv_heads);
    s->v = lay_floats(w, n * kv_heads);
    lay_acts(w, &s->mixed, n, heads);
    s->score_stride = (w->o.n_ctx + 2 * KV_TILE - 1) / KV_TILE * KV_TILE;
    for (int t = 0; t < w->o.n_threads; t++) {
        s->scratch[t].q = lay_floats(w, QUERY_ROWS * hp->head_dim);
        s->scratch[t].out = lay_floats(w, QUERY_ROWS * hp->head_dim);
        s->scratch[t].scores = lay_floats(w, QUERY_ROWS * s->score_stride);
    }
    s->tokens = arena_alloc(&w->arena, (size_t)n * sizeof(int32_t));
    for (int r = 0; r < w->n_ranks; r++)
        if (is_before(w, r))
            lay_room(w, r, CHANNEL_STEPS, s->is_first ? wire_step_max(&w->limits) : wire_hidden_max(&w->limits));
    for (int i = 0; i < STAGE_BUFFERS && !s->is_last; i++)
        lay_outbox(w, &s->hidden[i], wire_hidden_max(&w->limits));
    if (s->is_last) {
        s->logits = lay_floats(w, LOGIT_ROWS * hp->n_vocab);
        s->scores = lay_floats(w, n);
        lay_outbox(w, &s->result, wire_result_max(&w->limits));
    }
}

/* Whether any layer of this rank's stage has neurons on rank r. */
static bool asks(const struct worker *w, int stage_rank, int owner)
{
    int first, last;
    plan_stage(w->o.plan, stage_rank, &first, &last);
    for (int i = first; i < last; i++)
        if (owner_of(w, i, owner))
            return stage_rank != owner;
    return false;
}

/* The largest answer that `owner` gives `stage_rank`. */
static size_t largest_answer(const struct worker *w, int stage_rank, int owner)
{
    size_t most = 0;
    int first, last;
    plan_stage(w->o.plan, stage_rank, &first, &last);
    for (int i = first; i < last; i++) {
        size_t size = plan_down_at_stage(w->o.plan, i)
                          ? wire_active_max(&w->limits, (uint32_t)plan_n_neurons(w->o.plan, i, owner))
                          : wire_partial_max(&w->limits);
        most = size > most ? size : most;
    }
    return most;
}

/* Bytes of the logits that `owner` gives a stage, 0: none. */
static size_t gives_logits(const struct worker *w, int stage_rank, int owner)
{
    int64_t begin, end;
    plan_rows(w->o.plan, owner, w->o.model->hp.n_vocab, &begin, &end);
    if (stage_rank != plan_last_stage(w->o.plan) || stage_rank == owner || begin == end)
        return 0;
    return wire_logits_max((uint32_t)(end - begin));
}

/* What computing the own neurons needs. */
static void lay_firing(struct worker *w, const struct widths *widest)
{
    const int64_t n = w->o.n_batch, d = w->o.model->hp.d_model;
    if (widest->slots)
        lay_acts(w, &w->activated, n, widest->slots);
    if (!widest->neurons)
        return;
    w->gate = lay_floats(w, n * widest->neurons);
    w->up = lay_floats(w, n * widest->neurons);
    if (widest->hidden)
        lay_acts(w, &w->hidden, n, widest->hidden);
    if (!widest->sparse)
        return;
    lane_acts_shape(&w->lanes, d);
    const int64_t blocks = lane_acts_blocks(&w->lanes);
    w->lanes.codes = arena_alloc(&w->arena, (size_t)(n * lane_acts_codes(&w->lanes)));
    w->lanes.scale = lay_floats(w, n * blocks);
    w->lanes.scaled_sum = lay_floats(w, n * blocks);
    w->lanes.minus_sum = arena_alloc(&w->arena, (size_t)(n * blocks) * sizeof(int32_t));
    w->lanes.minus_sum_low = arena_alloc(&w->arena, (size_t)(n * blocks) * sizeof(int32_t));
    w->most_pairs = n * PIECE_NEURONS > PIECE_PAIRS ? n * PIECE_NEURONS : PIECE_PAIRS;
    for (int t = 0; t < w->o.n_threads; t++) {
        struct live_scratch *s = &w->live[t];
        s->row = arena_alloc(&w->arena, (size_t)w->most_pairs * sizeof *s->row);
        s->token = arena_alloc(&w->arena, (size_t)w->most_pairs * sizeof *s->token);
        s->gate = lay_floats(w, w->most_pairs);
        s->up = lay_floats(w, w->most_pairs);
    }
}

static void lay_exchange(struct worker *w)
{
    const struct hparams *hp = &w->o.model->hp;
    bool has_owners = false, has_stages = false;
    for (int r = 0; r < w->n_ranks; r++) {
        size_t answer = asks(w, w->rank, r) ? largest_answer(w, w->rank, r) : 0;
        const size_t logits = gives_logits(w, w->rank, r);
        answer = answer > logits ? answer : logits;
        lay_room(w, r, CHANNEL_ANSWERS, answer);
        has_owners |= answer > 0;
        if (asks(w, r, w->rank))
            lay_outbox(w, &w->replies[r], largest_answer(w, r, w->rank));
        if (gives_logits(w, r, w->rank))
            lay_outbox(w, &w->logits_reply, gives_logits(w, r, w->rank));
        if (asks(w, r, w->rank) || gives_logits(w, r, w->rank)) {
            lay_room(w, r, CHANNEL_REQUESTS, wire_ffn_max(&w->limits));
            has_stages = true;
        }
    }
    if (has_owners)
        lay_outbox(w, &w->stage.ffn, wire_ffn_max(&w->limits));
    if (has_stages)
        lay_acts(w, &w->request, w->o.n_batch, hp->d_model);
    if (w->limits.residual)
        lay_acts(w, &w->residual, w->o.n_batch, hp->d_model);
}

/* The small arrays of structs that hold the above; they are the heap's. */
static status allocate_tables(struct worker *w)
{
    struct stage *s = &w->stage;
    size_t ranks = (size_t)w->n_ranks;
    s->layers = calloc((size_t)(s->last - s->first) + 1, sizeof *s->layers);
    s->scratch = calloc((size_t)w->o.n_threads, sizeof *s->scratch);
    s->rope_freq = calloc((size_t)w->o.model->hp.n_rot / 2 + 1, sizeof *s->rope_freq);
    s->ffn_sends = calloc(ranks, sizeof *s->ffn_sends);
    s->answers = calloc(ranks, sizeof *s->answers);
    s->partials = calloc(ranks, sizeof *s->partials);
    s->actives = calloc(ranks, sizeof *s->actives);
    s->sets = calloc((size_t)(s->last - s->first) * ranks + 1, sizeof *s->sets);
    s->downs = calloc((size_t)(s->last - s->first) * ranks + 1, sizeof *s->downs);
    s->down_bias = calloc((size_t)(s->last - s->first) + 1, sizeof *s->down_bias);
    w->live = calloc((size_t)w->o.n_threads, sizeof *w->live);
    w->rooms = calloc(2 * ranks + 1, sizeof *w->rooms);
    w->replies = calloc(ranks, sizeof *w->replies);
    w->shards = calloc((size_t)w->o.model->hp.n_layers, sizeof *w->shards);
    if (s->layers && s->scratch && s->rope_freq && s->ffn_sends && s->answers && s->partials && s->actives &&
        s->sets && s->downs && s->down_bias && w->live && w->rooms && w->replies && w->shards)
        return ST_OK;
    log_error("rank %d: out of memory for its tables", w->rank);
    return ST_NOMEM;
}

status worker_lay_out(struct worker *w)
{
    const struct model *m = w->o.model;
    struct stage *s = &w->stage;
    if (m->positions.data && w->o.n_ctx > m->hp.n_ctx_train) {
        log_error("%s: a context of %u tokens, but it has learned %lld positions (-c)", gguf_path(m->file), w->o.n_ctx,
                  (long long)m->hp.n_ctx_train);
        return ST_USAGE;
    }
    plan_stage(w->o.plan, w->rank, &s->first, &s->last);
    bool is_stage = s->first < s->last;
    s->is_first = is_stage && plan_first_stage(w->o.plan) == w->rank;
    s->is_last = is_stage && plan_last_stage(w->o.plan) == w->rank;
    s->next = is_stage ? plan_next_stage(w->o.plan, w->rank) : -1;
    status st = s->layers ? ST_OK : allocate_tables(w);
    if (st)
        return st;

    for (int i = s->first; i < s->last; i++)
        lay_layer(w, i);
    if (s->is_last)
        s->out_norm = lay_norm(w, &m->out_norm, &m->out_norm_bias);
    plan_rows(w->o.plan, w->rank, m->hp.n_vocab, &w->rows.begin, &w->rows.end);
    lay_matrix(w, &w->rows.weights, &m->output, w->rows.end - w->rows.begin, m->output.cols);
    struct widths widest = worker_lay_shards(w);
    w->weight_bytes = w->arena.used;
    if (is_stage)
        lay_kv(w);
    w->kv_bytes = w->arena.used - w->weight_bytes;
    if (is_stage)
        lay_stage_buffers(w);
    lay_firing(w, &widest);
    lay_exchange(w);
    return ST_OK;
}
