/* /v1/messages and /v1/messages/count_tokens: Anthropic's form of a chat. */
#include <stdlib.h>
#include <string.h>
#include "serve/messages_read.h"
#include "serve/paths.h"
#include "serve/reply.h"

/* --- writing --- */

/* The block that is open in a stream. */
struct blocks {
    bool open;
    enum piece_kind kind; /* TEXT, THOUGHT or CALL */
    uint32_t index;       /* of the next */
};

static void put_string(struct json_text *t, const char *text)
{
    json_string_of(t, text, strlen(text));
}

/* Tokens that were read for this request count apart from those that were there. */
static void put_usage(struct json_text *t, const struct job_usage *u, uint32_t n_prompt)
{
    json_print(t, "\"usage\":{\"input_tokens\":%u,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":%u,"
               "\"output_tokens\":%u}", n_prompt - u->cached_tokens, u->cached_tokens, u->made_tokens);
}

/* Why it ended, as two members. */
static void put_reason(struct json_text *t, const struct choice *c)
{
    const char *stop = answer_stop(c->answer), *reason = "end_turn";
    if (c->end == JOB_LIMIT && !stop)
        reason = "max_tokens";
    else if (stop)
        reason = "stop_sequence";
    else if (answer_calls(c->answer))
        reason = "tool_use";
    json_print(t, "\"stop_reason\":\"%s\",\"stop_sequence\":", reason);
    if (stop)
        put_string(t, stop);
    else
        json_put(t, "null");
}

static void put_names(struct json_text *t, const struct reply *r)
{
    json_print(t, "\"id\":\"%s\",\"type\":\"message\",\"role\":\"assistant\",\"model\":", r->id);
    put_string(t, r->api->name);
}

static void open_message(struct reply *r)
{
    struct json_text *t = &r->out;
    r->form_state = calloc(1, sizeof(struct blocks));
    if (!r->form_state)
        t->failed = true;
    json_put(t, "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{");
    put_names(t, r);
    json_put(t, ",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,");
    put_usage(t, &r->choices[0].job.usage, r->prompts[0].n);
    json_put(t, "}}\n\nevent: ping\ndata: {\"type\":\"ping\"}\n\n");
}

static void close_block(struct json_text *t, struct blocks *b)
{
    if (!b->open)
        return;
    if (b->kind == PIECE_THOUGHT) /* nobody here checks one */
        json_print(t, "event: content_block_delta\n"
                   "data: {\"type\":\"content_block_delta\",\"index\":%u,\"delta\":{\"type\":"
                   "\"signature_delta\",\"signature\":\"\"}}\n\n", b->index);
    json_print(t, "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":%u}\n\n", b->index++);
    b->open = false;
}

static void open_block(struct json_text *t, struct blocks *b, const struct piece *p)
{
    close_block(t, b);
    json_print(t, "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":%u,\"content_block\":",
               b->index);
    if (p->kind == PIECE_CALL) {
        json_print(t, "{\"type\":\"tool_use\",\"id\":\"%s\",\"name\":", p->id);
        json_string_of(t, p->at, p->n);
        json_put(t, ",\"input\":{}}}\n\n");
    } else if (p->kind == PIECE_THOUGHT) {
        json_put(t, "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}\n\n");
    } else {
        json_put(t, "{\"type\":\"text\",\"text\":\"\"}}\n\n");
    }
    b->open = true;
    b->kind = p->kind;
}

static void write_piece(struct choice *c, const struct piece *p)
{
    static const char *const deltas[] = {
        [PIECE_TEXT] = "text_delta\",\"text", [PIECE_THOUGHT] = "thinking_delta\",\"thinking",
        [PIECE_ARGUMENTS] = "input_json_delta\",\"partial_json"};
    struct blocks *b = c->reply->form_state;
    struct json_text *t = &c->reply->out;
    if (!b)
        return;
    if (p->kind == PIECE_CALL || (p->kind != PIECE_ARGUMENTS && (!b->open || b->kind != p->kind)))
        open_block(t, b, p);
    if (p->kind == PIECE_CALL)
        return;
    json_print(t, "event: content_block_delta\n"
               "data: {\"type\":\"content_block_delta\",\"index\":%u,\"delta\":{\"type\":\"%s\":",
               b->index, deltas[p->kind]);
    json_string_of(t, p->at, p->n);
    json_put(t, "}}\n\n");
}

static void close_message(struct choice *c)
{
    struct json_text *t = &c->reply->out;
    if (c->reply->form_state)
        close_block(t, c->reply->form_state);
    json_put(t, "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{");
    put_reason(t, c);
    json_put(t, "},");
    put_usage(t, &c->usage, c->reply->prompts[0].n);
    json_put(t, "}\n\n");
}

static void end_stream(struct reply *r)
{
    json_put(&r->out, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
}

static void fail_stream(struct reply *r, const char *message)
{
    json_put(&r->out, "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":");
    put_string(&r->out, message);
    json_put(&r->out, "}}\n\n");
}

/* Arguments that a limit has cut are none. */
static void put_input(struct json_text *t, const struct json_text *arguments)
{
    json_t *v = arguments->n ? json_loadb(arguments->at, arguments->n, 0, NULL) : NULL;
    if (json_is_object(v))
        json_raw(t, arguments->at, arguments->n);
    else
        json_put(t, "{}");
    json_decref(v);
}

static void put_content(struct json_text *t, const struct choice *c)
{
    const char *between = "";
    if (c->thought.n) {
        json_put(t, "{\"type\":\"thinking\",\"thinking\":");
        json_string_of(t, c->thought.at, c->thought.n);
        json_put(t, ",\"signature\":\"\"}");
        between = ",";
    }
    if (c->text.n) {
        json_print(t, "%s{\"type\":\"text\",\"text\":", between);
        json_string_of(t, c->text.at, c->text.n);
        json_put(t, "}");
        between = ",";
    }
    for (uint32_t i = 0; i < c->n_calls; i++) {
        json_print(t, "%s{\"type\":\"tool_use\",\"id\":\"%s\",\"name\":", between, c->calls[i].id);
        put_string(t, c->calls[i].name);
        json_put(t, ",\"input\":");
        put_input(t, &c->calls[i].arguments);
        json_put(t, "}");
        between = ",";
    }
}

static void write_whole(struct reply *r)
{
    const struct choice *c = &r->choices[0];
    json_put(&r->out, "{");
    put_names(&r->out, r);
    json_put(&r->out, ",\"content\":[");
    put_content(&r->out, c);
    json_put(&r->out, "],");
    put_reason(&r->out, c);
    json_put(&r->out, ",");
    put_usage(&r->out, &c->usage, r->prompts[0].n);
    json_put(&r->out, "}");
}

static const struct reply_form form = {
    .prefix = "msg_", .open = open_message, .piece = write_piece, .close = close_message, .done = end_stream,
    .fail = fail_stream, .keep_alive = "event: ping\ndata: {\"type\":\"ping\"}\n\n", .whole = write_whole,
};

/* --- reading --- */

/* What is asked, and the prompt. */
static bool read_prompt(struct api *api, const json_t *root, struct messages_asked *asked, struct prompt *prompt,
                        struct refusal *r)
{
    if (!messages_read(root, asked, r))
        return false;
    const json_t *tools = asked->choice == TOOLS_NONE ? NULL : asked->tools;
    if (ask_conversation(api, asked->messages, tools, asked->variables, prompt, r))
        return true;
    messages_asked_free(asked);
    return false;
}

static bool read_limits(const json_t *root, struct ask *a, struct refusal *r)
{
    a->thoughts = true;
    a->n = 1;
    if (!ask_max_tokens(root, "max_tokens", 1, a, r) || !ask_stops(root, "stop_sequences", a, r))
        return false;
    return a->max_tokens != UINT32_MAX ||
           refuse(r, "missing_required_parameter", "max_tokens", "max_tokens: Field required");
}

static bool read_request(struct api *api, const json_t *root, struct ask *a, struct prompt *prompt, struct refusal *r)
{
    struct messages_asked asked;
    if (!ask_read(api, root, a, r))
        return false;
    if (!read_limits(root, a, r) || !read_prompt(api, root, &asked, prompt, r)) {
        ask_free(a);
        return false;
    }
    const bool right = ask_tools(api, asked.tools, asked.choice, asked.name, asked.parallel, a, r) &&
                       ask_behind_thoughts(api, prompt, a, r);
    messages_asked_free(&asked);
    if (right)
        return true;
    free(prompt->ids);
    ask_free(a);
    return false;
}

void messages_work(struct api *api, struct http_exchange *x, const json_t *root)
{
    reply_begin(api, x, root, read_request, &form);
}

void messages_count_work(struct api *api, struct http_exchange *x, const json_t *root)
{
    struct messages_asked asked;
    struct refusal refusal;
    struct prompt prompt;
    if (!read_prompt(api, root, &asked, &prompt, &refusal)) {
        api_refuse_as(x, &refusal);
        return;
    }
    api_answer(x, 200, json_pack("{s:I}", "input_tokens", (json_int_t)prompt.n));
    free(prompt.ids);
    messages_asked_free(&asked);
}
