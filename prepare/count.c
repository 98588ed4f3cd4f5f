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

/* A tenth of the layer's mean |activation|, from the first tokens that it sees; not the very first, whose activations
 * are of another size in many models. */
static float silu_level(const float *h, uint32_t n, int64_t d_ff)
{
    double sum = 0;
    uint32_t from = n > 1;
    for (int64_t i = from * d_ff; i < n * d_ff; i++)
        sum += fabsf(h[i]);
    return (float)(sum / (double)((n - from) * d_ff) / 10);
}

static void count_token(const float *h, int64_t d_ff, float level, uint32_t *fired, double *sum)
{
    for (int64_t j = 0; j < d_ff; j++) {
        float strength = fabsf(h[j]);
        fired[j] += strength > level;
        sum[j] += strength;
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

void counter_observe(void *arg, int layer, uint32_t n, const float *x, const float *h)
{
    struct counter *c = arg;
    const struct part_shape *s = part_shape(c->part);
    struct part_state *state = part_state(c->part);
    const int own = layer - s->first;
    uint64_t *seen = &c->seen[own];
    if (!activation_is_exact(c->activation) && state->level[own] == 0)
        state->level[own] = silu_level(h, n, s->d_ff);
    for (uint32_t t = 0; t < n; t++, ++*seen) {
        if (*seen < c->counted * c->window_tokens)
            continue;
        count_token(h + t * s->d_ff, s->d_ff, state->level[own], state->fired + own * s->d_ff,
                    state->sum + own * s->d_ff);
        if (*seen % c->stride == 0 && *seen / c->stride < s->n_samples) {
            status st = part_put_sample(c->part, layer, *seen / c->stride, x + t * s->d_model);
            if (st)
                fail(c, st);
        }
    }
    if (c->saves)
        save_window(c, layer);
}
