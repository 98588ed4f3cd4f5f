#include "sparsity/fit/products.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { ALIGN = 64, GROUP_GRAIN = 2, ROW_GRAIN = 32, TOKEN_GRAIN = 64, TOKEN_BLOCK = 256 };

void *products_alloc(int64_t n, size_t size)
{
    size_t bytes;
    void *p = NULL;
    if (n >= 0 && !__builtin_mul_overflow((size_t)n, size, &bytes) && bytes <= SIZE_MAX - ALIGN)
        p = aligned_alloc(ALIGN, bytes / ALIGN * ALIGN + ALIGN);
    if (!p)
        log_error("no memory to fit a layer: %lld values of %zu bytes", (long long)n, size);
    return p;
}

status products_open(struct products *p, const struct kernels *k, struct pool *pool, int64_t n, int64_t cols)
{
    *p = (struct products){.kernels = k, .pool = pool, .n = n, .acts.cols = cols};
    lane_acts_shape(&p->lanes, cols);
    const int64_t lane_codes = lane_acts_codes(&p->lanes), lane_blocks = lane_acts_blocks(&p->lanes);
    bool ok = (p->acts.f32 = products_alloc(n * cols, sizeof(float)));
    ok = ok && (p->acts.codes = products_alloc(n * cols, 1));
    ok = ok && (p->acts.blocks = products_alloc(n * cols / ACT_BLOCK, sizeof *p->acts.blocks));
    ok = ok && (p->lanes.codes = products_alloc(n * lane_codes, 1));
    ok = ok && (p->lanes.scale = products_alloc(n * lane_blocks, sizeof(float)));
    ok = ok && (p->lanes.scaled_sum = products_alloc(n * lane_blocks, sizeof(float)));
    ok = ok && (p->lanes.minus_sum = products_alloc(n * lane_blocks, sizeof(int32_t)));
    ok = ok && (p->lanes.minus_sum_low = products_alloc(n * lane_blocks, sizeof(int32_t)));
    return ok ? ST_OK : ST_NOMEM;
}

void products_close(struct products *p)
{
    free(p->acts.f32);
    free(p->acts.codes);
    free(p->acts.blocks);
    free(p->lanes.codes);
    free(p->lanes.scale);
    free(p->lanes.scaled_sum);
    free(p->lanes.minus_sum);
    free(p->lanes.minus_sum_low);
    *p = (struct products){0};
}

static void quantize_piece(void *arg, int64_t begin, int64_t end, int thread)
{
    struct products *p = arg;
    (void)thread;
    p->kernels->quantize(&p->acts, begin, end);
    p->kernels->spread(&p->acts, begin, end, &p->lanes);
}

void products_quantize(struct products *p)
{
    p->lanes.f32 = p->acts.f32;
    if (p->acts.cols % ACT_BLOCK == 0) /* else no matrix that reads this is quantised */
        pool_for(p->pool, p->n, TOKEN_GRAIN, quantize_piece, p);
}

/* ---- exact ---- */

struct exact {
    const struct products *p;
    const struct matrix *w;
    struct packed m;
    float *out;
};

/* Tokens [t, ...) of p. */
static struct acts acts_from(const struct acts *a, int64_t t)
{
    return (struct acts){.cols = a->cols, .f32 = a->f32 + t * a->cols, .codes = a->codes + t * a->cols,
                         .blocks = a->blocks + t * a->cols / ACT_BLOCK};
}

static void exact_piece(void *arg, int64_t begin, int64_t end, int thread)
{
    struct exact *e = arg;
    (void)thread;
    packed_fill(&e->m, begin, end, e->w->data, dtype_row_bytes(e->w->type, e->w->cols), NULL);
    for (int64_t t = 0; t < e->p->n; t += TOKEN_BLOCK) {
        const struct acts a = acts_from(&e->p->acts, t);
        const int64_t left = e->p->n - t;
        e->p->kernels->matmul(&e->m, begin, end, &a, left < TOKEN_BLOCK ? left : TOKEN_BLOCK, e->out + t * e->m.rows,
                              e->m.rows);
    }
}

status products_exact(const struct products *p, const struct matrix *w, float *out)
{
    struct exact e = {.p = p, .w = w, .out = out};
    packed_shape(&e.m, w->type, w->rows, w->cols);
    e.m.data = products_alloc((int64_t)packed_bytes(&e.m), 1);
    if (!e.m.data)
        return ST_NOMEM;
    pool_for(p->pool, e.m.groups, GROUP_GRAIN, exact_piece, &e);
    free(e.m.data);
    return ST_OK;
}

/* ---- estimated ---- */

struct estimate {
    const struct products *p;
    const struct matrix *w;
    struct neuron_rows m;
    float *out;
};

static struct lane_acts lanes_from(const struct lane_acts *x, int64_t t)
{
    const int64_t blocks = lane_acts_blocks(x);
    struct lane_acts y = *x;
    y.codes += t * lane_acts_codes(x);
    y.scale += t * blocks;
    y.scaled_sum += t * blocks;
    y.minus_sum += t * blocks;
    y.minus_sum_low += t * blocks;
    y.f32 += t * x->cols;
    return y;
}

static void estimate_piece(void *arg, int64_t begin, int64_t end, int thread)
{
    struct estimate *e = arg;
    (void)thread;
    neuron_rows_fill(&e->m, begin, end, e->w->data, dtype_row_bytes(e->w->type, e->w->cols), NULL);
    for (int64_t t = 0; t < e->p->n; t += TOKEN_BLOCK) {
        const struct lane_acts x = lanes_from(&e->p->lanes, t);
        const int64_t left = e->p->n - t;
        e->p->kernels->estimate_rows(&e->m, begin, end, &x, left < TOKEN_BLOCK ? left : TOKEN_BLOCK,
                                     e->out + t * e->m.rows + begin, e->m.rows);
    }
}

status products_estimate(const struct products *p, const struct matrix *w, float *out)
{
    struct estimate e = {.p = p, .w = w, .out = out};
    status st = ST_NOMEM;
    neuron_rows_shape(&e.m, w->type, w->rows, w->cols, true);
    e.m.top = products_alloc(w->rows, e.m.top_bytes);
    e.m.rest = e.m.top ? products_alloc(w->rows, e.m.rest_bytes) : NULL;
    if (e.m.rest) {
        pool_for(p->pool, w->rows, ROW_GRAIN, estimate_piece, &e);
        st = ST_OK;
    }
    free(e.m.top);
    free(e.m.rest);
    return st;
}

void products_live(const float *value, const float *bias, const float *up, int64_t n, int64_t d_ff, bool *live)
{
    for (int64_t i = 0; i < n * d_ff; i++)
        live[i] = value[i] + (bias ? bias[i % d_ff] : 0) > 0 && (!up || up[i] > 0);
}
