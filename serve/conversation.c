/* OpenAI's messages as what chat templates know: a role, a text, calls whose arguments are objects. */
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "model/jinja/writer.h"
#include "serve/ask.h"

static bool wrong(struct refusal *r, size_t i, const char *what)
{
    return refuse(r, "invalid_value", "messages", "'messages': message %zu: %s", i, what);
}

static bool check_role(const json_t *m, size_t i, struct refusal *r)
{
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool", "function"};
    const char *role = json_string_value(json_object_get(m, "role"));
    if (!json_is_object(m))
        return wrong(r, i, "expected an object");
    if (!role)
        return wrong(r, i, "it has no \"role\", or one that is no string");
    for (size_t k = 0; k < sizeof roles / sizeof *roles; k++)
        if (strcmp(role, roles[k]) == 0)
            return true;
    return refuse(r, "invalid_value", "messages",
                  "'messages': message %zu: there is no role '%.40s' (system, developer, user, assistant, tool)", i,
                  role);
}

static bool is_role(const json_t *m, const char *role)
{
    return strcmp(json_string_value(json_object_get(m, "role")), role) == 0;
}

/* What templates take for strings. */
static bool check_strings(const json_t *m, size_t i, struct refusal *r)
{
    static const char *const names[] = {"name", "tool_call_id", "reasoning_content"};
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        const json_t *v = json_object_get(m, names[k]);
        if (v && !json_is_null(v) && !json_is_string(v))
            return refuse(r, "invalid_type", "messages", "'messages': message %zu: its \"%s\" is no string", i,
                          names[k]);
    }
    return true;
}

/* Appends a part of a content to the text. */
static bool add_part(const json_t *part, size_t i, char *text, size_t *n, struct refusal *r)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *v = json_object_get(part, "text");
    if (!type)
        return wrong(r, i, "a part of its content has no \"type\"");
    if (strcmp(type, "refusal") == 0)
        v = json_object_get(part, "refusal");
    else if (strcmp(type, "text") != 0)
        return refuse(r, "unsupported_value", "messages",
                      "'messages': message %zu: parts of type '%.40s' are not for this model, which reads text alone",
                      i, type);
    if (!json_is_string(v))
        return wrong(r, i, "a part of its content has no text, or one that is no string");
    memcpy(text + *n, json_string_value(v), json_string_length(v));
    *n += json_string_length(v);
    return true;
}

static size_t bytes_of_parts(const json_t *parts)
{
    size_t i, n = 0;
    json_t *part;
    json_array_foreach(parts, i, part)
        n += json_string_length(json_object_get(part, "text")) + json_string_length(json_object_get(part, "refusal"));
    return n;
}

/* The content of message i as a string, "" where it need not have one; NULL after a refusal. */
static json_t *content_of(const json_t *m, size_t i, struct refusal *r)
{
    json_t *content = json_object_get(m, "content"), *part, *joined = NULL;
    size_t k, n = 0;
    if (json_is_string(content))
        return json_incref(content);
    if (!content || json_is_null(content)) {
        if (is_role(m, "assistant")) /* it called tools, or nothing came of it */
            return json_string("");
        wrong(r, i, "it has no \"content\"");
        return NULL;
    }
    if (!json_is_array(content)) {
        wrong(r, i, "its \"content\" is neither a string nor an array");
        return NULL;
    }
    char *text = malloc(bytes_of_parts(content) + 1);
    if (!text) {
        refuse_status(r, ST_NOMEM, NULL, "");
        return NULL;
    }
    json_array_foreach(content, k, part)
        if (!add_part(part, i, text, &n, r))
            goto done;
    joined = json_stringn_nocheck(text, n);
    if (!joined)
        refuse_status(r, ST_NOMEM, NULL, "");
done:
    free(text);
    return joined;
}

/* A copy of a call whose arguments are the object that their text is, where it is one; NULL after a refusal. */
static json_t *call_of(const json_t *call, size_t i, struct refusal *r)
{
    json_t *function = json_object_get(call, "function"), *copy, *of, *object;
    const json_t *arguments = json_object_get(function, "arguments");
    const json_t *id = json_object_get(call, "id");
    if (!json_is_string(json_object_get(function, "name"))) {
        wrong(r, i, "a call of its \"tool_calls\" has no \"function\" with a \"name\"");
        return NULL;
    }
    if (id && !json_is_null(id) && !json_is_string(id)) {
        wrong(r, i, "the \"id\" of a call is no string");
        return NULL;
    }
    if (arguments && !json_is_string(arguments) && !json_is_object(arguments)) {
        wrong(r, i, "the \"arguments\" of a call are no string");
        return NULL;
    }
    copy = json_copy((json_t *)call);
    of = json_copy(function);
    object = json_is_string(arguments)
                 ? json_loadb(json_string_value(arguments), json_string_length(arguments), 0, NULL) : NULL;
    if (json_is_object(object))
        json_object_set(of, "arguments", object);
    json_decref(object);
    json_object_set_new(copy, "function", of);
    return copy;
}

static json_t *calls_of(const json_t *calls, size_t i, struct refusal *r)
{
    json_t *out = json_array(), *call;
    size_t k;
    if (!json_is_array(calls)) {
        json_decref(out);
        wrong(r, i, "its \"tool_calls\" are no array");
        return NULL;
    }
    json_array_foreach(calls, k, call) {
        json_t *copy = call_of(call, i, r);
        if (!copy || json_array_append_new(out, copy) != 0) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

/* Of what the file's template knows: what it does not know is put in other words, or left out. */
struct known {
    bool developer, name;
};

static bool template_has(const struct api *api, const char *word)
{
    return memmem(api->chat.text.at, api->chat.text.n, word, strlen(word)) != NULL;
}

/* Message i in the words of templates; NULL after a refusal. */
static json_t *message_of(const struct known *known, const json_t *m, size_t i, struct refusal *r)
{
    if (!check_role(m, i, r) || !check_strings(m, i, r))
        return NULL;
    const json_t *calls = is_role(m, "assistant") ? json_object_get(m, "tool_calls") : NULL;
    json_t *content = content_of(m, i, r);
    if (!content)
        return NULL;
    json_t *out = json_copy((json_t *)m);
    json_object_set_new(out, "content", content);
    if (calls && !json_is_null(calls) && json_array_size(calls)) {
        json_t *copies = calls_of(calls, i, r);
        if (!copies) {
            json_decref(out);
            return NULL;
        }
        json_object_set_new(out, "tool_calls", copies);
    } else {
        json_object_del(out, "tool_calls");
    }
    /* What the API gives back beside a text is nothing to templates; a family writes texts alone. */
    static const char *const dropped[] = {"refusal", "annotations", "audio", "function_call"};
    for (size_t k = 0; k < sizeof dropped / sizeof *dropped; k++)
        json_object_del(out, dropped[k]);
    if (json_is_null(json_object_get(m, "reasoning_content")))
        json_object_del(out, "reasoning_content");
    if (is_role(m, "developer") && !known->developer)
        json_object_set_new(out, "role", json_string("system"));
    if (!known->name)
        json_object_del(out, "name");
    return out;
}

static json_t *messages_of(const struct api *api, const json_t *messages, struct refusal *r)
{
    const struct known known = {.developer = template_has(api, "developer"),
                                .name = template_has(api, ".name") || template_has(api, "['name']")};
    json_t *out, *m;
    size_t i;
    if (!json_is_array(messages) || json_array_size(messages) == 0) {
        refuse(r, messages ? "invalid_type" : "missing_required_parameter", "messages",
               "'messages': expected an array of messages, one at least");
        return NULL;
    }
    out = json_array();
    json_array_foreach(messages, i, m) {
        json_t *copy = message_of(&known, m, i, r);
        if (!copy || json_array_append_new(out, copy) != 0) {
            json_decref(out);
            if (r->status == 0)
                refuse_status(r, ST_NOMEM, NULL, "");
            return NULL;
        }
    }
    return out;
}

bool ask_conversation(struct api *api, const json_t *messages, const json_t *tools, const json_t *kwargs,
                      struct prompt *out, struct refusal *r)
{
    struct log_catcher caught;
    struct chat_text text;
    int32_t *ids;
    size_t n;
    if (!api->writer)
        return refuse(r, "unsupported_value", NULL, "this model has no chat template, only /v1/completions");
    if (json_array_size(messages) >= api->house.n_ctx) /* each of them is a token at least */
        return ask_encoded(api, ST_FULL, "messages", r);
    json_t *plain = messages_of(api, messages, r);
    if (!plain)
        return false;
    log_catch(&caught);
    status st = chat_writer_text(api->writer, plain, tools, kwargs, true, &text);
    log_catch(NULL);
    json_decref(plain);
    if (st != ST_OK)
        return refuse_status(r, st, "messages", caught.first_error);
    st = tokenizer_encode_chat_within(api->house.tokenizer, text.at, text.n, text.contents, text.n_contents,
                                      api->house.n_ctx, &ids, &n);
    chat_text_free(&text);
    if (!ask_encoded(api, st, "messages", r))
        return false;
    if (!ask_fits(api, n, r)) {
        free(ids);
        return false;
    }
    *out = (struct prompt){ids, (uint32_t)n};
    return true;
}
