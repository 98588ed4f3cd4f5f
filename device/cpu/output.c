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

/* Products become logits. */
static void finish_rows(const struct product *p, int64_t begin, int64_t end)
{
    const struct hparams *hp = p->c->hp;
    for (uint32_t t = 0; t < p->n; t++) {
        float *logits = p->logits + t * p->stride + begin;
        if (hp->logit_scale != 1)
            multiply(logits, end - begin, hp->logit_scale);
        if (hp->logit_softcap > 0)
            p->c->o.kernels->softcap(logits, end - begin, hp->logit_softcap);
    }
}

static void multiply_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    struct product *p = arg;
    (void)thread;
    p->c->o.kernels->matmul(p->rows, begin, end, p->x, p->n, p->logits, p->stride);
    finish_rows(p, begin * ROW_GROUP, end * ROW_GROUP < p->rows->rows ? end * ROW_GROUP : p->rows->rows);
}

void output_compute(struct cpu *c, const struct output *o, const struct acts *x, uint32_t n, float *logits,
                    int64_t stride)
{
    struct product p = {c, &o->rows, x, n, logits, stride};
    pool_for(c->o.pool, o->rows.groups, group_grain(c, o->rows.groups, n), multiply_rows, &p);
    c->counts.bytes += packed_bytes(&o->rows);
}
