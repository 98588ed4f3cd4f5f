/* A reply's way to its client: what its form has written, the signs of life between, how it ends. Of serve/reply*.c
 * alone. r->lock is held wherever nothing else is said, for the watch writes too. */
#ifndef HEARTH_SERVE_REPLY_WRITE_H
#define HEARTH_SERVE_REPLY_WRITE_H

#include "serve/reply.h"

/* It will end with this in place of an answer; NULL: the model stopped. The first reason counts. Its jobs are
 * cancelled. */
void reply_fail(struct reply *r, const char *why);
void reply_fail_memory(struct reply *r);
/* Of a stream: the form has written its beginning, afterwards. */
void reply_open(struct reply *r);
/* Sends what is in r->out, if anything is. Where memory was short there, a part of it would be none: the reply
 * fails. */
void reply_flush(struct reply *r);
/* Ends the exchange, once: the client gets what there is, or why there is nothing. */
void reply_end(struct reply *r);
/* The watch's look (serve/watch.h), which takes the lock itself: cancels the jobs of a client that has left, ends what
 * a stopping server has abandoned, keeps a quiet stream alive. */
void reply_look(struct watched *w, double now_s);

#endif
