/* Keys that clients show. */
#ifndef HEARTH_SERVE_HTTP_KEYS_H
#define HEARTH_SERVE_HTTP_KEYS_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

enum { HTTP_KEY_BYTES = 256 };

struct http_keys {
    uint32_t n;
    char at[][HTTP_KEY_BYTES]; /* [n], filled up with zeros, of which the last byte is always one */
};

/* A key for each line, without blanks around it; empty lines and those that begin with '#' are none. To be freed.
 * ST_USAGE: a key is longer than 255 bytes; ST_NOMEM; both logged. */
status http_keys_read(const char *lines, struct http_keys **out);
/* How many keys that would be. */
size_t http_keys_count(const char *lines);
/* The number of the key that was shown, from 0, or -1. Takes the same time whatever was shown. */
int64_t http_keys_find(const struct http_keys *k, const char *shown);

#endif
