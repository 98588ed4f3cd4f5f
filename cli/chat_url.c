#include "cli/chat_url.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/log.h"
#include "cli/event_stream.h"
#include "cli/output.h"

enum { CONNECT_S = 10, MOST_ERROR = 64 << 10 };

struct chat_url {
    struct chat_url_options o;
    CURL *curl;
    struct curl_slist *headers;
    char why[CURL_ERROR_SIZE];
    /* of the answer at hand */
    struct event_stream events;
    struct text said, thought, refusal; /* refusal: the body of an error */
    status st;                          /* what reading it has come to */
    bool faint, over;
    /* of all */
    json_int_t prompt_tokens, cached_tokens, made_tokens;
    double begun_s, first_s, answers_s;
};

/* ---- what comes back ---- */

static void set_faint(struct chat_url *u, bool faint)
{
    if (u->o.dimmed && faint != u->faint)
        fputs(faint ? "\033[2m" : "\033[22m\n", stdout);
    u->faint = faint;
}

static const char *text_at(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static status take_delta(struct chat_url *u, const json_t *delta)
{
    const char *said = text_at(delta, "content"), *thought = text_at(delta, "reasoning_content");
    status st = text_append(&u->thought, thought, strlen(thought));
    if (st == ST_OK)
        st = text_append(&u->said, said, strlen(said));
    if (*thought && u->o.dimmed) {
        set_faint(u, true);
        fputs(thought, stdout);
    }
    if (*said) {
        set_faint(u, false);
        fputs(said, stdout);
    }
    if (u->first_s == 0 && (*said || *thought))
        u->first_s = clock_s();
    const status written = output_flush(stdout);
    return st == ST_OK ? written : st;
}

static void count(struct chat_url *u, const json_t *usage)
{
    u->prompt_tokens += json_integer_value(json_object_get(usage, "prompt_tokens"));
    u->made_tokens += json_integer_value(json_object_get(usage, "completion_tokens"));
    u->cached_tokens +=
        json_integer_value(json_object_get(json_object_get(usage, "prompt_tokens_details"), "cached_tokens"));
}

/* Says what the server says went wrong. */
static status refused(long code, const json_t *error)
{
    const char *message = text_at(error, "message");
    if (*message)
        log_error("the server says: %s", message);
    else
        log_error("the server answers with status %ld", code);
    if (strcmp(text_at(error, "code"), "context_length_exceeded") == 0)
        return ST_FULL;
    return code == 400 || code == 422 ? ST_USAGE : ST_PEER;
}

/* A chunk of an answer. */
static bool take_event(void *arg, const char *data)
{
    struct chat_url *u = arg;
    if (strcmp(data, "[DONE]") == 0) {
        u->over = true;
        return true;
    }
    json_t *chunk = json_loads(data, 0, NULL);
    const json_t *error = json_object_get(chunk, "error");
    if (!json_is_object(chunk)) {
        log_error("the server sends what is no chunk of an answer: %.80s", data);
        u->st = ST_FORMAT;
    } else if (json_is_object(error)) {
        u->st = refused(200, error);
    } else {
        count(u, json_object_get(chunk, "usage"));
        u->st = take_delta(u, json_object_get(json_array_get(json_object_get(chunk, "choices"), 0), "delta"));
    }
    json_decref(chunk);
    return u->st == ST_OK;
}

static size_t take_bytes(char *bytes, size_t one, size_t n, void *arg)
{
    struct chat_url *u = arg;
    long code = 0;
    (void)one;
    curl_easy_getinfo(u->curl, CURLINFO_RESPONSE_CODE, &code);
    status st;
    if (code == 200)
        st = event_stream_take(&u->events, bytes, n);
    else if (u->refusal.n + n <= MOST_ERROR)
        st = text_append(&u->refusal, bytes, n);
    else
        return 0;
    if (u->st == ST_OK)
        u->st = st;
    return st == ST_OK ? n : 0;
}

static int check_stop(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    const struct chat_url *u = arg;
    (void)a, (void)b, (void)c, (void)d;
    return u->o.stop && *u->o.stop;
}

/* ---- what is asked ---- */

static bool set_real(json_t *request, const char *key, float value, float unset)
{
    return value == unset || json_object_set_new(request, key, json_real(value)) == 0;
}

static char *request_of(const struct chat_url *u, const struct conversation *c)
{
    const struct sampler_params *p = u->o.sampling, *d = u->o.unset;
    json_t *r = json_pack("{s:O, s:b, s:{s:b}, s:I}", "messages", c->messages, "stream", 1, "stream_options",
                          "include_usage", 1, "seed", (json_int_t)p->seed);
    char *text = NULL;
    if (r && (!u->o.model || json_object_set_new(r, "model", json_string(u->o.model)) == 0) &&
        (u->o.n_predict < 0 || json_object_set_new(r, "max_tokens", json_integer(u->o.n_predict)) == 0) &&
        (p->top_k == d->top_k || json_object_set_new(r, "top_k", json_integer(p->top_k)) == 0) &&
        set_real(r, "temperature", p->temperature, d->temperature) && set_real(r, "top_p", p->top_p, d->top_p) &&
        set_real(r, "min_p", p->min_p, d->min_p) &&
        set_real(r, "repeat_penalty", p->repeat_penalty, d->repeat_penalty) &&
        set_real(r, "presence_penalty", p->presence_penalty, d->presence_penalty) &&
        set_real(r, "frequency_penalty", p->frequency_penalty, d->frequency_penalty))
        text = json_dumps(r, JSON_COMPACT);
    json_decref(r);
    if (!text)
        log_error("the conversation cannot be written as JSON: is it text in UTF-8?");
    return text;
}

/* How a request has ended, on top of what reading its answer came to. */
static status outcome(struct chat_url *u, CURLcode done)
{
    long code = 0;
    curl_easy_getinfo(u->curl, CURLINFO_RESPONSE_CODE, &code);
    if (u->st != ST_OK && u->st != ST_CANCELLED)
        return u->st;
    if (u->o.stop && *u->o.stop)
        return ST_OK;
    if (done != CURLE_OK && code != 0 && code != 200 && u->refusal.n == 0)
        return refused(code, NULL);
    if (code != 0 && code != 200) {
        json_t *body = json_loadb(u->refusal.at ? u->refusal.at : "", u->refusal.n, 0, NULL);
        const status st = refused(code, json_object_get(body, "error"));
        json_decref(body);
        return st;
    }
    if (done != CURLE_OK || !u->over) {
        log_error("%s: %s", u->o.url, done == CURLE_OK ? "the answer has no end" :
                  *u->why ? u->why : curl_easy_strerror(done));
        return ST_PEER;
    }
    return ST_OK;
}

static status ask(struct chat_url *u, const struct conversation *c)
{
    char *request = request_of(u, c);
    if (!request)
        return ST_USAGE;
    u->said.n = u->thought.n = u->refusal.n = u->events.line.n = 0;
    u->st = ST_OK;
    u->over = false;
    *u->why = '\0';
    u->begun_s = clock_s();
    u->first_s = 0;
    curl_easy_setopt(u->curl, CURLOPT_POSTFIELDS, request);
    const status st = outcome(u, curl_easy_perform(u->curl));
    free(request);
    set_faint(u, false);
    if (u->first_s > 0)
        u->answers_s += clock_s() - u->first_s;
    return st;
}

static status answer(void *source, struct conversation *c)
{
    struct chat_url *u = source;
    status st;
    while ((st = ask(u, c)) == ST_FULL && conversation_drop_oldest(c))
        log_warn("the oldest turn is forgotten");
    if (u->said.n > 0 || st == ST_OK)
        putchar('\n');
    if (st == ST_OK)
        st = output_flush(stdout);
    if (st == ST_OK)
        st = conversation_add(c, "assistant", u->said.n ? u->said.at : "", u->thought.n ? u->thought.at : "");
    return st;
}

static void report(const void *source)
{
    const struct chat_url *u = source;
    log_info("prompt %" JSON_INTEGER_FORMAT " tokens, %" JSON_INTEGER_FORMAT " of them cached; answers %"
             JSON_INTEGER_FORMAT " tokens, %.1f tok/s", u->prompt_tokens, u->cached_tokens, u->made_tokens,
             u->answers_s > 0 ? (double)u->made_tokens / u->answers_s : 0);
}

/* ---- begin and end ---- */

/* The path of the API's, behind what was given of it. */
static char *endpoint(const char *url)
{
    static const char path[] = "/v1/chat/completions";
    size_t n = strlen(url);
    while (n > 0 && url[n - 1] == '/')
        n--;
    const size_t skip = n > 3 && memcmp(url + n - 3, "/v1", 3) == 0 ? 3 : 0;
    char *all = malloc(n + sizeof path);
    if (all) {
        memcpy(all, url, n);
        memcpy(all + n, path + skip, sizeof path - skip);
    }
    return all;
}

static bool add_header(struct chat_url *u, const char *header)
{
    struct curl_slist *all = curl_slist_append(u->headers, header);
    u->headers = all ? all : u->headers;
    return all != NULL;
}

static bool add_headers(struct chat_url *u)
{
    static const char bearer[] = "Authorization: Bearer ";
    if (!add_header(u, "Content-Type: application/json") || !add_header(u, "Expect:"))
        return false;
    if (!u->o.api_key)
        return true;
    char *header = malloc(sizeof bearer + strlen(u->o.api_key));
    const bool ok = header && add_header(u, strcat(strcpy(header, bearer), u->o.api_key));
    free(header);
    return ok;
}

static bool set_up(struct chat_url *u, const char *url)
{
    CURL *c = u->curl;
    return add_headers(u) && curl_easy_setopt(c, CURLOPT_URL, url) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_HTTPHEADER, u->headers) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_ERRORBUFFER, u->why) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_bytes) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_WRITEDATA, u) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, check_stop) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_XFERINFODATA, u) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L) == CURLE_OK;
}

static status no_memory(void)
{
    log_error("no memory for a connection");
    return ST_NOMEM;
}

status chat_url_open(const struct chat_url_options *o, struct chat_url **out)
{
    if (strncmp(o->url, "http://", 7) != 0 && strncmp(o->url, "https://", 8) != 0) {
        log_error("--url takes http://HOST:PORT or https://HOST:PORT, not '%s'", o->url);
        return ST_USAGE;
    }
    struct chat_url *u = calloc(1, sizeof *u);
    char *url = endpoint(o->url);
    status st = ST_NOMEM;
    if (u && url) {
        u->o = *o;
        u->events = (struct event_stream){.tell = take_event, .arg = u};
        u->curl = curl_easy_init();
        st = u->curl && set_up(u, url) ? ST_OK : ST_NOMEM;
    }
    free(url);
    if (st == ST_OK) {
        *out = u;
        return ST_OK;
    }
    chat_url_close(u);
    return no_memory();
}

struct chat_answers chat_url_answers(struct chat_url *u)
{
    return (struct chat_answers){.answer = answer, .report = report, .source = u};
}

void chat_url_close(struct chat_url *u)
{
    if (!u)
        return;
    curl_easy_cleanup(u->curl);
    curl_slist_free_all(u->headers);
    free(u->events.line.at);
    free(u->said.at);
    free(u->thought.at);
    free(u->refusal.at);
    free(u);
}
