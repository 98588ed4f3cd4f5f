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

status spm_encode(const struct tokenizer *t, struct merge_work *w, const char *text, size_t n, struct ids *out)
{
    char *escaped = malloc(3 * n + 3);
    if (!escaped)
        return ST_NOMEM;
    n = escape_spaces(text, n, t->add_space_prefix, escaped);
    w->n_symbols = 0;
    status s = merge_reserve(w, n);
    if (s != ST_OK)
        goto done;
    for (size_t i = 0; i < n;) {
        uint32_t len = announced_length((uint8_t)escaped[i]);
        if (len > n - i)
            len = (uint32_t)(n - i);
        merge_append(w, (uint32_t)i, len, -1);
        i += len;
    }
    merge_all(t, w, escaped, spm_pair);
    for (int32_t i = w->n_symbols ? 0 : -1; i >= 0 && s == ST_OK; i = w->symbols[i].next)
        s = push_symbol(t, escaped, &w->symbols[i], out);
done:
    free(escaped);
    return s;
}
