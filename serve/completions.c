/* /v1/completions: texts that go on, or whose middle is wanted. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "serve/echo.h"
#include "serve/openai.h"
#include "serve/paths.h"

enum { TOKEN_BYTES = 1024, MOST_TOPS = WIRE_TOP, MOST_ECHOED = 1 << 16 /* tokens with log probabilities */ };

/* --- writing --- */

/* What comes before the answer, if it was asked for. */
static void put_echo(struct json_text *t, const struct choice *c)
{
    if (c->reply->form_state)
        echo_put(c->reply->form_state, c->prompt, t);
}

static void put_tops(struct json_text *t, const struct tokenizer *of, const struct token_mark *m)
{
    char bytes[TOKEN_BYTES];
    if (isnan(m->log_p)) {
        json_put(t, "null");
        return;
    }
    json_put(t, "{");
    for (uint32_t k = 0; k < m->n_tops; k++) {
        json_put(t, k ? "," : "");
        openai_token(t, of, m->tops[k].token, bytes, sizeof bytes);
        json_put(t, ":");
        json_number(t, m->tops[k].log_p, 6);
    }
    json_put(t, "}");
}

/* The log probabilities that nobody has been told of yet, in columns. */
static void put_marks(struct json_text *t, struct choice *c)
{
    const struct tokenizer *of = c->reply->api->house.tokenizer;
    const struct echo *e = c->reply->form_state;
    const uint64_t unsaid = e ? e->unsaid[c->prompt] : 0;
    char bytes[TOKEN_BYTES];
    if (c->reply->ask.n_top == UINT32_MAX) {
        json_put(t, ",\"logprobs\":null");
        return;
    }
    json_put(t, ",\"logprobs\":{\"tokens\":[");
    for (uint32_t i = 0; i < c->n_marks; i++) {
        json_put(t, i ? "," : "");
        openai_token(t, of, c->marks[i].token, bytes, sizeof bytes);
    }
    json_put(t, "],\"token_logprobs\":[");
    for (uint32_t i = 0; i < c->n_marks; i++) {
        json_put(t, i ? "," : "");
        json_number(t, c->marks[i].log_p, 6);
    }
    json_put(t, "],\"top_logprobs\":[");
    for (uint32_t i = 0; i < c->n_marks; i++) {
        json_put(t, i ? "," : "");
        put_tops(t, of, &c->marks[i]);
    }
    json_put(t, "],\"text_offset\":[");
    for (uint32_t i = 0; i < c->n_marks; i++) {
        const uint64_t at = c->marks[i].offset;
        json_print(t, "%s%llu", i ? "," : "", (unsigned long long)(at > unsaid ? at - unsaid : 0));
    }
    json_put(t, "]}");
    c->n_marks = 0;
}

static void write_piece(struct choice *c, const struct piece *p)
{
    struct reply *r = c->reply;
    openai_chunk(r, c);
    json_put(&r->out, "\"text\":");
    json_string_of(&r->out, p->at, p->n);
    put_marks(&r->out, c);
    openai_chunk_end(r, c, NULL);
}

static void open_texts(struct reply *r)
{
    openai_head(r, "text_completion");
    for (uint32_t i = 0; r->form_state && i < r->n_choices; i++) {
        openai_chunk(r, &r->choices[i]);
        json_put(&r->out, "\"text\":\"");
        put_echo(&r->out, &r->choices[i]);
        json_put(&r->out, "\"");
        put_marks(&r->out, &r->choices[i]);
        openai_chunk_end(r, &r->choices[i], NULL);
    }
}

static void close_choice(struct choice *c)
{
    struct reply *r = c->reply;
    openai_chunk(r, c);
    json_put(&r->out, "\"text\":\"\"");
    put_marks(&r->out, c);
    openai_chunk_end(r, c, choice_finish(c));
}

static void write_whole(struct reply *r)
{
    json_put(&r->out, "{");
    openai_names(&r->out, r, "text_completion");
    json_put(&r->out, "\"choices\":[");
    for (uint32_t i = 0; i < r->n_choices; i++) {
        struct choice *c = &r->choices[i];
        json_print(&r->out, "%s{\"index\":%u,\"text\":\"", i ? "," : "", i);
        put_echo(&r->out, c);
        json_inside(&r->out, c->text.at, c->text.n);
        json_put(&r->out, "\"");
        put_marks(&r->out, c);
        json_print(&r->out, ",\"finish_reason\":\"%s\"}", choice_finish(c));
    }
    json_put(&r->out, "],");
    openai_whole_end(r);
}

static const struct reply_form form = {
    .prefix = "cmpl-", .open = open_texts, .piece = write_piece, .close = close_choice, .done = openai_done,
    .fail = openai_fail, .keep_alive = openai_keep_alive, .whole = write_whole,
};

/* --- reading --- */

/* What is asked for, until it is a reply. */
struct texts {
    struct ask ask;
    struct prompt *prompts; /* [n] */
    uint32_t n;
    bool echo;
};

static void texts_free(struct texts *t)
{
    for (uint32_t i = 0; i < t->n; i++)
        free(t->prompts[i].ids);
    free(t->prompts);
    ask_free(&t->ask);
}

/* Takes ids, a prompt. */
static bool add_prompt(const struct api *api, struct texts *t, int32_t *ids, size_t n, struct refusal *r)
{
    if (n == 0)
        refuse(r, "invalid_value", "prompt", "'prompt': a text is empty, and this model has no token to begin with");
    else if (ask_fits(api, n, r)) {
        t->prompts[t->n++] = (struct prompt){ids, (uint32_t)n};
        return true;
    }
    free(ids);
    return false;
}

static bool add_text(const struct api *api, struct texts *t, const json_t *text, struct refusal *r)
{
    int32_t *ids;
    size_t n;
    const status st = tokenizer_encode_within(api->house.tokenizer, json_string_value(text), json_string_length(text),
                                              true, true, api->house.n_ctx, &ids, &n);
    return ask_encoded(api, st, "prompt", r) && add_prompt(api, t, ids, n, r);
}

static bool add_ids(const struct api *api, struct texts *t, const json_t *list, struct refusal *r)
{
    const size_t n = json_array_size(list);
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    json_t *v;
    size_t i;
    if (!ids)
        return refuse_status(r, ST_NOMEM, NULL, "");
    json_array_foreach(list, i, v) {
        int64_t id;
        if (!field_whole(v, &id) || id < 0 || id >= tokenizer_n_vocab(api->house.tokenizer)) {
            free(ids);
            return refuse(r, "invalid_value", "prompt", "'prompt': expected tokens of 0 to %d, or texts",
                          tokenizer_n_vocab(api->house.tokenizer) - 1);
        }
        ids[i] = (int32_t)id;
    }
    return add_prompt(api, t, ids, n, r);
}

/* A text, texts, tokens, or lists of these. */
static bool read_prompts(const struct api *api, const json_t *root, struct texts *t, struct refusal *r)
{
    const json_t *prompt = json_object_get(root, "prompt");
    json_t *v;
    size_t i;
    const bool several = json_array_size(prompt) && !json_is_number(json_array_get(prompt, 0));
    const size_t n = several ? json_array_size(prompt) : 1;
    if (!prompt || json_is_null(prompt))
        return refuse(r, "missing_required_parameter", "prompt", "there is no 'prompt'");
    if (!json_is_string(prompt) && !json_is_array(prompt))
        return refuse(r, "invalid_type", "prompt", "'prompt': expected a string, strings, tokens, or arrays of tokens");
    if (n * t->ask.n > ASK_TEXTS)
        return refuse(r, "invalid_value", "prompt", "'prompt': at most %d texts, each counted 'n' times", ASK_TEXTS);
    t->prompts = calloc(n, sizeof *t->prompts);
    if (!t->prompts)
        return refuse_status(r, ST_NOMEM, NULL, "");
    if (!several)
        return json_is_string(prompt) ? add_text(api, t, prompt, r) : add_ids(api, t, prompt, r);
    json_array_foreach(prompt, i, v) {
        if (!json_is_string(v) && !json_is_array(v))
            return refuse(r, "invalid_type", "prompt", "'prompt': text %zu is neither a string nor an array of tokens",
                          i);
        if (!(json_is_string(v) ? add_text(api, t, v, r) : add_ids(api, t, v, r)))
            return false;
    }
    return true;
}

/* Tokens with which models were trained to write what is missing in the middle; the middle comes last. */
static const char *const middles[][3] = {
    {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},
    {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"},
    {"<fim-prefix>", "<fim-suffix>", "<fim-middle>"},
    {"\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>"},
    {"<PRE>", "<SUF>", "<MID>"},
    {"<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"},
    {"<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"},
    {"[PREFIX]", "[SUFFIX]", "[MIDDLE]"},
};

static bool find_middle(const struct tokenizer *t, int32_t out[3])
{
    for (size_t i = 0; i < sizeof middles / sizeof *middles; i++) {
        bool all = true;
        for (int k = 0; k < 3; k++) {
            out[k] = tokenizer_find(t, middles[i][k]);
            all &= out[k] >= 0;
        }
        if (all)
            return true;
    }
    return false;
}

/* The one prompt is what stands before the gap; `suffix` behind it. */
static bool read_suffix(const struct api *api, const json_t *root, struct texts *t, struct refusal *r)
{
    const struct tokenizer *tk = api->house.tokenizer;
    const json_t *prompt = json_object_get(root, "prompt");
    const char *suffix = NULL;
    int32_t marks[3], *before = NULL, *after = NULL, *ids = NULL;
    size_t n_before, n_after, n = 0;
    if (!field_string(root, "suffix", &suffix, r))
        return false;
    if (!json_is_string(prompt))
        return refuse(r, "invalid_value", "suffix", "'suffix': only with one 'prompt', which is a text");
    if (!find_middle(tk, marks))
        return refuse(r, "unsupported_value", "suffix", "'suffix': this model has no tokens for a gap in a text");
    t->prompts = calloc(1, sizeof *t->prompts);
    status st = t->prompts ? ST_OK : ST_NOMEM;
    if (st == ST_OK)
        st = tokenizer_encode_within(tk, json_string_value(prompt), json_string_length(prompt), false, false,
                                     api->house.n_ctx, &before, &n_before);
    if (st == ST_OK)
        st = tokenizer_encode_within(tk, suffix, strlen(suffix), false, false, api->house.n_ctx, &after, &n_after);
    if (st == ST_OK && !(ids = malloc((n_before + n_after + 4) * sizeof *ids)))
        st = ST_NOMEM;
    if (st == ST_OK) {
        if (tokenizer_adds_bos(tk))
            ids[n++] = tokenizer_bos(tk);
        ids[n++] = marks[0];
        memcpy(ids + n, before, n_before * sizeof *ids);
        n += n_before;
        ids[n++] = marks[1];
        memcpy(ids + n, after, n_after * sizeof *ids);
        n += n_after;
        ids[n++] = marks[2];
    }
    free(before);
    free(after);
    return ask_encoded(api, st, "prompt", r) && add_prompt(api, t, ids, n, r);
}

static bool read_options(const json_t *root, struct texts *t, struct refusal *r)
{
    int64_t tops = -1, best = t->ask.n;
    if (!field_flag(root, "echo", &t->echo, r) || !field_integer(root, "logprobs", 0, MOST_TOPS, &tops, r) ||
        !field_integer(root, "best_of", 1, ASK_CHOICES, &best, r))
        return false;
    if (best != t->ask.n)
        return refuse(r, "unsupported_value", "best_of",
                      "'best_of': all choices are given back, so expected %u, as 'n' has it", t->ask.n);
    if (tops >= 0)
        t->ask.n_top = (uint32_t)tops;
    t->ask.prompt_log_probs = t->echo && tops >= 0;
    return true;
}

/* All that is echoed with log probabilities is in memory at once. */
static bool check_echo(const struct api *api, const struct texts *t, struct refusal *r)
{
    const uint64_t most = api->house.n_ctx > MOST_ECHOED ? api->house.n_ctx : MOST_ECHOED;
    uint64_t n = 0;
    for (uint32_t i = 0; i < t->n; i++)
        n += (uint64_t)t->prompts[i].n * t->ask.n;
    return !t->ask.prompt_log_probs || n <= most ||
           refuse(r, "invalid_value", "echo", "'echo' with 'logprobs': at most %llu tokens of prompts, found %llu",
                  (unsigned long long)most, (unsigned long long)n);
}

/* After a refusal there is nothing to free. */
static bool read_request(struct api *api, const json_t *root, struct texts *t, struct refusal *r)
{
    const json_t *suffix = json_object_get(root, "suffix");
    *t = (struct texts){0};
    if (!ask_read(api, root, &t->ask, r))
        return false;
    if (ask_stops(root, "stop", &t->ask, r) && ask_max_tokens(root, "max_tokens", 0, &t->ask, r) &&
        read_options(root, t, r) &&
        (suffix && !json_is_null(suffix) ? read_suffix(api, root, t, r) : read_prompts(api, root, t, r)) &&
        check_echo(api, t, r))
        return true;
    texts_free(t);
    return false;
}

void completions_work(struct api *api, struct http_exchange *x, const json_t *root)
{
    struct texts t;
    struct refusal refusal;
    struct echo *echo = NULL;
    if (!read_request(api, root, &t, &refusal)) {
        api_refuse_as(x, &refusal);
        return;
    }
    if (t.echo && !(echo = echo_create(api, root, t.prompts, t.n))) {
        texts_free(&t);
        api_refuse_memory(x);
        return;
    }
    struct reply *r = reply_create(api, x, &form, &t.ask, t.prompts, t.n);
    if (!r) {
        free(echo);
        return;
    }
    r->form_state = echo;
    reply_submit(r);
}
