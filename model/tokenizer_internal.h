/* What the parts of the tokenizer share. Private to model/tokenizer.c, vocabulary.c, special.c, word_patterns.c,
 * pretokenize.c, merge.c, bpe.c, spm.c and least_tokens.c. */
#ifndef HEARTH_MODEL_TOKENIZER_INTERNAL_H
#define HEARTH_MODEL_TOKENIZER_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "model/tokenizer.h"

/* What kind of token a piece is; more than one may hold. */
enum {
    PIECE_UNKNOWN = 1,
    PIECE_UNUSED = 2,
    PIECE_NORMAL = 4,
    PIECE_CONTROL = 8,
    PIECE_USER_DEFINED = 16,
    PIECE_BYTE = 32,
    PIECE_RSTRIP = 64, /* swallows the white space after it */
    PIECE_END = 128,   /* ends an answer */
    PIECE_TURN = 256,  /* user-defined, but divides the turns of a chat */
    PIECE_SPECIAL = PIECE_UNKNOWN | PIECE_CONTROL | PIECE_USER_DEFINED, /* cut out of the text before anything else */
    PIECE_MEANT = PIECE_UNKNOWN | PIECE_CONTROL,  /* never made of a text that is taken as it is */
    PIECE_UNQUOTABLE = PIECE_MEANT | PIECE_TURN,  /* nor these of what somebody said in a chat, nor by merging */
};

/* A text with a number: tokens [0, n_vocab) as the file numbers them; from n_vocab on the texts that only merges
 * mention ("ghosts"), which occur while merging but are no tokens. */
struct piece {
    const char *at; /* into the file, or into ghost_text; not NUL-terminated */
    uint32_t n;
    uint32_t flags;
};

/* Open addressing, linear probing, at most half full. */
struct text_table {
    struct text_slot {
        uint32_t hash;
        int32_t piece; /* -1: empty */
    } *slots;
    size_t n_slots; /* a power of two */
    size_t used;
};

struct pair_table {
    struct pair_slot {
        int32_t left, right; /* pieces */
        uint32_t rank;
        int32_t merged; /* piece; -1: empty slot */
    } *slots;
    size_t n_slots;
};

struct pretokenizer; /* compiled patterns, pretokenize.c */

struct tokenizer {
    bool sentencepiece; /* else BPE by merges */
    bool characters;    /* BPE over characters as they are, spaces as U+2581 (Gemma 4); else over bytes */
    bool add_bos, add_eos;
    bool add_space_prefix; /* SentencePiece: a text begins with a space */
    bool ignore_merges;    /* BPE: a word that is a token as a whole stays whole */
    int32_t bos, eos, unk; /* -1: none */
    int32_t n_vocab, n_pieces, cap_pieces;
    struct piece *pieces; /* [cap_pieces] */
    float *scores;        /* [n_vocab]; SentencePiece only */
    struct text_table texts;
    struct pair_table pairs; /* BPE merges */
    char *ghost_text;
    uint32_t max_piece; /* bytes of the longest token */
    /* BPE over bytes: the piece of the character that stands for a byte; else the token of the byte, -1 if none. */
    int32_t of_byte[256];
    uint64_t shares[256]; /* what a byte is of a token at least, times 2^32 */
    /* SentencePiece: whether a token has two characters side by side, by the last byte of the one and the first of the
     * other (spm.c). */
    bool (*joined)[256]; /* [256] */
    struct pretokenizer *pre;
    int32_t *specials; /* [n_specials] by length, longest first */
    int32_t *specials_by_text; /* [n_specials] indices into specials, sorted by text */
    int32_t n_specials;
    bool special_begins[256]; /* whether any special begins with this byte */
};

struct ids {
    int32_t *at;
    size_t n, cap, most;
};

/* Appends; ST_NOMEM, ST_FULL: there are `most` already. */
status ids_push(struct ids *v, int32_t id);
/* Makes *buffer hold n elements of `size` bytes, growing geometrically; contents are kept. ST_NOMEM. */
status reserve(void **buffer, size_t *cap, size_t n, size_t size);

/* --- vocabulary.c --- */
/* Reads tokens, types and scores into t->pieces and t->texts. */
status vocabulary_read(struct tokenizer *t, const struct gguf *g);
/* Reads the merges into t->pairs, after vocabulary_read. */
status merges_read(struct tokenizer *t, const struct gguf *g);
/* The piece of this text, or -1. */
int32_t find_text(const struct tokenizer *t, const char *at, size_t n);
/* The token of this text, or -1: ghosts are not tokens. */
int32_t find_token(const struct tokenizer *t, const char *at, size_t n);
/* The merge of two pieces, or NULL. */
const struct pair_slot *find_pair(const struct tokenizer *t, int32_t left, int32_t right);

/* --- special.c --- */
/* BOS, EOS, the end-of-answer set, and which tokens are cut out of texts. */
status specials_read(struct tokenizer *t, const struct gguf *g);

struct fragment {
    size_t begin, end; /* of the text */
    int32_t token;     /* -1: plain text */
};
struct fragments {
    struct fragment *at;
    size_t n, cap;
};
/* Spans [n] of a text (in order, none overlapping), and the kinds of tokens that are not cut out of them. */
struct quotes {
    const struct text_span *at;
    size_t n;
    uint32_t barred;
};
/* Cuts the special tokens out of a text, but for barred ones that touch one of the spans. */
status partition(const struct tokenizer *t, const char *text, size_t n, const struct quotes *q, struct fragments *out);

/* --- word_patterns.c --- */
enum { MAX_WORD_PATTERNS = 6 };
/* What a name in tokenizer.ggml.pre stands for. */
struct pretokenizer_kind {
    const char *names; /* each between blanks */
    const char *patterns[MAX_WORD_PATTERNS]; /* in PCRE2's syntax, UTF mode */
    bool ignore_merges, add_bos; /* as in struct tokenizer; the file has the last word on BOS */
    bool no_bos;                 /* without tokenizer.ggml.bos_token_id there is none */
    bool characters;             /* as in struct tokenizer */
};
/* NULL: no such name. */
const struct pretokenizer_kind *pretokenizer_kind(const char *name, size_t n);

/* --- pretokenize.c --- */
/* By the name in tokenizer.ggml.pre; *kind says what else the name implies. ST_UNSUPPORTED is logged. */
status pretokenizer_create(const char *name, size_t n, const char *where, struct pretokenizer **out,
                           const struct pretokenizer_kind **kind);
void pretokenizer_free(struct pretokenizer *p);

/* UTF-8 as the patterns need it: broken bytes become U+FFFD, overlong forms short ones. *n_out <= 3 n. Whether the
 * result holds surrogates (which are kept) is *surrogates. */
void repair_utf8(const char *text, size_t n, char *out, size_t *n_out, bool *surrogates);

typedef status word_fn(void *arg, const char *word, size_t n);
/* Calls word(arg, ...) for each word of a text in order; the words together are the text, which must be repaired. */
status pretokenize(const struct pretokenizer *p, const char *text, size_t n, bool surrogates, word_fn *word, void *arg);

/* --- merge.c --- */
struct symbol {
    int32_t prev, next; /* -1: none */
    uint32_t begin, n;  /* bytes of the text; n = 0: merged into another */
    int32_t piece;      /* -1: none (SentencePiece) */
};
struct merge_work {
    struct symbol *symbols;
    size_t n_symbols, cap_symbols;
    struct candidate *heap;
    size_t n_heap, cap_heap;
};
/* Whether two neighbours merge, to what, and how soon (smaller first). */
typedef bool pair_fn(const struct tokenizer *t, const char *text, const struct symbol *left, const struct symbol *right,
                     uint32_t *order, int32_t *merged);
/* Makes room for n symbols. */
status merge_reserve(struct merge_work *w, size_t n);
/* Appends a symbol behind the last one; merge_reserve came before. */
void merge_append(struct merge_work *w, uint32_t begin, uint32_t n, int32_t piece);
/* Merges neighbours, the smallest order first and the leftmost among equals, until none merge. O(n log n). */
void merge_all(const struct tokenizer *t, struct merge_work *w, const char *text, pair_fn *pair);
void merge_free(struct merge_work *w);

/* --- bpe.c, spm.c --- */
/* Notes which characters are side by side in tokens. ST_NOMEM. */
status spm_joins_find(struct tokenizer *t);
/* Append the tokens of a plain text, which is the first or follows a special token. */
status bpe_encode(const struct tokenizer *t, struct merge_work *w, const char *text, size_t n, struct ids *out);
status spm_encode(const struct tokenizer *t, struct merge_work *w, const char *text, size_t n, struct ids *out);
/* The length that a UTF-8 lead byte announces. */
uint32_t announced_length(uint8_t lead);
/* Spaces become U+2581, with one in front if `prefix`. Returns the bytes written. */
size_t escape_spaces(const char *text, size_t n, bool prefix, char *out);
/* byte_characters.c: the character that stands for a byte in a byte-level vocabulary, as UTF-8 in out; returns its
 * bytes, 1 or 2. */
int byte_character(uint8_t byte, char out[2]);
/* Its reverse: the byte that a code point stands for, or -1. */
int character_byte(uint32_t code);
/* The byte that the character at the beginning of n >= 1 bytes stands for, or -1; *len bytes, 1 or 2. */
int spelt_byte(const char *at, uint32_t n, uint32_t *len);

/* --- least_tokens.c --- */
/* Finds t->shares, when all else has been read. */
void shares_find(struct tokenizer *t);
/* Whether a text has more tokens, or is longer than so many ever are. Reads no more of it than it takes to know. */
bool has_more_tokens(const struct tokenizer *t, const char *text, size_t n, size_t most);

#endif
