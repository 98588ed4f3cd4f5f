/* What a model thinks is told from what it says, however its tokens cut the marks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cli/thoughts.h"
#include "model/tokenizer_internal.h"
#include "tests/unit/made_file.h"

/* Bytes, and marks that are tokens: control tokens, but for the last ones, which every file calls user-defined. */
static const char *const tokens[] = {"<think>", "</think>", "<|START_THINKING|>", "<|END_THINKING|>", "<|start|>",
                                     "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>"};
enum { N_TOKENS = sizeof tokens / sizeof *tokens, N_CONTROL = 4 };

static void make(struct made *m)
{
    gguf_writer_begin(&m->w, "GGUF", 3);
    gguf_key_string(&m->w, "tokenizer.ggml.model", "gpt2");
    gguf_key_string(&m->w, "tokenizer.ggml.pre", "default");
    gguf_key_array(&m->w, "tokenizer.ggml.tokens", GGUF_STRING, 256 + N_TOKENS);
    for (int i = 0; i < 256; i++) {
        char name[8] = "";
        byte_character((uint8_t)i, name);
        gguf_put_string(&m->w, name);
    }
    for (int i = 0; i < N_TOKENS; i++)
        gguf_put_string(&m->w, tokens[i]);
    gguf_key_array(&m->w, "tokenizer.ggml.token_type", GGUF_I32, 256 + N_TOKENS);
    for (int i = 0; i < 256 + N_TOKENS; i++)
        gguf_put_uint(&m->w, i < 256 ? 1 : i < 256 + N_CONTROL ? 3 : 4, 4);
    gguf_key_strings(&m->w, "tokenizer.ggml.merges", (const char *const[]){"a b"}, 1);
    made_open(m);
}

struct expected {
    const char *prompt, *said, *thought, *answer, *dimmed;
};

/* The answer as tokens: marks whole where `special`, else letter by letter. */
static void check(const struct made *m, const struct expected *e, bool special, bool dimmed)
{
    struct thoughts h = {.dimmed = dimmed};
    char *written = NULL;
    size_t n_written, n_prompt, n;
    int32_t *prompt, *ids;
    FILE *out = open_memstream(&written, &n_written);
    struct utf8_stream stream = {.out = out};
    assert_int_equal(tokenizer_encode(m->t, e->prompt, strlen(e->prompt), false, true, &prompt, &n_prompt), ST_OK);
    assert_int_equal(tokenizer_encode(m->t, e->said, strlen(e->said), false, special, &ids, &n), ST_OK);
    for (int turn = 0; turn < 2; turn++) { /* an earlier answer leaves nothing behind */
        assert_int_equal(thoughts_begin(&h, m->t, prompt, n_prompt), ST_OK);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(thoughts_take(&h, m->t, ids[i], &stream), ST_OK);
        assert_int_equal(thoughts_end(&h, &stream), ST_OK);
        if (turn == 0) {
            utf8_end(&stream);
            rewind(out);
        }
        assert_string_equal(h.thought.at, e->thought);
        assert_string_equal(h.answer.at, e->answer);
    }
    utf8_end(&stream);
    fclose(out);
    if (dimmed && strcmp(written, e->dimmed))
        fail_msg("%s: expected '%s', found '%s'", e->said, e->dimmed, written);
    if (!dimmed && !special)
        assert_string_equal(written, e->said);
    free(written);
    free(prompt);
    free(ids);
    thoughts_free(&h);
}

static void thoughts_are_told_from_answers(void **state)
{
    (void)state;
    static const struct expected cases[] = {
        {"", "Good day.", "", "Good day.", "Good day."},
        {"", " \n Good\n", "", " \n Good\n", " \n Good\n"},
        {"", "<think>\nWell, é\n</think>\n\nYes.", "Well, é", "Yes.", "\033[2mWell, é\n\033[22mYes."},
        {"", "\n<think>Well</think>Yes [THINK] no", "Well", "Yes [THINK] no", "\033[2mWell\n\033[22mYes [THINK] no"},
        {"", "<think></think>Yes", "", "Yes", "Yes"},
        {"", "<think>a</thin</think>", "a</thin", "", "\033[2ma</thin\n\033[22m"},
        {"", "<think>cut <", "cut <", "", "\033[2mcut <\n\033[22m"},
        {"", "<thin", "", "<thin", "<thin"},
        {"", "<thing>", "", "<thing>", "<thing>"},
        {"", "", "", "", ""},
        {"<think>\n", "Well\n</think>\n\nYes", "Well", "Yes", "\033[2mWell\n\033[22mYes"},
        {"<think>\n\n</think>\n\n", "Yes", "", "Yes", "Yes"},
        {"said: <think> x", "Yes", "", "Yes", "Yes"},
        {"", "[THINK]a[/THINK]b", "a", "b", "\033[2ma\n\033[22mb"},
        {"", "<|START_THINKING|>a<|END_THINKING|>b", "a", "b", "\033[2ma\n\033[22mb"},
        {"<|start|>assistant", "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b",
         "a", "b", "\033[2ma\n\033[22mb"},
        {"<|start|>assistant",
         "<|channel|>commentary<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b", "a", "b",
         "\033[2ma\n\033[22mb"},
        {"<|start|>assistant", "<|channel|>final<|message|> b", "", " b", " b"},
        {"<|start|>assistant", "<|channel|>final<|message|>b<|end", "", "b<|end", "b<|end"},
        {"<|start|>assistant",
         "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>\n b c", "a", "b c",
         "\033[2ma\n\033[22mb c"},
    };
    struct made m;
    make(&m);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int how = 0; how < 4; how++)
            check(&m, &cases[i], how & 1, how & 2);
    unmake(&m);
}

/* The token ends the final message; its letters are what a model says of the token. */
static void a_token_ends_the_final_message(void **state)
{
    (void)state;
    static const struct expected cases[] = {
        {"<|start|>assistant", "<|channel|>final<|message|>b<|end|>", "", "b", "b"},
        {"<|start|>assistant<|channel|>final<|message|>", "b<|end|>", "", "b", "b"},
        {"<|start|>assistant",
         "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>\nb<|end|>", "a", "b",
         "\033[2ma\n\033[22mb"},
    };
    struct made m;
    make(&m);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int dimmed = 0; dimmed < 2; dimmed++)
            check(&m, &cases[i], true, dimmed);
    unmake(&m);
}

static void letters_do_not_end_it(void **state)
{
    (void)state;
    static const char opens[] = "<|channel|>final<|message|>", said[] = "It is <|end|>, I think.";
    struct made m;
    struct thoughts h = {.dimmed = true};
    size_t n;
    int32_t *ids;
    make(&m);
    FILE *out = fopen("/dev/null", "w");
    struct utf8_stream stream = {.out = out};
    assert_int_equal(tokenizer_encode(m.t, opens, strlen(opens), false, true, &ids, &n), ST_OK);
    assert_int_equal(thoughts_begin(&h, m.t, ids, n), ST_OK);
    for (size_t i = 0; i < strlen(said); i++)
        assert_int_equal(thoughts_take(&h, m.t, (uint8_t)said[i], &stream), ST_OK);
    assert_false(h.ended);
    assert_int_equal(thoughts_end(&h, &stream), ST_OK);
    assert_string_equal(h.answer.at, said);
    fclose(out);
    free(ids);
    thoughts_free(&h);
    unmake(&m);
}

/* A control token that is no mark is nothing in an answer. */
static void other_control_tokens_are_left_out(void **state)
{
    (void)state;
    struct made m;
    make(&m);
    check(&m, &(struct expected){"", "<|END_THINKING|>a</think>b", "", "ab", "ab"}, true, true);
    unmake(&m);
}

/* Who goes on behind the last message of the turn would next write what the user says. */
static void a_second_final_message_is_none(void **state)
{
    (void)state;
    static const char said[] = "<|channel|>final<|message|>b<|end|><|start|>user<|message|>c<|end|><|start|>assistant"
                               "<|channel|>final<|message|>d";
    struct made m;
    struct thoughts h = {.dimmed = false};
    char *written = NULL;
    size_t n_written, n, i;
    int32_t *ids;
    make(&m);
    FILE *out = open_memstream(&written, &n_written);
    struct utf8_stream stream = {.out = out};
    assert_int_equal(tokenizer_encode(m.t, said, strlen(said), false, true, &ids, &n), ST_OK);
    assert_int_equal(thoughts_begin(&h, m.t, ids, 0), ST_OK);
    for (i = 0; i < n && !h.ended; i++)
        assert_int_equal(thoughts_take(&h, m.t, ids[i], &stream), ST_OK);
    assert_true(h.ended && i < n);
    for (; i < n; i++)
        assert_int_equal(thoughts_take(&h, m.t, ids[i], &stream), ST_OK);
    assert_int_equal(thoughts_end(&h, &stream), ST_OK);
    assert_string_equal(h.answer.at, "b");
    utf8_end(&stream);
    fclose(out);
    assert_string_equal(written, "<|channel|>final<|message|>b<|end|>");
    free(written);
    free(ids);
    thoughts_free(&h);
    unmake(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thoughts_are_told_from_answers),
        cmocka_unit_test(a_token_ends_the_final_message),
        cmocka_unit_test(letters_do_not_end_it),
        cmocka_unit_test(other_control_tokens_are_left_out),
        cmocka_unit_test(a_second_final_message_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
