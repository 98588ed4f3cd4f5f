#include "prepare/count.h"

#include <math.h>
#include <stdlib.h>
#include "base/log.h"

status counter_start(struct counter *c, struct part *part, enum activation activation, uint64_t window_tokens,
                     uint64_t stride, uint64_t first_window)
{
    const struct part_shape *s = part_shape(part);
    const int layers = s->last - s->first;
    *c = (struct counter){.part = part, .activation = activation, .window_tokens = window_tokens, .stride = stride,
                          .counted = part_state(part)->windows,
                          .seen = malloc(((size_t)layers + 1) * sizeof *c->seen)};
    if (!c->seen) {
        log_error("no memory to count %d layers", layers);
        return ST_NOMEM;
    }
    for (int i = 0; i < layers; i++)
        c->seen[i] = first_window * window_tokens;
    return ST_OK;
}

void counter_stop(struct counter *c)
{
    free(c->seen);
    c->seen = NULL;
}

static void fail(struct counter *c, status st)
{
    int ok = ST_OK;
    atomic_compare_exchange_strong(&c->failed, &ok, (int)st);
}

static uint32_t token_of(const struct observed_neurons *of, uint32_t i) { return of->token ? of->token[i] : i; }

/* A tenth of the layer's mean |activation|, from the first tokens that it sees; not the very first, whose activations
 * are of another size in many models. */
static float silu_level(const struct observed *seen)
{
    const uint32_t from = seen->n > 1;
    double sum = 0, n = 0;
    for (const struct observed_neurons *of = seen->neurons; of < seen->neurons + seen->n_neurons; of++) {
        for (uint32_t i = 0; i < of->n_tokens; i++) {
            for (int64_t j = 0; token_of(of, i) >= from && j < of->n; j++)
                sum += fabsf(of->h[i * of->stride + j]);
            n += token_of(of, i) >= from ? (double)of->n : 0;
        }
    }
    return n > 0 ? (float)(sum / n / 10) : 0;
}

static void count_token(const float *h, int64_t n, float level, uint32_t *fired, double *sum)
{
    for (int64_t j = 0; j < n; j++) {
        float strength = fabsf(h[j]);
        fired[j] += strength > level;
        sum[j] += strength;
    }
}

/* Counts the tokens of a step from `from` on, of a layer of this process. */
static void count_step(const struct counter *c, const struct observed *seen, uint64_t from)
{
    const struct part_shape *s = part_shape(c->part);
    struct part_state *state = part_state(c->part);
    const int own = seen->layer - s->first;
    for (const struct observed_neurons *of = seen->neurons; of < seen->neurons + seen->n_neurons; of++) {
        const int64_t first = own * s->d_ff + of->first;
        for (uint32_t i = 0; i < of->n_tokens; i++)
            if (token_of(of, i) >= from)
                count_token(of->h + i * of->stride, of->n, state->level[own], state->fired + first,
                            state->sum + first);
    }
    for (uint64_t i = from * (uint64_t)s->n_used; seen->expert && i < seen->n * (uint64_t)s->n_used; i++)
        state->chosen[own * s->n_experts + seen->expert[i]]++;
}

/* Keeps those of the step's tokens from `from` on whose turn it is; `before` were seen before the step. */
static void keep_samples(struct counter *c, const struct observed *seen, uint64_t before, uint64_t from)
{
    const struct part_shape *s = part_shape(c->part);
    for (uint64_t t = from; t < seen->n; t++) {
        const uint64_t slot = (before + t) / c->stride;
        if ((before + t) % c->stride != 0 || slot >= s->n_samples)
            continue;
        status st = part_put_sample(c->part, seen->layer, slot, seen->x + t * (uint64_t)s->d_model);
        if (!st && seen->expert)
            st = part_put_routes(c->part, seen->layer, slot, seen->expert + t * (uint64_t)s->n_used,
                                 seen->weight + t * (uint64_t)s->n_weights);
        if (st)
            fail(c, st);
    }
}

/* A window's end for all layers of this process, if this was the last of them. */
static void save_window(struct counter *c, int layer)
{
    struct part_state *state = part_state(c->part);
    const struct part_shape *s = part_shape(c->part);
    uint64_t seen = c->seen[layer - s->first];
    if (layer != s->last - 1 || seen % c->window_tokens != 0)
        return;
    if (seen / c->window_tokens > state->windows)
        state->windows = seen / c->window_tokens;
    status st = part_due(c->part) ? part_save(c->part) : ST_OK;
    if (st)
        fail(c, st);
}

void counter_observe(void *arg, const struct observed *seen)
{
    struct counter *c = arg;
    struct part_state *state = part_state(c->part);
    const int own = seen->layer - part_shape(c->part)->first;
    const uint64_t before = c->seen[own], counted = c->counted * c->window_tokens;
    const uint64_t from = counted > before ? counted - before : 0;
    if (!activation_is_exact(c->activation) && state->level[own] == 0)
        state->level[own] = silu_level(seen);
    if (from < seen->n) {
        count_step(c, seen, from);
        keep_samples(c, seen, before, from);
    }
    c->seen[own] += seen->n;
    if (c->saves)
        save_window(c, seen->layer);
}
