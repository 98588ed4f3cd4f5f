/* Reading the keys of a GGUF that describe a model, with checks; for model/ alone. Each key is "ARCH.NAME"; names are
 * given without the ARCH. Errors are ST_FORMAT, or ST_UNSUPPORTED where a file may well say so; logged. */
#ifndef HEARTH_MODEL_KEYS_H
#define HEARTH_MODEL_KEYS_H

#include "model/gguf.h"

struct keys {
    const struct gguf *g;
    const char *arch;
};

bool has_key(const struct keys *k, const char *name);

/* Numbers within [min, max]. Absent keys leave *out as it is. An integer may be given once or once a layer, where all
 * are equal. */
status optional_int(const struct keys *k, const char *name, int64_t min, int64_t max, int64_t *out);
status required_int(const struct keys *k, const char *name, int64_t min, int64_t max, int64_t *out);
status optional_float(const struct keys *k, const char *name, double min, double max, double *out);
status optional_string(const struct keys *k, const char *name, struct gguf_string *out);

status optional_bool(const struct keys *k, const char *name, bool *out);
/* How long an array is, false: there is none; a truth of it, false: it is another value. */
bool array_length(const struct keys *k, const char *name, uint64_t *n);
bool array_truth(const struct keys *k, const char *name, uint64_t i, bool *out);

/* Logs "FILE: key ARCH.NAME: DETAIL" and returns `code`. */
__attribute__((format(printf, 4, 5))) status bad_key(const struct keys *k, status code, const char *name,
                                                     const char *format, ...);

#endif
