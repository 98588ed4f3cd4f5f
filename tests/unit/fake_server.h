/* What stands around the API in its tests: an exchange of HTTP whose answer is kept, an engine whose jobs the test
 * plays, a watch that looks when it is told to. Programs that include it have these in place of serve's own. */
#ifndef HEARTH_TESTS_FAKE_SERVER_H
#define HEARTH_TESTS_FAKE_SERVER_H

#include <stdlib.h>
#include <string.h>
#include "model/jinja/writer.h"
#include "serve/paths.h"
#include "serve/reply.h"
#include "tests/unit/made_file.h"

int byte_character(uint8_t byte, char out[2]); /* model/tokenizer_internal.h has a struct piece of its own */

struct http_exchange {
    const char *path, *body;
    size_t n_body;
    bool gone, begun, ended;
    atomic_bool done; /* the last thing that is set */
    int status;
    int retry_after;
    struct json_text out; /* all that was written */
};

static struct {
    status submit;               /* what engine_submit says */
    struct job *jobs[ASK_TEXTS]; /* [n_jobs] that it was given */
    uint32_t n_jobs;
    struct watched *watched;
} fake;

const char *http_path(const struct http_exchange *x) { return x->path; }
const char *http_body(const struct http_exchange *x, size_t *n)
{
    *n = x->n_body;
    return x->body;
}
uint32_t http_key(const struct http_exchange *x)
{
    (void)x;
    return 0;
}
bool http_gone(struct http_exchange *x) { return x->gone; }

void http_begin(struct http_exchange *x, int code, const char *type, const struct http_field *fields, size_t n_fields)
{
    (void)type, (void)fields, (void)n_fields;
    if (x->begun || x->ended)
        abort();
    x->begun = true;
    x->status = code;
}

void http_write(struct http_exchange *x, const char *bytes, size_t n)
{
    if (!x->begun || x->ended)
        abort();
    json_raw(&x->out, bytes, n);
}

void http_end(struct http_exchange *x)
{
    if (!x->begun || x->ended)
        abort();
    x->ended = true;
    atomic_store(&x->done, true);
}

void http_answer(struct http_exchange *x, int code, const char *type, const char *body, size_t n,
                 const struct http_field *fields, size_t n_fields)
{
    (void)type;
    if (x->begun || x->ended)
        abort();
    for (size_t i = 0; i < n_fields; i++)
        if (strcmp(fields[i].name, "Retry-After") == 0)
            x->retry_after = atoi(fields[i].value);
    x->status = code;
    x->ended = true;
    json_raw(&x->out, body, n);
    atomic_store(&x->done, true);
}

status engine_submit(struct engine *e, struct job *const *jobs, uint32_t n)
{
    (void)e;
    if (fake.submit != ST_OK)
        return fake.submit;
    memcpy(fake.jobs, jobs, n * sizeof *jobs);
    fake.n_jobs = n;
    return ST_OK;
}

void watch_add(struct watch *w, struct watched *what)
{
    (void)w;
    fake.watched = what;
}

void watch_remove(struct watch *w, struct watched *what)
{
    (void)w;
    if (fake.watched == what)
        fake.watched = NULL;
}

/* --- a model without weights: a token for each byte, and the marks of ChatML; a context of 1000 tokens --- */

static struct serve_options fake_options;

static inline void fake_vocabulary(struct gguf_writer *w)
{
    static const char *const controls[] = {"<unk>", "<|im_start|>", "<|im_end|>"};
    gguf_key_array(w, "tokenizer.ggml.tokens", GGUF_STRING, 3 + 256);
    for (int i = 0; i < 3; i++)
        gguf_put_string(w, controls[i]);
    for (int i = 0; i < 256; i++) {
        char name[8] = "";
        byte_character((uint8_t)i, name);
        gguf_put_string(w, name);
    }
    gguf_key_array(w, "tokenizer.ggml.token_type", GGUF_I32, 3 + 256);
    for (int i = 0; i < 3 + 256; i++)
        gguf_put_uint(w, i < 3 ? 3 : 1, 4);
}

static inline void fake_api_open(struct api *api, struct made *m)
{
    gguf_writer_begin(&m->w, "GGUF", 3);
    gguf_key_string(&m->w, "tokenizer.ggml.model", "gpt2");
    gguf_key_string(&m->w, "tokenizer.ggml.pre", "default");
    fake_vocabulary(&m->w);
    gguf_key_strings(&m->w, "tokenizer.ggml.merges", (const char *const[]){"a b"}, 1);
    gguf_key_u32(&m->w, "tokenizer.ggml.eos_token_id", 2);
    made_open(m);
    fake_options.sampling = sampler_greedy;
    fake_options.max_queue = ASK_TEXTS;
    *api = (struct api){.o = &fake_options, .name = "house", .house = {.tokenizer = m->t, .n_ctx = 1000},
                        .ready = true};
    assert_int_equal(chat_template_of(m->g, m->t, "chatml", &api->chat), ST_OK);
    assert_int_equal(chat_writer_open(m->g, m->t, "chatml", &api->writer), ST_OK);
    api->tools = tool_format_of(&api->chat);
}

static inline void fake_api_close(struct api *api, struct made *m)
{
    chat_writer_close(api->writer);
    unmake(m);
}

/* All jobs end, in their order. */
static inline void end_jobs(enum job_end end, const char *why)
{
    const uint32_t n = fake.n_jobs;
    fake.n_jobs = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct job_usage u = {.prompt_tokens = fake.jobs[i]->n_prompt};
        fake.jobs[i]->over(fake.jobs[i], end, &u, why);
    }
}

#endif
