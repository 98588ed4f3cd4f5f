#include "device/down.h"

void down_lay(const struct laying *to, const struct bundle *of, const struct neuron_set *set, bool dense,
              struct down *d)
{
    const bool transposed = of->down_t.data != NULL;
    const struct matrix *from = transposed ? &of->down_t : &of->down;
    *d = (struct down){.set = set, .by_column = !dense || !set->whole || transposed};
    if (!d->by_column) {
        lay_matrix(to->arena, &d->matrix, from, from->rows, set->n);
        return;
    }
    struct neuron_columns *m = &d->columns;
    neuron_columns_shape(m, from->type, transposed, to->o->model->hp.d_model, set->n, set->n_blocks);
    m->block = set->at.block;
    m->column = set->at.column;
    m->codes = arena_alloc(to->arena, neuron_columns_code_bytes(m));
    m->scales = arena_alloc(to->arena, neuron_columns_scale_bytes(m));
}

void down_load(struct loading *l, struct down *d, const struct bundle *of)
{
    if (l->failed || !d->set || !d->set->n)
        return;
    if (d->by_column)
        load_columns(l, &d->columns, d->columns.transposed ? &of->down_t : &of->down, d->set);
    else
        load_packed(l, &d->matrix, &of->down, 0, d->set->ids[0], NULL);
}
