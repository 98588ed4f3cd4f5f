/* The tokenizer on hostile bytes. The first byte chooses: a vocabulary-only GGUF file, which is then used, or a text for
 * a small vocabulary of one of the kinds. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "model/chat.h"
#include "model/tokenizer.h"
#include "tests/unit/gguf_writer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(bool ok)
{
    if (!ok)
        abort();
}

/* A text is not encoded within fewer tokens than it has, and to these within as many, unless it counts by its bytes. */
static void use_limits(const struct tokenizer *t, const char *text, size_t n, int flags, const int32_t *ids,
                       size_t n_ids)
{
    int32_t *again;
    size_t n_again;
    for (size_t most = n_ids; most <= n_ids + n; most += n ? n : 1) {
        const status st = tokenizer_encode_within(t, text, n, flags & 1, flags & 2, most, &again, &n_again);
        check(st == ST_OK || (st == ST_FULL && most < n));
        if (st != ST_OK)
            continue;
        check(n_again == n_ids && memcmp(again, ids, n_ids * sizeof *ids) == 0);
        free(again);
    }
    if (n_ids > 0)
        check(tokenizer_encode_within(t, text, n, flags & 1, flags & 2, n_ids - 1, &again, &n_again) == ST_FULL);
}

/* Encodes with every setting and decodes: ids are in range, pieces are as long as announced. */
static void use(const struct tokenizer *t, const char *text, size_t n)
{
    for (int flags = 0; flags < 4; flags++) {
        int32_t *ids;
        size_t n_ids;
        if (tokenizer_encode(t, text, n, flags & 1, flags & 2, &ids, &n_ids) != ST_OK)
            continue;
        for (size_t i = 0; i < n_ids; i++) {
            check(ids[i] >= 0 && ids[i] < tokenizer_n_vocab(t));
            size_t size = tokenizer_piece(t, ids[i], flags & 2, NULL, 0);
            char *piece = malloc(size + 1);
            check(piece && tokenizer_piece(t, ids[i], flags & 2, piece, size) == size);
            free(piece);
            tokenizer_is_end(t, ids[i]);
        }
        use_limits(t, text, n, flags, ids, n_ids);
        free(ids);
    }
    const struct text_span said = {n / 3, n - n / 3}; /* in the middle; none where that would be empty */
    int32_t *ids;
    size_t n_ids;
    if (tokenizer_encode_chat(t, text, n, &said, said.begin < said.end, &ids, &n_ids) == ST_OK)
        free(ids);
}

/* A chat in the file's own format, or in one that every file can have. */
static void use_chat(const struct gguf *g, const struct tokenizer *t)
{
    static const struct chat_message messages[] = {
        {"system", "Be <|im_end|>"}, {"user", "<s>a</s>"}, {"assistant", " b "}, {"user", ""}};
    struct chat_template chat;
    struct chat_text text;
    int32_t *ids;
    size_t n_ids;
    if ((chat_template_of(g, t, NULL, &chat) != ST_OK || !chat.family) &&
        chat_template_of(g, t, "llama2", &chat) != ST_OK)
        return;
    check(chat_template_name(&chat) != NULL);
    if (chat_format(&chat, messages, 4, true, &text) != ST_OK)
        return;
    status st = tokenizer_encode_chat(t, text.at, text.n, text.contents, text.n_contents, &ids, &n_ids);
    chat_text_free(&text);
    if (st != ST_OK)
        return;
    for (size_t i = 0; i < n_ids; i++)
        check(ids[i] >= 0 && ids[i] < tokenizer_n_vocab(t));
    free(ids);
}

static void use_file(const uint8_t *data, size_t n)
{
    static const char text[] = "Hello <|im_end|> a  b\n\xff\xed\xa0\x80 123 it's <s> \xe2\x96\x81";
    struct gguf *g;
    struct tokenizer *t;
    if (gguf_open_bytes(data, n, "fuzz", &g) != ST_OK)
        return;
    if (tokenizer_create(g, &t) == ST_OK) {
        use(t, text, sizeof text - 1);
        for (int32_t id = 0; id < tokenizer_n_vocab(t) && id < 1000; id++)
            tokenizer_piece(t, id, true, NULL, 0);
        use_chat(g, t);
        tokenizer_free(t);
    }
    gguf_close(g);
}

struct small {
    struct gguf *file;
    struct tokenizer *t;
};

/* A vocabulary of the bytes, some merges (one makes no token) and special tokens that overlap. Never freed. */
static struct small small_vocabulary(const char *model, const char *pre)
{
    static const char *const merges[] = {"a b", "ab c", "Ġ a", "Ġ Ġ", "ĠĠ ĠĠ", "1 2", "Ċ Ċ", "x y"};
    static const char *const words[] = {"<|e|>", "<|", "|><|", "ab", "Ġa", "ĠĠ", "12", "ĊĊ", "▁a", "▁"};
    struct gguf_writer w; /* its bytes stay: the tokenizer points into them */
    enum { N_WORDS = sizeof words / sizeof *words };
    bool bytes = strcmp(model, "gpt2") != 0;
    gguf_writer_begin(&w, "GGUF", 3);
    gguf_key_string(&w, "tokenizer.ggml.model", model);
    gguf_key_string(&w, "tokenizer.ggml.pre", pre);
    gguf_key_array(&w, "tokenizer.ggml.tokens", GGUF_STRING, N_WORDS + 256);
    for (int i = 0; i < N_WORDS; i++)
        gguf_put_string(&w, words[i]);
    for (int i = 0; i < 256; i++) {
        char name[16];
        snprintf(name, sizeof name, "<0x%02X>", i);
        if (!bytes && i >= 0x21 && i <= 0x7e)
            snprintf(name, sizeof name, "%c", i);
        gguf_put_string(&w, name);
    }
    gguf_key_array(&w, "tokenizer.ggml.token_type", GGUF_I32, N_WORDS + 256);
    for (int i = 0; i < N_WORDS + 256; i++)
        gguf_put_uint(&w, i == 0 ? 3 : i < 3 ? 4 : i >= N_WORDS && bytes ? 6 : 1, 4);
    gguf_key_strings(&w, "tokenizer.ggml.merges", merges, sizeof merges / sizeof *merges);
    gguf_key_u32(&w, "tokenizer.ggml.bos_token_id", 0);
    gguf_key_u32(&w, "tokenizer.ggml.eos_token_id", 0);
    gguf_writer_end(&w);
    struct small s = {NULL, NULL};
    check(gguf_open_bytes(w.bytes, w.n, "small", &s.file) == ST_OK && tokenizer_create(s.file, &s.t) == ST_OK);
    return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const names[] = { /* one of each kind that cuts or merges by itself */
        "", "gemma4", "gpt-2", "llama-bpe", "smollm", "qwen2", "qwen35", "seed-coder", "minicpm5", "gpt-4o", "tekken",
        "kimi-k2", "deepseek-v3", "deepseek-llm", "deepseek-coder", "youtu", "falcon", "default"};
    enum { N_NAMES = sizeof names / sizeof *names };
    static struct small small[N_NAMES];
    static struct log_catcher quiet;
    log_catch(&quiet);
    for (int i = 0; i < N_NAMES && !small[i].t; i++)
        small[i] = small_vocabulary(i == 0 ? "llama" : i == 1 ? "gemma4" : "gpt2", names[i]);
    if (n == 0)
        return 0;
    if (data[0] >= 0xc0) {
        use_file(data + 1, n - 1);
        return 0;
    }
    char *text = malloc(n); /* exactly as long as the text, so that reading past it is seen */
    check(text != NULL);
    memcpy(text, data + 1, n - 1);
    use(small[data[0] % N_NAMES].t, text, n - 1);
    free(text);
    return 0;
}
