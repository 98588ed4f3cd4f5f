#include "device/cuda/held.h"

#include <stdlib.h>

#include "base/log.h"
#include "device/cuda/load.h"

void cuda_held_lay(struct cuda *c, const struct neuron_list *neurons, struct held *h)
{
    h->neurons = neurons;
    neuron_set_shape(&h->set, c->o.model, neurons);
    h->slot = lay_integers(&c->arena, h->set.n);
    h->block = lay_integers(&c->arena, h->set.n_blocks);
    h->column = lay_integers(&c->arena, h->set.n_blocks * ACT_BLOCK);
}

void cuda_held_load(struct loader *l, struct held *h)
{
    struct neuron_set *s = &h->set;
    const size_t n = (size_t)s->n, blocks = (size_t)s->n_blocks;
    s->ids = calloc(2 * n + (1 + ACT_BLOCK) * blocks, sizeof *s->ids);
    if (!s->ids) {
        log_error("out of memory for the tables of neurons");
        l->failed = ST_NOMEM;
        return;
    }
    s->slot = s->ids + n;
    s->block = s->slot + n;
    s->column = s->block + blocks;
    neuron_set_fill(s, h->neurons);
    cuda_load_array(l, h->slot, s->slot, n * sizeof *s->slot);
    cuda_load_array(l, h->block, s->block, blocks * sizeof *s->block);
    cuda_load_array(l, h->column, s->column, blocks * ACT_BLOCK * sizeof *s->column);
}

void cuda_held_free(struct held *h) { free(h->set.ids); }
