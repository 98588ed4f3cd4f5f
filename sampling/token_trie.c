#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "sampling/grammar.h"
#include "sampling/token_tree.h"

/* A token on its way into a tree. */
struct text {
    const uint8_t *bytes;
    size_t n;
    int32_t token;
};

static status no_memory(const struct token_trie *t)
{
    log_error("token trie: no memory for %d tokens", t->n_vocab);
    return ST_NOMEM;
}

/* --- texts --- */

/* What a token is in a grammar; written if there is where. Returns how many bytes it is. */
static size_t token_text(const struct tokenizer *t, int32_t token, uint8_t *out, size_t cap)
{
    size_t n = tokenizer_is_end(t, token) ? 0 : tokenizer_piece(t, token, false, (char *)out, cap);
    if (n > 0 || tokenizer_is_end(t, token))
        return n;
    n = tokenizer_piece(t, token, true, NULL, 0);
    if (n == 0)
        return 0;
    if (n < cap) {
        out[0] = GRAMMAR_CONTROL;
        tokenizer_piece(t, token, true, (char *)out + 1, cap - 1);
    }
    return n + 1;
}

static status read_texts(struct token_trie *t, const struct tokenizer *tokenizer)
{
    const size_t n = (size_t)t->n_vocab;
    t->starts = calloc(n + 1, sizeof *t->starts);
    if (!t->starts)
        return no_memory(t);
    for (size_t i = 0; i < n; i++) {
        t->starts[i + 1] = t->starts[i] + token_text(tokenizer, (int32_t)i, NULL, 0);
        t->n_ends += tokenizer_is_end(tokenizer, (int32_t)i);
    }
    t->bytes = malloc(t->starts[n] + 1);
    t->ends = malloc((t->n_ends + 1) * sizeof *t->ends);
    if (!t->bytes || !t->ends)
        return no_memory(t);
    t->n_ends = 0;
    for (size_t i = 0; i < n; i++) {
        token_text(tokenizer, (int32_t)i, t->bytes + t->starts[i], t->starts[i + 1] - t->starts[i]);
        if (tokenizer_is_end(tokenizer, (int32_t)i))
            t->ends[t->n_ends++] = (int32_t)i;
    }
    return ST_OK;
}

/* How long the character at the beginning is; 0: there is none that is plain. */
static size_t plain_character(const uint8_t *b, size_t n)
{
    if (b[0] < 0x80)
        return b[0] >= ' ' && b[0] != '"' && b[0] != '\\' && b[0] != 0x7F;
    const size_t length = b[0] < 0xC2 ? 0 : b[0] < 0xE0 ? 2 : b[0] < 0xF0 ? 3 : b[0] < 0xF5 ? 4 : 0;
    if (length == 0 || length > n)
        return 0;
    const uint8_t lo = b[0] == 0xE0 ? 0xA0 : b[0] == 0xF0 ? 0x90 : 0x80;
    const uint8_t hi = b[0] == 0xED ? 0x9F : b[0] == 0xF4 ? 0x8F : 0xBF;
    if (b[1] < lo || b[1] > hi)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((b[i] & 0xC0) != 0x80)
            return 0;
    return length;
}

static bool is_plain(const struct text *x)
{
    size_t at = 0, n_characters = 0, n;
    for (; at < x->n; at += n, n_characters++)
        if ((n = plain_character(x->bytes + at, x->n - at)) == 0 || n_characters == PLAIN_CHARACTERS)
            return false;
    return true;
}

static int by_bytes(const void *left, const void *right)
{
    const struct text *a = left, *b = right;
    const int order = memcmp(a->bytes, b->bytes, a->n < b->n ? a->n : b->n);
    if (order || a->n != b->n)
        return order ? order : a->n < b->n ? -1 : 1;
    return a->token < b->token ? -1 : 1;
}

/* Takes those with the same bytes as the one before out of the sorted texts [n]; returns how many are left. */
static size_t take_twins(struct token_trie *t, struct text *texts, size_t n)
{
    size_t left = 0;
    for (size_t i = 0; i < n; i++) {
        const struct text *last = left ? &texts[left - 1] : NULL;
        if (last && last->n == texts[i].n && !memcmp(last->bytes, texts[i].bytes, last->n))
            t->twins[t->n_twins++] = (struct token_twin){last->token, texts[i].token};
        else
            texts[left++] = texts[i];
    }
    return left;
}

/* --- trees --- */

static size_t in_common(const struct text *a, const struct text *b)
{
    size_t n = 0;
    while (n < a->n && n < b->n && a->bytes[n] == b->bytes[n])
        n++;
    return n;
}

/* Nodes of sorted texts that all differ. */
static size_t count_nodes(const struct text *texts, size_t n)
{
    size_t nodes = 0;
    for (size_t i = 0; i < n; i++)
        nodes += texts[i].n - (i ? in_common(&texts[i - 1], &texts[i]) : 0);
    return nodes;
}

static status plant(const struct token_trie *t, const struct text *texts, size_t n, struct token_tree *out)
{
    const size_t n_nodes = count_nodes(texts, n);
    if (n_nodes >= TREE_NODES) {
        log_error("token trie: %zu bytes that differ, expected less than %d", n_nodes, TREE_NODES);
        return ST_UNSUPPORTED;
    }
    out->nodes = malloc((n_nodes + 1) * sizeof *out->nodes);
    if (!out->nodes)
        return no_memory(t);
    uint32_t open[TREE_DEPTH]; /* the nodes of the text before */
    for (size_t i = 0; i <= n; i++) {
        const size_t common = i > 0 && i < n ? in_common(&texts[i - 1], &texts[i]) : 0;
        for (size_t d = i ? texts[i - 1].n : 0; d-- > common;) /* nothing more comes below these */
            out->nodes[open[d]] |= (uint64_t)(out->n - open[d]) << 40;
        for (size_t d = common; i < n && d < texts[i].n; d++) {
            const bool last = d + 1 == texts[i].n;
            const uint64_t token = last ? (uint32_t)texts[i].token : t->no_token;
            open[d] = out->n;
            out->nodes[out->n++] = texts[i].bytes[d] | (uint64_t)d << 8 | token << 16;
        }
    }
    return ST_OK;
}

/* Texts into the lists of plain ones and others, each in order; returns how many are plain, which are the first ones.
 * */
static size_t list_texts(const struct token_trie *t, struct text *plain, struct text *rest, size_t *n_rest)
{
    size_t n_plain = 0;
    *n_rest = 0;
    for (int32_t i = 0; i < t->n_vocab; i++) {
        const struct text x = {t->bytes + t->starts[i], t->starts[i + 1] - t->starts[i], i};
        if (x.n == 0 || x.n > TREE_DEPTH)
            continue;
        if (is_plain(&x)) {
            plain[n_plain++] = x;
            t->plain_mask[i / 64] |= UINT64_C(1) << i % 64;
        } else {
            rest[(*n_rest)++] = x;
        }
    }
    qsort(plain, n_plain, sizeof *plain, by_bytes);
    qsort(rest, *n_rest, sizeof *rest, by_bytes);
    return n_plain;
}

static status plant_trees(struct token_trie *t)
{
    const size_t n = (size_t)t->n_vocab + 1;
    struct text *plain = malloc(n * sizeof *plain), *rest = malloc(n * sizeof *rest);
    size_t n_plain, n_rest;
    status st = ST_OK;
    t->twins = malloc(n * sizeof *t->twins);
    t->plain_mask = calloc(t->no_token / 64 + 1, sizeof *t->plain_mask);
    if (!plain || !rest || !t->twins || !t->plain_mask) {
        st = no_memory(t);
        goto done;
    }
    n_plain = list_texts(t, plain, rest, &n_rest);
    n_plain = take_twins(t, plain, n_plain);
    n_rest = take_twins(t, rest, n_rest);
    if ((st = plant(t, plain, n_plain, &t->plain)) == ST_OK)
        st = plant(t, rest, n_rest, &t->rest);
done:
    free(plain);
    free(rest);
    return st;
}

/* --- */

status token_trie_create(const struct tokenizer *tokenizer, struct token_trie **out)
{
    const int32_t n_vocab = tokenizer_n_vocab(tokenizer);
    if (n_vocab >= TREE_TOKENS - 64) {
        log_error("token trie: %d tokens, expected less than %d", n_vocab, TREE_TOKENS - 64);
        return ST_UNSUPPORTED;
    }
    struct token_trie *t = calloc(1, sizeof *t);
    status st;
    if (!t) {
        log_error("token trie: no memory for %d tokens", n_vocab);
        return ST_NOMEM;
    }
    t->n_vocab = n_vocab;
    t->no_token = ((uint32_t)n_vocab + 63) / 64 * 64;
    if ((st = read_texts(t, tokenizer)) != ST_OK || (st = plant_trees(t)) != ST_OK) {
        token_trie_free(t);
        return st;
    }
    *out = t;
    return ST_OK;
}

void token_trie_free(struct token_trie *t)
{
    if (!t)
        return;
    free(t->bytes);
    free(t->starts);
    free(t->plain.nodes);
    free(t->rest.nodes);
    free(t->plain_mask);
    free(t->twins);
    free(t->ends);
    free(t);
}

int32_t token_trie_n_vocab(const struct token_trie *t) { return t->n_vocab; }
