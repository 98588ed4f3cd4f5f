/* Partial sums into messages and out of them (kernels/sums.h): whole tokens to a thread. */
#include "worker/internal.h"

struct packing {
    struct worker *w;
    const double *sum; /* [n, d] */
    const struct wire_partial *to;
    size_t n_widths;   /* of a token */
};

static void find_widths(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct packing *p = arg;
    const int64_t d = p->w->limits.d_model;
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        p->w->o.kernels->sum_widths(p->sum + t * d, d, p->w->o.sums_f16, p->to->width + (size_t)t * p->n_widths);
}

static void pack_tokens(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct packing *p = arg;
    const int64_t d = p->w->limits.d_model;
    uint8_t *at = p->to->packed + wire_packed_bytes(p->to->width, (size_t)begin * p->n_widths);
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        const uint8_t *width = p->to->width + (size_t)t * p->n_widths;
        p->w->o.kernels->pack_sums(p->sum + t * d, d, width, at);
        at += wire_packed_bytes(width, p->n_widths);
    }
}

void sums_pack(struct worker *w, const double *sum, const struct wire_partial *to)
{
    struct packing p = {w, sum, to, wire_partial_widths(&w->limits)};
    pool_for(w->pool, to->n_tokens, 4, find_widths, &p);
    pool_for(w->pool, to->n_tokens, 4, pack_tokens, &p);
}

struct adding {
    const struct worker *w;
    const struct wire_partial *from;
    double *sum; /* [n, d] */
};

static void add_tokens(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct adding *a = arg;
    const struct wire_partial *from = a->from;
    const int64_t d = a->w->limits.d_model;
    const size_t n_widths = wire_partial_widths(&a->w->limits);
    const uint8_t *at = from->packed + wire_packed_bytes(from->width, (size_t)begin * n_widths);
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        const uint8_t *width = from->width + (size_t)t * n_widths;
        a->w->o.kernels->add_packed(at, width, d, a->sum + t * d);
        at += wire_packed_bytes(width, n_widths);
    }
}

void sums_add(struct worker *w, const struct wire_partial *from, double *sum)
{
    struct adding a = {w, from, sum};
    pool_for(w->pool, from->n_tokens, 4, add_tokens, &a);
}
