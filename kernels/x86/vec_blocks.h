/* Packed blocks of 32 columns of 16 rows times the tokens of a tile, in the words of *_vec.h: what vec_matmul.h sums.
 * Layouts and numbers of tokens are constants wherever these functions are inlined. */
#ifndef HEARTH_KERNELS_X86_VEC_BLOCKS_H
#define HEARTH_KERNELS_X86_VEC_BLOCKS_H

#include "kernels/x86/vec_codes.h"

/* While one token is computed a Zen core's hardware prefetches as fast as memory can, if loads come in ascending order;
 * an Intel core's stops at the end of each page, and reads 1.35 times as much if it is asked for what lies ahead. When
 * several tokens share what is read, the hardware sees the weights among many runs of activations and loses them: eight
 * tokens take 1.5 to 2 times as long on a Zen 4 core if they do not ask for what lies this far ahead. */
enum { AHEAD = 3072 };

/* Asks for n bytes to be brought into the second level. */
INLINE void prefetch_ahead(const uint8_t *p, size_t n)
{
    for (size_t at = 0; at < n; at += 64)
        __builtin_prefetch(p + AHEAD + at, 0, 2);
}

/* The tokens of a tile, from a block on: each token's codes and blocks so many behind those of the one before. */
struct tokens {
    int n;    /* a constant wherever this is inlined */
    bool ask; /* for what lies ahead */
    const int8_t *codes;
    const struct act_block *blocks;
    int64_t code_stride, block_stride;
};

INLINE struct tokens tokens_at(struct tokens x, int64_t b)
{
    x.codes += b * ACT_BLOCK;
    x.blocks += b;
    return x;
}

/* Whether n tokens that read what lies in memory ask ahead. Where they are so few that memory is the bound all the same,
 * it takes more than it gives if the hardware does it. */
INLINE bool asks_ahead(struct layout l, int n)
{
    return n >= (l.low_bits == 8 ? 4 : 2) || __builtin_cpu_is("intel");
}

INLINE void ask_for_block(struct layout l, const struct place *p, const struct tokens *x)
{
    if (x->ask)
        prefetch_ahead(p->scales, layout_scale_bytes(l) + layout_code_bytes(l));
}

/* The words of a block's codes, loaded as they lie; those of codes of 8 bits only when needed. */
struct words {
    const uint8_t *p;
    vi low[4], high[2];
};

INLINE struct words load_words(struct layout l, const uint8_t *p)
{
    struct words w = {.p = p};
    for (int i = 0; i < l.low_bits && l.low_bits < 8; i++)
        w.low[i] = vi_load_in_order(p + 64 * i);
    for (int i = 0; i < l.high_bits; i++)
        w.high[i] = vi_load_in_order(p + 64 * (l.low_bits + i));
    return w;
}

/* Right by so many bits, or left; those of its neighbours that a byte gets are masked afterwards. */
INLINE vi shift_bytes(vi v, int right)
{
    return right > 0 ? vi_shr16(v, right) : right < 0 ? vi_shl16(v, -right) : v;
}

/* The codes of quad q of all 16 rows, as they are multiplied. */
INLINE vi codes_of(struct layout l, const struct words *w, int q)
{
    const int bits = l.low_bits;
    if (bits == 8)
        return vi_load_in_order(w->p + 64 * q);
    vi codes = vi_and(shift_bytes(w->low[bits == 4 ? q % 4 : q % 2], bits == 4 ? q / 4 * 4 : q / 2 * 2),
                      vi_set(bits == 4 ? 0x0f0f0f0f : 0x03030303));
    if (l.high_bits == 2)
        codes = vi_or_and(codes, shift_bytes(w->high[q % 2], q / 2 * 2 - bits), vi_set(0x03030303 << bits));
    else if (l.high_bits == 1)
        codes = vi_or_and(codes, shift_bytes(w->high[0], q - bits), vi_set(0x01010101 << bits));
    look_up(l, 1, &codes);
    return codes;
}

/* Quads are taken by twos: the k-th of pair i, which have the same words. */
INLINE int quad_of(struct layout l, int i, int k)
{
    return l.low_bits == 8 ? 2 * i + k : l.low_bits == 4 ? i + 4 * k : i % 2 + i / 2 * 4 + 2 * k;
}

/* d and dmin of a super-block, for the 16 rows. */
struct supers {
    vf d, m;
};

INLINE void load_supers(struct layout l, const struct place *p, struct supers *s)
{
    const uint16_t *supers = (const uint16_t *)p->supers;
    s->d = vf_of_f16(supers);
    if (super_unit(l) != 1)
        s->d = vf_mul(s->d, vf_set(super_unit(l)));
    if (l.minima)
        s->m = vf_of_f16(supers + ROW_GROUP);
}

/* The scale and the minimum of half h of a K type's block at p, for the 16 rows. */
INLINE void load_k_scales(struct layout l, const struct place *p, int h, vi *scale, vf *min)
{
    const uint8_t *scales = p->scales + h * ROW_GROUP;
    *min = vf_zero();
    if (!l.minima) {
        *scale = vi_of_i8(scales);
    } else if (l.halves) {
        const vi both = vi_of_u8(scales);
        *scale = vi_and(both, vi_set(15));
        *min = vf_of_vi(vi_shr16(both, 4));
    } else {
        *scale = vi_of_u8(scales);
        *min = vf_of_vi(vi_of_u8(scales + ROW_GROUP));
    }
}

/* What an integer sum starts with: minus offset times the sum of the activation codes. */
INLINE vi offset_sum(struct layout l, int32_t minus_sum)
{
    if (!l.offset)
        return vi_zero();
    return value_bits(l) == 8 ? vi_dot8_start(minus_sum) : vi_shl32(vi_set(minus_sum), l.offset_shift);
}

INLINE vi start_sum(struct layout l, int h, const struct act_block *s)
{
    return offset_sum(l, !l.halves ? s->minus_sum : h == 0 ? s->minus_sum_low : s->minus_sum - s->minus_sum_low);
}

INLINE vi dot_quad(struct layout l, vi acc, vi codes, const int8_t *x)
{
    return value_bits(l) < 8 ? vi_dot(acc, codes, quad_load(x))
           : l.book          ? vi_dot8_book(acc, codes, quad_load(x))
                             : vi_dot8(acc, codes, quad_load(x));
}

/* As dot_codes, below, with all codes made first: where registers hold them. */
INLINE void dot_all_codes(struct layout l, const struct words *w, struct tokens x, const vi *scale,
                          vi sum[2][TILE_TOKENS])
{
    vi codes[8];
#pragma GCC unroll 8
    for (int q = 0; q < 8; q++) {
        codes[q] = codes_of(l, w, q);
        if (scale)
            codes[q] = vi_mul16(codes[q], scale[q >= 4]);
    }
#pragma GCC unroll 8
    for (int q = 0; q < 8; q++)
        for (int t = 0; t < x.n; t++) {
            vi *to = &sum[l.halves && !scale && q >= 4][t];
            *to = dot_quad(l, *to, codes[q], x.codes + t * x.code_stride + 4 * q);
        }
}

/* sum[h][t] += the products of a block's codes with each token's, those of half h if halves have sums of their own. scale:
 * what codes of the halves are multiplied with before, which have one sum then; NULL: nothing. A few codes are made at a
 * time and used for all tokens, for registers do not hold all. */
INLINE void dot_codes(struct layout l, const struct place *p, struct tokens x, const vi *scale, vi sum[2][TILE_TOKENS])
{
    const bool halves = l.halves && !scale, parts = halves && l.low_bits == 4; /* a pair is of both halves */
    const int pairs = dot_room(scale ? 6 : value_bits(l)) / 2, room = halves && pairs > 2 ? 2 : pairs;
    const struct words w = load_words(l, p->codes);
    vi narrow[TILE_TOKENS];
    if (HOLDS_ALL_CODES) {
        dot_all_codes(l, &w, x, scale, sum);
        return;
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const int q[2] = {quad_of(l, i, 0), quad_of(l, i, 1)}, half[2] = {halves && q[0] >= 4, halves && q[1] >= 4};
        vi codes[2];
        for (int k = 0; k < 2; k++) {
            codes[k] = codes_of(l, &w, q[k]);
            if (scale)
                codes[k] = vi_mul16(codes[k], scale[q[k] >= 4]); /* no byte carries into the next */
        }
        for (int t = 0; t < x.n; t++) {
            const int8_t *at = x.codes + t * x.code_stride;
            if (room < 1 || parts) {
                for (int k = 0; k < 2; k++)
                    sum[half[k]][t] = dot_quad(l, sum[half[k]][t], codes[k], at + 4 * q[k]);
                continue;
            }
            narrow[t] = vi_add_products(i % room ? narrow[t] : vi_zero(), codes[0], quad_load(at + 4 * q[0]));
            narrow[t] = vi_add_products(narrow[t], codes[1], quad_load(at + 4 * q[1]));
            if ((i + 1) % room == 0)
                sum[half[0]][t] = vi_add_widened(sum[half[0]][t], narrow[t]);
        }
    }
}

/* acc[t] += the block at p times each token's. */
INLINE void add_block(struct layout l, const struct place *p, struct tokens x, vf *acc)
{
    vi sum[2][TILE_TOKENS];
    ask_for_block(l, p, &x);
    for (int t = 0; t < x.n; t++)
        sum[0][t] = start_sum(l, 0, x.blocks + t * x.block_stride);
    dot_codes(l, p, x, NULL, sum);
    const vf d = load_d(l, p->scales);
    const vf m = l.minima ? vf_of_f16((const uint16_t *)p->scales + ROW_GROUP) : vf_zero();
    for (int t = 0; t < x.n; t++) {
        const struct act_block *s = x.blocks + t * x.block_stride;
        acc[t] = vf_fma(vf_of_vi(sum[0][t]), vf_mul(d, vf_set(s->scale)), acc[t]);
        if (l.minima)
            acc[t] = vf_fma(m, vf_set(s->scaled_sum), acc[t]);
    }
}

/* The scaled sum of half h of a block of activations, or of all of it. */
INLINE float scaled_sum(struct layout l, int h, const struct act_block *s)
{
    if (!l.halves)
        return s->scaled_sum;
    return s->scale * (float)(h == 0 ? -s->minus_sum_low : s->minus_sum_low - s->minus_sum);
}

/* Q2_K: a code times its scale fits a byte (3 * 15), so one product serves all of a tile's tokens. */
INLINE bool scales_codes(struct layout l, int n) { return l.halves && l.low_bits + l.high_bits == 2 && n >= 4; }

/* whole[t] = the integer sums of a K type's block, times its scales. */
INLINE void dot_scaled_codes(struct layout l, const struct place *p, struct tokens x, vi *whole)
{
    vi sum[2][TILE_TOKENS], scale[2];
    vf min;
    for (int h = 0; h < 2; h++) {
        load_k_scales(l, p, h, &scale[h], &min);
        scale[h] = vi_add(scale[h], vi_shl32(scale[h], 16));
    }
    for (int t = 0; t < x.n; t++)
        sum[0][t] = vi_zero();
    dot_codes(l, p, x, scale, sum);
    for (int t = 0; t < x.n; t++)
        whole[t] = sum[0][t];
}

/* The same for any type and number of tokens. */
INLINE void scale_dots(struct layout l, const struct place *p, struct tokens x, vi *whole)
{
    vi sum[2][TILE_TOKENS];
    for (int h = 0; h < (l.halves ? 2 : 1); h++)
        for (int t = 0; t < x.n; t++)
            sum[h][t] = start_sum(l, h, x.blocks + t * x.block_stride);
    dot_codes(l, p, x, NULL, sum);
    for (int h = 0; h < (l.halves ? 2 : 1); h++) {
        vi scale;
        vf min;
        load_k_scales(l, p, h, &scale, &min);
        for (int t = 0; t < x.n; t++) {
            const vi scaled = vi_mul(scale, sum[h][t]);
            whole[t] = h == 0 ? scaled : vi_add(whole[t], scaled);
        }
    }
}

/* a[t] += a K type's block, before the super-block's scale. */
INLINE void add_k_block(struct layout l, const struct place *p, struct tokens x, vf *a)
{
    vi whole[TILE_TOKENS];
    ask_for_block(l, p, &x);
    if (scales_codes(l, x.n))
        dot_scaled_codes(l, p, x, whole);
    else
        scale_dots(l, p, x, whole);
    for (int t = 0; t < x.n; t++)
        a[t] = vf_fma(vf_of_vi(whole[t]), vf_set(x.blocks[t * x.block_stride].scale), a[t]);
}

/* least[t] += its minima. */
INLINE void add_minima(struct layout l, const struct place *p, struct tokens x, vf *least)
{
    for (int h = 0; h < (l.halves ? 2 : 1) && l.minima; h++) {
        vi scale;
        vf min;
        load_k_scales(l, p, h, &scale, &min);
        for (int t = 0; t < x.n; t++)
            least[t] = vf_fma(min, vf_set(scaled_sum(l, h, x.blocks + t * x.block_stride)), least[t]);
    }
}

/* acc[t] += blocks [b, end) of a group. */
INLINE void add_blocks(struct layout l, uint8_t *group, int64_t b, int64_t end, struct tokens x, vf *acc)
{
    for (; b < end; b++) {
        const struct place p = layout_place(l, group, b);
        add_block(l, &p, tokens_at(x, b), acc);
    }
}

/* The same of a K type. The minima of a whole tile follow its blocks: registers do not hold both sums. */
INLINE void add_halves(struct layout l, uint8_t *group, int64_t b, int64_t end, struct tokens x, vf *acc)
{
    const bool apart = x.n == TILE_TOKENS;
    for (int64_t stop; b < end; b = stop) {
        struct place p = layout_place(l, group, b);
        vf a[TILE_TOKENS], least[TILE_TOKENS];
        struct supers supers;
        if (x.ask)
            prefetch_ahead(p.supers, layout_super_bytes(l));
        load_supers(l, &p, &supers);
        for (int t = 0; t < x.n; t++)
            a[t] = least[t] = vf_zero();
        stop = unit_end(b, HALF_BLOCKS, end);
        for (int64_t i = b; i < stop; i++) {
            p = layout_place(l, group, i);
            add_k_block(l, &p, tokens_at(x, i), a);
            if (!apart)
                add_minima(l, &p, tokens_at(x, i), least);
        }
        for (int t = 0; t < x.n; t++)
            acc[t] = vf_fma(supers.d, a[t], acc[t]);
        for (int64_t i = b; i < stop && apart && l.minima; i++) {
            p = layout_place(l, group, i);
            add_minima(l, &p, tokens_at(x, i), least);
        }
        for (int t = 0; t < x.n && l.minima; t++)
            acc[t] = vf_fnma(supers.m, least[t], acc[t]);
    }
}

#endif
