/* Finding a tensor and checking its shape and type. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "model/gguf_parts.h"
#include "model/weights.h"

enum { SHAPE_SIZE = 96 };

static bool role_allows(enum role role, uint32_t type)
{
    if (role == ROLE_F32)
        return type == DT_F32;
    return dtype_is_weight(type) && (role == ROLE_MATRIX || dtype_block(type) == 1);
}

static const char *role_types(enum role role)
{
    return role == ROLE_F32 ? "F32" : role == ROLE_MATRIX ? "a type of weights" : "F32, F16 or BF16";
}

static const char *shape_text(const struct gguf_tensor *t, char out[SHAPE_SIZE])
{
    int n = snprintf(out, SHAPE_SIZE, "[%" PRId64, t->dims[0]);
    for (int i = 1; i < t->n_dims; i++)
        n += snprintf(out + n, SHAPE_SIZE - (size_t)n, ", %" PRId64, t->dims[i]);
    snprintf(out + n, SHAPE_SIZE - (size_t)n, "]");
    return out;
}

/* Shapes are printed as the file has them, fastest dimension first. */
static struct gguf_tensor shape_of(const struct tensor_need *n)
{
    return (struct gguf_tensor){.n_dims = n->slabs ? 3 : n->role == ROLE_MATRIX || n->role == ROLE_FLOATS ? 2 : 1,
                                .dims = {n->cols, n->rows, n->slabs ? n->slabs : 1, 1}};
}

status find_optional(struct finder *f, const char *name, struct tensor_need n, struct matrix *out)
{
    const struct gguf_tensor *t = gguf_find_tensor(f->g, name);
    if (!t)
        return ST_OK;
    f->used[t - gguf_tensor_at(f->g, 0)] = true;
    const struct gguf_tensor want = shape_of(&n);
    if (memcmp(t->dims, want.dims, sizeof want.dims) != 0) {
        char expected[SHAPE_SIZE], found[SHAPE_SIZE];
        log_error("%s: tensor %s: expected %s, found %s", gguf_path(f->g), name, shape_text(&want, expected),
                  shape_text(t, found));
        return ST_FORMAT;
    }
    if (!role_allows(n.role, t->type)) {
        log_error("%s: tensor %s: expected %s, found type %s", gguf_path(f->g), name, role_types(n.role),
                  dtype_name(t->type));
        return ST_UNSUPPORTED;
    }
    *out = (struct matrix){.type = t->type, .rows = want.dims[1] * want.dims[2], .cols = n.cols, .data = t->data,
                           .name = t->name};
    return ST_OK;
}

status find_required(struct finder *f, const char *name, struct tensor_need n, struct matrix *out)
{
    if (!gguf_find_tensor(f->g, name)) {
        const struct gguf_tensor want = shape_of(&n);
        char expected[SHAPE_SIZE];
        log_error("%s: tensor %s: expected %s, found no such tensor", gguf_path(f->g), name,
                  shape_text(&want, expected));
        return ST_FORMAT;
    }
    return find_optional(f, name, n, out);
}

status find_table(struct finder *f, int layer, const struct layer_tensor *table, size_t n, struct layer_weights *w)
{
    char name[TENSOR_NAME];
    for (const struct layer_tensor *t = table; t < table + n; t++) {
        struct matrix *out = (struct matrix *)((char *)w + t->offset);
        if (t->presence == NEVER)
            continue;
        snprintf(name, sizeof name, "blk.%d.%s", layer, t->name);
        status s = (t->presence == ALWAYS ? find_required : find_optional)(f, name, t->need, out);
        if (s != ST_OK)
            return s;
    }
    return ST_OK;
}

const struct gguf_tensor *layer_tensor(const struct finder *f, int layer, const char *name)
{
    char full[TENSOR_NAME];
    snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    return gguf_find_tensor(f->g, full);
}

struct matrix columns_of(const struct matrix *m, int64_t begin, int64_t end)
{
    struct matrix part = *m;
    part.cols = end - begin;
    part.data = m->data + dtype_row_bytes(m->type, begin);
    return part;
}

struct matrix rows_of(const struct matrix *m, int64_t begin, int64_t end)
{
    struct matrix part = *m;
    part.rows = end - begin;
    if (m->data)
        part.data = m->data + (size_t)begin * dtype_row_bytes(m->type, m->cols);
    return part;
}
