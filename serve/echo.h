/* Prompts as their askers get them back, in front of the answers. */
#ifndef HEARTH_SERVE_ECHO_H
#define HEARTH_SERVE_ECHO_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include "serve/ask.h"
#include "serve/json_text.h"

struct echo {
    uint64_t unsaid[ASK_TEXTS]; /* characters that a prompt's tokens print before its text: <s>, or a space */
    size_t end[ASK_TEXTS];      /* of each prompt in `bytes` */
    char bytes[];
};

/* Of prompts [n], ASK_TEXTS at most, the "prompt" of a request. malloc'ed: free() is all. NULL: no memory.
 * Thread-safe. */
struct echo *echo_create(const struct api *api, const json_t *root, const struct prompt *prompts, uint32_t n);
/* The text of a prompt, as the inside of a JSON string. */
void echo_put(const struct echo *e, uint32_t prompt, struct json_text *t);
/* Characters that a token prints. `special`: of a control token, its name; else nothing. */
uint64_t echo_characters(const struct tokenizer *t, int32_t token, bool special);

#endif
