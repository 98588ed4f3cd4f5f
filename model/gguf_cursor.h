/* A place in a GGUF file that is being parsed: whatever is taken from there is first compared with what the file still
 * holds. For model/gguf_parse.c and gguf_tensors.c alone. */
#ifndef HEARTH_MODEL_GGUF_CURSOR_H
#define HEARTH_MODEL_GGUF_CURSOR_H

#include <stdint.h>

#include "base/bytes.h"
#include "model/gguf_parts.h"

struct cursor {
    struct reader r;
    const uint8_t *start;
    const char *path;
    char item[96]; /* " of key NAME" while inside one, for messages */
};

/* Logs "PATH: WHAT of key NAME at byte N: DETAIL" and returns `code`. */
__attribute__((format(printf, 5, 6))) status cursor_bad(const struct cursor *c, const uint8_t *at, status code,
                                                        const char *what, const char *format, ...);
/* Logs that there is none, and returns ST_NOMEM. */
status cursor_no_memory(const struct cursor *c, uint64_t bytes);
/* From here to cursor_leave messages say that they are of this key or tensor. */
void cursor_enter(struct cursor *c, const char *kind, const char *name);
void cursor_leave(struct cursor *c);

/* The file holds n more bytes. Like all that follow ST_FORMAT (logged) if not. */
status cursor_need(const struct cursor *c, uint64_t n, const char *what);
status cursor_u32(struct cursor *c, const char *what, uint32_t *out);
status cursor_u64(struct cursor *c, const char *what, uint64_t *out);
/* A count of things, max at most, that take at least `min_bytes` each. */
status cursor_count(struct cursor *c, const char *what, uint64_t min_bytes, uint64_t max, uint64_t *out);
status cursor_skip_string(struct cursor *c, const char *what);
/* The name of a key or tensor as a C string that the caller frees. */
status cursor_name(struct cursor *c, const char *what, char **out);

/* A part's table of n tensors, and where their data is; they are appended to g. gguf_tensors.c */
status gguf_parse_tensors(struct cursor *c, struct gguf *g, int part, uint64_t n, uint64_t alignment);

#endif
