/* BPE by merges (Sennrich et al. 2016): the merges of the file join neighbours within a word. Mostly over bytes, each
 * written as a printable character (Radford et al. 2019; byte_characters.c), in some vocabularies over characters. */
#include "model/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

struct bpe_run {
    const struct tokenizer *t;
    struct merge_work *work;
    struct ids *out;
    char *spelt; /* over bytes: a word in the vocabulary's characters */
    size_t cap_spelt;
};

static bool bpe_pair(const struct tokenizer *t, const char *text, const struct symbol *left, const struct symbol *right,
                     uint32_t *order, int32_t *merged)
{
    (void)text;
    const struct pair_slot *p = find_pair(t, left->piece, right->piece);
    if (!p || t->pieces[p->merged].flags & PIECE_UNQUOTABLE)
        return false;
    *order = p->rank;
    *merged = p->merged;
    return true;
}

/* The word as the vocabulary writes it, to r->spelt. */
static status spell(struct bpe_run *r, const char *word, size_t n, size_t *n_spelt)
{
    const struct tokenizer *t = r->t;
    status s = reserve((void **)&r->spelt, &r->cap_spelt, 2 * n, 1);
    if (s != ST_OK)
        return s;
    char *at = r->spelt;
    for (size_t i = 0; i < n; i++) {
        const struct piece *c = &t->pieces[t->of_byte[(uint8_t)word[i]]];
        at = mempcpy(at, c->at, c->n);
    }
    *n_spelt = (size_t)(at - r->spelt);
    return ST_OK;
}

/* The token of a word that no merging may cut, or -1. */
static status whole_word(struct bpe_run *r, const char *word, size_t n, int32_t *token)
{
    const struct tokenizer *t = r->t;
    bool newlines = t->characters && word[0] == '\n';
    status s = ST_OK;
    *token = -1;
    if ((!t->ignore_merges && !newlines) || n > t->max_piece)
        return ST_OK;
    if (!t->characters) {
        s = spell(r, word, n, &n);
        word = r->spelt;
    }
    if (s == ST_OK)
        *token = find_token(t, word, n);
    if (*token >= 0 && t->pieces[*token].flags & PIECE_UNQUOTABLE)
        *token = -1;
    return s;
}

/* A symbol that is no token: the bytes of its text that are tokens by themselves stand in for it. */
static status push_bytes(struct bpe_run *r, const char *text, uint32_t n)
{
    const struct tokenizer *t = r->t;
    status s = ST_OK;
    for (uint32_t i = 0; i < n && s == ST_OK; i++) {
        int32_t id = t->characters ? t->of_byte[(uint8_t)text[i]] : find_token(t, text + i, 1);
        s = id < 0 ? ST_OK : ids_push(r->out, id);
    }
    return s;
}

static status push_symbol(struct bpe_run *r, const char *word, const struct symbol *symbol)
{
    const struct tokenizer *t = r->t;
    if (symbol->piece >= 0 && symbol->piece < t->n_vocab)
        return ids_push(r->out, symbol->piece);
    if (t->characters)
        return push_bytes(r, word + symbol->begin, symbol->n);
    return push_bytes(r, t->pieces[symbol->piece].at, t->pieces[symbol->piece].n);
}

/* What merging begins with: bytes, or characters. */
static void append_symbols(struct bpe_run *r, const char *word, size_t n)
{
    const struct tokenizer *t = r->t;
    r->work->n_symbols = 0;
    for (uint32_t i = 0, len = 1; i < n; i += len) {
        if (t->characters)
            len = announced_length((uint8_t)word[i]);
        merge_append(r->work, i, len, t->characters ? find_text(t, word + i, len) : t->of_byte[(uint8_t)word[i]]);
    }
}

static status encode_word(void *arg, const char *word, size_t n)
{
    struct bpe_run *r = arg;
    int32_t token = -1;
    status s = whole_word(r, word, n, &token);
    if (s != ST_OK)
        return s;
    if (token >= 0)
        return ids_push(r->out, token);
    s = merge_reserve(r->work, n);
    if (s != ST_OK)
        return s;
    append_symbols(r, word, n);
    merge_all(r->t, r->work, word, bpe_pair);
    for (int32_t i = 0; i >= 0 && s == ST_OK; i = r->work->symbols[i].next)
        s = push_symbol(r, word, &r->work->symbols[i]);
    return s;
}

status bpe_encode(const struct tokenizer *t, struct merge_work *w, const char *text, size_t n, struct ids *out)
{
    struct bpe_run r = {.t = t, .work = w, .out = out};
    const size_t room = 3 * n; /* a byte becomes three at most: a space or a broken one, never both */
    char *fixed = malloc(room), *escaped = t->characters ? malloc(room) : NULL;
    bool surrogates;
    status s = ST_NOMEM;
    if (!fixed || (t->characters && !escaped))
        goto done;
    if (escaped) {
        n = escape_spaces(text, n, false, escaped);
        text = escaped;
    }
    repair_utf8(text, n, fixed, &n, &surrogates);
    s = pretokenize(t->pre, fixed, n, surrogates, encode_word, &r);
done:
    free(r.spelt);
    free(escaped);
    free(fixed);
    return s;
}
