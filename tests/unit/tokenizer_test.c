/* The tokenizer against the ids of llama.cpp (tests/vectors/make_tokens.py), with hostile vocabularies and allocations
 * that fail. HEARTH_TEST_MODEL names SmolLM2-135M-Instruct for the tests that need it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "base/log.h"
#include "model/tokenizer.h"
#include "tests/unit/alloc_fail.h"
#include "tests/unit/gguf_writer.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(ids_equal_llama_cpp, "gpt-2"),
        cmocka_unit_test_prestate(ids_equal_llama_cpp, "llama-bpe"),
        cmocka_unit_test_prestate(ids_equal_llama_cpp, "qwen2"),
        cmocka_unit_test_prestate(ids_equal_llama_cpp, "falcon"),
        cmocka_unit_test_prestate(ids_equal_llama_cpp, "smollm"),
        cmocka_unit_test_prestate(ids_equal_llama_cpp, "default"),
        cmocka_unit_test_prestate(ids_equal_llama_cpp, "spm"),
        cmocka_unit_test_prestate(ids_equal_llama_cpp, "phi3"),
        cmocka_unit_test_prestate(ids_equal_llama_cpp, "spm-noprefix"),
        cmocka_unit_test(smollm2_ids_equal_llama_cpp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
