#include "device/neuron_set.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "device/loading.h"
#include "kernels/kernels.h"

/* Whether the set is one range of whole units, so that its down projection can be packed as a slice of columns. */
static bool is_whole(int64_t unit, const struct bundle *of, const struct neuron_list *l)
{
    return l->n_spans == 1 && l->spans->begin % unit == 0 && (l->spans->end % unit == 0 || l->spans->end == of->n);
}

static int64_t count_blocks(const struct neuron_list *l)
{
    int64_t n = 0, last = -1;
    for (int i = 0; i < l->n_spans; i++) {
        for (int64_t b = l->spans[i].begin / ACT_BLOCK; b * ACT_BLOCK < l->spans[i].end; b++) {
            n += b != last;
            last = b;
        }
    }
    return n;
}

void neuron_set_shape(struct neuron_set *s, int64_t unit, const struct bundle *of, const struct neuron_list *neurons)
{
    *s = (struct neuron_set){.neurons = neurons, .n = neuron_list_count(neurons), .n_blocks = count_blocks(neurons),
                             .whole = is_whole(unit, of, neurons)};
}

void neuron_set_lay(const struct laying *to, struct neuron_set *s, const struct bundle *of,
                    const struct neuron_list *neurons)
{
    neuron_set_shape(s, to->unit, of, neurons);
    if (!to->apart)
        s->ids = lay_integers(to->arena, s->n); /* no kernel asks for them */
    s->at.slot = lay_integers(to->arena, s->n);
    s->at.block = lay_integers(to->arena, s->n_blocks);
    s->at.column = lay_integers(to->arena, s->n_blocks * ACT_BLOCK);
}

/* Fills the host's arrays. */
static void fill(struct neuron_set *s)
{
    const struct neuron_list *l = s->neurons;
    int64_t own = 0, blocks = 0;
    for (int i = 0; i < l->n_spans; i++) {
        for (int32_t id = l->spans[i].begin; id < l->spans[i].end; id++, own++) {
            const int32_t block = id / ACT_BLOCK;
            if (blocks == 0 || s->block[blocks - 1] != block) {
                memset(s->column + blocks * ACT_BLOCK, 0xff, ACT_BLOCK * sizeof *s->column);
                s->block[blocks++] = block;
            }
            s->ids[own] = id;
            s->slot[own] = (int32_t)((blocks - 1) * ACT_BLOCK + id % ACT_BLOCK);
            s->column[s->slot[own]] = (int32_t)own;
        }
    }
}

/* The host's arrays of a set that lies elsewhere. */
static bool take_aside(struct loading *l, struct neuron_set *s)
{
    s->aside = calloc((size_t)(2 * s->n + (1 + ACT_BLOCK) * s->n_blocks), sizeof *s->aside);
    if (!s->aside) {
        log_error("out of memory for the tables of neurons");
        l->failed = ST_NOMEM;
        return false;
    }
    s->ids = s->aside;
    s->slot = s->ids + s->n;
    s->block = s->slot + s->n;
    s->column = s->block + s->n_blocks;
    return true;
}

void neuron_set_load(struct loading *l, struct neuron_set *s)
{
    const size_t n = (size_t)s->n, blocks = (size_t)s->n_blocks;
    if (!l->taking) {
        s->slot = s->at.slot;
        s->block = s->at.block;
        s->column = s->at.column;
        fill(s);
    } else if (!l->failed && take_aside(l, s)) {
        fill(s);
        load_array(l, s->at.slot, s->slot, n * sizeof *s->slot);
        load_array(l, s->at.block, s->block, blocks * sizeof *s->block);
        load_array(l, s->at.column, s->column, blocks * ACT_BLOCK * sizeof *s->column);
    }
}

void neuron_set_free(struct neuron_set *s) { free(s->aside); }
