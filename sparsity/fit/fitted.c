/* Fitted layers in memory and as bytes.
 *
 * The bytes, little-endian: magic, version, d_model, neurons, experts, parts (a bit each: weight and curve, bound,
 * MLP); live; fired, strength, chosen; weight, slopes and offsets of the estimates, skip, curve; bound and quality of
 * planes; types, r, threshold, quality, fc1 and fc2 of the MLP; XXH3 of all before it. */
#include "sparsity/fit/fitted.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/bytes.h"
#include "base/log.h"

enum { MAGIC = 0x54494648 /* "HFIT" */, VERSION = 3, HASH_BYTES = 8 };
enum { HAS_WEIGHT = 1, HAS_BOUND = 2, HAS_MLP = 4, HAS_ALL = 7 };

static size_t matrix_bytes(const struct matrix *m)
{
    return m->data ? (size_t)m->rows * dtype_row_bytes(m->type, m->cols) : 0;
}

/* ---- memory ---- */

static const void *keep(const void *from, size_t n, uint8_t **at)
{
    if (!from)
        return NULL;
    uint8_t *to = *at;
    memcpy(to, from, n);
    *at += n;
    return to;
}

status fitted_layer_copy(const struct fitted_layer *from, struct fitted_layer *out)
{
    struct fitted_layer f = *from;
    struct neuron_layer *l = &f.layer;
    const size_t row = (size_t)f.n * sizeof(float), experts = (size_t)f.n_experts * sizeof(float);
    const size_t n = 8 * row + experts + matrix_bytes(&l->fc1) + matrix_bytes(&l->fc2);
    uint8_t *at = f.memory = malloc(n);
    if (!at) {
        log_error("no memory for a fitted layer: %zu bytes", n);
        return ST_NOMEM;
    }
    l->fired = keep(l->fired, row, &at);
    l->strength = keep(l->strength, row, &at);
    l->chosen = keep(l->chosen, experts, &at);
    l->weight = keep(l->weight, row, &at);
    l->gate_slope = keep(l->gate_slope, row, &at);
    l->gate_offset = keep(l->gate_offset, row, &at);
    l->up_slope = keep(l->up_slope, row, &at);
    l->up_offset = keep(l->up_offset, row, &at);
    l->bound = keep(l->bound, row, &at);
    l->fc1.data = keep(l->fc1.data, matrix_bytes(&l->fc1), &at);
    l->fc2.data = keep(l->fc2.data, matrix_bytes(&l->fc2), &at);
    *out = f;
    return ST_OK;
}

void fitted_layer_free(struct fitted_layer *f)
{
    free(f->memory);
    *f = (struct fitted_layer){0};
}

/* ---- encode ---- */

static void write_floats(struct writer *w, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        write_f32(w, x[i]);
}

static void write_quality(struct writer *w, const struct predictor_quality *q)
{
    write_f32(w, q->recall);
    write_f32(w, q->precision);
    write_f32(w, q->accuracy);
    write_f32(w, q->flagged);
}

static void write_matrix(struct writer *w, const struct matrix *m)
{
    uint8_t *to = write_bytes(w, matrix_bytes(m));
    if (to)
        memcpy(to, m->data, matrix_bytes(m));
}

static void write_layer(struct writer *w, const struct fitted_layer *f)
{
    const struct neuron_layer *l = &f->layer;
    write_u32(w, MAGIC);
    write_u32(w, VERSION);
    write_u64(w, (uint64_t)f->d_model);
    write_u64(w, (uint64_t)f->n);
    write_u64(w, (uint64_t)f->n_experts);
    write_u32(w, (l->weight ? HAS_WEIGHT : 0u) | (l->bound ? HAS_BOUND : 0u) | (l->fc1.data ? HAS_MLP : 0u));
    write_f32(w, l->live);
    write_floats(w, l->fired, f->n);
    write_floats(w, l->strength, f->n);
    write_floats(w, l->chosen, f->n_experts);
    if (l->weight) {
        write_floats(w, l->weight, f->n);
        write_floats(w, l->gate_slope, f->n);
        write_floats(w, l->gate_offset, f->n);
        write_floats(w, l->up_slope, f->n);
        write_floats(w, l->up_offset, f->n);
        write_floats(w, l->skip, SKIP_STEPS);
        write_floats(w, f->curve.score, SKIP_POINTS);
        write_floats(w, f->curve.loss, SKIP_POINTS);
        write_f32(w, f->curve.size);
    }
    if (l->bound) {
        write_floats(w, l->bound, f->n);
        write_quality(w, &l->planes);
    }
    if (l->fc1.data) {
        write_u32(w, l->fc1.type);
        write_u32(w, l->fc2.type);
        write_u64(w, (uint64_t)l->fc1.rows);
        write_f32(w, l->mlp_threshold);
        write_quality(w, &l->mlp);
        write_matrix(w, &l->fc1);
        write_matrix(w, &l->fc2);
    }
}

status fitted_layer_encode(const struct fitted_layer *f, uint8_t **bytes, size_t *n)
{
    const struct neuron_layer *l = &f->layer;
    const size_t head = 256, floats = 8 * (size_t)f->n + (size_t)f->n_experts + SKIP_STEPS + 2 * SKIP_POINTS;
    const size_t most = head + floats * sizeof(float) + matrix_bytes(&l->fc1) + matrix_bytes(&l->fc2);
    uint8_t *to = malloc(most);
    if (!to) {
        log_error("no memory for a fitted layer: %zu bytes", most);
        return ST_NOMEM;
    }
    struct writer w = {.at = to, .end = to + most};
    write_layer(&w, f);
    write_u64(&w, XXH3_64bits(to, (size_t)(w.at - to)));
    *bytes = to;
    *n = (size_t)(w.at - to);
    return ST_OK;
}

/* ---- decode ---- */

/* A float that counts as a failed read unless it is finite. */
static float read_finite(struct reader *r)
{
    const float x = read_f32(r);
    r->failed = r->failed || !isfinite(x);
    return x;
}

/* One that may be infinite: nothing is flagged, or all. */
static float read_bound(struct reader *r)
{
    const float x = read_f32(r);
    r->failed = r->failed || isnan(x);
    return x;
}

static void read_floats(struct reader *r, float *out, int64_t n)
{
    for (int64_t i = 0; i < n && !r->failed; i++)
        out[i] = read_finite(r);
}

/* The next of the rows in memory. */
static float *next_row(int64_t n, uint8_t **at)
{
    float *row = (float *)(void *)*at;
    *at += (size_t)n * sizeof *row;
    return row;
}

static const float *read_row(struct reader *r, int64_t n, uint8_t **at)
{
    float *row = next_row(n, at);
    read_floats(r, row, n);
    return row;
}

static const float *read_bounds(struct reader *r, int64_t n, uint8_t **at)
{
    float *row = next_row(n, at);
    for (int64_t i = 0; i < n && !r->failed; i++)
        row[i] = read_bound(r);
    return row;
}

static void read_quality(struct reader *r, struct predictor_quality *q)
{
    q->recall = read_finite(r);
    q->precision = read_finite(r);
    q->accuracy = read_finite(r);
    q->flagged = read_finite(r);
}

static void read_matrix(struct reader *r, struct matrix m, struct matrix *out, uint8_t **at)
{
    const size_t n = (size_t)m.rows * dtype_row_bytes(m.type, m.cols);
    const uint8_t *from = read_bytes(r, n);
    if (!from)
        return;
    m.data = keep(from, n, at);
    *out = m;
}

static bool mlp_type(uint32_t type) { return type == DT_Q4_0 || type == DT_Q8_0; }

static void read_mlp(struct reader *r, struct fitted_layer *f, uint8_t **at)
{
    struct neuron_layer *l = &f->layer;
    const uint32_t type1 = read_u32(r), type2 = read_u32(r);
    const uint64_t rank = read_u64(r);
    l->mlp_threshold = read_bound(r);
    read_quality(r, &l->mlp);
    if (!mlp_type(type1) || !mlp_type(type2) || rank % ACT_BLOCK || !rank || rank > INT32_MAX ||
        f->d_model % ACT_BLOCK)
        r->failed = true;
    if (r->failed)
        return;
    const struct matrix fc1 = {.type = type1, .rows = (int64_t)rank, .cols = f->d_model, .name = "fc1"};
    const struct matrix fc2 = {.type = type2, .rows = f->n, .cols = (int64_t)rank, .name = "fc2"};
    read_matrix(r, fc1, &l->fc1, at);
    read_matrix(r, fc2, &l->fc2, at);
}

/* f has its dimensions, and memory as large as all that is left to read. */
static void read_layer(struct reader *r, struct fitted_layer *f)
{
    struct neuron_layer *l = &f->layer;
    uint8_t *at = f->memory;
    const uint32_t parts = read_u32(r);
    l->live = read_finite(r);
    l->fired = read_row(r, f->n, &at);
    l->strength = read_row(r, f->n, &at);
    l->chosen = f->n_experts ? read_row(r, f->n_experts, &at) : NULL;
    if (parts & HAS_WEIGHT) {
        l->weight = read_row(r, f->n, &at);
        l->gate_slope = read_row(r, f->n, &at);
        l->gate_offset = read_row(r, f->n, &at);
        l->up_slope = read_row(r, f->n, &at);
        l->up_offset = read_row(r, f->n, &at);
        read_floats(r, l->skip, SKIP_STEPS);
        read_floats(r, f->curve.score, SKIP_POINTS);
        read_floats(r, f->curve.loss, SKIP_POINTS);
        f->curve.size = read_finite(r);
    }
    if (parts & HAS_BOUND) {
        l->bound = read_bounds(r, f->n, &at);
        read_quality(r, &l->planes);
    }
    if (parts & HAS_MLP)
        read_mlp(r, f, &at);
    if (parts & ~(uint32_t)HAS_ALL || r->at != r->end)
        r->failed = true;
}

status fitted_layer_decode(const uint8_t *bytes, size_t n, const char *where, struct fitted_layer *out)
{
    struct reader r = {.at = bytes, .end = bytes + (n < HASH_BYTES ? 0 : n - HASH_BYTES)};
    struct reader hash = {.at = r.end, .end = bytes + n};
    struct fitted_layer f = {0};
    const uint32_t magic = read_u32(&r), version = read_u32(&r);
    f.d_model = (int64_t)read_u64(&r);
    f.n = (int64_t)read_u64(&r);
    f.n_experts = (int64_t)read_u64(&r);
    if (r.failed || magic != MAGIC || version != VERSION ||
        read_u64(&hash) != XXH3_64bits(bytes, n - HASH_BYTES)) {
        log_error("%s: %zu bytes are not a whole fitted layer of version %d", where, n, VERSION);
        return ST_FORMAT;
    }
    if (f.d_model != out->d_model || f.n != out->n || f.n_experts != out->n_experts) {
        log_error("%s: expected a fitted layer of %lld x %lld and %lld experts, found %lld x %lld and %lld", where,
                  (long long)out->d_model, (long long)out->n, (long long)out->n_experts, (long long)f.d_model,
                  (long long)f.n, (long long)f.n_experts);
        return ST_FORMAT;
    }
    /* a row that the bytes do not have stops the reading; it is still pointed to, so all rows get their room */
    f.memory = calloc(1, n + (8 * (size_t)f.n + (size_t)f.n_experts) * sizeof(float));
    if (!f.memory) {
        log_error("no memory for a fitted layer: %zu bytes", n);
        return ST_NOMEM;
    }
    read_layer(&r, &f);
    if (r.failed) {
        log_error("%s: the parts of a fitted layer do not fill its bytes, or hold what is no number", where);
        fitted_layer_free(&f);
        return ST_FORMAT;
    }
    *out = f;
    return ST_OK;
}
