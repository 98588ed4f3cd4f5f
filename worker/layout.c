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

float *lay_vector(struct worker *w, const struct matrix *m)
{
    return m->data ? lay_floats(w, m->cols) : NULL;
}

void lay_acts(struct worker *w, struct acts *a, int64_t n, int64_t cols)
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
    l->o_bias = lay_vector(w, &f->o_bias);
    l->down_bias = lay_vector(w, &f->down_bias);
}

/* Rows are the file's, so that nothing of it is read once the worker runs. */
static void lay_embedding(struct worker *w)
{
    const struct matrix *e = &w->o.model->embedding, *p = &w->o.model->positions;
    w->stage.embedding = arena_alloc(&w->arena, (size_t)e->rows * dtype_row_bytes(e->type, e->cols));
    if (p->data)
        w->stage.positions = arena_alloc(&w->arena, w->o.n_ctx * dtype_row_bytes(p->type, p->cols));
}

/* Whether this stage has the down projections of any other owner. */
static uint32_t most_down_here(const struct worker *w)
{
    int64_t most = 0;
    for (int i = 0; i < (w->stage.last - w->stage.first) * w->n_ranks; i++)
        most = w->stage.sets[i].n > most ? w->stage.sets[i].n : most;
    return (uint32_t)most;
}

static void lay_stage_buffers(struct worker *w)
{
    const struct hparams *hp = &w->o.model->hp;
    struct stage *s = &w->stage;
    int64_t n = w->o.n_batch;
    s->x = lay_floats(w, n * hp->d_model);
    s->y = lay_floats(w, n * hp->d_model);
    s->own = arena_alloc(&w->arena, (size_t)(n * hp->d_model) * sizeof *s->own);
    const uint32_t most = most_down_here(w);
    if (most) {
        s->other = arena_alloc(&w->arena, (size_t)(n * hp->d_model) * sizeof *s->other);
        s->pairs = arena_alloc(&w->arena, wire_active_pairs(&w->limits, most) * sizeof *s->pairs);
    }
    lay_acts(w, &s->in, n, hp->d_model);
    s->tokens = arena_alloc(&w->arena, (size_t)n * sizeof(int32_t));
    s->widths = arena_alloc(&w->arena, (size_t)n * wire_partial_widths(&w->limits));
    lay_room(w, s->before, CHANNEL_STEPS, s->embeds ? wire_step_max(&w->limits) : wire_hidden_max(&w->limits));
    for (int i = 0; i < STAGE_BUFFERS && s->next >= 0; i++)
        lay_outbox(w, &s->hidden[i], wire_hidden_max(&w->limits));
    if (s->is_last) {
        s->logits = lay_floats(w, LOGIT_ROWS * hp->n_vocab);
        s->scores = lay_floats(w, n);
        sampler_lay(&s->sampler, w->o.n_ctx, &w->arena);
        sampler_lay_scratch(&s->picking, (int32_t)hp->n_vocab, &w->arena);
        lay_outbox(w, &s->result, wire_result_max(&w->limits));
    }
}

/* Bytes of the largest answer of blocks that `owner` gives `to`, asked or not; 0: none. */
static size_t largest_answer(const struct worker *w, int to, int owner)
{
    const struct plan *p = w->o.plan;
    size_t most = 0;
    int first, last;
    plan_stage(p, p->residual_all ? plan_first_stage(p) : to, &first, &last);
    for (int i = first; i < last && to != owner; i++) {
        size_t attention = owner_of(w, PART_ATTENTION, i, owner) ? wire_partial_max(&w->limits) : 0;
        size_t ffn = !owner_of(w, PART_FFN, i, owner) ? 0
                     : plan_down_at_stage(p, i) ? wire_active_max(&w->limits, (uint32_t)plan_n_neurons(p, i, owner))
                                                : wire_partial_max(&w->limits);
        size_t size = ffn > attention ? ffn : attention;
        most = size > most ? size : most;
    }
    return p->residual_all && !plan_takes_part(p, to) ? 0 : most;
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
    if (widest->aside)
        w->aside = arena_alloc(&w->arena, widest->aside);
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

static void lay_multicast(struct worker *w, struct multicast *m, size_t capacity)
{
    m->buffer = arena_alloc(&w->arena, capacity);
    m->capacity = capacity;
}

static void lay_exchange(struct worker *w)
{
    const bool all = w->o.plan->residual_all; /* parts of blocks are sent unasked */
    bool asks = false, is_asked = false, shares = false, passes_on = false;
    for (int r = 0; r < w->n_ranks; r++) {
        const size_t from = largest_answer(w, w->rank, r), logits_from = gives_logits(w, w->rank, r);
        const size_t to = largest_answer(w, r, w->rank), logits_to = gives_logits(w, r, w->rank);
        const bool answers = (to && !all) || logits_to;
        lay_room(w, r, CHANNEL_ANSWERS, from > logits_from ? from : logits_from);
        if (to && !all)
            lay_outbox(w, &w->replies[r], to);
        if (logits_to)
            lay_outbox(w, &w->logits_reply, logits_to);
        if (answers)
            lay_room(w, r, CHANNEL_REQUESTS, wire_request_max(&w->limits));
        is_asked |= answers;
        asks |= (from && !all) || logits_from;
        shares |= to && all;
        w->stage.ahead[r].most = from && all ? TRANSPORT_SLOTS : 0;
        passes_on |= all && w->stage.is_last && r != w->rank && plan_takes_part(w->o.plan, r);
    }
    lay_outbox(w, &w->usage_reply, WIRE_USAGE_SIZE);
    if (asks)
        lay_multicast(w, &w->stage.request, wire_request_max(&w->limits));
    lay_multicast(w, &w->refusal, WIRE_FAILED_MAX);
    if (passes_on)
        lay_multicast(w, &w->stage.step, wire_hidden_max(&w->limits));
    for (int i = 0; i < STAGE_BUFFERS && shares; i++)
        lay_multicast(w, &w->stage.shared[i], wire_partial_max(&w->limits));
    if (is_asked) {
        lay_acts(w, &w->request, w->o.n_batch, w->limits.d_model);
        w->sum = arena_alloc(&w->arena, (size_t)w->o.n_batch * w->limits.d_model * sizeof *w->sum);
    }
    if (w->limits.residual)
        lay_acts(w, &w->residual, w->o.n_batch, w->o.model->hp.d_model);
}

/* Nothing is under way. */
static void deal_sends(struct worker *w, struct send *sends)
{
    struct stage *s = &w->stage;
    struct multicast *all[] = {&s->request, &s->step, &s->shared[0], &s->shared[1], &w->refusal};
    for (int i = 0; i < MULTICASTS; i++)
        all[i]->sends = sends + i * w->n_ranks;
    for (int i = 0; i < MULTICASTS * w->n_ranks; i++)
        atomic_store(&sends[i].done, true);
}

/* The small arrays of structs that hold the above; they are the heap's. */
static status allocate_tables(struct worker *w)
{
    struct stage *s = &w->stage;
    const size_t ranks = (size_t)w->n_ranks, layers = (size_t)w->o.model->hp.n_layers;
    const size_t threads = (size_t)w->o.n_threads;
    struct send *sends = calloc(MULTICASTS * ranks, sizeof *sends);
    s->layers = calloc((size_t)(s->last - s->first) + 1, sizeof *s->layers);
    s->ahead = calloc(ranks, sizeof *s->ahead);
    s->sets = calloc((size_t)(s->last - s->first) * ranks + 1, sizeof *s->sets);
    s->downs = calloc((size_t)(s->last - s->first) * ranks + 1, sizeof *s->downs);
    w->rope_freq = calloc((size_t)w->o.model->hp.n_rot / 2 + 1, sizeof *w->rope_freq);
    w->scratch = calloc(threads, sizeof *w->scratch);
    w->live = calloc(threads, sizeof *w->live);
    w->rooms = calloc(2 * ranks + 1, sizeof *w->rooms);
    w->replies = calloc(ranks, sizeof *w->replies);
    w->heads = calloc(layers, sizeof *w->heads);
    w->shards = calloc(layers, sizeof *w->shards);
    if (sends)
        deal_sends(w, sends);
    if (sends && s->layers && s->ahead && s->sets && s->downs &&
        w->rope_freq && w->scratch && w->live && w->rooms && w->replies && w->heads && w->shards)
        return ST_OK;
    log_error("out of memory for a worker's tables");
    return ST_NOMEM;
}

/* The rank that stands before `rank` among the stages, -1: none. */
static int stage_before(const struct plan *p, int rank)
{
    int before = -1;
    for (int r = plan_first_stage(p); r >= 0 && r != rank; r = plan_next_stage(p, r))
        before = r;
    return before;
}

/* Which layers' residual stream is here, and where it comes from. */
static void find_stage(struct worker *w)
{
    const struct plan *p = w->o.plan;
    struct stage *s = &w->stage;
    const int home = plan_first_stage(p);
    const bool joins = p->residual_all && w->rank != home && plan_takes_part(p, w->rank);
    plan_stage(p, joins ? home : w->rank, &s->first, &s->last);
    const bool is_stage = s->first < s->last;
    s->embeds = is_stage && w->rank == home;
    s->is_last = is_stage && w->rank == plan_last_stage(p);
    s->before = joins ? home : w->rank == home ? 0 : stage_before(p, w->rank); /* rank 0 is the coordinator */
    s->next = is_stage && !joins ? plan_next_stage(p, w->rank) : -1;
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
    find_stage(w);
    const bool is_stage = s->first < s->last;
    status st = s->layers ? ST_OK : allocate_tables(w);
    if (st)
        return st;

    if (s->embeds)
        lay_embedding(w);
    for (int i = s->first; i < s->last; i++)
        lay_layer(w, i);
    if (is_stage && s->next < 0)
        s->out_norm = lay_norm(w, &m->out_norm, &m->out_norm_bias);
    plan_rows(w->o.plan, w->rank, m->hp.n_vocab, &w->rows.begin, &w->rows.end);
    lay_matrix(w, &w->rows.weights, &m->output, w->rows.end - w->rows.begin, m->output.cols);
    worker_lay_heads(w);
    struct widths widest = worker_lay_shards(w);
    w->weight_bytes = w->arena.used;
    worker_lay_caches(w);
    w->kv_bytes = w->arena.used - w->weight_bytes;
    if (is_stage)
        lay_stage_buffers(w);
    worker_lay_attention(w);
    lay_firing(w, &widest);
    lay_exchange(w);
    return ST_OK;
}
