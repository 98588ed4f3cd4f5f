#include <string.h>
#include "tools/synth/output.h"

enum {
    N_BYTE_TOKENS = 256,
    N_SPECIAL_TOKENS = 3, /* <unk>, <s>, </s> */
    WORD_MAX = 16,
};

/* The text of token `id`: specials, bytes, the word mark, then words a, b, ..., z, aa, ... without and with it. */
static void token_text(uint32_t id, char text[WORD_MAX])
{
    static const char *const special[N_SPECIAL_TOKENS] = {"<unk>", "<s>", "</s>"};
    static const char mark[] = "\xe2\x96\x81"; /* U+2581, SentencePiece's space */
    if (id < N_SPECIAL_TOKENS) {
        strcpy(text, special[id]);
        return;
    }
    id -= N_SPECIAL_TOKENS;
    if (id < N_BYTE_TOKENS) {
        snprintf(text, WORD_MAX, "<0x%02X>", id);
        return;
    }
    id -= N_BYTE_TOKENS;
    char word[WORD_MAX];
    char *at = word + sizeof word - 1;
    *at = '\0';
    for (uint32_t n = (id + 1) / 2; n > 0; n = (n - 1) / 26) /* id 0 is the mark alone */
        *--at = (char)('a' + (n - 1) % 26);
    snprintf(text, WORD_MAX, "%s%s", id % 2 == 0 ? mark : "", at);
}

void put_tokenizer(struct output *o, uint32_t vocab)
{
    enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, BYTE = 6 };
    key_string(o, "tokenizer.ggml.model", "llama");
    key_array(o, "tokenizer.ggml.tokens", GGUF_STRING, vocab);
    for (uint32_t i = 0; i < vocab; i++) {
        char text[WORD_MAX];
        token_text(i, text);
        put_string(o, text);
    }
    const uint32_t first_word = N_SPECIAL_TOKENS + N_BYTE_TOKENS;
    key_array(o, "tokenizer.ggml.scores", GGUF_F32, vocab);
    for (uint32_t i = 0; i < vocab; i++)
        put_f32(o, i < first_word ? 0.0f : -(float)(i - first_word));
    key_array(o, "tokenizer.ggml.token_type", GGUF_I32, vocab);
    for (uint32_t i = 0; i < vocab; i++)
        put_u32(o, i == 0 ? UNKNOWN : i < N_SPECIAL_TOKENS ? CONTROL : i < first_word ? BYTE : NORMAL);
    key_u32(o, "tokenizer.ggml.unknown_token_id", 0);
    key_u32(o, "tokenizer.ggml.bos_token_id", 1);
    key_u32(o, "tokenizer.ggml.eos_token_id", 2);
}
