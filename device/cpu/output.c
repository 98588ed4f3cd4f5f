#include "device/cpu/output.h"

void output_lay(struct cpu *c, struct output *o)
{
    const struct shard *s = c->o.shard;
    lay_matrix(&c->arena, &o->rows, &c->o.model->output, s->row_end - s->row_begin, c->o.model->output.cols);
}

void output_load(struct loading *l, struct output *o)
{
    load_packed(l, &o->rows, &l->o->model->output, l->o->shard->row_begin, 0, NULL);
}

struct product {
    struct cpu *c;
    const struct packed *rows;
    const struct acts *x;
    uint32_t n;
    float *logits;     /* [n, stride], from the first own row on */
    int64_t stride;
};

static void multiply_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    struct product *p = arg;
    (void)thread;
    p->c->o.kernels->matmul(p->rows, begin, end, p->x, p->n, p->logits, p->stride);
}

void output_compute(struct cpu *c, const struct output *o, const struct acts *x, uint32_t n, float *logits,
                    int64_t stride)
{
    struct product p = {c, &o->rows, x, n, logits, stride};
    pool_for(c->o.pool, o->rows.groups, group_grain(c, o->rows.groups), multiply_rows, &p);
    c->counts.bytes += packed_bytes(&o->rows);
}
