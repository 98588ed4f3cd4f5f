/* The GGUF container (versions 2 and 3, little-endian, also split over -00001-of-0000N files, and PowerInfer's magic
 * "PWRI"): mapped read-only, every offset and length checked before it is used. A file is hostile.
 * Format: ggml/docs/gguf.md. Immutable after open (gguf_detach apart), so all readers are thread-safe. */
#ifndef HEARTH_MODEL_GGUF_H
#define HEARTH_MODEL_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/dtype.h"
#include "base/status.h"

enum { GGUF_MAX_DIMS = 4 };

struct gguf_tensor {
    const char *name;       /* NUL-terminated, owned by the gguf */
    uint32_t type;          /* enum dtype, checked to be known */
    int n_dims;
    int64_t dims[GGUF_MAX_DIMS]; /* fastest first, unused ones are 1; of a PWRI file's one-dimensional tensor may be
                                  * 0 */
    const uint8_t *data;    /* into the mapping, `bytes` readable */
    uint64_t bytes;
    int part;               /* which file of a split model, from 0 */
};

struct gguf_string {
    const char *at; /* not NUL-terminated */
    size_t n;
};

enum gguf_type {
    GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING, GGUF_ARRAY, GGUF_U64,
    GGUF_I64, GGUF_F64
};

struct gguf;

/* Opens and maps a model; `path` is the file or, of a split model, its first part. ST_IO (cannot open or map),
 * ST_FORMAT (malformed: the line says what, at which byte, expected and found), ST_UNSUPPORTED (version, tensor type),
 * ST_NOMEM. */
status gguf_open(const char *path, struct gguf **out);
/* The same for a file of one part that `check` accepts before a byte of it is parsed; what it returns else, having
 * logged it, is returned. */
status gguf_open_checked(const char *path, status (*check)(const uint8_t *bytes, size_t n, const char *where),
                         struct gguf **out);
/* The same over bytes in memory (not copied, must outlive the gguf; one part only). For tests and fuzzing. */
status gguf_open_bytes(const uint8_t *bytes, size_t n, const char *where, struct gguf **out);
void gguf_close(struct gguf *g); /* NULL is fine */

const char *gguf_path(const struct gguf *g);
bool gguf_is_powerinfer(const struct gguf *g); /* magic PWRI */
int gguf_n_tensors(const struct gguf *g);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, int i);
/* NULL if there is none of this name. */
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name);
uint64_t gguf_file_bytes(const struct gguf *g); /* all parts */

/* Lets the system drop the pages of [data, data + bytes) from this process; reading them again is still right. */
void gguf_release_pages(const struct gguf *g, const uint8_t *data, uint64_t bytes);

/* ST_IO (logged) if the file has been changed since it was opened, as its size or time says: what was read of it since
 * then is of no use. That another file has its name now does not matter. */
status gguf_unchanged(const struct gguf *g);
/* Gives the file back: the header is kept in memory of its own, the tensor data is gone. From here on no byte of the
 * file is read, so it may be replaced or cut; keys and names stay where they are, of a tensor's `data` only whether it
 * is NULL may be asked. ST_IO as gguf_unchanged; ST_NOMEM (logged). Not while another thread reads the gguf. */
status gguf_detach(struct gguf *g);

/* A 64-bit hash (xxh3) of the header of every part (all bytes before its tensor data), the file sizes, and 64 samples
 * of 4 KiB spread over the data: what ranks compare to know that they hold the same file. Never 0. */
uint64_t gguf_hash(const struct gguf *g);

/* Whether there is a key of this name, of any kind. */
bool gguf_has_key(const struct gguf *g, const char *key);
/* Metadata (of a split model: the first part's). Each returns false, leaving *out alone, when the key is absent or of
 * another kind (any integer type serves an integer getter if the value fits; F32 and F64 serve f64). */
bool gguf_get_u64(const struct gguf *g, const char *key, uint64_t *out);
bool gguf_get_i64(const struct gguf *g, const char *key, int64_t *out);
bool gguf_get_f64(const struct gguf *g, const char *key, double *out);
bool gguf_get_bool(const struct gguf *g, const char *key, bool *out);
bool gguf_get_string(const struct gguf *g, const char *key, struct gguf_string *out);
/* An array's element type and count. */
bool gguf_get_array(const struct gguf *g, const char *key, enum gguf_type *type, uint64_t *n);
/* Element i of an array; false if out of range or of another kind. Strings of an array are reached in O(1). */
bool gguf_array_string(const struct gguf *g, const char *key, uint64_t i, struct gguf_string *out);
bool gguf_array_i64(const struct gguf *g, const char *key, uint64_t i, int64_t *out);
bool gguf_array_bool(const struct gguf *g, const char *key, uint64_t i, bool *out);
bool gguf_array_f64(const struct gguf *g, const char *key, uint64_t i, double *out);

/* For inspect: key i in file order and a short printable form of its value (arrays as count and type); false past the
 * last. `value` gets at most n bytes with the NUL. */
bool gguf_key_at(const struct gguf *g, int i, const char **key, char *value, size_t n);

#endif
