/* Cutting a text into words before byte-level BPE.
 *
 * A pre-tokenizer is a list of patterns (word_patterns.c): each cuts every segment that the one before left into its
 * matches and the gaps between them, and looks at nothing outside the segment. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/tokenizer_internal.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"

struct pretokenizer {
    pcre2_code *codes[MAX_WORD_PATTERNS];
    int n;
};

status pretokenizer_create(const char *name, size_t n, const char *where, struct pretokenizer **out,
                           const struct pretokenizer_kind **kind)
{
    const struct pretokenizer_kind *k = pretokenizer_kind(name, n);
    if (!k) {
        log_error("%s: tokenizer.ggml.pre: expected gpt-2, llama-bpe, qwen2, gpt-4o, tekken, deepseek-v3 or another of "
                  "those in docs/models.md, found '%.*s'",
                  where, (int)(n < 64 ? n : 64), name);
        return ST_UNSUPPORTED;
    }
    struct pretokenizer *p = calloc(1, sizeof *p);
    if (!p)
        return ST_NOMEM;
    for (; p->n < MAX_WORD_PATTERNS && k->patterns[p->n]; p->n++) {
        int error;
        PCRE2_SIZE at;
        PCRE2_SPTR pattern = (PCRE2_SPTR)k->patterns[p->n];
        pcre2_code *code = pcre2_compile(pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &error, &at, NULL);
        if (!code) {
            int number = p->n;
            pretokenizer_free(p);
            if (error == PCRE2_ERROR_HEAP_FAILED)
                return ST_NOMEM;
            log_error("pre-tokenizer %.*s: pattern %d: PCRE2 error %d at %zu", (int)n, name, number, error, (size_t)at);
            return ST_INTERNAL;
        }
        pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); /* without a JIT the interpreter does the same, slower */
        p->codes[p->n] = code;
    }
    *kind = k;
    *out = p;
    return ST_OK;
}

void pretokenizer_free(struct pretokenizer *p)
{
    if (!p)
        return;
    for (int i = 0; i < MAX_WORD_PATTERNS; i++)
        pcre2_code_free(p->codes[i]);
    free(p);
}

static char *put_utf8(char *at, uint32_t code)
{
    if (code < 0x80) {
        *at++ = (char)code;
        return at;
    }
    int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const uint8_t lead[] = {0, 0xc0, 0xe0, 0xf0};
    *at++ = (char)(lead[more] | code >> (6 * more));
    while (more--)
        *at++ = (char)(0x80 | (code >> (6 * more) & 0x3f));
    return at;
}

void repair_utf8(const char *text, size_t n, char *out, size_t *n_out, bool *surrogates)
{
    const uint8_t *in = (const uint8_t *)text, *end = in + n;
    char *at = out;
    *surrogates = false;
    while (in < end) {
        if (*in < 0x80) {
            *at++ = (char)*in++;
            continue;
        }
        int more = *in < 0xc0 ? 0 : *in < 0xe0 ? 1 : *in < 0xf0 ? 2 : *in < 0xf8 ? 3 : 0;
        uint32_t code = *in & (0x3fu >> more);
        bool whole = more && end - in > more;
        for (int i = 1; whole && i <= more; i++) {
            whole = (in[i] & 0xc0) == 0x80;
            code = code << 6 | (in[i] & 0x3f);
        }
        if (!whole || code > 0x10ffff) {
            at = put_utf8(at, 0xfffd);
            in++;
            continue;
        }
        *surrogates |= code >= 0xd800 && code < 0xe000;
        at = put_utf8(at, code);
        in += more + 1;
    }
    *n_out = (size_t)(at - out);
}

struct cut {
    const struct pretokenizer *p;
    const char *text;    /* what the words are taken from */
    const char *matched; /* what the patterns see, of the same length */
    pcre2_match_data *match[MAX_WORD_PATTERNS];
    pcre2_match_context *context;
    word_fn *word;
    void *arg;
};

/* The next match in the segment [begin, end) from `from` on; false if there is none. */
static status next_match(struct cut *c, int level, size_t begin, size_t end, size_t from, bool *found, size_t *m_begin,
                         size_t *m_end)
{
    const pcre2_code *code = c->p->codes[level];
    PCRE2_SPTR segment = (PCRE2_SPTR)c->matched + begin;
    int r = pcre2_match(code, segment, end - begin, from - begin, PCRE2_NO_UTF_CHECK, c->match[level], c->context);
    if (r == PCRE2_ERROR_JIT_STACKLIMIT)
        r = pcre2_match(code, segment, end - begin, from - begin, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, c->match[level],
                        c->context);
    *found = r >= 0;
    if (r == PCRE2_ERROR_NOMEMORY)
        return ST_NOMEM;
    if (r < 0 && r != PCRE2_ERROR_NOMATCH) {
        log_error("tokenizer: matching a pattern failed with PCRE2 error %d", r);
        return ST_INTERNAL;
    }
    if (r >= 0) {
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(c->match[level]);
        *m_begin = begin + span[0];
        *m_end = begin + span[1];
    }
    return ST_OK;
}

static status cut_segment(struct cut *c, int level, size_t begin, size_t end)
{
    if (level == c->p->n)
        return c->word(c->arg, c->text + begin, end - begin);
    for (size_t at = begin; at < end;) {
        bool found;
        size_t m_begin = end, m_end = end;
        status s = next_match(c, level, begin, end, at, &found, &m_begin, &m_end);
        if (s == ST_OK && m_begin > at)
            s = cut_segment(c, level + 1, at, m_begin);
        if (s == ST_OK && m_end > m_begin)
            s = cut_segment(c, level + 1, m_begin, m_end);
        if (s != ST_OK)
            return s;
        at = m_end;
    }
    return ST_OK;
}

/* PCRE2 takes no surrogates; to the patterns they are like U+FFFD, which is as long. */
static char *without_surrogates(const char *text, size_t n)
{
    char *copy = malloc(n);
    if (!copy)
        return NULL;
    memcpy(copy, text, n);
    for (size_t i = 0; i + 2 < n; i++)
        if ((uint8_t)copy[i] == 0xed && (uint8_t)copy[i + 1] >= 0xa0)
            memcpy(copy + i, "\xef\xbf\xbd", 3);
    return copy;
}

status pretokenize(const struct pretokenizer *p, const char *text, size_t n, bool surrogates, word_fn *word, void *arg)
{
    struct cut c = {.p = p, .text = text, .matched = text, .word = word, .arg = arg};
    status s = ST_NOMEM;
    char *copy = surrogates ? without_surrogates(text, n) : NULL;
    c.context = pcre2_match_context_create(NULL);
    if (!c.context || (surrogates && !copy))
        goto done;
    if (copy)
        c.matched = copy;
    /* The patterns need steps in proportion to the text; more would be a bug, which must not become a hang. */
    pcre2_set_match_limit(c.context, n < UINT32_MAX / 16 ? (uint32_t)n * 8 + 10000 : UINT32_MAX);
    for (int i = 0; i < p->n; i++) {
        c.match[i] = pcre2_match_data_create(1, NULL);
        if (!c.match[i])
            goto done;
    }
    s = cut_segment(&c, 0, 0, n);
done:
    for (int i = 0; i < p->n; i++)
        pcre2_match_data_free(c.match[i]);
    pcre2_match_context_free(c.context);
    free(copy);
    return s;
}
