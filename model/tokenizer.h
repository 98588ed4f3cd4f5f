/* Text to tokens and back, from the vocabulary in the model file. Immutable after creation, so thread-safe; a decoder's
 * state is the caller's.
 *
 * Byte-level BPE (tokenizer.ggml.model "gpt2": Sennrich et al. 2016, with the pre-tokenizers gpt-2, llama-bpe, smollm,
 * qwen2, falcon as PCRE2 patterns) and SentencePiece BPE with byte fallback (model "llama": Kudo and Richardson 2018).
 * A file that names no pre-tokenizer gets `default`, one of OPT gpt-2. Token ids equal llama.cpp's (but see
 * pretokenize.c on characters newer than PCRE2's tables). Input text may hold any bytes, NUL and broken UTF-8
 * included. */
#ifndef HEARTH_MODEL_TOKENIZER_H
#define HEARTH_MODEL_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "model/gguf.h"

struct tokenizer;

/* Reads the vocabulary. `g` must outlive the tokenizer. ST_UNSUPPORTED names an unknown tokenizer or pre-tokenizer,
 * ST_FORMAT a broken vocabulary; ST_NOMEM; ST_INTERNAL if PCRE2 fails. All are logged. */
status tokenizer_create(const struct gguf *g, struct tokenizer **out);
void tokenizer_free(struct tokenizer *t); /* NULL is fine */

int32_t tokenizer_n_vocab(const struct tokenizer *t);
int32_t tokenizer_bos(const struct tokenizer *t); /* -1 if there is none */
int32_t tokenizer_eos(const struct tokenizer *t);
/* Whether the token ends an answer: eos, eot, eom and the chat families' end-of-turn tokens, as llama.cpp has them. */
bool tokenizer_is_end(const struct tokenizer *t, int32_t id);
/* Whether the file asks for BOS (EOS) around a text. */
bool tokenizer_adds_bos(const struct tokenizer *t);
/* The id of the token whose text is exactly `text`, or -1. */
int32_t tokenizer_find(const struct tokenizer *t, const char *text);

/* Encodes text [n bytes]. add_special: the file's BOS/EOS rules apply; a text that brings its own besides keeps both,
 * and a line warns. parse_special: control tokens written in the text ("<|im_start|>") become their ids; otherwise they
 * are plain text. Tokens that the file calls user-defined are cut out always. *ids is malloc'ed (caller frees), *n_ids
 * its count. O(n log n). ST_NOMEM, ST_USAGE (more than 1 GiB of text); logged. */
status tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, bool add_special, bool parse_special,
                        int32_t **ids, size_t *n_ids);

/* The same for a text of at most `most` tokens, BOS and EOS among them. One that has more is ST_FULL, which is not
 * logged: it is left as soon as that is plain, for one that is far longer without reading it to its end. So is a text
 * of more bytes than `most` of the longest tokens have, whatever would have become of it. */
status tokenizer_encode_within(const struct tokenizer *t, const char *text, size_t n, bool add_special,
                               bool parse_special, size_t most, int32_t **ids, size_t *n_ids);

/* Bytes [begin, end) of a text. */
struct text_span {
    size_t begin, end;
};

/* Encodes a chat: a template's words and, in the spans [n_contents] (in order, none empty, none overlapping), what was
 * said. Control tokens become their ids where the template has them; what was said holds none, whatever it looks like,
 * and neither does what is half the one and half the other; nor does it hold what opens or ends a turn where the file
 * calls that user-defined. All the rest is one text: words merge across the ends of spans as anywhere. BOS comes first
 * if the file asks for it and the text does not begin with it; EOS is never added, for the text may go on. Otherwise
 * like tokenizer_encode. */
status tokenizer_encode_chat(const struct tokenizer *t, const char *text, size_t n, const struct text_span *contents,
                             size_t n_contents, int32_t **ids, size_t *n_ids);
/* As tokenizer_encode_within. */
status tokenizer_encode_chat_within(const struct tokenizer *t, const char *text, size_t n,
                                    const struct text_span *contents, size_t n_contents, size_t most, int32_t **ids,
                                    size_t *n_ids);

/* The bytes of one token into out (cap bytes), not NUL-terminated; returns their number (if larger than cap nothing is
 * written). Control tokens have no bytes unless `special`. A piece may end within a UTF-8 sequence. */
size_t tokenizer_piece(const struct tokenizer *t, int32_t id, bool special, char *out, size_t cap);

#endif
