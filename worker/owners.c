/* Asking the owners of something that several ranks hold a part of, and waiting for their answers. */
#include <string.h>

#include "base/log.h"
#include "worker/internal.h"

_Static_assert(PLAN_MAX_RANKS <= 64, "ranks are the bits of a word");

static bool is_output(const struct worker *w, int layer) { return layer == w->o.model->hp.n_layers; }

bool owner_of(const struct worker *w, int layer, int rank)
{
    int64_t begin, end;
    if (is_output(w, layer)) {
        plan_rows(w->o.plan, rank, w->o.model->hp.n_vocab, &begin, &end);
        return begin < end;
    }
    return plan_n_neurons(w->o.plan, layer, rank) > 0;
}

bool owners_want_q8(const struct worker *w, int layer)
{
    if (is_output(w, layer))
        return dtype_is_quantised(w->o.model->output.type);
    const struct layer_weights *f = &w->o.model->layers[layer];
    return (f->gate.data && dtype_is_quantised(f->gate.type)) || dtype_is_quantised(f->up.type);
}

bool owners_want_f32(const struct worker *w, int layer)
{
    if (is_output(w, layer))
        return !dtype_is_quantised(w->o.model->output.type);
    const struct layer_weights *f = &w->o.model->layers[layer];
    return (f->gate.data && !dtype_is_quantised(f->gate.type)) || !dtype_is_quantised(f->up.type);
}

/* Writes x as kernels read it: int8 blocks are four times smaller than floats and change no bit. */
static size_t encode_x(struct worker *w, int layer, uint64_t step, uint32_t n)
{
    const struct stage *s = &w->stage;
    const size_t values = (size_t)n * (size_t)s->in.cols;
    struct wire_ffn f = {.id = step, .layer = (uint32_t)layer, .n_tokens = n};
    f.form = owners_want_f32(w, layer) ? FORM_F32 : FORM_Q8;
    size_t size = wire_ffn_encode(&f, &w->limits, s->ffn.buffer, s->ffn.capacity);
    if (f.form == FORM_F32) {
        memcpy(f.f32, s->in.f32, values * sizeof(float));
    } else {
        memcpy(f.codes, s->in.codes, values);
        for (size_t i = 0; i < values / ACT_BLOCK; i++)
            f.scale[i] = s->in.blocks[i].scale;
    }
    if (f.residual)
        memcpy(f.residual, s->x, values * sizeof(float));
    return size;
}

status owners_ask(struct worker *w, int layer, uint64_t step, uint32_t n, int *expected)
{
    struct stage *s = &w->stage;
    size_t size = 0;
    *expected = 0;
    for (int r = 0; r < w->n_ranks; r++) {
        if (r == w->rank || !owner_of(w, layer, r))
            continue;
        if (!size)
            size = encode_x(w, layer, step, n);
        status st = transport_post(w->o.transport, r, WIRE_FFN, s->ffn.buffer, size, &s->ffn_sends[r]);
        if (st)
            return st;
        ++*expected;
    }
    return ST_OK;
}

/* Every owner answers once. */
static status take_once(const struct worker *w, const struct arrival *a, int layer, uint64_t *answered)
{
    const uint64_t bit = UINT64_C(1) << a->from;
    if (a->from == w->rank || !owner_of(w, layer, a->from) || *answered & bit) {
        log_error("rank %d: an answer for layer %d from rank %d, which was not asked or has answered", w->rank, layer,
                  a->from);
        return ST_FORMAT;
    }
    *answered |= bit;
    return ST_OK;
}

status owners_await(struct worker *w, int layer, uint64_t step, uint32_t n, int expected, int kind, take_answer *take)
{
    uint64_t answered = 0; /* ranks, a bit each */
    while (expected > 0) {
        struct arrival a;
        bool found;
        status st = serve_or_find(w, 1u << kind, &a, &found);
        if (!st && found) {
            st = take_once(w, &a, layer, &answered);
            st = st ? st : take(w, &a, layer, step, n);
            expected--;
        } else if (!st) {
            be_idle(&w->polls);
        }
        if (st)
            return st;
    }
    status st = ST_OK;
    for (int r = 0; r < w->n_ranks && !st; r++)
        if (r != w->rank && owner_of(w, layer, r)) /* who has answered has x: among honest ranks no wait */
            st = send_wait(w, &w->stage.ffn_sends[r]);
    return st;
}
