/* Grammars of answers with calls of tools: they allow what templates write and what the reader reads as calls, and
 * nothing that only looks like a call. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"
#include "sampling/schema/schema.h"
#include "serve/text_rule.h"
#include "serve/tool_format.h"
#include "serve/tool_reader.h"
#include "serve/tools.h"
#include "tests/unit/alloc_fail.h"
#include "tests/unit/made_file.h"

/* --- whether a text is of a grammar: by sets of places with whole stacks --- */

enum { MOST_WAYS = 2048 };

struct way {
    uint32_t place, depth, stack[GRAMMAR_DEPTH];
};

struct ways {
    struct way at[MOST_WAYS];
    int n;
    bool complete;
};

static void add(struct ways *s, const struct way *w)
{
    for (int i = 0; i < s->n; i++)
        if (s->at[i].place == w->place && s->at[i].depth == w->depth &&
            !memcmp(s->at[i].stack, w->stack, w->depth * sizeof *w->stack))
            return;
    assert_true(s->n < MOST_WAYS);
    s->at[s->n++] = *w;
}

/* Follows all ways up to bytes. */
static void settle(const struct grammar *g, struct ways *s)
{
    for (int i = 0; i < s->n; i++) {
        struct way w = s->at[i];
        const struct grammar_op *op = &g->ops[w.place];
        assert_true(w.place < g->n_ops);
        w.place = op->a;
        if (op->kind == GRAMMAR_CALL) {
            assert_true(w.depth < GRAMMAR_DEPTH);
            w.stack[w.depth++] = s->at[i].place + 1;
        } else if (op->kind == GRAMMAR_RETURN && w.depth) {
            w.place = w.stack[--w.depth];
        } else if (op->kind == GRAMMAR_RETURN) {
            s->complete = true;
            continue;
        } else if (op->kind == GRAMMAR_BYTE) {
            continue;
        } else if (op->kind == GRAMMAR_SPLIT) {
            add(s, &w);
            w.place = op->b;
        }
        add(s, &w);
    }
}

/* Bytes of a text that the grammar allows one after another; *complete: the text may end behind them. */
static size_t allowed(const struct grammar *g, const char *text, size_t n, bool *complete)
{
    static struct ways now, then;
    size_t i = 0;
    now.n = 0;
    now.complete = false;
    add(&now, &(struct way){0});
    settle(g, &now);
    for (; i < n; i++) {
        then.n = 0;
        then.complete = false;
        for (int k = 0; k < now.n; k++) {
            struct way w = now.at[k];
            const struct grammar_op *op = &g->ops[w.place];
            if (op->kind == GRAMMAR_BYTE && (uint8_t)text[i] >= op->lo && (uint8_t)text[i] <= op->hi) {
                w.place++;
                add(&then, &w);
            }
        }
        if (!then.n)
            break;
        settle(g, &then);
        now = then;
    }
    *complete = now.complete;
    return i;
}

static bool accepts(const struct grammar *g, const char *text)
{
    bool complete;
    return allowed(g, text, strlen(text), &complete) == strlen(text) && complete;
}

/* --- formats --- */

#define C "\xff" /* a control token's name follows */
static const char weather[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"parameters\": {\"type\": \"object\", \"properties\": "
    "{\"city\": {\"type\": \"string\"}}, \"required\": [\"city\"], \"additionalProperties\": false}}},"
    " {\"type\": \"function\", \"function\": {\"name\": \"get\"}}]";

struct written {
    const char *marks; /* of a template */
    const char *name;
    const char *right[8], *wrong[8]; /* calls, alone */
    const char *text[6];             /* what may be said with AUTO, and is no call */
};

static const struct written formats[] = {
    {"<tool_call>\n{\"name\"", "hermes",
     {"<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Köln\"}}\n</tool_call>",
      "<tool_call>\n{\"name\": \"get\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"get_weather\", "
      "\"arguments\": {\"city\": \"<tool_call>\"}}\n</tool_call>",
      "<tool_call>{\"name\":\"get\",\"arguments\":{\"a\":[1,{\"b\":null}]}}</tool_call>",
      C "<tool_call>\n{\"name\": \"get\", \"arguments\": {}}\n" C "</tool_call>"},
     {"<tool_call>\n{\"name\": \"get_wether\", \"arguments\": {}}\n</tool_call>",
      "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {}}\n</tool_call>",
      "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": 1}}\n</tool_call>",
      "<tool_call>\n{\"name\": \"get\", \"arguments\": []}\n</tool_call>", "<tool_call>no</tool_call>",
      "<tool_call>\n{\"name\": \"get\", \"arguments\": {}}"},
     {"It is <tool_cal", "<<tool<tool_<", "", "{\"name\": \"x\"}"}},
    {"[TOOL_CALLS] [ARGS]", "mistral",
     {"[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Rom\"}", C "[TOOL_CALLS]get_weather" C "[ARGS]{\"city\":\"Rom\"}",
      C "[TOOL_CALLS]get" C "[ARGS]{}" C "[TOOL_CALLS]get" C "[CALL_ID]abcDEF123" C "[ARGS]{\"a\": 1}"},
     {C "[TOOL_CALLS]got" C "[ARGS]{}", C "[TOOL_CALLS]get" C "[ARGS]", C "[TOOL_CALLS]get{}",
      C "[TOOL_CALLS]get_weather" C "[ARGS]{\"town\": \"Rom\"}"},
     {"[TOOL_CALL", "[[TOOL", C "[THINK]x" C "[/THINK]"}},
    {"[TOOL_CALLS]", "mistral-list",
     {C "[TOOL_CALLS][{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rom\"}}]",
      C "[TOOL_CALLS] [{\"name\": \"get\", \"arguments\": {}, \"id\": \"abcDEF123\"}, {\"name\": \"get\", \"arguments\": {}}]"},
     {C "[TOOL_CALLS][]", C "[TOOL_CALLS][{\"name\": \"got\", \"arguments\": {}}]", C "[TOOL_CALLS]get"},
     {"[TOOL_CALLS"}},
    {"\"parameters\": dictionary", "llama3",
     {"{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Rom\"}}",
      C "<|python_tag|>{\"name\": \"get\", \"parameters\": {}}; {\"name\": \"get\", \"parameters\": {}}"},
     {"{\"name\": \"got\", \"parameters\": {}}", "{\"a\": 1}", "\n{\"a\": 1}", "<|python_tag|>print(1)"},
     {"See {\"a\": 1}", "\n", "<|python", "(1)"}},
    {"<|channel|> functions.", "gpt-oss",
     {"<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\":\"Rom\"}",
      "to=functions.get<|channel|>commentary json<|message|>{}",
      "<|start|>assistant to=functions.get<|channel|>commentary <|constrain|>json<|message|>{}"},
     {"<|channel|>commentary to=functions.got <|constrain|>json<|message|>{}", "to=functions.get<|message|>{}",
      "<|channel|>analysis to=functions.get_weather <|constrain|>json<|message|>{}"},
     {"<|channel|>final<|message|>Hi to=functions.x", "to=function", "<|channel|>analysis<|message|>a<|end|>"}},
    {"<｜tool▁calls▁begin｜> ```json", "deepseek",
     {C "<｜tool▁calls▁begin｜>" C "<｜tool▁call▁begin｜>function" C "<｜tool▁sep｜>get_weather\n```json\n{\"city\": \"Rom\"}\n```"
      C "<｜tool▁call▁end｜>\n" C "<｜tool▁call▁begin｜>function" C "<｜tool▁sep｜>get\n```json\n{}\n```" C "<｜tool▁call▁end｜>"
      C "<｜tool▁calls▁end｜>",
      "<｜tool▁calls▁begin｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>get\n```json\n{}\n```\n<｜tool▁call▁end｜>"
      "<｜tool▁calls▁end｜>"},
     {"<｜tool▁call▁begin｜>function", C "<｜tool▁calls▁begin｜>" C "<｜tool▁calls▁end｜>",
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>got"},
     {"<｜tool▁calls", "<｜"}},
    {"<｜tool▁calls▁begin｜>", "deepseek-v3.1",
     {C "<｜tool▁calls▁begin｜>" C "<｜tool▁call▁begin｜>get_weather" C "<｜tool▁sep｜>{\"city\": \"Rom\"}" C "<｜tool▁call▁end｜>"
      C "<｜tool▁call▁begin｜>get" C "<｜tool▁sep｜>{}" C "<｜tool▁call▁end｜>" C "<｜tool▁calls▁end｜>"},
     {C "<｜tool▁calls▁begin｜>" C "<｜tool▁call▁begin｜>got" C "<｜tool▁sep｜>{}", C "<｜tool▁call▁begin｜>get"},
     {"<｜tool▁calls▁begin"}},
    {"<function= <parameter=", "qwen3-coder",
     {"<tool_call>\n<function=get_weather>\n<parameter=city>\nNew \"York\"\n</parameter>\n</function>\n</tool_call>",
      "<tool_call>\n<function=get>\n</function>\n</tool_call>\n<tool_call>\n<function=get>\n</function>\n</tool_call>"},
     {"<tool_call>\n<function=got>\n</function>\n</tool_call>",
      "<tool_call>\n<function=get_weather>\n<parameter=town>\nRom\n</parameter>\n</function>\n</tool_call>", "<function=get>\n"},
     {"<tool_call", "<function"}},
    {"<arg_key>", "glm",
     {"<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Rom</arg_value>\n</tool_call>", "<tool_call>get\n</tool_call>"},
     {"<tool_call>got\n</tool_call>", "<tool_call>get_weather\n<arg_key>town</arg_key>\n<arg_value>Rom</arg_value>\n</tool_call>"},
     {"<tool_call"}},
    {"<|tool_call|>", "granite",
     {"<|tool_call|>[{\"name\": \"get\", \"arguments\": {}}]", C "<|tool_call|>[{\"name\": \"get\", \"arguments\": {}}]"},
     {"<|tool_call|>[]", "<|tool_call|>{\"name\": \"get\", \"arguments\": {}}"},
     {"<|tool_call"}},
};
enum { N_FORMATS = sizeof formats / sizeof *formats };

static const struct tool_format *format_of(const struct written *w)
{
    const struct chat_template t = {.text = {w->marks, strlen(w->marks)}};
    return tool_format_of(&t);
}

static void make(const struct written *w, const char *tools, enum tool_choice choice, const char *name, bool parallel,
                 struct grammar *g)
{
    json_t *v = json_loads(tools, 0, NULL);
    assert_int_equal(tools_check(v), ST_OK);
    assert_int_equal(tool_grammar(format_of(w), v, choice, name, parallel, NULL, g), ST_OK);
    assert_int_equal(grammar_check(g), ST_OK);
    json_decref(v);
}

static void formats_are_known_by_their_marks(void **state)
{
    (void)state;
    for (int i = 0; i < N_FORMATS; i++)
        assert_string_equal(tool_format_name(format_of(&formats[i])), formats[i].name);
    assert_string_equal(tool_format_name(tool_format_of(&(struct chat_template){.text = {"", 0}})), "hermes");
}

static void expect(const struct grammar *g, const char *format, const char *before, const char *text, bool right)
{
    char all[2048];
    snprintf(all, sizeof all, "%s%s", before, text);
    if (accepts(g, all) != right)
        fail_msg("%s: '%s' should be %s", format, all, right ? "right" : "wrong");
}

/* A text before calls, then only calls. */
static void any_text_but_wrong_calls(void **state)
{
    (void)state;
    for (int i = 0; i < N_FORMATS; i++) {
        const struct written *w = &formats[i];
        struct grammar g;
        make(w, weather, TOOLS_AUTO, NULL, true, &g);
        for (int k = 0; w->text[k]; k++)
            expect(&g, w->name, "", w->text[k], true);
        for (int k = 0; w->right[k]; k++) {
            const bool first = format_of(w)->first && (w->right[k][0] == '{' || w->right[k][0] == 't');
            expect(&g, w->name, "", w->right[k], true);
            expect(&g, w->name, "Let me see é.\n", w->right[k], true); /* if it is no call there, it is text */
            if (!first)
                expect(&g, w->name, w->right[k], "Done.", false);
        }
        for (int k = 0; w->wrong[k]; k++)
            expect(&g, w->name, "", w->wrong[k], false);
        free((void *)g.ops);
    }
}

static void a_call_and_nothing_else(void **state)
{
    (void)state;
    for (int i = 0; i < N_FORMATS; i++) {
        const struct written *w = &formats[i];
        struct grammar g, named;
        make(w, weather, TOOLS_REQUIRED, NULL, true, &g);
        make(w, weather, TOOLS_NAMED, "get", true, &named);
        for (int k = 0; w->text[k]; k++)
            expect(&g, w->name, "", w->text[k], false);
        for (int k = 0; w->right[k]; k++) {
            expect(&g, w->name, "", w->right[k], true);
            expect(&g, w->name, "x", w->right[k], false);
            expect(&named, w->name, "", w->right[k], !strstr(w->right[k], "weather"));
        }
        for (int k = 0; w->wrong[k]; k++)
            expect(&g, w->name, "", w->wrong[k], false);
        free((void *)g.ops);
        free((void *)named.ops);
    }
}

/* A text of a schema, or a call; where there must be a call the schema says nothing. */
static void a_call_or_a_text_of_a_schema(void **state)
{
    (void)state;
    static const char schema[] = "{\"type\": \"object\", \"properties\": {\"name\": {\"enum\": [\"x\"]}}, "
                                 "\"required\": [\"name\"], \"additionalProperties\": false}";
    static const enum tool_choice choices[] = {TOOLS_AUTO, TOOLS_REQUIRED, TOOLS_NAMED};
    json_t *tools = json_loads(weather, 0, NULL), *of = json_loads(schema, 0, NULL);
    struct grammar text, g;
    assert_int_equal(schema_grammar(of, &text), ST_OK);
    for (int i = 0; i < 3 * N_FORMATS; i++) {
        const struct written *w = &formats[i / 3];
        const enum tool_choice choice = choices[i % 3];
        assert_int_equal(tool_grammar(format_of(w), tools, choice, "get", true, &text, &g), ST_OK);
        assert_int_equal(grammar_check(&g), ST_OK);
        expect(&g, w->name, "", "{\"name\":\"x\"}", choice == TOOLS_AUTO);
        expect(&g, w->name, "", "{\"name\":\"y\"}", false);
        expect(&g, w->name, "", "x", false);
        for (int k = 0; w->right[k]; k++) {
            expect(&g, w->name, "", w->right[k], choice != TOOLS_NAMED || !strstr(w->right[k], "weather"));
            expect(&g, w->name, "{\"name\":\"x\"}", w->right[k], false);
        }
        free((void *)g.ops);
    }
    free((void *)text.ops);
    json_decref(tools);
    json_decref(of);
}

/* What the reader takes for calls: names are told, and no text but what was before. */
struct read {
    int calls, texts;
};

static status hear(void *arg, enum piece_kind kind, const char *at, size_t n)
{
    struct read *r = arg;
    (void)at;
    r->calls += kind == PIECE_CALL;
    r->texts += kind == PIECE_TEXT && n;
    return ST_OK;
}

/* Control tokens come by themselves. */
static void read_all(const struct tool_format *f, const char *text, struct read *out)
{
    struct tool_reader r = {.format = f, .tell = hear, .arg = out};
    *out = (struct read){0};
    while (*text) {
        const bool control = *text == *C;
        const char *name = text + control;
        size_t n = control ? 1 : strcspn(name, C);
        if (control) /* marks end with one of these */
            n = strcspn(name, ">]") + 1;
        assert_int_equal(tool_reader_take(&r, name, n, control), ST_OK);
        text = name + n;
    }
    assert_int_equal(tool_reader_end(&r), ST_OK);
    tool_reader_free(&r);
}

static void what_is_right_is_read(void **state)
{
    (void)state;
    struct read r;
    for (int i = 0; i < N_FORMATS; i++) {
        const struct written *w = &formats[i];
        for (int k = 0; w->right[k]; k++) {
            read_all(format_of(w), w->right[k], &r);
            if (!r.calls || r.texts)
                fail_msg("%s: '%s' has %d calls, %d texts", w->name, w->right[k], r.calls, r.texts);
        }
        for (int k = 0; w->text[k]; k++) {
            read_all(format_of(w), w->text[k], &r);
            if (r.calls)
                fail_msg("%s: '%s' has %d calls", w->name, w->text[k], r.calls);
        }
    }
}

static void one_call_unless_parallel(void **state)
{
    (void)state;
    static const char one[] = "<tool_call>\n{\"name\": \"get\", \"arguments\": {}}\n</tool_call>";
    struct grammar g;
    for (int parallel = 0; parallel < 2; parallel++) {
        make(&formats[0], weather, TOOLS_AUTO, NULL, parallel, &g);
        expect(&g, "hermes", "", one, true);
        expect(&g, "hermes", one, one, parallel);
        free((void *)g.ops);
    }
}

static void thoughts_may_come_before(void **state)
{
    (void)state;
    static const char call[] = "<tool_call>\n{\"name\": \"get\", \"arguments\": {}}\n</tool_call>";
    struct grammar g;
    make(&formats[0], weather, TOOLS_REQUIRED, NULL, true, &g);
    assert_int_equal(grammar_behind_thoughts(&g, NULL, NULL), ST_OK);
    expect(&g, "own", "", call, true);
    expect(&g, "own", "\n<think>\nHm: <tool_call> </thin\n</think>\n\n", call, true);
    expect(&g, "own", C "[THINK]so" C "[/THINK]", call, true);
    expect(&g, "own", "<|channel|>analysis<|message|>a<|end|><|start|>assistant", call, true);
    expect(&g, "own", "<think>so", call, false);
    expect(&g, "own", "so ", call, false);
    free((void *)g.ops);
    make(&formats[0], weather, TOOLS_REQUIRED, NULL, true, &g);
    assert_int_equal(grammar_behind_thoughts(&g, NULL, "</think>"), ST_OK);
    expect(&g, "the prompt's", "", call, false);
    expect(&g, "the prompt's", "so </think>\n\n", call, true);
    expect(&g, "the prompt's", C "</think>", call, true);
    expect(&g, "the prompt's", "so </think>x", call, false);
    free((void *)g.ops);
}

/* Whose vocabulary has no mark for it. */
static void not_every_model_thinks(void **state)
{
    (void)state;
    static const char call[] = "<tool_call>\n{\"name\": \"get\", \"arguments\": {}}\n</tool_call>";
    struct grammar g;
    struct made m;
    made_begin_bytes(&m, (const char *const[]){"[THINK]"}, 1);
    made_open(&m);
    make(&formats[0], weather, TOOLS_REQUIRED, NULL, true, &g);
    assert_int_equal(grammar_behind_thoughts(&g, m.t, NULL), ST_OK);
    expect(&g, "thinks", "", call, true);
    expect(&g, "thinks", "[THINK]so[/THINK]", call, true);
    expect(&g, "thinks", "<think>so</think>", call, false);
    free((void *)g.ops);
    unmake(&m);
}

static void schemas_without_a_grammar_are_any_object(void **state)
{
    (void)state;
    static const char loose[] = "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"type\": 7}}}]";
    static const char strict[] = "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"strict\": true, \"parameters\": "
                                 "{\"type\": 7}}}]";
    struct log_catcher quiet;
    struct grammar g;
    make(&formats[0], loose, TOOLS_REQUIRED, NULL, true, &g);
    expect(&g, "loose", "", "<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": 1}}</tool_call>", true);
    free((void *)g.ops);
    json_t *v = json_loads(strict, 0, NULL);
    log_catch(&quiet);
    assert_int_equal(tool_grammar(format_of(&formats[0]), v, TOOLS_AUTO, NULL, true, NULL, &g), ST_USAGE);
    assert_int_not_equal(quiet.first_error[0], '\0');
    assert_int_equal(tool_grammar(format_of(&formats[0]), v, TOOLS_NAMED, "g", true, NULL, &g), ST_USAGE);
    log_catch(NULL);
    json_decref(v);
}

/* As many as there may be, of whose arguments nothing is said. */
static void many_tools_have_room(void **state)
{
    (void)state;
    json_t *tools = json_array();
    struct grammar g;
    for (int i = 0; i < 256; i++) {
        char name[8];
        snprintf(name, sizeof name, "t%d", i);
        assert_int_equal(json_array_append_new(tools, json_pack("{s:s, s:{s:s, s:{}}}", "type", "function", "function",
                                                                "name", name, "parameters")), 0);
    }
    assert_int_equal(tools_check(tools), ST_OK);
    assert_int_equal(tool_grammar(format_of(&formats[0]), tools, TOOLS_AUTO, NULL, true, NULL, &g), ST_OK);
    expect(&g, "many", "", "<tool_call>{\"name\": \"t107\", \"arguments\": {\"x\": 1}}</tool_call>", true);
    free((void *)g.ops);
    json_decref(tools);
}

static void wrong_tools_are_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "{}", "[]", "[1]", "[{\"type\": \"function\"}]", "[{\"type\": \"function\", \"function\": {}}]",
        "[{\"function\": {\"name\": \"f\"}}]", "[{\"type\": \"web\", \"function\": {\"name\": \"f\"}}]",
        "[{\"type\": \"function\", \"function\": {\"name\": \"\"}}]",
        "[{\"type\": \"function\", \"function\": {\"name\": \"a b\"}}]",
        "[{\"type\": \"function\", \"function\": {\"name\": \"a\\\"\"}}]",
        "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": 1}}]"};
    struct log_catcher quiet;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        json_t *v = json_loads(wrong[i], 0, NULL);
        assert_non_null(v);
        log_catch(&quiet);
        assert_int_equal(tools_check(v), ST_USAGE);
        assert_int_not_equal(quiet.first_error[0], '\0');
        log_catch(NULL);
        json_decref(v);
    }
    assert_int_equal(tools_check(NULL), ST_USAGE);
}

static void memory_may_be_out(void **state)
{
    (void)state;
    json_t *v = json_loads(weather, 0, NULL);
    struct log_catcher quiet;
    struct grammar g;
    status st;
    log_catch(&quiet);
    long i = 0;
    const struct tool_format *f = format_of(&formats[0]);
    for (; alloc_fail_at(i), st = tool_grammar(f, v, TOOLS_AUTO, NULL, true, NULL, &g), alloc_failed(); i++)
        assert_int_equal(st, ST_NOMEM);
    assert_int_equal(st, ST_OK);
    assert_true(i > 2);
    for (i = 0; alloc_fail_at(i), st = grammar_behind_thoughts(&g, NULL, "</think>"), alloc_failed(); i++)
        assert_int_equal(st, ST_NOMEM);
    assert_int_equal(st, ST_OK);
    log_catch(NULL);
    free((void *)g.ops);
    json_decref(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_are_known_by_their_marks),
        cmocka_unit_test(any_text_but_wrong_calls),
        cmocka_unit_test(a_call_and_nothing_else),
        cmocka_unit_test(a_call_or_a_text_of_a_schema),
        cmocka_unit_test(what_is_right_is_read),
        cmocka_unit_test(one_call_unless_parallel),
        cmocka_unit_test(thoughts_may_come_before),
        cmocka_unit_test(not_every_model_thinks),
        cmocka_unit_test(schemas_without_a_grammar_are_any_object),
        cmocka_unit_test(many_tools_have_room),
        cmocka_unit_test(wrong_tools_are_refused),
        cmocka_unit_test(memory_may_be_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
