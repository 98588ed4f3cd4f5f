/* The messages of many runs, for fuzz_wire.c: what decodes obeys the limits, and is read to its last byte. */
#ifndef HEARTH_TESTS_FUZZ_RUNS_H
#define HEARTH_TESTS_FUZZ_RUNS_H

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "wire/runs.h"

static bool is_of_runs(int kind)
{
    return kind == WIRE_STEP || kind == WIRE_HIDDEN || kind == WIRE_REQUEST || kind == WIRE_RESULT;
}

static volatile uint8_t sink;

static void read_all(const void *at, size_t n)
{
    const uint8_t *p = at;
    uint8_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum ^= p[i];
    sink = sum;
}

static void require(int holds)
{
    if (!holds)
        abort();
}

/* Of exactly n bytes, none of them 0 but of pages: a decoder relies on nothing that it has not written. */
static void *lend(size_t n, int byte)
{
    void *p = malloc(n);
    require(p != NULL);
    memset(p, byte, n);
    return p;
}

static void use_spans(const struct wire_run *runs, uint32_t n, uint32_t n_tokens, const struct wire_limits *lim)
{
    uint64_t seen = 0, tokens = 0;
    require(n <= lim->n_runs && n_tokens <= lim->n_batch);
    for (uint32_t i = 0; i < n; i++) {
        require(runs[i].sequence < lim->n_sequences && !(seen >> runs[i].sequence & 1));
        require(runs[i].n_tokens >= 1 && (uint64_t)runs[i].position + runs[i].n_tokens <= lim->n_ctx);
        require(runs[i].begin_with <= lim->n_states && runs[i].keep_as <= lim->n_states);
        require(!runs[i].keep_as || runs[i].keep_as > lim->n_sequences);
        seen |= UINT64_C(1) << runs[i].sequence;
        tokens += runs[i].n_tokens;
    }
    require(n == 0 || tokens == n_tokens);
}

static void use_tokens(const int32_t *tokens, uint32_t n, const struct wire_limits *lim)
{
    for (uint32_t i = 0; i < n; i++)
        require(tokens[i] >= 0 && (uint32_t)tokens[i] < lim->n_vocab);
}

static void use_changes(const struct wire_change *changes, uint32_t n, const struct wire_limits *lim)
{
    for (uint32_t i = 0; i < n; i++) {
        require(changes[i].sequence < lim->n_sequences && changes[i].page < lim->n_pages);
        require((uint64_t)changes[i].index * WIRE_PAGE < lim->n_ctx && changes[i].page != changes[i].from_page);
        require(changes[i].from_page < lim->n_pages || changes[i].from_page == WIRE_NO_PAGE);
        for (uint32_t k = 0; k < i; k++)
            require(changes[k].page != changes[i].page);
    }
}

static void use_run_step(const struct wire_step *s, const struct wire_limits *lim)
{
    uint32_t text = 0, bias = 0, ops = 0;
    use_spans(s->runs, s->n_runs, s->n_tokens, lim);
    use_changes(s->changes, s->n_changes, lim);
    use_tokens(s->tokens, s->n_tokens, lim);
    for (uint32_t i = 0; i < s->n_runs; i++) {
        const struct wire_run *q = &s->runs[i];
        const struct wire_answer a = wire_answer_to(q, lim);
        require(q->want <= WANT_SUM && q->from <= q->n_tokens && q->n_top <= WIRE_TOP);
        require(q->next_token >= -1 && (q->next_token == -1 || (uint32_t)q->next_token < lim->n_vocab));
        require(a.n_tokens <= q->n_tokens && a.n_top <= lim->n_vocab);
    }
    for (uint32_t i = 0; i < s->n_begins; i++) {
        use_tokens(s->begins[i].text, s->begins[i].n_text, lim);
        read_all(&s->begins[i].sampling, sizeof s->begins[i].sampling);
        text += s->begins[i].n_text;
        bias += s->begins[i].n_bias;
        ops += s->begins[i].n_ops;
        for (uint32_t k = 0; k < s->begins[i].n_bias; k++) {
            use_tokens(&s->begins[i].bias[k].token, 1, lim);
            require(isfinite(s->begins[i].bias[k].bias));
        }
        read_all(s->begins[i].ops, s->begins[i].n_ops * sizeof *s->begins[i].ops);
        require(s->begins[i].grammar_from <= lim->n_ctx);
    }
    require(text == s->n_text && text <= lim->n_ctx);
    require(bias == s->n_bias && bias <= WIRE_BIASES && ops == s->n_ops && ops <= lim->n_grammar_ops);
}

static void use_run_request(const struct wire_request *q, const struct wire_limits *lim)
{
    const size_t n = (size_t)q->n_tokens * lim->d_model;
    require(q->part < WIRE_PARTS && q->layer < lim->n_layers && (q->part == PART_ATTENTION) == (q->n_runs > 0));
    use_spans(q->runs, q->n_runs, q->n_tokens, lim);
    use_changes(q->changes, q->n_changes, lim);
    require(q->with_residual == (lim->residual && q->part == PART_FFN) && !q->residual == !q->with_residual);
    const bool experts = q->part == PART_FFN && q->layer >= lim->n_dense_layers && lim->n_experts;
    require(q->n_used == (experts ? lim->n_experts_used : 0) && !q->expert == !q->n_used && !q->weight == !q->n_used);
    for (uint32_t i = 0; i < q->n_tokens * q->n_used; i++) {
        require(q->expert[i] < lim->n_experts);
        for (uint32_t k = i - i % q->n_used; k < i; k++)
            require(q->expert[k] != q->expert[i]);
    }
    for (uint32_t i = 0; i < q->n_tokens * q->n_weights; i++)
        require(isfinite(q->weight[i]));
    if (q->residual)
        read_all(q->residual, n * 4);
    if (q->f32)
        read_all(q->f32, n * 4);
    if (!q->codes)
        return;
    for (size_t i = 0; i < n; i++)
        require(q->codes[i] != -128);
    read_all(q->scale, n / 32 * 4);
}

static void use_run_result(const struct wire_result *r, const struct wire_limits *lim)
{
    uint64_t tokens = 0, tops = 0, values = 0;
    require(r->n_runs <= lim->n_runs);
    for (uint32_t i = 0; i < r->n_runs; i++) {
        require(r->answers[i].sequence < lim->n_sequences);
        tokens += r->answers[i].n_tokens;
        tops += r->answers[i].n_top;
        values += r->answers[i].n_values;
    }
    require(tokens == r->n_tokens && tops == r->n_tops && values == r->n_values);
    use_tokens(r->tokens, r->n_tokens, lim);
    for (uint32_t i = 0; i < r->n_tops; i++)
        use_tokens(&r->tops[i].token, 1, lim);
    read_all(r->values, r->n_values * 4);
}

static void runs_decode(int kind, uint8_t *in, size_t n, const struct wire_limits *lim)
{
    const size_t words = ((size_t)lim->n_pages + 63) / 64;
    struct wire_copy c = {lend(lim->n_runs * sizeof *c.runs, 0xee),
                          lend(wire_most_changes(lim) * sizeof *c.changes, 0xee),
                          lend(lim->n_runs * sizeof *c.begins, 0xee), lend(lim->n_batch * 4, 0xee),
                          lend(lim->n_ctx * 4, 0xee), lend(words * 8, 0),
                          lend((size_t)lim->n_batch * lim->n_experts_used * 4, 0xee),
                          lend((size_t)lim->n_batch * lim->n_weights * 4, 0xee),
                          lend(WIRE_BIASES * sizeof *c.bias, 0xee), lend(lim->n_grammar_ops * sizeof *c.ops, 0xee)};
    struct wire_result_copy rc = {lend(lim->n_runs * sizeof *rc.answers, 0xee), lend(lim->n_batch * 4, 0xee),
                                  lend(lim->n_batch * WIRE_TOP * sizeof *rc.tops, 0xee)};
    struct wire_step step;
    struct wire_request request;
    struct wire_result result;
    const float *hidden;
    if (kind == WIRE_STEP && wire_step_decode(in, n, lim, &c, &step) == ST_OK)
        use_run_step(&step, lim);
    if (kind == WIRE_HIDDEN && wire_hidden_decode(in, n, lim, &c, &step, &hidden) == ST_OK) {
        use_run_step(&step, lim);
        read_all(hidden, (size_t)step.n_tokens * lim->d_model * 4);
    }
    if (kind == WIRE_REQUEST && wire_request_decode(in, n, lim, &c, &request) == ST_OK)
        use_run_request(&request, lim);
    if (kind == WIRE_RESULT && wire_result_decode(in, n, lim, &rc, &result) == ST_OK)
        use_run_result(&result, lim);
    for (size_t i = 0; i < words; i++)
        require(c.pages[i] == 0);
    void *const all[] = {c.runs, c.changes, c.begins, c.tokens, c.text, c.pages, c.experts, c.weights, c.bias, c.ops,
                         rc.answers, rc.tokens, rc.tops};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static size_t encode_request(struct wire_request *q, const struct wire_limits *lim, uint8_t *out, size_t cap)
{
    const size_t size = wire_request_encode(q, lim, out, cap);
    for (uint32_t i = 0; i < q->n_tokens * q->n_used && size; i++)
        q->expert[i] = (i + i / q->n_used) % q->n_used;
    for (uint32_t i = 0; i < q->n_tokens * q->n_weights && size; i++)
        q->weight[i] = 0.5f;
    return size;
}

/* A valid message of n_tokens tokens and, where there may be so many, two runs, two changes and a begin; its size. */
static size_t runs_encode(int kind, uint32_t n_tokens, const struct wire_limits *lim, uint8_t *out, size_t cap)
{
    static const int32_t tokens[4096];
    const uint32_t two = n_tokens > 1 && lim->n_runs > 1 ? 2 : 1;
    const struct wire_run runs[2] = {
        {.sequence = lim->n_sequences - 1, .n_tokens = n_tokens - two + 1, .want = WANT_TOKENS, .next_token = -1},
        {.position = 3, .n_tokens = 1, .begin_with = lim->n_states, .keep_as = lim->n_states, .want = WANT_TOP,
         .n_top = lim->n_vocab < 5 ? lim->n_vocab : 5, .next_token = -1}};
    const struct wire_change changes[2] = {{lim->n_sequences - 1, 0, 0, WIRE_NO_PAGE}, {0, 0, 1, 0}};
    static const struct wire_bias bias[2] = {{0, 1}, {1, -100}};
    static const struct wire_op ops[2] = {{0, 'a', 'z', 0, 0}, {4, 0, 0, 0, 0}};
    const uint32_t n_ops = lim->n_grammar_ops ? 2 : 0;
    const struct wire_begin begin = {.sequence = 0, .n_text = 3, .text = tokens, .n_bias = 2, .bias = bias,
                                     .n_ops = n_ops, .ops = ops, .grammar_from = n_ops ? 5 : 0};
    const struct wire_step step = {.id = 1, .n_runs = two, .n_tokens = n_tokens, .n_changes = two, .n_begins = two - 1,
                                   .n_text = 3 * (two - 1), .n_bias = 2 * (two - 1), .n_ops = n_ops * (two - 1),
                                   .runs = runs, .changes = changes, .begins = &begin,
                                   .tokens = tokens};
    struct wire_request request = {.id = 1, .part = n_tokens % WIRE_PARTS, .n_tokens = n_tokens,
                                   .form = lim->d_model % 32 ? FORM_F32 : FORM_Q8, .runs = runs, .changes = changes};
    const struct wire_answer answers[2] = {wire_answer_to(&runs[0], lim), wire_answer_to(&runs[1], lim)};
    const struct wire_top tops[WIRE_TOP] = {{0, -1}};
    struct wire_result result = {.id = 1, .n_runs = two, .answers = answers, .tokens = tokens, .tops = tops};
    float *hidden;
    request.layer = request.part == PART_OUTPUT ? 0 : lim->n_layers - 1;
    if (request.part == PART_ATTENTION)
        request.n_runs = request.n_changes = two;
    for (uint32_t i = 0; i < two; i++) {
        result.n_tokens += answers[i].n_tokens;
        result.n_tops += answers[i].n_top;
        result.n_values += answers[i].n_values;
    }
    switch (kind) {
    case WIRE_STEP: return wire_step_encode(&step, out, cap);
    case WIRE_HIDDEN: return wire_hidden_encode(&step, lim, out, cap, &hidden);
    case WIRE_REQUEST: return encode_request(&request, lim, out, cap);
    default: return wire_result_encode(&result, out, cap);
    }
}

#endif
