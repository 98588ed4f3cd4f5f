/* Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019): every byte is written as a printable character
 * (byte_characters.c), and the merges of the file join neighbours within a word. */
#include "model/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

struct bpe_run {
    const struct tokenizer *t;
    struct merge_work *work;
    struct ids *out;
    char *spelt; /* a word in the vocabulary's characters */
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

/* The token of a whole word, or -1. */
static status whole_word(struct bpe_run *r, const char *word, size_t n, int32_t *token)
{
    const struct tokenizer *t = r->t;
    *token = -1;
    if (n > t->max_piece)
        return ST_OK;
    status s = reserve((void **)&r->spelt, &r->cap_spelt, 2 * n, 1);
    if (s != ST_OK)
        return s;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const struct piece *c = &t->pieces[t->of_byte[(uint8_t)word[i]]];
        memcpy(r->spelt + at, c->at, c->n);
        at += c->n;
    }
    *token = find_token(t, r->spelt, at);
    if (*token >= 0 && t->pieces[*token].flags & PIECE_UNQUOTABLE)
        *token = -1;
    return ST_OK;
}

/* A ghost has no id: the bytes of its text that are tokens by themselves stand in for it. */
static status push_piece(struct bpe_run *r, int32_t piece)
{
    const struct tokenizer *t = r->t;
    if (piece < t->n_vocab)
        return ids_push(r->out, piece);
    const struct piece *ghost = &t->pieces[piece];
    for (uint32_t i = 0; i < ghost->n; i++) {
        int32_t id = find_token(t, ghost->at + i, 1);
        status s = id < 0 ? ST_OK : ids_push(r->out, id);
        if (s != ST_OK)
            return s;
    }
    return ST_OK;
}

static status encode_word(void *arg, const char *word, size_t n)
{
    struct bpe_run *r = arg;
    int32_t token = -1;
    status s = r->t->ignore_merges ? whole_word(r, word, n, &token) : ST_OK;
    if (s != ST_OK)
        return s;
    if (token >= 0)
        return ids_push(r->out, token);
    s = merge_reserve(r->work, n);
    if (s != ST_OK)
        return s;
    r->work->n_symbols = 0;
    for (size_t i = 0; i < n; i++)
        merge_append(r->work, (uint32_t)i, 1, r->t->of_byte[(uint8_t)word[i]]);
    merge_all(r->t, r->work, word, bpe_pair);
    for (int32_t i = 0; i >= 0 && s == ST_OK; i = r->work->symbols[i].next)
        s = push_piece(r, r->work->symbols[i].piece);
    return s;
}

status bpe_encode(const struct tokenizer *t, struct merge_work *w, const char *text, size_t n, struct ids *out)
{
    struct bpe_run r = {.t = t, .work = w, .out = out};
    char *fixed = malloc(3 * n);
    if (!fixed)
        return ST_NOMEM;
    bool surrogates;
    repair_utf8(text, n, fixed, &n, &surrogates);
    status s = pretokenize(t->pre, fixed, n, surrogates, encode_word, &r);
    free(r.spelt);
    free(fixed);
    return s;
}
