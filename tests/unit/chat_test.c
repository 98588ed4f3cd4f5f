/* Chat templates against what jinja2 prints for the families' own templates (tests/vectors/make_chat.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "base/log.h"
#include "model/chat.h"
#include "tests/unit/alloc_fail.h"
#include "tests/unit/gguf_writer.h"

enum { MAX_MESSAGES = 16 };

static struct log_catcher caught;

static json_t *vectors(void)
{
    json_error_t error;
    json_t *j = json_load_file(TEST_DATA "/chat.json", 0, &error);
    if (!j)
        fail_msg("chat.json:%d: %s", error.line, error.text);
    return j;
}

static const char *get(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* What a file with this template and this token as EOS is recognised as. */
static status recognise(const char *template, const char *eos, const struct chat_template **out)
{
    struct gguf_writer w;
    struct gguf *g;
    gguf_writer_begin(&w, "GGUF", 3);
    if (template)
        gguf_key_string(&w, "tokenizer.chat_template", template);
    gguf_key_strings(&w, "tokenizer.ggml.tokens", (const char *[]){"a", eos}, 2);
    gguf_key_u32(&w, "tokenizer.ggml.eos_token_id", 1);
    gguf_writer_end(&w);
    assert_int_equal(gguf_open_bytes(w.bytes, w.n, "test.gguf", &g), ST_OK);
    log_catch(&caught);
    status s = chat_template_of(g, out);
    log_catch(NULL);
    gguf_close(g);
    gguf_writer_free(&w);
    return s;
}

static void families_are_recognised(void **state)
{
    (void)state;
    json_t *families = vectors(), *f;
    size_t i;
    assert_true(json_array_size(families) >= 15);
    json_array_foreach(families, i, f) {
        const struct chat_template *t = NULL;
        assert_int_equal(recognise(get(f, "template"), get(f, "eos"), &t), ST_OK);
        assert_string_equal(chat_template_name(t), get(f, "name"));
    }
    json_decref(families);
}

static size_t read_messages(const json_t *list, struct chat_message *messages)
{
    size_t n = json_array_size(list);
    assert_true(n <= MAX_MESSAGES);
    for (size_t i = 0; i < n; i++) {
        messages[i].role = get(json_array_get(list, i), "role");
        messages[i].content = get(json_array_get(list, i), "content");
    }
    return n;
}

static void check_case(const char *name, const json_t *c)
{
    struct chat_message messages[MAX_MESSAGES];
    size_t n = read_messages(json_object_get(c, "messages"), messages);
    bool reply = json_is_true(json_object_get(c, "reply"));
    const struct chat_template *t;
    char *whole;
    assert_int_equal(chat_template_by_name(name, &t), ST_OK);
    assert_int_equal(chat_format(t, messages, 0, n, reply, &whole), ST_OK);
    if (strcmp(whole, get(c, "text")))
        fail_msg("%s: expected\n%s\nfound\n%s", name, get(c, "text"), whole);
    /* Any cut into two pieces gives the same. */
    for (size_t cut = 0; cut <= n; cut++) {
        char *a, *b;
        assert_int_equal(chat_format(t, messages, 0, cut, false, &a), ST_OK);
        assert_int_equal(chat_format(t, messages, cut, n, reply, &b), ST_OK);
        assert_int_equal(strlen(a) + strlen(b), strlen(whole));
        assert_memory_equal(a, whole, strlen(a));
        assert_string_equal(b, whole + strlen(a));
        free(a);
        free(b);
    }
    free(whole);
}

static void texts_equal_the_templates(void **state)
{
    (void)state;
    json_t *families = vectors(), *f, *c;
    size_t i, j;
    json_array_foreach(families, i, f)
        json_array_foreach(json_object_get(f, "cases"), j, c)
            check_case(get(f, "name"), c);
    json_decref(families);
}

static void unknown_templates_say_what_to_do(void **state)
{
    (void)state;
    static const char *const unknown[] = {
        NULL, "", "{{ messages }}", "<|im_start|>user<|im_sep|>", "<|user|><|assistant|>", "USER: ",
        "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}<|assistant|>",
    };
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        const struct chat_template *t = NULL;
        assert_int_equal(recognise(unknown[i], "</s>", &t), ST_UNSUPPORTED);
        assert_null(t);
        assert_non_null(strstr(caught.first_error, "--chat-template"));
        assert_non_null(strstr(caught.first_error, "mistral-v3-tekken"));
        assert_non_null(strstr(caught.first_error, "vicuna-lines")); /* the last one: the list is whole */
    }
    const struct chat_template *t = NULL;
    log_catch(&caught);
    assert_int_equal(chat_template_by_name("klingon", &t), ST_USAGE);
    assert_int_equal(chat_template_by_name("", &t), ST_USAGE);
    log_catch(NULL);
    assert_null(t);
    assert_non_null(strstr(caught.first_error, "klingon"));
    assert_non_null(strstr(caught.first_error, "chatml"));
}

/* A megabyte of template, of content and of system messages. */
static void long_texts_are_fine(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    char *text = malloc(N + 1), *out;
    const struct chat_template *t;
    memset(text, '[', N);
    text[N] = 0;
    assert_int_equal(recognise(text, "</s>", &t), ST_UNSUPPORTED);
    memcpy(text + N - 12, "<|im_start|>", 12);
    assert_int_equal(recognise(text, "</s>", &t), ST_OK);
    assert_string_equal(chat_template_name(t), "chatml");
    struct chat_message messages[] = {{"system", text}, {"system", text}, {"user", text}, {"tool", "x"}};
    assert_int_equal(chat_template_by_name("llama2", &t), ST_OK);
    assert_int_equal(chat_format(t, messages, 0, 4, true, &out), ST_OK);
    assert_true(strlen(out) > 3 * N);
    free(out);
    assert_int_equal(chat_format(t, messages, 0, 0, false, &out), ST_OK);
    assert_string_equal(out, "");
    free(out);
    free(text);
}

static void a_failed_allocation_is_reported(void **state)
{
    (void)state;
    const struct chat_template *t;
    char *text = NULL;
    assert_int_equal(chat_template_by_name("chatml", &t), ST_OK);
    alloc_fail_at(0);
    assert_int_equal(chat_format(t, &(struct chat_message){"user", "x"}, 0, 1, true, &text), ST_NOMEM);
    assert_true(alloc_failed());
    assert_null(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_are_recognised),
        cmocka_unit_test(texts_equal_the_templates),
        cmocka_unit_test(unknown_templates_say_what_to_do),
        cmocka_unit_test(long_texts_are_fine),
        cmocka_unit_test(a_failed_allocation_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
