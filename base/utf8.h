/* Characters in UTF-8 as they come in bytes. Thread-safe; a cleaner belongs to one thread. */
#ifndef HEARTH_BASE_UTF8_H
#define HEARTH_BASE_UTF8_H

#include <stddef.h>

/* How many of the first n bytes to write now: all but an unfinished character at the end. */
size_t utf8_whole(const char *bytes, size_t n);

/* Bytes of the character that the n bytes begin with; 0 if they begin with none. */
size_t utf8_character(const char *bytes, size_t n);

enum utf8_kind {
    UTF8_CHARACTER, /* one that Unicode allows: not too long, no surrogate */
    UTF8_CUT,       /* the beginning of one */
    UTF8_BROKEN
};

/* What n bytes (1 or more) begin with, and how many of them that is. Of what is broken these are the bytes for which
 * Unicode has one U+FFFD. */
enum utf8_kind utf8_next(const char *bytes, size_t n, size_t *length);

/* Makes UTF-8 of any bytes, however they are cut: characters whole, one U+FFFD for what is broken. Zero begins one. */
struct utf8_cleaner {
    char held[4];
    size_t n_held;
};

/* Bytes that utf8_clean writes at most. */
#define UTF8_CLEAN_MAX(n) (3 * (n) + 9)
/* Takes n bytes; out [UTF8_CLEAN_MAX(n)] gets the characters that are whole by now. Returns their bytes. */
size_t utf8_clean(struct utf8_cleaner *c, const char *bytes, size_t n, char *out);
/* Nothing comes any more: a character that is not whole is U+FFFD in out [3], else nothing. */
size_t utf8_clean_end(struct utf8_cleaner *c, char *out);

#endif
