/* The tokenizer as others see it; the work is in vocabulary.c, special.c, word_patterns.c, pretokenize.c, bpe.c,
 * spm.c and least_tokens.c. */
#include "model/tokenizer_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"

/* 3 bytes for each byte of a text (repaired, or with its spaces escaped) must fit 32 bits. */
enum { MAX_TEXT_BYTES = 1 << 30 };

static bool equals(struct gguf_string s, const char *word)
{
    return s.n == strlen(word) && !memcmp(s.at, word, s.n);
}

/* The tokens of single bytes, where those have names: "<0x0A>". */
static void find_bytes(struct tokenizer *t)
{
    for (int byte = 0; byte < 256; byte++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", byte);
        t->of_byte[byte] = find_token(t, name, 6);
        if (t->of_byte[byte] < 0 && t->sentencepiece)
            t->of_byte[byte] = find_token(t, (const char[]){(char)byte}, 1);
    }
}

static status read_bpe(struct tokenizer *t, const struct gguf *g, bool gemma4)
{
    struct gguf_string pre = {"default", 7}, arch;
    const struct pretokenizer_kind *kind;
    /* Files of OPT come from a converter that names no pre-tokenizer; the model's is GPT-2's. */
    if (gguf_get_string(g, "general.architecture", &arch) && equals(arch, "opt"))
        pre = (struct gguf_string){"gpt-2", 5};
    gguf_get_string(g, "tokenizer.ggml.pre", &pre);
    if (gemma4) /* a kind of tokenizer by itself, without a name for this */
        pre = (struct gguf_string){"gemma4", 6};
    status s = pretokenizer_create(pre.at, pre.n, gguf_path(g), &t->pre, &kind);
    if (s != ST_OK)
        return s;
    t->ignore_merges = kind->ignore_merges;
    t->add_bos = kind->add_bos;
    t->characters = kind->characters;
    t->eos = t->characters ? -1 : 11;
    t->bos = kind->no_bos ? -1 : t->eos;
    t->unk = -1;
    s = vocabulary_read(t, g);
    if (s == ST_OK && t->characters)
        find_bytes(t);
    return s == ST_OK ? merges_read(t, g) : s;
}

static status read_sentencepiece(struct tokenizer *t, const struct gguf *g)
{
    t->add_bos = t->add_space_prefix = true;
    gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", &t->add_space_prefix);
    t->unk = 0;
    t->bos = 1;
    t->eos = 2;
    status s = vocabulary_read(t, g);
    if (s == ST_OK)
        find_bytes(t);
    return s == ST_OK ? spm_joins_find(t) : s;
}

status tokenizer_create(const struct gguf *g, struct tokenizer **out)
{
    struct gguf_string model;
    if (!gguf_get_string(g, "tokenizer.ggml.model", &model)) {
        log_error("%s: the file has no tokenizer (tokenizer.ggml.model)", gguf_path(g));
        return ST_FORMAT;
    }
    const bool gemma4 = equals(model, "gemma4");
    if (!equals(model, "gpt2") && !equals(model, "llama") && !gemma4) {
        log_error("%s: tokenizer.ggml.model: expected gpt2, llama or gemma4, found '%.*s'", gguf_path(g),
                  (int)(model.n < 64 ? model.n : 64), model.at);
        return ST_UNSUPPORTED;
    }
    struct tokenizer *t = calloc(1, sizeof *t);
    status s = ST_NOMEM;
    if (!t)
        goto failed;
    t->sentencepiece = equals(model, "llama");
    s = t->sentencepiece ? read_sentencepiece(t, g) : read_bpe(t, g, gemma4);
    if (s == ST_OK)
        s = specials_read(t, g);
    if (s != ST_OK)
        goto failed;
    shares_find(t);
    *out = t;
    return ST_OK;
failed:
    if (s == ST_NOMEM)
        log_error("%s: no memory for the tokenizer", gguf_path(g));
    tokenizer_free(t);
    return s;
}

void tokenizer_free(struct tokenizer *t)
{
    if (!t)
        return;
    pretokenizer_free(t->pre);
    free(t->pieces);
    free(t->scores);
    free(t->texts.slots);
    free(t->pairs.slots);
    free(t->ghost_text);
    free(t->specials);
    free(t->specials_by_text);
    free(t->joined);
    free(t);
}

int32_t tokenizer_n_vocab(const struct tokenizer *t)
{
    return t->n_vocab;
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

bool tokenizer_is_end(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_vocab && t->pieces[id].flags & PIECE_END;
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
    return t->add_bos;
}

int32_t tokenizer_find(const struct tokenizer *t, const char *text)
{
    return find_token(t, text, strlen(text));
}

static status encode_fragments(const struct tokenizer *t, const char *text, const struct fragments *f, struct ids *out)
{
    struct merge_work work = {0};
    status s = ST_OK;
    for (size_t i = 0; i < f->n && s == ST_OK; i++) {
        const char *at = text + f->at[i].begin;
        size_t n = f->at[i].end - f->at[i].begin;
        if (f->at[i].token >= 0)
            s = ids_push(out, f->at[i].token);
        else if (t->sentencepiece)
            s = spm_encode(t, &work, at, n, out);
        else
            s = bpe_encode(t, &work, at, n, out);
    }
    merge_free(&work);
    return s;
}

/* When BOS and EOS are put around a text. */
enum around {
    AROUND_NEVER,
    AROUND_ALWAYS, /* as the file says, also if the text has them: that may be meant */
    AROUND_CHAT,   /* BOS as the file says, but once */
};

static void warn_of_two(const struct tokenizer *t, const char *name, int32_t id, const char *where)
{
    log_warn("the text %s with '%.*s', and the model's %s is added: now there are two; leave it out", where,
             (int)t->pieces[id].n, t->pieces[id].at, name);
}

/* What to put around the fragments. */
static void choose_around(const struct tokenizer *t, const struct fragments *f, enum around around, bool *bos,
                          bool *eos)
{
    bool begins = f->n && f->at[0].token >= 0 && f->at[0].token == t->bos;
    bool ends = f->n && f->at[f->n - 1].token >= 0 && f->at[f->n - 1].token == t->eos;
    *bos = t->add_bos && (around == AROUND_ALWAYS || (around == AROUND_CHAT && !begins));
    *eos = t->add_eos && around == AROUND_ALWAYS;
    if (*bos && begins)
        warn_of_two(t, "BOS", t->bos, "begins");
    if (*eos && ends)
        warn_of_two(t, "EOS", t->eos, "ends");
}

static status encode(const struct tokenizer *t, const char *text, size_t n, const struct quotes *q, enum around around,
                     size_t most, int32_t **ids, size_t *n_ids)
{
    struct ids v = {.most = most};
    struct fragments f = {0};
    bool bos = false, eos = false;
    if (n > MAX_TEXT_BYTES) {
        log_error("tokenizer: expected a text of at most %d bytes, found %zu", MAX_TEXT_BYTES, n);
        return ST_USAGE;
    }
    if (most < n && has_more_tokens(t, text, n, most))
        return ST_FULL;
    status s = partition(t, text, n, q, &f);
    if (s == ST_OK)
        s = reserve((void **)&v.at, &v.cap, n / 3 < most ? n / 3 + 16 : most, sizeof *v.at);
    if (s == ST_OK)
        choose_around(t, &f, around, &bos, &eos);
    if (s == ST_OK && bos)
        s = ids_push(&v, t->bos);
    if (s == ST_OK)
        s = encode_fragments(t, text, &f, &v);
    if (s == ST_OK && eos)
        s = ids_push(&v, t->eos);
    free(f.at);
    if (s != ST_OK) {
        free(v.at);
        if (s == ST_NOMEM)
            log_error("tokenizer: no memory to encode a text of %zu bytes", n);
        return s;
    }
    *ids = v.at;
    *n_ids = v.n;
    return ST_OK;
}

status tokenizer_encode_within(const struct tokenizer *t, const char *text, size_t n, bool add_special,
                               bool parse_special, size_t most, int32_t **ids, size_t *n_ids)
{
    const struct text_span all = {0, n};
    const struct quotes q = {&all, parse_special ? 0 : 1, PIECE_MEANT};
    return encode(t, text, n, &q, add_special ? AROUND_ALWAYS : AROUND_NEVER, most, ids, n_ids);
}

status tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, bool add_special, bool parse_special,
                        int32_t **ids, size_t *n_ids)
{
    return tokenizer_encode_within(t, text, n, add_special, parse_special, SIZE_MAX, ids, n_ids);
}

status tokenizer_encode_chat_within(const struct tokenizer *t, const char *text, size_t n,
                                    const struct text_span *contents, size_t n_contents, size_t most, int32_t **ids,
                                    size_t *n_ids)
{
    const struct quotes q = {contents, n_contents, PIECE_UNQUOTABLE};
    return encode(t, text, n, &q, AROUND_CHAT, most, ids, n_ids);
}

status tokenizer_encode_chat(const struct tokenizer *t, const char *text, size_t n, const struct text_span *contents,
                             size_t n_contents, int32_t **ids, size_t *n_ids)
{
    return tokenizer_encode_chat_within(t, text, n, contents, n_contents, SIZE_MAX, ids, n_ids);
}

/* Writes what fits, counts all. */
struct sink {
    char *out;
    size_t cap, n;
};

static void sink_put(struct sink *k, const char *at, size_t n)
{
    if (n && k->n + n <= k->cap)
        memcpy(k->out + k->n, at, n);
    k->n += n;
}

/* A token of a byte-level vocabulary: each character is a byte; a character that is none stays as it is. */
static void put_bpe(struct sink *k, const struct piece *p)
{
    for (uint32_t i = 0, len; i < p->n; i += len) {
        int byte = spelt_byte(p->at + i, p->n - i, &len);
        char one = (char)byte;
        sink_put(k, byte < 0 ? p->at + i : &one, byte < 0 ? len : 1);
    }
}

static void put_spm(struct sink *k, const struct piece *p)
{
    for (uint32_t i = 0; i < p->n;) {
        bool space = p->n - i >= 3 && !memcmp(p->at + i, "\xe2\x96\x81", 3);
        sink_put(k, space ? " " : p->at + i, 1);
        i += space ? 3 : 1;
    }
}

/* "<0x0A>" */
static void put_byte(struct sink *k, const struct piece *p)
{
    char hex[3] = "";
    if (p->n == 6)
        memcpy(hex, p->at + 3, 2);
    char byte = (char)strtol(hex, NULL, 16);
    sink_put(k, &byte, 1);
}

static void put_piece(const struct tokenizer *t, struct sink *k, const struct piece *p)
{
    if (p->flags & PIECE_SPECIAL)
        sink_put(k, p->at, p->n);
    else if (p->flags & PIECE_NORMAL && (t->sentencepiece || t->characters))
        put_spm(k, p);
    else if (p->flags & PIECE_NORMAL)
        put_bpe(k, p);
    else if (p->flags & PIECE_BYTE)
        put_byte(k, p);
}

size_t tokenizer_piece(const struct tokenizer *t, int32_t id, bool special, char *out, size_t cap)
{
    if (id < 0 || id >= t->n_vocab)
        return 0;
    const struct piece *p = &t->pieces[id];
    if (!special && p->flags & (PIECE_CONTROL | PIECE_UNKNOWN))
        return 0;
    struct sink needed = {NULL, 0, 0}, k = {out, cap, 0};
    put_piece(t, &needed, p);
    if (needed.n <= cap)
        put_piece(t, &k, p);
    return needed.n;
}
