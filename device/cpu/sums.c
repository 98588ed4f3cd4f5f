/* Partial sums, f64 on a grid (kernels.h, SEGMENT_GRID), into messages and out of them (kernels/sums.h): whole tokens
 * to a thread. */
#include <string.h>

#include "device/cpu/sums.h"

/* Widths of a token. */
static size_t n_widths(const struct cpu *c) { return (size_t)(c->hp->d_model + SUM_BLOCK - 1) / SUM_BLOCK; }

/* Bytes of the first n widths' sums. */
static size_t packed_sums(const uint8_t *width, size_t n)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += width[i];
    return bytes * SUM_BLOCK;
}

struct packing {
    const struct cpu *c;
    double *sum;       /* [n, d] */
    bool f16;
    const struct sum_bytes *bytes;
};

static void find_widths(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct packing *p = arg;
    const int64_t d = p->c->hp->d_model;
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        p->c->o.kernels->sum_widths(p->sum + t * d, d, p->f16, p->bytes->width + (size_t)t * n_widths(p->c));
}

static void pack_tokens(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct packing *p = arg;
    const int64_t d = p->c->hp->d_model;
    const size_t n = n_widths(p->c);
    uint8_t *at = p->bytes->packed + packed_sums(p->bytes->width, (size_t)begin * n);
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        const uint8_t *width = p->bytes->width + (size_t)t * n;
        p->c->o.kernels->pack_sums(p->sum + t * d, d, width, at);
        at += packed_sums(width, n);
    }
}

void sums_export(struct cpu *c, uint32_t n, const struct sums *sums, bool f16, const struct sum_bytes *to)
{
    struct packing p = {c, sums->sum, f16, to};
    pool_for(c->o.pool, n, 4, find_widths, &p);
    pool_for(c->o.pool, n, 4, pack_tokens, &p);
}

static void add_tokens(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct packing *p = arg;
    const int64_t d = p->c->hp->d_model;
    const size_t n = n_widths(p->c);
    const uint8_t *at = p->bytes->packed + packed_sums(p->bytes->width, (size_t)begin * n);
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        const uint8_t *width = p->bytes->width + (size_t)t * n;
        p->c->o.kernels->add_packed(at, width, d, p->sum + t * d);
        at += packed_sums(width, n);
    }
}

void sums_import(struct cpu *c, uint32_t n, const struct sum_bytes *from, struct sums *sums)
{
    struct packing p = {.c = c, .sum = sums->sum, .bytes = from};
    pool_for(c->o.pool, n, 4, add_tokens, &p);
}

void sums_clear(struct cpu *c, uint32_t n, struct sums *sums)
{
    memset(sums->sum, 0, (size_t)n * (size_t)c->hp->d_model * sizeof *sums->sum);
}
