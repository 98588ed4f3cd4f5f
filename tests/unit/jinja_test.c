/* Chat templates by Jinja: the helper against what jinja2 prints (tests/vectors/make_jinja.py), token for token, and
 * against templates that mean harm.
 *
 * HEARTH_TEST_TEMPLATES: a folder of *.jinja to be held against jinja2 as well; HEARTH_TEST_PYTHON: what runs that (one
 * that has transformers lets that render). HEARTH_TEST_BROKEN_TEMPLATES: how many broken templates are tried. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>
#include <jansson.h>

#include "base/log.h"
#include "model/jinja/answer.h"
#include "model/jinja/render.h"
#include "model/jinja/writer.h"
#include "model/tokenizer_internal.h"
#include "tests/unit/alloc_fail.h"
#include "tests/unit/made_file.h"

static struct log_catcher caught;
static const struct jinja_limits limits = {.python = "/usr/bin/python3", .wait_ms = 60000, .cpu_s = 60,
                                           .memory = UINT64_C(1) << 30, .output = 20 << 20};

static const char *get(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static json_t *vectors(void)
{
    json_error_t error;
    json_t *j = json_load_file(TEST_DATA "/jinja.json", 0, &error);
    if (!j)
        fail_msg("jinja.json:%d: %s", error.line, error.text);
    return j;
}

/* --- a made model file: a template, and a vocabulary of control tokens and bytes --- */

static void put_vocabulary(struct gguf_writer *w, const json_t *controls)
{
    const size_t n = json_array_size(controls), all = 1 + n + 256;
    gguf_key_array(w, "tokenizer.ggml.tokens", GGUF_STRING, all);
    gguf_put_string(w, "<unk>");
    for (size_t i = 0; i < n; i++)
        gguf_put_string(w, json_string_value(json_array_get(controls, i)));
    made_put_bytes(w);
    gguf_key_array(w, "tokenizer.ggml.token_type", GGUF_I32, all);
    for (size_t i = 0; i < all; i++)
        gguf_put_uint(w, i == 0 ? 2 : i <= n ? 3 : 1, 4);
}

static void put_token(struct gguf_writer *w, const char *key, const json_t *controls, const char *text)
{
    for (size_t i = 0; i < json_array_size(controls); i++)
        if (!strcmp(json_string_value(json_array_get(controls, i)), text))
            gguf_key_u32(w, key, (uint32_t)i + 1);
}

/* The control tokens are those given and <s> and </s>, which are BOS and EOS. */
static void make_with_tools(struct made *m, const char *template, const char *for_tools, const json_t *more_controls)
{
    json_t *controls = more_controls ? json_copy((json_t *)more_controls) : json_array(), *control;
    const char *const own[] = {"<s>", "</s>"};
    for (int i = 0; i < 2; i++) {
        size_t k, there = 0;
        json_array_foreach(controls, k, control)
            there |= !strcmp(json_string_value(control), own[i]);
        if (!there)
            json_array_append_new(controls, json_string(own[i]));
    }
    gguf_writer_begin(&m->w, "GGUF", 3);
    gguf_key_string(&m->w, "tokenizer.ggml.model", "gpt2");
    gguf_key_string(&m->w, "tokenizer.ggml.pre", "default");
    gguf_key_string(&m->w, "tokenizer.chat_template", template);
    gguf_key_string(&m->w, "tokenizer.chat_template.tool_use", for_tools);
    put_vocabulary(&m->w, controls);
    gguf_key_strings(&m->w, "tokenizer.ggml.merges", (const char *const[]){"a b"}, 1);
    put_token(&m->w, "tokenizer.ggml.bos_token_id", controls, "<s>");
    put_token(&m->w, "tokenizer.ggml.eos_token_id", controls, "</s>");
    gguf_key_uint(&m->w, "tokenizer.ggml.add_bos_token", GGUF_BOOL, 0);
    json_decref(controls);
    made_open(m);
}

static void make(struct made *m, const char *template, const json_t *more_controls)
{
    make_with_tools(m, template, "{{ tools }}", more_controls);
}

/* --- against jinja2 --- */

static struct jinja_chat chat_of(const json_t *c)
{
    const json_t *tools = json_object_get(c, "tools");
    return (struct jinja_chat){.messages = json_object_get(c, "messages"), .tools = json_is_array(tools) ? tools : NULL,
                               .reply = json_is_true(json_object_get(c, "reply")),
                               .now = {.tm_year = 126, .tm_mon = 10, .tm_mday = 5, .tm_hour = 9, .tm_min = 8,
                                       .tm_sec = 7}};
}

static status render(struct jinja_process *p, const struct made *m, const json_t *c, struct chat_text *out)
{
    struct chat_template t;
    struct jinja_chat chat = chat_of(c);
    assert_int_equal(chat_template_of(m->g, m->t, NULL, &t), ST_OK);
    log_catch(&caught);
    status st = jinja_render(p, "test.gguf", &t, &chat, out);
    log_catch(NULL);
    return st;
}

static void encode(const struct made *m, const struct chat_text *text, bool marked, int32_t **ids, size_t *n)
{
    assert_int_equal(tokenizer_encode_chat(m->t, text->at, text->n, text->contents, marked ? text->n_contents : 0, ids,
                                           n), ST_OK);
}

static bool is_greek(char c)
{
    return ((uint8_t)c & 0xfe) == 0xce; /* the first byte of a letter */
}

/* Greek letters were said, wherever they come out. */
static void check_greek(const struct chat_text *text, const char *where)
{
    size_t i = 0, in = 0;
    for (size_t k = 0; k < text->n_contents; k++) {
        assert_true(text->contents[k].begin >= i && text->contents[k].end > text->contents[k].begin);
        for (; i < text->contents[k].begin; i++)
            if (is_greek(text->at[i]))
                fail_msg("%s: what was said counts as the template's at byte %zu of\n%s", where, i, text->at);
        in += text->contents[k].end - i;
        i = text->contents[k].end;
    }
    assert_true(i <= text->n && in <= text->n);
    for (; i < text->n; i++)
        assert_false(is_greek(text->at[i]));
}

static void check_case(struct jinja_process *p, const struct made *m, const json_t *c, const char *where)
{
    struct chat_text text;
    int32_t *ids, *plain;
    size_t n, n_plain;
    const char *expected = get(c, "text");
    status st = render(p, m, c, &text);
    if (!expected) {
        assert_int_equal(st, ST_USAGE);
        assert_non_null(strstr(caught.first_error, "test.gguf: its chat template cannot write this conversation: "));
        return;
    }
    if (st != ST_OK)
        fail_msg("%s: %s", where, caught.first_error);
    if (strcmp(text.at, expected))
        fail_msg("%s: expected\n%s\nfound\n%s", where, expected, text.at);
    check_greek(&text, where);
    encode(m, &text, true, &ids, &n);
    encode(m, &text, false, &plain, &n_plain);
    if (strcmp(get(c, "name"), "thought in content") && strcmp(get(c, "name"), "odd role") &&
        (n != n_plain || memcmp(ids, plain, n * sizeof *ids) != 0))
        fail_msg("%s: not all control tokens of the template are tokens in\n%s", where, expected);
    free(ids);
    free(plain);
    chat_text_free(&text);
}

/* Where a family is built in, it gives the same. Whether it is. */
static bool check_family(const struct made *m, const json_t *c, const char *where)
{
    struct chat_template t;
    struct chat_message messages[16];
    struct chat_text text;
    const json_t *item;
    size_t i, n = json_array_size(json_object_get(c, "messages"));
    assert_int_equal(chat_template_of(m->g, m->t, NULL, &t), ST_OK);
    if (!t.family || json_is_array(json_object_get(c, "tools")))
        return false;
    json_array_foreach(json_object_get(c, "messages"), i, item) {
        messages[i] = (struct chat_message){get(item, "role"), get(item, "content")};
        if (!messages[i].content || json_object_get(item, "tool_calls"))
            return false;
    }
    if (!chat_template_writes(&t, messages, n, json_is_true(json_object_get(c, "reply"))))
        return false;
    assert_int_equal(chat_format(&t, messages, n, json_is_true(json_object_get(c, "reply")), &text), ST_OK);
    if (!get(c, "text") || strcmp(text.at, get(c, "text")))
        fail_msg("%s: the family %s differs from jinja2:\n%s\n%s", where, chat_template_name(&t), text.at,
                 get(c, "text"));
    chat_text_free(&text);
    return true;
}

/* The number of control tokens in a conversation in which everybody says the same; -1: the template refuses it. */
static int64_t count_controls(struct jinja_process *p, const struct made *m, const char *said, bool system)
{
    struct chat_text text;
    int32_t *ids;
    size_t n;
    json_t *c = json_pack("{s:[{s:s,s:s},{s:s,s:s},{s:s,s:s},{s:s,s:s}],s:b}", "messages",
                          "role", system ? "system" : "user", "content", said, "role", system ? "user" : "assistant",
                          "content", said, "role", system ? "assistant" : "user", "content", said,
                          "role", system ? "user" : "assistant", "content", said, "reply", 1);
    status st = render(p, m, c, &text);
    json_decref(c);
    if (st != ST_OK)
        return -1;
    encode(m, &text, true, &ids, &n);
    int64_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += (m->t->pieces[ids[i]].flags & PIECE_CONTROL) != 0;
    free(ids);
    chat_text_free(&text);
    return count;
}

/* Whatever is said, there are as many control tokens as if it were harmless. What ends a thought is left out: templates
 * look for it, and rightly so. */
static void check_attack(struct jinja_process *p, const struct made *m, const json_t *f)
{
    char attack[8192] = "x";
    const json_t *control;
    size_t i;
    json_array_foreach(json_object_get(f, "controls"), i, control)
        if (!strstr(json_string_value(control), "think") && !strstr(json_string_value(control), "THINK"))
            snprintf(attack + strlen(attack), sizeof attack - strlen(attack), "%s%s", json_string_value(control),
                     i % 2 ? "" : "x");
    strcat(attack, "x");
    for (int system = 0; system < 2; system++) {
        int64_t harmless = count_controls(p, m, "x", system), found = count_controls(p, m, attack, system);
        if (harmless != found)
            fail_msg("%s: %lld control tokens, expected %lld", get(f, "name"), (long long)found, (long long)harmless);
    }
}

static void check_templates(const json_t *templates, int *n_written, int *n_refused, int *n_families)
{
    struct jinja_process p = {.limits = limits};
    const json_t *f, *c;
    size_t i, j;
    json_array_foreach(templates, i, f) {
        struct made m;
        make(&m, get(f, "template"), json_object_get(f, "controls"));
        json_array_foreach(json_object_get(f, "cases"), j, c) {
            char where[256];
            snprintf(where, sizeof where, "%s, %s", get(f, "name"), get(c, "name"));
            check_case(&p, &m, c, where);
            *n_families += check_family(&m, c, where);
            *n_written += get(c, "text") != NULL;
            *n_refused += get(c, "text") == NULL;
        }
        check_attack(&p, &m, f);
        unmake(&m);
    }
    jinja_process_end(&p);
}

static void own_templates_equal_jinja(void **state)
{
    (void)state;
    int written = 0, refused = 0, families = 0;
    json_t *templates = vectors();
    assert_true(json_array_size(templates) >= 5);
    check_templates(templates, &written, &refused, &families);
    assert_true(written >= 50 && refused >= 5);
    json_decref(templates);
}

static void known_templates_equal_jinja(void **state)
{
    (void)state;
    const char *folder = getenv("HEARTH_TEST_TEMPLATES"), *python = getenv("HEARTH_TEST_PYTHON");
    char command[1024];
    int written = 0, refused = 0, families = 0;
    if (!folder || !*folder)
        skip();
    snprintf(command, sizeof command, "%s '%s/make_jinja.py' '%s'", python ? python : "/usr/bin/python3", TEST_DATA,
             folder);
    FILE *in = popen(command, "r");
    json_t *templates = json_loadf(in, 0, NULL);
    assert_int_equal(pclose(in), 0);
    check_templates(templates, &written, &refused, &families);
    printf("%zu templates: %d conversations equal, %d refused by both; of families too %d\n",
           json_array_size(templates), written, refused, families);
    assert_true(json_array_size(templates) > 0);
    json_decref(templates);
}

/* --- templates that mean harm --- */

static const char *const short_chat = "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"reply\":true}";

/* Renders a template for a greeting with these limits. */
static status try(struct jinja_process *p, const char *template, struct chat_text *out)
{
    struct made m;
    json_t *c = json_loads(short_chat, 0, NULL);
    make(&m, template, NULL);
    status st = render(p, &m, c, out);
    unmake(&m);
    json_decref(c);
    if (st != ST_OK) {
        assert_true(caught.first_error[0] && strlen(caught.first_error) < 512);
        for (const char *at = caught.first_error; *at; at++)
            assert_true(*at >= ' ' && *at <= '~');
    }
    return st;
}

static void expect_greeting(struct jinja_process *p)
{
    struct chat_text text;
    assert_int_equal(try(p, "{{ messages[0].content }}!", &text), ST_OK);
    assert_string_equal(text.at, "Hi!");
    assert_int_equal(text.n_contents, 1);
    chat_text_free(&text);
}

static void harmful_templates_are_one_line(void **state)
{
    (void)state;
    static const struct { const char *template, *says; status st; } cases[] = {
        {"{{ raise_exception('not\n\033[1m you') }}", "not??[1m you", ST_USAGE},
        {"{{ 'a' * 10**10 }}", "memory", ST_USAGE},
        {"{% set n = namespace(a='aaaaaaaa') %}{% for i in range(40) %}{% set n.a = n.a + n.a %}{% endfor %}", "memory",
         ST_USAGE},
        {"{% for i in range(30000) %}{{ 'a' * 1000 }}{% endfor %}", "more than 20971520 bytes", ST_USAGE},
        {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "too deep", ST_USAGE},
        {"{{ messages[5].content.x }}", "has no element 5", ST_USAGE},
        {"{% if %}", "Expected an expression", ST_USAGE},
        {"{{ messages.append(1) }}", "unsafe", ST_USAGE},
        {"{% include '/etc/passwd' %}", "no loader", ST_USAGE},
        {"{% import 'os' as os %}", "no loader", ST_USAGE},
        {"{{ ''.__class__.__mro__ }}", "unsafe", ST_USAGE},
        {"{{ raise_exception.__globals__['os'] }}", "unsafe", ST_USAGE},
        {"{{ namespace(__class__=1) }}", "namespace", ST_USAGE},
        {"{{ '\\ud800' }}", "utf-8", ST_USAGE},
        {"{{ range(100) | random }}{{ range(100) | random }}{{ range(1000) | random }}", "cannot be told", ST_USAGE},
        {"{{ 1 / 0 }}", "division by zero", ST_USAGE},
        {"{% set n = namespace(a=[]) %}{% for i in range(3000) %}{% set n.a = [n.a] %}{% endfor %}"
         "{{ raise_exception(n.a) }}", "TemplateError", ST_USAGE},
        {"\xff", "UTF-8", ST_UNSUPPORTED},
    };
    struct jinja_process p = {.limits = limits};
    struct chat_text text;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        status st = try(&p, cases[i].template, &text);
        if (st != cases[i].st || !strstr(caught.first_error, cases[i].says))
            fail_msg("%s: %s: %s", cases[i].template, status_name(st), caught.first_error);
        expect_greeting(&p);
    }
    jinja_process_end(&p);
}

static void endless_templates_are_stopped(void **state)
{
    (void)state;
    static const char loop[] = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}";
    struct jinja_process p = {.limits = limits};
    struct chat_text text;
    p.limits.wait_ms = 500;
    assert_int_equal(try(&p, loop, &text), ST_BUDGET);
    assert_non_null(strstr(caught.first_error, "not done after 0.5 s"));
    p.limits.wait_ms = limits.wait_ms;
    p.limits.cpu_s = 1;
    assert_int_equal(p.pid, 0);
    assert_int_equal(try(&p, loop, &text), ST_BUDGET);
    assert_non_null(strstr(caught.first_error, "ended the process"));
    assert_int_equal(p.pid, 0);
    expect_greeting(&p);
    jinja_process_end(&p);
}

/* A line of a file under /proc/PID. */
static void proc_line(pid_t pid, const char *file, const char *begin, char line[256])
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, 256, f) && strncmp(line, begin, strlen(begin)) != 0)
        ;
    fclose(f);
}

/* The helper has no files, no environment, no new ones to come, and few system calls. */
static void the_helper_has_nothing(void **state)
{
    (void)state;
    struct jinja_process p = {.limits = limits};
    char line[256] = "", path[64];
    int open_here = open("/dev/null", O_RDONLY); /* without O_CLOEXEC */
    expect_greeting(&p);
    pid_t pid = p.pid;
    proc_line(pid, "limits", "Max open files", line);
    assert_non_null(strstr(line, " 0 "));
    proc_line(pid, "limits", "Max file size", line);
    assert_non_null(strstr(line, " 0 "));
    proc_line(pid, "limits", "Max address space", line);
    assert_non_null(strstr(line, " 1073741824 "));
    proc_line(pid, "status", "Seccomp:", line);
#if defined(__x86_64__) || defined(__aarch64__)
    assert_string_equal(line, "Seccomp:\t2\n");
#endif
    line[0] = 0;
    proc_line(pid, "environ", "", line);
    assert_string_equal(line, "");
    for (int fd = 3; fd < 64; fd++) {
        snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
        assert_int_not_equal(access(path, F_OK), 0);
    }
    assert_int_not_equal(getpgid(pid), getpgrp());
    expect_greeting(&p);
    assert_int_equal(p.pid, pid); /* it is kept */
    kill(pid, SIGKILL);
    expect_greeting(&p); /* and replaced if it has ended */
    assert_int_not_equal(p.pid, pid);
    jinja_process_end(&p);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* none is left */
    close(open_here);
}

/* Writes an interpreter of one line. */
static void interpreter(char path[64], const char *script)
{
    strcpy(path, "/tmp/hearth-jinja-test-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, 0700), 0);
    assert_true(dprintf(fd, "#!/bin/sh\n%s\n", script) > 0);
    close(fd);
}

static void a_missing_helper_names_the_package(void **state)
{
    (void)state;
    static const struct { const char *script, *says; status st; } cases[] = {
        {NULL, "python3-jinja2", ST_UNSUPPORTED},
        {"exec /usr/bin/python3 -S \"$@\"", "python3-jinja2", ST_UNSUPPORTED}, /* it has no packages */
        {"exit 0", "ended the process", ST_BUDGET},
        {"cat", "no answer", ST_FORMAT},
        {"printf '\\377\\377\\377\\377'", "4294967295 bytes, expected at most 1024", ST_FORMAT},
        {"printf '\\001\\000\\000\\000\\007'", "no answer", ST_FORMAT},
        {"printf '\\005\\000\\000\\000\\000\\003\\000\\000\\000'", "no pieces", ST_FORMAT},
        {"printf '\\011\\000\\000\\000\\000'", "ended the process", ST_BUDGET},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[64] = "/nowhere/python3";
        struct jinja_process p = {.limits = limits};
        struct chat_text text;
        if (cases[i].script)
            interpreter(path, cases[i].script);
        p.limits.python = path;
        p.limits.output = 1 << 10;
        status st = try(&p, "{{ messages }}", &text);
        if (st != cases[i].st || !strstr(caught.first_error, cases[i].says))
            fail_msg("%s: %s: %s", cases[i].script, status_name(st), caught.first_error);
        assert_int_equal(p.pid, 0);
        unlink(path);
    }
}

/* --- broken templates --- */

static uint64_t random_bits(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    return *s ^= *s << 17;
}

/* Takes out, repeats or changes a few bytes of a template. */
static void damage(char *text, size_t cap, uint64_t *s)
{
    for (int i = 0; i < 1 + (int)(random_bits(s) % 4); i++) {
        const size_t n = strlen(text), at = random_bits(s) % n, most = n - at < 24 ? n - at : 24;
        const size_t length = 1 + random_bits(s) % most;
        switch (random_bits(s) % 3) {
        case 0:
            memmove(text + at, text + at + length, n - at - length + 1);
            break;
        case 1:
            if (n + length < cap)
                memmove(text + at + length, text + at, n - at + 1);
            break;
        default:
            text[at] = (char)("{}%|'\"()[]-~.x1 \n\xff"[random_bits(s) % 19]);
        }
        if (!*text)
            strcpy(text, "x");
    }
}

static void broken_templates_are_one_line_each(void **state)
{
    (void)state;
    const char *asked = getenv("HEARTH_TEST_BROKEN_TEMPLATES");
    const int n = asked && *asked ? atoi(asked) : 100;
    struct jinja_process p = {.limits = limits};
    json_t *templates = vectors();
    uint64_t seed = 88172645463325252u;
    int written = 0;
    for (int i = 0; i < n; i++) {
        const json_t *f = json_array_get(templates, (size_t)i % json_array_size(templates));
        char text[8192];
        struct chat_text out;
        snprintf(text, sizeof text, "%s", get(f, "template"));
        damage(text, sizeof text, &seed);
        status st = try(&p, text, &out);
        if (st == ST_OK) {
            chat_text_free(&out);
            written++;
        } else if (st != ST_USAGE && st != ST_UNSUPPORTED && st != ST_BUDGET) {
            fail_msg("%s: %s in\n%s", status_name(st), caught.first_error, text);
        }
    }
    expect_greeting(&p);
    printf("of %d broken templates %d write something all the same\n", n, written);
    jinja_process_end(&p);
    json_decref(templates);
}

/* --- answers --- */

static status decode(const void *bytes, size_t n, struct chat_text *out)
{
    uint8_t *copy = malloc(n ? n : 1); /* what is read behind its end, AddressSanitizer sees */
    if (n)
        memcpy(copy, bytes, n);
    log_catch(&caught);
    status st = jinja_answer_decode(copy, n, "test.gguf", out);
    log_catch(NULL);
    free(copy);
    return st;
}

static void answers_are_decoded_strictly(void **state)
{
    (void)state;
    static const char good[] = "\0\4\0\0\0ab\3\0\0\0c\2\0\0\0d";
    struct chat_text text;
    assert_int_equal(decode(good, sizeof good - 1, &text), ST_OK);
    assert_string_equal(text.at, "abcd");
    assert_int_equal(text.n, 4);
    assert_int_equal(text.n_contents, 2);
    assert_memory_equal(text.contents, ((struct text_span[]){{0, 2}, {3, 4}}), 2 * sizeof *text.contents);
    chat_text_free(&text);
    for (size_t n = 0; n < sizeof good - 1; n++) { /* whole pieces are a shorter answer */
        bool whole = n == 1 || n == 7 || n == 12;
        assert_int_equal(decode(good, n, &text), whole ? ST_OK : ST_FORMAT);
        if (whole)
            chat_text_free(&text);
    }
    static const struct { const char *bytes; size_t n; } bad[] = {
        {"\0\0\0\0\0", 5}, {"\0\1\0\0\0", 5}, {"\0\2\0\0\0a\2\0\0\0b", 11}, {"\0\3\0\0\0a\3\0\0\0b", 11},
        {"\0\xff\xff\xff\xff", 5}, {"\3", 1}, {"\xff", 1},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(decode(bad[i].bytes, bad[i].n, &text), ST_FORMAT);
    assert_int_equal(decode("\1why\n\033\x80", 7, &text), ST_USAGE);
    assert_non_null(strstr(caught.first_error, ": why???"));
    assert_int_equal(decode("\2No module", 10, &text), ST_UNSUPPORTED);
    assert_non_null(strstr(caught.first_error, "No module"));
    assert_non_null(strstr(caught.first_error, "python3-jinja2"));
}

/* --- writers --- */

static status open_writer(const struct made *m, const char *name, struct chat_writer **w)
{
    log_catch(&caught);
    status st = chat_writer_open(m->g, m->t, name, w);
    log_catch(NULL);
    return st;
}

static status write_with_tools(struct chat_writer *w, const char *json, json_t *tools, struct chat_text *text)
{
    json_t *messages = json_loads(json, JSON_DECODE_ANY, NULL);
    assert_non_null(messages);
    log_catch(&caught);
    status st = chat_messages_check(messages, "test.json");
    if (st == ST_OK)
        st = chat_writer_text(w, messages, tools, NULL, true, text);
    log_catch(NULL);
    json_decref(messages);
    json_decref(tools);
    return st;
}

static status write_text(struct chat_writer *w, const char *json, struct chat_text *text)
{
    return write_with_tools(w, json, NULL, text);
}

/* Where the template makes control tokens of pieces whose origin is lost, they would be none: it is refused by name. */
static void templates_that_hide_their_words_are_refused(void **state)
{
    (void)state;
    struct made m;
    struct chat_writer *w = NULL;
    json_t *controls = json_pack("[s]", "<|user|>");
    make(&m, "{% for m in messages %}{{ ('<|' ~ m.role ~ '|>') | title | lower }}{{ m.content }}{% endfor %}",
         controls);
    assert_int_equal(open_writer(&m, NULL, &w), ST_UNSUPPORTED);
    assert_null(w);
    assert_non_null(strstr(caught.first_error, "test.gguf"));
    assert_non_null(strstr(caught.first_error, "--chat-template"));
    assert_int_equal(open_writer(&m, "chatml", &w), ST_OK);
    chat_writer_close(w);
    unmake(&m);
    json_decref(controls);
}

/* Also where a user never writes what makes them: in what tools say. Constants that Jinja folds keep their marks. */
static void every_kind_of_message_is_tried(void **state)
{
    (void)state;
    struct made m;
    struct chat_writer *w = NULL;
    json_t *controls = json_pack("[s, s, s]", "<|user|>", "<|tool|>", "<|assistant|>");
    make(&m, "{% for m in messages %}{% if m.role == 'tool' %}{{ '<|%s|>' % m.role }}{% else %}{{ '<|' ~ m.role ~ '|>' "
         "}}{% endif %}{{ m.content }}{% endfor %}", controls);
    assert_int_equal(open_writer(&m, NULL, &w), ST_UNSUPPORTED);
    assert_null(w);
    unmake(&m);
    make(&m, "{% for m in messages %}{{ {'user': '<|user|>', 'assistant': '<|assistant|>'}[m.role] }}"
         "{{ ('<|user|>', '<|tool|>')[m.role == 'tool'] }}{{ m.content }}{% endfor %}", controls);
    assert_int_equal(open_writer(&m, NULL, &w), ST_OK);
    chat_writer_close(w);
    unmake(&m);
    json_decref(controls);
}

/* The file's template for tools is tried when tools first come; until then it is in nobody's way. */
static void the_template_for_tools_is_tried(void **state)
{
    (void)state;
    static const char question[] = "[{\"role\": \"user\", \"content\": \"a\"}]";
    struct made m;
    struct chat_writer *w;
    struct chat_text text;
    json_t *controls = json_pack("[s]", "<|user|>");
    make_with_tools(&m, "{{ messages[0].content }}",
                    "{% for m in messages %}{{ ('<|' ~ m.role ~ '|>') | title | lower }}{{ m.content }}{% endfor %}",
                    controls);
    assert_int_equal(open_writer(&m, NULL, &w), ST_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(write_text(w, question, &text), ST_OK);
        chat_text_free(&text);
        assert_int_equal(write_with_tools(w, question, json_pack("[{s:s}]", "type", "function"), &text),
                         ST_UNSUPPORTED);
        assert_non_null(strstr(caught.first_error, "--chat-template"));
    }
    chat_writer_close(w);
    unmake(&m);
    json_decref(controls);
}

/* So is what one template writes for tools alone, also where it is a family's without them. */
static void what_a_template_writes_for_tools_is_tried(void **state)
{
    (void)state;
#define FOR_TOOLS "{% if tools %}{{ ('<|' ~ tools[0].type ~ '|>') | title | lower }}{% endif %}"
    static const char *const templates[] = {
        FOR_TOOLS "{{ messages[0].content }}",
        FOR_TOOLS "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
        "{% endfor %}",
    };
    static const char question[] = "[{\"role\": \"user\", \"content\": \"a\"}]";
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
        struct made m;
        struct chat_writer *w;
        struct chat_text text;
        json_t *controls = json_pack("[s, s, s]", "<|function|>", "<|im_start|>", "<|im_end|>");
        make_with_tools(&m, templates[i], "", controls);
        assert_int_equal(open_writer(&m, NULL, &w), ST_OK);
        assert_int_equal(write_text(w, question, &text), ST_OK);
        chat_text_free(&text);
        json_t *tools = json_pack("[{s:s}]", "type", "function");
        assert_int_equal(write_with_tools(w, question, tools, &text), ST_UNSUPPORTED);
        assert_non_null(strstr(caught.first_error, "--chat-template"));
        chat_writer_close(w);
        unmake(&m);
        json_decref(controls);
    }
}

static void tokens_that_are_no_text_are_refused(void **state)
{
    (void)state;
    struct jinja_process p = {.limits = limits};
    const struct jinja_chat chat = {.messages = json_array()};
    const struct chat_template t = {.text = {"{{ bos_token }}", 15}, .bos = {"\xff", 1}, .eos = {"", 0}};
    struct chat_text text;
    log_catch(&caught);
    assert_int_equal(jinja_render(&p, "test.gguf", &t, &chat, &text), ST_UNSUPPORTED);
    log_catch(NULL);
    assert_non_null(strstr(caught.first_error, "BOS or EOS, is no text in UTF-8"));
    json_decref((json_t *)chat.messages);
}

static void messages_are_checked(void **state)
{
    (void)state;
    static const char *const bad[] = {"[]", "{}", "1", "[1]", "[{}]", "[{\"role\":1}]",
                                      "[{\"role\":\"user\",\"content\":1}]", "[{\"role\":\"user\",\"content\":{}}]"};
    struct chat_text text;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(write_text(NULL, bad[i], &text), ST_USAGE);
        assert_non_null(strstr(caught.first_error, "test.json: "));
    }
}

/* A named family writes what it can; a template what it is given, also bytes that are no UTF-8. */
static void writers_write(void **state)
{
    (void)state;
    struct made m;
    struct chat_writer *w;
    struct chat_text text;
    make(&m, "{% for m in messages %}{{ m.role[0] ~ ':' ~ (m.content or m.tool_calls) }}|{% endfor %}", NULL);
    assert_int_equal(open_writer(&m, "chatml", &w), ST_OK);
    assert_int_equal(write_text(w, "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"b\"}]",
                                &text), ST_OK);
    assert_non_null(strstr(text.at, "<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n"));
    chat_text_free(&text);
    assert_int_equal(write_text(w, "[{\"role\":\"assistant\",\"content\":\"a\",\"reasoning_content\":\"b\"}]", &text),
                     ST_OK);
    /* Thoughts stay here. */
    assert_string_equal(text.at, "<|im_start|>assistant\na<|im_end|>\n<|im_start|>assistant\n");
    chat_text_free(&text);
    assert_int_equal(write_text(w, "[{\"role\":\"user\",\"tool_calls\":[1]}]", &text), ST_USAGE);
    assert_non_null(strstr(caught.first_error, "chatml"));
    chat_writer_close(w);
    assert_int_equal(open_writer(&m, NULL, &w), ST_OK);
    assert_int_equal(write_text(w, "[{\"role\":\"user\",\"content\":null,\"tool_calls\":[1,0.5]}]", &text), ST_OK);
    assert_string_equal(text.at, "u:[1, 0.5]|");
    chat_text_free(&text);
    assert_int_equal(write_with_tools(w, "[{\"role\":\"user\"}]", json_pack("[i]", 1), &text), ST_OK);
    assert_string_equal(text.at, "[1]"); /* the template for tools */
    chat_text_free(&text);
    json_t *broken = json_pack("[{s:s, s:o}]", "role", "user", "content",
                               json_string_nocheck("a\xff\xc3\xa9\xe2\x82z\xed\xa0\x80"));
    assert_int_equal(chat_writer_text(w, broken, NULL, NULL, true, &text), ST_OK);
    assert_string_equal(text.at, "u:a\uFFFDé\uFFFD\uFFFDz\uFFFD\uFFFD\uFFFD|");
    chat_text_free(&text);
    json_decref(broken);
    chat_writer_close(w);
    unmake(&m);
}

static void failed_allocations_are_reported(void **state)
{
    (void)state;
    struct made m;
    struct chat_writer *w;
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", "x");
    int32_t *ids = NULL;
    size_t n_ids;
    status st;
    long n;
    make(&m, "{{ messages[0].content }}!", NULL);
    assert_int_equal(open_writer(&m, NULL, &w), ST_OK);
    log_catch(&caught);
    for (n = 0; alloc_fail_at(n), st = chat_writer_encode(w, messages, NULL, NULL, true, &ids, &n_ids), alloc_failed();
         n++) {
        assert_int_equal(st, ST_NOMEM);
        assert_null(ids);
        assert_non_null(strstr(caught.first_error, "memory"));
        log_catch(&caught);
    }
    log_catch(NULL);
    assert_int_equal(st, ST_OK);
    assert_int_equal(n_ids, 2);
    assert_true(n > 3);
    free(ids);
    chat_writer_close(w);
    json_decref(messages);
    unmake(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_templates_equal_jinja),
        cmocka_unit_test(known_templates_equal_jinja),
        cmocka_unit_test(harmful_templates_are_one_line),
        cmocka_unit_test(endless_templates_are_stopped),
        cmocka_unit_test(the_helper_has_nothing),
        cmocka_unit_test(a_missing_helper_names_the_package),
        cmocka_unit_test(broken_templates_are_one_line_each),
        cmocka_unit_test(answers_are_decoded_strictly),
        cmocka_unit_test(templates_that_hide_their_words_are_refused),
        cmocka_unit_test(every_kind_of_message_is_tried),
        cmocka_unit_test(the_template_for_tools_is_tried),
        cmocka_unit_test(what_a_template_writes_for_tools_is_tried),
        cmocka_unit_test(tokens_that_are_no_text_are_refused),
        cmocka_unit_test(messages_are_checked),
        cmocka_unit_test(writers_write),
        cmocka_unit_test(failed_allocations_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
