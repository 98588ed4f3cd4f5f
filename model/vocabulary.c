/* The vocabulary's tables: tokens by text, merges by pair. */
#include "model/tokenizer_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include "base/log.h"

enum { MAX_TOKENS = 1 << 24, MAX_TOKEN_BYTES = 1 << 20 };

static const char tokens_key[] = "tokenizer.ggml.tokens", types_key[] = "tokenizer.ggml.token_type",
                  scores_key[] = "tokenizer.ggml.scores", merges_key[] = "tokenizer.ggml.merges";

static uint32_t text_hash(const char *at, size_t n)
{
    return (uint32_t)XXH3_64bits(at, n);
}

/* The slot of a text, or the empty slot where it would go. */
static struct text_slot *text_slot(const struct tokenizer *t, const char *at, size_t n, uint32_t hash)
{
    size_t mask = t->texts.n_slots - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        struct text_slot *slot = &t->texts.slots[i];
        if (slot->piece < 0)
            return slot;
        const struct piece *p = &t->pieces[slot->piece];
        if (slot->hash == hash && p->n == n && !memcmp(p->at, at, n))
            return slot;
    }
}

int32_t find_text(const struct tokenizer *t, const char *at, size_t n)
{
    return text_slot(t, at, n, text_hash(at, n))->piece;
}

int32_t find_token(const struct tokenizer *t, const char *at, size_t n)
{
    int32_t piece = find_text(t, at, n);
    return piece < t->n_vocab ? piece : -1;
}

static size_t slots_for(size_t n)
{
    size_t slots = 64;
    while (slots < 2 * n)
        slots *= 2;
    return slots;
}

/* Makes room for n texts. */
static status texts_grow(struct text_table *table, size_t n)
{
    size_t n_slots = slots_for(n);
    struct text_slot *slots = malloc(n_slots * sizeof *slots);
    if (!slots)
        return ST_NOMEM;
    memset(slots, 0xff, n_slots * sizeof *slots);
    for (size_t i = 0; i < table->n_slots; i++) {
        if (table->slots[i].piece < 0)
            continue;
        size_t at = table->slots[i].hash & (n_slots - 1);
        while (slots[at].piece >= 0)
            at = (at + 1) & (n_slots - 1);
        slots[at] = table->slots[i];
    }
    free(table->slots);
    table->slots = slots;
    table->n_slots = n_slots;
    return ST_OK;
}

/* The piece of a text, which is appended with these flags if there is none yet; an empty text always is. */
static status intern(struct tokenizer *t, const char *at, size_t n, uint32_t flags, int32_t *piece)
{
    size_t cap = (size_t)t->cap_pieces;
    status s = reserve((void **)&t->pieces, &cap, (size_t)t->n_pieces + 1, sizeof *t->pieces);
    if (s == ST_OK)
        t->cap_pieces = (int32_t)cap;
    if (s == ST_OK && 2 * (t->texts.used + 1) > t->texts.n_slots)
        s = texts_grow(&t->texts, 2 * t->texts.used + 1);
    if (s != ST_OK)
        return s;
    if (n) {
        uint32_t hash = text_hash(at, n);
        struct text_slot *slot = text_slot(t, at, n, hash);
        if (slot->piece >= 0) {
            *piece = slot->piece;
            return ST_OK;
        }
        *slot = (struct text_slot){.hash = hash, .piece = t->n_pieces};
        t->texts.used++;
    }
    *piece = t->n_pieces++;
    t->pieces[*piece] = (struct piece){.at = at, .n = (uint32_t)n, .flags = flags};
    return ST_OK;
}

static uint32_t flags_of_type(int64_t type)
{
    static const uint32_t flags[] = {0, PIECE_NORMAL, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER_DEFINED, PIECE_UNUSED,
                                     PIECE_BYTE};
    return type >= 0 && type < (int64_t)(sizeof flags / sizeof *flags) ? flags[type] : 0;
}

static status token_read(struct tokenizer *t, const struct gguf *g, uint64_t i, bool typed)
{
    struct gguf_string text;
    int64_t type = 1;
    if (!gguf_array_string(g, tokens_key, i, &text) || (typed && !gguf_array_i64(g, types_key, i, &type))) {
        log_error("%s: token %" PRIu64 ": expected a string in %s and an integer in %s", gguf_path(g), i, tokens_key,
                  types_key);
        return ST_FORMAT;
    }
    if (text.n > MAX_TOKEN_BYTES) {
        log_error("%s: token %" PRIu64 ": expected at most %d bytes, found %zu", gguf_path(g), i, MAX_TOKEN_BYTES,
                  text.n);
        return ST_FORMAT;
    }
    if (text.n > t->max_piece)
        t->max_piece = (uint32_t)text.n;
    int32_t piece;
    status s = intern(t, text.at, text.n, flags_of_type(type), &piece);
    if (s != ST_OK || piece == (int32_t)i)
        return s;
    log_error("%s: tokens %" PRId32 " and %" PRIu64 " have the same text '%.*s'", gguf_path(g), piece, i,
              (int)(text.n < 64 ? text.n : 64), text.at);
    return ST_FORMAT;
}

/* Whether an array beside the tokens is there; it must have as many elements. */
static status beside_tokens(const struct gguf *g, const char *key, uint64_t n_tokens, bool *there)
{
    enum gguf_type type;
    uint64_t n;
    *there = gguf_get_array(g, key, &type, &n);
    if (*there && n < n_tokens) {
        log_error("%s: %s: expected %" PRIu64 " elements, found %" PRIu64, gguf_path(g), key, n_tokens, n);
        return ST_FORMAT;
    }
    return ST_OK;
}

static status scores_read(struct tokenizer *t, const struct gguf *g, bool scored)
{
    t->scores = calloc((size_t)t->n_vocab, sizeof *t->scores);
    if (!t->scores)
        return ST_NOMEM;
    for (int32_t i = 0; scored && i < t->n_vocab; i++) {
        double score;
        int64_t whole;
        if (gguf_array_f64(g, scores_key, (uint64_t)i, &score)) {
            t->scores[i] = (float)score;
        } else if (gguf_array_i64(g, scores_key, (uint64_t)i, &whole)) {
            t->scores[i] = (float)whole;
        } else {
            log_error("%s: %s: expected numbers", gguf_path(g), scores_key);
            return ST_FORMAT;
        }
    }
    return ST_OK;
}

status vocabulary_read(struct tokenizer *t, const struct gguf *g)
{
    enum gguf_type type;
    uint64_t n;
    if (!gguf_get_array(g, tokens_key, &type, &n) || type != GGUF_STRING || n == 0 || n > MAX_TOKENS) {
        log_error("%s: %s: expected an array of 1 to %d strings", gguf_path(g), tokens_key, MAX_TOKENS);
        return ST_FORMAT;
    }
    bool typed, scored;
    status s = beside_tokens(g, types_key, n, &typed);
    if (s == ST_OK)
        s = beside_tokens(g, scores_key, n, &scored);
    if (s == ST_OK)
        s = texts_grow(&t->texts, n + 256);
    for (uint64_t i = 0; s == ST_OK && i < n; i++)
        s = token_read(t, g, i, typed);
    if (s != ST_OK)
        return s;
    t->n_vocab = t->n_pieces;
    return t->sentencepiece ? scores_read(t, g, scored) : ST_OK;
}

static struct pair_slot *pair_slot(const struct tokenizer *t, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t mask = t->pairs.n_slots - 1;
    for (size_t i = XXH3_64bits(&key, sizeof key) & mask;; i = (i + 1) & mask) {
        struct pair_slot *slot = &t->pairs.slots[i];
        if (slot->merged < 0 || (slot->left == left && slot->right == right))
            return slot;
    }
}

const struct pair_slot *find_pair(const struct tokenizer *t, int32_t left, int32_t right)
{
    const struct pair_slot *slot = pair_slot(t, left, right);
    return slot->merged < 0 ? NULL : slot;
}

/* "left right", the blank not being the first byte; a merge without one never applies. *last: what the one before it
 * made. */
static status merge_read(struct tokenizer *t, struct gguf_string merge, uint32_t rank, char **ghosts, int32_t *last)
{
    const char *blank = merge.n > 1 ? memchr(merge.at + 1, ' ', merge.n - 1) : NULL;
    if (!blank)
        return ST_OK;
    size_t n_left = (size_t)(blank - merge.at), n_right = merge.n - n_left - 1;
    if (!n_right)
        return ST_OK;
    int32_t left, right, merged;
    status s = intern(t, merge.at, n_left, 0, &left);
    if (s == ST_OK)
        s = intern(t, blank + 1, n_right, 0, &right);
    if (s != ST_OK)
        return s;
    memcpy(mempcpy(*ghosts, merge.at, n_left), blank + 1, n_right);
    int32_t guess = *last + 1 < t->n_pieces ? *last + 1 : 0;
    const struct piece *next = &t->pieces[guess];
    if (next->n == n_left + n_right && !memcmp(next->at, *ghosts, next->n)) {
        merged = guess; /* vocabularies list what merges make in the order of the merges: no search */
    } else {
        int32_t before = t->n_pieces;
        s = intern(t, *ghosts, n_left + n_right, 0, &merged);
        if (s != ST_OK)
            return s;
        if (t->n_pieces > before)
            *ghosts += n_left + n_right;
    }
    *last = merged;
    struct pair_slot *slot = pair_slot(t, left, right);
    if (slot->merged < 0) /* of two equal merges the first one counts */
        *slot = (struct pair_slot){.left = left, .right = right, .rank = rank, .merged = merged};
    return ST_OK;
}

/* The pieces of the characters that stand for bytes. */
static status byte_characters_read(struct tokenizer *t, char **ghosts)
{
    status s = ST_OK;
    for (int byte = 0; byte < 256 && s == ST_OK; byte++) {
        int len = byte_character((uint8_t)byte, *ghosts);
        s = intern(t, *ghosts, (size_t)len, 0, &t->of_byte[byte]);
        *ghosts += len;
    }
    return s;
}

/* Space for all merged texts: what no token has is kept there. It is touched only as far as it is used. */
static status ghosts_reserve(struct tokenizer *t, const struct gguf *g, uint64_t n)
{
    size_t bytes = 512;
    for (uint64_t i = 0; i < n; i++) {
        struct gguf_string merge;
        if (!gguf_array_string(g, merges_key, i, &merge))
            return ST_INTERNAL;
        if (merge.n > MAX_TOKEN_BYTES) {
            log_error("%s: %s: merge %" PRIu64 ": expected at most %d bytes, found %zu", gguf_path(g), merges_key, i,
                      MAX_TOKEN_BYTES, merge.n);
            return ST_FORMAT;
        }
        bytes += merge.n;
    }
    t->ghost_text = malloc(bytes);
    return t->ghost_text ? ST_OK : ST_NOMEM;
}

status merges_read(struct tokenizer *t, const struct gguf *g)
{
    enum gguf_type type;
    uint64_t n;
    if (!gguf_get_array(g, merges_key, &type, &n) || type != GGUF_STRING || n > MAX_TOKENS) {
        log_error("%s: %s: expected an array of at most %d strings", gguf_path(g), merges_key, MAX_TOKENS);
        return ST_FORMAT;
    }
    status s = ghosts_reserve(t, g, n);
    if (s != ST_OK)
        return s;
    t->pairs.n_slots = slots_for(n);
    t->pairs.slots = malloc(t->pairs.n_slots * sizeof *t->pairs.slots);
    if (!t->pairs.slots)
        return ST_NOMEM;
    memset(t->pairs.slots, 0xff, t->pairs.n_slots * sizeof *t->pairs.slots);
    char *ghosts = t->ghost_text;
    if (!t->characters)
        s = byte_characters_read(t, &ghosts);
    int32_t last = -1;
    for (uint64_t i = 0; i < n && s == ST_OK; i++) {
        struct gguf_string merge;
        if (!gguf_array_string(g, merges_key, i, &merge))
            return ST_INTERNAL;
        s = merge_read(t, merge, (uint32_t)i, &ghosts, &last);
    }
    return s;
}
