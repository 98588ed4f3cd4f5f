#include "model/jinja/render.h"

#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "model/jinja/answer.h"

/* --- what JSON cannot hold --- */

/* Bytes of the character that the n bytes begin with, or 0: jansson knows. */
static size_t character(const char *at, size_t n)
{
    for (size_t length = 1; length <= 4 && length <= n; length++) {
        json_t *s = json_stringn(at, length);
        json_decref(s);
        if (s)
            return length;
    }
    return 0;
}

/* A string with U+FFFD for each broken byte. */
static json_t *repaired_string(const json_t *string)
{
    static const char replacement[] = "\uFFFD";
    const char *at = json_string_value(string);
    const size_t n = json_string_length(string);
    json_t *same = json_stringn(at, n);
    if (same)
        return same;
    char *out = malloc(3 * n + 1);
    size_t n_out = 0;
    for (size_t i = 0, length; out && i < n; i += length ? length : 1) {
        length = character(at + i, n - i);
        memcpy(out + n_out, length ? at + i : replacement, length ? length : 3);
        n_out += length ? length : 3;
    }
    json_t *s = out ? json_stringn(out, n_out) : NULL;
    free(out);
    return s;
}

/* A copy whose strings are UTF-8, which an answer that was cut short within a character is not; NULL: no memory. */
static json_t *repaired(const json_t *value)
{
    const char *key;
    json_t *item, *copy = NULL;
    size_t i;
    if (json_is_string(value))
        return repaired_string(value);
    if (json_is_array(value)) {
        copy = json_array();
        json_array_foreach(value, i, item)
            if (json_array_append_new(copy, repaired(item)) != 0)
                goto failed;
        return copy;
    }
    if (json_is_object(value)) {
        copy = json_object();
        json_object_foreach((json_t *)value, key, item)
            if (json_object_set_new(copy, key, repaired(item)) != 0)
                goto failed;
        return copy;
    }
    return json_deep_copy(value);
failed:
    json_decref(copy);
    return NULL;
}

/* --- the request --- */

static json_t *string_or_null(struct gguf_string s)
{
    return s.n ? json_stringn(s.at, s.n) : json_null();
}

static bool is_utf8(struct gguf_string s)
{
    json_t *string = json_stringn(s.at, s.n);
    json_decref(string);
    return string != NULL;
}

/* The request as JSON, malloc'ed; NULL: no memory, or a key that is no UTF-8. */
static char *request_of(const struct chat_template *t, const struct jinja_chat *chat)
{
    const struct tm *now = &chat->now;
    char *text = NULL;
    json_t *o = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:[iiiiii]}", "template",
                          json_stringn(t->text.at, t->text.n),
                          "bos_token", string_or_null(t->bos), "eos_token", string_or_null(t->eos),
                          "messages", repaired(chat->messages),
                          "tools", chat->tools ? repaired(chat->tools) : json_null(),
                          "variables", chat->variables ? repaired(chat->variables) : json_object(), "reply",
                          chat->reply,
                          "now", now->tm_year + 1900, now->tm_mon + 1, now->tm_mday, now->tm_hour, now->tm_min,
                          now->tm_sec < 60 ? now->tm_sec : 59);
    if (o)
        text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return text;
}

status jinja_render(struct jinja_process *p, const char *where, const struct chat_template *t,
                    const struct jinja_chat *chat, struct chat_text *out)
{
    uint8_t *answer = NULL;
    size_t n = 0;
    if (!is_utf8(t->text) || !is_utf8(t->bos) || !is_utf8(t->eos)) {
        log_error("%s: its chat template of %zu bytes, or the text of its BOS or EOS, is no text in UTF-8", where,
                  t->text.n);
        return ST_UNSUPPORTED;
    }
    char *request = request_of(t, chat);
    if (!request) {
        log_error("%s: no memory for a conversation of %zu messages", where, json_array_size(chat->messages));
        return ST_NOMEM;
    }
    status st = jinja_process_ask(p, where, request, strlen(request), &answer, &n);
    free(request);
    if (st != ST_OK)
        return st;
    st = jinja_answer_decode(answer, n, where, out);
    free(answer);
    if (st != ST_OK && st != ST_USAGE) /* it is of no more use */
        jinja_process_end(p);
    return st;
}
