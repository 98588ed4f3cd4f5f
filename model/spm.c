/* SentencePiece BPE (Kudo and Richardson 2018): characters merge into the token of the highest score; what is no token
 * in the end is written as byte tokens. */
#include "model/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

uint32_t announced_length(uint8_t lead)
{
    return lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

/* Descending scores as ascending integers. */
static uint32_t order_of(float score)
{
    if (score != score)
        return UINT32_MAX;
    score += 0.0f; /* -0 is 0 */
    uint32_t u;
    memcpy(&u, &score, sizeof u);
    uint32_t ascending = u & 0x80000000u ? ~u : u | 0x80000000u;
    return ~ascending;
}

static bool spm_pair(const struct tokenizer *t, const char *text, const struct symbol *left, const struct symbol *right,
                     uint32_t *order, int32_t *merged)
{
    uint32_t n = left->n + right->n;
    if (n > t->max_piece)
        return false;
    *merged = find_token(t, text + left->begin, n);
    if (*merged < 0 || t->pieces[*merged].flags & PIECE_UNQUOTABLE)
        return false;
    *order = order_of(t->scores[*merged]);
    return true;
}

static status push_symbol(const struct tokenizer *t, const char *text, const struct symbol *symbol, struct ids *out)
{
    int32_t token = symbol->piece >= 0 ? symbol->piece : find_token(t, text + symbol->begin, symbol->n);
    if (token >= 0 && !(t->pieces[token].flags & PIECE_UNQUOTABLE))
        return ids_push(out, token);
    for (uint32_t i = 0; i < symbol->n; i++) {
        int32_t id = t->of_byte[(uint8_t)text[symbol->begin + i]];
        if (id < 0)
            id = t->unk;
        status s = id < 0 ? ST_OK : ids_push(out, id);
        if (s != ST_OK)
            return s;
    }
    return ST_OK;
}

size_t escape_spaces(const char *text, size_t n, bool prefix, char *out)
{
    char *at = out;
    if (prefix)
        at = mempcpy(at, "\xe2\x96\x81", 3);
    for (size_t i = 0; i < n; i++) {
        if (text[i] == ' ')
            at = mempcpy(at, "\xe2\x96\x81", 3);
        else
            *at++ = text[i];
    }
    return (size_t)(at - out);
}

/* The bytes of the character at the beginning of n. */
static uint32_t character_length(const char *at, size_t n)
{
    const uint32_t len = announced_length((uint8_t)at[0]);
    return len < n ? len : (uint32_t)n;
}

/* --- where merging never goes on --- */

/* What a character counts as on either side: one of its bytes, or what no text has, for a space. */
enum { SPACE = 0xff };

static bool is_space(const char *at, uint32_t len) { return len == 3 && !memcmp(at, "\xe2\x96\x81", 3); }

static bool *joint(const struct tokenizer *t, const char *left, uint32_t n_left, const char *right, uint32_t n_right)
{
    const uint8_t end = is_space(left, n_left) ? SPACE : (uint8_t)left[n_left - 1];
    return &t->joined[end][is_space(right, n_right) ? SPACE : (uint8_t)right[0]];
}

status spm_joins_find(struct tokenizer *t)
{
    t->joined = calloc(256, sizeof *t->joined);
    if (!t->joined)
        return ST_NOMEM;
    for (int32_t i = 0; i < t->n_vocab; i++) {
        const struct piece *p = &t->pieces[i];
        for (uint32_t at = 0, len, next; at < p->n; at += len) {
            len = character_length(p->at + at, p->n - at);
            if ((next = at + len) < p->n)
                *joint(t, p->at + at, len, p->at + next, character_length(p->at + next, p->n - next)) = true;
        }
    }
    return ST_OK;
}

/* Where the text from `begin` on can be cut: between two characters that no token has side by side. Mostly that is
 * before a space. */
static size_t segment_end(const struct tokenizer *t, const char *text, size_t begin, size_t n)
{
    uint32_t len = character_length(text + begin, n - begin), next;
    for (size_t i = begin + len; i < n; i += next, len = next) {
        next = character_length(text + i, n - i);
        if (!*joint(t, text + i - len, len, text + i, next))
            return i;
    }
    return n;
}

static status encode_segment(const struct tokenizer *t, struct merge_work *w, const char *text, size_t n,
                             struct ids *out)
{
    w->n_symbols = 0;
    status s = merge_reserve(w, n);
    if (s != ST_OK)
        return s;
    for (size_t i = 0; i < n; i += w->symbols[w->n_symbols - 1].n)
        merge_append(w, (uint32_t)i, character_length(text + i, n - i), -1);
    merge_all(t, w, text, spm_pair);
    for (int32_t i = 0; i >= 0 && s == ST_OK; i = w->symbols[i].next)
        s = push_symbol(t, text, &w->symbols[i], out);
    return s;
}

status spm_encode(const struct tokenizer *t, struct merge_work *w, const char *text, size_t n, struct ids *out)
{
    char *escaped = malloc(3 * n + 3);
    status s = ST_OK;
    if (!escaped)
        return ST_NOMEM;
    n = escape_spaces(text, n, t->add_space_prefix, escaped);
    for (size_t begin = 0, end; begin < n && s == ST_OK; begin = end) {
        end = segment_end(t, escaped, begin, n);
        s = encode_segment(t, w, escaped + begin, end - begin, out);
    }
    free(escaped);
    return s;
}
