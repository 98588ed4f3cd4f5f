/* What clients are told of an answer: thoughts, text, calls of tools, nothing of a stop string; however its text is cut
 * into tokens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/utf8.h"
#include "serve/answer.h"
#include "tests/unit/alloc_fail.h"
#include "tests/unit/made_file.h"

/* Control tokens; files call those of gpt-oss user-defined. */
static const char *const controls[] = {
    "[THINK]", "[/THINK]", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>", "<|eom|>", "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", "<|channel|>", "<|message|>",
    "<|start|>", "<|constrain|>", "<|return|>", "<|call|>", "<|end|>"};
enum { N_CONTROLS = sizeof controls / sizeof *controls, CHUNK = 7 };

static void put_bytes(struct gguf_writer *w, const char *at, size_t n)
{
    char *name = malloc(2 * n + 1), *end = name;
    assert_non_null(name);
    for (size_t i = 0; i < n; i++)
        end += byte_character((uint8_t)at[i], end);
    *end = '\0';
    gguf_put_string(w, name);
    free(name);
}

/* What is put into a vocabulary: words, and those that are parts of a text. */
struct words {
    const char *at[1 << 15];
    size_t length[1 << 15], n;
    int32_t part[1 << 15]; /* token of a part; -1: an empty one */
};

static int32_t word_of(struct words *w, const char *at, size_t length)
{
    for (size_t i = 0; i < w->n; i++)
        if (w->length[i] == length && memcmp(w->at[i], at, length) == 0)
            return (int32_t)i;
    assert_true(w->n < sizeof w->at / sizeof *w->at);
    w->at[w->n] = at;
    w->length[w->n] = length;
    return length ? (int32_t)w->n++ : -1;
}

/* All bytes, and control tokens or (text not NULL) of a text all parts of up to CHUNK bytes, all its beginnings and all
 * its ends. */
static struct words words;

static void make(struct made *m, const char *text)
{
    static char bytes[256];
    const size_t length = text ? strlen(text) : 0, n_controls = text ? 0 : N_CONTROLS;
    words.n = 0;
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        word_of(&words, &bytes[i], 1);
    }
    for (size_t at = 0; at < length; at++) {
        int32_t *part = &words.part[at * (CHUNK + 2)];
        for (size_t chunk = 1; chunk <= CHUNK; chunk++)
            *part++ = word_of(&words, text + at, chunk < length - at ? chunk : length - at);
        *part++ = word_of(&words, text, at);
        *part = word_of(&words, text + at, length - at);
    }
    gguf_writer_begin(&m->w, "GGUF", 3);
    gguf_key_string(&m->w, "tokenizer.ggml.model", "gpt2");
    gguf_key_string(&m->w, "tokenizer.ggml.pre", "default");
    gguf_key_array(&m->w, "tokenizer.ggml.tokens", GGUF_STRING, words.n + n_controls);
    for (size_t i = 0; i < words.n; i++)
        put_bytes(&m->w, words.at[i], words.length[i]);
    for (size_t i = 0; i < n_controls; i++)
        gguf_put_string(&m->w, controls[i]);
    gguf_key_array(&m->w, "tokenizer.ggml.token_type", GGUF_I32, words.n + n_controls);
    for (size_t i = 0; i < words.n + n_controls; i++)
        gguf_put_uint(&m->w, i < words.n ? 1 : 3, 4);
    gguf_key_strings(&m->w, "tokenizer.ggml.merges", (const char *const[]){"a b"}, 1);
    made_open(m);
}

static int32_t part_token(size_t at, size_t which) { return words.part[at * (CHUNK + 2) + which]; }

/* --- what was told --- */

struct told {
    char text[4096];
    size_t n;
    int kind; /* of the last piece; -1: none */
    uint32_t calls;
    char ids[8][40];
};

static void add(struct told *t, const char *at, size_t n)
{
    assert_true(t->n + n < sizeof t->text);
    memcpy(t->text + t->n, at, n);
    t->n += n;
    t->text[t->n] = '\0';
}

/* Text as it is, (thoughts), <name|arguments>. */
static void hear(void *arg, const struct piece *p)
{
    struct told *t = arg;
    size_t length;
    assert_true(p->n > 0);
    for (size_t i = 0; i < p->n; i += length)
        assert_int_equal(utf8_next(p->at + i, p->n - i, &length), UTF8_CHARACTER);
    if (p->kind == PIECE_CALL || (int)p->kind != t->kind) {
        if (t->kind == PIECE_THOUGHT)
            add(t, ")", 1);
        if (t->kind == PIECE_ARGUMENTS)
            add(t, ">", 1);
        if (p->kind == PIECE_THOUGHT || p->kind == PIECE_CALL || p->kind == PIECE_ARGUMENTS)
            add(t, p->kind == PIECE_THOUGHT ? "(" : p->kind == PIECE_CALL ? "<" : "|", 1);
    }
    if (p->kind == PIECE_CALL) {
        assert_int_equal(p->call, t->calls);
        snprintf(t->ids[t->calls % 8], sizeof *t->ids, "%s", p->id);
        t->calls++;
    }
    if (p->kind == PIECE_ARGUMENTS)
        assert_int_equal(p->call, t->calls - 1);
    t->kind = (int)p->kind;
    add(t, p->at, p->n);
}

static void end_told(struct told *t)
{
    if (t->kind == PIECE_THOUGHT)
        add(t, ")", 1);
    if (t->kind == PIECE_ARGUMENTS)
        add(t, ">", 1);
}

static const struct tool_format *format(const char *marks)
{
    struct chat_template t = {.text = {marks, strlen(marks)}};
    return marks ? tool_format_of(&t) : NULL;
}

/* --- cases --- */

#define HERMES "<tool_call>"
#define MISTRAL "[TOOL_CALLS][ARGS]"
#define LIST "[TOOL_CALLS]"
#define LLAMA "\"parameters\": dictionary"
#define GPT_OSS "<|channel|> functions."
#define CODER "<function= <parameter="
#define GLM "<arg_key>"
#define DEEPSEEK "<｜tool▁calls▁begin｜> ```json"
#define DEEPSEEK_31 "<｜tool▁calls▁begin｜>"

struct expected {
    const char *tools; /* marks of a template; NULL: none are read */
    const char *stops[4];
    const char *prompt, *said, *told;
};

static void check(const struct made *m, const struct expected *e, const int32_t *tokens, size_t n)
{
    struct told told = {.kind = -1};
    struct answer *a;
    int32_t *prompt;
    size_t n_prompt, n_stops = 0;
    bool over = false;
    while (e->stops[n_stops])
        n_stops++;
    assert_int_equal(tokenizer_encode(m->t, e->prompt, strlen(e->prompt), false, true, &prompt, &n_prompt), ST_OK);
    const struct answer_options o = {.tokenizer = m->t, .stops = e->stops, .n_stops = n_stops,
                                     .tools = e->tools ? format(e->tools) : NULL, .thoughts = true, .prompt = prompt,
                                     .n_prompt = n_prompt, .id = "chatcmpl-1"};
    assert_int_equal(answer_create(&o, hear, &told, &a), ST_OK);
    free(prompt);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(answer_take(a, tokens[i], &over), ST_OK);
    assert_int_equal(answer_finish(a), ST_OK);
    end_told(&told);
    if (strcmp(told.text, e->told) != 0)
        fail_msg("'%s': expected '%s', found '%s'", e->said, e->told, told.text);
    assert_int_equal(answer_calls(a), told.calls);
    if (answer_stop(a))
        assert_true(over);
    answer_free(a);
}

/* Marks as tokens where there are any, all else byte by byte. */
static void check_tokens(const struct expected *e)
{
    struct made m;
    int32_t *ids;
    size_t n;
    make(&m, NULL);
    assert_int_equal(tokenizer_encode(m.t, e->said, strlen(e->said), false, true, &ids, &n), ST_OK);
    check(&m, e, ids, n);
    free(ids);
    unmake(&m);
}

/* The text in two parts, cut anywhere, and in parts of 1 to CHUNK bytes, from anywhere on. */
static void check_cuts(const struct expected *e)
{
    const size_t length = strlen(e->said);
    int32_t *tokens = malloc((length + 1) * sizeof *tokens);
    struct made m;
    assert_non_null(tokens);
    make(&m, e->said);
    for (size_t cut = 0; cut < length; cut++) {
        tokens[0] = part_token(cut, CHUNK);
        tokens[1] = part_token(cut, CHUNK + 1);
        check(&m, e, tokens + (cut == 0), 2 - (cut == 0));
    }
    for (size_t chunk = 1; chunk <= CHUNK; chunk++) {
        for (size_t from = 0; from < chunk && from < length; from++) {
            size_t n = 0;
            if (from)
                tokens[n++] = part_token(0, from - 1);
            for (size_t at = from; at < length; at += chunk)
                tokens[n++] = part_token(at, chunk - 1);
            check(&m, e, tokens, n);
        }
    }
    free(tokens);
    unmake(&m);
}

/* Encoding a text makes characters of it, so broken ones are only cut. */
static bool is_utf8(const char *text)
{
    size_t length;
    for (size_t n = strlen(text); n; text += length, n -= length)
        if (utf8_next(text, n, &length) != UTF8_CHARACTER)
            return false;
    return true;
}

static void check_all(const struct expected *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (is_utf8(cases[i].said))
            check_tokens(&cases[i]);
        check_cuts(&cases[i]);
    }
}
#define CHECK_ALL(cases) check_all(cases, sizeof cases / sizeof *cases)

static void characters_are_whole(void **state)
{
    (void)state;
    static const struct expected cases[] = {
        {NULL, {0}, "", "Grüße, 日本 🙂!", "Grüße, 日本 🙂!"},
        {NULL, {0}, "", "a\xff" "b\xc3", "a\uFFFDb\uFFFD"},
        {NULL, {0}, "", "\xe2\x82" "a\xf0\x9f\x99" "\xc3\xb6", "\uFFFDa\uFFFDö"},
        {NULL, {0}, "", "\xed\xa0\x80\xc0\xaf", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD"}, /* a surrogate; what is too long */
        {NULL, {"ß"}, "", "Grüße", "Grü"},
    };
    CHECK_ALL(cases);
}

static void thoughts_are_apart(void **state)
{
    (void)state;
    static const struct expected cases[] = {
        {NULL, {0}, "", "<think>\nWell, é.\n</think>\n\nYes.\n", "(Well, é.)Yes.\n"},
        {NULL, {0}, "<think>\n", "Well\n\n</think>\n\nYes", "(Well)Yes"},
        {NULL, {0}, "<think>\n", "cut </thin", "(cut </thin)"},
        {NULL, {0}, "", " \n<thing> is", " \n<thing> is"},
        {NULL, {"Well"}, "", "<think>Well</think>Oh Well", "(Well)Oh "}, /* in thoughts nothing stops */
        {NULL, {0}, "<|start|>assistant",
         "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|> "
         "b<|end|><|start|>assistant<|channel|>final<|message|>c", "(a\nb)c"},
        {HERMES, {0}, "", "<think>a <tool_call> b</think>c", "(a <tool_call> b)c"},
    };
    CHECK_ALL(cases);
}

static void stop_strings_end_it(void **state)
{
    (void)state;
    static const struct expected cases[] = {
        {NULL, {"STOP"}, "", "one STOP two", "one "},
        {NULL, {"STOP"}, "", "one STO", "one STO"},
        {NULL, {"STOP"}, "", "SSTSTOSTOP", "SSTSTO"},
        {NULL, {"aab", "\n\n"}, "", "aaaab", "aa"},
        {NULL, {"bc", "abcd"}, "", "xabcd", "xa"},   /* the first that is whole */
        {NULL, {"d", "bcd", "cd"}, "", "abcd", "a"}, /* of those that end together the longest */
        {NULL, {"x"}, "", "x", ""},
        {HERMES, {"STOP"}, "", "ST<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"STOP\"}}</tool_call>OP",
         "ST<f|{\"a\": \"STOP\"}>OP"},
        {HERMES, {"!"}, "", "a!<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>", "a"},
    };
    CHECK_ALL(cases);
}

static void calls_are_read(void **state)
{
    (void)state;
    static const struct expected cases[] = {
        {HERMES, {0}, "", "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}{\\\"\", \"b\": [1, "
         "{}]}}\n</tool_call>", "<f|{\"a\": \"}{\\\"\", \"b\": [1, {}]}>"},
        {HERMES, {0}, "", "Let me see.\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": "
         "{}}\n</tool_call>\n<tool_call>\n{\"name\": \"g_2\", \"arguments\": {\"é\": \"日\"}}\n</tool_call>",
         "Let me see.<f|{}><g_2|{\"é\": \"日\"}>"},
        {HERMES, {0}, "", "<think>so</think>\n\n<tool_call>{\"name\":\"f\","
                          "\"arguments\":{\"a\":1}}</tool_call>\nThere.",
         "(so)<f|{\"a\":1}>There."},
        {HERMES, {0}, "", "<tool_call>{\"arguments\": {\"a\": 1}, \"id\": 7, \"name\": \"f\"}</tool_call>",
         "<f|{\"a\": 1}>"},
        {HERMES, {0}, "", "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>",
         "<f|{\"a\": 1}>"},
        {HERMES, {0}, "", "<tool_call>{\"name\": \"f\"}</tool_call>", "<f|{}>"},
        {LIST, {0}, "", "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}, \"id\": \"abcdefghi\"}, {\"name\": "
         "\"g\", \"arguments\": {}}]", "<f|{\"a\": 1}><g|{}>"},
        {LIST, {0}, "", "Yes. [TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {}}]", "Yes.<f|{}>"},
        {MISTRAL, {0}, "", "[TOOL_CALLS]f[ARGS]{\"a\": \"[ARG]\"}[TOOL_CALLS]g[CALL_ID]abcdefghi[ARGS]{}",
         "<f|{\"a\": \"[ARG]\"}><g|{}>"},
        {LLAMA, {0}, "", "{\"name\": \"f\", \"parameters\": {\"a\": 1}}", "<f|{\"a\": 1}>"},
        {LLAMA, {0}, "", "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {}}",
         "<f|{}><g|{}>"},
        {LLAMA, {0}, "", "\n{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}", "<f|{}>"},
        {GPT_OSS, {0}, "<|start|>assistant",
         "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.f "
         "<|constrain|>json<|message|>{\"a\":1}", "(Hm.)<f|{\"a\":1}>"},
        {GPT_OSS, {0}, "<|start|>assistant", " to=functions.f<|channel|>commentary json<|message|>{\"a\":1}",
         "<f|{\"a\":1}>"},
        {GPT_OSS, {0}, "<|start|>assistant", "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant to=functions.f"
         "<|channel|>commentary json<|message|>{\"a\":1}", "(Hm.)<f|{\"a\":1}>"},
        {CODER, {0}, "", "So:\n\n<tool_call>\n<function=f>\n<parameter=a>\nx\"\ny\n</parameter>\n<parameter=b>\n[1, "
         "2]\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=g>\n</function>\n</tool_call>",
         "So:<f|{\"a\":\"x\\\"\\ny\",\"b\":[1, 2]}><g|{}>"},
        {CODER, {0}, "", "<function=f>\n<parameter=a>\n1\n</parameter>\n</function>", "<f|{\"a\":1}>"},
        {CODER, {0}, "", "<function=f>\n<parameter=a>\n0.1\n</parameter>\n</function>", "<f|{\"a\":0.1}>"},
        {GLM, {0}, "", "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>x "
         "y</arg_value>\n<arg_key>b</arg_key>\n<arg_value>true</arg_value>\n</tool_call>",
         "<f|{\"a\":\"x y\",\"b\":true}>"},
        {GLM, {0}, "", "<tool_call>f</tool_call>", "<f|{}>"},
        {DEEPSEEK, {0}, "<think>\n", "Hm.\n</think>\n\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n"
         "```json\n{\"a\": 1}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{}\n```"
         "<｜tool▁call▁end｜><｜tool▁calls▁end｜>", "(Hm.)<f|{\"a\": 1}><g|{}>"},
        {DEEPSEEK_31, {0}, "", "See:<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜>"
         "<｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>", "See:<f|{\"a\": 1}><g|{}>"},
    };
    CHECK_ALL(cases);
}

/* What is none is not lost. */
static void other_things_are_text(void **state)
{
    (void)state;
    static const struct expected cases[] = {
        {HERMES, {0}, "", "a <tool_call> is\n", "a <tool_call> is\n"},
        {HERMES, {0}, "", "<tool_call>{\"name\": \"f\", \"argu", "<tool_call>{\"name\": \"f\", \"argu"},
        {HERMES, {0}, "", "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": [", "<f|{\"a\": [>"},
        {HERMES, {0}, "", "<tool_call>{\"name\" \"f\"}</tool_call>b", "<tool_call>{\"name\" \"f\"}</tool_call>b"},
        {HERMES, {0}, "", "<tool_call>{\"arguments\": {}}", "<tool_call>{\"arguments\": {}}"},
        {HERMES, {0}, "", "<tool_call>{\"name\": \"f\", \"arguments\": \"x\"}",
         "<tool_call>{\"name\": \"f\", \"arguments\": \"x\"}"},
        {HERMES, {0}, "", "<tool_call>[1]", "<tool_call>[1]"},
        {HERMES, {0}, "", "<tool_call> <tool_call>\n{\"name\": \"f\", \"arguments\": {}}", "<f|{}>"},
        {HERMES, {0}, "", "<tool_call>no <tool_call>{\"name\": \"f\", \"arguments\": {}} ] b",
         "<tool_call>no<f|{}>] b"},
        {HERMES, {0}, "", " \n<tool_cal", " \n<tool_cal"},
        {MISTRAL, {0}, "", "[TOOL_CALLS]", "[TOOL_CALLS]"},
        {MISTRAL, {0}, "", "[TOOL_CALLS]f[ARGS]", "[TOOL_CALLS]f[ARGS]"},
        {LIST, {0}, "", "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}, no", "<f|{}>, no"},
        {LLAMA, {0}, "", "{\"a\": 1}", "{\"a\": 1}"},
        {LLAMA, {0}, "", "See: {\"name\": \"f\", \"parameters\": {}}", "See: {\"name\": \"f\", \"parameters\": {}}"},
        {CODER, {0}, "", "<tool_call>no way", "<tool_call>no way"},
        {CODER, {0}, "", "<function=f>no", "<f|{}>no"},
        {GLM, {0}, "", "<tool_call>a b", "<tool_call>a b"},
        {GPT_OSS, {0}, "<|start|>assistant", "<|channel|>final<|message|>Go to=functions.f", "Go to=functions.f"},
        {NULL, {0}, "", "<tool_call>{\"name\": \"f\", \"arguments\": {}}",
         "<tool_call>{\"name\": \"f\", \"arguments\": {}}"},
    };
    CHECK_ALL(cases);
}

/* A control token that is no mark is nothing, unless all are to be seen; no character goes on behind one. */
static void control_tokens_are_left_out(void **state)
{
    (void)state;
    struct made m;
    make(&m, NULL);
    const int32_t eom = tokenizer_find(m.t, "<|eom|>");
    for (int tools = 0; tools < 2; tools++) {
        for (int special = 0; special < 2; special++) {
            const int32_t said[] = {'a', eom, 0xc3, eom, 0xb6, 'b'};
            const struct answer_options o = {.tokenizer = m.t, .special = special, .thoughts = true, .id = "x",
                                             .tools = tools ? format(HERMES) : NULL};
            struct told told = {.kind = -1};
            struct answer *a;
            bool over;
            assert_int_equal(answer_create(&o, hear, &told, &a), ST_OK);
            for (size_t i = 0; i < sizeof said / sizeof *said; i++)
                assert_int_equal(answer_take(a, said[i], &over), ST_OK);
            assert_int_equal(answer_finish(a), ST_OK);
            assert_string_equal(told.text, special ? "a<|eom|>\uFFFD<|eom|>\uFFFDb" : "a\uFFFD\uFFFDb");
            answer_free(a);
        }
    }
    unmake(&m);
}

static void ask_ids(const struct made *m, const char *id, const char *marks, const char *said, struct told *told)
{
    struct answer *a;
    bool over;
    const struct answer_options o = {.tokenizer = m->t, .id = id, .tools = format(marks)};
    *told = (struct told){.kind = -1};
    assert_int_equal(answer_create(&o, hear, told, &a), ST_OK);
    for (size_t i = 0; said[i]; i++)
        assert_int_equal(answer_take(a, (uint8_t)said[i], &over), ST_OK);
    assert_int_equal(answer_finish(a), ST_OK);
    answer_free(a);
}

static void ids_are_of_the_answer_and_the_number(void **state)
{
    (void)state;
    static const char two[] = "<tool_call>{\"name\": \"f\"}</tool_call><tool_call>{\"name\": \"f\"}</tool_call>";
    struct told a, again, other;
    struct made m;
    make(&m, NULL);
    ask_ids(&m, "chatcmpl-1", HERMES, two, &a);
    ask_ids(&m, "chatcmpl-1", HERMES, two, &again);
    ask_ids(&m, "chatcmpl-2", HERMES, two, &other);
    assert_int_equal(a.calls, 2);
    assert_int_equal(strncmp(a.ids[0], "call_", 5), 0);
    assert_int_equal(strlen(a.ids[0]), 29);
    for (int i = 0; i < 2; i++) {
        assert_string_equal(a.ids[i], again.ids[i]);
        assert_string_not_equal(a.ids[i], other.ids[i]);
    }
    assert_string_not_equal(a.ids[0], a.ids[1]);
    ask_ids(&m, "chatcmpl-1", MISTRAL, "[TOOL_CALLS]f[ARGS]{}", &a);
    assert_int_equal(strlen(a.ids[0]), 9); /* templates of Mistral take no others */
    unmake(&m);
}

/* Memory may be out at any time: then the status says so, and nothing leaks. */
static status play(const struct made *m, const int32_t *tokens, size_t n, struct told *told)
{
    static const char *const stops[] = {"STOP", "!"};
    const struct answer_options o = {.tokenizer = m->t, .stops = stops, .n_stops = 2, .tools = format(HERMES),
                                     .thoughts = true, .id = "x"};
    struct answer *a;
    bool over = false;
    status st = answer_create(&o, hear, told, &a);
    if (st != ST_OK)
        return st;
    for (size_t i = 0; i < n && st == ST_OK; i++)
        st = answer_take(a, tokens[i], &over);
    if (st == ST_OK)
        st = answer_finish(a);
    answer_free(a);
    return st;
}

static void memory_may_be_out(void **state)
{
    (void)state;
    static const char said[] =
        "<think>a</think>b ST <tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>\n"
        "<tool_call>{\"name\": \"f\", \"x\": 1}";
    struct told told;
    struct made m;
    int32_t *ids;
    size_t n;
    status st;
    make(&m, NULL);
    assert_int_equal(tokenizer_encode(m.t, said, strlen(said), false, true, &ids, &n), ST_OK);
    long fails = 0;
    for (long i = 0; told = (struct told){.kind = -1}, alloc_fail_at(i), st = play(&m, ids, n, &told), alloc_failed();
         i++) {
        assert_int_equal(st, ST_NOMEM);
        fails++;
    }
    assert_int_equal(st, ST_OK);
    assert_true(fails > 8);
    free(ids);
    unmake(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(characters_are_whole),
        cmocka_unit_test(thoughts_are_apart),
        cmocka_unit_test(stop_strings_end_it),
        cmocka_unit_test(calls_are_read),
        cmocka_unit_test(other_things_are_text),
        cmocka_unit_test(control_tokens_are_left_out),
        cmocka_unit_test(ids_are_of_the_answer_and_the_number),
        cmocka_unit_test(memory_may_be_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
