/* JSON that is written by appending: an answer's chunks, of which there is one a token, are not made as trees. Once
 * memory is out, all further calls do nothing and `failed` stays; so only that is looked at, at the end. One thread. */
#ifndef HEARTH_SERVE_JSON_TEXT_H
#define HEARTH_SERVE_JSON_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_text {
    char *at; /* [n, of cap], not NUL-terminated; malloc'ed: json_text_free. All 0: empty */
    size_t n, cap;
    bool failed;
};

/* Bytes as they are. */
void json_raw(struct json_text *t, const char *bytes, size_t n);
void json_put(struct json_text *t, const char *text);
void json_print(struct json_text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A string with its quotes; what is no UTF-8 becomes U+FFFD. */
void json_string_of(struct json_text *t, const char *bytes, size_t n);
/* The inside of a string: so one may be written in parts, each of whole characters. */
void json_inside(struct json_text *t, const char *bytes, size_t n);
/* A number with so many digits behind the point; what is no number, or infinite, is null. */
void json_number(struct json_text *t, double value, int digits);
/* Empty, and as if nothing had failed; the memory stays. */
void json_text_clear(struct json_text *t);
void json_text_free(struct json_text *t);

#endif
