#include "prepare/part_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include "base/clock.h"
#include "base/log.h"

enum { PART_VERSION = 3 };
static const char magic[8] = "HEARTHPT";

struct part_header {
    char magic[8];
    uint64_t version;
    uint64_t worked; /* 1: a window was counted, which is worth keeping */
    struct part_shape shape;
};
_Static_assert(sizeof(struct part_header) <= PART_PAGE, "the states begin at a page");

/* Points the state's arrays into its bytes. */
static void point_arrays(struct part *p)
{
    const struct part_shape *s = &p->shape;
    uint8_t *at = p->bytes + sizeof(struct part_state);
    p->state.scores = (struct score *)at;
    at += s->n_windows * sizeof(struct score);
    p->state.fitted = (struct part_fitted *)at;
    at += part_layers(s) * sizeof(struct part_fitted);
    p->state.sum = (double *)at;
    at += part_layers(s) * (uint64_t)s->d_ff * sizeof(double);
    p->state.fired = (uint32_t *)at;
    at += part_layers(s) * (uint64_t)s->d_ff * sizeof(uint32_t);
    p->state.chosen = (uint32_t *)at;
    at += part_layers(s) * (uint64_t)s->n_experts * sizeof(uint32_t);
    p->state.level = (float *)at;
}

static uint64_t state_hash(const struct part *p, uint64_t generation)
{
    return XXH3_64bits_withSeed(p->bytes, part_state_bytes(&p->shape), generation);
}

/* Marks in the header, once, that there is work to lose. */
static status note_work(struct part *p)
{
    const uint64_t worked = p->state.windows > 0;
    if (p->worked || !worked)
        return ST_OK;
    p->worked = worked;
    return part_write_at(p, &worked, sizeof worked, offsetof(struct part_header, worked));
}

status part_save(struct part *p)
{
    uint64_t at = PART_PAGE + (p->generation + 1) % 2 * part_slot_bytes(&p->shape);
    memcpy(p->bytes, &p->state, sizeof p->state);
    struct state_header h = {.generation = p->generation + 1, .hash = state_hash(p, p->generation + 1)};
    double began_s = clock_s();
    /* What the state speaks of must be on the disk before it. */
    if (fdatasync(p->fd) != 0)
        return part_io_failed(p, "write");
    status st = note_work(p);
    if (!st)
        st = part_write_at(p, p->bytes, part_state_bytes(&p->shape), at + sizeof h);
    if (!st)
        st = part_write_at(p, &h, sizeof h, at);
    if (!st)
        p->generation++;
    p->saved_s = clock_s();
    p->saving_s = p->saved_s - began_s;
    return st;
}

bool part_due(const struct part *p) { return clock_s() - p->saved_s >= 50 * p->saving_s; }

/* Whether what a state says can be. */
static bool plausible(const struct part *p, uint64_t file_bytes)
{
    const struct part_state *s = &p->state;
    if (s->windows > p->shape.n_windows || s->activation < -1 || s->activation >= ACTIVATIONS)
        return false;
    for (uint64_t i = 0; i < part_layers(&p->shape); i++) {
        const struct part_fitted *f = &s->fitted[i];
        if (f->size && (f->offset < part_bytes(&p->shape) || f->offset > file_bytes ||
                        f->size > file_bytes - f->offset))
            return false;
    }
    for (int i = 0; i < PART_MEASURES; i++)
        if (s->measures[i].score.windows > p->shape.n_windows)
            return false;
    return true;
}

/* Reads one of the two states into the bytes. *generation 0: it is not whole. */
static status load_slot(struct part *p, uint64_t slot, uint64_t file_bytes, uint64_t *generation)
{
    uint64_t at = PART_PAGE + slot * part_slot_bytes(&p->shape);
    struct state_header h;
    bool whole;
    *generation = 0;
    status st = part_read_at(p, &h, sizeof h, at, &whole);
    if (!st && whole)
        st = part_read_at(p, p->bytes, part_state_bytes(&p->shape), at + sizeof h, &whole);
    if (st || !whole || h.hash != state_hash(p, h.generation))
        return st;
    memcpy(&p->state, p->bytes, sizeof p->state);
    point_arrays(p);
    if (plausible(p, file_bytes))
        *generation = h.generation;
    return ST_OK;
}

/* The newer of the two states that are whole. */
static status load_state(struct part *p, uint64_t file_bytes)
{
    uint64_t generation[2], again;
    status st = load_slot(p, 0, file_bytes, &generation[0]);
    if (!st)
        st = load_slot(p, 1, file_bytes, &generation[1]);
    if (st)
        return st;
    uint64_t newer = generation[1] > generation[0];
    p->generation = generation[newer];
    p->end = file_bytes > part_bytes(&p->shape) ? file_bytes : part_bytes(&p->shape);
    return newer ? ST_OK : load_slot(p, newer, file_bytes, &again);
}

/* Work that took hours is not thrown away because an option was forgotten. */
static status refuse_other(const struct part *p, const struct part_header *h)
{
    char difference[256];
    if (memcmp(h->magic, magic, sizeof magic) != 0)
        snprintf(difference, sizeof difference, "is no checkpoint of hearth prepare");
    else if (h->version != PART_VERSION)
        snprintf(difference, sizeof difference, "is a checkpoint of another hearth (version %llu, this one's are %d)",
                 (unsigned long long)h->version, PART_VERSION);
    else {
        const int n = snprintf(difference, sizeof difference,
                               "is the checkpoint of a prepare that was given otherwise: ");
        part_difference(&h->shape, &p->shape, difference + n, sizeof difference - (size_t)n);
    }
    log_error("%s %s; the same again goes on from it, --neurons FILE makes another neuron file beside it, and whoever "
              "wants to begin anew deletes it", p->path, difference);
    return ST_MISMATCH;
}

/* Whether the file was made but never became a checkpoint with work in it: a kill may come at any time. */
static bool never_worked(const struct part_header *h)
{
    static const struct part_header none;
    return memcmp(h, &none, sizeof none) == 0 ||
           (memcmp(h->magic, magic, sizeof magic) == 0 && h->version == PART_VERSION && !h->worked);
}

/* Looks for a state of this shape in the file. */
static status load(struct part *p, bool *found)
{
    struct part_header h;
    struct stat info;
    bool whole;
    if (fstat(p->fd, &info) != 0)
        return part_io_failed(p, "look at");
    memset(&h, 0, sizeof h);
    status st = part_read_at(p, &h, sizeof h, 0, &whole);
    if (st || info.st_size == 0)
        return st;
    if (!whole || memcmp(h.magic, magic, sizeof magic) != 0 || h.version != PART_VERSION ||
        memcmp(&h.shape, &p->shape, sizeof h.shape) != 0)
        return whole && never_worked(&h) ? ST_OK : refuse_other(p, &h);
    p->worked = h.worked;
    st = load_state(p, (uint64_t)info.st_size);
    *found = p->generation > 0;
    if (!st && !*found)
        log_warn("%s is damaged: starting anew", p->path);
    return st;
}

/* An empty file with room for all samples. */
static status create(struct part *p)
{
    struct part_header h = {.version = PART_VERSION, .shape = p->shape};
    uint64_t bytes = part_bytes(&p->shape);
    memcpy(h.magic, magic, sizeof magic);
    memset(p->bytes, 0, part_state_bytes(&p->shape));
    p->state = (struct part_state){.activation = -1};
    p->generation = p->worked = 0;
    p->end = bytes;
    point_arrays(p);
    if (ftruncate(p->fd, 0) != 0)
        return part_io_failed(p, "empty");
    int e = posix_fallocate(p->fd, 0, (off_t)bytes);
    if (e) {
        log_error("cannot reserve %.1f MB for %s: %s (--samples makes it smaller)", (double)bytes / 1e6, p->path,
                  strerror(e));
        return ST_IO;
    }
    status st = part_write_at(p, &h, sizeof h, 0);
    return st ? st : part_save(p);
}

status part_open(const char *path, const struct part_shape *shape, const struct kernels *kernels, bool *resumed,
                 struct part **out)
{
    bool found = false;
    struct part *p = calloc(1, sizeof *p);
    status st = ST_NOMEM;
    if (!p)
        goto no_memory;
    *p = (struct part){.shape = *shape, .kernels = kernels, .path = strdup(path), .fd = -1,
                       .bytes = calloc(1, part_state_bytes(shape))};
    if (!p->path || !p->bytes)
        goto no_memory;
    p->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (p->fd < 0) {
        st = part_io_failed(p, "open");
        goto err;
    }
    if (flock(p->fd, LOCK_EX | LOCK_NB) != 0) {
        log_error("%s is in use: another hearth prepare is at work on this model", path);
        close(p->fd);
        p->fd = -1;
        st = ST_IO;
        goto err;
    }
    if ((st = load(p, &found)))
        goto err;
    if (!found && (st = create(p))) {
        unlink(path);
        goto err;
    }
    *resumed = found;
    *out = p;
    return ST_OK;
no_memory:
    log_error("no memory for the checkpoint %s", path);
err:
    part_close(p);
    return st;
}

void part_close(struct part *p)
{
    if (!p)
        return;
    if (p->fd >= 0)
        close(p->fd);
    free(p->bytes);
    free(p->path);
    free(p);
}

void part_remove(struct part *p)
{
    if (p)
        unlink(p->path);
    part_close(p);
}

const struct part_shape *part_shape(const struct part *p) { return &p->shape; }
struct part_state *part_state(struct part *p) { return &p->state; }

