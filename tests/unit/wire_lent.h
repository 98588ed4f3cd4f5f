/* A step of three runs, and what decoders of its messages are lent. */
#ifndef HEARTH_TESTS_UNIT_WIRE_LENT_H
#define HEARTH_TESTS_UNIT_WIRE_LENT_H

#include "tests/unit/wire_checks.h"
#include "wire/runs.h"

enum { MOST_CHANGES = 12, GUARD = 0x5a };

/* What decoders take out of messages, each in as much memory as limits say, and a guard behind it. */
static struct {
    struct wire_run runs[3];
    uint8_t after_runs[32];
    struct wire_change changes[MOST_CHANGES];
    uint8_t after_changes[32];
    struct wire_begin begins[3];
    uint8_t after_begins[32];
    int32_t tokens[8];
    uint8_t after_tokens[32];
    int32_t text[100];
    uint8_t after_text[32];
    uint64_t pages[1];
    uint8_t after_pages[32];
    uint32_t experts[8 * 3];
    uint8_t after_experts[32];
    float weights[8 * 4];
    uint8_t after_weights[32];
    struct wire_bias bias[WIRE_BIASES];
    uint8_t after_bias[32];
    struct wire_op ops[8];
    uint8_t after_ops[32];
    struct wire_answer answers[3];
    uint8_t after_answers[32];
    int32_t drawn[8];
    uint8_t after_drawn[32];
    struct wire_top tops[8 * WIRE_TOP];
    uint8_t after_tops[32];
} lent;

static const struct wire_copy copy = {lent.runs, lent.changes, lent.begins, lent.tokens, lent.text, lent.pages,
                                      lent.experts, lent.weights, lent.bias, lent.ops};
static const struct wire_result_copy result_copy = {lent.answers, lent.drawn, lent.tops};

static inline void lend(void)
{
    memset(&lent, GUARD, sizeof lent);
    memset(lent.pages, 0, sizeof lent.pages);
}

static inline void assert_guarded(const uint8_t *guard)
{
    for (int i = 0; i < 32; i++)
        assert_int_equal(guard[i], GUARD);
}

static inline status returned(status st)
{
    assert_guarded(lent.after_runs);
    assert_guarded(lent.after_changes);
    assert_guarded(lent.after_begins);
    assert_guarded(lent.after_tokens);
    assert_guarded(lent.after_text);
    assert_guarded(lent.after_pages);
    assert_guarded(lent.after_experts);
    assert_guarded(lent.after_weights);
    assert_guarded(lent.after_bias);
    assert_guarded(lent.after_ops);
    assert_guarded(lent.after_answers);
    assert_guarded(lent.after_drawn);
    assert_guarded(lent.after_tops);
    assert_true(lent.pages[0] == 0);
    return st;
}

static const int32_t tokens[8] = {0, 1, 999, 500, 7, 8, 9, 10}, text[10] = {0, 999, 3, 4, 5, 6, 7, 11, 12, 13};
static const struct wire_run runs[3] = {
    {.sequence = 4, .position = 96, .n_tokens = 4, .want = WANT_SCORES, .from = 1, .next_token = 999},
    {.sequence = 0, .position = 7, .n_tokens = 3, .begin_with = 2, .want = WANT_TOKENS, .from = 2, .next_token = -1},
    {.sequence = 2, .position = 99, .n_tokens = 1, .begin_with = 8, .keep_as = 6, .want = WANT_TOP, .n_top = 20,
     .next_token = -1},
};
static const struct wire_change changes[3] = {{4, 1, 11, WIRE_NO_PAGE}, {0, 0, 0, 11}, {2, 1, 3, WIRE_NO_PAGE}};
static const struct wire_bias biases[3] = {{0, -100}, {999, 0.5f}, {7, 1e30f}};
static const struct wire_op ops[4] = {{0, 'a', 'z', 0, 0}, {1, 0, 0, 2, UINT32_MAX}, {255, 255, 255, 3, 4},
                                      {4, 0, 0, 0, 0}};
static const struct wire_begin begins[2] = {
    {.sequence = 2, .n_text = 7, .text = text, .n_bias = 2, .bias = biases, .n_ops = 4, .ops = ops, .grammar_from = 95,
     .sampling = {0.8f, 0.95f, 0.05f, 1.1f, 0.5f, -0.25f, 40, 64, 0xfedcba9876543210}},
    {.sequence = 0, .n_text = 3, .text = text + 7, .sampling = {.seed = 1}, .n_bias = 1, .bias = biases + 2},
};
static const struct wire_step a_step = {.id = 0x0123456789abcdef, .n_runs = 3, .n_tokens = 8, .n_changes = 3,
                                        .n_begins = 2, .n_text = 10, .n_bias = 3, .n_ops = 4,
                                        .counts = {1ull << 40, 2, 3, 4}, .runs = runs,
                                        .changes = changes, .begins = begins, .tokens = tokens};

/* Decodes the message with a few bits changed. */
static inline status decode_damaged(decoder *decode, const uint8_t *message, size_t n, uint32_t seed)
{
    struct log_catcher quiet = {0};
    uint8_t *changed = exact_copy(message, n);
    uint32_t x = seed;
    for (uint32_t k = 0; k <= seed % 3; k++) {
        x = x * 1664525 + 1013904223;
        changed[(x >> 8) % n] ^= (uint8_t)(1u << (x >> 5 & 7));
    }
    log_catch(&quiet);
    const status st = decode(changed, n);
    log_catch(NULL);
    free(changed);
    return st;
}

#endif
