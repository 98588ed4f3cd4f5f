#include "device/neuron_set.h"

#include <string.h>

#include "kernels/kernels.h"

/* Whether the set is one range of whole units, so that its down projection can be packed as a slice of columns. */
static bool is_whole(const struct model *m, const struct neuron_list *l)
{
    const int64_t unit = model_neuron_unit(m), d_ff = m->hp.d_ff;
    return l->n_spans == 1 && l->spans->begin % unit == 0 && (l->spans->end % unit == 0 || l->spans->end == d_ff);
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

void neuron_set_shape(struct neuron_set *s, const struct model *m, const struct neuron_list *neurons)
{
    *s = (struct neuron_set){.n = neuron_list_count(neurons), .n_blocks = count_blocks(neurons),
                             .whole = is_whole(m, neurons)};
}

void neuron_set_fill(struct neuron_set *s, const struct neuron_list *l)
{
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

void neuron_set_pick(const struct neuron_set *s, const float *from, float otherwise, const float *weight, float *to)
{
    for (int64_t i = 0; i < s->n; i++)
        to[i] = (from ? from[s->ids[i]] : otherwise) * (weight ? weight[s->ids[i]] : 1);
}
