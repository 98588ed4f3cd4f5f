/* What lies behind the states of a checkpoint: samples, the experts that they have chosen with their weights, and
 * fitted layers. */
#include "prepare/part_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "kernels/layout.h"

/* Rows of a layer's first n samples. */
static status read_rows(const struct part *p, struct part_rows r, int layer, uint64_t n, void *to)
{
    bool whole;
    status st = part_read_at(p, to, (size_t)(n * r.bytes), part_row_at(&p->shape, r, layer, 0), &whole);
    if (!st && !whole) {
        log_error("%s ends within layer %d's samples", p->path, layer);
        st = ST_IO;
    }
    return st;
}

/* ---- samples ---- */

status part_put_sample(struct part *p, int layer, uint64_t slot, const float *x)
{
    enum { PIECE = 1024 };
    const float most = 65504; /* of f16 */
    float held[PIECE];
    uint16_t halves[PIECE];
    uint64_t at = part_row_at(&p->shape, part_x_rows(&p->shape), layer, slot);
    status st = ST_OK;
    for (int64_t i = 0; i < p->shape.d_model && !st; i += PIECE) {
        int64_t n = p->shape.d_model - i < PIECE ? p->shape.d_model - i : PIECE;
        for (int64_t j = 0; j < n; j++)
            held[j] = fminf(fmaxf(x[i + j], -most), most);
        p->kernels->to_f16(held, n, halves);
        st = part_write_at(p, halves, (size_t)n * sizeof *halves, at + (uint64_t)i * sizeof *halves);
    }
    return st;
}

status part_samples(struct part *p, int layer, uint64_t n, float *x)
{
    size_t values = (size_t)n * (size_t)p->shape.d_model;
    /* The halves lie in the back half of the room for the floats, which overtake them only at the end. */
    uint16_t *halves = (uint16_t *)x + values;
    status st = read_rows(p, part_x_rows(&p->shape), layer, n, halves);
    for (size_t i = 0; i < values && !st; i++) {
        uint16_t half;
        memcpy(&half, halves + i, sizeof half);
        x[i] = f32_of_f16(half);
    }
    return st;
}

status part_put_routes(struct part *p, int layer, uint64_t slot, const uint32_t *expert, const float *weight)
{
    const struct part_rows experts = part_expert_rows(&p->shape), weights = part_weight_rows(&p->shape);
    status st = part_write_at(p, expert, (size_t)experts.bytes, part_row_at(&p->shape, experts, layer, slot));
    return st ? st : part_write_at(p, weight, (size_t)weights.bytes, part_row_at(&p->shape, weights, layer, slot));
}

/* The file may have been changed by anyone. */
static status check_experts(const struct part *p, int layer, uint64_t n, const uint32_t *expert)
{
    for (uint64_t i = 0; i < n * (uint64_t)p->shape.n_used; i++) {
        if (expert[i] >= p->shape.n_experts) {
            log_error("%s: a sample of layer %d has chosen expert %u, expected one of %lld: delete it, and begin anew",
                      p->path, layer, expert[i], (long long)p->shape.n_experts);
            return ST_IO;
        }
    }
    return ST_OK;
}

status part_routes(struct part *p, int layer, uint64_t n, uint32_t *expert, float *weight)
{
    status st = read_rows(p, part_expert_rows(&p->shape), layer, n, expert);
    if (!st)
        st = check_experts(p, layer, n, expert);
    return st ? st : read_rows(p, part_weight_rows(&p->shape), layer, n, weight);
}

/* ---- fitted layers ---- */

status part_put_layer(struct part *p, int layer, const uint8_t *bytes, size_t n)
{
    status st = part_write_at(p, bytes, n, p->end);
    if (st)
        return st;
    p->state.fitted[layer - p->shape.first] = (struct part_fitted){.offset = p->end, .size = n};
    p->end += n;
    return part_save(p);
}

status part_layer(struct part *p, int layer, uint8_t **bytes, size_t *n)
{
    const struct part_fitted *f = &p->state.fitted[layer - p->shape.first];
    bool whole;
    if (!f->size) {
        *bytes = NULL;
        return ST_OK;
    }
    uint8_t *b = malloc(f->size);
    if (!b) {
        log_error("no memory for %llu bytes of layer %d", (unsigned long long)f->size, layer);
        return ST_NOMEM;
    }
    status st = part_read_at(p, b, f->size, f->offset, &whole);
    if (!st && !whole) {
        log_error("%s ends within layer %d", p->path, layer);
        st = ST_IO;
    }
    if (st) {
        free(b);
        return st;
    }
    *bytes = b;
    *n = f->size;
    return ST_OK;
}
