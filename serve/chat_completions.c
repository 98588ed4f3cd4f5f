/* /v1/chat/completions: reading the request, and the form of its answer. */
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "sampling/schema/schema.h"
#include "serve/openai.h"
#include "serve/paths.h"

enum { TOKEN_BYTES = 1024 };

/* --- writing --- */

static void put_text(struct json_text *t, const struct json_text *text)
{
    json_string_of(t, text->at, text->n);
}

static void put_token(struct json_text *t, const struct tokenizer *of, int32_t token, float log_p)
{
    char bytes[TOKEN_BYTES];
    json_put(t, "{\"token\":");
    const size_t n = openai_token(t, of, token, bytes, sizeof bytes);
    json_put(t, ",\"logprob\":");
    json_number(t, log_p, 6);
    json_put(t, ",\"bytes\":[");
    for (size_t i = 0; i < n; i++)
        json_print(t, i ? ",%u" : "%u", (unsigned char)bytes[i]);
    json_put(t, "]");
}

/* The log probabilities that nobody has been told of yet. */
static void put_marks(struct json_text *t, struct choice *c)
{
    const struct tokenizer *of = c->reply->api->house.tokenizer;
    if (c->reply->ask.n_top == UINT32_MAX) {
        json_put(t, ",\"logprobs\":null");
        return;
    }
    json_put(t, ",\"logprobs\":{\"content\":[");
    for (uint32_t i = 0; i < c->n_marks; i++) {
        const struct token_mark *m = &c->marks[i];
        json_put(t, i ? "," : "");
        put_token(t, of, m->token, m->log_p);
        json_put(t, ",\"top_logprobs\":[");
        for (uint32_t k = 0; k < m->n_tops; k++) {
            json_put(t, k ? "," : "");
            put_token(t, of, m->tops[k].token, m->tops[k].log_p);
            json_put(t, "}");
        }
        json_put(t, "]}");
    }
    json_put(t, "],\"refusal\":null}");
    c->n_marks = 0;
}

/* The first chunk of each choice says who speaks. */
static void open_chat(struct reply *r)
{
    openai_head(r, "chat.completion.chunk");
    for (uint32_t i = 0; i < r->n_choices; i++) {
        openai_chunk(r, &r->choices[i]);
        json_put(&r->out, "\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null");
        openai_chunk_end(r, &r->choices[i], NULL);
    }
}

static void put_delta(struct json_text *t, const struct piece *p)
{
    switch (p->kind) {
    case PIECE_TEXT:
        json_put(t, "\"content\":");
        json_string_of(t, p->at, p->n);
        break;
    case PIECE_THOUGHT:
        json_put(t, "\"reasoning_content\":");
        json_string_of(t, p->at, p->n);
        break;
    case PIECE_CALL:
        json_print(t, "\"tool_calls\":[{\"index\":%u,\"id\":\"%s\",\"type\":\"function\",\"function\":{\"name\":",
                   p->call, p->id);
        json_string_of(t, p->at, p->n);
        json_put(t, ",\"arguments\":\"\"}}]");
        break;
    case PIECE_ARGUMENTS:
        json_print(t, "\"tool_calls\":[{\"index\":%u,\"function\":{\"arguments\":", p->call);
        json_string_of(t, p->at, p->n);
        json_put(t, "}}]");
        break;
    }
}

static void write_piece(struct choice *c, const struct piece *p)
{
    struct reply *r = c->reply;
    openai_chunk(r, c);
    json_put(&r->out, "\"delta\":{");
    put_delta(&r->out, p);
    json_put(&r->out, "}");
    put_marks(&r->out, c);
    openai_chunk_end(r, c, NULL);
}

static void close_choice(struct choice *c)
{
    struct reply *r = c->reply;
    openai_chunk(r, c);
    json_put(&r->out, "\"delta\":{}");
    put_marks(&r->out, c);
    openai_chunk_end(r, c, choice_finish(c));
}

static void put_calls(struct json_text *t, const struct choice *c)
{
    json_put(t, ",\"tool_calls\":[");
    for (uint32_t i = 0; i < c->n_calls; i++) {
        json_print(t, "%s{\"id\":\"%s\",\"type\":\"function\",\"function\":{\"name\":", i ? "," : "", c->calls[i].id);
        json_string_of(t, c->calls[i].name, strlen(c->calls[i].name));
        json_put(t, ",\"arguments\":");
        put_text(t, &c->calls[i].arguments);
        json_put(t, "}}");
    }
    json_put(t, "]");
}

static void put_choice(struct json_text *t, struct choice *c)
{
    json_print(t, "{\"index\":%u,\"message\":{\"role\":\"assistant\",\"content\":", c->index);
    if (c->n_calls && c->text.n == 0)
        json_put(t, "null");
    else
        put_text(t, &c->text);
    json_put(t, ",\"refusal\":null");
    if (c->thought.n) {
        json_put(t, ",\"reasoning_content\":");
        put_text(t, &c->thought);
    }
    if (c->n_calls)
        put_calls(t, c);
    json_put(t, "}");
    put_marks(t, c);
    json_print(t, ",\"finish_reason\":\"%s\"}", choice_finish(c));
}

static void write_whole(struct reply *r)
{
    json_put(&r->out, "{");
    openai_names(&r->out, r, "chat.completion");
    json_put(&r->out, "\"choices\":[");
    for (uint32_t i = 0; i < r->n_choices; i++) {
        json_put(&r->out, i ? "," : "");
        put_choice(&r->out, &r->choices[i]);
    }
    json_put(&r->out, "],");
    openai_whole_end(r);
}

static const struct reply_form form = {
    .prefix = "chatcmpl-", .open = open_chat, .piece = write_piece, .close = close_choice, .done = openai_done,
    .fail = openai_fail, .keep_alive = openai_keep_alive, .whole = write_whole,
};

/* --- reading --- */

static bool read_log_probs(const json_t *root, struct ask *a, struct refusal *r)
{
    bool wanted = false;
    int64_t n = 0;
    if (!field_flag(root, "logprobs", &wanted, r) || !field_integer(root, "top_logprobs", 0, WIRE_TOP, &n, r))
        return false;
    if (n > 0 && !wanted)
        return refuse(r, "invalid_value", "top_logprobs", "'top_logprobs': only with 'logprobs': true");
    if (wanted)
        a->n_top = (uint32_t)n;
    return true;
}

static bool has_tool(const json_t *tools, const char *name)
{
    json_t *tool;
    size_t i;
    json_array_foreach(tools, i, tool) {
        const char *found = json_string_value(json_object_get(json_object_get(tool, "function"), "name"));
        if (found && strcmp(found, name) == 0)
            return true;
    }
    return false;
}

static bool read_tool_choice(const json_t *root, const json_t *tools, enum tool_choice *choice, const char **name,
                             struct refusal *r)
{
    static const char *const words[] = {[TOOLS_AUTO] = "auto", [TOOLS_NONE] = "none", [TOOLS_REQUIRED] = "required"};
    const json_t *v = json_object_get(root, "tool_choice");
    const char *word = json_string_value(v);
    if (!v || json_is_null(v))
        return true;
    for (int i = TOOLS_AUTO; word && i <= TOOLS_REQUIRED; i++) {
        if (strcmp(word, words[i]) == 0) {
            *choice = (enum tool_choice)i;
            return tools || i != TOOLS_REQUIRED ||
                   refuse(r, "invalid_value", "tool_choice", "'tool_choice': 'required' without 'tools'");
        }
    }
    *name = json_string_value(json_object_get(json_object_get(v, "function"), "name"));
    if (!*name)
        return refuse(r, "invalid_value", "tool_choice", "'tool_choice': expected 'auto', 'none', 'required' or "
                      "{\"type\": \"function\", \"function\": {\"name\": ...}}");
    *choice = TOOLS_NAMED;
    return has_tool(tools, *name) ||
           refuse(r, "invalid_value", "tool_choice", "'tool_choice': there is no tool '%.60s'", *name);
}

/* *tools: those that the template gets. */
static bool read_tools(const struct api *api, const json_t *root, const json_t **tools, struct ask *a,
                       struct refusal *r)
{
    enum tool_choice choice = TOOLS_AUTO;
    const char *name = NULL;
    bool parallel = true;
    if (!field_array(root, "tools", tools, r) || !field_flag(root, "parallel_tool_calls", &parallel, r))
        return false;
    if (json_array_size(*tools) == 0)
        *tools = NULL;
    if (!read_tool_choice(root, *tools, &choice, &name, r) || !ask_tools(api, *tools, choice, name, parallel, a, r))
        return false;
    a->thoughts |= choice == TOOLS_REQUIRED || choice == TOOLS_NAMED; /* there will be no text of a format */
    return true;
}

/* The grammar of a schema; NULL: any object. */
static bool read_schema(const json_t *schema, struct ask *a, struct refusal *r)
{
    struct log_catcher caught;
    log_catch(&caught);
    const status st = schema_grammar(schema, &a->grammar);
    log_catch(NULL);
    a->thoughts = false; /* it begins at once */
    return st == ST_OK || refuse_status(r, st, "response_format", caught.first_error);
}

static bool read_format(const json_t *root, struct ask *a, struct refusal *r)
{
    const json_t *format = NULL, *schema = NULL;
    if (!field_object(root, "response_format", &format, r))
        return false;
    if (!format)
        return true;
    const char *type = json_string_value(json_object_get(format, "type"));
    if (!type)
        return refuse(r, "missing_required_parameter", "response_format", "'response_format' has no 'type'");
    if (strcmp(type, "text") == 0)
        return true;
    if (strcmp(type, "json_object") == 0)
        return field_object(format, "schema", &schema, r) && read_schema(schema, a, r); /* as llama.cpp has it */
    if (strcmp(type, "json_schema") != 0)
        return refuse(r, "invalid_value", "response_format",
                      "'response_format': expected type 'text', 'json_object' or 'json_schema', found '%.40s'", type);
    const json_t *outer = json_object_get(format, "json_schema");
    schema = json_object_get(outer, "schema");
    if (!json_is_object(schema))
        return refuse(r, schema ? "invalid_type" : "missing_required_parameter", "response_format",
                      "'response_format' of type 'json_schema': expected {\"json_schema\": {\"schema\": {...}}}");
    return read_schema(schema, a, r);
}

/* What the template may read besides: a new object; NULL after a refusal. */
static json_t *variables_of(const json_t *root, const struct ask *a, struct refusal *r)
{
    const json_t *given = NULL;
    const char *effort = NULL;
    if (!field_object(root, "chat_template_kwargs", &given, r) || !field_string(root, "reasoning_effort", &effort, r))
        return NULL;
    json_t *v = given ? json_copy((json_t *)given) : json_object();
    const bool thinks = a->thoughts && !(effort && strcmp(effort, "none") == 0);
    if (effort && !json_object_get(v, "reasoning_effort"))
        json_object_set_new(v, "reasoning_effort", json_string(effort));
    if (!thinks && !json_object_get(v, "enable_thinking"))
        json_object_set_new(v, "enable_thinking", json_false());
    if (!v)
        refuse_status(r, ST_NOMEM, NULL, "");
    return v;
}

static bool read_prompt(struct api *api, const json_t *root, const json_t *tools, struct ask *a,
                        struct prompt *prompt, struct refusal *r)
{
    json_t *variables = variables_of(root, a, r);
    const bool right = variables &&
                       ask_conversation(api, json_object_get(root, "messages"), tools, variables, prompt, r);
    json_decref(variables);
    if (!right || ask_behind_thoughts(api, prompt, a, r))
        return right;
    free(prompt->ids);
    return false;
}

static bool read_request(struct api *api, const json_t *root, struct ask *a, struct prompt *prompt, struct refusal *r)
{
    const json_t *tools = NULL;
    if (!ask_read(api, root, a, r))
        return false;
    a->thoughts = true;
    if (ask_stops(root, "stop", a, r) && ask_max_tokens(root, "max_tokens", 1, a, r) &&
        ask_max_tokens(root, "max_completion_tokens", 1, a, r) && read_log_probs(root, a, r) &&
        read_format(root, a, r) && read_tools(api, root, &tools, a, r) &&
        read_prompt(api, root, tools, a, prompt, r))
        return true;
    ask_free(a);
    return false;
}

void chat_completions_work(struct api *api, struct http_exchange *x, const json_t *root)
{
    reply_begin(api, x, root, read_request, &form);
}
