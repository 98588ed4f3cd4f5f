#include "serve/ask.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "model/thoughts.h"
#include "serve/text_rule.h"

enum { MOST_BIASES = 512, STOP_BYTES = 1024 };

/* A new number for every request, spread over all 64 bits: choices count on from it. */
static uint64_t seed_of(uint64_t server, uint64_t request)
{
    uint64_t x = server + request * UINT64_C(0x9E3779B97F4A7C15); /* splitmix64 */
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

static bool read_seed(struct api *api, const json_t *root, struct ask *a, struct refusal *r)
{
    int64_t seed = -1; /* as llama.cpp has it: any */
    if (!field_integer(root, "seed", INT64_MIN, INT64_MAX, &seed, r))
        return false;
    a->sampling.seed = seed == -1 ? seed_of(a->sampling.seed, api->n_asked++) : (uint64_t)seed;
    return true;
}

static bool read_sampling(struct api *api, const json_t *root, struct ask *a, struct refusal *r)
{
    struct sampler_params *s = &a->sampling;
    int64_t top_k = s->top_k, last = s->repeat_last;
    if (!field_number(root, "temperature", 0, 100, &s->temperature, r) ||
        !field_number(root, "top_p", 0, 1, &s->top_p, r) || !field_number(root, "min_p", 0, 1, &s->min_p, r) ||
        !field_integer(root, "top_k", -1, INT32_MAX, &top_k, r) ||
        !field_number(root, "presence_penalty", -100, 100, &s->presence_penalty, r) ||
        !field_number(root, "frequency_penalty", -100, 100, &s->frequency_penalty, r) ||
        !field_number(root, "repeat_penalty", 0.01, 100, &s->repeat_penalty, r) ||
        !field_number(root, "repetition_penalty", 0.01, 100, &s->repeat_penalty, r) || /* vLLM's name of it */
        !field_integer(root, "repeat_last_n", -1, INT32_MAX, &last, r))
        return false;
    s->top_k = (int32_t)top_k;
    s->repeat_last = (int32_t)last;
    return read_seed(api, root, a, r);
}

/* A token's number as it is written in a key. */
static bool token_of(const struct api *api, const char *key, int32_t *out)
{
    const size_t n = strlen(key);
    const long long v = strtoll(key, NULL, 10);
    if (n == 0 || strspn(key, "0123456789") < n || v >= tokenizer_n_vocab(api->house.tokenizer))
        return false;
    *out = (int32_t)v;
    return true;
}

static bool read_bias(const struct api *api, const json_t *root, struct ask *a, struct refusal *r)
{
    const json_t *biases = NULL;
    const char *key;
    json_t *v;
    if (!field_object(root, "logit_bias", &biases, r) || json_object_size(biases) == 0)
        return r->status == 0;
    if (json_object_size(biases) > MOST_BIASES)
        return refuse(r, "invalid_value", "logit_bias", "'logit_bias': at most %d tokens", MOST_BIASES);
    a->bias = malloc(json_object_size(biases) * sizeof *a->bias);
    if (!a->bias)
        return refuse_status(r, ST_NOMEM, NULL, "");
    json_object_foreach((json_t *)biases, key, v) {
        struct token_bias *b = &a->bias[a->sampling.n_bias];
        const double bias = json_number_value(v);
        if (!token_of(api, key, &b->token))
            return refuse(r, "invalid_value", "logit_bias", "'logit_bias': there is no token '%.40s'", key);
        if (!json_is_number(v) || !(bias >= -100 && bias <= 100))
            return refuse(r, "invalid_value", "logit_bias",
                          "'logit_bias': expected a number of -100 to 100 for token %s", key);
        b->bias = (float)bias;
        a->sampling.n_bias++;
    }
    return true;
}

static bool read_stream(const json_t *root, struct ask *a, struct refusal *r)
{
    const json_t *options = NULL;
    return field_flag(root, "stream", &a->stream, r) && field_object(root, "stream_options", &options, r) &&
           (!options || field_flag(options, "include_usage", &a->include_usage, r));
}

bool ask_read(struct api *api, const json_t *root, struct ask *a, struct refusal *r)
{
    const char *model = NULL; /* there is one, whatever it is called */
    int64_t n = 1;
    *a = (struct ask){.sampling = api->o->sampling, .n_top = UINT32_MAX, .max_tokens = UINT32_MAX};
    *r = (struct refusal){0};
    if (field_string(root, "model", &model, r) && read_sampling(api, root, a, r) && read_bias(api, root, a, r) &&
        read_stream(root, a, r) && field_integer(root, "n", 1, ASK_CHOICES, &n, r) &&
        field_flag(root, "ignore_eos", &a->ignore_end, r)) {
        a->n = (uint32_t)n;
        return true;
    }
    ask_free(a);
    return false;
}

static bool add_stop(const json_t *v, const char *name, struct ask *a, struct refusal *r)
{
    if (!json_is_string(v))
        return refuse(r, "invalid_type", name, "'%s': expected a string or an array of strings", name);
    if (json_string_length(v) == 0 || json_string_length(v) > STOP_BYTES)
        return refuse(r, "invalid_value", name, "'%s': a stop string has 1 to %d bytes", name, STOP_BYTES);
    if (a->n_stops == ASK_STOPS)
        return refuse(r, "invalid_value", name, "'%s': at most %d strings", name, ASK_STOPS);
    a->stops[a->n_stops++] = json_string_value(v);
    return true;
}

bool ask_stops(const json_t *root, const char *name, struct ask *a, struct refusal *r)
{
    const json_t *stop = json_object_get(root, name);
    json_t *v;
    size_t i;
    if (!stop || json_is_null(stop))
        return true;
    if (!json_is_array(stop))
        return add_stop(stop, name, a, r);
    json_array_foreach(stop, i, v)
        if (!add_stop(v, name, a, r))
            return false;
    return true;
}

bool ask_max_tokens(const json_t *root, const char *name, int least, struct ask *a, struct refusal *r)
{
    int64_t most = -1;
    if (!field_integer(root, name, -1, INT64_MAX, &most, r))
        return false;
    if (most >= 0 && most < least)
        return refuse(r, "invalid_value", name, "'%s': expected %d or more, or -1 for as many as there is room for",
                      name, least);
    if (most >= 0)
        a->max_tokens = most < UINT32_MAX ? (uint32_t)most : UINT32_MAX - 1; /* it is said, however much */
    return true;
}

bool ask_tools(const struct api *api, const json_t *tools, enum tool_choice choice, const char *name, bool parallel,
               struct ask *a, struct refusal *r)
{
    struct log_catcher caught;
    struct grammar made;
    if (!tools)
        return true;
    log_catch(&caught);
    status st = tools_check(tools);
    if (st == ST_OK && choice != TOOLS_NONE)
        st = tool_grammar(api->tools, tools, choice, name, parallel, a->grammar.ops ? &a->grammar : NULL, &made);
    log_catch(NULL);
    if (st != ST_OK)
        return refuse_status(r, st, "tools", caught.first_error);
    if (choice == TOOLS_NONE)
        return true;
    free((void *)a->grammar.ops);
    a->grammar = made;
    a->tools = api->tools;
    a->called = json_incref((json_t *)tools);
    return true;
}

bool ask_fits(const struct api *api, size_t n, struct refusal *r)
{
    if (n < api->house.n_ctx)
        return true;
    return refuse(r, "context_length_exceeded", NULL,
                  "This model's maximum context length is %u tokens. However, the request has %zu tokens.",
                  api->house.n_ctx, n);
}

bool ask_encoded(const struct api *api, status st, const char *param, struct refusal *r)
{
    if (st == ST_OK)
        return true;
    if (st != ST_FULL)
        return refuse_status(r, st, param, "");
    return refuse(r, "context_length_exceeded", NULL,
                  "This model's maximum context length is %u tokens. However, the request has more than that.",
                  api->house.n_ctx);
}

/* Whether the model was trained to think: its template names a mark. Of a format that was asked for nothing is
 * known. */
static bool may_think(const struct api *api)
{
    const struct gguf_string *text = &api->chat.text;
    size_t n;
    const struct thoughts_mark *marks = thoughts_marks(&n);
    if (text->n == 0)
        return true;
    for (size_t i = 0; i < n; i++)
        if (!marks[i].answers && marks[i].close && memmem(text->at, text->n, marks[i].open, strlen(marks[i].open)))
            return true;
    return false;
}

bool ask_behind_thoughts(const struct api *api, const struct prompt *p, struct ask *a, struct refusal *r)
{
    const char *close = thoughts_opened(api->house.tokenizer, p->ids, p->n);
    struct log_catcher caught;
    if (!a->grammar.ops || (!close && !(a->thoughts && may_think(api))))
        return true;
    log_catch(&caught);
    const status st = grammar_behind_thoughts(&a->grammar, api->house.tokenizer, close);
    log_catch(NULL);
    a->thoughts = true;
    return st == ST_OK || refuse_status(r, st, NULL, caught.first_error);
}

void ask_free(struct ask *a)
{
    free(a->bias);
    free((void *)a->grammar.ops);
    json_decref(a->called);
    *a = (struct ask){0};
}
