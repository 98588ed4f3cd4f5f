#include "node/heat.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "placement/cost.h"

static void fill(const struct neurons *n, struct heat *h)
{
    float *at = h->room;
    for (int l = 0; l < n->n_layers; l++) {
        const bool makes = at && neurons_experts(n, l);
        h->of[l] = makes ? at : n->layers[l].fired;
        for (int64_t j = 0; makes && j < neurons_of_layer(n, l); j++)
            *at++ = neurons_looked_at(n, l, j);
    }
}

status heat_of(const struct neurons *n, bool dense, struct heat *h)
{
    const bool makes = dense && n->experts.n;
    *h = (struct heat){.of = malloc((size_t)n->n_layers * sizeof *h->of),
                       .room = makes ? malloc((size_t)n->n_layers * (size_t)n->d_ff * sizeof *h->room) : NULL};
    if (h->of && (h->room || !makes)) {
        fill(n, h);
        return ST_OK;
    }
    log_error("no memory for %d layers", n->n_layers);
    return ST_NOMEM;
}

void heat_free(struct heat *h)
{
    free(h->of);
    free(h->room);
}

int64_t *heat_fires(const struct neurons *n)
{
    const int64_t d_ff = n->d_ff;
    int64_t *fires = malloc((size_t)n->n_layers * (size_t)(d_ff + 1) * sizeof *fires);
    if (!fires) {
        log_error("no memory for how often the neurons of %d layers fire", n->n_layers);
        return NULL;
    }
    for (int l = 0; l < n->n_layers; l++) {
        int64_t *before = fires + l * (d_ff + 1);
        before[0] = 0;
        for (int64_t j = 0; j < neurons_of_layer(n, l); j++)
            before[j + 1] = before[j] + llrint(fmin((double)n->layers[l].fired[j], 1) / COST_FIRES);
    }
    return fires;
}

float *heat_chosen(const struct neurons *n)
{
    float *chosen = calloc((size_t)n->n_layers * (size_t)n->experts.n, sizeof *chosen);
    if (!chosen) {
        log_error("no memory for how often the experts of %d layers are chosen", n->n_layers);
        return NULL;
    }
    for (int l = 0; l < n->n_layers; l++)
        if (neurons_experts(n, l))
            memcpy(chosen + l * n->experts.n, n->layers[l].chosen, (size_t)n->experts.n * sizeof *chosen);
    return chosen;
}
