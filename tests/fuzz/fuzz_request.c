/* Start it with -dict=tests/fuzz/request.dict CORPUS tests/fuzz/corpus/request.
 *
 * Bodies of requests: any bytes are answered once, with a 4xx, or become jobs that are right for the engine, whose
 * tokens (the body's own bytes) become an answer that is JSON. The first byte picks the path. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

static void require(int holds)
{
    if (!holds)
        abort();
}
#define assert_int_equal(a, b) require((a) == (b))
#include "base/log.h"
#include "tests/unit/fake_server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_job(const struct api *api, const struct job *j)
{
    const int32_t n_vocab = tokenizer_n_vocab(api->house.tokenizer);
    const struct sampler_params *s = &j->sampling;
    require(j->n_prompt > 0 && j->n_prompt < api->house.n_ctx && j->max_tokens > 0);
    require(j->n_top == UINT32_MAX || j->n_top <= WIRE_TOP);
    require(isfinite(s->temperature) && isfinite(s->top_p) && isfinite(s->min_p) && isfinite(s->repeat_penalty));
    for (uint32_t i = 0; i < j->n_prompt; i++)
        require(j->prompt[i] >= 0 && j->prompt[i] < n_vocab);
    for (uint32_t i = 0; i < s->n_bias; i++)
        require(s->bias[i].token >= 0 && s->bias[i].token < n_vocab && fabsf(s->bias[i].bias) <= 100);
    require(!s->grammar || grammar_check(s->grammar) == ST_OK);
}

/* Tells every job the tokens of some bytes. */
static void play(const struct api *api, const uint8_t *data, size_t n)
{
    for (uint32_t i = 0; i < fake.n_jobs; i++) {
        struct job *j = fake.jobs[i];
        bool more = true;
        check_job(api, j);
        for (size_t k = 0; k < n && k < 40 && more; k++)
            more = j->token(j, 3 + data[k], -1, NULL, 0);
    }
    end_jobs(JOB_ANSWERED, NULL);
}

static void check_answer(const struct http_exchange *x)
{
    require(x->ended && (x->status == 200 || (x->status >= 400 && x->status < 500)));
    if (x->begun)
        return;
    json_t *o = json_loadb(x->out.at, x->out.n, JSON_ALLOW_NUL, NULL);
    require(json_is_object(o));
    require((x->status == 200) == !json_object_get(o, "error"));
    json_decref(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct made model;
    static struct api api;
    struct http_exchange x = {.path = "/v1/chat/completions"};
    struct log_catcher quiet;
    if (!api.o)
        fake_api_open(&api, &model);
    json_t *root = n ? json_loadb((const char *)data + 1, n - 1, 0, NULL) : NULL;
    log_catch(&quiet);
    if (json_is_object(root)) {
        (data[0] & 1 ? completions_work : chat_completions_work)(&api, &x, root);
        play(&api, data, n);
        check_answer(&x);
    }
    log_catch(NULL);
    json_decref(root);
    json_text_free(&x.out);
    return 0;
}
