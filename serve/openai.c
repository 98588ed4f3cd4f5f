#include "serve/openai.h"

#include <string.h>

const char openai_keep_alive[] = ": keep-alive\n\n";

void openai_names(struct json_text *t, const struct reply *r, const char *object)
{
    json_print(t, "\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", r->id, object, (long long)r->created);
    json_string_of(t, r->api->name, strlen(r->api->name));
    json_put(t, ",\"system_fingerprint\":\"hearth-" HEARTH_VERSION "\",");
}

void openai_head(struct reply *r, const char *object)
{
    json_put(&r->head, "data: {");
    openai_names(&r->head, r, object);
    json_put(&r->head, "\"choices\":[");
    if (r->head.failed)
        r->out.failed = true;
}

void openai_chunk(struct reply *r, const struct choice *c)
{
    json_raw(&r->out, r->head.at, r->head.n);
    json_print(&r->out, "{\"index\":%u,", c->index);
}

void openai_chunk_end(struct reply *r, const struct choice *c, const char *finish)
{
    if (finish) {
        json_print(&r->out, ",\"finish_reason\":\"%s\"}],", finish);
        reply_timings(&r->out, c);
    } else {
        json_put(&r->out, ",\"finish_reason\":null}]");
    }
    json_put(&r->out, r->ask.include_usage ? ",\"usage\":null}\n\n" : "}\n\n");
}

static void put_usage(struct reply *r)
{
    const struct reply_usage u = reply_usage(r);
    json_print(&r->out, "\"usage\":{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,\"total_tokens\":%llu,"
               "\"prompt_tokens_details\":{\"cached_tokens\":%llu}}", (unsigned long long)u.prompt_tokens,
               (unsigned long long)u.made_tokens, (unsigned long long)(u.prompt_tokens + u.made_tokens),
               (unsigned long long)u.cached_tokens);
}

void openai_whole_end(struct reply *r)
{
    put_usage(r);
    json_put(&r->out, ",");
    reply_timings(&r->out, &r->choices[0]);
    json_put(&r->out, "}");
}

void openai_done(struct reply *r)
{
    if (r->ask.include_usage) {
        json_raw(&r->out, r->head.at, r->head.n);
        json_put(&r->out, "],");
        put_usage(r);
        json_put(&r->out, ",");
        reply_timings(&r->out, &r->choices[0]);
        json_put(&r->out, "}\n\n");
    }
    json_put(&r->out, "data: [DONE]\n\n");
}

void openai_fail(struct reply *r, const char *message)
{
    json_put(&r->out, "data: {\"error\":{\"message\":");
    json_string_of(&r->out, message, strlen(message));
    json_put(&r->out, ",\"type\":\"server_error\",\"param\":null,\"code\":null}}\n\n");
}

size_t openai_token(struct json_text *t, const struct tokenizer *of, int32_t token, char *bytes, size_t cap)
{
    size_t n = tokenizer_piece(of, token, true, bytes, cap);
    if (n > cap)
        n = 0;
    json_string_of(t, bytes, n);
    return n;
}
