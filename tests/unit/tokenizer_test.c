/* The tokenizer against the ids of llama.cpp (tests/vectors/make_tokens.py), with hostile vocabularies and allocations
 * that fail. HEARTH_TEST_MODEL names SmolLM2-135M-Instruct for the tests that need it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>
#include <jansson.h>

#include "base/log.h"
#include "model/tokenizer_internal.h"
#include "tests/unit/alloc_fail.h"
#include "tests/unit/made_file.h"

/* --- vectors --- */

static json_t *load_json(const char *name)
{
    char path[512];
    json_error_t error;
    snprintf(path, sizeof path, TEST_DATA "/%s", name);
    json_t *j = json_load_file(path, 0, &error);
    if (!j)
        fail_msg("%s:%d: %s", path, error.line, error.text);
    return j;
}

static size_t decode_base64(const char *in, char *out)
{
    size_t n = 0;
    uint32_t bits = 0;
    int have = 0;
    for (; *in && *in != '='; in++) {
        const char *alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        bits = bits << 6 | (uint32_t)(strchr(alphabet, *in) - alphabet);
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[n++] = (char)(bits >> have);
        }
    }
    return n;
}

/* The bytes of a string of the vectors; malloc'ed. */
static char *bytes_of(const json_t *item, size_t *n)
{
    const char *packed = json_string_value(json_object_get(item, "base64"));
    const char *text = packed ? packed : json_string_value(item);
    char *out = malloc(strlen(text) + 1);
    *n = packed ? decode_base64(text, out) : strlen(text);
    if (!packed)
        memcpy(out, text, *n);
    return out;
}

static bool same_ids(const json_t *expected, const int32_t *ids, size_t n)
{
    bool same = json_array_size(expected) == n;
    for (size_t i = 0; same && i < n; i++)
        same = json_integer_value(json_array_get(expected, i)) == ids[i];
    return same;
}

static void print_ids(const json_t *expected, const int32_t *ids, size_t n)
{
    char *list = json_dumps(expected, JSON_COMPACT);
    print_message("expected %.600s\nfound    [", list);
    for (size_t i = 0; i < n && i < 120; i++)
        print_message("%s%d", i ? "," : "", ids[i]);
    print_message("]\n");
    free(list);
}

/* All pieces in a row; malloc'ed. */
static char *join_pieces(const struct tokenizer *t, const int32_t *ids, size_t n, size_t *total)
{
    *total = 0;
    for (size_t i = 0; i < n; i++)
        *total += tokenizer_piece(t, ids[i], true, NULL, 0);
    char *out = malloc(*total + 1);
    size_t at = 0;
    for (size_t i = 0; i < n; i++)
        at += tokenizer_piece(t, ids[i], true, out + at, *total - at);
    assert_int_equal(at, *total);
    return out;
}

static int check_string(const struct tokenizer *t, const json_t *v, const json_t *item, size_t i)
{
    size_t n, n_plain, n_special, n_joined;
    int32_t *plain, *special;
    char *text = bytes_of(item, &n);
    assert_int_equal(tokenizer_encode(t, text, n, false, false, &plain, &n_plain), ST_OK);
    assert_int_equal(tokenizer_encode(t, text, n, true, true, &special, &n_special), ST_OK);
    const json_t *want_plain = json_array_get(json_object_get(v, "plain"), i);
    const json_t *want_special = json_array_get(json_object_get(v, "special"), i);
    const char *want_pieces = json_string_value(json_array_get(json_object_get(v, "pieces"), i));
    int bad = 0;
    if (!same_ids(want_plain, plain, n_plain)) {
        print_message("string %zu, plain: '%.*s'\n", i, (int)(n < 80 ? n : 80), text);
        print_ids(want_plain, plain, n_plain);
        bad = 1;
    }
    if (!same_ids(want_special, special, n_special)) {
        print_message("string %zu, special: '%.*s'\n", i, (int)(n < 80 ? n : 80), text);
        print_ids(want_special, special, n_special);
        bad = 1;
    }
    char *joined = join_pieces(t, special, n_special, &n_joined), *want = malloc(strlen(want_pieces) + 1);
    size_t n_want = decode_base64(want_pieces, want);
    if (!bad && (n_joined != n_want || memcmp(joined, want, n_want))) {
        print_message("string %zu: pieces '%.*s', expected '%.*s'\n", i, (int)n_joined, joined, (int)n_want, want);
        bad = 1;
    }
    free(joined);
    free(want);
    free(plain);
    free(special);
    free(text);
    return bad;
}

static void check_vocabulary(const struct tokenizer *t, const json_t *v)
{
    assert_int_equal(tokenizer_n_vocab(t), json_integer_value(json_object_get(v, "n_vocab")));
    assert_int_equal(tokenizer_bos(t), json_integer_value(json_object_get(v, "bos")));
    assert_int_equal(tokenizer_eos(t), json_integer_value(json_object_get(v, "eos")));
    assert_int_equal(tokenizer_adds_bos(t), json_is_true(json_object_get(v, "add_bos")));
    const json_t *ends = json_object_get(v, "ends");
    size_t n = 0;
    for (int32_t id = -1; id <= tokenizer_n_vocab(t); id++)
        if (tokenizer_is_end(t, id))
            assert_int_equal(id, json_integer_value(json_array_get(ends, n++)));
    assert_int_equal(n, json_array_size(ends));
}

static void check_model(const char *path, const char *vectors)
{
    struct gguf *g;
    struct tokenizer *t;
    json_t *strings = load_json("tokens_strings.json"), *v = load_json(vectors);
    assert_int_equal(gguf_open(path, &g), ST_OK);
    assert_int_equal(tokenizer_create(g, &t), ST_OK);
    check_vocabulary(t, v);
    assert_true(json_array_size(strings) >= 250);
    assert_int_equal(json_array_size(json_object_get(v, "plain")), json_array_size(strings));
    int bad = 0;
    for (size_t i = 0; i < json_array_size(strings); i++)
        bad += check_string(t, v, json_array_get(strings, i), i);
    tokenizer_free(t);
    gguf_close(g);
    json_decref(strings);
    json_decref(v);
    assert_int_equal(bad, 0);
}

static void ids_equal_llama_cpp(void **state)
{
    const char *name = *state;
    char model[512], vectors[128];
    snprintf(model, sizeof model, TEST_DATA "/tok-%s.gguf", name);
    snprintf(vectors, sizeof vectors, "tokens_%s.json", name);
    check_model(model, vectors);
}

static void smollm2_ids_equal_llama_cpp(void **state)
{
    (void)state;
    const char *model = getenv("HEARTH_TEST_MODEL");
    FILE *f = model ? fopen(model, "rb") : NULL;
    if (!f) {
        print_message("SKIP: HEARTH_TEST_MODEL names no readable SmolLM2-135M-Instruct\n");
        skip();
    }
    fclose(f);
    check_model(model, "tokens_smollm2.json");
}

/* --- vocabularies built here --- */

static struct log_catcher caught;

enum { N_TOKENS = 8 };
static const char *const plain_tokens[N_TOKENS] = {"<unk>", "<s>", "</s>", "a", "b", "ab", "<|x|>", "c"};
static const uint32_t plain_types[N_TOKENS] = {2, 3, 3, 1, 1, 1, 4, 1};

/* What a vocabulary-only file holds; zeros leave keys out. */
struct recipe {
    const char *model, *pre;
    const char *const *tokens;
    uint64_t n_tokens, n_types, n_scores, n_merges;
    const char *const *merges;
    bool no_merges, types_are_strings, scores_are_strings, merges_are_numbers, tokens_are_numbers;
    int64_t bos; /* -1: no key */
    int add_eos; /* 0: no key */
};

static struct recipe recipe_of(const char *model)
{
    static const char *const merges[] = {"a b"};
    return (struct recipe){.model = model, .pre = "gpt-2", .tokens = plain_tokens, .n_tokens = N_TOKENS,
                           .n_types = N_TOKENS, .n_scores = N_TOKENS, .merges = merges, .n_merges = 1, .bos = -1};
}

static void put_numbers(struct gguf_writer *w, const char *key, enum gguf_type type, uint64_t n, bool as_strings)
{
    if (!n)
        return;
    gguf_key_array(w, key, as_strings ? GGUF_STRING : type, n);
    for (uint64_t i = 0; i < n; i++) {
        if (as_strings)
            gguf_put_string(w, "1");
        else if (type == GGUF_F32)
            gguf_put_f32(w, -(float)i);
        else
            gguf_put_uint(w, i < N_TOKENS ? plain_types[i] : 1, 4);
    }
}

static void write_recipe(struct gguf_writer *w, const struct recipe *r)
{
    gguf_writer_begin(w, "GGUF", 3);
    if (r->model)
        gguf_key_string(w, "tokenizer.ggml.model", r->model);
    if (r->pre)
        gguf_key_string(w, "tokenizer.ggml.pre", r->pre);
    if (r->tokens_are_numbers)
        put_numbers(w, "tokenizer.ggml.tokens", GGUF_I32, 3, false);
    else if (r->tokens)
        gguf_key_strings(w, "tokenizer.ggml.tokens", r->tokens, r->n_tokens);
    put_numbers(w, "tokenizer.ggml.token_type", GGUF_I32, r->n_types, r->types_are_strings);
    put_numbers(w, "tokenizer.ggml.scores", GGUF_F32, r->n_scores, r->scores_are_strings);
    if (r->merges_are_numbers)
        put_numbers(w, "tokenizer.ggml.merges", GGUF_I32, 3, false);
    else if (!r->no_merges)
        gguf_key_strings(w, "tokenizer.ggml.merges", r->merges, r->n_merges);
    if (r->bos >= 0)
        gguf_key_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)r->bos);
    if (r->add_eos)
        gguf_key_uint(w, "tokenizer.ggml.add_eos_token", GGUF_BOOL, 1);
    gguf_writer_end(w);
}

/* The tokenizer of a recipe; *w and *g are the caller's to release, also on failure. */
static status create(const struct recipe *r, struct gguf_writer *w, struct gguf **g, struct tokenizer **t)
{
    write_recipe(w, r);
    assert_int_equal(gguf_open_bytes(w->bytes, w->n, "test.gguf", g), ST_OK);
    *t = NULL;
    log_catch(&caught);
    status s = tokenizer_create(*g, t);
    log_catch(NULL);
    return s;
}

static void expect_refused(const struct recipe *r, status expected, const char *line)
{
    struct gguf_writer w;
    struct gguf *g;
    struct tokenizer *t;
    assert_int_equal(create(r, &w, &g, &t), expected);
    assert_null(t);
    if (!strstr(caught.first_error, line))
        fail_msg("expected a line with '%s', found '%s'", line, caught.first_error);
    gguf_close(g);
    gguf_writer_free(&w);
}

static void broken_vocabularies_are_refused(void **state)
{
    (void)state;
    for (int spm = 0; spm < 2; spm++) {
        struct recipe r = recipe_of(spm ? "llama" : "gpt2");
        r.model = NULL;
        expect_refused(&r, ST_FORMAT, "tokenizer.ggml.model");
        r.model = "bert";
        expect_refused(&r, ST_UNSUPPORTED, "'bert'");
        r = recipe_of(spm ? "llama" : "gpt2");
        r.tokens = NULL;
        expect_refused(&r, ST_FORMAT, "tokenizer.ggml.tokens");
        r.tokens = plain_tokens;
        r.n_tokens = 0;
        expect_refused(&r, ST_FORMAT, "tokenizer.ggml.tokens");
        r.n_tokens = N_TOKENS;
        r.tokens_are_numbers = true;
        expect_refused(&r, ST_FORMAT, "tokenizer.ggml.tokens");
        r.tokens_are_numbers = false;
        r.n_types = N_TOKENS - 1;
        expect_refused(&r, ST_FORMAT, "token_type: expected 8 elements, found 7");
        r.n_types = N_TOKENS;
        r.types_are_strings = true;
        expect_refused(&r, ST_FORMAT, "token 0: expected");
        r.types_are_strings = false;
        r.n_scores = 1;
        expect_refused(&r, ST_FORMAT, "scores: expected 8 elements, found 1");
        r.n_scores = N_TOKENS;
        r.tokens = (const char *const[]){"x", "y", "z", "q", "y", "1", "2", "3"};
        expect_refused(&r, ST_FORMAT, "tokens 1 and 4 have the same text 'y'");
    }
    struct recipe r = recipe_of("llama");
    r.scores_are_strings = true;
    expect_refused(&r, ST_FORMAT, "scores: expected numbers");
    r = recipe_of("gpt2");
    r.no_merges = true;
    expect_refused(&r, ST_FORMAT, "tokenizer.ggml.merges");
    r.merges_are_numbers = true;
    expect_refused(&r, ST_FORMAT, "tokenizer.ggml.merges");
    r = recipe_of("gpt2");
    static const char *const unknown[] = {"bloom", "", " ", "gpt-2 phi-2", "gpt", "-2",
                                          "a name that is much longer than any that is known to anybody"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        r.pre = unknown[i];
        expect_refused(&r, ST_UNSUPPORTED, "tokenizer.ggml.pre");
    }
    r = recipe_of("gpt2");
    r.add_eos = 1; /* the default EOS, 11, is no token here */
    expect_refused(&r, ST_FORMAT, "adds a EOS token but there is none");
}

/* Encodes a NUL-terminated text and compares; expected ends with -1. */
static void expect_ids(const struct tokenizer *t, const char *text, bool special, const int32_t *expected)
{
    int32_t *ids;
    size_t n, want = 0;
    assert_int_equal(tokenizer_encode(t, text, strlen(text), special, special, &ids, &n), ST_OK);
    while (expected[want] >= 0)
        want++;
    assert_int_equal(n, want);
    assert_memory_equal(ids, expected, n * sizeof *ids);
    free(ids);
}
#define IDS(...) ((const int32_t[]){__VA_ARGS__, -1})

static void strange_vocabularies_are_survived(void **state)
{
    (void)state;
    static const char *const merges[] = {"", " ", "a", "a ", " b", "b  ", "q r", "qr s", "a b", "a b", "  ", "ab c"};
    struct gguf_writer w;
    struct gguf *g;
    struct tokenizer *t;
    struct recipe r = recipe_of("gpt2");
    r.tokens = (const char *const[]){"<unk>", "", "", "a", "b", "ab", "<|x|>", "c"}; /* empty tokens never match */
    r.merges = merges;
    r.n_merges = sizeof merges / sizeof *merges;
    r.bos = 99;
    assert_int_equal(create(&r, &w, &g, &t), ST_OK);
    assert_int_equal(tokenizer_bos(t), -1);
    expect_ids(t, "abb", true, IDS(5, 4));
    expect_ids(t, "abc", true, IDS(3, 4, 7)); /* "abc" is no token: its characters are */
    expect_ids(t, "a<|x|>zb", true, IDS(3, 6, 4)); /* z is in no token */
    expect_ids(t, "qrs", true, IDS(-1));
    assert_int_equal(tokenizer_piece(t, 1, true, NULL, 0), 0);
    assert_int_equal(tokenizer_find(t, ""), -1);
    assert_int_equal(tokenizer_find(t, "qr"), -1); /* known to a merge only */
    assert_int_equal(tokenizer_find(t, "ab"), 5);
    tokenizer_free(t);
    gguf_close(g);
    gguf_writer_free(&w);

    r = recipe_of("llama");
    r.n_scores = r.n_types = 0; /* no scores: all equal; no types: all normal */
    assert_int_equal(create(&r, &w, &g, &t), ST_OK);
    expect_ids(t, "ab", false, IDS(0, 0, 0, 5)); /* no byte tokens: U+2581 is three unknowns */
    expect_ids(t, "ab", true, IDS(1, 0, 0, 0, 5));
    tokenizer_free(t);
    gguf_close(g);
    gguf_writer_free(&w);
}

/* gpt-oss ends a message with <|end|> and an answer with <|return|> or <|call|>; its other marks are to be seen, and
 * nobody makes them by saying them. */
static void ends_depend_on_what_is_beside_them(void **state)
{
    (void)state;
    static const char *const tokens[] = {"<|end|>", "<|return|>", "<|call|>", "<|channel|>", "a", "<", "ab", "b"};
    for (int alone = 0; alone < 2; alone++) {
        struct gguf_writer w;
        struct gguf *g;
        struct tokenizer *t;
        struct recipe r = recipe_of("gpt2");
        const char *texts[N_TOKENS];
        memcpy(texts, tokens, sizeof texts);
        if (alone)
            texts[1] = "<|somewhere|>";
        r.tokens = texts;
        r.n_types = 0;
        assert_int_equal(create(&r, &w, &g, &t), ST_OK);
        assert_int_equal(tokenizer_is_end(t, 0), alone);
        assert_int_equal(tokenizer_is_end(t, 1), !alone);
        assert_true(tokenizer_is_end(t, 2));
        assert_false(tokenizer_is_end(t, 3));
        assert_int_equal(tokenizer_piece(t, 0, false, NULL, 0), alone ? 0 : 7);
        assert_int_equal(tokenizer_piece(t, 3, false, NULL, 0), 11);
        expect_ids(t, "a<|channel|>b", false, IDS(4, 3, 7));
        const struct text_span said = {0, 13};
        int32_t *ids;
        size_t n;
        assert_int_equal(tokenizer_encode_chat(t, "a<|channel|>b", 13, &said, 1, &ids, &n), ST_OK);
        for (size_t i = 0; i < n; i++)
            assert_int_not_equal(ids[i], 3);
        free(ids);
        tokenizer_free(t);
        gguf_close(g);
        gguf_writer_free(&w);
    }
}

static void pieces_respect_their_room(void **state)
{
    (void)state;
    struct gguf_writer w;
    struct gguf *g;
    struct tokenizer *t;
    struct recipe r = recipe_of("llama");
    assert_int_equal(create(&r, &w, &g, &t), ST_OK);
    char out[8] = "#######";
    assert_int_equal(tokenizer_piece(t, 5, false, out, 1), 2);
    assert_string_equal(out, "#######");
    assert_int_equal(tokenizer_piece(t, 5, false, out, 2), 2);
    assert_string_equal(out, "ab#####");
    assert_int_equal(tokenizer_piece(t, 2, false, out, 8), 0); /* control tokens are silent */
    assert_int_equal(tokenizer_piece(t, 2, true, out, 8), 4);
    assert_int_equal(tokenizer_piece(t, -1, true, out, 8), 0);
    assert_int_equal(tokenizer_piece(t, N_TOKENS, true, out, 8), 0);
    assert_false(tokenizer_is_end(t, -1));
    assert_false(tokenizer_is_end(t, N_TOKENS));
    assert_true(tokenizer_is_end(t, 2));
    tokenizer_free(t);
    gguf_close(g);
    gguf_writer_free(&w);
}

/* --- all of a model --- */

static void open_tokenizer(const char *name, struct gguf **g, struct tokenizer **t)
{
    char path[512];
    snprintf(path, sizeof path, TEST_DATA "/tok-%s.gguf", name);
    assert_int_equal(gguf_open(path, g), ST_OK);
    assert_int_equal(tokenizer_create(*g, t), ST_OK);
}

/* Byte-level BPE gives back valid UTF-8 byte for byte; so does SentencePiece but for the space it puts first. */
static void texts_come_back(void **state)
{
    const char *name = *state;
    size_t lead = strcmp(name, "spm") ? 0 : 1;
    struct gguf *g;
    struct tokenizer *t;
    open_tokenizer(name, &g, &t);
    json_t *strings = load_json("tokens_strings.json");
    int compared = 0;
    for (size_t i = 0; i < json_array_size(strings); i++) {
        const char *text = json_string_value(json_array_get(strings, i));
        if (!text || !*text || strstr(text, "\xed\xa0") || strstr(text, "\u2581"))
            continue;
        int32_t *ids;
        size_t n, n_back;
        assert_int_equal(tokenizer_encode(t, text, strlen(text), false, false, &ids, &n), ST_OK);
        char *back = join_pieces(t, ids, n, &n_back);
        bool user_defined_first = n && lead && back[0] != ' '; /* then no space was put first */
        size_t skip = user_defined_first ? 0 : lead;
        if (n_back == strlen(text) + skip) {
            assert_memory_equal(back + skip, text, strlen(text));
            compared++;
        } else if (!lead) {
            fail_msg("'%s' came back as '%.*s'", text, (int)n_back, back);
        }
        free(back);
        free(ids);
    }
    assert_true(compared > 250);
    json_decref(strings);
    tokenizer_free(t);
    gguf_close(g);
}

/* Long uniform texts: the merging loop and the patterns are not quadratic (quadratic ones take minutes here). */
static void long_texts_are_fine(void **state)
{
    const char *name = *state;
    enum { N = 1 << 18 };
    struct gguf *g;
    struct tokenizer *t;
    open_tokenizer(name, &g, &t);
    char *text = malloc(N);
    static const char *const units[] = {"a", " ", "\n", "'", "1", "!", " \n", "\xff", "\xe2", "<|im_end|>", "<|im_"};
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        for (size_t i = 0; i < N; i++)
            text[i] = units[u][i % strlen(units[u])];
        int32_t *ids;
        size_t n;
        assert_int_equal(tokenizer_encode(t, text, N, true, true, &ids, &n), ST_OK);
        for (size_t i = 0; i < n; i++)
            assert_true(ids[i] >= 0 && ids[i] < tokenizer_n_vocab(t));
        free(ids);
    }
    free(text);
    tokenizer_free(t);
    gguf_close(g);
}

/* Whether `text` is encoded within as many tokens as it has, to these, and not within fewer. Some vocabularies cannot
 * write most of some texts; these count by their bytes. */
static void check_limits(const struct tokenizer *t, const char *text, size_t n)
{
    int32_t *ids, *within = NULL;
    size_t n_ids, n_within;
    assert_int_equal(tokenizer_encode(t, text, n, true, true, &ids, &n_ids), ST_OK);
    const bool by_bytes = n / t->max_piece > n_ids;
    assert_int_equal(tokenizer_encode_within(t, text, n, true, true, by_bytes ? n : n_ids, &within, &n_within), ST_OK);
    assert_int_equal(n_within, n_ids);
    assert_true(n_ids == 0 || memcmp(within, ids, n_ids * sizeof *ids) == 0);
    free(within);
    within = NULL;
    for (size_t most = 0; most < n_ids; most += 1 + most / 2)
        assert_int_equal(tokenizer_encode_within(t, text, n, true, true, most, &within, &n_within), ST_FULL);
    if (n_ids > 0)
        assert_int_equal(tokenizer_encode_within(t, text, n, true, true, n_ids - 1, &within, &n_within), ST_FULL);
    assert_null(within);
    free(ids);
}

static void limits_are_exact(void **state)
{
    struct gguf *g;
    struct tokenizer *t;
    json_t *strings = load_json("tokens_strings.json"), *item;
    size_t i, n;
    open_tokenizer(*state, &g, &t);
    json_array_foreach(strings, i, item) {
        char *text = bytes_of(item, &n);
        check_limits(t, text, n);
        free(text);
    }
    json_decref(strings);
    tokenizer_free(t);
    gguf_close(g);
}

/* A merge makes " q", which is no token: its q is written and the space is not, so spaces stand for no tokens. */
static void what_merges_lose_counts_nothing(void **state)
{
    (void)state;
    struct made m;
    char text[2000];
    gguf_writer_begin(&m.w, "GGUF", 3);
    gguf_key_string(&m.w, "tokenizer.ggml.model", "gpt2");
    gguf_key_string(&m.w, "tokenizer.ggml.pre", "default");
    gguf_key_array(&m.w, "tokenizer.ggml.tokens", GGUF_STRING, 256);
    made_put_bytes(&m.w);
    gguf_key_strings(&m.w, "tokenizer.ggml.merges", (const char *const[]){"\xc4\xa0 q"}, 1);
    made_open(&m);
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = i % 2 ? 'q' : ' ';
    check_limits(m.t, text, sizeof text);
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = i % 2 ? 'w' : 'q';
    assert_int_equal(m.t->shares[' '], 0);
    assert_int_not_equal(m.t->shares['q'], 0);
    check_limits(m.t, text, sizeof text);
    unmake(&m);
}

/* A text that is far too long is not read to its end, which is not there. */
static void long_texts_are_left(void **state)
{
    enum { READABLE = 1 << 18, MOST = 50, ALL = 1 << 29 };
    static const char *const units[] = {"The quick brown fox. ", "a", " ", "\n", "<|im_end|>", "\xf0\x9f\x98\x80", "0"};
    struct gguf *g;
    struct tokenizer *t;
    open_tokenizer(*state, &g, &t);
    char *text = mmap(NULL, ALL, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(text, MAP_FAILED);
    assert_int_equal(mprotect(text, READABLE, PROT_READ | PROT_WRITE), 0);
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        const struct text_span all = {0, ALL};
        int32_t *ids;
        size_t n;
        for (size_t i = 0; i < READABLE; i++)
            text[i] = units[u][i % strlen(units[u])];
        assert_int_equal(tokenizer_encode_within(t, text, ALL, true, true, MOST, &ids, &n), ST_FULL);
        assert_int_equal(tokenizer_encode_chat_within(t, text, ALL, &all, 1, MOST, &ids, &n), ST_FULL);
    }
    munmap(text, ALL);
    tokenizer_free(t);
    gguf_close(g);
}

/* How often a token occurs in a text of which the spans [n] are contents. */
static size_t count_in_chat(const struct tokenizer *t, const char *text, size_t n_text, const struct text_span *spans,
                            size_t n, int32_t token)
{
    int32_t *ids;
    size_t n_ids, count = 0;
    assert_int_equal(tokenizer_encode_chat(t, text, n_text, spans, n, &ids, &n_ids), ST_OK);
    for (size_t i = 0; i < n_ids; i++)
        count += ids[i] == token;
    free(ids);
    return count;
}

/* A control token is one wherever no byte of it is somebody's content. */
static void contents_hold_no_control_tokens(void **state)
{
    struct gguf *g;
    struct tokenizer *t;
    open_tokenizer(*state, &g, &t);
    assert_true(t->n_specials > 1);
    for (int32_t i = 0; i < t->n_specials; i++) {
        const int32_t id = t->specials[i];
        const size_t n = t->pieces[id].n;
        char text[128];
        if (id == t->unk || id == t->bos || !(t->pieces[id].flags & PIECE_CONTROL))
            continue;
        const size_t n_text = (size_t)snprintf(text, sizeof text, "ab%.*scd", (int)n, t->pieces[id].at);
        const struct text_span beside[] = {{0, 2}, {n + 2, n + 4}}, all[] = {{0, n_text}};
        assert_int_equal(count_in_chat(t, text, n_text, NULL, 0, id), 1);
        assert_int_equal(count_in_chat(t, text, n_text, beside, 2, id), 1);
        assert_int_equal(count_in_chat(t, text, n_text, all, 1, id), 0);
        for (size_t at = 2; at < n + 2; at++) /* a byte of it is content */
            assert_int_equal(count_in_chat(t, text, n_text, &(struct text_span){at, at + 1}, 1, id), 0);
    }
    tokenizer_free(t);
    gguf_close(g);
}

/* Half a million control tokens, every other one of them content; then all in one. Slow ways take minutes here. */
static void long_chats_are_fine(void **state)
{
    (void)state;
    enum { N = 1 << 18 };
    static const char word[] = "<|im_end|>";
    const size_t n_word = sizeof word - 1;
    struct gguf *g;
    struct tokenizer *t;
    open_tokenizer("smollm", &g, &t);
    const int32_t id = tokenizer_find(t, word);
    char *text = malloc(2 * N * n_word);
    struct text_span *spans = malloc(N * sizeof *spans);
    assert_true(text && spans && id >= 0);
    for (size_t i = 0; i < 2 * N; i++)
        memcpy(text + i * n_word, word, n_word);
    for (size_t i = 0; i < N; i++)
        spans[i] = (struct text_span){(2 * i + 1) * n_word, (2 * i + 2) * n_word};
    assert_int_equal(count_in_chat(t, text, 2 * N * n_word, spans, N, id), N);
    spans[0] = (struct text_span){0, 2 * N * n_word};
    assert_int_equal(count_in_chat(t, text, 2 * N * n_word, spans, 1, id), 0);
    free(spans);
    free(text);
    tokenizer_free(t);
    gguf_close(g);
}

static void failed_allocations_are_reported(void **state)
{
    const char *name = *state, *text = "<|im_start|>The  quick \xed\xa0\x80 brown\n fox<|im_end|> 1234 <|user|>";
    struct gguf *g;
    struct tokenizer *t = NULL, *made;
    int32_t *ids = NULL;
    size_t n_ids;
    char path[512];
    long n;
    status s;
    snprintf(path, sizeof path, TEST_DATA "/tok-%s.gguf", name);
    assert_int_equal(gguf_open(path, &g), ST_OK);
    log_catch(&caught);
    for (n = 0; alloc_fail_at(n), s = tokenizer_create(g, &t), alloc_failed(); n++) {
        assert_int_equal(s, ST_NOMEM);
        assert_null(t);
        assert_non_null(strstr(caught.first_error, "memory"));
        log_catch(&caught);
    }
    assert_int_equal(s, ST_OK);
    assert_true(n > 5);
    made = t;
    for (n = 0;
         alloc_fail_at(n), s = tokenizer_encode(made, text, strlen(text), true, true, &ids, &n_ids), alloc_failed();
         n++) {
        assert_int_equal(s, ST_NOMEM);
        assert_null(ids);
        assert_non_null(strstr(caught.first_error, "memory"));
        log_catch(&caught);
    }
    log_catch(NULL);
    assert_int_equal(s, ST_OK);
    assert_true(n > 5);
    free(ids);
    tokenizer_free(made);
    tokenizer_free(NULL);
    gguf_close(g);
}

int main(void)
{
    static char *const models[] = {"gpt-2", "llama-bpe", "qwen2", "falcon", "smollm", "default", "spm", "gemma",
                                   "gemma4", "phi3", "spm-noprefix"};
    const struct CMUnitTest tests[] = {
#define EACH(test) \
    cmocka_unit_test_prestate(test, models[0]), cmocka_unit_test_prestate(test, models[1]), \
    cmocka_unit_test_prestate(test, models[2]), cmocka_unit_test_prestate(test, models[3]), \
    cmocka_unit_test_prestate(test, models[4]), cmocka_unit_test_prestate(test, models[5]), \
    cmocka_unit_test_prestate(test, models[6]), cmocka_unit_test_prestate(test, models[7]), \
    cmocka_unit_test_prestate(test, models[8])
        EACH(ids_equal_llama_cpp),
        cmocka_unit_test_prestate(ids_equal_llama_cpp, models[9]),
        cmocka_unit_test_prestate(ids_equal_llama_cpp, models[10]),
        cmocka_unit_test(smollm2_ids_equal_llama_cpp),
        cmocka_unit_test(broken_vocabularies_are_refused),
        cmocka_unit_test(strange_vocabularies_are_survived),
        cmocka_unit_test(ends_depend_on_what_is_beside_them),
        cmocka_unit_test(pieces_respect_their_room),
        EACH(long_texts_are_fine),
        EACH(limits_are_exact),
        cmocka_unit_test_prestate(limits_are_exact, models[9]),
        cmocka_unit_test_prestate(limits_are_exact, models[10]),
        cmocka_unit_test(what_merges_lose_counts_nothing),
        cmocka_unit_test_prestate(long_texts_are_left, models[1]),
        cmocka_unit_test_prestate(long_texts_are_left, models[4]),
        cmocka_unit_test_prestate(long_texts_are_left, models[6]),
        cmocka_unit_test_prestate(texts_come_back, models[0]),
        cmocka_unit_test_prestate(texts_come_back, models[2]),
        cmocka_unit_test_prestate(texts_come_back, models[4]),
        cmocka_unit_test_prestate(texts_come_back, models[6]),
        EACH(contents_hold_no_control_tokens),
        cmocka_unit_test(long_chats_are_fine),
        EACH(failed_allocations_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
