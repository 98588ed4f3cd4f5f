#include "device/cuda/load.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { LOAD_BYTES = 16 << 20, COPIED = 1 << 20 /* that a thread takes at a time */ };

static void fail(struct loader *l, status st) { l->failed = l->failed ? l->failed : st; }

static bool works(struct loader *l, cudaError_t e, const char *call)
{
    const bool ok = cuda_ok(l->c, e, call);
    if (!ok)
        fail(l, ST_INTERNAL);
    return ok;
}

status cuda_loader_open(struct loader *l, struct cuda *c, const struct device_loading *loading)
{
    *l = (struct loader){.loading = {&c->o, loading}, .c = c};
    for (int i = 0; i < 2 && !l->failed; i++) {
        void *at = NULL;
        const cudaError_t e = cudaHostAlloc(&at, LOAD_BYTES, cudaHostAllocDefault);
        if (e == cudaErrorMemoryAllocation) {
            log_error("cuda:%d: the system gives no %d MB of memory that the GPU can read (ulimit -l)", c->o.index,
                      2 * LOAD_BYTES / 1000000);
            cudaGetLastError();
            fail(l, ST_NOMEM);
        } else if (works(l, e, "cudaHostAlloc")) {
            works(l, cudaEventCreateWithFlags(&l->buffers[i].copied, cudaEventDisableTiming),
                  "cudaEventCreateWithFlags");
        }
        l->buffers[i].at = at;
    }
    return l->failed;
}

status cuda_loader_close(struct loader *l)
{
    const cudaError_t e = cudaStreamSynchronize(l->c->gpu.stream);
    if (!l->failed)
        works(l, e, "cudaStreamSynchronize");
    for (int i = 0; i < 2; i++) {
        if (l->buffers[i].copied)
            cudaEventDestroy(l->buffers[i].copied);
        if (l->buffers[i].at)
            cudaFreeHost(l->buffers[i].at);
    }
    return l->failed;
}

/* ---- pieces ---- */

/* The buffer whose turn it is, once it is free; NULL: something has failed. */
static uint8_t *begin_piece(struct loader *l)
{
    struct load_buffer *b = &l->buffers[l->turn];
    if (l->failed || !works(l, cudaEventSynchronize(b->copied), "cudaEventSynchronize"))
        return NULL;
    return b->at;
}

static void copy_piece(struct loader *l, void *to, const uint8_t *from, size_t bytes)
{
    if (bytes)
        works(l, cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, l->c->gpu.stream), "cudaMemcpyAsync");
}

static void end_piece(struct loader *l)
{
    works(l, cudaEventRecord(l->buffers[l->turn].copied, l->c->gpu.stream), "cudaEventRecord");
    l->turn = 1 - l->turn;
}

/* How many of n things of so many bytes a piece has; what has failed is none. */
static int64_t piece_of(struct loader *l, const struct matrix *from, int64_t n, size_t bytes)
{
    const int64_t fit = (int64_t)(LOAD_BYTES / bytes);
    if (fit < 1) {
        log_error("%s: rows of %s, 16 together, have %zu bytes, and at most %d can be loaded at once",
                  gguf_path(l->c->o.model->file), from->name, bytes, LOAD_BYTES);
        fail(l, ST_UNSUPPORTED);
    }
    return n < fit ? n : fit;
}

/* ---- matrices ---- */

/* A piece that is filled by all threads. */
struct filling {
    struct packed packed;
    struct neuron_rows rows;
    struct neuron_columns columns;
    const uint8_t *src;
    size_t stride;
    const int32_t *ids;
};

static void fill_packed(void *arg, int64_t begin, int64_t end, int thread)
{
    struct filling *f = arg;
    (void)thread;
    packed_fill(&f->packed, begin, end, f->src, f->stride, f->ids);
}

static void fill_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    struct filling *f = arg;
    (void)thread;
    neuron_rows_fill(&f->rows, begin, end, f->src, f->stride, f->ids);
}

static void fill_columns(void *arg, int64_t begin, int64_t end, int thread)
{
    struct filling *f = arg;
    const int64_t last = end * COLUMN_TILE, rows = f->columns.rows;
    (void)thread;
    neuron_columns_fill(&f->columns, begin * COLUMN_TILE, last < rows ? last : rows, f->src, f->stride);
}

/* Where row `row` of those that are wanted is looked for. */
static void begin_at(struct filling *f, const uint8_t *src, const int32_t *ids, int64_t row)
{
    f->src = ids ? src : src + (size_t)row * f->stride;
    f->ids = ids ? ids + row : NULL;
}

void cuda_load_packed(struct loader *l, const struct packed *to, const struct matrix *from, int64_t row, int64_t col,
                      const int32_t *ids)
{
    struct filling f = {.packed = *to, .stride = dtype_row_bytes(from->type, from->cols)};
    const uint8_t *src = from->data + (size_t)row * f.stride + dtype_row_bytes(from->type, col);
    if (l->failed || !to->groups || !to->cols)
        return;
    if (ids)
        loading_reads_neurons(&l->loading, from, ids, to->rows);
    else
        loading_reads(&l->loading, from, row, to->rows);
    for (int64_t g = 0; g < to->groups && !l->failed; g += f.packed.groups) {
        f.packed.groups = piece_of(l, from, to->groups - g, to->group_bytes);
        f.packed.rows = to->rows - g * ROW_GROUP;
        begin_at(&f, src, ids, g * ROW_GROUP);
        if (!(f.packed.data = begin_piece(l)))
            return;
        pool_for(l->c->o.pool, f.packed.groups, 16, fill_packed, &f);
        copy_piece(l, to->data + (size_t)g * to->group_bytes, f.packed.data, packed_bytes(&f.packed));
        end_piece(l);
    }
    if (!ids && to->cols == from->cols)
        gguf_release_pages(l->c->o.model->file, src, (uint64_t)to->rows * f.stride);
    loading_done(&l->loading, packed_bytes(to));
}

void cuda_load_rows(struct loader *l, const struct neuron_rows *to, const struct matrix *from, const int32_t *ids)
{
    const size_t bytes = to->top_bytes + to->rest_bytes;
    struct filling f = {.rows = *to, .stride = dtype_row_bytes(from->type, from->cols)};
    if (l->failed || !to->rows)
        return;
    loading_reads_neurons(&l->loading, from, ids, to->rows);
    for (int64_t r = 0; r < to->rows && !l->failed; r += f.rows.rows) {
        f.rows.rows = piece_of(l, from, to->rows - r, bytes);
        begin_at(&f, from->data, ids, r);
        if (!(f.rows.top = begin_piece(l)))
            return;
        f.rows.rest = f.rows.top + (size_t)f.rows.rows * to->top_bytes;
        pool_for(l->c->o.pool, f.rows.rows, 64, fill_rows, &f);
        copy_piece(l, to->top + (size_t)r * to->top_bytes, f.rows.top, (size_t)f.rows.rows * to->top_bytes);
        copy_piece(l, to->rest + (size_t)r * to->rest_bytes, f.rows.rest, (size_t)f.rows.rows * to->rest_bytes);
        end_piece(l);
    }
    loading_done(&l->loading, (uint64_t)to->rows * bytes);
}

/* A tile of them is written into all columns: they are filled as a whole, in memory for that alone. */
void cuda_load_columns(struct loader *l, const struct neuron_columns *to, const struct matrix *from,
                       const struct neuron_set *set)
{
    const size_t codes = neuron_columns_code_bytes(to), scales = neuron_columns_scale_bytes(to);
    struct filling f = {.columns = *to, .src = from->data, .stride = dtype_row_bytes(from->type, from->cols)};
    if (l->failed)
        return;
    uint8_t *all = calloc(1, codes + scales);
    if (!all) {
        log_error("out of memory for the columns of a layer, while they are loaded");
        fail(l, ST_NOMEM);
        return;
    }
    f.columns.codes = all;
    f.columns.scales = all + codes;
    f.columns.block = set->block;
    f.columns.column = set->column;
    if (to->transposed)
        loading_reads_neurons(&l->loading, from, set->ids, set->n);
    else
        loading_reads(&l->loading, from, 0, from->rows);
    pool_for(l->c->o.pool, (to->rows + COLUMN_TILE - 1) / COLUMN_TILE, 1, fill_columns, &f);
    cuda_load_array(l, to->codes, all, codes);
    cuda_load_array(l, to->scales, all + codes, scales);
    free(all);
    loading_done(&l->loading, codes + scales);
}

/* ---- vectors, bytes ---- */

void cuda_load_part(struct loader *l, float *to, const struct matrix *from, int64_t first, int64_t n)
{
    if (!to || l->failed)
        return;
    float *values = malloc((size_t)n * sizeof *values);
    if (!values) {
        log_error("out of memory for a vector, while it is loaded");
        fail(l, ST_NOMEM);
        return;
    }
    loading_reads(&l->loading, from, 0, 1);
    dequantize_row(from->type, from->data + dtype_row_bytes(from->type, first), n, values);
    cuda_load_array(l, to, values, (size_t)n * sizeof *values);
    free(values);
    loading_done(&l->loading, (uint64_t)n * sizeof *values);
}

void cuda_load_vector(struct loader *l, float *to, const struct matrix *from)
{
    cuda_load_part(l, to, from, 0, from->cols);
}

void cuda_load_bytes(struct loader *l, uint8_t *to, const struct matrix *from, int64_t row, int64_t n)
{
    const size_t row_bytes = dtype_row_bytes(from->type, from->cols), bytes = (size_t)n * row_bytes;
    const uint8_t *src = from->data + (size_t)row * row_bytes;
    if (!to || l->failed)
        return;
    loading_reads(&l->loading, from, row, n);
    cuda_load_array(l, to, src, bytes);
    gguf_release_pages(l->c->o.model->file, src, bytes);
    loading_done(&l->loading, bytes);
}

struct copy {
    uint8_t *to;
    const uint8_t *from;
    size_t bytes;
};

static void copy_some(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct copy *c = arg;
    const size_t at = (size_t)begin * COPIED, to = (size_t)end * COPIED;
    (void)thread;
    memcpy(c->to + at, c->from + at, (to < c->bytes ? to : c->bytes) - at);
}

void cuda_load_array(struct loader *l, void *to, const void *from, size_t bytes)
{
    const uint8_t *at = from;
    for (size_t done = 0; done < bytes; done += LOAD_BYTES) {
        struct copy c = {begin_piece(l), at + done, bytes - done < LOAD_BYTES ? bytes - done : LOAD_BYTES};
        if (!c.to)
            return;
        pool_for(l->c->o.pool, (int64_t)((c.bytes + COPIED - 1) / COPIED), 1, copy_some, &c);
        copy_piece(l, (uint8_t *)to + done, c.to, c.bytes);
        end_piece(l);
    }
}
