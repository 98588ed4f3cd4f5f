#ifndef HEARTH_DEVICE_CPU_NEURON_SET_H
#define HEARTH_DEVICE_CPU_NEURON_SET_H

#include "device/cpu/cpu.h"
#include "device/neuron_set.h"

/* Arrays are the arena's. */
static inline void neuron_set_lay(struct cpu *c, const struct neuron_list *neurons, struct neuron_set *s)
{
    neuron_set_shape(s, c->o.model, neurons);
    s->ids = lay_integers(&c->arena, s->n);
    s->slot = lay_integers(&c->arena, s->n);
    s->block = lay_integers(&c->arena, s->n_blocks);
    s->column = lay_integers(&c->arena, s->n_blocks * ACT_BLOCK);
    if (s->column)
        neuron_set_fill(s, neurons);
}

#endif
