#include "serve/tool_reader.h"

#include <stdlib.h>
#include <string.h>
#include <jansson.h>
#include "model/thoughts.h"
#include "serve/tool_format.h"

enum { HEAD_MAX = 512, NAME_MAX_LETTERS = 128 };

/* --- looking --- */

/* Bytes of the mark of a list that a text begins with; 0: none. *part: it may yet become one. */
static size_t mark_at(const char *const *marks, const char *at, size_t n, bool *part)
{
    *part = false;
    for (; *marks; marks++) {
        const size_t length = strlen(*marks);
        if (n >= length && memcmp(at, *marks, length) == 0)
            return length;
        *part |= n < length && memcmp(at, *marks, n) == 0;
    }
    return 0;
}

static bool begins_mark(const char *const *marks, const char *at, size_t n)
{
    bool part;
    return mark_at(marks, at, n, &part) == n || part;
}

/* Bytes of the JSON string, with its quotes, that is at `at`; 0: its end has not come. */
static size_t string_length(const char *at, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        if (at[i] == '"')
            return i + 1;
        i += at[i] == '\\';
    }
    return 0;
}

/* Whether the value ends with this byte. */
static bool walk_byte(struct json_walk *w, char c)
{
    if (w->string) {
        const bool escaped = w->escaped;
        w->escaped = !escaped && c == '\\';
        w->string = escaped || c != '"';
        return false;
    }
    w->string = c == '"';
    w->depth += c == '{' || c == '[';
    if (c == '}' || c == ']')
        w->depth--;
    return w->depth == 0;
}

/* Bytes of the JSON value at `at`; 0: its end has not come, or it is none (*broken). */
static size_t value_length(const char *at, size_t n, bool *broken)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzE0123456789+-.";
    struct json_walk w = {0};
    size_t i = 0;
    if (at[0] == '"')
        return string_length(at, n);
    if (at[0] == '{' || at[0] == '[') {
        for (; i < n; i++)
            if (walk_byte(&w, at[i]))
                return i + 1;
        return 0;
    }
    while (i < n && at[i] && strchr(letters, at[i]))
        i++;
    *broken = i == 0;
    return i < n ? i : 0;
}

/* --- telling --- */

static status tell(struct tool_reader *r, enum piece_kind kind, size_t from, size_t n)
{
    return n ? r->tell(r->arg, kind, r->held.at + from, n) : ST_OK;
}

/* A call begins with `mark` bytes of what is held. */
static void begin_call(struct tool_reader *r, size_t mark)
{
    r->state = READ_HEAD;
    r->mark = r->at = mark;
    r->object = r->told = false;
    r->name.n = r->arguments.n = 0;
    r->walk = (struct json_walk){0};
}

/* What began like a call is none: its mark is text, and what comes behind that is looked at again. */
static status no_call(struct tool_reader *r)
{
    status st = ST_OK;
    if (r->told) { /* behind its arguments it is no matter */
        text_drop(&r->held, r->at);
        r->state = READ_TAIL;
        return st;
    }
    st = tell(r, PIECE_TEXT, 0, r->mark);
    text_drop(&r->held, r->mark);
    r->state = READ_TEXT;
    r->list = false;
    return st;
}

static void call_is_over(struct tool_reader *r)
{
    text_drop(&r->held, r->at);
    r->state = READ_TAIL;
}

/* The name; what is held begins with the arguments, at byte `at`, from now on. */
static status tell_name(struct tool_reader *r, const char *name, size_t n, size_t at)
{
    status st = r->tell(r->arg, PIECE_CALL, name, n);
    r->told = true;
    r->state = READ_ARGUMENTS;
    text_drop(&r->held, at);
    r->at = 0;
    return st;
}

/* --- the states: each sets *more if what is left is to be looked at again --- */

/* Whether the answer begins with a call; then, or if that is not known yet, there is nothing else to do. */
static bool look_first(struct tool_reader *r, bool *more)
{
    const char *first = r->format->first;
    const size_t skip = thoughts_spaces(r->held.at, r->held.n), n = r->held.n - skip;
    if (n == 0)
        return true;
    r->state = READ_TEXT;
    if (!first)
        return false;
    bool part;
    const size_t length = mark_at((const char *const[]){first, NULL}, r->held.at + skip, n, &part);
    if (length) {
        begin_call(r, skip + (*first == '{' ? 0 : length));
        *more = true;
    } else if (part) {
        r->state = READ_START;
    }
    return length || part;
}

static status look_text(struct tool_reader *r, bool *more)
{
    size_t i = 0, length = 0, told;
    bool part = false;
    if (r->state == READ_START && look_first(r, more))
        return ST_OK;
    for (; i < r->held.n; i++) {
        length = mark_at(r->format->opens, r->held.at + i, r->held.n - i, &part);
        if (length || part)
            break;
    }
    for (told = i; told && !r->keep_spaces && thoughts_spaces(r->held.at + told - 1, 1);)
        told--; /* white space before a call is nothing */
    status st = tell(r, PIECE_TEXT, 0, told);
    text_drop(&r->held, told);
    *more = length > 0;
    if (length)
        begin_call(r, i - told + length);
    return st;
}

/* A name, then tags. */
static status look_tagged(struct tool_reader *r, bool *more)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:/";
    const char *at = r->held.at + r->at, *end = r->format->tags->behind_name;
    const size_t n = strspn(at, letters); /* a NUL stands behind what is held */
    if (n == r->held.n - r->at && n <= NAME_MAX_LETTERS)
        return ST_OK;
    *more = true;
    if (n == 0 || n > NAME_MAX_LETTERS || !at[n] || !strchr(end, at[n]))
        return no_call(r);
    r->parameters = tools_parameters(r->tools, at, n);
    r->n_members = 0;
    status st = tell_name(r, at, n, r->at + n + (at[n] == '>'));
    r->state = READ_TAGS;
    return st;
}

static status look_tags(struct tool_reader *r, bool *more)
{
    status st;
    r->arguments.n = 0;
    const enum tags_found found =
        tags_take(r->format->tags, r->parameters, &r->n_members, &r->held, &r->arguments, &st);
    if (st == ST_OK && found == TAGS_BROKEN)
        st = text_append(&r->arguments, r->n_members ? "}" : "{}", r->n_members ? 1 : 2);
    if (st == ST_OK && r->arguments.n)
        st = r->tell(r->arg, PIECE_ARGUMENTS, r->arguments.at, r->arguments.n);
    if (found == TAGS_END || found == TAGS_BROKEN)
        r->state = READ_TAIL;
    *more = found != TAGS_MORE;
    return st;
}

/* A name, then arguments. */
static status look_named(struct tool_reader *r, bool *more)
{
    const char *at = r->held.at + r->at, *skipped = r->format->skipped;
    size_t n = r->held.n - r->at, length = 0;
    const char *brace = memchr(at, '{', n);
    if (!brace && n < HEAD_MAX)
        return ST_OK;
    *more = true;
    n = brace ? (size_t)(brace - at) : 0;
    if (skipped && n > strlen(skipped) && memcmp(at, skipped, strlen(skipped)) == 0) {
        at += strlen(skipped);
        n -= strlen(skipped);
    }
    while (length < n && !strchr(" \t\r\n<[{`|\"", at[length]))
        length++;
    if (length == 0 || length > NAME_MAX_LETTERS)
        return no_call(r);
    return tell_name(r, at, length, (size_t)(brace - r->held.at));
}

static status look_head(struct tool_reader *r, bool *more)
{
    bool part = false;
    for (size_t length = 1; length; r->at += length) { /* a mark for all calls may stand before that of the first */
        r->at += thoughts_spaces(r->held.at + r->at, r->held.n - r->at);
        length = r->at < r->held.n ? mark_at(r->format->opens, r->held.at + r->at, r->held.n - r->at, &part) : 0;
    }
    if (r->at == r->held.n || part)
        return ST_OK;
    const char c = r->held.at[r->at];
    *more = true;
    if (c == '{') {
        r->state = READ_OBJECT;
        r->object = true;
        r->at++;
    } else if (c == '[' && !r->list) {
        r->list = true;
        r->at++;
    } else if (r->list || !r->format->named) {
        return no_call(r);
    } else {
        *more = false;
        return r->format->tags ? look_tagged(r, more) : look_named(r, more);
    }
    return ST_OK;
}

/* Keeps the string that a JSON string [n] is. False: it is none. */
static bool keep_string(struct text *to, const char *at, size_t n, status *st)
{
    json_t *v = json_loadb(at, n, JSON_DECODE_ANY, NULL);
    to->n = 0;
    if (json_is_string(v))
        *st = text_append(to, json_string_value(v), json_string_length(v));
    const bool is = json_is_string(v);
    json_decref(v);
    return is;
}

static bool key_is(const char *key, size_t n, const char *name)
{
    return n == strlen(name) + 2 && memcmp(key + 1, name, n - 2) == 0;
}

/* Keeps the name, or arguments that come before it or as a string. */
static bool keep_member(struct tool_reader *r, const char *key, size_t n_key, const char *v, size_t n, status *st)
{
    if (key_is(key, n_key, "name"))
        return *v == '"' && keep_string(&r->name, v, n, st) && r->name.n <= NAME_MAX_LETTERS;
    if (!key_is(key, n_key, "arguments") && !key_is(key, n_key, "parameters"))
        return true;
    r->arguments.n = 0;
    if (*v == '"')
        return keep_string(&r->arguments, v, n, st);
    *st = text_append(&r->arguments, v, n);
    return *v == '{';
}

/* A member of the object, from its key on. */
static status look_member(struct tool_reader *r, bool *more)
{
    const char *key = r->held.at + r->at, *end = r->held.at + r->held.n, *v;
    const size_t n_key = string_length(key, (size_t)(end - key));
    bool broken = false;
    status st = ST_OK;
    if (!n_key)
        return ST_OK;
    v = key + n_key + thoughts_spaces(key + n_key, (size_t)(end - key) - n_key);
    if (v == end)
        return ST_OK;
    *more = true;
    if (*v++ != ':')
        return no_call(r);
    v += thoughts_spaces(v, (size_t)(end - v));
    if (v < end && *v == '{' && r->name.n && !r->told &&
        (key_is(key, n_key, "arguments") || key_is(key, n_key, "parameters")))
        return tell_name(r, r->name.at, r->name.n, (size_t)(v - r->held.at));
    const size_t n = v < end ? value_length(v, (size_t)(end - v), &broken) : 0;
    if (broken)
        return no_call(r);
    *more = n > 0;
    if (!n)
        return ST_OK;
    if (!r->told && !keep_member(r, key, n_key, v, n, &st))
        return no_call(r);
    r->at = (size_t)(v - r->held.at) + n;
    return st;
}

/* The object has ended. */
static status end_object(struct tool_reader *r)
{
    static const char none[] = "{}";
    r->at++;
    if (r->told) {
        call_is_over(r);
        return ST_OK;
    }
    json_t *v = r->arguments.n ? json_loadb(r->arguments.at, r->arguments.n, 0, NULL) : json_object();
    const bool right = json_is_object(v) && r->name.n;
    json_decref(v);
    if (!right)
        return no_call(r);
    status st = r->tell(r->arg, PIECE_CALL, r->name.at, r->name.n);
    if (st == ST_OK)
        st = r->tell(r->arg, PIECE_ARGUMENTS, r->arguments.n ? r->arguments.at : none,
                     r->arguments.n ? r->arguments.n : sizeof none - 1);
    call_is_over(r);
    return st;
}

static status look_object(struct tool_reader *r, bool *more)
{
    while (r->at < r->held.n && (r->held.at[r->at] == ',' || thoughts_spaces(r->held.at + r->at, 1)))
        r->at++;
    if (r->at == r->held.n)
        return ST_OK;
    if (r->held.at[r->at] == '"')
        return look_member(r, more);
    *more = true;
    return r->held.at[r->at] == '}' ? end_object(r) : no_call(r);
}

static status look_arguments(struct tool_reader *r, bool *more)
{
    size_t n = 0;
    while (n < r->held.n && !*more)
        *more = walk_byte(&r->walk, r->held.at[n++]);
    status st = tell(r, PIECE_ARGUMENTS, 0, n);
    text_drop(&r->held, n);
    if (*more)
        r->state = r->object ? READ_OBJECT : READ_TAIL;
    return st;
}

/* Whether the byte stands between two calls that no mark opens. */
static bool is_between(const struct tool_reader *r, char c)
{
    const bool bare = r->format->first && *r->format->first == '{';
    return (r->list && c == ',') || (bare && !r->list && (c == ';' || c == ',' || c == '{'));
}

static status look_tail(struct tool_reader *r, bool *more)
{
    const size_t skip = thoughts_spaces(r->held.at, r->held.n), n = r->held.n - skip;
    const char *at = r->held.at + skip;
    bool part_close = false, part_open = false;
    if (n == 0)
        return ST_OK;
    const size_t close = r->list && *at == ']' ? 1 : mark_at(r->format->closes, at, n, &part_close);
    const size_t open = mark_at(r->format->opens, at, n, &part_open);
    *more = true;
    if (close) {
        r->list = r->list && *at != ']';
        text_drop(&r->held, skip + close);
    } else if (open) {
        begin_call(r, skip + open);
    } else if (is_between(r, *at)) {
        begin_call(r, skip + (*at != '{'));
    } else if (part_close || part_open) {
        *more = false;
    } else {
        text_drop(&r->held, skip);
        r->list = false;
        r->state = READ_TEXT;
    }
    return ST_OK;
}

static status look(struct tool_reader *r)
{
    status st = ST_OK;
    for (bool more = true; more && st == ST_OK;) {
        more = false;
        switch (r->state) {
        case READ_START:
        case READ_TEXT: st = look_text(r, &more); break;
        case READ_HEAD: st = look_head(r, &more); break;
        case READ_OBJECT: st = look_object(r, &more); break;
        case READ_ARGUMENTS: st = look_arguments(r, &more); break;
        case READ_TAGS: st = look_tags(r, &more); break;
        case READ_TAIL: st = look_tail(r, &more); break;
        }
    }
    return st;
}

/* --- the whole --- */

/* Whether a control token is of a call, or text. */
static bool means_something(const struct tool_reader *r, const char *at, size_t n)
{
    switch (r->state) {
    case READ_HEAD: return true;
    case READ_TAIL: return r->special || begins_mark(r->format->closes, at, n) || begins_mark(r->format->opens, at, n);
    case READ_START:
    case READ_TEXT: return r->special || begins_mark(r->format->opens, at, n);
    default: return r->special;
    }
}

status tool_reader_take(struct tool_reader *r, const char *at, size_t n, bool control)
{
    if (n == 0 || (control && !means_something(r, at, n)))
        return ST_OK;
    status st = text_append(&r->held, at, n);
    return st == ST_OK ? look(r) : st;
}

status tool_reader_end(struct tool_reader *r)
{
    size_t skip = 0;
    if (r->state == READ_TAIL || (r->told && (r->state == READ_OBJECT || r->state == READ_TAGS)))
        skip = r->held.n; /* what a limit has cut: marks, or what is of a call */
    status st = tell(r, PIECE_TEXT, skip, r->held.n - skip);
    text_drop(&r->held, r->held.n);
    r->state = READ_TEXT;
    return st;
}

void tool_reader_free(struct tool_reader *r)
{
    free(r->held.at);
    free(r->name.at);
    free(r->arguments.at);
    *r = (struct tool_reader){0};
}
