/* Packed blocks of 32 columns of 16 rows times the tokens of a tile, in the words of *_vec.h: what vec_matmul.h sums.
 * Layouts and numbers of tokens are constants wherever these functions are inlined. */
#ifndef HEARTH_KERNELS_X86_VEC_BLOCKS_H
#define HEARTH_KERNELS_X86_VEC_BLOCKS_H

#include "kernels/x86/vec_codes.h"

/* While one token is computed the hardware prefetches as fast as memory can, if loads come in ascending order. When
 * several tokens share what is read, it sees the weights among many runs of activations and loses them: eight tokens
 * take 1.5 to 2 times as long on a Zen 4 core if they do not ask for what lies this far ahead. */
enum { AHEAD = 8192 };

/* Asks for n bytes to be brought into the second level. */
INLINE void prefetch_ahead(const uint8_t *p, size_t n)
{
    for (size_t at = 0; at < n; at += 64)
        __builtin_prefetch(p + AHEAD + at, 0, 2);
}

/* The tokens of a tile, from a block on: each token's codes and blocks so many behind those of the one before. */
struct tokens {
    int n;      /* a constant wherever this is inlined */
    bool first; /* of those that read the group: it comes from memory */
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

/* Whether they ask ahead. Where they are so few that memory is the bound all the same, it takes more than it gives. */
INLINE bool asks_for_blocks(struct layout l, const struct tokens *x)
{
    return x->n >= (l.low_bits == 8 ? 4 : 2) && x->first;
}

/* The codes of one block: quad q of all 16 rows. */
INLINE void load_codes(struct layout l, const uint8_t *p, vi codes[8])
{
    const vi low4 = vi_set(0x0f0f0f0f), low2 = vi_set(0x03030303);
    if (l.low_bits == 8) {
        for (int q = 0; q < 8; q++)
            codes[q] = vi_load_in_order(p + 64 * q);
    } else if (l.low_bits == 4) {
        for (int i = 0; i < 4; i++) {
            vi v = vi_load_in_order(p + 64 * i);
            codes[i] = vi_and(v, low4);
            codes[i + 4] = vi_and(vi_shr16(v, 4), low4);
        }
    } else {
        for (int h = 0; h < 2; h++) {
            vi v = vi_load_in_order(p + 64 * h);
            codes[h] = vi_and(v, low2);
            codes[2 + h] = vi_and(vi_shr16(v, 2), low2);
            codes[4 + h] = vi_and(vi_shr16(v, 4), low2);
            codes[6 + h] = vi_and(vi_shr16(v, 6), low2);
        }
    }
}

/* Adds the high bits of Q6_K (2 above 4 low ones), Q5 (1 above 4) and Q3_K (1 above 2). */
INLINE void load_high_codes(struct layout l, const uint8_t *p, vi codes[8])
{
    if (l.high_bits == 2) {
        const vi mask = vi_set(0x30303030);
        for (int h = 0; h < 2; h++) {
            vi v = vi_load_in_order(p + 64 * h);
            codes[h] = vi_or_and(codes[h], vi_shl16(v, 4), mask);
            codes[2 + h] = vi_or_and(codes[2 + h], vi_shl16(v, 2), mask);
            codes[4 + h] = vi_or_and(codes[4 + h], v, mask);
            codes[6 + h] = vi_or_and(codes[6 + h], vi_shr16(v, 2), mask);
        }
    } else if (l.high_bits == 1) {
        vi v = vi_load_in_order(p);
        if (l.low_bits == 4) {
            const vi mask = vi_set(0x10101010);
            codes[0] = vi_or_and(codes[0], vi_shl16(v, 4), mask);
            codes[1] = vi_or_and(codes[1], vi_shl16(v, 3), mask);
            codes[2] = vi_or_and(codes[2], vi_shl16(v, 2), mask);
            codes[3] = vi_or_and(codes[3], vi_shl16(v, 1), mask);
            codes[4] = vi_or_and(codes[4], v, mask);
            codes[5] = vi_or_and(codes[5], vi_shr16(v, 1), mask);
            codes[6] = vi_or_and(codes[6], vi_shr16(v, 2), mask);
            codes[7] = vi_or_and(codes[7], vi_shr16(v, 3), mask);
        } else {
            const vi mask = vi_set(0x04040404);
            codes[0] = vi_or_and(codes[0], vi_shl16(v, 2), mask);
            codes[1] = vi_or_and(codes[1], vi_shl16(v, 1), mask);
            codes[2] = vi_or_and(codes[2], v, mask);
            codes[3] = vi_or_and(codes[3], vi_shr16(v, 1), mask);
            codes[4] = vi_or_and(codes[4], vi_shr16(v, 2), mask);
            codes[5] = vi_or_and(codes[5], vi_shr16(v, 3), mask);
            codes[6] = vi_or_and(codes[6], vi_shr16(v, 4), mask);
            codes[7] = vi_or_and(codes[7], vi_shr16(v, 5), mask);
        }
    }
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
    return value_bits(l) == 8 ? vi_dot8(acc, codes, quad_load(x)) : vi_dot(acc, codes, quad_load(x));
}

/* sum[t] = the integer sums of half h of a block, or of all 32 columns, for each token. */
INLINE void dot_block(struct layout l, int h, const vi codes[8], struct tokens x, vi *sum)
{
    for (int t = 0; t < x.n; t++)
        sum[t] = start_sum(l, h, x.blocks + t * x.block_stride);
    for (int q = l.halves ? 4 * h : 0; q < (l.halves ? 4 * h + 4 : 8); q++)
        for (int t = 0; t < x.n; t++)
            sum[t] = dot_quad(l, sum[t], codes[q], x.codes + t * x.code_stride + 4 * q);
}

INLINE void load_block(struct layout l, const struct place *p, struct tokens x, vi codes[8])
{
    if (asks_for_blocks(l, &x))
        prefetch_ahead(p->scales, layout_scale_bytes(l) + layout_code_bytes(l));
    load_codes(l, p->codes, codes);
    load_high_codes(l, p->codes + 64 * l.low_bits, codes);
    look_up(l, 8, codes);
}

/* acc[t] += the block at p times each token's. */
INLINE void add_block(struct layout l, const struct place *p, struct tokens x, vf *acc)
{
    vi codes[8], sum[TILE_TOKENS];
    load_block(l, p, x, codes);
    dot_block(l, 0, codes, x, sum);
    const vf d = load_d(l, p->scales);
    const vf m = l.minima ? vf_of_f16((const uint16_t *)p->scales + ROW_GROUP) : vf_zero();
    for (int t = 0; t < x.n; t++) {
        const struct act_block *s = x.blocks + t * x.block_stride;
        acc[t] = vf_fma(vf_of_vi(sum[t]), vf_mul(d, vf_set(s->scale)), acc[t]);
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
INLINE void dot_scaled_codes(struct layout l, const struct place *p, const vi codes[8], struct tokens x, vi *whole)
{
    for (int t = 0; t < x.n; t++)
        whole[t] = vi_zero();
    for (int h = 0; h < 2; h++) {
        vi scale;
        vf min;
        load_k_scales(l, p, h, &scale, &min);
        scale = vi_add(scale, vi_shl32(scale, 16));
        for (int q = 4 * h; q < 4 * h + 4; q++) {
            const vi scaled = vi_mul16(codes[q], scale); /* no byte carries into the next */
            for (int t = 0; t < x.n; t++)
                whole[t] = dot_quad(l, whole[t], scaled, x.codes + t * x.code_stride + 4 * q);
        }
    }
}

/* The same for any type and number of tokens. */
INLINE void scale_dots(struct layout l, const struct place *p, const vi codes[8], struct tokens x, vi *whole)
{
    for (int h = 0; h < (l.halves ? 2 : 1); h++) {
        vi sum[TILE_TOKENS], scale;
        vf min;
        dot_block(l, h, codes, x, sum);
        load_k_scales(l, p, h, &scale, &min);
        for (int t = 0; t < x.n; t++) {
            const vi scaled = vi_mul(scale, sum[t]);
            whole[t] = h == 0 ? scaled : vi_add(whole[t], scaled);
        }
    }
}

/* a[t] += a K type's block, before the super-block's scale. */
INLINE void add_k_block(struct layout l, const struct place *p, struct tokens x, vf *a)
{
    vi codes[8], whole[TILE_TOKENS];
    load_block(l, p, x, codes);
    if (scales_codes(l, x.n))
        dot_scaled_codes(l, p, codes, x, whole);
    else
        scale_dots(l, p, codes, x, whole);
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
        if (asks_for_blocks(l, &x))
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
