#include "device/loading.h"

#include "model/chunks.h"

void loading_done(const struct loading *l, uint64_t bytes)
{
    if (l->l->loaded)
        l->l->loaded(l->l->arg, bytes);
}

void loading_reads(const struct loading *l, const struct matrix *from, int64_t row, int64_t n)
{
    const size_t row_bytes = dtype_row_bytes(from->type, from->cols);
    if (l->l->chunks && from->data && n > 0)
        chunks_use(l->l->chunks, l->o->pool, from->data + (size_t)row * row_bytes, (size_t)n * row_bytes);
}

void loading_reads_neurons(const struct loading *l, const struct matrix *from, const int32_t *ids, int64_t n)
{
    const int64_t first = ids ? ids[0] : 0, last = ids ? ids[n - 1] : n - 1;
    loading_reads(l, from, first, last + 1 - first);
}
