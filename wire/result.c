/* RESULT. */
#include "base/log.h"
#include "wire/records.h"

enum { ANSWER_BYTES = 16, TOP_BYTES = 8 };

struct wire_answer wire_answer_to(const struct wire_run *q, const struct wire_limits *lim)
{
    struct wire_answer a = {.sequence = q->sequence};
    switch (q->want) {
    case WANT_TOKEN: a.n_tokens = 1; break;
    case WANT_TOKENS: a.n_tokens = q->n_tokens - q->from; break;
    case WANT_SCORES: a.n_values = q->n_tokens - q->from; break;
    case WANT_LOGITS: a.n_tokens = 1, a.n_values = lim->n_vocab; break;
    case WANT_TOP: a.n_tokens = 1, a.n_top = q->n_top, a.n_values = 1; break;
    case WANT_STATES: a.n_values = lim->d_model; break;
    case WANT_SUM: a.n_values = 2 * lim->d_model; break;
    case WANT_LOG_PROBS: a.n_values = q->n_tokens - q->from, a.n_top = a.n_values * q->n_top; break;
    default: break;
    }
    return a;
}

uint32_t wire_most_values(const struct wire_limits *lim)
{
    return WIRE_LOGIT_RUNS * lim->n_vocab + lim->n_runs * 2 * lim->d_model + lim->n_batch;
}

static size_t size_of(const struct wire_result *p)
{
    return WIRE_HEADER + (size_t)p->n_runs * ANSWER_BYTES + (size_t)p->n_tokens * 4 + (size_t)p->n_tops * TOP_BYTES +
           (size_t)p->n_values * sizeof(float);
}

size_t wire_result_max(const struct wire_limits *lim)
{
    return size_of(&(struct wire_result){.n_runs = lim->n_runs, .n_tokens = lim->n_batch,
                                         .n_tops = lim->n_batch * WIRE_TOP, .n_values = wire_most_values(lim)});
}

void wire_lay_result_copy(struct wire_result_copy *c, const struct wire_limits *lim, struct arena *a)
{
    c->answers = arena_alloc(a, lim->n_runs * sizeof *c->answers);
    c->tokens = arena_alloc(a, lim->n_batch * sizeof *c->tokens);
    c->tops = arena_alloc(a, (size_t)lim->n_batch * WIRE_TOP * sizeof *c->tops);
}

size_t wire_result_encode(struct wire_result *p, uint8_t *out, size_t cap)
{
    struct writer w = {out, out + cap, false};
    const size_t size = size_of(p);
    if (cap < size)
        return 0;
    write_u64(&w, p->id);
    write_u32(&w, p->n_runs);
    write_u32(&w, p->n_tokens);
    write_u32(&w, p->n_tops);
    write_u32(&w, p->n_values);
    write_counts(&w, &p->counts);
    wire_pad_header(&w, out);
    for (uint32_t i = 0; i < p->n_runs; i++) {
        write_u32(&w, p->answers[i].sequence);
        write_u32(&w, p->answers[i].n_tokens);
        write_u32(&w, p->answers[i].n_top);
        write_u32(&w, p->answers[i].n_values);
    }
    write_tokens(&w, p->tokens, p->n_tokens);
    for (uint32_t i = 0; i < p->n_tops; i++) {
        write_u32(&w, (uint32_t)p->tops[i].token);
        write_f32(&w, p->tops[i].log_p);
    }
    p->values = (float *)(void *)w.at;
    return size;
}

/* The header, whose counts are within the limits on ST_OK. */
static status read_header(struct reader *r, size_t n, const struct wire_limits *lim, struct wire_result *p)
{
    const uint8_t *start = r->at;
    p->id = read_u64(r);
    p->n_runs = read_u32(r);
    p->n_tokens = read_u32(r);
    p->n_tops = read_u32(r);
    p->n_values = read_u32(r);
    p->counts = read_counts(r);
    wire_skip_header(r, start);
    if (r->failed)
        return wire_refuse(WIRE_RESULT, "size", (int64_t)n, WIRE_HEADER, INT64_MAX);
    status st;
    if ((st = wire_in_range(WIRE_RESULT, "n_runs", p->n_runs, 1, lim->n_runs)) != ST_OK ||
        (st = wire_in_range(WIRE_RESULT, "n_tokens", p->n_tokens, 0, lim->n_batch)) != ST_OK ||
        (st = wire_in_range(WIRE_RESULT, "n_tops", p->n_tops, 0, (int64_t)lim->n_batch * WIRE_TOP)) != ST_OK)
        return st;
    return wire_in_range(WIRE_RESULT, "n_values", p->n_values, 0, wire_most_values(lim));
}

/* Answers of different sequences, whose counts are the header's together. */
static status read_answers(struct reader *r, const struct wire_limits *lim, const struct wire_result *p,
                           struct wire_answer *answers)
{
    uint64_t seen = 0, n_tokens = 0, n_tops = 0, n_values = 0;
    status st;
    for (uint32_t i = 0; i < p->n_runs; i++) {
        struct wire_answer *a = &answers[i];
        a->sequence = read_u32(r);
        a->n_tokens = read_u32(r);
        a->n_top = read_u32(r);
        a->n_values = read_u32(r);
        st = wire_in_range(WIRE_RESULT, "an answer's sequence", a->sequence, 0, (int64_t)lim->n_sequences - 1);
        if (st != ST_OK)
            return st;
        if (seen >> a->sequence & 1) {
            log_error("RESULT message: sequence %u has two answers, expected one", a->sequence);
            return ST_FORMAT;
        }
        seen |= UINT64_C(1) << a->sequence;
        n_tokens += a->n_tokens;
        n_tops += a->n_top;
        n_values += a->n_values;
    }
    if ((st = wire_in_range(WIRE_RESULT, "the answers' n_tokens together", (int64_t)n_tokens, p->n_tokens,
                            p->n_tokens)) != ST_OK ||
        (st = wire_in_range(WIRE_RESULT, "the answers' n_top together", (int64_t)n_tops, p->n_tops,
                            p->n_tops)) != ST_OK)
        return st;
    return wire_in_range(WIRE_RESULT, "the answers' n_values together", (int64_t)n_values, p->n_values, p->n_values);
}

static status read_tops(struct reader *r, const struct wire_limits *lim, uint32_t n, struct wire_top *tops)
{
    status st = ST_OK;
    for (uint32_t i = 0; i < n && st == ST_OK; i++) {
        tops[i].token = (int32_t)read_u32(r);
        tops[i].log_p = read_f32(r);
        st = wire_in_range(WIRE_RESULT, "one of the best tokens", tops[i].token, 0, (int64_t)lim->n_vocab - 1);
    }
    return st;
}

status wire_result_decode(uint8_t *in, size_t n, const struct wire_limits *lim, const struct wire_result_copy *c,
                          struct wire_result *out)
{
    struct reader r = {in, in + n, false};
    struct wire_result p = {.answers = c->answers, .tokens = c->tokens, .tops = c->tops};
    status st = read_header(&r, n, lim, &p);
    if (st != ST_OK)
        return st;
    if ((st = wire_size_is(WIRE_RESULT, n, size_of(&p))) != ST_OK ||
        (st = read_answers(&r, lim, &p, c->answers)) != ST_OK ||
        (st = read_tokens(WIRE_RESULT, &r, lim, "a token", p.n_tokens, c->tokens)) != ST_OK ||
        (st = read_tops(&r, lim, p.n_tops, c->tops)) != ST_OK)
        return st;
    p.values = (float *)(void *)(in + (r.at - in));
    *out = p;
    return ST_OK;
}

status wire_result_answers(const struct wire_result *p, const struct wire_step *s, const struct wire_limits *lim)
{
    if (p->id != s->id || p->n_runs != s->n_runs) {
        log_error("RESULT message: step %llu of %u runs, expected %llu of %u", (unsigned long long)p->id, p->n_runs,
                  (unsigned long long)s->id, s->n_runs);
        return ST_FORMAT;
    }
    for (uint32_t i = 0; i < s->n_runs; i++) {
        const struct wire_answer a = p->answers[i], e = wire_answer_to(&s->runs[i], lim);
        if (a.sequence != e.sequence || a.n_tokens != e.n_tokens || a.n_top != e.n_top || a.n_values != e.n_values) {
            log_error("RESULT message: sequence %u has %u tokens, %u best and %u values; expected sequence %u, %u, %u "
                      "and %u", a.sequence, a.n_tokens, a.n_top, a.n_values, e.sequence, e.n_tokens, e.n_top,
                      e.n_values);
            return ST_FORMAT;
        }
    }
    return ST_OK;
}
