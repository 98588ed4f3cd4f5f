#include "serve/reply_choice.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "serve/echo.h"
#include "serve/reply_write.h"

/* ---- pieces of its text ---- */

static bool keep_call(struct choice *c, const struct piece *p)
{
    struct said_call *calls = realloc(c->calls, (c->n_calls + 1) * sizeof *calls);
    if (!calls)
        return false;
    c->calls = calls;
    calls[c->n_calls] = (struct said_call){.name = strndup(p->at, p->n), .id = strdup(p->id)};
    c->n_calls++;
    return calls[c->n_calls - 1].name && calls[c->n_calls - 1].id;
}

static bool keep_piece(struct choice *c, const struct piece *p)
{
    struct json_text *to = &c->text;
    if (p->kind == PIECE_CALL)
        return keep_call(c, p);
    if (p->kind == PIECE_THOUGHT)
        to = &c->thought;
    else if (p->kind == PIECE_ARGUMENTS) {
        if (p->call >= c->n_calls)
            return true;
        to = &c->calls[p->call].arguments;
    }
    json_raw(to, p->at, p->n);
    return !to->failed;
}

static void hear_piece(void *arg, const struct piece *p)
{
    struct choice *c = arg;
    if (c->reply->ask.stream) {
        reply_open(c->reply);
        c->reply->form->piece(c, p);
    } else if (!keep_piece(c, p)) {
        reply_fail_memory(c->reply);
    }
}

/* ---- tokens ---- */

static bool add_mark(struct choice *c, int32_t token, bool of_prompt, float log_p, const struct wire_top *tops,
                     uint32_t n_tops)
{
    if (c->n_marks == c->cap_marks) {
        const uint32_t cap = c->cap_marks ? 2 * c->cap_marks : 16;
        struct token_mark *marks = realloc(c->marks, cap * sizeof *marks);
        if (!marks)
            return false;
        c->marks = marks;
        c->cap_marks = cap;
    }
    struct token_mark *m = &c->marks[c->n_marks++];
    *m = (struct token_mark){.token = token, .log_p = log_p, .n_tops = n_tops, .offset = c->characters};
    if (n_tops)
        memcpy(m->tops, tops, n_tops * sizeof *tops);
    c->characters += echo_characters(c->reply->api->house.tokenizer, token, of_prompt);
    return true;
}

void reply_choice_read(struct choice *c, int32_t token, float log_p, const struct wire_top *tops, uint32_t n_tops)
{
    if (!add_mark(c, token, true, log_p, tops, n_tops))
        reply_fail_memory(c->reply);
}

bool reply_choice_hear(struct choice *c, int32_t token, float log_p, const struct wire_top *tops, uint32_t n_tops)
{
    struct reply *r = c->reply;
    bool over = false;
    if (r->ended || *r->failure || http_gone(r->x))
        return false;
    if (c->job.n_top != UINT32_MAX && !add_mark(c, token, false, log_p, tops, n_tops))
        reply_fail_memory(r);
    if (answer_take(c->answer, token, &over) != ST_OK || r->out.failed)
        reply_fail_memory(r);
    reply_flush(r);
    return !over && !*r->failure;
}

void reply_choice_end(struct choice *c, enum job_end end, const char *why)
{
    struct reply *r = c->reply;
    if (r->ended)
        return;
    if (end == JOB_FAILED)
        reply_fail(r, why);
    else if (answer_finish(c->answer) != ST_OK)
        reply_fail_memory(r);
    if (r->ask.stream && !*r->failure && end != JOB_CANCELLED) {
        reply_open(r);
        r->form->close(c);
        reply_flush(r);
    }
}

/* ---- its beginning and end ---- */

status reply_choice_create(struct choice *c)
{
    const struct reply *r = c->reply;
    const struct prompt *p = &r->prompts[c->prompt];
    char id[sizeof r->id + 16];
    snprintf(id, sizeof id, "%s-%u", r->id, c->index);
    const struct answer_options o = {.tokenizer = r->api->house.tokenizer, .stops = r->ask.stops,
                                     .n_stops = r->ask.n_stops, .tools = r->ask.tools, .called = r->ask.called,
                                     .thoughts = r->ask.thoughts, .prompt = p->ids, .n_prompt = p->n, .id = id};
    const status st = answer_create(&o, hear_piece, c, &c->answer);
    if (st != ST_OK || !r->ask.prompt_log_probs || add_mark(c, p->ids[0], true, NAN, NULL, 0))
        return st;
    reply_choice_free(c);
    return ST_NOMEM;
}

void reply_choice_free(struct choice *c)
{
    for (uint32_t i = 0; i < c->n_calls; i++) {
        free(c->calls[i].name);
        free(c->calls[i].id);
        json_text_free(&c->calls[i].arguments);
    }
    free(c->calls);
    free(c->marks);
    json_text_free(&c->text);
    json_text_free(&c->thought);
    answer_free(c->answer);
}

/* ---- for forms ---- */

const char *choice_finish(const struct choice *c)
{
    if (c->end == JOB_LIMIT && !answer_stop(c->answer)) /* it may be found in what was held back */
        return "length";
    return answer_calls(c->answer) ? "tool_calls" : "stop";
}

static void put_rate(struct json_text *t, const char *name, uint32_t n, double s)
{
    json_print(t, "\"%s_n\":%u,\"%s_ms\":", name, n, name);
    json_number(t, s * 1e3, 3);
    json_print(t, ",\"%s_per_token_ms\":", name);
    json_number(t, n ? s * 1e3 / n : 0, 3);
    json_print(t, ",\"%s_per_second\":", name);
    json_number(t, s > 0 ? n / s : 0, 3);
}

void reply_timings(struct json_text *t, const struct choice *c)
{
    const struct job_usage *u = &c->usage;
    json_print(t, "\"timings\":{\"cache_n\":%u,", u->cached_tokens);
    put_rate(t, "prompt", u->prompt_tokens - u->cached_tokens, u->prompt_s);
    json_put(t, ",");
    put_rate(t, "predicted", u->made_tokens, u->decode_s);
    if (u->drafts)
        json_print(t, ",\"draft_n\":%u,\"draft_n_accepted\":%u", u->drafts, u->accepted);
    json_put(t, "}");
}
