#include "serve/http_head.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool http_fields_add(struct http_fields *f, const char *name, const char *value)
{
    const size_t n_name = strlen(name) + 1, n_value = strlen(value) + 1, need = f->n + n_name + n_value;
    if (need > f->cap) {
        char *at = realloc(f->at, 2 * need);
        if (!at)
            return false;
        f->at = at;
        f->cap = 2 * need;
    }
    memcpy(f->at + f->n, name, n_name);
    memcpy(f->at + f->n + n_name, value, n_value);
    f->n = need;
    return true;
}

bool http_fields_next(const struct http_fields *f, const char **name, const char **value)
{
    const char *at = *name ? *value + strlen(*value) + 1 : f->at;
    if (!at || at == f->at + f->n)
        return false;
    *name = at;
    *value = at + strlen(at) + 1;
    return true;
}

const char *http_fields_find(const struct http_fields *f, const char *name)
{
    for (const char *n = NULL, *value; http_fields_next(f, &n, &value);)
        if (strcasecmp(n, name) == 0)
            return value;
    return NULL;
}

static size_t count(const struct http_fields *f, const char *name)
{
    size_t k = 0;
    for (const char *n = NULL, *value; http_fields_next(f, &n, &value);)
        k += strcasecmp(n, name) == 0;
    return k;
}

bool http_path_fine(const char *path)
{
    if (*path != '/')
        return false;
    for (; *path; path++)
        if (*path <= ' ' || *path > '~')
            return false;
    return true;
}

static bool is_name(const char *name)
{
    static const char signs[] = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    return *name && !name[strspn(name, signs)];
}

static bool is_value(const char *value)
{
    for (; *value; value++)
        if (((unsigned char)*value < ' ' && *value != '\t') || *value == 0x7F)
            return false;
    return true;
}

bool http_fields_fine(const struct http_fields *f)
{
    for (const char *name = NULL, *value; http_fields_next(f, &name, &value);)
        if (!is_name(name) || !is_value(value))
            return false;
    return true;
}

int http_body_length(const struct http_fields *f, bool wants, int64_t *length)
{
    const char *coding = http_fields_find(f, "Transfer-Encoding"), *said = http_fields_find(f, "Content-Length");
    *length = 0;
    if (coding) {
        *length = HTTP_CHUNKED;
        return said || count(f, "Transfer-Encoding") > 1 || strcasecmp(coding, "chunked") != 0 ? 400 : 0;
    }
    if (!said)
        return wants ? 411 : 0;
    const size_t n = strspn(said, "0123456789");
    if (count(f, "Content-Length") > 1 || n == 0 || n > 18 || said[n])
        return 400;
    *length = strtoll(said, NULL, 10);
    return 0;
}

bool http_expects_continue(const struct http_fields *f)
{
    const char *expect = http_fields_find(f, "Expect");
    return expect && strcasecmp(expect, "100-continue") == 0;
}

const char *http_shown_key(const struct http_fields *f)
{
    static const char scheme[] = "Bearer ";
    const char *shown = http_fields_find(f, "Authorization");
    if (shown && strncasecmp(shown, scheme, sizeof scheme - 1) == 0) {
        shown += sizeof scheme - 1;
        return shown + strspn(shown, " ");
    }
    shown = http_fields_find(f, "x-api-key");
    return shown ? shown : "";
}
