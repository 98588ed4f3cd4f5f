/* ACTIVE: sparse activations of several tokens. */
#include "wire/parts.h"

#include "base/log.h"

struct active_layout {
    size_t first_end, index_at, index_end, value_at, size; /* bytes from the start; first lies at WIRE_HEADER */
};

static struct active_layout active_layout(uint32_t n_tokens, size_t n_pairs)
{
    struct active_layout l;
    l.first_end = WIRE_HEADER + ((size_t)n_tokens + 1) * sizeof(uint32_t);
    l.index_at = wire_align(l.first_end);
    l.index_end = l.index_at + n_pairs * sizeof(uint32_t);
    l.value_at = wire_align(l.index_end);
    l.size = l.value_at + n_pairs * sizeof(float);
    return l;
}

static void active_point(struct wire_active *a, const struct active_layout *l, uint8_t *message)
{
    a->first = (uint32_t *)(void *)(message + WIRE_HEADER);
    a->index = (uint32_t *)(void *)(message + l->index_at);
    a->value = (float *)(void *)(message + l->value_at);
}

size_t wire_active_max(const struct wire_limits *lim, uint32_t n_own)
{
    return active_layout(lim->n_batch, (size_t)lim->n_batch * n_own).size;
}

size_t wire_active_pairs(const struct wire_limits *lim, uint32_t n_own)
{
    return (size_t)lim->n_batch + 1 + (size_t)lim->n_batch * n_own;
}

size_t wire_active_encode(struct wire_active *a, const struct wire_limits *lim, uint8_t *out, size_t cap)
{
    struct writer w = {out, out + cap, false};
    struct active_layout l = active_layout(a->n_tokens, a->n_pairs);
    if (a->n_tokens > lim->n_batch || cap < l.size)
        return 0;
    write_u64(&w, a->id);
    write_u32(&w, a->layer);
    write_u32(&w, a->n_tokens);
    write_u32(&w, a->n_pairs);
    write_counts(&w, &a->counts);
    write_u64(&w, a->busy_ns);
    wire_pad_header(&w, out);
    memset(out + l.first_end, 0, l.index_at - l.first_end);
    memset(out + l.index_end, 0, l.value_at - l.index_end);
    active_point(a, &l, out);
    return l.size;
}

static status refuse_pair(const struct wire_active *a, uint32_t token, const char *what)
{
    log_error("ACTIVE message of layer %u: token %u %s", a->layer, token, what);
    return ST_FORMAT;
}

/* Whether the pairs of each token are a range of all and their indices ascending below n_own. What their values are is
 * seen at the block's end. */
static status check_pairs(const struct wire_active *a, uint32_t n_own)
{
    if (a->first[0] != 0 || a->first[a->n_tokens] != a->n_pairs)
        return refuse_pair(a, 0, "to the last do not have all pairs");
    for (uint32_t t = 0; t < a->n_tokens; t++) {
        uint32_t begin = a->first[t], end = a->first[t + 1];
        if (begin > end || end > a->n_pairs)
            return refuse_pair(a, t, "has pairs that do not ascend");
        for (uint32_t i = begin; i < end; i++) {
            if (a->index[i] >= n_own || (i > begin && a->index[i] <= a->index[i - 1]))
                return refuse_pair(a, t, "has an index that is too large or does not ascend");
        }
    }
    return ST_OK;
}

/* Takes `first` and `index` out of the message, one behind the other. */
static void own_pairs(struct wire_active *a, uint32_t *pairs)
{
    wire_own(pairs, a->first, ((size_t)a->n_tokens + 1) * sizeof *pairs);
    a->first = pairs;
    pairs += (size_t)a->n_tokens + 1;
    wire_own(pairs, a->index, (size_t)a->n_pairs * sizeof *pairs);
    a->index = pairs;
}

status wire_active_decode(uint8_t *in, size_t n, const struct wire_limits *lim, uint32_t n_own, uint32_t *pairs,
                          struct wire_active *out)
{
    struct reader r = {in, in + n, false};
    struct wire_active a = {0};
    a.id = read_u64(&r);
    a.layer = read_u32(&r);
    a.n_tokens = read_u32(&r);
    a.n_pairs = read_u32(&r);
    a.counts = read_counts(&r);
    a.busy_ns = read_u64(&r);
    if (r.failed)
        return wire_refuse(WIRE_ACTIVE, "size", (int64_t)n, WIRE_HEADER, INT64_MAX);
    status st;
    if ((st = wire_in_range(WIRE_ACTIVE, "layer", a.layer, 0, (int64_t)lim->n_layers - 1)) != ST_OK ||
        (st = wire_in_range(WIRE_ACTIVE, "n_tokens", a.n_tokens, 1, lim->n_batch)) != ST_OK ||
        (st = wire_in_range(WIRE_ACTIVE, "n_pairs", a.n_pairs, 0, (int64_t)a.n_tokens * n_own)) != ST_OK)
        return st;
    struct active_layout l = active_layout(a.n_tokens, a.n_pairs);
    if ((st = wire_size_is(WIRE_ACTIVE, n, l.size)) != ST_OK)
        return st;
    active_point(&a, &l, in);
    own_pairs(&a, pairs);
    if ((st = check_pairs(&a, n_own)) != ST_OK)
        return st;
    *out = a;
    return ST_OK;
}
