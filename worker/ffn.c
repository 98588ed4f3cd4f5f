/* The FFN block of a stage: x += ffn(norm(x)). Its neurons lie on many ranks: x goes to their owners, this rank computes
 * its own part meanwhile, and the partial sums are merged. */
#include <string.h>

#include "base/log.h"
#include "worker/internal.h"

struct norm {
    struct worker *w;
    const float *weight;
    bool quantise;
};

static void norm_tokens(void *arg, int64_t begin, int64_t end, int thread)
{
    struct norm *a = arg;
    struct stage *s = &a->w->stage;
    const struct hparams *hp = &a->w->o.model->hp;
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        a->w->o.kernels->rms_norm(s->x + t * hp->d_model, a->weight, hp->d_model, hp->norm_eps,
                                  s->in.f32 + t * hp->d_model);
    if (a->quantise)
        a->w->o.kernels->quantize(&s->in, begin, end);
}

static bool owns(const struct worker *w, int layer, int rank)
{
    const int64_t *bound = w->o.plan->layers[layer].bound;
    return bound[rank] < bound[rank + 1];
}

/* Writes x as kernels read it: int8 blocks are four times smaller than floats and change no bit. */
static size_t encode_x(struct worker *w, int layer, uint64_t step, uint32_t n)
{
    const struct stage *s = &w->stage;
    const size_t values = (size_t)n * (size_t)s->in.cols;
    struct wire_ffn f = {.id = step, .layer = (uint32_t)layer, .n_tokens = n};
    f.form = shard_wants_f32(w, layer) ? FORM_F32 : FORM_Q8;
    size_t size = wire_ffn_encode(&f, &w->limits, s->ffn.buffer, s->ffn.capacity);
    if (f.form == FORM_F32) {
        memcpy(f.f32, s->in.f32, values * sizeof(float));
    } else {
        memcpy(f.codes, s->in.codes, values);
        for (size_t i = 0; i < values / ACT_BLOCK; i++)
            f.scale[i] = s->in.blocks[i].scale;
    }
    return size;
}

/* Starts sending x to every other owner; *expected counts them. */
static status send_x(struct worker *w, int layer, uint64_t step, uint32_t n, int *expected)
{
    struct stage *s = &w->stage;
    size_t size = 0;
    *expected = 0;
    for (int r = 0; r < w->n_ranks; r++) {
        if (r == w->rank || !owns(w, layer, r))
            continue;
        if (!size)
            size = encode_x(w, layer, step, n);
        status st = transport_send(w->o.transport, r, WIRE_FFN, s->ffn.buffer, size, &s->ffn_sends[r]);
        if (st)
            return st;
        ++*expected;
    }
    return ST_OK;
}

static status take_partial(struct worker *w, struct arrival *a, int layer, uint64_t step, uint32_t n)
{
    struct wire_partial p;
    uint8_t *buffer = w->stage.partials[a->from];
    if (!buffer || a->size > wire_partial_max(&w->limits)) {
        log_error("rank %d: partial sum of %zu bytes from rank %d, which the plan does not foresee", w->rank, a->size,
                  a->from);
        return ST_FORMAT;
    }
    status st = transport_receive(w->o.transport, a, buffer);
    if (!st)
        st = wire_partial_decode(buffer, a->size, &w->limits, &p);
    if (!st && (p.id != step || p.layer != (uint32_t)layer || p.n_tokens != n)) {
        log_error("rank %d: partial sum from rank %d is of step %llu, layer %u, %u tokens; expected %llu, %d, %u", w->rank,
                  a->from, (unsigned long long)p.id, p.layer, p.n_tokens, (unsigned long long)step, layer, n);
        st = ST_FORMAT;
    }
    return st;
}

/* Waits for the owners' sums, serving requests of other stages meanwhile. */
static status await_partials(struct worker *w, int layer, uint64_t step, uint32_t n, int expected)
{
    unsigned polls = 0;
    while (expected > 0) {
        struct arrival a;
        bool found;
        status st = serve_or_find(w, 1u << WIRE_PARTIAL, &a, &found);
        if (!st && found) {
            st = take_partial(w, &a, layer, step, n);
            expected--;
            polls = 0;
        } else if (!st) {
            be_idle(&polls);
        }
        if (st)
            return st;
    }
    for (int r = 0; r < w->n_ranks; r++) { /* their answers say that x has arrived */
        bool done = r == w->rank || !owns(w, layer, r);
        while (!done) {
            status st = transport_sent(w->o.transport, &w->stage.ffn_sends[r], &done);
            if (st)
                return st;
        }
    }
    return ST_OK;
}

status ffn_block(struct worker *w, int layer, uint64_t step, uint32_t n)
{
    struct stage *s = &w->stage;
    struct norm norm = {w, s->layers[layer - s->first].ffn_norm, shard_wants_q8(w, layer)};
    int expected;
    pool_for(w->pool, n, 4, norm_tokens, &norm);
    status st = send_x(w, layer, step, n, &expected);
    if (st)
        return st;
    if (owns(w, layer, w->rank))
        shard_compute(w, layer, &s->in, n, s->own);
    st = await_partials(w, layer, step, n, expected);
    if (!st)
        merge_partials(w, layer, n);
    return st;
}
