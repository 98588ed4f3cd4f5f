/* PARTIAL and LOGITS. Headers hold id u64, then u32 fields, then counts u64, then zeros. */
#include "wire/parts.h"

#include "base/log.h"

size_t wire_packed_bytes(const uint8_t *width, size_t n)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += width[i];
    return sum * WIRE_SUMS;
}

/* Where the sums start. */
static size_t partial_packed_at(uint32_t n_tokens, const struct wire_limits *lim)
{
    return wire_align(WIRE_HEADER + n_tokens * wire_partial_widths(lim));
}

size_t wire_partial_max(const struct wire_limits *lim)
{
    return partial_packed_at(lim->n_batch, lim) + lim->n_batch * wire_partial_widths(lim) * WIRE_SUMS * sizeof(double);
}

void wire_partial_place(struct wire_partial *p, const struct wire_limits *lim, uint8_t *out)
{
    p->width = out + WIRE_HEADER;
    p->packed = out + partial_packed_at(p->n_tokens, lim);
}

size_t wire_partial_encode(const struct wire_partial *p, const struct wire_limits *lim, uint8_t *out, size_t cap)
{
    struct writer w = {out, out + cap, false};
    const size_t n_widths = p->n_tokens * wire_partial_widths(lim), at = partial_packed_at(p->n_tokens, lim);
    if (cap < at || cap - at < wire_packed_bytes(p->width, n_widths))
        return 0;
    write_u64(&w, p->id);
    write_u32(&w, p->part);
    write_u32(&w, p->layer);
    write_u32(&w, p->n_tokens);
    write_counts(&w, &p->counts);
    write_u64(&w, p->busy_ns);
    wire_pad_header(&w, out);
    memset(out + WIRE_HEADER + n_widths, 0, at - WIRE_HEADER - n_widths);
    return at + wire_packed_bytes(p->width, n_widths);
}

/* The first of n widths that does not exist; n if all do. */
static size_t wrong_width(const uint8_t *width, size_t n)
{
    const unsigned exist = 1u << 2 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 8;
    size_t i = 0;
    while (i < n && width[i] <= 8 && (exist >> width[i] & 1))
        i++;
    return i;
}

status wire_partial_decode(uint8_t *in, size_t n, const struct wire_limits *lim, uint8_t *width,
                           struct wire_partial *out)
{
    struct reader r = {in, in + n, false};
    struct wire_partial p = {0};
    p.id = read_u64(&r);
    p.part = read_u32(&r);
    p.layer = read_u32(&r);
    p.n_tokens = read_u32(&r);
    p.counts = read_counts(&r);
    p.busy_ns = read_u64(&r);
    if (r.failed)
        return wire_refuse(WIRE_PARTIAL, "size", (int64_t)n, WIRE_HEADER, INT64_MAX);
    status st;
    if ((st = wire_in_range(WIRE_PARTIAL, "part", p.part, PART_ATTENTION, PART_FFN)) != ST_OK ||
        (st = wire_in_range(WIRE_PARTIAL, "layer", p.layer, 0, (int64_t)lim->n_layers - 1)) != ST_OK ||
        (st = wire_in_range(WIRE_PARTIAL, "n_tokens", p.n_tokens, 1, lim->n_batch)) != ST_OK)
        return st;
    const size_t n_widths = p.n_tokens * wire_partial_widths(lim), at = partial_packed_at(p.n_tokens, lim);
    if (n < at)
        return wire_refuse(WIRE_PARTIAL, "size", (int64_t)n, (int64_t)at, INT64_MAX);
    wire_partial_place(&p, lim, in);
    wire_own(width, p.width, n_widths);
    p.width = width;
    const size_t wrong = wrong_width(p.width, n_widths);
    if (wrong < n_widths) {
        log_error("PARTIAL message of layer %u: width %zu is %u, expected 2, 3, 4, 5, 6 or 8", p.layer, wrong,
                  p.width[wrong]);
        return ST_FORMAT;
    }
    if ((st = wire_size_is(WIRE_PARTIAL, n, at + wire_packed_bytes(p.width, n_widths))) != ST_OK)
        return st;
    *out = p;
    return ST_OK;
}

static size_t logits_size(uint32_t n_tokens, uint32_t n_rows)
{
    return WIRE_HEADER + (size_t)n_tokens * n_rows * sizeof(float);
}

size_t wire_logits_max(uint32_t n_rows)
{
    return logits_size(WIRE_LOGIT_TOKENS, n_rows);
}

size_t wire_logits_encode(struct wire_logits *l, const struct wire_limits *lim, uint8_t *out, size_t cap)
{
    struct writer w = {out, out + cap, false};
    size_t size = logits_size(l->n_tokens, l->n_rows);
    if (cap < size || l->n_tokens > WIRE_LOGIT_TOKENS || l->n_rows > lim->n_vocab)
        return 0;
    write_u64(&w, l->id);
    write_u32(&w, l->n_tokens);
    write_u32(&w, l->n_rows);
    write_counts(&w, &l->counts);
    write_u64(&w, l->busy_ns);
    wire_pad_header(&w, out);
    l->values = (float *)(void *)(out + WIRE_HEADER);
    return size;
}

status wire_logits_decode(uint8_t *in, size_t n, const struct wire_limits *lim, uint32_t n_rows,
                          struct wire_logits *out)
{
    struct reader r = {in, in + n, false};
    struct wire_logits l = {0};
    l.id = read_u64(&r);
    l.n_tokens = read_u32(&r);
    l.n_rows = read_u32(&r);
    l.counts = read_counts(&r);
    l.busy_ns = read_u64(&r);
    if (r.failed)
        return wire_refuse(WIRE_LOGITS, "size", (int64_t)n, WIRE_HEADER, INT64_MAX);
    status st;
    uint32_t most = lim->n_batch < WIRE_LOGIT_TOKENS ? lim->n_batch : WIRE_LOGIT_TOKENS;
    if ((st = wire_in_range(WIRE_LOGITS, "n_tokens", l.n_tokens, 1, most)) != ST_OK ||
        (st = wire_in_range(WIRE_LOGITS, "n_rows", l.n_rows, n_rows, n_rows)) != ST_OK ||
        (st = wire_size_is(WIRE_LOGITS, n, logits_size(l.n_tokens, l.n_rows))) != ST_OK)
        return st;
    l.values = (float *)(void *)(in + WIRE_HEADER);
    *out = l;
    return ST_OK;
}
