#include "serve/echo.h"

#include <stdlib.h>
#include <string.h>

enum { TOKEN_BYTES = 1024 };

static uint64_t characters(const char *text, size_t n)
{
    uint64_t some = 0;
    for (size_t i = 0; i < n; i++)
        some += ((unsigned char)text[i] & 0xC0) != 0x80;
    return some;
}

uint64_t echo_characters(const struct tokenizer *t, int32_t token, bool special)
{
    char bytes[TOKEN_BYTES];
    const size_t n = tokenizer_piece(t, token, special, bytes, sizeof bytes);
    return n <= sizeof bytes ? characters(bytes, n) : 0;
}

/* Prompt i as it was sent: a text, or what its tokens print. Appended. */
static void put_prompt(struct json_text *out, const struct api *api, const json_t *root, const struct prompt *p,
                       size_t i)
{
    const json_t *v = json_object_get(root, "prompt");
    char bytes[TOKEN_BYTES];
    if (json_is_array(v) && json_is_string(json_array_get(v, i)))
        v = json_array_get(v, i);
    if (json_is_string(v)) {
        json_raw(out, json_string_value(v), json_string_length(v));
        return;
    }
    for (uint32_t k = 0; k < p->n; k++) {
        const size_t n = tokenizer_piece(api->house.tokenizer, p->ids[k], true, bytes, sizeof bytes);
        json_raw(out, bytes, n <= sizeof bytes ? n : 0);
    }
}

/* How many characters more the tokens print than the text has. */
static uint64_t unsaid_of(const struct api *api, const struct prompt *p, const char *text, size_t n)
{
    const uint64_t said = characters(text, n);
    uint64_t printed = 0;
    for (uint32_t k = 0; k < p->n; k++)
        printed += echo_characters(api->house.tokenizer, p->ids[k], true);
    return printed > said ? printed - said : 0;
}

struct echo *echo_create(const struct api *api, const json_t *root, const struct prompt *prompts, uint32_t n)
{
    struct json_text all = {0};
    struct echo *e = calloc(1, sizeof *e);
    for (uint32_t i = 0; e && i < n; i++) {
        const size_t from = all.n;
        put_prompt(&all, api, root, &prompts[i], i);
        e->end[i] = all.n;
        e->unsaid[i] = all.failed ? 0 : unsaid_of(api, &prompts[i], all.at + from, all.n - from);
    }
    struct echo *whole = e && !all.failed ? realloc(e, sizeof *e + all.n) : NULL;
    if (whole && all.n)
        memcpy(whole->bytes, all.at, all.n);
    else if (!whole)
        free(e);
    json_text_free(&all);
    return whole;
}

void echo_put(const struct echo *e, uint32_t prompt, struct json_text *t)
{
    const size_t from = prompt ? e->end[prompt - 1] : 0;
    json_inside(t, e->bytes + from, e->end[prompt] - from);
}
