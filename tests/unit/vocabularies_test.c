/* Real vocabularies: the tokens of each text in FILE.gguf.inp are those in FILE.gguf.out, as llama.cpp's source package
 * carries them in its folder models. HEARTH_TEST_VOCABULARIES names the folder; skipped without. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "model/gguf.h"
#include "model/tokenizer.h"

/* The bytes of FOLDER/ggml-vocab-NAME.gguf.SUFFIX with a NUL behind them; malloc'ed; NULL: no such file. */
static char *read_beside(const char *name, const char *suffix, size_t *n)
{
    char path[512];
    snprintf(path, sizeof path, "%s/ggml-vocab-%s.gguf.%s", getenv("HEARTH_TEST_VOCABULARIES"), name, suffix);
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    char *bytes = malloc(1 << 20);
    assert_non_null(bytes);
    *n = fread(bytes, 1, (1 << 20) - 1, f);
    bytes[*n] = 0;
    fclose(f);
    return bytes;
}

/* Whether the line holds these ids with blanks between them; *line goes on behind it. */
static bool same_line(char **line, const int32_t *ids, size_t n)
{
    char *end = *line + strcspn(*line, "\n");
    bool same = true;
    for (size_t i = 0; i < n; i++) {
        char *behind;
        long id = strtol(*line, &behind, 10);
        same = same && behind != *line && behind <= end && id == ids[i];
        *line = behind;
    }
    same = same && *line + strspn(*line, " ") == end;
    *line = *end ? end + 1 : end;
    return same;
}

/* How many of the vocabulary's texts become other tokens than its file says. */
static int wrong_texts(const char *name)
{
    static const char between[] = "\n__ggml_vocab_test__\n";
    char path[512];
    struct gguf *g;
    struct tokenizer *t;
    size_t n_texts, n_lines;
    int n = 0, wrong = 0;
    snprintf(path, sizeof path, "%s/ggml-vocab-%s.gguf", getenv("HEARTH_TEST_VOCABULARIES"), name);
    assert_int_equal(gguf_open(path, &g), ST_OK);
    assert_int_equal(tokenizer_create(g, &t), ST_OK);
    char *texts = read_beside(name, "inp", &n_texts), *lines = read_beside(name, "out", &n_lines), *line = lines;
    assert_non_null(texts);
    assert_non_null(lines);
    for (char *at = texts, *end = texts + n_texts; at; n++) {
        char *next = memmem(at, (size_t)(end - at), between, sizeof between - 1);
        size_t n_text = (size_t)((next ? next : end) - at), n_ids;
        int32_t *ids;
        assert_int_equal(tokenizer_encode(t, at, n_text, false, false, &ids, &n_ids), ST_OK);
        if (!same_line(&line, ids, n_ids)) {
            print_message("%s: text %d: '%.*s'\n", name, n, (int)n_text, at);
            wrong++;
        }
        free(ids);
        at = next ? next + sizeof between - 1 : NULL;
    }
    print_message("%s: %d of %d texts\n", name, n - wrong, n);
    assert_true(n > 40);
    free(texts);
    free(lines);
    tokenizer_free(t);
    gguf_close(g);
    return wrong;
}

static void texts_become_their_tokens(void **state)
{
    (void)state;
    static const char *const names[] = {"command-r", "deepseek-coder", "deepseek-llm", "falcon",  "gemma-4",
                                        "gpt-2",     "llama-bpe",      "llama-spm",    "mpt",     "phi-3",
                                        "qwen2",     "qwen35",         "refact",       "starcoder"};
    int wrong = 0;
    if (!getenv("HEARTH_TEST_VOCABULARIES")) {
        print_message("SKIP: HEARTH_TEST_VOCABULARIES names no folder with llama.cpp's ggml-vocab-*.gguf\n");
        skip();
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        wrong += wrong_texts(names[i]);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(texts_become_their_tokens)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
