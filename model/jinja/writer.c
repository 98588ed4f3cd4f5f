#include "model/jinja/writer.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/log.h"
#include "model/jinja/render.h"

struct chat_writer {
    const char *where; /* the file's path */
    const struct tokenizer *tokenizer;
    struct chat_template format;
    struct gguf_string tool_use; /* the file's template for conversations with tools; empty: there is but one */
    bool tried[2];     /* what conversations without tools and with them get */
    struct jinja_process helper;
};

/* A large conversation takes a second; twenty megabytes hold more tokens than any context. */
static const struct jinja_limits limits = {
    .python = "/usr/bin/python3", .wait_ms = 20000, .cpu_s = 60, .memory = UINT64_C(1) << 30, .output = 20 << 20,
};

status chat_messages_check(const json_t *messages, const char *where)
{
    json_t *m;
    size_t i;
    if (!json_is_array(messages) || !json_array_size(messages)) {
        log_error("%s: expected an array of messages, one at least", where);
        return ST_USAGE;
    }
    json_array_foreach(messages, i, m) {
        const json_t *content = json_object_get(m, "content");
        if (!json_is_string(json_object_get(m, "role"))) {
            log_error("%s: message %zu: expected an object with a \"role\", which is a string", where, i);
            return ST_USAGE;
        }
        if (content && !json_is_string(content) && !json_is_array(content) && !json_is_null(content)) {
            log_error("%s: message %zu: its \"content\" is neither a string nor an array", where, i);
            return ST_USAGE;
        }
    }
    return ST_OK;
}

/* --- by a family --- */

/* Whether a message is but a role and a text; what the model thought meanwhile is nothing to families. */
static bool is_plain(const json_t *m)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)m, key, value)
        if (strcmp(key, "role") && strcmp(key, "content") && strcmp(key, "reasoning_content"))
            return false;
    return json_is_string(json_object_get(m, "content"));
}

/* The messages [json_array_size] as families take them, malloc'ed; NULL with ST_OK: no family can. */
static status plain_messages(const json_t *messages, const json_t *tools, struct chat_message **out)
{
    const size_t n = json_array_size(messages);
    json_t *m;
    size_t i;
    *out = NULL;
    json_array_foreach(messages, i, m)
        if (tools || !is_plain(m))
            return ST_OK;
    struct chat_message *plain = malloc(n * sizeof *plain);
    if (!plain) {
        log_error("no memory for a conversation of %zu messages", n);
        return ST_NOMEM;
    }
    json_array_foreach(messages, i, m) {
        plain[i].role = json_string_value(json_object_get(m, "role"));
        plain[i].content = json_string_value(json_object_get(m, "content"));
    }
    *out = plain;
    return ST_OK;
}

/* *done: the family has written it. */
static status write_by_family(const struct chat_writer *w, const json_t *messages, const json_t *tools, bool reply,
                              struct chat_text *out, bool *done)
{
    const size_t n = json_array_size(messages);
    struct chat_message *plain;
    *done = false;
    status st = plain_messages(messages, tools, &plain);
    if (st != ST_OK)
        return st;
    if (plain && chat_template_writes(&w->format, plain, n, reply)) {
        st = chat_format(&w->format, plain, n, reply, out);
        *done = st == ST_OK;
    } else if (w->format.named) {
        log_error("%s: --chat-template %s has words for texts alone, not for tools or other parts of messages",
                  w->where, chat_template_name(&w->format));
        st = ST_USAGE;
    }
    free(plain);
    return st;
}

/* --- by the template --- */

static status write_by_template(struct chat_writer *w, const json_t *messages, const json_t *tools,
                                const json_t *variables, bool reply, struct chat_text *out)
{
    struct jinja_chat chat = {.messages = messages, .tools = tools, .variables = variables, .reply = reply};
    struct chat_template t = w->format;
    const time_t now = time(NULL);
    localtime_r(&now, &chat.now);
    if (tools && w->tool_use.n)
        t.text = w->tool_use;
    return jinja_render(&w->helper, w->where, &t, &chat, out);
}

/* --- trying a template --- */

/* Whether the text's tokens are those that it would have if the template had written all of it: so it is where nobody
 * says anything that looks like a control token, unless the template makes control tokens in a way that hides from the
 * helper who wrote them. */
static status check_marks(const struct chat_writer *w, const struct chat_text *text)
{
    int32_t *ids = NULL, *all = NULL;
    size_t n, n_all;
    status st = tokenizer_encode_chat(w->tokenizer, text->at, text->n, text->contents, text->n_contents, &ids, &n);
    if (st == ST_OK)
        st = tokenizer_encode_chat(w->tokenizer, text->at, text->n, NULL, 0, &all, &n_all);
    if (st == ST_OK && (n != n_all || memcmp(ids, all, n * sizeof *ids) != 0)) {
        log_error("%s: its chat template makes control tokens out of what it is given; say a format with "
                  "--chat-template", w->where);
        st = ST_UNSUPPORTED;
    }
    free(ids);
    free(all);
    return st;
}

/* Conversations without anything that looks like a control token. */
static const char *const trials[] = {
    "[{\"role\": \"user\", \"content\": \"Good day.\"}, {\"role\": \"assistant\", \"content\": \"How are you?\"},"
    " {\"role\": \"user\", \"content\": \"Well.\"}]",
    "[{\"role\": \"system\", \"content\": \"Be kind.\"}, {\"role\": \"user\", \"content\": \"Good day.\"}]",
    "[{\"role\": \"user\", \"content\": \"Good day.\"}, {\"role\": \"assistant\", \"content\": \"\", \"tool_calls\":"
    " [{\"id\": \"a\", \"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": {}}}]},"
    " {\"role\": \"tool\", \"tool_call_id\": \"a\", \"name\": \"f\", \"content\": \"Well.\"}]",
};
static const char trial_tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"description\": \"Greets.\", \"parameters\":"
    " {\"type\": \"object\", \"properties\": {}}}}]";

/* A template may refuse a conversation, and will say why when one that somebody wants comes. */
static status try_template(struct chat_writer *w, const char *conversation, const json_t *tools)
{
    struct log_catcher caught;
    struct chat_text text;
    json_t *messages = json_loads(conversation, 0, NULL);
    if (!messages) {
        log_error("%s: no memory for a conversation", w->where);
        return ST_NOMEM;
    }
    log_catch(&caught);
    status st = write_by_template(w, messages, tools, NULL, true, &text);
    log_catch(NULL);
    json_decref(messages);
    if (st == ST_USAGE)
        return ST_OK;
    if (st != ST_OK) {
        log_error("%s", caught.first_error);
        return st;
    }
    st = check_marks(w, &text);
    chat_text_free(&text);
    return st;
}

/* With tools or without: a template may write other words then, or be another. */
static status try_all(struct chat_writer *w, bool with_tools)
{
    status st = ST_OK;
    json_t *tools = with_tools ? json_loads(trial_tools, 0, NULL) : NULL;
    if (with_tools && !tools) {
        log_error("%s: no memory for a conversation", w->where);
        return ST_NOMEM;
    }
    for (size_t i = 0; i < sizeof trials / sizeof *trials && st == ST_OK; i++)
        st = try_template(w, trials[i], tools);
    json_decref(tools);
    w->tried[with_tools] = st == ST_OK;
    return st;
}

/* --- writing --- */

/* Whether the file's template may read one of the variables: a family knows none. */
static bool reads_any(const struct chat_writer *w, const json_t *variables)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)variables, name, value)
        if (memmem(w->format.text.at, w->format.text.n, name, strlen(name)))
            return !w->format.named;
    return false;
}

status chat_writer_text(struct chat_writer *w, const json_t *messages, const json_t *tools, const json_t *variables,
                        bool reply, struct chat_text *out)
{
    bool done = false;
    status st = ST_OK;
    if (!reads_any(w, variables))
        st = write_by_family(w, messages, tools, reply, out, &done);
    if (st == ST_OK && !done && !w->tried[tools != NULL])
        st = try_all(w, tools != NULL);
    return st != ST_OK || done ? st : write_by_template(w, messages, tools, variables, reply, out);
}

status chat_writer_encode(struct chat_writer *w, const json_t *messages, const json_t *tools, const json_t *variables,
                          bool reply, int32_t **ids, size_t *n_ids)
{
    struct chat_text text;
    status st = chat_writer_text(w, messages, tools, variables, reply, &text);
    if (st != ST_OK)
        return st;
    st = tokenizer_encode_chat(w->tokenizer, text.at, text.n, text.contents, text.n_contents, ids, n_ids);
    chat_text_free(&text);
    return st;
}

status chat_writer_open(const struct gguf *g, const struct tokenizer *t, const char *name, struct chat_writer **out)
{
    struct chat_writer *w = calloc(1, sizeof *w);
    if (!w) {
        log_error("%s: no memory for a chat", gguf_path(g));
        return ST_NOMEM;
    }
    w->where = gguf_path(g);
    w->tokenizer = t;
    w->helper.limits = limits;
    w->tool_use = (struct gguf_string){"", 0};
    gguf_get_string(g, "tokenizer.chat_template.tool_use", &w->tool_use);
    status st = chat_template_of(g, t, name, &w->format);
    if (st == ST_OK && !w->format.family)
        st = try_all(w, false);
    if (st != ST_OK) {
        chat_writer_close(w);
        return st;
    }
    *out = w;
    return ST_OK;
}

void chat_writer_close(struct chat_writer *w)
{
    if (w)
        jinja_process_end(&w->helper);
    free(w);
}
