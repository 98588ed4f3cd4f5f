/* A conversation in a file: a JSON array of messages, or an object of "messages" and "tools". */
#ifndef HEARTH_CLI_CHAT_FILE_H
#define HEARTH_CLI_CHAT_FILE_H

#include <jansson.h>
#include <stdbool.h>
#include "base/status.h"

struct chat_file {
    json_t *messages, *tools; /* arrays; tools NULL: none */
    bool reply;               /* somebody but the assistant spoke last */
};

/* Reads `path`, "-" for standard input. ST_IO, ST_USAGE (what is no such JSON; the line says where), ST_NOMEM. */
status chat_file_read(const char *path, struct chat_file *out);
void chat_file_free(struct chat_file *c);

#endif
