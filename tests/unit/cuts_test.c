/* Where each pre-tokenizer cuts (tests/vectors/make_cuts.py), and what else its name implies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "model/tokenizer_internal.h"

static struct gguf *file;
static struct tokenizer *t;
static json_t *cuts;

static int open_cuts(void **state)
{
    (void)state;
    cuts = json_load_file(TEST_DATA "/cuts.json", 0, NULL);
    return !cuts || gguf_open(TEST_DATA "/tok-cuts.gguf", &file) != ST_OK || tokenizer_create(file, &t) != ST_OK;
}

static int close_cuts(void **state)
{
    (void)state;
    tokenizer_free(t);
    gguf_close(file);
    json_decref(cuts);
    return 0;
}

/* Gives the tokenizer another pre-tokenizer. */
static void become(const char *name)
{
    const struct pretokenizer_kind *kind;
    pretokenizer_free(t->pre);
    t->pre = NULL;
    assert_int_equal(pretokenizer_create(name, strlen(name), "test", &t->pre, &kind), ST_OK);
    t->ignore_merges = kind->ignore_merges;
}

static void print_words(const char *text, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char piece[64];
        size_t size = tokenizer_piece(t, ids[i], true, piece, sizeof piece);
        print_message("%s'%.*s'", i ? " " : "", (int)size, piece);
    }
    print_message(" of '%s'\n", text);
}

/* How many of the texts become other ids than list which[i] of ids[i]. */
static int wrong_texts(const char *name, const json_t *which)
{
    const json_t *lists = json_object_get(cuts, "ids"), *item;
    int wrong = 0;
    size_t i;
    json_array_foreach(json_object_get(cuts, "texts"), i, item) {
        const char *text = json_string_value(item);
        const json_t *want = json_array_get(json_array_get(lists, i),
                                            (size_t)json_integer_value(json_array_get(which, i)));
        int32_t *ids;
        size_t n;
        assert_int_equal(tokenizer_encode(t, text, strlen(text), false, false, &ids, &n), ST_OK);
        bool same = json_array_size(want) == n;
        for (size_t j = 0; same && j < n; j++)
            same = json_integer_value(json_array_get(want, j)) == ids[j];
        if (!same && wrong++ < 10) {
            print_message("%s: ", name);
            print_words(text, ids, n);
        }
        free(ids);
    }
    return wrong;
}

static void every_name_cuts_where_its_pattern_does(void **state)
{
    (void)state;
    const json_t *kinds = json_object_get(cuts, "kinds"), *kind, *name;
    size_t k, i, n = 0;
    int wrong = 0;
    assert_true(json_array_size(json_object_get(cuts, "texts")) > 700);
    json_array_foreach(kinds, k, kind) {
        json_array_foreach(json_object_get(kind, "names"), i, name) {
            become(json_string_value(name));
            wrong += wrong_texts(json_string_value(name), json_object_get(kind, "which"));
            n++;
        }
    }
    assert_int_equal(wrong, 0);
    assert_int_equal(n, 62);
}

static void names_imply_more_than_patterns(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool ignore_merges, add_bos, no_bos, characters;
    } expected[] = {
        {"gpt-2", false, false, false, false},      {"llama-bpe", true, true, false, false},
        {"dbrx", false, false, false, false},       {"chatglm-bpe", false, false, true, false},
        {"glm4", true, false, true, false},         {"minicpm5", true, false, false, false},
        {"qwen35", false, false, false, false},     {"gpt-4o", false, false, false, false},
        {"tekken", true, true, false, false},       {"kimi-k2", false, false, false, false},
        {"deepseek-v3", false, false, false, false}, {"youtu", true, false, false, false},
        {"gemma4", false, true, true, true},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        const struct pretokenizer_kind *k = pretokenizer_kind(expected[i].name, strlen(expected[i].name));
        assert_non_null(k);
        if (k->ignore_merges != expected[i].ignore_merges || k->add_bos != expected[i].add_bos ||
            k->no_bos != expected[i].no_bos || k->characters != expected[i].characters)
            fail_msg("%s", expected[i].name);
    }
}

/* What makes patterns go back: every kind is as fast as its text is long (slow ones take minutes here). */
static void long_texts_are_cut_in_linear_time(void **state)
{
    (void)state;
    enum { N = 1 << 16 };
    static const char *const units[] = {"A", "Ж", "中A", "a\xcc\x81", "\xcc\x81", "\xcc\x81" "A", "aB", "\xe3\x80\x80",
                                        " ", " \n", "/\n", "'", "a's", ",a", "٣", "…"};
    const json_t *kind;
    size_t k;
    char *text = malloc(N + 2);
    assert_non_null(text);
    json_array_foreach(json_object_get(cuts, "kinds"), k, kind) {
        become(json_string_value(json_array_get(json_object_get(kind, "names"), 0)));
        for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
            int32_t *ids;
            size_t n;
            for (size_t i = 0; i < N; i++)
                text[i] = units[u][i % strlen(units[u])];
            text[N] = (char)(u % 2 ? '1' : '\x01'); /* no match goes on to here */
            assert_int_equal(tokenizer_encode(t, text, N + 1, false, false, &ids, &n), ST_OK);
            assert_true(n > 0);
            free(ids);
        }
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_name_cuts_where_its_pattern_does),
        cmocka_unit_test(names_imply_more_than_patterns),
        cmocka_unit_test(long_texts_are_cut_in_linear_time),
    };
    return cmocka_run_group_tests(tests, open_cuts, close_cuts);
}
