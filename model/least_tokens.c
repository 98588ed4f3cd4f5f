/* How many tokens a text has at least: a token of n bytes is n bytes of a text at most, so each of them stands for
 * 1 / n of a token at least. What a byte stands for is that of the longest token that has it, or nothing where it may
 * become no token; but any text is too long if it has more bytes than so many of the longest tokens. */
#include "model/tokenizer_internal.h"

#include "base/utf8.h"

static void note(uint32_t longest[256], uint8_t byte, uint32_t n)
{
    if (n > longest[byte])
        longest[byte] = n;
}

/* As files with sentences have it: a space is U+2581, which may also be meant. */
static void note_text(uint32_t longest[256], const struct piece *p)
{
    for (uint32_t i = 0; i < p->n; i++)
        note(longest, (uint8_t)p->at[i], p->n);
    note(longest, ' ', p->n);
}

static void note_bytes(uint32_t longest[256], const struct piece *p)
{
    uint32_t n = 0, len;
    for (uint32_t i = 0; i < p->n; i += len)
        n += spelt_byte(p->at + i, p->n - i, &len) < 0 ? len : 1;
    for (uint32_t i = 0; i < p->n; i += len) {
        const int byte = spelt_byte(p->at + i, p->n - i, &len);
        for (uint32_t k = 0; k < (byte < 0 ? len : 1); k++)
            note(longest, byte < 0 ? (uint8_t)p->at[i + k] : (uint8_t)byte, n);
    }
}

/* Those of a text that only merges mention, of which the bytes are written that stand for themselves. */
static void note_lost_bytes(bool lost[256], const struct tokenizer *t, const struct piece *p)
{
    for (uint32_t i = 0, len; i < p->n; i += len) {
        const int byte = spelt_byte(p->at + i, p->n - i, &len);
        if (byte >= 0 && (len == 2 || find_token(t, p->at + i, 1) < 0))
            lost[byte] = true;
    }
}

/* Bytes that may become no token at all: white space behind some special tokens; what has no token by itself; and what
 * ends in a text that is none. */
static void note_lost(bool lost[256], const struct tokenizer *t)
{
    for (int32_t i = 0; i < t->n_specials; i++)
        if (t->pieces[t->specials[i]].flags & PIECE_RSTRIP)
            for (const char *space = " \t\n\v\f\r"; *space; space++)
                lost[(uint8_t)*space] = true;
    if (t->sentencepiece || t->characters) {
        for (int byte = 0; byte < 256; byte++)
            lost[byte] |= t->of_byte[byte] < 0 && (t->characters || t->unk < 0);
        return;
    }
    for (int32_t i = t->n_vocab; i < t->n_pieces; i++)
        note_lost_bytes(lost, t, &t->pieces[i]);
}

void shares_find(struct tokenizer *t)
{
    uint32_t longest[256] = {0};
    bool lost[256] = {false};
    for (int32_t i = 0; i < t->n_vocab; i++) {
        const struct piece *p = &t->pieces[i];
        if (t->sentencepiece || t->characters || p->flags & PIECE_SPECIAL)
            note_text(longest, p);
        if (!t->sentencepiece && !t->characters)
            note_bytes(longest, p);
    }
    note_lost(lost, t);
    for (int byte = 0; byte < 256; byte++)
        t->shares[byte] = longest[byte] && !lost[byte] ? (UINT64_C(1) << 32) / longest[byte] : 0;
}

bool has_more_tokens(const struct tokenizer *t, const char *text, size_t n, size_t most)
{
    uint64_t sum = 0; /* n is at most 2^30 */
    size_t length;
    if (t->max_piece > 0 && n / t->max_piece > most)
        return true;
    for (size_t i = 0; i < n && sum >> 32 <= most; i += length) {
        length = 1;
        if ((uint8_t)text[i] < 0x80)
            sum += t->shares[(uint8_t)text[i]];
        else if (utf8_next(text + i, n - i, &length) == UTF8_CHARACTER) /* else it becomes something else */
            for (size_t k = 0; k < length; k++)
                sum += t->shares[(uint8_t)text[i + k]];
    }
    return sum >> 32 > most;
}
