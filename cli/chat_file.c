#include "cli/chat_file.h"

#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "cli/text.h"
#include "model/jinja/writer.h"

/* Takes what `all` holds. */
static status take(const json_t *all, const char *name, struct chat_file *out)
{
    const json_t *messages = json_is_object(all) ? json_object_get(all, "messages") : all;
    const json_t *tools = json_is_object(all) ? json_object_get(all, "tools") : NULL;
    status st = chat_messages_check(messages, name);
    if (st == ST_OK && tools && !json_is_array(tools) && !json_is_null(tools)) {
        log_error("%s: \"tools\" is no array", name);
        st = ST_USAGE;
    }
    if (st != ST_OK)
        return st;
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    out->reply = strcmp(json_string_value(json_object_get(last, "role")), "assistant") != 0;
    out->messages = json_incref((json_t *)messages);
    out->tools = json_is_array(tools) ? json_incref((json_t *)tools) : NULL;
    return ST_OK;
}

status chat_file_read(const char *path, struct chat_file *out)
{
    const char *name = strcmp(path, "-") == 0 ? "standard input" : path;
    char *text;
    size_t n;
    json_error_t error;
    status st = text_read(&(struct text_option){.file = path}, false, &text, &n);
    if (st != ST_OK)
        return st;
    json_t *all = json_loadb(text, n, JSON_REJECT_DUPLICATES, &error);
    free(text);
    if (!all) {
        log_error("%s:%d: expected a conversation in JSON: %s", name, error.line, error.text);
        return ST_USAGE;
    }
    st = take(all, name, out);
    json_decref(all);
    return st;
}

void chat_file_free(struct chat_file *c)
{
    json_decref(c->messages);
    json_decref(c->tools);
    *c = (struct chat_file){0};
}
