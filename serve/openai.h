/* What OpenAI's ways of writing have alike, chats and texts. All append to r->out, but for what says otherwise. */
#ifndef HEARTH_SERVE_OPENAI_H
#define HEARTH_SERVE_OPENAI_H

#include "serve/reply.h"

/* `"id":...,"object":...,"created":...,"model":...,"system_fingerprint":...,` of every chunk and body. */
void openai_names(struct json_text *t, const struct reply *r, const char *object);
/* r->head: what every chunk of a stream begins with, up to the number of its choice. */
void openai_head(struct reply *r, const char *object);
/* What a chunk of choice c begins with: the head, and "index". */
void openai_chunk(struct reply *r, const struct choice *c);
/* Its end: `finish` may be NULL. With a closing chunk come the choice's timings. */
void openai_chunk_end(struct reply *r, const struct choice *c, const char *finish);
/* The whole body's end: usage, and how fast the first choice was. */
void openai_whole_end(struct reply *r);
/* For struct reply_form. */
void openai_done(struct reply *r);
void openai_fail(struct reply *r, const char *message);
extern const char openai_keep_alive[];

/* The text of a token as a string; *bytes [cap] has them, and their number is returned. */
size_t openai_token(struct json_text *t, const struct tokenizer *of, int32_t token, char *bytes, size_t cap);

#endif
