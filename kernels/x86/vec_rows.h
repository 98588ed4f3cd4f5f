/* Neurons' rows times activations, in the words of *_vec.h. A lane is a block of 32 columns until the products of a
 * chunk are turned around: then a lane is a pair of a row and a token, and its blocks are added one after the other as
 * in the reference. `type` and `planes` are constants wherever these functions are inlined. */
#ifndef HEARTH_KERNELS_X86_VEC_ROWS_H
#define HEARTH_KERNELS_X86_VEC_ROWS_H

#include "kernels/row_layout.h"
#include "kernels/x86/vec_codes.h"

enum { TILE_PAIRS = 16 }; /* pairs that are turned around at a time */

/* Reads a field of a chunk's codes; its words begin at p. The first one read sets the codes, others are or'ed in. */
INLINE void load_field(struct field field, bool first, struct chunk c, const uint8_t *p, vi codes[8])
{
    const int bits = field.bits, to = field.shift;
    const vi mask = vi_set((int32_t)(0x01010101u * (((1u << bits) - 1) << to)));
#pragma GCC unroll 8
    for (int w = 0; w < bits; w++, p += 4 * c.n) {
        const vi word = c.full ? vi_load(p) : vi_load_part(p, c.n);
#pragma GCC unroll 8
        for (int s = 0; s < 8; s += bits) {
            const vi v = s > to ? vi_shr16(word, s - to) : s < to ? vi_shl16(word, to - s) : word;
            const int q = s + w;
            codes[q] = bits == 8 ? v : first ? vi_and(v, mask) : vi_or_and(codes[q], v, mask);
        }
    }
}

INLINE void load_part(struct part part, bool first, struct chunk c, const uint8_t *p, vi codes[8])
{
    load_field(part.low, first, c, p, codes);
    load_field(part.high, false, c, p + 4 * c.n * part.low.bits, codes);
}

INLINE vf load_f16(struct chunk c, const uint8_t *p)
{
    return c.full ? vf_of_f16((const uint16_t *)p) : vf_of_f16_part((const uint16_t *)p, c.n);
}
INLINE vi load_u8(struct chunk c, const uint8_t *p) { return c.full ? vi_of_u8(p) : vi_of_u8_part(p, c.n); }
INLINE vi load_i8(struct chunk c, const uint8_t *p) { return c.full ? vi_of_i8(p) : vi_of_i8_part(p, c.n); }
/* d of a type without super-blocks. */
INLINE vf load_chunk_d(struct layout l, struct chunk c, const uint8_t *p)
{
    return has_exponents(l) ? vf_of_exponents(load_u8(c, p)) : load_f16(c, p);
}
/* A chunk's one or two super-blocks. */
INLINE vf load_super(struct chunk c, const uint8_t *p)
{
    uint32_t pair = 0;
    memcpy(&pair, p, c.full || c.n > SUPER_BLOCKS ? 4 : 2);
    return vf_of_f16_pair(pair);
}

/* What a chunk of a row weighs, a block to a lane: codes, and what the estimates need of scales: D and M of the halves
 * (of K types: minus M). */
struct weights {
    vi codes[8];
    vf d[2], m[2];
};

/* Scales and minima of a K type's halves, before the super-blocks' are applied. */
struct k_scales {
    vi scale[2];
    vf min[2];
};

INLINE struct k_scales load_chunk_k_scales(struct layout l, struct chunk c, struct chunk_place s)
{
    struct k_scales k = {{vi_zero(), vi_zero()}, {vf_zero(), vf_zero()}};
    for (int h = 0; h < (l.halves ? 2 : 1); h++) {
        const uint8_t *at = h ? s.m : s.d;
        if (!l.minima) {
            k.scale[h] = load_i8(c, at);
        } else if (l.halves) {
            const vi both = load_u8(c, at);
            k.scale[h] = vi_and(both, vi_set(15));
            k.min[h] = vf_of_vi(vi_shr16(both, 4));
        } else {
            k.scale[h] = load_u8(c, at);
            k.min[h] = vf_of_vi(load_u8(c, s.m));
        }
    }
    return k;
}

INLINE void load_chunk_scales(struct layout l, struct chunk c, struct chunk_place s, struct weights *w)
{
    if (!l.k) {
        w->d[0] = load_chunk_d(l, c, s.d);
        if (l.minima)
            w->m[0] = load_f16(c, s.m);
        return;
    }
    const struct k_scales k = load_chunk_k_scales(l, c, s);
    const vf d = load_super(c, s.super_d), m = l.minima ? load_super(c, s.super_m) : vf_zero();
    for (int h = 0; h < (l.halves ? 2 : 1); h++) {
        w->d[h] = vf_mul(d, vf_of_vi(k.scale[h]));
        w->m[h] = vf_mul(m, k.min[h]);
    }
}

/* With `rest` NULL: the codes of the top part alone, as numbers of their own. */
INLINE void load_chunk_codes(struct layout l, bool planes, struct chunk c, struct chunk_place top, const uint8_t *rest,
                             vi codes[8])
{
    load_part(planes && !rest ? bare_top_part(l) : top_part(l, planes), true, c, top.codes, codes);
    if (planes && rest)
        load_part(rest_part(l), false, c, rest_codes(l, rest, c), codes);
    look_up(l, 8, codes);
}

/* A chunk of a token. */
struct lanes {
    const int8_t *codes;
    const float *scale, *scaled_sum;
    const int32_t *minus_sum, *minus_sum_low;
};

/* `at` is the number of its first block, of all tokens'. */
INLINE struct lanes lanes_of(const struct lane_acts *x, int64_t at)
{
    return (struct lanes){
        .codes = x->codes + at * ACT_BLOCK,
        .scale = x->scale + at,
        .scaled_sum = x->scaled_sum + at,
        .minus_sum = x->minus_sum + at,
        .minus_sum_low = x->minus_sum_low + at,
    };
}

/* Minus the sums of the activation codes of half h, or of all 32 columns. */
INLINE vi minus_sum_of(struct layout l, int h, const struct lanes *x)
{
    if (!l.halves)
        return vi_load(x->minus_sum);
    const vi low = vi_load(x->minus_sum_low);
    return h == 0 ? low : vi_sub(vi_load(x->minus_sum), low);
}

INLINE vf scaled_sum_of(struct layout l, int h, const struct lanes *x)
{
    if (!l.halves)
        return vf_load(x->scaled_sum);
    return vf_mul(vf_load(x->scale), vf_of_vi(vi_sub(vi_zero(), minus_sum_of(l, h, x))));
}

/* The integer sums of half h: sum of (code - offset) * activation code. */
INLINE vi dot_chunk(struct layout l, int h, const struct weights *w, const struct lanes *x)
{
    const int n = l.halves ? 4 : 8, first = 4 * h;
    const int8_t *codes = x->codes + 4 * LANE_BLOCKS * first;
    if (value_bits(l) == 8)
        return l.book ? vi_dot8_book_lanes(minus_sum_of(l, h, x), w->codes + first, codes, n)
                      : vi_dot8_lanes(minus_sum_of(l, h, x), w->codes + first, codes, n);
    const vi start = l.offset ? vi_shl32(minus_sum_of(l, h, x), l.offset_shift) : vi_zero();
    return vi_dot_lanes(start, value_bits(l), w->codes + first, codes, n);
}

/* Pairs of a tile; those past the last repeat it. */
struct pairs {
    const uint8_t *top[TILE_PAIRS], *rest[TILE_PAIRS], *next[TILE_PAIRS], *next_rest[TILE_PAIRS];
    int64_t token[TILE_PAIRS], first[TILE_PAIRS]; /* each pair's token, and its first block of all tokens' */
    bool one_token;
};

/* What the pairs of a tile have in a chunk: a vector for each pair, a block to a lane; turned around, a vector for each
 * block. Of a K type, scales of activations and scaled integers stay apart, and d and dmin of its two super-blocks are
 * kept, a lane for each pair. */
struct terms {
    vf sum[TILE_PAIRS], scale[TILE_PAIRS], m[2][TILE_PAIRS], scaled_sum[2][TILE_PAIRS];
    uint16_t d[2][TILE_PAIRS], dmin[2][TILE_PAIRS];
};

/* What all pairs have of the activations if they are of one token. */
struct shared {
    float scale[LANE_BLOCKS], scaled_sum[2][LANE_BLOCKS];
};

/* Of a row that is needed soon, the bytes to fetch along with each chunk: whole lines. */
INLINE size_t share_of(size_t row_bytes, int64_t chunks)
{
    return (row_bytes / 64 + (size_t)chunks - 1) / (size_t)chunks * 64;
}

/* Fetches the k-th share into the second level. (Into the first level it is half as fast.) */
INLINE void prefetch_share(const uint8_t *row, size_t row_bytes, size_t share, int64_t k)
{
    const size_t begin = (size_t)k * share, end = begin + share < row_bytes ? begin + share : row_bytes;
    for (size_t i = begin; i < end; i += 64)
        __builtin_prefetch(row + i, 0, 2);
}

/* The products of pair i. */
INLINE void find_pair(struct layout l, bool one, const struct weights *w, const struct lanes *x, int i,
                      struct terms *out)
{
    out->sum[i] = vf_of_vi(dot_chunk(l, 0, w, x));
    out->scale[i] = vf_mul(w->d[0], vf_load(x->scale));
    if (l.minima)
        out->m[0][i] = w->m[0];
    if (l.minima && !one)
        out->scaled_sum[0][i] = vf_load(x->scaled_sum);
}

INLINE void find_k_pair(struct layout l, bool one, const struct weights *w, const struct k_scales *k,
                        const struct lanes *x, int i, struct terms *out)
{
    vi sum = vi_mul(k->scale[0], dot_chunk(l, 0, w, x));
    if (l.halves)
        sum = vi_add(sum, vi_mul(k->scale[1], dot_chunk(l, 1, w, x)));
    out->sum[i] = vf_of_vi(sum);
    if (!one)
        out->scale[i] = vf_load(x->scale);
    for (int h = 0; h < (l.halves ? 2 : 1) && l.minima; h++) {
        out->m[h][i] = k->min[h];
        if (!one)
            out->scaled_sum[h][i] = scaled_sum_of(l, h, x);
    }
}

/* The two f16 at p, or the one, become those of pair i. */
INLINE void take_supers(struct chunk c, const uint8_t *p, int i, uint16_t to[2][TILE_PAIRS])
{
    memcpy(&to[0][i], p, 2);
    if (c.full || c.n > SUPER_BLOCKS)
        memcpy(&to[1][i], p + 2, 2);
}

/* `one`, a constant: all pairs are of one token. Else several in a row may share theirs. */
INLINE void find_terms(struct layout l, bool planes, bool one, struct chunk c, const struct neuron_rows *m,
                       const struct lane_acts *x, const struct pairs *p, struct terms *out)
{
    struct lanes lanes = lanes_of(x, p->first[0] + c.k * LANE_BLOCKS);
    const size_t top_share = share_of(m->top_bytes, x->chunks), rest_share = share_of(m->rest_bytes, x->chunks);
    struct weights w;
    struct k_scales k;
    for (int i = 0; i < TILE_PAIRS; i++) {
        const struct chunk_place place = top_place(l, planes, (uint8_t *)p->top[i], c);
        if (one || i == 0 || p->top[i] != p->top[i - 1]) {
            prefetch_share(p->next[i], m->top_bytes, top_share, c.k);
            if (planes)
                prefetch_share(p->next_rest[i], m->rest_bytes, rest_share, c.k);
            load_chunk_codes(l, planes, c, place, p->rest[i], w.codes);
            if (l.k)
                k = load_chunk_k_scales(l, c, place);
            else
                load_chunk_scales(l, c, place, &w);
        }
        if (!one)
            lanes = lanes_of(x, p->first[i] + c.k * LANE_BLOCKS);
        if (!l.k) {
            find_pair(l, one, &w, &lanes, i, out);
            continue;
        }
        find_k_pair(l, one, &w, &k, &lanes, i, out);
        take_supers(c, place.super_d, i, out->d);
        if (l.minima)
            take_supers(c, place.super_m, i, out->dmin);
    }
}

/* *acc += the n blocks of a chunk, one after the other. `shared`: NULL if the pairs are of several tokens. */
INLINE void add_terms(bool minima, int64_t n, const struct shared *shared, struct terms *t, vf *acc)
{
    vf_transpose16(t->sum);
    vf_transpose16(t->scale);
    if (minima)
        vf_transpose16(t->m[0]);
    if (minima && !shared)
        vf_transpose16(t->scaled_sum[0]);
    vf sum = *acc;
    for (int64_t b = 0; b < n; b++) {
        sum = vf_fma(t->sum[b], t->scale[b], sum);
        if (minima)
            sum = vf_fma(t->m[0][b], shared ? vf_set(shared->scaled_sum[0][b]) : t->scaled_sum[0][b], sum);
    }
    *acc = sum;
}

/* The same of a K type, half a super-block after the other; `unit` is super_unit. */
INLINE void add_k_terms(bool halves, bool minima, int64_t n, float unit, const struct shared *shared, struct terms *t,
                        vf *acc)
{
    vf_transpose16(t->sum);
    if (!shared)
        vf_transpose16(t->scale);
    for (int h = 0; h < (halves ? 2 : 1) && minima; h++) {
        vf_transpose16(t->m[h]);
        if (!shared)
            vf_transpose16(t->scaled_sum[h]);
    }
    for (int64_t b = 0, super = 0; b < n; super = b / SUPER_BLOCKS) {
        vf a = vf_zero(), least = vf_zero();
        for (const int64_t stop = unit_end(b, HALF_BLOCKS, n); b < stop; b++) {
            a = vf_fma(t->sum[b], shared ? vf_set(shared->scale[b]) : t->scale[b], a);
            for (int h = 0; h < (halves ? 2 : 1) && minima; h++)
                least = vf_fma(t->m[h][b], shared ? vf_set(shared->scaled_sum[h][b]) : t->scaled_sum[h][b], least);
        }
        *acc = vf_fma(vf_mul(vf_of_f16(t->d[super]), vf_set(unit)), a, *acc);
        if (minima)
            *acc = vf_fnma(vf_of_f16(t->dmin[super]), least, *acc);
    }
}

/* Functions of their own: types share them. */
#define ADD_TERMS(name, minima)                                                                                        \
    static __attribute__((noinline)) void name(int64_t n, const struct shared *shared, struct terms *t, vf *acc)       \
    {                                                                                                                  \
        add_terms(minima, n, shared, t, acc);                                                                          \
    }
#define ADD_K_TERMS(name, halves, minima)                                                                              \
    static __attribute__((noinline)) void name(int64_t n, float unit, const struct shared *shared, struct terms *t,    \
                                               vf *acc)                                                                \
    {                                                                                                                  \
        add_k_terms(halves, minima, n, unit, shared, t, acc);                                                          \
    }
ADD_TERMS(add_sums, false)
ADD_TERMS(add_sums_minima, true)
ADD_K_TERMS(add_whole_sums, false, false)
ADD_K_TERMS(add_whole_sums_minima, false, true)
ADD_K_TERMS(add_half_sums, true, false)
ADD_K_TERMS(add_half_sums_minima, true, true)
#undef ADD_TERMS
#undef ADD_K_TERMS

INLINE void add_chunk(struct layout l, bool planes, bool one, struct chunk c, const struct neuron_rows *m,
                      const struct lane_acts *x, const struct pairs *p, vf *acc)
{
    struct terms t;
    struct shared shared;
    const struct lanes lanes = lanes_of(x, p->first[0] + c.k * LANE_BLOCKS);
    find_terms(l, planes, one, c, m, x, p, &t);
    if (one && l.k)
        vf_store(shared.scale, vf_load(lanes.scale));
    for (int h = 0; h < (l.halves ? 2 : 1) && one && l.minima; h++)
        vf_store(shared.scaled_sum[h], scaled_sum_of(l, h, &lanes));
    if (l.halves)
        (l.minima ? add_half_sums_minima : add_half_sums)(c.n, super_unit(l), one ? &shared : NULL, &t, acc);
    else if (l.k)
        (l.minima ? add_whole_sums_minima : add_whole_sums)(c.n, super_unit(l), one ? &shared : NULL, &t, acc);
    else
        (l.minima ? add_sums_minima : add_sums)(c.n, one ? &shared : NULL, &t, acc);
}

INLINE vf dot_quantised(enum dtype type, bool planes, bool one, const struct neuron_rows *m, const struct lane_acts *x,
                        const struct pairs *p)
{
    const struct layout l = layout_of(type);
    const int64_t nb = m->cols / ACT_BLOCK, full = nb / LANE_BLOCKS;
    vf acc = vf_zero();
    for (int64_t k = 0; k < full; k++)
        add_chunk(l, planes, one, (struct chunk){k, LANE_BLOCKS, true}, m, x, p, &acc);
    if (full < x->chunks) /* as if of several tokens: one function less to compile */
        add_chunk(l, planes, false, (struct chunk){full, nb - full * LANE_BLOCKS, false}, m, x, p, &acc);
    return acc;
}

/* Columns [at, at + n) of a float row. */
INLINE vf load_floats(enum dtype type, bool full, const uint8_t *row, int64_t at, int64_t n)
{
    const uint16_t *half = (const uint16_t *)row + at;
    if (type == DT_F32)
        return full ? vf_load((const float *)row + at) : vf_load_part((const float *)row + at, n);
    if (type == DT_F16)
        return full ? vf_of_f16(half) : vf_of_f16_part(half, n);
    return full ? vf_of_bf16(half) : vf_of_bf16_part(half, n);
}

/* acc + columns [at, at + n), one after the other. */
INLINE vf add_columns(enum dtype type, bool one, bool full, int64_t at, int64_t n, const struct lane_acts *x,
                      const struct pairs *p, vf acc)
{
    vf w[TILE_PAIRS], v[TILE_PAIRS];
    for (int i = 0; i < TILE_PAIRS; i++) {
        w[i] = load_floats(type, full, p->top[i], at, n);
        if (!one)
            v[i] = full ? vf_load(x->f32 + p->token[i] * x->cols + at)
                        : vf_load_part(x->f32 + p->token[i] * x->cols + at, n);
    }
    vf_transpose16(w);
    if (!one)
        vf_transpose16(v);
    for (int64_t c = 0; c < n; c++)
        acc = vf_fma(w[c], one ? vf_set(x->f32[p->token[0] * x->cols + at + c]) : v[c], acc);
    return acc;
}

INLINE vf dot_floats(enum dtype type, bool one, const struct neuron_rows *m, const struct lane_acts *x,
                     const struct pairs *p)
{
    const int64_t line = 64 / (type == DT_F32 ? 4 : 2);
    vf acc = vf_zero(), total = vf_zero();
    int64_t c = 0;
    for (; c + LANE_BLOCKS <= m->cols; c += LANE_BLOCKS) {
        for (int i = 0; i < TILE_PAIRS && c % line == 0; i++)
            __builtin_prefetch(p->next[i] + c / line * 64, 0, 2);
        acc = add_columns(type, one, true, c, LANE_BLOCKS, x, p, acc);
        if ((c + LANE_BLOCKS) % FLOAT_SEGMENT == 0) {
            total = vf_add(total, acc);
            acc = vf_zero();
        }
    }
    if (c < m->cols)
        acc = add_columns(type, one, false, c, m->cols - c, x, p, acc);
    return m->cols % FLOAT_SEGMENT ? vf_add(total, acc) : total;
}

INLINE vf dot_tile(enum dtype type, bool planes, bool one, const struct neuron_rows *m, const struct lane_acts *x,
                   const struct pairs *p)
{
    const bool is_float = type == DT_F32 || type == DT_F16 || type == DT_BF16;
    return is_float ? dot_floats(type, one, m, x, p) : dot_quantised(type, planes, one, m, x, p);
}

INLINE int64_t clamp(int64_t i, int64_t n) { return i < n ? i : n - 1; }

INLINE void dot_pairs(enum dtype type, bool planes, const struct neuron_rows *m, const struct lane_acts *x,
                      const int32_t *row, const int32_t *token, int64_t n, float *y)
{
    for (int64_t first = 0; first < n; first += TILE_PAIRS) {
        struct pairs p = {.one_token = true};
        for (int i = 0; i < TILE_PAIRS; i++) {
            const int64_t at = clamp(first + i, n), next = clamp(first + i + TILE_PAIRS, n);
            p.top[i] = m->top + (size_t)row[at] * m->top_bytes;
            p.next[i] = m->top + (size_t)row[next] * m->top_bytes;
            if (planes) {
                p.rest[i] = m->rest + (size_t)row[at] * m->rest_bytes;
                p.next_rest[i] = m->rest + (size_t)row[next] * m->rest_bytes;
            }
            p.token[i] = token[at];
            p.first[i] = token[at] * lane_acts_blocks(x);
            p.one_token = p.one_token && token[at] == token[first];
        }
        const vf acc = p.one_token ? dot_tile(type, planes, true, m, x, &p) : dot_tile(type, planes, false, m, x, &p);
        if (first + TILE_PAIRS <= n)
            vf_store(y + first, acc);
        else
            vf_store_part(y + first, acc, n - first);
    }
}

enum {
    TILE_ROWS = 4,  /* rows of an estimate that share the loads of a chunk's activations */
    ROWS_AHEAD = 8, /* rows after which the next ones are fetched into the second level */
};

/* What the estimates of a chunk have in common: the codes with the same top bits have, doubled, the middle
 * 2 * top + 2^rest - 1. So the doubled sum is that of the top bits, shifted, plus `start`; `half` is half the token's
 * scales. */
struct middle {
    vi start[2];
    vf half;
};

INLINE struct middle middle_of(struct layout l, const struct lanes *x)
{
    struct middle m = {.half = vf_mul(vf_set(0.5f), vf_load(x->scale))};
    for (int h = 0; h < (l.halves ? 2 : 1); h++) {
        const vi minus = minus_sum_of(l, h, x);
        m.start[h] = vi_sub(minus, vi_shl32(minus, rest_bits(l)));
        if (l.offset)
            m.start[h] = vi_add(m.start[h], vi_shl32(minus, l.offset_shift + 1));
    }
    return m;
}

/* acc[i] += the estimate of a chunk of row i < n. */
INLINE void estimate_chunk(struct layout l, int n, struct chunk c, const uint8_t *top, size_t row_bytes,
                           const struct lanes *x, vf *acc)
{
    const struct middle middle = middle_of(l, x);
    struct layout bare = l; /* of the top bits as numbers of their own */
    bare.offset = bare.high_bits = 0;
    bare.low_bits = (uint8_t)top_bits(l);
    for (int i = 0; i < n; i++) {
        struct weights w;
        const struct chunk_place place = top_place(l, true, (uint8_t *)top + (size_t)i * row_bytes, c);
        load_chunk_codes(l, true, c, place, NULL, w.codes);
        load_chunk_scales(l, c, place, &w);
        for (int h = 0; h < (l.halves ? 2 : 1); h++) {
            const vi sum = vi_add(vi_shl32(dot_chunk(bare, h, &w, x), rest_bits(l) + 1), middle.start[h]);
            acc[i] = vf_fma(vf_of_vi(sum), vf_mul(w.d[h], middle.half), acc[i]);
            if (l.minima)
                acc[i] = l.k ? vf_fnma(w.m[h], scaled_sum_of(l, h, x), acc[i])
                             : vf_fma(w.m[h], scaled_sum_of(l, h, x), acc[i]);
        }
    }
}

/* Rows [row, row + n) times token t. */
INLINE void estimate_tile(enum dtype type, int n, const struct neuron_rows *m, int64_t row, const struct lane_acts *x,
                          int64_t t, float *y)
{
    const struct layout l = layout_of(type);
    const int64_t nb = m->cols / ACT_BLOCK, full = nb / LANE_BLOCKS, first = t * lane_acts_blocks(x);
    const uint8_t *top = m->top + (size_t)row * m->top_bytes;
    const size_t ahead = ROWS_AHEAD * m->top_bytes, share = share_of((size_t)n * m->top_bytes, x->chunks);
    vf acc[TILE_ROWS];
    for (int i = 0; i < n; i++)
        acc[i] = vf_zero();
    for (int64_t k = 0; k < full; k++) {
        const struct lanes lanes = lanes_of(x, first + k * LANE_BLOCKS);
        prefetch_share(top + ahead, (size_t)n * m->top_bytes, share, k);
        estimate_chunk(l, n, (struct chunk){k, LANE_BLOCKS, true}, top, m->top_bytes, &lanes, acc);
    }
    if (full < x->chunks) {
        const struct lanes lanes = lanes_of(x, first + full * LANE_BLOCKS);
        estimate_chunk(l, n, (struct chunk){full, nb - full * LANE_BLOCKS, false}, top, m->top_bytes, &lanes, acc);
    }
    for (int i = 0; i < n; i++)
        y[i] = vf_add_lanes(acc[i]);
}

INLINE void estimate(enum dtype type, const struct neuron_rows *m, int64_t row_begin, int64_t row_end,
                     const struct lane_acts *x, int64_t n_tokens, float *y, int64_t y_stride)
{
    int64_t r = row_begin;
    for (; r + TILE_ROWS <= row_end; r += TILE_ROWS)
        for (int64_t t = 0; t < n_tokens; t++)
            estimate_tile(type, TILE_ROWS, m, r, x, t, y + t * y_stride + r - row_begin);
    for (; r < row_end; r++)
        for (int64_t t = 0; t < n_tokens; t++)
            estimate_tile(type, 1, m, r, x, t, y + t * y_stride + r - row_begin);
}

/* Functions of their own for each type, as in vec_matmul.h; types of one layout share them. */
typedef void dot_fn(const struct neuron_rows *, const struct lane_acts *, const int32_t *, const int32_t *, int64_t,
                    float *);
typedef void estimate_fn(const struct neuron_rows *, int64_t, int64_t, const struct lane_acts *, int64_t, float *,
                         int64_t);
#define DOT(type, name, planes)                                                                                        \
    static __attribute__((noinline)) void name##_##type(const struct neuron_rows *m, const struct lane_acts *x,        \
                                                        const int32_t *row, const int32_t *token, int64_t n, float *y) \
    {                                                                                                                  \
        dot_pairs(DT_##type, planes, m, x, row, token, n, y);                                                          \
    }
#define DOT_AND_ESTIMATE(type)                                                                                         \
    DOT(type, dot, false)                                                                                              \
    DOT(type, dot_planes, true)                                                                                        \
    static __attribute__((noinline)) void estimate_##type(const struct neuron_rows *m, int64_t row_begin,              \
                                                          int64_t row_end, const struct lane_acts *x, int64_t n,       \
                                                          float *y, int64_t y_stride)                                  \
    {                                                                                                                  \
        estimate(DT_##type, m, row_begin, row_end, x, n, y, y_stride);                                                 \
    }
DOT(F32, dot, false)
DOT(F16, dot, false)
DOT(BF16, dot, false)
DOT(Q2_K, dot, false)
DOT(IQ4_NL, dot, false)
DOT(IQ4_XS, dot, false)
DOT(MXFP4, dot, false)
DOT(IQ3_S, dot, false)
DOT(IQ3_XXS, dot, false)
DOT(IQ2_XXS, dot, false)
DOT(IQ2_S, dot, false)
DOT(IQ1_S, dot, false)
DOT(IQ1_M, dot, false)
DOT(TQ2_0, dot, false)
DOT_AND_ESTIMATE(Q4_0)
DOT_AND_ESTIMATE(Q4_1)
DOT_AND_ESTIMATE(Q5_0)
DOT_AND_ESTIMATE(Q5_1)
DOT_AND_ESTIMATE(Q8_0)
DOT_AND_ESTIMATE(Q3_K)
DOT_AND_ESTIMATE(Q4_K)
DOT_AND_ESTIMATE(Q5_K)
DOT_AND_ESTIMATE(Q6_K)
#undef DOT
#undef DOT_AND_ESTIMATE

struct row_fns {
    dot_fn *dot, *dot_planes;
    estimate_fn *estimate;
};

static struct row_fns row_fns_of(enum dtype type)
{
    static const struct row_fns by_type[] = {
        [DT_F32] = {dot_F32, NULL, NULL},
        [DT_F16] = {dot_F16, NULL, NULL},
        [DT_BF16] = {dot_BF16, NULL, NULL},
        [DT_Q2_K] = {dot_Q2_K, NULL, NULL},
        [DT_IQ4_NL] = {dot_IQ4_NL, NULL, NULL},
        [DT_IQ4_XS] = {dot_IQ4_XS, NULL, NULL},
        [DT_MXFP4] = {dot_MXFP4, NULL, NULL},
        [DT_IQ3_S] = {dot_IQ3_S, NULL, NULL},
        [DT_IQ3_XXS] = {dot_IQ3_XXS, NULL, NULL},
        [DT_IQ2_XXS] = {dot_IQ2_XXS, NULL, NULL},
        [DT_IQ2_S] = {dot_IQ2_S, NULL, NULL},
        [DT_IQ2_XS] = {dot_IQ2_S, NULL, NULL},
        [DT_IQ1_S] = {dot_IQ1_S, NULL, NULL},
        [DT_IQ1_M] = {dot_IQ1_M, NULL, NULL},
        [DT_TQ2_0] = {dot_TQ2_0, NULL, NULL},
        [DT_TQ1_0] = {dot_TQ2_0, NULL, NULL},
        [DT_Q4_0] = {dot_Q4_0, dot_planes_Q4_0, estimate_Q4_0},
        [DT_Q4_1] = {dot_Q4_1, dot_planes_Q4_1, estimate_Q4_1},
        [DT_Q5_0] = {dot_Q5_0, dot_planes_Q5_0, estimate_Q5_0},
        [DT_Q5_1] = {dot_Q5_1, dot_planes_Q5_1, estimate_Q5_1},
        [DT_Q8_0] = {dot_Q8_0, dot_planes_Q8_0, estimate_Q8_0},
        [DT_Q3_K] = {dot_Q3_K, dot_planes_Q3_K, estimate_Q3_K},
        [DT_Q4_K] = {dot_Q4_K, dot_planes_Q4_K, estimate_Q4_K},
        [DT_Q5_K] = {dot_Q5_K, dot_planes_Q5_K, estimate_Q5_K},
        [DT_Q6_K] = {dot_Q6_K, dot_planes_Q6_K, estimate_Q6_K},
    };
    return by_type[type];
}

static void dot_rows(const struct neuron_rows *m, const struct lane_acts *x, const int32_t *row, const int32_t *token,
                     int64_t n, float *y)
{
    const struct row_fns fns = row_fns_of(m->type);
    (m->planes ? fns.dot_planes : fns.dot)(m, x, row, token, n, y);
}

static void estimate_rows(const struct neuron_rows *m, int64_t row_begin, int64_t row_end, const struct lane_acts *x,
                          int64_t n_tokens, float *y, int64_t y_stride)
{
    row_fns_of(m->type).estimate(m, row_begin, row_end, x, n_tokens, y, y_stride);
}

#endif
