/* /v1/embeddings: the model's own states of a text, pooled, as a vector of length 1. Of a request's texts as many are
 * submitted as run at once, and the next when one is over: a long list takes no more of the queue than that.
 *
 * The desk's thread reads the request and submits the first; from then on all is the engine's thread's, but for the
 * watch, which cancels what nobody waits for any more. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/bytes.h"
#include "serve/ask.h"
#include "serve/fields.h"
#include "serve/json_text.h"
#include "serve/paths.h"
#include "serve/watch.h"

enum { TEXTS_MOST = 2048 };

struct embeddings;

struct text {
    struct job job;           /* its owner is the text; its prompt is malloc'ed */
    struct embeddings *of;
    struct json_text vector;  /* as JSON, when its states have come */
};

struct embeddings {
    struct api *api;
    struct http_exchange *x;
    struct watched watched;
    struct text *texts;       /* [n] */
    uint32_t n, next;         /* the first that was not submitted yet */
    uint32_t under_way;
    enum job_pool pool;
    bool base64;
    int64_t dimensions;       /* values of a vector */
    uint64_t n_tokens;
    atomic_bool gone;         /* nobody reads the answer */
    atomic_bool answered;     /* by the watch, while the engine is stuck, or at the end: who sets it ends the
                               * exchange */
    int failed;               /* HTTP's status; 0: it did not */
    char why[160];
};

static void embeddings_free(struct embeddings *e)
{
    for (uint32_t i = 0; i < e->n; i++) {
        free(e->texts[i].job.prompt);
        json_text_free(&e->texts[i].vector);
    }
    free(e->texts);
    free(e);
}

/* ---- what comes back ---- */

static void put_base64(struct json_text *t, const uint8_t *bytes, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        const size_t left = n - i;
        const uint32_t three = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                               (left > 2 ? (uint32_t)bytes[i + 2] : 0);
        const char four[4] = {digits[three >> 18], digits[three >> 12 & 63], left > 1 ? digits[three >> 6 & 63] : '=',
                              left > 2 ? digits[three & 63] : '='};
        json_raw(t, four, sizeof four);
    }
}

/* The first n values, times a factor. */
static void put_vector(struct json_text *t, const float *values, uint32_t n, double factor, bool base64)
{
    json_put(t, base64 ? "\"" : "[");
    for (uint32_t i = 0; !base64 && i < n; i++)
        json_print(t, "%s%.8g", i ? "," : "", (double)values[i] * factor);
    for (uint32_t i = 0; base64 && i < n; i += 3) { /* three floats are sixteen digits */
        uint8_t bytes[12];
        const uint32_t some = n - i < 3 ? n - i : 3;
        struct writer w = {.at = bytes, .end = bytes + sizeof bytes};
        for (uint32_t j = 0; j < some; j++)
            write_f32(&w, (float)((double)values[i + j] * factor));
        put_base64(t, bytes, 4 * (size_t)some);
    }
    json_put(t, base64 ? "\"" : "]");
}

static void fail(struct embeddings *e, int code, const char *why)
{
    if (e->failed)
        return;
    e->failed = code;
    snprintf(e->why, sizeof e->why, "%s", why);
}

static void on_states(struct job *j, const float *values, uint32_t n)
{
    struct text *t = j->owner;
    double squares = 0;
    n = n < (uint32_t)t->of->dimensions ? n : (uint32_t)t->of->dimensions;
    for (uint32_t i = 0; i < n; i++)
        squares += (double)values[i] * (double)values[i];
    if (!isfinite(squares))
        fail(t->of, 500, "the model's states are no numbers");
    else
        put_vector(&t->vector, values, n, squares > 0 ? 1 / sqrt(squares) : 0, t->of->base64);
}

static void send_answer(struct embeddings *e)
{
    struct json_text t = {0};
    json_put(&t, "{\"object\":\"list\",\"data\":[");
    for (uint32_t i = 0; i < e->n; i++) {
        const struct json_text *v = &e->texts[i].vector;
        json_print(&t, "%s{\"object\":\"embedding\",\"index\":%u,\"embedding\":", i ? "," : "", i);
        json_raw(&t, v->at, v->n);
        json_put(&t, "}");
        t.failed |= v->failed;
    }
    json_put(&t, "],\"model\":");
    json_string_of(&t, e->api->name, strlen(e->api->name));
    json_print(&t, ",\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}}", (unsigned long long)e->n_tokens,
               (unsigned long long)e->n_tokens);
    if (t.failed)
        api_refuse(e->x, 500, NULL, NULL, "the server has no memory for the answer");
    else
        http_answer(e->x, 200, "application/json", t.at, t.n, NULL, 0);
    json_text_free(&t);
}

/* Nothing is under way any more. */
static void finish(struct embeddings *e)
{
    watch_remove(e->api->watch, &e->watched);
    if (atomic_exchange(&e->answered, true))
        ; /* the watch has told the client */
    else if (e->failed)
        api_refuse(e->x, e->failed, e->failed == 429 ? "queue_full" : NULL, NULL, "%s", e->why);
    else
        send_answer(e);
    embeddings_free(e);
}

/* ---- submitting ---- */

/* Submits n more texts. Then, unless it fails, all is the engine's thread's. */
static status submit(struct embeddings *e, uint32_t n)
{
    struct job *jobs[64];
    for (uint32_t i = 0; i < n; i++)
        jobs[i] = &e->texts[e->next + i].job;
    e->next += n;
    e->under_way += n;
    const status st = engine_submit(e->api->engine, jobs, n);
    if (st) {
        e->next -= n;
        e->under_way -= n;
    }
    return st;
}

static void refused(struct embeddings *e, status st)
{
    fail(e, st == ST_FULL ? 429 : 503, st == ST_FULL ? "too many requests wait" : "the server is stopping");
}

static void on_over(struct job *j, enum job_end end, const struct job_usage *u, const char *why)
{
    struct text *t = j->owner;
    struct embeddings *e = t->of;
    e->under_way--;
    e->n_tokens += u->prompt_tokens;
    if (end == JOB_FAILED)
        fail(e, 503, why ? why : "the model failed");
    else if (end == JOB_CANCELLED || atomic_load(&e->gone))
        fail(e, 503, "cancelled");
    if (!e->failed && e->next < e->n) {
        const status st = submit(e, 1);
        if (st && (st != ST_FULL || e->under_way == 0)) /* else there is room when another of them is over */
            refused(e, st);
    }
    if (e->under_way == 0 && (e->failed || e->next == e->n))
        finish(e);
}

/* Whether anybody waits for it still. */
static void look(struct watched *w, double now_s)
{
    struct embeddings *e = (struct embeddings *)((char *)w - offsetof(struct embeddings, watched));
    const char *abandoned = atomic_load(&e->api->abandoned);
    (void)now_s;
    if (atomic_load(&e->gone))
        return;
    if (abandoned && !atomic_exchange(&e->answered, true))
        api_refuse(e->x, 503, NULL, NULL, "%s", abandoned);
    else if (!http_gone(e->x))
        return;
    atomic_store(&e->gone, true);
    for (uint32_t i = 0; i < e->n; i++)
        atomic_store(&e->texts[i].job.cancelled, true);
}

static void begin(struct embeddings *e)
{
    const uint32_t at_once = e->api->house.n_sequences < 64 ? e->api->house.n_sequences : 64;
    for (uint32_t i = 0; i < e->n; i++) {
        struct text *t = &e->texts[i];
        t->of = e;
        t->job.kind = JOB_STATES;
        t->job.pool = e->pool;
        t->job.sampling = sampler_greedy;
        t->job.n_top = UINT32_MAX;
        t->job.key = http_key(e->x);
        t->job.states = on_states;
        t->job.over = on_over;
        t->job.owner = t;
    }
    e->watched.look = look;
    watch_add(e->api->watch, &e->watched);
    const status st = submit(e, e->n < at_once ? e->n : at_once);
    if (st) {
        refused(e, st);
        finish(e);
    }
}

/* ---- the request ---- */

static bool no_memory(struct refusal *r)
{
    refuse(r, NULL, NULL, "the server has no memory for the texts");
    r->status = 503;
    return false;
}

/* An array of tokens as a text. */
static bool read_tokens(const struct api *api, const json_t *array, struct job *j, struct refusal *r)
{
    const int32_t n_vocab = tokenizer_n_vocab(api->house.tokenizer);
    const size_t n = json_array_size(array);
    size_t i;
    json_t *id;
    if (n > api->house.n_ctx)
        return ask_fits(api, n, r);
    if (!(j->prompt = malloc((n ? n : 1) * sizeof *j->prompt)))
        return no_memory(r);
    json_array_foreach(array, i, id) {
        int64_t token;
        if (!field_whole(id, &token) || token < 0 || token >= n_vocab)
            return refuse(r, "invalid_value", "input", "'input': expected tokens from 0 to %d", n_vocab - 1);
        j->prompt[i] = (int32_t)token;
    }
    j->n_prompt = (uint32_t)n;
    return true;
}

static bool read_text(const struct api *api, const json_t *text, struct job *j, struct refusal *r)
{
    size_t n = 0;
    if (json_is_array(text)) {
        if (!read_tokens(api, text, j, r))
            return false;
    } else if (!json_is_string(text)) {
        return refuse(r, "invalid_type", "input", "'input': expected a string, tokens, or an array of those");
    } else {
        const status st = tokenizer_encode_within(api->house.tokenizer, json_string_value(text),
                                                  json_string_length(text), true, false, api->house.n_ctx, &j->prompt,
                                                  &n);
        if (!ask_encoded(api, st, "input", r))
            return false;
        j->n_prompt = (uint32_t)n;
    }
    if (j->n_prompt == 0)
        return refuse(r, "invalid_value", "input", "'input': a text is empty");
    return ask_fits(api, j->n_prompt, r);
}

/* One text: a string, or tokens; or an array of such. */
static bool read_input(struct embeddings *e, const json_t *input, struct refusal *r)
{
    const json_t *first = json_array_get(input, 0);
    const bool several = json_is_array(input) && !json_is_number(first);
    const size_t n = several ? json_array_size(input) : 1;
    if (!input)
        return refuse(r, "missing_required_parameter", "input", "'input' is missing");
    if (n == 0 || n > TEXTS_MOST)
        return refuse(r, "invalid_value", "input", "'input': expected 1 to %d texts, found %zu", TEXTS_MOST, n);
    if (!(e->texts = calloc(n, sizeof *e->texts)))
        return no_memory(r);
    for (e->n = 0; e->n < n;) {
        e->n++; /* what it has got is freed with it */
        if (!read_text(e->api, several ? json_array_get(input, e->n - 1) : input, &e->texts[e->n - 1].job, r))
            return false;
    }
    return true;
}

/* Which of two words a field is; `out` stays if it is not there. */
static bool read_choice(const json_t *root, const char *name, const char *no, const char *yes, bool *out,
                        struct refusal *r)
{
    const char *word = NULL;
    if (!field_string(root, name, &word, r))
        return false;
    if (!word)
        return true;
    if (strcmp(word, no) != 0 && strcmp(word, yes) != 0)
        return refuse(r, "invalid_value", name, "'%s': expected \"%s\" or \"%s\"", name, no, yes);
    *out = strcmp(word, yes) == 0;
    return true;
}

static bool read_request(struct embeddings *e, const json_t *root, struct refusal *r)
{
    const char *model = NULL;
    bool last = false;
    e->dimensions = e->api->house.model->hp.d_model;
    if (!field_string(root, "model", &model, r) ||
        !read_choice(root, "encoding_format", "float", "base64", &e->base64, r) ||
        !read_choice(root, "pooling", "mean", "last", &last, r) ||
        !field_integer(root, "dimensions", 1, e->dimensions, &e->dimensions, r))
        return false;
    e->pool = last ? POOL_LAST : POOL_MEAN;
    return read_input(e, json_object_get(root, "input"), r);
}

void embeddings_work(struct api *api, struct http_exchange *x, const json_t *root)
{
    struct refusal r;
    struct embeddings *e = calloc(1, sizeof *e);
    if (!e) {
        api_refuse_memory(x);
        return;
    }
    e->api = api;
    e->x = x;
    if (read_request(e, root, &r)) {
        begin(e);
        return;
    }
    api_refuse(x, r.status, r.code, *r.param ? r.param : NULL, "%s", r.message);
    embeddings_free(e);
}
