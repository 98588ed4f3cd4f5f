/* What the helper answers (helper.py): bytes from outside, for a template may have taken it over. */
#ifndef HEARTH_MODEL_JINJA_ANSWER_H
#define HEARTH_MODEL_JINJA_ANSWER_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "model/chat.h"

/* Decodes an answer [n bytes]: a conversation as text, whose contents are what the template did not write itself. Each
 * line begins with `where`. ST_USAGE: the template refuses the conversation (it or Jinja says why, in ASCII);
 * ST_UNSUPPORTED: the helper cannot work; ST_FORMAT: no answer at all; ST_NOMEM. Stateless and thread-safe. */
status jinja_answer_decode(const uint8_t *bytes, size_t n, const char *where, struct chat_text *out);

#endif
