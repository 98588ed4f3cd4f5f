#include "serve/reply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "base/clock.h"
#include "serve/reply_choice.h"
#include "serve/reply_write.h"

/* ---- what its jobs tell; its end ---- */

/* The exchange has been ended. */
static void free_reply(struct reply *r)
{
    for (uint32_t i = 0; r->choices && i < r->n_choices; i++)
        reply_choice_free(&r->choices[i]);
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

static bool take_token(struct job *j, int32_t token, float log_p, const struct wire_top *tops, uint32_t n_tops)
{
    struct choice *c = j->owner;
    pthread_mutex_lock(&c->reply->lock);
    const bool more = reply_choice_hear(c, token, log_p, tops, n_tops);
    pthread_mutex_unlock(&c->reply->lock);
    return more;
}

static void take_log_probs(struct job *j, uint32_t first, uint32_t n, const float *log_p, const struct wire_top *tops,
                           uint32_t n_top)
{
    struct choice *c = j->owner;
    pthread_mutex_lock(&c->reply->lock);
    for (uint32_t i = 0; i < n; i++)
        reply_choice_read(c, j->prompt[first + i], log_p[i], tops + (size_t)i * n_top, n_top);
    pthread_mutex_unlock(&c->reply->lock);
}

static void end_job(struct job *j, enum job_end end, const struct job_usage *u, const char *why)
{
    struct choice *c = j->owner;
    struct reply *r = c->reply;
    pthread_mutex_lock(&r->lock);
    c->end = end;
    c->usage = *u;
    reply_choice_end(c, end, why);
    const bool last = ++r->n_over == r->n_choices;
    if (last)
        reply_end(r);
    pthread_mutex_unlock(&r->lock);
    if (!last)
        return;
    watch_remove(r->api->watch, &r->watched);
    free_reply(r);
}

/* ---- its beginning ---- */

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
    *c = (struct choice){.reply = r, .index = i, .prompt = i / r->ask.n};
    const struct prompt *p = &r->prompts[c->prompt];
    c->job = (struct job){.kind = JOB_TEXT, .prompt = p->ids, .n_prompt = p->n, .sampling = r->ask.sampling,
                          .n_top = r->ask.n_top, .max_tokens = r->ask.max_tokens, .ignore_end = r->ask.ignore_end,
                          .key = http_key(r->x), .token = take_token, .over = end_job, .owner = c};
    c->job.sampling.seed += i % r->ask.n;
    c->job.log_probs = r->ask.prompt_log_probs ? take_log_probs : NULL;
    return reply_choice_create(c);
}

/* Frees what came to reply_create. */
static void refuse_memory(struct http_exchange *x, struct ask *ask, struct prompt *prompts, uint32_t n_prompts)
{
    for (uint32_t i = 0; i < n_prompts; i++)
        free(prompts[i].ids);
    free(prompts);
    ask_free(ask);
    api_refuse_memory(x);
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
    r->watched.look = reply_look;
    pthread_mutex_init(&r->lock, NULL);
    make_id(r);
    for (r->n_choices = 0; r->n_choices < n; r->n_choices++) {
        if (make_choice(r, r->n_choices) == ST_OK)
            continue;
        api_refuse_memory(x);
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

void reply_begin(struct api *api, struct http_exchange *x, const json_t *root, reply_reader *read,
                 const struct reply_form *form)
{
    struct ask ask;
    struct refusal refusal;
    struct prompt *prompt = calloc(1, sizeof *prompt);
    if (!prompt) {
        api_refuse_memory(x);
        return;
    }
    if (!read(api, root, &ask, prompt, &refusal)) {
        free(prompt);
        api_refuse_as(x, &refusal);
        return;
    }
    struct reply *r = reply_create(api, x, form, &ask, prompt, 1);
    if (r)
        reply_submit(r);
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
