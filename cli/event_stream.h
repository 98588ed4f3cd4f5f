/* Server-sent events as they come over the network: lines "data: ...", an empty one behind each event. */
#ifndef HEARTH_CLI_EVENT_STREAM_H
#define HEARTH_CLI_EVENT_STREAM_H

#include <stdbool.h>
#include "cli/text.h"

/* What an event says, NUL-terminated. False ends the reading. */
typedef bool event_fn(void *arg, const char *data);

struct event_stream {
    event_fn *tell;
    void *arg;
    struct text line; /* so far; at most EVENT_MOST bytes. Caller frees line.at */
};

enum { EVENT_MOST = 16 << 20 };

/* Takes the next n bytes. ST_CANCELLED: `tell` wants no more; ST_FORMAT (logged): a line is too long; ST_NOMEM. */
status event_stream_take(struct event_stream *s, const char *bytes, size_t n);

#endif
