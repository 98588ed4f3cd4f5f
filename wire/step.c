/* STEP and HIDDEN. */
#include "wire/parts.h"

static size_t step_size(uint32_t n_tokens)
{
    return WIRE_HEADER + 4 * (size_t)n_tokens;
}

size_t wire_step_max(const struct wire_limits *lim)
{
    return step_size(lim->n_batch);
}

static void write_header(struct writer *w, const struct wire_step *s)
{
    const uint8_t *start = w->at;
    write_u64(w, s->id);
    write_u32(w, s->want);
    write_u32(w, s->score_from);
    write_u32(w, s->position);
    write_u32(w, s->n_tokens);
    write_u32(w, (uint32_t)s->next_token);
    write_counts(w, &s->counts);
    wire_pad_header(w, start);
}

size_t wire_step_encode(const struct wire_step *s, const int32_t *tokens, uint8_t *out, size_t cap)
{
    struct writer w = {out, out + cap, false};
    write_header(&w, s);
    for (uint32_t i = 0; i < s->n_tokens && !w.failed; i++)
        write_u32(&w, (uint32_t)tokens[i]);
    return w.failed ? 0 : step_size(s->n_tokens);
}

/* The header and tokens, which STEP and HIDDEN have in common; n_tokens is within its limit on ST_OK. */
static status step_decode(int kind, const uint8_t *in, size_t n, const struct wire_limits *lim, uint8_t *tokens,
                          struct wire_step *out)
{
    struct reader r = {in, in + n, false};
    struct wire_step s = {0};
    s.id = read_u64(&r);
    s.want = read_u32(&r);
    s.score_from = read_u32(&r);
    s.position = read_u32(&r);
    s.n_tokens = read_u32(&r);
    s.next_token = (int32_t)read_u32(&r);
    s.counts = read_counts(&r);
    read_bytes(&r, r.failed ? 0 : (uint64_t)(in + WIRE_HEADER - r.at));
    if (r.failed)
        return wire_refuse(kind, "size", (int64_t)n, WIRE_HEADER, INT64_MAX);

    int64_t room = (int64_t)lim->n_ctx - s.n_tokens, last_token = (int64_t)lim->n_vocab - 1;
    int64_t last_next = s.want == WANT_SCORES ? last_token : -1;
    status st;
    if ((st = wire_in_range(kind, "want", s.want, WANT_NOTHING, WANT_LOGITS)) != ST_OK ||
        (st = wire_in_range(kind, "n_tokens", s.n_tokens, 1, lim->n_batch)) != ST_OK ||
        (st = wire_in_range(kind, "position", s.position, 0, room)) != ST_OK ||
        (st = wire_in_range(kind, "score_from", s.score_from, 0, s.n_tokens)) != ST_OK ||
        (st = wire_in_range(kind, "next_token", s.next_token, -1, last_next)) != ST_OK)
        return st;
    const uint8_t *theirs = read_bytes(&r, 4 * (uint64_t)s.n_tokens);
    if (!theirs)
        return wire_refuse(kind, "size", (int64_t)n, (int64_t)step_size(s.n_tokens), INT64_MAX);
    wire_own(tokens, theirs, 4 * (size_t)s.n_tokens);
    s.tokens = tokens;
    for (uint32_t i = 0; i < s.n_tokens; i++) {
        if ((st = wire_in_range(kind, "a token", wire_token(s.tokens, i), 0, last_token)) != ST_OK)
            return st;
    }
    *out = s;
    return ST_OK;
}

status wire_step_decode(const uint8_t *in, size_t n, const struct wire_limits *lim, uint8_t *tokens,
                        struct wire_step *s)
{
    struct wire_step decoded;
    status st = step_decode(WIRE_STEP, in, n, lim, tokens, &decoded);
    if (st != ST_OK || (st = wire_size_is(WIRE_STEP, n, step_size(decoded.n_tokens))) != ST_OK)
        return st;
    *s = decoded;
    return ST_OK;
}

static size_t hidden_size(uint32_t n_tokens, const struct wire_limits *lim)
{
    return wire_align(step_size(n_tokens)) + wire_dense_bytes(n_tokens, lim);
}

size_t wire_hidden_max(const struct wire_limits *lim)
{
    return hidden_size(lim->n_batch, lim);
}

size_t wire_hidden_encode(const struct wire_step *s, const struct wire_limits *lim, uint8_t *out, size_t cap,
                          float **hidden)
{
    struct writer w = {out, out + cap, false};
    size_t at = wire_align(step_size(s->n_tokens));
    if (cap < hidden_size(s->n_tokens, lim))
        return 0;
    write_header(&w, s);
    uint8_t *tokens = write_bytes(&w, at - WIRE_HEADER);
    memset(tokens, 0, at - WIRE_HEADER);
    memcpy(tokens, s->tokens, 4 * (size_t)s->n_tokens);
    *hidden = (float *)(void *)(out + at);
    return hidden_size(s->n_tokens, lim);
}

status wire_hidden_decode(const uint8_t *in, size_t n, const struct wire_limits *lim, uint8_t *tokens,
                          struct wire_step *s, const float **hidden)
{
    struct wire_step decoded;
    status st = step_decode(WIRE_HIDDEN, in, n, lim, tokens, &decoded);
    if (st != ST_OK || (st = wire_size_is(WIRE_HIDDEN, n, hidden_size(decoded.n_tokens, lim))) != ST_OK)
        return st;
    *s = decoded;
    *hidden = (const float *)(const void *)(in + wire_align(step_size(decoded.n_tokens)));
    return ST_OK;
}
