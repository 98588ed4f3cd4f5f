/* What begins a sequence. */
#include <math.h>

#include "base/log.h"
#include "wire/records.h"

static void write_begin(struct writer *w, const struct wire_begin *b)
{
    write_u32(w, b->sequence);
    write_u32(w, b->n_text);
    write_sampling(w, &b->sampling);
    write_u32(w, b->n_bias);
    write_u32(w, b->n_ops);
    write_u32(w, b->grammar_from);
}

static void write_op(struct writer *w, const struct wire_op *op)
{
    write_u32(w, op->kind | (uint32_t)op->lo << 8 | (uint32_t)op->hi << 16);
    write_u32(w, op->a);
    write_u32(w, op->b);
}

void write_begins(struct writer *w, const struct wire_begin *begins, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        write_begin(w, &begins[i]);
    for (uint32_t i = 0; i < n; i++)
        write_tokens(w, begins[i].text, begins[i].n_text);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < begins[i].n_bias; k++) {
            write_u32(w, (uint32_t)begins[i].bias[k].token);
            write_f32(w, begins[i].bias[k].bias);
        }
    }
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < begins[i].n_ops; k++)
            write_op(w, &begins[i].ops[k]);
}

/* The run of a sequence; NULL: it has none. */
static const struct wire_run *run_of(const struct wire_step *s, uint32_t sequence)
{
    for (uint32_t i = 0; i < s->n_runs; i++)
        if (s->runs[i].sequence == sequence)
            return &s->runs[i];
    return NULL;
}

/* Its text has all that the grammar reads. */
static status check_grammar_from(int kind, const struct wire_begin *b, const struct wire_run *run,
                                 const struct wire_limits *lim)
{
    const bool has = b->n_ops > 0;
    return wire_in_range(kind, "a begin's grammar_from", b->grammar_from, has ? (int64_t)run->position - b->n_text : 0,
                         has ? lim->n_ctx : 0);
}

static status read_begin(int kind, struct reader *r, const struct wire_limits *lim, const struct wire_step *s,
                         uint64_t *seen, struct wire_begin *b)
{
    b->sequence = read_u32(r);
    b->n_text = read_u32(r);
    const struct wire_run *run = run_of(s, b->sequence);
    if (!run || *seen >> b->sequence & 1) {
        log_error("%s message: sequence %u begins %s", wire_name(kind), b->sequence, run ? "twice" : "without a run");
        return ST_FORMAT;
    }
    *seen |= UINT64_C(1) << b->sequence;
    status st = wire_in_range(kind, "a begin's n_text", b->n_text, 0, run->position);
    if (st || (st = read_sampling(kind, r, &b->sampling)) != ST_OK)
        return st;
    b->n_bias = read_u32(r);
    b->n_ops = read_u32(r);
    b->grammar_from = read_u32(r);
    return check_grammar_from(kind, b, run, lim);
}

static status read_biases(int kind, struct reader *r, const struct wire_limits *lim, uint32_t n, struct wire_bias *bias)
{
    status st = ST_OK;
    for (uint32_t i = 0; i < n && !st; i++) {
        bias[i].token = (int32_t)read_u32(r);
        bias[i].bias = read_f32(r);
        st = wire_in_range(kind, "a biased token", bias[i].token, 0, (int64_t)lim->n_vocab - 1);
        if (!st && !isfinite(bias[i].bias)) {
            log_error("%s message: the bias of token %d is %g, expected a finite number", wire_name(kind),
                      bias[i].token, (double)bias[i].bias);
            st = ST_FORMAT;
        }
    }
    return st;
}

static status read_ops(int kind, struct reader *r, uint32_t n, struct wire_op *ops)
{
    status st = ST_OK;
    for (uint32_t i = 0; i < n && !st; i++) {
        const uint32_t head = read_u32(r);
        ops[i] = (struct wire_op){.kind = (uint8_t)head, .lo = (uint8_t)(head >> 8), .hi = (uint8_t)(head >> 16)};
        ops[i].a = read_u32(r);
        ops[i].b = read_u32(r);
        st = wire_in_range(kind, "an op's fourth byte", head >> 24, 0, 0);
    }
    return st;
}

/* Gives each begin its part of what follows them all: n_text tokens and so on, as the step says. What is beyond that
 * gets NULL, and is refused. */
static status part(int kind, const struct wire_step *s, const struct wire_copy *c)
{
    uint64_t n_text = 0, n_bias = 0, n_ops = 0;
    for (uint32_t i = 0; i < s->n_begins; i++) {
        struct wire_begin *b = &c->begins[i];
        b->text = n_text <= s->n_text ? c->text + n_text : NULL;
        b->bias = n_bias <= s->n_bias ? c->bias + n_bias : NULL;
        b->ops = n_ops <= s->n_ops ? c->ops + n_ops : NULL;
        n_text += b->n_text;
        n_bias += b->n_bias;
        n_ops += b->n_ops;
    }
    status st;
    if ((st = wire_in_range(kind, "the begins' n_text together", (int64_t)n_text, s->n_text, s->n_text)) != ST_OK ||
        (st = wire_in_range(kind, "the begins' n_bias together", (int64_t)n_bias, s->n_bias, s->n_bias)) != ST_OK)
        return st;
    return wire_in_range(kind, "the begins' n_ops together", (int64_t)n_ops, s->n_ops, s->n_ops);
}

status read_begins(int kind, struct reader *r, const struct wire_limits *lim, const struct wire_step *s,
                   const struct wire_copy *c)
{
    uint64_t seen = 0;
    status st = ST_OK;
    for (uint32_t i = 0; i < s->n_begins && !st; i++)
        st = read_begin(kind, r, lim, s, &seen, &c->begins[i]);
    if (st || (st = part(kind, s, c)) != ST_OK ||
        (st = read_tokens(kind, r, lim, "a token of a text", s->n_text, c->text)) != ST_OK ||
        (st = read_biases(kind, r, lim, s->n_bias, c->bias)) != ST_OK)
        return st;
    return read_ops(kind, r, s->n_ops, c->ops);
}
