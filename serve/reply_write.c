#include "serve/reply_write.h"

#include <stdio.h>
#include <string.h>
#include "base/clock.h"

enum { KEEP_ALIVE_S = 5 };

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

void reply_fail(struct reply *r, const char *why)
{
    if (!*r->failure)
        snprintf(r->failure, sizeof r->failure, "%s", why ? why : "the model stopped");
    cancel_all(r);
}

void reply_fail_memory(struct reply *r)
{
    reply_fail(r, "the server has no memory for the answer");
}

void reply_flush(struct reply *r)
{
    if (r->out.failed) {
        json_text_clear(&r->out);
        reply_fail_memory(r);
    }
    if (r->out.n == 0)
        return;
    begin_stream(r);
    http_write(r->x, r->out.at, r->out.n);
    r->wrote_s = clock_s();
    json_text_clear(&r->out);
}

void reply_open(struct reply *r)
{
    if (!r->opened)
        r->form->open(r);
    r->opened = true;
}

static void end_stream(struct reply *r)
{
    if (!*r->failure) {
        reply_open(r);
        r->form->done(r);
        reply_flush(r);
    }
    if (*r->failure) {
        json_text_clear(&r->out);
        r->form->fail(r, r->failure);
        reply_flush(r);
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

void reply_end(struct reply *r)
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

void reply_look(struct watched *w, double now_s)
{
    struct reply *r = (struct reply *)((char *)w - offsetof(struct reply, watched));
    pthread_mutex_lock(&r->lock);
    const char *abandoned = atomic_load(&r->api->abandoned);
    if (r->ended || http_gone(r->x)) {
        cancel_all(r);
    } else if (abandoned) {
        reply_fail(r, abandoned);
        reply_end(r);
    } else {
        keep_alive(r, now_s);
    }
    pthread_mutex_unlock(&r->lock);
}
