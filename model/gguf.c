/* Opening, mapping and closing GGUF files, one or split; the tensor index; the hash. */
#include "model/gguf_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/log.h"

static status no_memory(const char *path)
{
    log_error("%s: no memory to open it", path);
    return ST_NOMEM;
}

static status map_file(struct gguf_part *p)
{
    status s = ST_IO;
    /* O_NONBLOCK: opening a named pipe must not wait for a writer. */
    int fd = open(p->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        log_error("%s: cannot open: %s", p->path, strerror(errno));
        return ST_IO;
    }
    struct stat st;
    if (fstat(fd, &st) != 0) {
        log_error("%s: cannot stat: %s", p->path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        log_error("%s: expected a regular file, found %s", p->path, S_ISDIR(st.st_mode) ? "a directory" : "a device");
        goto out;
    }
    if (st.st_size == 0) {
        log_error("%s: magic at byte 0: expected GGUF or PWRI, found an empty file", p->path);
        s = ST_FORMAT;
        goto out;
    }
    void *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED) {
        log_error("%s: cannot map %" PRId64 " bytes: %s", p->path, (int64_t)st.st_size, strerror(errno));
        goto out;
    }
    p->bytes = bytes;
    p->size = (uint64_t)st.st_size;
    p->mapped = true;
    p->identity = gguf_identity_of(&st);
    s = ST_OK;
out:
    close(fd);
    return s;
}

/* Appends an empty part named by the first n bytes of `path` and `suffix`. */
static status add_part(struct gguf *g, const char *path, size_t n, const char *suffix)
{
    struct gguf_part *grown = realloc(g->parts, ((size_t)g->n_parts + 1) * sizeof *grown);
    if (!grown)
        return no_memory(path);
    g->parts = grown;
    struct gguf_part *p = &grown[g->n_parts];
    *p = (struct gguf_part){0};
    size_t suffix_size = strlen(suffix) + 1;
    p->path = malloc(n + suffix_size);
    if (!p->path)
        return no_memory(path);
    memcpy(p->path, path, n);
    memcpy(p->path + n, suffix, suffix_size);
    g->n_parts++;
    return ST_OK;
}

static int compare_tensors(const void *a, const void *b)
{
    return strcmp((*(struct gguf_tensor *const *)a)->name, (*(struct gguf_tensor *const *)b)->name);
}

static status index_tensors(struct gguf *g)
{
    if (g->n_tensors == 0)
        return ST_OK;
    g->sorted = malloc((size_t)g->n_tensors * sizeof *g->sorted);
    if (!g->sorted)
        return no_memory(gguf_path(g));
    for (int i = 0; i < g->n_tensors; i++)
        g->sorted[i] = &g->tensors[i];
    qsort(g->sorted, (size_t)g->n_tensors, sizeof *g->sorted, compare_tensors);
    for (int i = 1; i < g->n_tensors; i++)
        if (!strcmp(g->sorted[i - 1]->name, g->sorted[i]->name)) {
            const struct gguf_tensor *t = g->sorted[i];
            char name[64];
            gguf_printable(t->name, strlen(t->name), name, sizeof name);
            log_error("%s: tensor table: expected one tensor %s, found two", g->parts[t->part].path, name);
            return ST_FORMAT;
        }
    return ST_OK;
}

/* An integer key of part p that must lie in [min, max]; *out keeps its value when the key is absent. */
static status split_key(const struct gguf_part *p, const char *name, uint64_t min, uint64_t max, uint64_t *out)
{
    const struct gguf_key *k = gguf_part_key(p, name);
    uint64_t v = 0;
    if (!k)
        return ST_OK;
    if (!gguf_key_u64(k, &v)) {
        log_error("%s: key %s at byte %" PRIu64 ": expected an integer, not negative, found another value (%s)",
                  p->path, name, (uint64_t)(k->at - p->bytes), gguf_type_name(k->type));
        return ST_FORMAT;
    }
    if (v < min || v > max) {
        log_error("%s: key %s at byte %" PRIu64 ": expected %" PRIu64 " to %" PRIu64 ", found %" PRIu64, p->path, name,
                  (uint64_t)(k->at - p->bytes), min, max, v);
        return ST_FORMAT;
    }
    *out = v;
    return ST_OK;
}

/* Parts 2 to `count` beside the first one, "PREFIX-00001-of-0000N.gguf". */
static status open_other_parts(struct gguf *g, int count)
{
    char suffix[48];
    snprintf(suffix, sizeof suffix, "-00001-of-%05d.gguf", count);
    size_t length = strlen(gguf_path(g)), tail = strlen(suffix);
    if (length < tail || strcmp(gguf_path(g) + length - tail, suffix)) {
        log_error("%s: file name: expected it to end in %s, as the first of %d parts", gguf_path(g), suffix, count);
        return ST_FORMAT;
    }
    for (int i = 1; i < count; i++) {
        snprintf(suffix, sizeof suffix, "-%05d-of-%05d.gguf", i + 1, count);
        status s = add_part(g, gguf_path(g), length - tail, suffix);
        if (s == ST_OK)
            s = map_file(&g->parts[i]);
        if (s == ST_OK)
            s = gguf_parse_part(g, i);
        uint64_t number = UINT64_MAX, of = (uint64_t)count;
        if (s == ST_OK)
            s = split_key(&g->parts[i], "split.no", (uint64_t)i, (uint64_t)i, &number);
        if (s == ST_OK)
            s = split_key(&g->parts[i], "split.count", of, of, &of);
        if (s != ST_OK)
            return s;
        if (number != (uint64_t)i || g->parts[i].powerinfer != g->parts[0].powerinfer) {
            log_error("%s: expected part %d of %d of a split model, found %s", g->parts[i].path, i + 1, count,
                      number != (uint64_t)i ? "no key split.no" : "another magic than the first part's");
            return ST_FORMAT;
        }
    }
    return ST_OK;
}

/* What is left once part 0 is in memory. `single`: there is no file system to find further parts in. */
static status finish(struct gguf *g, bool single)
{
    status s = gguf_parse_part(g, 0);
    uint64_t count = 1, number = 0;
    if (s == ST_OK)
        s = split_key(&g->parts[0], "split.count", 0, GGUF_MAX_PARTS, &count);
    if (s == ST_OK)
        s = split_key(&g->parts[0], "split.no", 0, count ? count - 1 : 0, &number);
    if (s != ST_OK)
        return s;
    if (number != 0 || (single && count > 1)) {
        log_error("%s: expected the first part of a split model%s, found part %" PRIu64 " of %" PRIu64, gguf_path(g),
                  single ? " of one part" : "", number + 1, count);
        return ST_FORMAT;
    }
    if (count > 1 && (s = open_other_parts(g, (int)count)) != ST_OK)
        return s;
    uint64_t tensors = (uint64_t)g->n_tensors;
    if ((s = split_key(&g->parts[0], "split.tensors.count", tensors, tensors, &tensors)) != ST_OK)
        return s;
    return index_tensors(g);
}

status gguf_open_checked(const char *path, status (*check)(const uint8_t *bytes, size_t n, const char *where),
                         struct gguf **out)
{
    struct gguf *g = calloc(1, sizeof *g);
    if (!g)
        return no_memory(path);
    status s = add_part(g, path, strlen(path), "");
    if (s == ST_OK)
        s = map_file(&g->parts[0]);
    if (s == ST_OK && check)
        s = check(g->parts[0].bytes, g->parts[0].size, path);
    if (s == ST_OK)
        s = finish(g, check != NULL);
    if (s != ST_OK) {
        gguf_close(g);
        return s;
    }
    *out = g;
    return ST_OK;
}

status gguf_open(const char *path, struct gguf **out) { return gguf_open_checked(path, NULL, out); }

status gguf_open_bytes(const uint8_t *bytes, size_t n, const char *where, struct gguf **out)
{
    struct gguf *g = calloc(1, sizeof *g);
    if (!g)
        return no_memory(where);
    status s = add_part(g, where, strlen(where), "");
    if (s == ST_OK) {
        g->parts[0].bytes = n ? bytes : (const uint8_t *)"";
        g->parts[0].size = n;
        s = finish(g, true);
    }
    if (s != ST_OK) {
        gguf_close(g);
        return s;
    }
    *out = g;
    return ST_OK;
}

static void free_part(struct gguf_part *p)
{
    for (uint64_t i = 0; i < p->n_keys; i++) {
        free(p->keys[i].name);
        free(p->keys[i].strings);
    }
    free(p->keys);
    free(p->sorted);
    free(p->path);
    if (p->mapped)
        munmap((void *)p->bytes, p->size);
}

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    for (int i = 0; i < g->n_tensors; i++)
        free((char *)g->tensors[i].name);
    for (int i = 0; i < g->n_parts; i++)
        free_part(&g->parts[i]);
    free(g->tensors);
    free(g->sorted);
    free(g->parts);
    free(g);
}

const char *gguf_path(const struct gguf *g) { return g->parts[0].path; }
bool gguf_is_powerinfer(const struct gguf *g) { return g->parts[0].powerinfer; }
int gguf_n_tensors(const struct gguf *g) { return g->n_tensors; }

const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, int i)
{
    return i >= 0 && i < g->n_tensors ? &g->tensors[i] : NULL;
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name)
{
    int low = 0, high = g->n_tensors;
    while (low < high) {
        int middle = low + (high - low) / 2;
        int order = strcmp(name, g->sorted[middle]->name);
        if (order == 0)
            return g->sorted[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

uint64_t gguf_file_bytes(const struct gguf *g)
{
    uint64_t sum = 0;
    for (int i = 0; i < g->n_parts; i++)
        sum += g->parts[i].size;
    return sum;
}

void gguf_release_pages(const struct gguf *g, const uint8_t *data, uint64_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)data;
    for (int i = 0; i < g->n_parts; i++) {
        const struct gguf_part *p = &g->parts[i];
        uintptr_t base = (uintptr_t)p->bytes;
        /* Bytes that are not ours to map (gguf_open_bytes) would be lost: only pages of a file can be read again. */
        if (!p->mapped || at < base || at - base > p->size || bytes > p->size - (at - base))
            continue;
        uintptr_t begin = (at + page - 1) / page * page, end = (at + bytes) / page * page;
        if (begin < end)
            madvise((void *)begin, end - begin, MADV_DONTNEED);
    }
}

uint64_t gguf_hash(const struct gguf *g)
{
    enum { SAMPLES = 64, SAMPLE_BYTES = 4096 };
    uint64_t hash = 0, total = 0;
    for (int i = 0; i < g->n_parts; i++) {
        const struct gguf_part *p = &g->parts[i];
        hash = XXH3_64bits_withSeed(&p->size, sizeof p->size, hash);
        hash = XXH3_64bits_withSeed(p->bytes, p->data_at, hash);
        total += p->size - p->data_at;
    }
    /* The samples lie evenly over the data of all parts laid end to end; one that crosses a part's end is cut there. */
    uint64_t span = total > SAMPLE_BYTES ? total - SAMPLE_BYTES : 0;
    for (int i = 0; i < SAMPLES; i++) {
        uint64_t at = span / (SAMPLES - 1) * (uint64_t)i + span % (SAMPLES - 1) * (uint64_t)i / (SAMPLES - 1);
        for (int j = 0; j < g->n_parts; j++) {
            const struct gguf_part *p = &g->parts[j];
            uint64_t data_bytes = p->size - p->data_at;
            if (at < data_bytes) {
                uint64_t n = data_bytes - at < SAMPLE_BYTES ? data_bytes - at : SAMPLE_BYTES;
                hash = XXH3_64bits_withSeed(p->bytes + p->data_at + at, n, hash);
                break;
            }
            at -= data_bytes;
        }
    }
    return hash ? hash : 1;
}
