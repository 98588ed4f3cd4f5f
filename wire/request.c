/* REQUEST. */
#include <math.h>

#include "base/log.h"
#include "wire/records.h"

/* Bytes [begin, end) of a message. */
struct stretch {
    size_t begin, end;
};

enum { CODES, SCALES, FLOATS, EXPERTS, WEIGHTS, RESIDUAL, PARTS };

/* Where the parts of REQUEST lie. What it does not have is empty. */
struct request_layout {
    size_t n_codes, n_scales, n_experts;
    struct stretch at[PARTS];
    size_t size;
};

/* The next part starts on a multiple of 64. */
static struct stretch after(size_t end, size_t bytes)
{
    const size_t begin = bytes ? wire_align(end) : end;
    return (struct stretch){begin, begin + bytes};
}

static bool form_possible(uint32_t form, const struct wire_limits *lim)
{
    return form == FORM_F32 || (form == FORM_Q8 && lim->d_model % WIRE_CODES == 0);
}

static status check_form(uint32_t form, const struct wire_limits *lim)
{
    if (form_possible(form, lim))
        return ST_OK;
    log_error("REQUEST message: form %u does not exist or does not fit rows of %u", form, lim->d_model);
    return ST_FORMAT;
}

/* What lies between parts. */
static void clear_gaps(const struct request_layout *l, uint8_t *message)
{
    for (int i = 1; i < PARTS; i++)
        memset(message + l->at[i - 1].end, 0, l->at[i].begin - l->at[i - 1].end);
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

/* Kernels rely on it. No codes, no scales: floats may be anything. */
static status check_codes(uint32_t layer, const int8_t *codes, const float *scale, const struct request_layout *l)
{
    if (codes && !codes_valid(codes, l->n_codes)) {
        log_error("REQUEST message of layer %u: a code is -128, expected -127 to 127", layer);
        return ST_FORMAT;
    }
    if (scale && !all_finite(scale, l->n_scales)) {
        log_error("REQUEST message of layer %u: a scale is not finite", layer);
        return ST_FORMAT;
    }
    return ST_OK;
}

/* Takes experts and weights out of the message. Who computes them relies on it. */
static status own_choice(struct wire_request *q, const struct wire_limits *lim, const struct wire_copy *c)
{
    const uint32_t n = q->n_used;
    wire_own(c->experts, q->expert, (size_t)q->n_tokens * n * sizeof *c->experts);
    for (uint32_t t = 0; t < q->n_tokens; t++) {
        const uint32_t *of = c->experts + (size_t)t * n;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t k = 0;
            while (k < i && of[k] != of[i])
                k++;
            if (of[i] < lim->n_experts && k == i)
                continue;
            log_error("REQUEST message of layer %u: token %u has chosen expert %u%s, expected different ones of 0 to "
                      "%u", q->layer, t, of[i], k < i ? " twice" : "", lim->n_experts - 1);
            return ST_FORMAT;
        }
    }
    wire_own(c->weights, q->weight, (size_t)q->n_tokens * q->n_weights * sizeof *c->weights);
    if (!all_finite(c->weights, (size_t)q->n_tokens * q->n_weights)) {
        log_error("REQUEST message of layer %u: an expert's weight is not finite", q->layer);
        return ST_FORMAT;
    }
    q->expert = c->experts;
    q->weight = c->weights;
    return ST_OK;
}

/* Runs and changes lie between header and x. What the request carries besides x follows from its part and layer. */
static struct request_layout layout_of(struct wire_request *q, const struct wire_limits *lim)
{
    const size_t records = (size_t)q->n_runs * SPAN_BYTES + (size_t)q->n_changes * CHANGE_BYTES;
    const size_t values = (size_t)q->n_tokens * lim->d_model, start = WIRE_HEADER + wire_align(records);
    const bool ffn = q->part == PART_FFN, q8 = q->form == FORM_Q8;
    q->with_residual = lim->residual && ffn;
    q->n_used = ffn && q->layer >= lim->n_dense_layers ? lim->n_experts_used : 0;
    q->n_weights = q->n_used ? lim->n_weights : 0;
    struct request_layout l = {.n_codes = q8 ? values : 0, .n_scales = q8 ? values / WIRE_CODES : 0,
                               .n_experts = (size_t)q->n_tokens * q->n_used};
    l.at[CODES] = (struct stretch){start, start + l.n_codes};
    l.at[SCALES] = after(l.at[CODES].end, l.n_scales * sizeof(float));
    l.at[FLOATS] = after(l.at[SCALES].end, q8 ? 0 : values * sizeof(float));
    l.at[EXPERTS] = after(l.at[FLOATS].end, l.n_experts * sizeof(uint32_t));
    l.at[WEIGHTS] = after(l.at[EXPERTS].end, (size_t)q->n_tokens * q->n_weights * sizeof(float));
    l.at[RESIDUAL] = after(l.at[WEIGHTS].end, q->with_residual ? values * sizeof(float) : 0);
    l.size = l.at[RESIDUAL].end;
    return l;
}

static void *part_at(const struct request_layout *l, int part, uint8_t *message)
{
    return l->at[part].begin < l->at[part].end ? message + l->at[part].begin : NULL;
}

static void point(struct wire_request *q, const struct request_layout *l, uint8_t *message)
{
    q->codes = part_at(l, CODES, message);
    q->scale = part_at(l, SCALES, message);
    q->f32 = part_at(l, FLOATS, message);
    q->expert = part_at(l, EXPERTS, message);
    q->weight = part_at(l, WEIGHTS, message);
    q->residual = part_at(l, RESIDUAL, message);
}

size_t wire_request_max(const struct wire_limits *lim)
{
    struct wire_request q = {.part = PART_ATTENTION, .n_runs = lim->n_runs, .n_changes = wire_most_changes(lim),
                             .n_tokens = lim->n_batch, .form = FORM_F32};
    const size_t attention = layout_of(&q, lim).size;
    q.part = PART_FFN;
    q.n_runs = q.n_changes = 0;
    q.layer = lim->n_dense_layers;
    const size_t other = layout_of(&q, lim).size;
    return attention > other ? attention : other;
}

size_t wire_request_encode(struct wire_request *q, const struct wire_limits *lim, uint8_t *out, size_t cap)
{
    struct writer w = {out, out + cap, false};
    const struct request_layout l = layout_of(q, lim);
    if (!form_possible(q->form, lim) || cap < l.size)
        return 0;
    write_u64(&w, q->id);
    write_u32(&w, q->part);
    write_u32(&w, q->layer);
    write_u32(&w, q->n_tokens);
    write_u32(&w, q->form);
    write_u32(&w, q->n_runs);
    write_u32(&w, q->n_changes);
    wire_pad_header(&w, out);
    write_spans(&w, q->runs, q->n_runs);
    write_changes(&w, q->changes, q->n_changes);
    memset(w.at, 0, (size_t)(out + l.at[0].begin - w.at));
    clear_gaps(&l, out);
    point(q, &l, out);
    return l.size;
}

/* The header, whose counts are within the limits on ST_OK. */
static status read_request(struct reader *r, size_t n, const struct wire_limits *lim, struct wire_request *q)
{
    const uint8_t *start = r->at;
    q->id = read_u64(r);
    q->part = read_u32(r);
    q->layer = read_u32(r);
    q->n_tokens = read_u32(r);
    q->form = read_u32(r);
    q->n_runs = read_u32(r);
    q->n_changes = read_u32(r);
    wire_skip_header(r, start);
    if (r->failed)
        return wire_refuse(WIRE_REQUEST, "size", (int64_t)n, WIRE_HEADER, INT64_MAX);
    const bool attention = q->part == PART_ATTENTION;
    const int64_t last_layer = q->part == PART_OUTPUT ? 0 : (int64_t)lim->n_layers - 1;
    status st;
    if ((st = wire_in_range(WIRE_REQUEST, "part", q->part, 0, WIRE_PARTS - 1)) != ST_OK ||
        (st = wire_in_range(WIRE_REQUEST, "layer", q->layer, 0, last_layer)) != ST_OK ||
        (st = wire_in_range(WIRE_REQUEST, "n_tokens", q->n_tokens, 1, lim->n_batch)) != ST_OK ||
        (st = wire_in_range(WIRE_REQUEST, "n_runs", q->n_runs, attention, attention ? lim->n_runs : 0)) != ST_OK)
        return st;
    st = wire_in_range(WIRE_REQUEST, "n_changes", q->n_changes, 0, attention ? wire_most_changes(lim) : 0);
    return st ? st : check_form(q->form, lim);
}

status wire_request_decode(uint8_t *in, size_t n, const struct wire_limits *lim, const struct wire_copy *c,
                           struct wire_request *out)
{
    struct reader r = {in, in + n, false};
    struct wire_request q = {.runs = c->runs, .changes = c->changes};
    status st = read_request(&r, n, lim, &q);
    if (st != ST_OK)
        return st;
    const struct request_layout l = layout_of(&q, lim);
    if ((st = wire_size_is(WIRE_REQUEST, n, l.size)) != ST_OK)
        return st;
    if (q.n_runs && (st = read_spans(WIRE_REQUEST, &r, lim, q.n_runs, q.n_tokens, c->runs)) != ST_OK)
        return st;
    if ((st = read_changes(WIRE_REQUEST, &r, lim, q.n_changes, c)) != ST_OK)
        return st;
    point(&q, &l, in);
    if ((st = check_codes(q.layer, q.codes, q.scale, &l)) != ST_OK)
        return st;
    if (q.n_used && (st = own_choice(&q, lim, c)) != ST_OK)
        return st;
    *out = q;
    return ST_OK;
}
