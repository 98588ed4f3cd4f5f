/* The insides of the GGUF reader; nobody outside model/ includes this. */
#ifndef HEARTH_MODEL_GGUF_PARTS_H
#define HEARTH_MODEL_GGUF_PARTS_H

#include "model/gguf.h"

enum {
    GGUF_MAX_KEYS = 1 << 16,    /* of one part; real files have some dozens */
    GGUF_MAX_TENSORS = 1 << 20, /* of all parts; real files have some thousands */
    GGUF_MAX_PARTS = 9999,
    GGUF_MAX_NAME = 1 << 16,    /* bytes of a key or tensor name */
};

/* A key of the metadata. Its value is checked to lie within the mapping, so that the getters need no bounds. */
struct gguf_key {
    char *name;               /* NUL-terminated, owned */
    enum gguf_type type;
    enum gguf_type item_type; /* of an array its elements' type, else `type` */
    uint64_t n;               /* elements of an array, else 1 */
    const uint8_t *at;        /* the first element, into the mapping */
    const uint8_t **strings;  /* [n] the elements' length prefixes, of an array of strings; owned, else NULL */
};

/* By what a file on disk is known again: as long as all of it is the same, so are its bytes. */
struct gguf_identity {
    uint64_t device, inode, size, modified_ns, changed_ns;
};

struct stat;
struct gguf_identity gguf_identity_of(const struct stat *st);

/* One file. */
struct gguf_part {
    char *path; /* owned; for messages */
    const uint8_t *bytes;
    uint64_t size;
    bool mapped, detached;
    struct gguf_identity identity; /* when it was opened, if mapped */
    bool powerinfer;
    uint64_t data_at;         /* where tensor data begins, at most `size` */
    struct gguf_key *keys;    /* [n_keys] in file order, owned */
    uint64_t n_keys;
    struct gguf_key **sorted; /* [n_keys] by name, owned */
};

struct gguf {
    struct gguf_part *parts; /* [n_parts], owned */
    int n_parts;
    struct gguf_tensor *tensors; /* [n_tensors] in file order, part after part; owned, their names too */
    int n_tensors;
    struct gguf_tensor **sorted; /* [n_tensors] by name, owned */
};

/* Parses part `i`, whose path, bytes and size are set: fills in the rest of it and appends its tensors to g. Whatever
 * it allocated hangs on g, also on failure. Errors as gguf_open. */
status gguf_parse_part(struct gguf *g, int i);

/* NULL if there is none of this name. */
const struct gguf_key *gguf_part_key(const struct gguf_part *p, const char *name);
/* An integer of any width that fits; false otherwise. */
bool gguf_key_u64(const struct gguf_key *k, uint64_t *out);
/* Bytes of a value of a fixed-size type, 0 for strings, arrays and unknown types. */
unsigned gguf_type_bytes(uint32_t type);
/* "u32"; "?" if unknown. */
const char *gguf_type_name(uint32_t type);

/* Copies bytes from outside for printing: control characters become '?', and what does not fit `size` (with the NUL)
 * is cut at a character's boundary and ends in "...". */
void gguf_printable(const char *at, size_t n, char *out, size_t size);

#endif
