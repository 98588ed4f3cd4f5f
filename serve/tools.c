#include "serve/tools.h"

#include <string.h>
#include "base/log.h"
#include "serve/tool_format.h"

enum { NAME_MAX_BYTES = 128, MOST_TOOLS = 256 };

/* {"name": "f", "arguments": {...}}, with the words that a family has for it. */
#define MEMBERS(arguments)                                                                                             \
    "\"name\":" TOOL_GAP "\"" TOOL_NAME "\"," TOOL_GAP "\"" arguments "\":" TOOL_GAP TOOL_ARGUMENTS
#define OBJECT(arguments) "{" MEMBERS(arguments)

static const struct tool_tags function_tags = {
    .behind_name = ">", .key = "<parameter=", .key_end = ">", .value = "", .value_end = "</parameter>",
    .end = "</function>",
    .lines = true,
};
static const struct tool_tags arg_tags = {
    .behind_name = "\n<", .key = "<arg_key>", .key_end = "</arg_key>", .value = "<arg_value>",
    .value_end = "</arg_value>", .end = "</tool_call>",
};

/* The first whose marks a template has is its format. */
static const struct tool_format formats[] = {
    {
        .name = "mistral", /* from Small 3.2 on: [TOOL_CALLS]f[ARGS]{...} */
        .known = {"[TOOL_CALLS]", "[ARGS]"}, .opens = {"[TOOL_CALLS]"}, .named = true,
        .begin = "", .calls = {TOOL_NAME TOOL_MARK("[ARGS]") TOOL_ARGUMENTS,
                               TOOL_NAME TOOL_MARK("[CALL_ID]") TOOL_ID TOOL_MARK("[ARGS]") TOOL_ARGUMENTS},
        .between = TOOL_MARK("[TOOL_CALLS]"), .end = "", .short_ids = true,
    },
    {
        .name = "mistral-list", /* before: [TOOL_CALLS][{...}] */
        .known = {"[TOOL_CALLS]"}, .opens = {"[TOOL_CALLS]"}, .named = true,
        .begin = TOOL_GAP "[",
        .calls = {OBJECT("arguments") "}", OBJECT("arguments") "," TOOL_GAP "\"id\":" TOOL_GAP "\"" TOOL_ID "\"}"},
        .between = "," TOOL_GAP, .end = "]", .short_ids = true,
    },
    {
        .name = "gpt-oss", /* <|channel|>commentary to=functions.f <|constrain|>json<|message|>{...}<|call|> */
        .known = {"<|channel|>", "functions."},
        .opens = {"<|channel|>commentary to=functions.", "<|channel|>analysis to=functions.",
                  "<|start|>assistant to=functions."},
        .first = "to=functions.", .named = true, .closes = {"<|call|>"},
        .begin = "", .calls = {TOOL_NAME " " TOOL_MARK("<|constrain|>") "json" TOOL_MARK("<|message|>") TOOL_ARGUMENTS,
                               TOOL_NAME TOOL_MARK("<|channel|>") "commentary " TOOL_MARK("<|constrain|>") "json"
                               TOOL_MARK("<|message|>") TOOL_ARGUMENTS,
                               TOOL_NAME TOOL_MARK("<|channel|>") "commentary json" TOOL_MARK("<|message|>")
                               TOOL_ARGUMENTS},
        .between = "", .end = "", .single = true,
    },
    {
        .name = "deepseek", /* R1: <calls begin><call begin>function<sep>f\n```json\n{...}\n```<call end><calls end> */
        .known = {"<｜tool▁calls▁begin｜>", "```json"},
        .opens = {"<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"}, .named = true, .inner = "<｜tool▁call▁begin｜>",
        .skipped = "function<｜tool▁sep｜>",
        .closes = {"```", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"},
        .begin = TOOL_GAP, .calls = {TOOL_MARK("<｜tool▁call▁begin｜>") "function" TOOL_MARK("<｜tool▁sep｜>") TOOL_NAME
                                     "\n```json\n" TOOL_ARGUMENTS "\n```" TOOL_GAP TOOL_MARK("<｜tool▁call▁end｜>")},
        .between = TOOL_GAP, .end = TOOL_GAP TOOL_MARK("<｜tool▁calls▁end｜>"),
    },
    {
        .name = "deepseek-v3.1", /* <calls begin><call begin>f<sep>{...}<call end><calls end> */
        .known = {"<｜tool▁calls▁begin｜>"},
        .opens = {"<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"}, .named = true, .inner = "<｜tool▁call▁begin｜>",
        .skipped = "function<｜tool▁sep｜>",
        .closes = {"```", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"},
        .begin = "", .calls = {TOOL_MARK("<｜tool▁call▁begin｜>") TOOL_NAME TOOL_MARK("<｜tool▁sep｜>") TOOL_ARGUMENTS
                               TOOL_MARK("<｜tool▁call▁end｜>")},
        .between = "", .end = TOOL_MARK("<｜tool▁calls▁end｜>"),
    },
    {
        /* <tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call> */
        .name = "qwen3-coder",
        .known = {"<function=", "<parameter="}, .opens = {"<tool_call>", "<function="}, .inner = "<function=",
        .named = true, .tags = &function_tags, .closes = {"</tool_call>"},
        .begin = TOOL_GAP, .calls = {"<function=" TOOL_NAME ">\n" TOOL_ARGUMENTS "</function>" TOOL_GAP
                                     TOOL_MARK("</tool_call>")},
        .between = TOOL_GAP TOOL_MARK("<tool_call>") TOOL_GAP, .end = "",
    },
    {
        .name = "glm", /* <tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call> */
        .known = {"<arg_key>"}, .opens = {"<tool_call>"}, .named = true, .tags = &arg_tags, .closes = {"</tool_call>"},
        .begin = "", .calls = {TOOL_NAME TOOL_GAP TOOL_ARGUMENTS TOOL_MARK("</tool_call>")},
        .between = TOOL_GAP TOOL_MARK("<tool_call>"), .end = "",
    },
    {
        .name = "hermes", /* ChatML, Qwen: <tool_call>\n{...}\n</tool_call> */
        .known = {"<tool_call>"}, .opens = {"<tool_call>"}, .closes = {"</tool_call>"},
        .begin = TOOL_GAP, .calls = {OBJECT("arguments") "}" TOOL_GAP TOOL_MARK("</tool_call>")},
        .between = TOOL_GAP TOOL_MARK("<tool_call>") TOOL_GAP, .end = "",
    },
    {
        .name = "llama3", /* {"name": ..., "parameters": ...} alone */
        .known = {"\"parameters\": dictionary"}, .opens = {"<|python_tag|>"}, .first = "{",
        .begin = "{", .calls = {MEMBERS("parameters") "}"}, .between = ";" TOOL_GAP "{", .end = "",
    },
    {
        .name = "granite", /* <|tool_call|>[{...}] */
        .known = {"<|tool_call|>"}, .opens = {"<|tool_call|>"}, .closes = {"<|/tool_call|>"},
        .begin = TOOL_GAP "[", .calls = {OBJECT("arguments") "}"}, .between = "," TOOL_GAP, .end = "]",
    },
};
enum { N_FORMATS = sizeof formats / sizeof *formats };

static bool has(struct gguf_string text, const char *part)
{
    return text.n && memmem(text.at, text.n, part, strlen(part)) != NULL;
}

static const struct tool_format *format_of_name(const char *name)
{
    int i = 0;
    while (strcmp(formats[i].name, name) != 0)
        i++;
    return &formats[i];
}

const struct tool_format *tool_format_of(const struct chat_template *t)
{
    for (int i = 0; i < N_FORMATS; i++) {
        const struct tool_format *f = &formats[i];
        if (has(t->text, f->known[0]) && (!f->known[1] || has(t->text, f->known[1])))
            return f;
    }
    return format_of_name("hermes");
}

const char *tool_format_name(const struct tool_format *f)
{
    return f->name;
}

/* --- the request's tools --- */

/* Letters that need no escape, and end no name where calls are read. */
static bool name_is_right(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:/";
    const size_t n = strlen(name);
    return n > 0 && n <= NAME_MAX_BYTES && strspn(name, letters) == n;
}

static status check_tool(const json_t *tool, size_t i)
{
    const char *type = json_string_value(json_object_get(tool, "type"));
    const json_t *function = json_object_get(tool, "function");
    const char *name = json_string_value(json_object_get(function, "name"));
    const json_t *parameters = json_object_get(function, "parameters");
    const json_t *about = json_object_get(function, "description"), *strict = json_object_get(function, "strict");
    if (!type || strcmp(type, "function") != 0)
        log_error("tools: tool %zu: expected \"type\": \"function\", found %s%.40s", i, type ? "" : "none",
                  type ? type : "");
    else if (!json_is_object(function) || !name)
        log_error("tools: tool %zu: expected a \"function\" with a \"name\"", i);
    else if (!name_is_right(name))
        log_error("tools: tool %zu: expected a name of 1 to %d letters, digits, '_', '-', '.', ':' or '/', found '%.40s'",
                  i, NAME_MAX_BYTES, name);
    else if (parameters && !json_is_null(parameters) && !json_is_object(parameters))
        log_error("tools: tool '%s': expected an object as \"parameters\"", name);
    else if (about && !json_is_null(about) && !json_is_string(about))
        log_error("tools: tool '%s': expected a string as \"description\"", name);
    else if (strict && !json_is_null(strict) && !json_is_boolean(strict))
        log_error("tools: tool '%s': expected true or false as \"strict\"", name);
    else
        return ST_OK;
    return ST_USAGE;
}

status tools_check(const json_t *tools)
{
    json_t *tool;
    size_t i;
    if (!json_is_array(tools) || json_array_size(tools) == 0 || json_array_size(tools) > MOST_TOOLS) {
        log_error("tools: expected an array of 1 to %d tools", MOST_TOOLS);
        return ST_USAGE;
    }
    json_array_foreach(tools, i, tool) {
        status st = check_tool(tool, i);
        if (st != ST_OK)
            return st;
    }
    return ST_OK;
}
