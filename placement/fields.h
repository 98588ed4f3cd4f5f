/* Checked access to the fields of a JSON text, with error lines that say where: "my.json: layers[3].stage is 7, ...".
 * Private to placement/. */
#ifndef HEARTH_PLACEMENT_FIELDS_H
#define HEARTH_PLACEMENT_FIELDS_H

#include <jansson.h>
#include <stdint.h>
#include "base/status.h"
#include "placement/plan.h"

enum { PLAN_VERSION = 2, PROBE_VERSION = 1 }; /* of the formats */

/* Where in the text a value is: "layers[3].". */
struct place {
    const char *where; /* the text's name */
    char prefix[64];
};

/* Logs one line about the text, whose parts may hold anything: control characters become '?'. Returns ST_FORMAT. */
__attribute__((format(printf, 2, 3))) status field_refuse(const char *where, const char *format, ...);

/* "an array"; "missing" of NULL. */
const char *field_type_name(const json_t *v);

/* ST_FORMAT unless `v` is an integer in [low, high]. `name`: what it is called after the prefix. */
status field_check_int(const struct place *at, const char *name, const json_t *v, int64_t low, int64_t high,
                       int64_t *out);
status field_get_int(const struct place *at, const json_t *object, const char *key, int64_t low, int64_t high,
                     int64_t *out);
/* The same for a field that may be left out: *out stays as it is. */
status field_get_optional_int(const struct place *at, const json_t *object, const char *key, int64_t low, int64_t high,
                              int64_t *out);

/* The same for a finite number in (0, high]. */
status field_check_positive(const struct place *at, const char *name, const json_t *v, double high, double *out);
status field_get_positive(const struct place *at, const json_t *object, const char *key, double high, double *out);

/* ST_FORMAT unless the field is a string that fits: of 1 to n - 1 bytes, none of them special. A text may have
 * spaces. */
status field_get_name(const struct place *at, const json_t *object, const char *key, char *out, size_t n);
status field_get_text(const struct place *at, const json_t *object, const char *key, char *out, size_t n);

/* ST_FORMAT unless the field is the name of a device as plans have it: "cpu", "cpu:1", "cuda:0". */
status field_get_device(const struct place *at, const json_t *object, char out[PLAN_DEVICE_BYTES]);

/* ST_FORMAT if the object has a key that is not among the known ones, NULL-terminated. */
status field_check_keys(const struct place *at, json_t *object, const char *const *keys);

/* Reads `text` as JSON, which a byte order mark may precede; *root is the caller's. `what` is what it should be: "the
 * plan". ST_FORMAT, ST_NOMEM. */
status field_parse(const char *text, size_t n, const char *where, const char *what, json_t **root);

/* A whole file, at most `most` bytes; pipes work. ST_IO, ST_FORMAT if it is longer, ST_NOMEM, all logged. */
status field_load(const char *path, const char *what, size_t most, char **text, size_t *n);

#endif
