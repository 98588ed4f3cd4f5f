/* /tokenize and /detokenize, as llama.cpp has them. */
#include <stdlib.h>
#include <string.h>
#include "base/utf8.h"
#include "serve/fields.h"
#include "serve/json_text.h"
#include "serve/paths.h"

enum {
    PIECE_MOST = 1024,
    MOST_TEXT = 1 << 20,      /* bytes to be tokens: the desk does nothing else meanwhile */
    MOST_TEXT_BACK = 16 << 20 /* of what tokens are together */
};

static void send_refusal(struct http_exchange *x, const struct refusal *r)
{
    api_refuse(x, r->status, r->code, *r->param ? r->param : NULL, "%s", r->message);
}

/* A token's bytes, as a string or, where they are no UTF-8 alone, as an array of numbers. */
static void put_piece(struct json_text *out, const struct tokenizer *t, int32_t id)
{
    char piece[PIECE_MOST];
    size_t n = tokenizer_piece(t, id, true, piece, sizeof piece), length;
    n = n <= sizeof piece ? n : 0;
    bool whole = true;
    for (size_t i = 0; i < n && whole; i += length)
        whole = utf8_next(piece + i, n - i, &length) == UTF8_CHARACTER;
    if (whole) {
        json_string_of(out, piece, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        json_print(out, "%s%d", i ? "," : "[", (unsigned char)piece[i]);
    json_put(out, "]");
}

/* Written by hand: as a tree, a token would take hundreds of bytes. */
static void answer_tokens(struct http_exchange *x, const struct tokenizer *t, const int32_t *ids, size_t n, bool pieces)
{
    struct json_text out = {0};
    json_put(&out, "{\"tokens\":[");
    for (size_t i = 0; i < n; i++) {
        json_print(&out, pieces ? "%s{\"id\":%d,\"piece\":" : "%s%d", i ? "," : "", ids[i]);
        if (pieces) {
            put_piece(&out, t, ids[i]);
            json_put(&out, "}");
        }
    }
    json_put(&out, "]}");
    if (out.failed)
        api_refuse(x, 500, NULL, NULL, "the server has no memory for the tokens");
    else
        http_answer(x, 200, "application/json", out.at, out.n, NULL, 0);
    json_text_free(&out);
}

void tokenize_work(struct api *api, struct http_exchange *x, const json_t *root)
{
    const struct tokenizer *t = api->house.tokenizer;
    const json_t *content = json_object_get(root, "content");
    bool add_special = false, parse_special = true, with_pieces = false;
    struct refusal r;
    int32_t *ids;
    size_t n;
    if (!field_flag(root, "add_special", &add_special, &r) || !field_flag(root, "parse_special", &parse_special, &r) ||
        !field_flag(root, "with_pieces", &with_pieces, &r)) {
        send_refusal(x, &r);
        return;
    }
    if (!json_is_string(content)) {
        api_refuse(x, 400, "invalid_type", "content", "'content': expected a string");
        return;
    }
    if (json_string_length(content) > MOST_TEXT) {
        api_refuse(x, 413, "invalid_value", "content", "'content': expected a text of at most %d bytes, found %zu",
                   MOST_TEXT, json_string_length(content));
        return;
    }
    if (tokenizer_encode(t, json_string_value(content), json_string_length(content), add_special, parse_special, &ids,
                         &n)) {
        api_refuse(x, 500, NULL, NULL, "the server has no memory for the tokens");
        return;
    }
    answer_tokens(x, t, ids, n, with_pieces);
    free(ids);
}

/* The text of tokens, which are checked; what is no UTF-8 in it is U+FFFD. False: no memory. */
static bool text_of(const struct tokenizer *t, const json_t *tokens, struct json_text *out)
{
    struct json_text bytes = {0};
    size_t i;
    json_t *id;
    json_array_foreach(tokens, i, id) {
        char piece[PIECE_MOST];
        const size_t n = tokenizer_piece(t, (int32_t)json_number_value(id), true, piece, sizeof piece);
        json_raw(&bytes, piece, n <= sizeof piece ? n : 0);
    }
    json_put(out, "{\"content\":");
    json_string_of(out, bytes.at, bytes.n);
    json_put(out, "}");
    const bool failed = bytes.failed || out->failed;
    json_text_free(&bytes);
    return !failed;
}

void detokenize_work(struct api *api, struct http_exchange *x, const json_t *root)
{
    const struct tokenizer *t = api->house.tokenizer;
    const json_t *tokens = json_object_get(root, "tokens");
    struct json_text out = {0};
    size_t i, n_text = 0;
    json_t *id;
    if (!json_is_array(tokens)) {
        api_refuse(x, 400, "invalid_type", "tokens", "'tokens': expected an array of tokens");
        return;
    }
    json_array_foreach(tokens, i, id) {
        int64_t token;
        if (!field_whole(id, &token) || token < 0 || token >= tokenizer_n_vocab(t)) {
            api_refuse(x, 400, "invalid_value", "tokens", "tokens[%zu]: expected a token from 0 to %d", i,
                       tokenizer_n_vocab(t) - 1);
            return;
        }
        if ((n_text += tokenizer_piece(t, (int32_t)token, true, NULL, 0)) > MOST_TEXT_BACK) {
            api_refuse(x, 413, "invalid_value", "tokens", "'tokens': expected those of a text of at most %d bytes",
                       MOST_TEXT_BACK);
            return;
        }
    }
    if (text_of(t, tokens, &out))
        http_answer(x, 200, "application/json", out.at, out.n, NULL, 0);
    else
        api_refuse(x, 500, NULL, NULL, "the server has no memory for the text");
    json_text_free(&out);
}
