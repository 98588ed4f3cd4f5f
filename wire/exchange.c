/* REQUEST, PARTIAL, LOGITS and RESULT. Headers hold id u64, then u32 fields, then counts u64 (REQUEST: none), then
 * zeros. */
#include "wire/parts.h"

#include <math.h>

#include "base/log.h"

enum { ACT_BLOCK_COLUMNS = 32 }; /* the quantised kernels' activation block */

/* Where the parts of REQUEST lie. */
struct request_layout {
    size_t n_codes, n_scales;
    size_t scale_at, x_end, residual_at, size; /* bytes from the start; codes and f32 start at WIRE_HEADER */
};

static struct request_layout request_layout(uint32_t form, uint32_t n_tokens, bool residual,
                                            const struct wire_limits *lim)
{
    struct request_layout l = {0};
    if (form == FORM_F32) {
        l.x_end = WIRE_HEADER + wire_dense_bytes(n_tokens, lim);
    } else {
        l.n_codes = (size_t)n_tokens * lim->d_model;
        l.n_scales = l.n_codes / ACT_BLOCK_COLUMNS;
        l.scale_at = WIRE_HEADER + wire_align(l.n_codes);
        l.x_end = l.scale_at + l.n_scales * sizeof(float);
    }
    l.residual_at = wire_align(l.x_end);
    l.size = residual ? l.residual_at + wire_dense_bytes(n_tokens, lim) : l.x_end;
    return l;
}

static bool has_residual(const struct wire_request *q, const struct wire_limits *lim)
{
    return lim->residual && q->part == PART_FFN;
}

static bool form_possible(uint32_t form, const struct wire_limits *lim)
{
    return form == FORM_F32 || (form == FORM_Q8 && lim->d_model % ACT_BLOCK_COLUMNS == 0);
}

static void request_point(struct wire_request *q, const struct request_layout *l, uint8_t *message)
{
    bool q8 = q->form == FORM_Q8;
    q->codes = q8 ? (int8_t *)(message + WIRE_HEADER) : NULL;
    q->scale = q8 ? (float *)(void *)(message + l->scale_at) : NULL;
    q->f32 = q8 ? NULL : (float *)(void *)(message + WIRE_HEADER);
    q->residual = q->with_residual ? (float *)(void *)(message + l->residual_at) : NULL;
}

size_t wire_request_max(const struct wire_limits *lim)
{
    return request_layout(FORM_F32, lim->n_batch, lim->residual, lim).size; /* the larger form: four times the codes */
}

size_t wire_request_encode(struct wire_request *q, const struct wire_limits *lim, uint8_t *out, size_t cap)
{
    struct writer w = {out, out + cap, false};
    q->with_residual = has_residual(q, lim);
    struct request_layout l = request_layout(q->form, q->n_tokens, q->with_residual, lim);
    if (!form_possible(q->form, lim) || cap < l.size)
        return 0;
    write_u64(&w, q->id);
    write_u32(&w, q->part);
    write_u32(&w, q->layer);
    write_u32(&w, q->position);
    write_u32(&w, q->n_tokens);
    write_u32(&w, q->form);
    wire_pad_header(&w, out);
    if (q->form == FORM_Q8) /* the gap between codes and scales */
        memset(out + WIRE_HEADER + l.n_codes, 0, l.scale_at - WIRE_HEADER - l.n_codes);
    if (q->with_residual)
        memset(out + l.x_end, 0, l.residual_at - l.x_end);
    request_point(q, &l, out);
    return l.size;
}

/* Whether all codes are in [-127, 127]: eight at a time, since this is done for every exchange. */
static bool codes_valid(const int8_t *codes, size_t n)
{
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    uint64_t bad = 0;
    for (size_t i = 0; i < n; i += 8) {
        uint64_t v;
        memcpy(&v, codes + i, 8);
        v ^= tops;                /* a code of -128 is now a zero byte, */
        bad |= (v - ones) & ~v;   /* which alone borrows into its own top bit */
    }
    return !(bad & tops);
}

static bool all_finite(const float *x, size_t n)
{
    bool finite = true;
    for (size_t i = 0; i < n; i++)
        finite &= isfinite(x[i]) != 0;
    return finite;
}

static status check_request(const struct wire_request *q, const struct wire_limits *lim)
{
    const int64_t last_layer = q->part == PART_OUTPUT ? 0 : (int64_t)lim->n_layers - 1;
    const int64_t last_position = q->part == PART_ATTENTION ? (int64_t)lim->n_ctx - q->n_tokens : 0;
    status st;
    if ((st = wire_in_range(WIRE_REQUEST, "part", q->part, 0, WIRE_PARTS - 1)) != ST_OK ||
        (st = wire_in_range(WIRE_REQUEST, "layer", q->layer, 0, last_layer)) != ST_OK ||
        (st = wire_in_range(WIRE_REQUEST, "n_tokens", q->n_tokens, 1, lim->n_batch)) != ST_OK)
        return st;
    return wire_in_range(WIRE_REQUEST, "position", q->position, 0, last_position);
}

status wire_request_decode(uint8_t *in, size_t n, const struct wire_limits *lim, struct wire_request *out)
{
    struct reader r = {in, in + n, false};
    struct wire_request q = {0};
    q.id = read_u64(&r);
    q.part = read_u32(&r);
    q.layer = read_u32(&r);
    q.position = read_u32(&r);
    q.n_tokens = read_u32(&r);
    q.form = read_u32(&r);
    if (r.failed)
        return wire_refuse(WIRE_REQUEST, "size", (int64_t)n, WIRE_HEADER, INT64_MAX);
    status st = check_request(&q, lim);
    if (st != ST_OK)
        return st;
    if (!form_possible(q.form, lim)) {
        log_error("REQUEST message: form %u does not exist or does not fit rows of %u", q.form, lim->d_model);
        return ST_FORMAT;
    }
    q.with_residual = has_residual(&q, lim);
    struct request_layout l = request_layout(q.form, q.n_tokens, q.with_residual, lim);
    if ((st = wire_size_is(WIRE_REQUEST, n, l.size)) != ST_OK)
        return st;
    request_point(&q, &l, in);
    if (q.codes && !codes_valid(q.codes, l.n_codes)) {
        log_error("REQUEST message of layer %u: a code is -128, expected -127 to 127", q.layer);
        return ST_FORMAT;
    }
    if (q.scale && !all_finite(q.scale, l.n_scales)) {
        log_error("REQUEST message of layer %u: a scale is not finite", q.layer);
        return ST_FORMAT;
    }
    *out = q;
    return ST_OK;
}

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

static size_t result_size(uint32_t n_values)
{
    return WIRE_HEADER + (size_t)n_values * sizeof(float);
}

static uint32_t most_values(const struct wire_limits *lim)
{
    return lim->n_vocab > lim->n_batch ? lim->n_vocab : lim->n_batch;
}

size_t wire_result_max(const struct wire_limits *lim)
{
    return result_size(most_values(lim));
}

size_t wire_result_encode(struct wire_result *p, const struct wire_limits *lim, uint8_t *out, size_t cap)
{
    struct writer w = {out, out + cap, false};
    size_t size = result_size(p->n_values);
    if (p->n_values > most_values(lim) || cap < size)
        return 0;
    write_u64(&w, p->id);
    write_u32(&w, (uint32_t)p->token);
    write_u32(&w, p->n_values);
    write_counts(&w, &p->counts);
    wire_pad_header(&w, out);
    p->values = (float *)(void *)(out + WIRE_HEADER);
    return size;
}

status wire_result_decode(uint8_t *in, size_t n, const struct wire_limits *lim, struct wire_result *out)
{
    struct reader r = {in, in + n, false};
    struct wire_result p = {0};
    p.id = read_u64(&r);
    p.token = (int32_t)read_u32(&r);
    p.n_values = read_u32(&r);
    p.counts = read_counts(&r);
    if (r.failed)
        return wire_refuse(WIRE_RESULT, "size", (int64_t)n, WIRE_HEADER, INT64_MAX);
    status st;
    if ((st = wire_in_range(WIRE_RESULT, "token", p.token, -1, (int64_t)lim->n_vocab - 1)) != ST_OK ||
        (st = wire_in_range(WIRE_RESULT, "n_values", p.n_values, 0, most_values(lim))) != ST_OK ||
        (st = wire_size_is(WIRE_RESULT, n, result_size(p.n_values))) != ST_OK)
        return st;
    p.values = (float *)(void *)(in + WIRE_HEADER);
    *out = p;
    return ST_OK;
}
