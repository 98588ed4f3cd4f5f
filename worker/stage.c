/* A stage's work: the layers of its range, from tokens or hidden states to hidden states or a result. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/exactmath.h"
#include "base/log.h"
#include "worker/internal.h"

static void embed_tokens(struct worker *w, const struct wire_step *s)
{
    const struct matrix *e = &w->o.model->embedding;
    const size_t row = dtype_row_bytes(e->type, e->cols);
    for (uint32_t t = 0; t < s->n_tokens; t++)
        dequantize_row(e->type, w->stage.embedding + (size_t)wire_token(s->tokens, t) * row, e->cols,
                       w->stage.x + t * e->cols);
}

static void add_positions(struct worker *w, const struct wire_step *s)
{
    const struct matrix *p = &w->o.model->positions;
    const size_t row = dtype_row_bytes(p->type, p->cols);
    for (uint32_t t = 0; t < s->n_tokens; t++) {
        dequantize_row(p->type, w->stage.positions + (s->position + t) * row, p->cols, w->stage.y);
        w->o.kernels->add(w->stage.x + t * p->cols, w->stage.y, p->cols);
    }
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
    struct task t = {.step = s->id, .position = s->position, .n = s->n_tokens};
    status st = ST_OK;
    stage->counts = s->counts;
    for (t.layer = stage->first; t.layer < stage->last && !st; t.layer++) {
        t.part = PART_ATTENTION;
        st = block_run(w, &t);
        t.part = PART_FFN;
        st = st ? st : block_run(w, &t);
        if (!st && w->o.model->hp.parallel)
            pool_for(w->pool, t.n, 4, add_attention, w);
    }
    stage->length = s->position + s->n_tokens;
    return st;
}

/* A HIDDEN of the step and x. */
static size_t write_hidden(const struct worker *w, const struct wire_step *s, uint8_t *out, size_t cap)
{
    float *hidden;
    size_t size = wire_hidden_encode(s, &w->limits, out, cap, &hidden);
    memcpy(hidden, w->stage.x, (size_t)s->n_tokens * w->limits.d_model * sizeof(float));
    return size;
}

/* Where all ranks have the residual stream, the home gives it to the others as it begins. */
static status share_step(struct worker *w, const struct wire_step *s)
{
    struct multicast *m = &w->stage.step;
    status st = m->buffer ? multicast_wait(w, m) : ST_OK;
    if (st || !m->buffer)
        return st;
    const size_t size = write_hidden(w, s, m->buffer, m->capacity);
    for (int r = 0; r < w->n_ranks && !st; r++)
        if (r != w->rank && plan_takes_part(w->o.plan, r))
            st = multicast_send(w, m, r, WIRE_HIDDEN, size);
    return st;
}

static status pass_on(struct worker *w, const struct wire_step *s)
{
    struct stage *stage = &w->stage;
    struct outbox *box = &stage->hidden[stage->hidden_turn];
    stage->hidden_turn = (stage->hidden_turn + 1) % STAGE_BUFFERS;
    status st = outbox_wait(w, box);
    if (st)
        return st;
    struct wire_step passed = *s;
    passed.counts = stage->counts;
    return outbox_send(w, box, stage->next, WIRE_HIDDEN, write_hidden(w, &passed, box->buffer, box->capacity));
}

/* What a step begins with may be no numbers already. */
static status check_input(const struct worker *w, const struct wire_step *s, int from)
{
    const struct task t = {.part = PART_OUTPUT, .step = s->id, .position = s->position, .n = s->n_tokens}; /* no layer */
    const int64_t d = w->o.model->hp.d_model;
    char what[48] = "the embedding";
    if (all_numbers(w->stage.x, t.n * d))
        return ST_OK;
    if (!w->stage.embeds)
        snprintf(what, sizeof what, "the hidden state from rank %d", from);
    return not_numbers(w, &t, what, w->stage.x, d);
}

/* Reads the step that `a` brings into *s and its tokens' states into x. The message is released: the next one may come
 * while this step runs. */
static status take_step(struct worker *w, struct arrival *a, struct wire_step *s)
{
    struct stage *stage = &w->stage;
    const float *hidden;
    bool expected = stage->first < stage->last && (a->kind == WIRE_STEP) == stage->embeds && a->from == stage->before;
    if (!expected) {
        log_error("%s of %zu bytes from rank %d, which the plan does not foresee", wire_name(a->kind), a->size, a->from);
        return ST_FORMAT;
    }
    log_sender(a->from);
    status st = stage->embeds ? wire_step_decode(a->data, a->size, &w->limits, stage->tokens, s)
                              : wire_hidden_decode(a->data, a->size, &w->limits, stage->tokens, s, &hidden);
    log_sender(-1);
    if (st)
        return st;
    if (s->position > stage->length) {
        log_error("step at position %u from rank %d, but the KV cache holds %u tokens", s->position, a->from,
                  stage->length);
        return ST_FORMAT;
    }
    if (stage->embeds)
        embed_tokens(w, s);
    if (stage->positions)
        add_positions(w, s);
    if (!stage->embeds)
        memcpy(stage->x, hidden, (size_t)s->n_tokens * w->limits.d_model * sizeof(float));
    if ((st = check_input(w, s, a->from)) != ST_OK || (st = share_step(w, s)) != ST_OK)
        return st;
    return transport_release(w->o.transport, a);
}

status stage_run(struct worker *w, struct arrival *a)
{
    const uint64_t start_ns = clock_ns();
    struct wire_step s;
    status st = take_step(w, a, &s);
    if (!st)
        st = run_layers(w, &s);
    if (!st)
        st = w->stage.next < 0 ? head_run(w, &s) : pass_on(w, &s);
    w->usage.run_ns += clock_ns() - start_ns;
    return st;
}
