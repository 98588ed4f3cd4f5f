#include "serve/messages_read.h"

#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "base/text.h"

static bool wrong(struct refusal *r, size_t i, const char *what)
{
    return refuse(r, "invalid_value", "messages", "messages.%zu: %s", i, what);
}

static bool no_memory(struct refusal *r)
{
    return refuse_status(r, ST_NOMEM, NULL, "");
}

/* Appends a value, which it takes. */
static bool append(json_t *array, json_t *v, struct refusal *r)
{
    return json_array_append_new(array, v) == 0 || no_memory(r);
}

static bool set(json_t *object, const char *name, json_t *v, struct refusal *r)
{
    return json_object_set_new(object, name, v) == 0 || no_memory(r);
}

static const char *string_of(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

static bool is_type(const json_t *block, const char *type)
{
    const char *own = string_of(block, "type");
    return own && strcmp(own, type) == 0;
}

/* A line for each block. */
static bool add_text(struct text *t, const char *at, struct refusal *r)
{
    if (t->n && text_append(t, "\n", 1) != ST_OK)
        return no_memory(r);
    return text_append(t, at, strlen(at)) == ST_OK || no_memory(r);
}

/* What Claude Code's instructions begin with is other words in every request ("x-anthropic-billing-header: a=b; c=d;"),
 * so that no beginning would be shared: the text behind that. */
static const char *behind_header(const char *text)
{
    static const char name[] = "x-anthropic-billing-header:", letters[] = "abcdefghijklmnopqrstuvwxyz_";
    if (strncmp(text, name, sizeof name - 1) != 0)
        return text;
    for (text += sizeof name - 1;;) {
        const char *key = text + strspn(text, " \n"), *end = strchr(key, ';');
        const size_t n = strspn(key, letters);
        if (!n || key[n] != '=' || !end)
            return key;
        text = end + 1;
    }
}

/* Appends a string, or an array of blocks of text; `where` says whose. */
static bool add_texts(struct text *t, const json_t *content, const char *where, struct refusal *r)
{
    json_t *block;
    size_t i;
    if (json_is_string(content))
        return add_text(t, behind_header(json_string_value(content)), r);
    if (!json_is_array(content))
        return refuse(r, "invalid_value", where, "%s: expected a string or an array of blocks", where);
    json_array_foreach(content, i, block) {
        const char *type = string_of(block, "type"), *text = string_of(block, "text");
        if (!is_type(block, "text"))
            return refuse(r, "unsupported_value", where, "%s: blocks of type '%.40s' are not for this model, which "
                          "reads text alone", where, type ? type : "");
        if (!text)
            return refuse(r, "invalid_value", where, "%s: block %zu has no \"text\"", where, i);
        text = behind_header(text);
        if (*text && !add_text(t, text, r))
            return false;
    }
    return true;
}

static json_t *new_text(const struct text *t)
{
    return json_stringn(t->n ? t->at : "", t->n);
}

/* {"role": role, "content": text}, which is appended, and the text is empty then; *out may be NULL. */
static bool add_message(json_t *messages, const char *role, struct text *t, json_t **out, struct refusal *r)
{
    json_t *m = json_pack("{s:s, s:o?}", "role", role, "content", new_text(t));
    t->n = 0;
    if (!m)
        return no_memory(r);
    if (out)
        *out = m;
    return append(messages, m, r);
}

/* --- blocks --- */

/* A message on its way from blocks to OpenAI's. */
struct reading {
    json_t *messages;
    size_t i;             /* number of the message in the request */
    struct text text, thought;
    json_t *calls;        /* an array */
    bool results;         /* some came: without a text there is no message of a user */
};

static bool add_call(struct reading *w, const json_t *block, struct refusal *r)
{
    const char *id = string_of(block, "id"), *name = string_of(block, "name");
    json_t *input = json_object_get(block, "input");
    if (!id || !name || !json_is_object(input))
        return wrong(r, w->i, "a block of type tool_use has an \"id\", a \"name\" and an object \"input\"");
    char *arguments = json_dumps(input, JSON_COMPACT);
    json_t *call = arguments ? json_pack("{s:s, s:s, s:{s:s, s:s}}", "id", id, "type", "function", "function",
                                         "name", name, "arguments", arguments) : NULL;
    free(arguments);
    if (!w->calls)
        w->calls = json_array();
    return append(w->calls, call, r);
}

/* What a tool gave is a message of its own. */
static bool add_result(struct reading *w, const json_t *block, struct refusal *r)
{
    const char *id = string_of(block, "tool_use_id");
    const json_t *content = json_object_get(block, "content");
    json_t *m;
    if (!id)
        return wrong(r, w->i, "a block of type tool_result has a \"tool_use_id\"");
    if (w->text.n && !add_message(w->messages, "user", &w->text, NULL, r))
        return false;
    w->results = true;
    if (content && !json_is_null(content) && !add_texts(&w->text, content, "tool_result", r))
        return false;
    return add_message(w->messages, "tool", &w->text, &m, r) && set(m, "tool_call_id", json_string(id), r);
}

static bool add_block(struct reading *w, const json_t *block, bool user, struct refusal *r)
{
    const char *text = string_of(block, is_type(block, "thinking") ? "thinking" : "text");
    if (is_type(block, "text") || (!user && is_type(block, "thinking")))
        return text ? add_text(is_type(block, "text") ? &w->text : &w->thought, text, r)
                    : wrong(r, w->i, "a block has no text");
    if (user && is_type(block, "tool_result"))
        return add_result(w, block, r);
    if (!user && is_type(block, "tool_use"))
        return add_call(w, block, r);
    if (!user && is_type(block, "redacted_thinking"))
        return true;
    return refuse(r, "unsupported_value", "messages", "messages.%zu: blocks of type '%.40s' are not for this model, or "
                  "not there in a message of this role", w->i, string_of(block, "type") ? string_of(block, "type") : "");
}

static bool end_assistant(struct reading *w, struct refusal *r)
{
    json_t *m, *calls = w->calls;
    if (!add_message(w->messages, "assistant", &w->text, &m, r))
        return false;
    w->calls = NULL;
    if (calls && !set(m, "tool_calls", calls, r))
        return false;
    return !w->thought.n || set(m, "reasoning_content", new_text(&w->thought), r);
}

static bool read_blocks(struct reading *w, const json_t *content, bool user, struct refusal *r)
{
    json_t *block;
    size_t k;
    if (json_is_string(content)) {
        if (!add_text(&w->text, json_string_value(content), r))
            return false;
    } else {
        json_array_foreach(content, k, block)
            if (!add_block(w, block, user, r))
                return false;
    }
    if (!user)
        return end_assistant(w, r);
    return (w->results && !w->text.n) || add_message(w->messages, "user", &w->text, NULL, r);
}

static bool read_message(json_t *messages, const json_t *m, size_t i, struct refusal *r)
{
    const char *role = string_of(m, "role");
    const json_t *content = json_object_get(m, "content");
    struct reading w = {.messages = messages, .i = i};
    if (!role || (strcmp(role, "user") != 0 && strcmp(role, "assistant") != 0))
        return wrong(r, i, "expected an object with a \"role\", \"user\" or \"assistant\"");
    if (!json_is_string(content) && !json_is_array(content))
        return wrong(r, i, "expected a string or an array as \"content\"");
    const bool right = read_blocks(&w, content, strcmp(role, "user") == 0, r);
    free(w.text.at);
    free(w.thought.at);
    json_decref(w.calls);
    return right;
}

static bool read_messages(const json_t *root, json_t *messages, struct refusal *r)
{
    const json_t *system = json_object_get(root, "system"), *given = NULL;
    struct text text = {0};
    json_t *m;
    size_t i;
    bool right = !system || json_is_null(system) ||
                 (add_texts(&text, system, "system", r) &&
                  (!text.n || add_message(messages, "system", &text, NULL, r)));
    free(text.at);
    if (!right || !field_array(root, "messages", &given, r))
        return false;
    if (json_array_size(given) == 0)
        return refuse(r, "missing_required_parameter", "messages",
                      "messages: expected an array of messages, one at least");
    json_array_foreach(given, i, m)
        if (!read_message(messages, m, i, r))
            return false;
    return true;
}

/* --- tools --- */

static bool read_tool(json_t *tools, const json_t *tool, size_t i, struct refusal *r)
{
    const char *name = string_of(tool, "name");
    const json_t *type = json_object_get(tool, "type");
    json_t *schema = json_object_get(tool, "input_schema"), *about = json_object_get(tool, "description");
    json_t *strict = json_object_get(tool, "strict");
    if (type && !json_is_null(type) && !is_type(tool, "custom"))
        return refuse(r, "unsupported_value", "tools",
                      "tools.%zu: tools of type '%.40s' are not there, only a client's own", i,
                      json_is_string(type) ? json_string_value(type) : "");
    if (!name || !json_is_object(schema))
        return refuse(r, "invalid_value", "tools", "tools.%zu: expected a \"name\" and an object \"input_schema\"", i);
    json_t *function = json_pack("{s:s, s:O*, s:O, s:O*}", "name", name, "description",
                                 json_is_null(about) ? NULL : about, "parameters", schema, "strict", strict);
    return append(tools, json_pack("{s:s, s:o}", "type", "function", "function", function), r);
}

static bool read_choice(const json_t *root, struct messages_asked *a, struct refusal *r)
{
    static const char *const words[] = {
        [TOOLS_AUTO] = "auto", [TOOLS_NONE] = "none", [TOOLS_REQUIRED] = "any", [TOOLS_NAMED] = "tool"};
    const json_t *choice = NULL;
    bool alone = false;
    if (!field_object(root, "tool_choice", &choice, r) || !choice)
        return r->status == 0;
    if (!field_flag(choice, "disable_parallel_tool_use", &alone, r))
        return false;
    a->parallel = !alone;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!is_type(choice, words[i]))
            continue;
        a->choice = (enum tool_choice)i;
        a->name = string_of(choice, "name");
        if (i == TOOLS_NAMED && !a->name)
            return refuse(r, "invalid_value", "tool_choice", "tool_choice: type 'tool' needs a \"name\"");
        return a->tools || i == TOOLS_AUTO || i == TOOLS_NONE ||
               refuse(r, "invalid_value", "tool_choice", "tool_choice: there are no \"tools\"");
    }
    return refuse(r, "invalid_value", "tool_choice", "tool_choice: expected type 'auto', 'any', 'tool' or 'none'");
}

static bool read_tools(const json_t *root, struct messages_asked *a, struct refusal *r)
{
    const json_t *given = NULL;
    struct log_catcher caught;
    json_t *tool;
    size_t i;
    if (!field_array(root, "tools", &given, r))
        return false;
    a->tools = json_array_size(given) ? json_array() : NULL;
    json_array_foreach(given, i, tool)
        if (!read_tool(a->tools, tool, i, r))
            return false;
    log_catch(&caught);
    const status st = a->tools ? tools_check(a->tools) : ST_OK;
    log_catch(NULL);
    return st == ST_OK ? read_choice(root, a, r) : refuse_status(r, st, "tools", caught.first_error);
}

/* A model thinks if it is asked to. */
static bool read_thinking(const json_t *root, struct messages_asked *a, struct refusal *r)
{
    const json_t *thinking = NULL;
    if (!field_object(root, "thinking", &thinking, r))
        return false;
    const bool thinks = thinking && !is_type(thinking, "disabled");
    a->variables = json_pack("{s:b}", "enable_thinking", thinks);
    return a->variables || no_memory(r);
}

bool messages_read(const json_t *root, struct messages_asked *out, struct refusal *r)
{
    *out = (struct messages_asked){.messages = json_array(), .parallel = true};
    *r = (struct refusal){0};
    if (out->messages && read_messages(root, out->messages, r) && read_tools(root, out, r) &&
        read_thinking(root, out, r))
        return true;
    if (!r->status)
        no_memory(r);
    messages_asked_free(out);
    return false;
}

void messages_asked_free(struct messages_asked *a)
{
    json_decref(a->messages);
    json_decref(a->tools);
    json_decref(a->variables);
    *a = (struct messages_asked){0};
}
