/* STEP and HIDDEN. */
#include "wire/records.h"

/* Where the tokens end. */
static size_t step_size(const struct wire_step *s)
{
    return WIRE_HEADER + (size_t)s->n_runs * RUN_BYTES + (size_t)s->n_changes * CHANGE_BYTES +
           (size_t)s->n_begins * BEGIN_BYTES + (size_t)s->n_bias * BIAS_BYTES + (size_t)s->n_ops * OP_BYTES +
           ((size_t)s->n_text + s->n_tokens) * 4;
}

static struct wire_step largest(const struct wire_limits *lim)
{
    return (struct wire_step){.n_runs = lim->n_runs, .n_tokens = lim->n_batch, .n_changes = wire_most_changes(lim),
                              .n_begins = lim->n_runs, .n_text = lim->n_ctx, .n_bias = WIRE_BIASES,
                              .n_ops = lim->n_grammar_ops};
}

size_t wire_step_max(const struct wire_limits *lim)
{
    const struct wire_step s = largest(lim);
    return step_size(&s);
}

static void write_step(struct writer *w, const struct wire_step *s)
{
    const uint8_t *start = w->at;
    write_u64(w, s->id);
    write_u32(w, s->n_runs);
    write_u32(w, s->n_tokens);
    write_u32(w, s->n_changes);
    write_u32(w, s->n_begins);
    write_u32(w, s->n_text);
    write_u16(w, s->n_bias);
    write_u16(w, s->n_ops);
    write_counts(w, &s->counts);
    wire_pad_header(w, start);
    write_runs(w, s->runs, s->n_runs);
    write_changes(w, s->changes, s->n_changes);
    write_begins(w, s->begins, s->n_begins);
    write_tokens(w, s->tokens, s->n_tokens);
}

size_t wire_step_encode(const struct wire_step *s, uint8_t *out, size_t cap)
{
    struct writer w = {out, out + cap, false};
    write_step(&w, s);
    return w.failed ? 0 : step_size(s);
}

/* The header, whose counts are within the limits on ST_OK. */
static status read_header(int kind, struct reader *r, size_t n, const struct wire_limits *lim, struct wire_step *s)
{
    const uint8_t *start = r->at;
    s->id = read_u64(r);
    s->n_runs = read_u32(r);
    s->n_tokens = read_u32(r);
    s->n_changes = read_u32(r);
    s->n_begins = read_u32(r);
    s->n_text = read_u32(r);
    s->n_bias = read_u16(r);
    s->n_ops = read_u16(r);
    s->counts = read_counts(r);
    wire_skip_header(r, start);
    if (r->failed)
        return wire_refuse(kind, "size", (int64_t)n, WIRE_HEADER, INT64_MAX);
    status st;
    if ((st = wire_in_range(kind, "n_runs", s->n_runs, 1, lim->n_runs)) != ST_OK ||
        (st = wire_in_range(kind, "n_tokens", s->n_tokens, 1, lim->n_batch)) != ST_OK ||
        (st = wire_in_range(kind, "n_changes", s->n_changes, 0, wire_most_changes(lim))) != ST_OK ||
        (st = wire_in_range(kind, "n_begins", s->n_begins, 0, s->n_runs)) != ST_OK ||
        (st = wire_in_range(kind, "n_text", s->n_text, 0, lim->n_ctx)) != ST_OK ||
        (st = wire_in_range(kind, "n_bias", s->n_bias, 0, WIRE_BIASES)) != ST_OK)
        return st;
    return wire_in_range(kind, "n_ops", s->n_ops, 0, lim->n_grammar_ops);
}

/* What STEP and HIDDEN have in common. `beside`: bytes of a token besides, from the next multiple of 64 on. */
static status step_decode(int kind, const uint8_t *in, size_t n, const struct wire_limits *lim, size_t beside,
                          const struct wire_copy *c, struct wire_step *out)
{
    struct reader r = {in, in + n, false};
    struct wire_step s = {.runs = c->runs, .changes = c->changes, .begins = c->begins, .tokens = c->tokens};
    status st = read_header(kind, &r, n, lim, &s);
    if (st != ST_OK)
        return st;
    const size_t size = beside ? wire_align(step_size(&s)) + s.n_tokens * beside : step_size(&s);
    if ((st = wire_size_is(kind, n, size)) != ST_OK ||
        (st = read_runs(kind, &r, lim, s.n_runs, s.n_tokens, c->runs)) != ST_OK ||
        (st = read_changes(kind, &r, lim, s.n_changes, c)) != ST_OK ||
        (st = read_begins(kind, &r, lim, &s, c)) != ST_OK ||
        (st = read_tokens(kind, &r, lim, "a token", s.n_tokens, c->tokens)) != ST_OK)
        return st;
    *out = s;
    return ST_OK;
}

status wire_step_decode(const uint8_t *in, size_t n, const struct wire_limits *lim, const struct wire_copy *c,
                        struct wire_step *s)
{
    return step_decode(WIRE_STEP, in, n, lim, 0, c, s);
}

static size_t hidden_size(const struct wire_step *s, const struct wire_limits *lim)
{
    return wire_align(step_size(s)) + wire_dense_bytes(s->n_tokens, lim);
}

size_t wire_hidden_max(const struct wire_limits *lim)
{
    const struct wire_step s = largest(lim);
    return hidden_size(&s, lim);
}

size_t wire_hidden_encode(const struct wire_step *s, const struct wire_limits *lim, uint8_t *out, size_t cap,
                          float **hidden)
{
    struct writer w = {out, out + cap, false};
    const size_t end = step_size(s), at = wire_align(end), size = hidden_size(s, lim);
    if (cap < size)
        return 0;
    write_step(&w, s);
    memset(out + end, 0, at - end);
    *hidden = (float *)(void *)(out + at);
    return size;
}

status wire_hidden_decode(const uint8_t *in, size_t n, const struct wire_limits *lim, const struct wire_copy *c,
                          struct wire_step *s, const float **hidden)
{
    status st = step_decode(WIRE_HIDDEN, in, n, lim, wire_dense_bytes(1, lim), c, s);
    if (st == ST_OK)
        *hidden = (const float *)(const void *)(in + wire_align(step_size(s)));
    return st;
}
