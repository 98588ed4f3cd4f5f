/* Grammars of hostile bytes: 5 bytes an op, then which of the allowed tokens are taken. What the mask allows, the
 * grammar must take, and however little is remembered, it is the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "sampling/constraint.h"
#include "sampling/constraint_lay.h"
#include "sampling/machine.h"
#include "tests/unit/vocabulary.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { OP_BYTES = 5, MOST_OPS = 400, MOST_TOKENS = 12, N_PAIRS = 64, N_VOCAB = 2 + 256 + N_PAIRS };

static void check(bool ok)
{
    if (!ok)
        abort();
}

/* All bytes and some pairs of them. Never freed. */
static struct token_trie *make_trie(void)
{
    static struct vocabulary v;
    static char bytes[256], pairs[N_PAIRS][2];
    static const char some[] = "a\"\\\xC3\xA9 0\xFF";
    struct word words[N_VOCAB] = {{"<|end|>", 7, WORD_CONTROL}, {"<|tool|>", 8, WORD_CONTROL}};
    struct token_trie *trie;
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        words[2 + i] = (struct word){&bytes[i], 1, WORD_NORMAL};
    }
    for (int i = 0; i < N_PAIRS; i++) {
        pairs[i][0] = some[i / 8];
        pairs[i][1] = some[i % 8];
        words[258 + i] = (struct word){pairs[i], 2, WORD_NORMAL};
    }
    vocabulary_make(&v, words, N_VOCAB, 0);
    check(token_trie_create(v.t, &trie) == ST_OK);
    return trie;
}

static void write_text(struct constraint *large, struct constraint *small, const uint8_t *choices, size_t n)
{
    for (size_t i = 0; i <= n; i++) {
        uint64_t mask[N_VOCAB / 64 + 1];
        memcpy(mask, constraint_mask(large), (N_VOCAB + 63) / 64 * sizeof *mask);
        check(!memcmp(mask, constraint_mask(small), (N_VOCAB + 63) / 64 * sizeof *mask));
        check(constraint_complete(large) == constraint_complete(small));
        check(!constraint_complete(large) || mask[0] & 1);
        if (i == n)
            return;
        int32_t token = choices[i]; /* the first one from there on that is allowed */
        while (token < N_VOCAB && !(mask[token / 64] >> token % 64 & 1))
            token++;
        constraint_accept(large, token);
        constraint_accept(small, token);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct token_trie *trie;
    static struct constraint *large, *small;
    static struct arena memory;
    static struct log_catcher quiet;
    struct grammar_op ops[MOST_OPS];
    log_catch(&quiet);
    if (!trie) {
        trie = make_trie();
        constraint_lay(trie, MOST_OPS, &memory);
        constraint_lay_states(trie, MOST_OPS, MACHINE_STATES_MIN, &memory);
        check(arena_map(&memory, memory.used) == ST_OK);
        large = constraint_lay(trie, MOST_OPS, &memory);
        small = constraint_lay_states(trie, MOST_OPS, MACHINE_STATES_MIN, &memory);
    }
    if (n == 0)
        return 0;
    const size_t n_choices = data[0] % (MOST_TOKENS + 1) < n - 1 ? data[0] % (MOST_TOKENS + 1) : n - 1;
    const uint8_t *choices = data + 1, *at = choices + n_choices;
    struct grammar g = {ops, 0};
    for (; at + OP_BYTES <= data + n && g.n_ops < MOST_OPS; at += OP_BYTES) {
        struct grammar_op *op = &ops[g.n_ops++];
        const uint32_t a = at[1], b = at[2];
        *op = (struct grammar_op){.kind = at[0], .lo = at[3], .hi = at[4], .a = a, .b = b};
    }
    if (grammar_check(&g) != ST_OK)
        return 0;
    constraint_begin(large, &g);
    constraint_begin(small, &g);
    write_text(large, small, choices, n_choices);
    return 0;
}
