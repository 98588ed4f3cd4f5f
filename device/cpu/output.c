#include "device/cpu/output.h"

#include <math.h>

#include "device/cpu/numbers.h"

void output_lay(struct cpu *c, struct output *o)
{
    const struct shard *s = c->o.shard;
    lay_matrix(c, &o->rows, &c->o.model->output, s->row_end - s->row_begin, c->o.model->output.cols);
}

void output_load(struct loading *l, struct output *o)
{
    load_slice(l, &o->rows, &l->c->o.model->output, l->c->o.shard->row_begin, 0);
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

enum { LOGITS_CHECKED = 16384 }; /* by a thread at a time */

struct checking {
    const float *logits;
    _Atomic bool broken;
};

static void check_some(void *arg, int64_t begin, int64_t end, int thread)
{
    struct checking *c = arg;
    (void)thread;
    if (!all_numbers(c->logits + begin, end - begin))
        c->broken = true;
}

status logits_check(struct cpu *c, const struct work *w, const float *logits)
{
    struct checking all = {.logits = logits};
    pool_for(c->o.pool, w->n * c->hp->n_vocab, LOGITS_CHECKED, check_some, &all);
    return all.broken ? not_numbers(c, w, "the logits", logits, c->hp->n_vocab) : ST_OK;
}

struct scoring {
    const struct cpu *c;
    float *logits;       /* [n, n_vocab] */
    const int32_t *next; /* [n] */
    float *scores;       /* [n] */
};

/* Log-sum-exp from the softmax, whose largest value is 1 / sum. */
static void score_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct scoring *s = arg;
    const int64_t n_vocab = s->c->hp->n_vocab;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        float *row = s->logits + i * n_vocab;
        int64_t top = 0;
        for (int64_t v = 1; v < n_vocab; v++)
            top = row[v] > row[top] ? v : top;
        double behind = (double)row[top] - (s->next[i] >= 0 ? (double)row[s->next[i]] : 0.0);
        s->c->o.kernels->softmax(row, n_vocab);
        s->scores[i] = (float)(behind - log((double)row[top]));
    }
}

void logits_score(struct cpu *c, uint32_t n, float *logits, const int32_t *next, float *scores)
{
    struct scoring s = {c, logits, next, scores};
    pool_for(c->o.pool, n, 1, score_rows, &s);
}
