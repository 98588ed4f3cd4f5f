/* What the server says of itself: /health, /v1/models, /props. */
#include "serve/paths.h"

void health_get(void *arg, struct http_exchange *x)
{
    const struct api *a = arg;
    const char *abandoned = atomic_load(&a->abandoned);
    if (abandoned)
        api_refuse(x, 503, NULL, NULL, "%s", abandoned);
    else if (api_is_ready(arg, x))
        api_answer(x, 200, json_pack("{ss}", "status", "ok"));
}

void models_get(void *arg, struct http_exchange *x)
{
    const struct api *a = arg;
    const struct model *m = a->house.model;
    const json_int_t n_ctx = a->house.n_ctx;
    json_t *meta = json_pack("{sI sI sI sI sI}", "n_vocab", (json_int_t)m->hp.n_vocab, "n_ctx", n_ctx,
                             "n_ctx_train", (json_int_t)m->hp.n_ctx_train, "n_embd", (json_int_t)m->hp.d_model,
                             "size", (json_int_t)gguf_file_bytes(m->file));
    json_t *model = json_pack("{ss ss sI ss sI so}", "id", a->name, "object", "model",
                              "created", (json_int_t)a->created, "owned_by", "hearth", "max_model_len", n_ctx,
                              "meta", meta);
    api_answer(x, 200, json_pack("{ss s[o]}", "object", "list", "data", model));
}

/* A token's text; "" where there is no such token. */
static json_t *token_json(const struct tokenizer *t, int32_t id)
{
    char piece[256];
    size_t n = id < 0 ? 0 : tokenizer_piece(t, id, true, piece, sizeof piece);
    json_t *text = n <= sizeof piece ? json_stringn(piece, n) : NULL;
    return text ? text : json_string("");
}

/* The parameters that a request has which names none. */
static json_t *params_json(const struct sampler_params *p)
{
    return json_pack("{sf si sf sf sf si sf sf si sI}", "temperature", (double)p->temperature, "top_k", (int)p->top_k,
                     "top_p", (double)p->top_p, "min_p", (double)p->min_p,
                     "repeat_penalty", (double)p->repeat_penalty, "repeat_last_n", (int)p->repeat_last,
                     "presence_penalty", (double)p->presence_penalty,
                     "frequency_penalty", (double)p->frequency_penalty, "n_predict", -1, "seed", (json_int_t)p->seed);
}

void props_get(void *arg, struct http_exchange *x)
{
    const struct api *a = arg;
    const struct tokenizer *t = a->house.tokenizer;
    struct gguf_string chat = {"", 0};
    gguf_get_string(a->house.model->file, "tokenizer.chat_template", &chat);
    json_t *template = json_stringn(chat.at, chat.n); /* NULL: no UTF-8 */
    json_t *settings = json_pack("{sI sb so}", "n_ctx", (json_int_t)a->house.n_ctx, "is_processing", 0, "params",
                                 params_json(&a->o->sampling));
    api_answer(x, 200, json_pack("{so sI ss ss so so so s{sb sb} ss sb}", "default_generation_settings", settings,
                                 "total_slots", (json_int_t)a->house.n_sequences,
                                 "model_path", a->name, "model_alias", a->name, /* not where it lies */
                                 "chat_template", template ? template : json_string(""),
                                 "bos_token", token_json(t, tokenizer_bos(t)),
                                 "eos_token", token_json(t, tokenizer_eos(t)), "modalities", "vision", 0, "audio", 0,
                                 "build_info", "hearth " HEARTH_VERSION, "is_sleeping", 0));
}
