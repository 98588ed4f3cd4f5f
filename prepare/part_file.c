/* Where what lies in a checkpoint, and reading and writing there. */
#include "prepare/part_file.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"

/* ---- where what lies ---- */

static uint64_t aligned(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

/* The arrays follow the fixed fields, the widest elements first. */
static uint64_t array_bytes(const struct part_shape *s)
{
    uint64_t neurons = part_layers(s) * (uint64_t)s->d_ff;
    return s->n_windows * sizeof(struct score) + part_layers(s) * (sizeof(struct part_fitted) + sizeof(float)) +
           neurons * (sizeof(double) + sizeof(uint32_t)) + part_layers(s) * (uint64_t)s->n_experts * sizeof(uint32_t);
}

uint64_t part_state_bytes(const struct part_shape *s) { return sizeof(struct part_state) + array_bytes(s); }

uint64_t part_slot_bytes(const struct part_shape *s)
{
    return aligned(sizeof(struct state_header) + part_state_bytes(s), PART_PAGE);
}

static uint64_t n_rows(const struct part_shape *s) { return part_layers(s) * s->n_samples; }

struct part_rows part_x_rows(const struct part_shape *s)
{
    return (struct part_rows){PART_PAGE + 2 * part_slot_bytes(s), (uint64_t)s->d_model * sizeof(uint16_t)};
}

struct part_rows part_expert_rows(const struct part_shape *s)
{
    const struct part_rows x = part_x_rows(s);
    return (struct part_rows){x.at + n_rows(s) * x.bytes, (uint64_t)s->n_used * sizeof(uint32_t)};
}

struct part_rows part_weight_rows(const struct part_shape *s)
{
    const struct part_rows experts = part_expert_rows(s);
    return (struct part_rows){experts.at + n_rows(s) * experts.bytes, (uint64_t)s->n_weights * sizeof(float)};
}

uint64_t part_bytes(const struct part_shape *s)
{
    const struct part_rows weights = part_weight_rows(s);
    return weights.at + n_rows(s) * weights.bytes;
}

uint64_t part_row_at(const struct part_shape *s, struct part_rows r, int layer, uint64_t slot)
{
    return r.at + ((uint64_t)(layer - s->first) * s->n_samples + slot) * r.bytes;
}

/* ---- bytes ---- */

status part_io_failed(const struct part *p, const char *what)
{
    log_error("cannot %s %s: %s", what, p->path, strerror(errno));
    return ST_IO;
}

status part_write_at(const struct part *p, const void *bytes, size_t n, uint64_t at)
{
    for (const uint8_t *b = bytes; n > 0;) {
        ssize_t done = pwrite(p->fd, b, n, (off_t)at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return part_io_failed(p, "write");
        b += done;
        at += (uint64_t)done;
        n -= (size_t)done;
    }
    return ST_OK;
}

status part_read_at(const struct part *p, void *bytes, size_t n, uint64_t at, bool *whole)
{
    uint8_t *b = bytes;
    *whole = true;
    while (n > 0) {
        ssize_t done = pread(p->fd, b, n, (off_t)at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return part_io_failed(p, "read");
        if (done == 0) {
            *whole = false;
            return ST_OK;
        }
        b += done;
        at += (uint64_t)done;
        n -= (size_t)done;
    }
    return ST_OK;
}
