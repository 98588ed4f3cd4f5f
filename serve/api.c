#include "serve/api.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "serve/fields.h"
#include "serve/json_text.h"

static const char body_type[] = "application/json";

static bool is_messages(const char *path)
{
    static const char prefix[] = "/v1/messages";
    return strncmp(path, prefix, sizeof prefix - 1) == 0;
}

/* What the APIs call a status; OpenAI's is first. */
static const char *type_of(int http, bool messages)
{
    switch (http) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 404:
        return "not_found_error";
    case 413:
        return messages ? "request_too_large" : "invalid_request_error";
    case 429:
        return "rate_limit_error";
    case 503:
        return messages ? "overloaded_error" : "unavailable_error";
    default:
        return http < 500 ? "invalid_request_error" : messages ? "api_error" : "server_error";
    }
}

static void put_string_or_null(struct json_text *t, const char *text)
{
    if (text && *text)
        json_string_of(t, text, strlen(text));
    else
        json_put(t, "null");
}

static void put_error(struct json_text *t, const char *path, int http, const char *code, const char *param,
                      const char *message)
{
    const bool messages = is_messages(path);
    json_put(t, messages ? "{\"type\":\"error\",\"error\":{\"message\":" : "{\"error\":{\"message\":");
    json_string_of(t, message, strlen(message));
    json_print(t, ",\"type\":\"%s\"", type_of(http, messages));
    if (!messages) {
        json_put(t, ",\"param\":");
        put_string_or_null(t, param);
        json_put(t, ",\"code\":");
        if (http == 503 && !code) /* as llama.cpp has it, whose clients wait for the model */
            json_print(t, "%d", http);
        else
            put_string_or_null(t, code);
    }
    json_put(t, "}}");
}

char *api_error_body(void *arg, const char *path, int http, const char *message, size_t *n)
{
    struct json_text t = {0};
    (void)arg;
    put_error(&t, path, http, http == 401 ? "invalid_api_key" : NULL, NULL, message);
    if (t.failed) {
        json_text_free(&t);
        return NULL;
    }
    *n = t.n;
    return t.at;
}

void api_refuse(struct http_exchange *x, int http, const char *code, const char *param, const char *format, ...)
{
    static const struct http_field retry = {"Retry-After", "1"};
    char message[LOG_LINE_MAX];
    struct json_text t = {0};
    va_list ap;
    va_start(ap, format);
    vsnprintf(message, sizeof message, format, ap);
    va_end(ap);
    put_error(&t, http_path(x), http, code, param, message);
    http_answer(x, http, body_type, t.at, t.failed ? 0 : t.n, &retry, http == 429 || http == 503);
    json_text_free(&t);
}

void api_refuse_memory(struct http_exchange *x)
{
    api_refuse(x, 503, NULL, NULL, "the server has no memory for the request");
}

void api_refuse_as(struct http_exchange *x, const struct refusal *r)
{
    api_refuse(x, r->status, r->code, r->param, "%s", r->message);
}

void api_answer(struct http_exchange *x, int http, json_t *body)
{
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    if (text)
        http_answer(x, http, body_type, text, strlen(text), NULL, 0);
    else
        api_refuse(x, 500, NULL, NULL, "the server has no memory for the answer");
    free(text);
}

bool api_is_ready(struct api *api, struct http_exchange *x)
{
    if (atomic_load_explicit(&api->ready, memory_order_acquire))
        return true;
    api_refuse(x, 503, NULL, NULL, "Loading model");
    return false;
}
