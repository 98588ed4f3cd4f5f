/* The fields of a request, checked as they are read. The first that is wrong becomes a refusal, which says to the
 * client what was expected where; nothing is logged, for it is no error of the server's. A field that is missing, or
 * null, leaves its output as it was. All return false after a refusal. Stateless and thread-safe. */
#ifndef HEARTH_SERVE_FIELDS_H
#define HEARTH_SERVE_FIELDS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/log.h"
#include "base/status.h"

/* What api_refuse is called with. */
struct refusal {
    int status;
    const char *code;  /* a constant; NULL: none */
    char param[64];    /* the field; "": none */
    char message[LOG_LINE_MAX];
};

/* 400. `param` may be NULL. Returns false. */
bool refuse(struct refusal *r, const char *code, const char *param, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* For a function that logged a line: what a client sent is at fault where the status says so (ST_USAGE, ST_FULL,
 * ST_FORMAT, ST_UNSUPPORTED, ST_BUDGET: 400), else the server is (500). Returns false. */
bool refuse_status(struct refusal *r, status st, const char *param, const char *line);

/* Whether a value is an integer; 5.0 is 5, as some clients write all numbers so. */
bool field_whole(const json_t *v, int64_t *out);

/* Ranges have both ends. */
bool field_number(const json_t *root, const char *name, double least, double most, float *out, struct refusal *r);
bool field_integer(const json_t *root, const char *name, int64_t least, int64_t most, int64_t *out, struct refusal *r);
bool field_flag(const json_t *root, const char *name, bool *out, struct refusal *r);
bool field_string(const json_t *root, const char *name, const char **out, struct refusal *r); /* in root */
/* Is an object, or an array, if it is there. */
bool field_object(const json_t *root, const char *name, const json_t **out, struct refusal *r);
bool field_array(const json_t *root, const char *name, const json_t **out, struct refusal *r);

#endif
