/* A stage's work: the layers of its range, from tokens or hidden states to hidden states or a result. */
#include <string.h>

#include "base/exactmath.h"
#include "base/log.h"
#include "worker/internal.h"

static void embed_tokens(struct worker *w, const struct wire_step *s)
{
    const struct matrix *e = &w->o.model->embedding;
    const size_t row = dtype_row_bytes(e->type, e->cols);
    for (uint32_t t = 0; t < s->n_tokens; t++)
        dequantize_row(e->type, e->data + (size_t)wire_token(s->tokens, t) * row, e->cols, w->stage.x + t * e->cols);
}

/* Learned positions; the worker's context is checked to fit them. */
static void add_positions(struct worker *w, const struct wire_step *s)
{
    const struct matrix *p = &w->o.model->positions;
    const size_t row = dtype_row_bytes(p->type, p->cols);
    const uint8_t *from = p->data + (size_t)(s->position + w->o.model->hp.position_offset) * row;
    for (uint32_t t = 0; t < s->n_tokens; t++) {
        dequantize_row(p->type, from + t * row, p->cols, w->stage.y);
        w->o.kernels->add(w->stage.x + t * p->cols, w->stage.y, p->cols);
    }
}

static void compute_angles(struct worker *w, const struct wire_step *s)
{
    const struct hparams *hp = &w->o.model->hp;
    for (uint32_t t = 0; t < s->n_tokens; t++)
        rope_angles(w->stage.rope_freq, hp->n_rot / 2, (double)(s->position + t) * hp->rope_scale,
                    w->stage.cos_sin + t * hp->n_rot);
}

static void add_attention(void *arg, int64_t begin, int64_t end, int thread)
{
    struct worker *w = arg;
    const int64_t d = w->o.model->hp.d_model;
    (void)thread;
    w->o.kernels->add(w->stage.x + begin * d, w->stage.y + begin * d, (end - begin) * d);
}

static status run_layers(struct worker *w, const struct wire_step *s)
{
    struct stage *stage = &w->stage;
    stage->counts = s->counts;
    compute_angles(w, s);
    for (int i = stage->first; i < stage->last; i++) {
        const struct stage_layer *l = &stage->layers[i - stage->first];
        attention_block(w, &stage->layers[i - stage->first], s->position, s->n_tokens);
        stage->counts.bytes += packed_bytes(&l->q) + packed_bytes(&l->k) + packed_bytes(&l->v) + packed_bytes(&l->o);
        status st = ffn_block(w, i, s->id, s->n_tokens);
        if (st)
            return st;
        if (w->o.model->hp.parallel)
            pool_for(w->pool, s->n_tokens, 4, add_attention, w);
    }
    stage->length = s->position + s->n_tokens;
    return ST_OK;
}

static status pass_on(struct worker *w, const struct wire_step *s)
{
    struct stage *stage = &w->stage;
    struct outbox *box = &stage->hidden[stage->hidden_turn];
    float *hidden;
    stage->hidden_turn = (stage->hidden_turn + 1) % STAGE_BUFFERS;
    status st = outbox_wait(w, box);
    if (st)
        return st;
    struct wire_step passed = *s;
    passed.counts = stage->counts;
    size_t size = wire_hidden_encode(&passed, &w->limits, box->buffer, box->capacity, &hidden);
    memcpy(hidden, stage->x, (size_t)s->n_tokens * w->limits.d_model * sizeof(float));
    return outbox_send(w, box, stage->next, WIRE_HIDDEN, size);
}

/* Reads the step that `a` brings into *s and its tokens' states into x. The message is released: the next one may come
 * while this step runs. */
static status take_step(struct worker *w, struct arrival *a, struct wire_step *s)
{
    struct stage *stage = &w->stage;
    const float *hidden;
    bool expected = stage->first < stage->last && (a->kind == WIRE_STEP) == stage->is_first;
    if (!expected) {
        log_error("rank %d: %s of %zu bytes from rank %d, which the plan does not foresee", w->rank, wire_name(a->kind),
                  a->size, a->from);
        return ST_FORMAT;
    }
    status st = stage->is_first ? wire_step_decode(a->data, a->size, &w->limits, s)
                                : wire_hidden_decode(a->data, a->size, &w->limits, s, &hidden);
    if (st)
        return st;
    if (s->position > stage->length) {
        log_error("rank %d: step at position %u, but the KV cache holds %u tokens", w->rank, s->position,
                  stage->length);
        return ST_FORMAT;
    }
    if (stage->is_first)
        embed_tokens(w, s);
    if (stage->is_first && w->o.model->positions.data)
        add_positions(w, s);
    if (!stage->is_first)
        memcpy(stage->x, hidden, (size_t)s->n_tokens * w->limits.d_model * sizeof(float));
    memcpy(stage->tokens, s->tokens, s->n_tokens * sizeof(int32_t));
    s->tokens = stage->tokens;
    return transport_release(w->o.transport, a);
}

status stage_run(struct worker *w, struct arrival *a)
{
    struct wire_step s;
    status st = take_step(w, a, &s);
    if (!st)
        st = run_layers(w, &s);
    if (!st)
        st = w->stage.is_last ? head_run(w, &s) : pass_on(w, &s);
    return st;
}
