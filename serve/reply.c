#include "serve/reply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "base/clock.h"
#include "base/log.h"

enum { KEEP_ALIVE_S = 5 };

/* --- writing to the client; the lock is held, for the watch writes too --- */

static void begin_stream(struct reply *r)
{
    static const struct http_field fields[] = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
    if (!r->begun)
        http_begin(r->x, 200, "text/event-stream", fields, sizeof fields / sizeof *fields);
    r->begun = true;
}

static void cancel_all(struct reply *r)
{
    for (uint32_t i = 0; i < r->n_choices; i++)
        atomic_store(&r->choices[i].job.cancelled, true);
}

/* The first reason counts; the other choices end too. */
static void fail(struct reply *r, const char *why)
{
    if (!*r->failure)
        snprintf(r->failure, sizeof r->failure, "%s", why ? why : "the model stopped");
    cancel_all(r);
}

static void fail_memory(struct reply *r)
{
    fail(r, "the server has no memory for the answer");
}

/* What is in r->out; a part of a chunk is none. */
static void flush(struct reply *r)
{
    if (r->out.failed) {
        json_text_clear(&r->out);
        fail_memory(r);
    }
    if (r->out.n == 0)
        return;
    begin_stream(r);
    http_write(r->x, r->out.at, r->out.n);
    r->wrote_s = clock_s();
    json_text_clear(&r->out);
}

static void open_stream(struct reply *r)
{
    if (!r->opened)
        r->form->open(r);
    r->opened = true;
}

static void end_stream(struct reply *r)
{
    if (!*r->failure) {
        open_stream(r);
        r->form->done(r);
        flush(r);
    }
    if (*r->failure) {
        json_text_clear(&r->out);
        r->form->fail(r, r->failure);
        flush(r);
    }
    http_end(r->x);
}

static void end_whole(struct reply *r)
{
    r->form->whole(r);
    if (r->out.failed)
        api_refuse(r->x, 503, NULL, NULL, "the server has no memory for the answer");
    else
        http_answer(r->x, 200, "application/json", r->out.at, r->out.n, NULL, 0);
}

/* The client gets what there is, or why there is nothing. */
static void end_exchange(struct reply *r)
{
    if (r->ended)
        return;
    r->ended = true;
    if (r->ask.stream && (r->begun || !*r->failure))
        end_stream(r);
    else if (*r->failure)
        api_refuse(r->x, 503, NULL, NULL, "%s", r->failure);
    else
        end_whole(r);
}

static void keep_alive(struct reply *r, double now_s)
{
    if (!r->ask.stream || now_s - r->wrote_s <= KEEP_ALIVE_S)
        return;
    begin_stream(r);
    http_write(r->x, r->form->keep_alive, strlen(r->form->keep_alive));
    r->wrote_s = now_s;
}

/* On the watch's thread. */
static void look(struct watched *w, double now_s)
{
    struct reply *r = (struct reply *)((char *)w - offsetof(struct reply, watched));
    pthread_mutex_lock(&r->lock);
    if (r->ended || http_gone(r->x)) {
        cancel_all(r);
    } else if (atomic_load(&r->api->abandoned)) {
        fail(r, "the server stops");
        end_exchange(r);
    } else {
        keep_alive(r, now_s);
    }
    pthread_mutex_unlock(&r->lock);
}

/* --- what a job tells, on the engine's thread --- */

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
        open_stream(c->reply);
        c->reply->form->piece(c, p);
    } else if (!keep_piece(c, p)) {
        fail_memory(c->reply);
    }
}

/* Characters that begin in a token. */
static uint64_t characters_of(const struct tokenizer *t, int32_t token)
{
    char piece[1024];
    const size_t n = tokenizer_piece(t, token, false, piece, sizeof piece);
    uint64_t characters = 0;
    for (size_t i = 0; i < n && n <= sizeof piece; i++)
        characters += ((unsigned char)piece[i] & 0xC0) != 0x80;
    return characters;
}

static bool add_mark(struct choice *c, int32_t token, float log_p, const struct wire_top *tops, uint32_t n_tops)
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
    memcpy(m->tops, tops, n_tops * sizeof *tops);
    c->characters += characters_of(c->reply->api->house.tokenizer, token);
    return true;
}

/* Whether the choice goes on. */
static bool hear_token(struct choice *c, int32_t token, float log_p, const struct wire_top *tops, uint32_t n_tops)
{
    struct reply *r = c->reply;
    bool over = false;
    if (r->ended || *r->failure || http_gone(r->x))
        return false;
    if (c->job.n_top != UINT32_MAX && !add_mark(c, token, log_p, tops, n_tops))
        fail_memory(r);
    if (answer_take(c->answer, token, &over) != ST_OK || r->out.failed)
        fail_memory(r);
    flush(r);
    return !over && !*r->failure;
}

static bool take_token(struct job *j, int32_t token, float log_p, const struct wire_top *tops, uint32_t n_tops)
{
    struct choice *c = j->owner;
    pthread_mutex_lock(&c->reply->lock);
    const bool more = hear_token(c, token, log_p, tops, n_tops);
    pthread_mutex_unlock(&c->reply->lock);
    return more;
}

static void end_choice(struct choice *c, enum job_end end, const char *why)
{
    struct reply *r = c->reply;
    if (r->ended)
        return;
    if (end == JOB_FAILED)
        fail(r, why);
    else if (answer_finish(c->answer) != ST_OK)
        fail_memory(r);
    if (r->ask.stream && !*r->failure && end != JOB_CANCELLED) {
        open_stream(r);
        r->form->close(c);
        flush(r);
    }
}

static void free_reply(struct reply *r);

static void end_job(struct job *j, enum job_end end, const struct job_usage *u, const char *why)
{
    struct choice *c = j->owner;
    struct reply *r = c->reply;
    pthread_mutex_lock(&r->lock);
    c->end = end;
    c->usage = *u;
    end_choice(c, end, why);
    const bool last = ++r->n_over == r->n_choices;
    if (last)
        end_exchange(r);
    pthread_mutex_unlock(&r->lock);
    if (!last)
        return;
    watch_remove(r->api->watch, &r->watched);
    free_reply(r);
}

static void free_choice(struct choice *c)
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

/* The exchange has been ended. */
static void free_reply(struct reply *r)
{
    for (uint32_t i = 0; r->choices && i < r->n_choices; i++)
        free_choice(&r->choices[i]);
    for (uint32_t i = 0; i < r->n_prompts; i++)
        free(r->prompts[i].ids);
    free(r->prompts);
    free(r->choices);
    free(r->form_state);
    ask_free(&r->ask);
    json_text_free(&r->head);
    json_text_free(&r->out);
    pthread_mutex_destroy(&r->lock);
    free(r);
}


/* --- its beginning --- */

/* "chatcmpl-" and 24 letters and digits that nobody has had. */
static void make_id(struct reply *r)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    unsigned char random[24] = {0};
    if (getrandom(random, sizeof random, 0) != sizeof random)
        memcpy(random, &r, sizeof r);
    size_t n = (size_t)snprintf(r->id, sizeof r->id - sizeof random, "%s", r->form->prefix);
    for (size_t i = 0; i < sizeof random; i++)
        r->id[n++] = letters[random[i] % (sizeof letters - 1)];
    r->id[n] = '\0';
}

/* Choice i, ready for the engine. */
static status make_choice(struct reply *r, uint32_t i)
{
    struct choice *c = &r->choices[i];
    char id[sizeof r->id + 16];
    snprintf(id, sizeof id, "%s-%u", r->id, i);
    *c = (struct choice){.reply = r, .index = i, .prompt = i / r->ask.n};
    const struct prompt *p = &r->prompts[c->prompt];
    c->job = (struct job){.kind = JOB_TEXT, .prompt = p->ids, .n_prompt = p->n, .sampling = r->ask.sampling,
                          .n_top = r->ask.n_top, .max_tokens = r->ask.max_tokens, .ignore_end = r->ask.ignore_end,
                          .key = http_key(r->x), .token = take_token, .over = end_job, .owner = c};
    c->job.sampling.seed += i % r->ask.n;
    const struct answer_options o = {.tokenizer = r->api->house.tokenizer, .stops = r->ask.stops,
                                     .n_stops = r->ask.n_stops, .tools = r->ask.tools, .called = r->ask.called,
                                     .thoughts = r->ask.thoughts, .prompt = p->ids, .n_prompt = p->n, .id = id};
    return answer_create(&o, hear_piece, c, &c->answer);
}

/* Frees what came to reply_create. */
static void refuse_memory(struct http_exchange *x, struct ask *ask, struct prompt *prompts, uint32_t n_prompts)
{
    for (uint32_t i = 0; i < n_prompts; i++)
        free(prompts[i].ids);
    free(prompts);
    ask_free(ask);
    api_refuse(x, 503, NULL, NULL, "the server has no memory for the request");
}

struct reply *reply_create(struct api *api, struct http_exchange *x, const struct reply_form *form, struct ask *ask,
                           struct prompt *prompts, uint32_t n_prompts)
{
    struct reply *r = calloc(1, sizeof *r);
    const uint32_t n = n_prompts * ask->n;
    if (r)
        r->choices = calloc(n, sizeof *r->choices);
    if (!r || !r->choices) {
        free(r);
        refuse_memory(x, ask, prompts, n_prompts);
        return NULL;
    }
    r->api = api;
    r->x = x;
    r->form = form;
    r->created = time(NULL);
    r->ask = *ask;
    r->ask.sampling.bias = r->ask.bias;
    r->ask.sampling.grammar = r->ask.grammar.ops ? &r->ask.grammar : NULL;
    r->prompts = prompts;
    r->n_prompts = n_prompts;
    r->wrote_s = clock_s();
    r->watched.look = look;
    pthread_mutex_init(&r->lock, NULL);
    make_id(r);
    for (r->n_choices = 0; r->n_choices < n; r->n_choices++) {
        if (make_choice(r, r->n_choices) == ST_OK)
            continue;
        api_refuse(x, 503, NULL, NULL, "the server has no memory for the request");
        free_reply(r);
        return NULL;
    }
    return r;
}

/* False: however long the client waited, there would not be room for all its choices at once. */
static bool can_fit(const struct reply *r)
{
    return r->n_choices <= (uint64_t)r->api->house.n_sequences + r->api->o->max_queue;
}

void reply_submit(struct reply *r)
{
    struct job *jobs[ASK_TEXTS];
    if (!can_fit(r)) {
        api_refuse(r->x, 400, "invalid_value", "n",
                   "%u answers are wanted, of which the server can take %u at once (--parallel, --max-queue)",
                   r->n_choices, r->api->house.n_sequences + r->api->o->max_queue);
        free_reply(r);
        return;
    }
    for (uint32_t i = 0; i < r->n_choices; i++)
        jobs[i] = &r->choices[i].job;
    watch_add(r->api->watch, &r->watched);
    const status st = engine_submit(r->api->engine, jobs, r->n_choices);
    if (st == ST_OK)
        return;
    watch_remove(r->api->watch, &r->watched);
    if (r->ended)
        ; /* the watch has told the client */
    else if (st == ST_FULL)
        api_refuse(r->x, 429, "queue_full", NULL, "too many requests wait");
    else
        api_refuse(r->x, 503, NULL, NULL, "the server is stopping");
    free_reply(r);
}

/* --- for forms --- */

const char *choice_finish(const struct choice *c)
{
    if (c->end == JOB_LIMIT && !answer_stop(c->answer)) /* it may be found in what was held back */
        return "length";
    return answer_calls(c->answer) ? "tool_calls" : "stop";
}

struct reply_usage reply_usage(const struct reply *r)
{
    struct reply_usage u = {0};
    for (uint32_t p = 0; p < r->n_prompts; p++) {
        uint64_t cached = UINT64_MAX; /* by the choice that ran most of the prompt */
        for (uint32_t i = p * r->ask.n; i < (p + 1) * r->ask.n; i++) {
            const struct job_usage *of = &r->choices[i].usage;
            cached = of->cached_tokens < cached ? of->cached_tokens : cached;
            u.made_tokens += of->made_tokens;
        }
        u.prompt_tokens += r->prompts[p].n;
        u.cached_tokens += cached;
    }
    return u;
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
