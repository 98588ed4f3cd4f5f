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

/* Bytes that may become no token at all: white space behind some special tokens; what has no token by itself; and what
 * ends in a text that only merges mention, of which the bytes are written that stand for themselves. */
static bool may_be_lost(const struct tokenizer *t, int byte)
{
    uint32_t len;
    bool lost = false;
    for (int32_t i = 0; i < t->n_specials && (byte == ' ' || (byte >= '\t' && byte <= '\r')); i++)
        lost |= (t->pieces[t->specials[i]].flags & PIECE_RSTRIP) != 0;
    if (t->sentencepiece || t->characters)
        return lost || (t->of_byte[byte] < 0 && (t->characters || t->unk < 0));
    for (int32_t i = t->n_vocab; i < t->n_pieces && !lost; i++)
        for (uint32_t k = 0; k < t->pieces[i].n; k += len)
            lost |= spelt_byte(t->pieces[i].at + k, t->pieces[i].n - k, &len) == byte &&
                    (len == 2 || find_token(t, t->pieces[i].at + k, 1) < 0);
    return lost;
}

void shares_find(struct tokenizer *t)
{
    uint32_t longest[256] = {0};
    for (int32_t i = 0; i < t->n_vocab; i++) {
        const struct piece *p = &t->pieces[i];
        if (t->sentencepiece || t->characters || p->flags & PIECE_SPECIAL)
            note_text(longest, p);
        if (!t->sentencepiece && !t->characters)
            note_bytes(longest, p);
    }
    for (int byte = 0; byte < 256; byte++) {
        const bool counts = longest[byte] && !may_be_lost(t, byte);
        t->shares[byte] = counts ? (UINT64_C(1) << 32) / longest[byte] : 0;
    }
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
