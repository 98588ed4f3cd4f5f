/* A vector of 16 lanes, one for each row of a group (or each lane of a sum): here one zmm register. The kernels in
 * vec_*.h are written once in these words; avx2_vec.h says them with two ymm registers. */
#ifndef HEARTH_KERNELS_X86_AVX512_VEC_H
#define HEARTH_KERNELS_X86_AVX512_VEC_H

#include <immintrin.h>
#include <stdint.h>

enum { TILE_TOKENS = 8 }; /* accumulators of a tile fit the 32 registers */

typedef __m512 vf;  /* 16 f32 */
typedef __m512i vi; /* 16 i32, or 64 bytes: 4 per lane */

static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
/* The first n lanes, n in [0, 16]; absent lanes are 0. */
static inline vf vf_load_part(const float *p, int64_t n)
{
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
static inline void vf_store_part(float *p, vf a, int64_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a);
}
static inline vf vf_set(float a) { return _mm512_set1_ps(a); }
static inline vf vf_zero(void) { return _mm512_setzero_ps(); }
static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf vf_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
static inline vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); } /* a > b ? a : b */
static inline vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf vf_abs(vf a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a); }
static inline vf vf_neg(vf a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
static inline vf vf_of_vi(vi a) { return _mm512_cvtepi32_ps(a); }
static inline vi vi_round(vf a) { return _mm512_cvtps_epi32(a); } /* to nearest even */
static inline vi vi_bits(vf a) { return _mm512_castps_si512(a); }
static inline vf vf_bits(vi a) { return _mm512_castsi512_ps(a); }
static inline vf vf_of_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
static inline vf vf_of_bf16(const uint16_t *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
static inline void vf_to_f16(uint16_t *p, vf a)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
/* The pairwise sum of lanes: i and i + 8, then + 4, + 2, + 1. */
static inline float vf_add_lanes(vf a)
{
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
static inline float vf_max_lanes(vf a) { return _mm512_reduce_max_ps(a); }
static inline vi vi_max(vi a, vi b) { return _mm512_max_epi32(a, b); }
static inline int32_t vi_max_lanes(vi a) { return _mm512_reduce_max_epi32(a); }

/* 16 f64. */
typedef struct { __m512d a, b; } vd;
static inline vd vd_zero(void) { return (vd){_mm512_setzero_pd(), _mm512_setzero_pd()}; }
static inline __m512d on_grid(__m256 v, __m512d grid)
{
    return _mm512_sub_pd(_mm512_add_pd(_mm512_cvtps_pd(v), grid), grid);
}
/* sum + each lane of v rounded to the grid. */
static inline vd vd_add_on_grid(vd sum, vf v, double grid)
{
    __m512d g = _mm512_set1_pd(grid);
    return (vd){_mm512_add_pd(sum.a, on_grid(_mm512_castps512_ps256(v), g)),
                _mm512_add_pd(sum.b, on_grid(_mm512_extractf32x8_ps(v, 1), g))};
}
/* The same counted in units of the grid, of which 1 has so many: fewer instructions, the same bits below 2^98. */
static inline vd vd_add_units(vd sum, vf v, float units)
{
    vf n = _mm512_roundscale_ps(_mm512_mul_ps(v, _mm512_set1_ps(units)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return (vd){_mm512_add_pd(sum.a, _mm512_cvtps_pd(_mm512_castps512_ps256(n))),
                _mm512_add_pd(sum.b, _mm512_cvtps_pd(_mm512_extractf32x8_ps(n, 1)))};
}
static inline vd vd_scale(vd v, double by)
{
    return (vd){_mm512_mul_pd(v.a, _mm512_set1_pd(by)), _mm512_mul_pd(v.b, _mm512_set1_pd(by))};
}
static inline void vd_store(double *p, vd v)
{
    _mm512_storeu_pd(p, v.a);
    _mm512_storeu_pd(p + 8, v.b);
}

static inline vd vd_load(const double *p) { return (vd){_mm512_loadu_pd(p), _mm512_loadu_pd(p + 8)}; }

static inline vi vi_zero(void) { return _mm512_setzero_si512(); }
static inline vi vi_set(int32_t a) { return _mm512_set1_epi32(a); }
static inline vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
/* The same, where the compiler may not move it behind the next of its kind. */
static inline vi vi_load_in_order(const void *p)
{
    vi v = vi_load(p);
    __asm__ volatile("" : "+v"(v));
    return v;
}
static inline vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
static inline vi vi_or_and(vi a, vi b, vi c) { return _mm512_ternarylogic_epi32(a, b, c, 0xf8); } /* a | b & c */
static inline vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
static inline vi vi_mul(vi a, vi b) { return _mm512_mullo_epi32(a, b); }
static inline vi vi_mul16(vi a, vi b) { return _mm512_mullo_epi16(a, b); } /* of 16-bit words */
/* Shifts by constants; right shifts are of 16-bit words (bytes are masked afterwards). */
#define vi_shl32(a, n) _mm512_slli_epi32(a, n)
#define vi_shr16(a, n) _mm512_srli_epi16(a, n)
#define vi_shl16(a, n) _mm512_slli_epi16(a, n)
static inline vi vi_of_u8(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)); }
static inline vi vi_of_i8(const uint8_t *p) { return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)); }

/* Each byte, below 16, becomes that byte of `book`. */
static inline vi vi_look_up(const uint8_t book[16], vi codes)
{
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)book)), codes);
}

/* The same of a book of 8 bits: as vi_dot8_book takes them. */
static inline vi vi_look_up8(const uint8_t book[16], vi codes) { return vi_look_up(book, codes); }

/* 4 activation codes, the same for every lane: where they lie, for the product reads them from there. */
typedef const int8_t *quad_x;
static inline quad_x quad_load(const int8_t *p) { return p; }
/* acc + the dot product of 4 unsigned codes with 4 activation codes, in each lane. Written out, as the compiler makes two
 * instructions of it: with fewer of them the processor sees further ahead of what it waits for. */
static inline vi vi_dot(vi acc, vi codes, quad_x x)
{
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(codes), "m"(*(const int8_t(*)[4])x));
    return acc;
}
/* The same for codes of 8 bits, biased by 128: starts at minus 128 times the sum of the activation codes. */
static inline vi vi_dot8(vi acc, vi codes, quad_x x) { return vi_dot(acc, codes, x); }
static inline vi vi_dot8_book(vi acc, vi values, quad_x x) { return vi_dot(acc, values, x); }
static inline vi vi_dot8_start(int32_t minus_sum) { return _mm512_slli_epi32(_mm512_set1_epi32(minus_sum), 7); }
/* Whether registers hold all codes of a block, beside the sums of a tile's tokens. */
enum { HOLDS_ALL_CODES = 1 };
/* How many quads of codes of `bits` bits are added up in narrower lanes before these are added to sums; 1: there is no
 * need. */
static inline __attribute__((always_inline)) int dot_room(int bits) { return bits > 0; }
static inline vi vi_add_products(vi narrow, vi codes, quad_x x) { return vi_dot(narrow, codes, x); }
static inline vi vi_add_widened(vi acc, vi narrow) { return vi_add(acc, narrow); }

/* The first n of 16 lanes, n in [0, 16]; absent lanes are 0. */
static inline __mmask16 first_lanes(int64_t n) { return (__mmask16)((1u << n) - 1); }
static inline vi vi_load_part(const void *p, int64_t n) { return _mm512_maskz_loadu_epi32(first_lanes(n), p); }
static inline vf vf_of_f16_part(const uint16_t *p, int64_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), p));
}
static inline vf vf_of_bf16_part(const uint16_t *p, int64_t n)
{
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first_lanes(n), p)), 16));
}
static inline vi vi_of_u8_part(const uint8_t *p, int64_t n)
{
    return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first_lanes(n), p));
}
static inline vi vi_of_i8_part(const uint8_t *p, int64_t n)
{
    return _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first_lanes(n), p));
}
/* The f16 in the low half of `pair` in lanes 0..7, the one in its high half in lanes 8..15. */
static inline vf vf_of_f16_pair(uint32_t pair)
{
    const __m512i half = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_permutexvar_ps(half, _mm512_castps128_ps512(_mm_cvtph_ps(_mm_cvtsi32_si128((int)pair))));
}
/* acc + the dot products of n quads of codes of `bits` bits, at most 7, with activation codes of their own for every
 * lane, 64 bytes a quad; for codes of 8 bits, biased by 128, from minus the sum of the activation codes. */
static inline __attribute__((always_inline)) vi vi_dot_lanes(vi acc, int bits, const vi *codes, const int8_t *x, int n)
{
    (void)bits;
    for (int q = 0; q < n; q++)
        acc = _mm512_dpbusd_epi32(acc, codes[q], vi_load(x + 64 * q));
    return acc;
}
static inline __attribute__((always_inline)) vi vi_dot8_lanes(vi minus_sum, const vi *codes, const int8_t *x, int n)
{
    return vi_dot_lanes(vi_shl32(minus_sum, 7), 8, codes, x, n);
}
static inline __attribute__((always_inline)) vi vi_dot8_book_lanes(vi minus_sum, const vi *values, const int8_t *x,
                                                                   int n)
{
    return vi_dot8_lanes(minus_sum, values, x, n);
}

/* Lane j of v[i] becomes lane i of v[j]. */
static inline void vf_transpose16(vf v[16])
{
    __m512 a[16];
    for (int i = 0; i < 16; i += 4) { /* 4 x 4 within each 128 bits */
        __m512 p = _mm512_unpacklo_ps(v[i], v[i + 1]), q = _mm512_unpackhi_ps(v[i], v[i + 1]);
        __m512 r = _mm512_unpacklo_ps(v[i + 2], v[i + 3]), s = _mm512_unpackhi_ps(v[i + 2], v[i + 3]);
        a[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(p), _mm512_castps_pd(r)));
        a[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(p), _mm512_castps_pd(r)));
        a[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(q), _mm512_castps_pd(s)));
        a[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(q), _mm512_castps_pd(s)));
    }
    for (int j = 0; j < 4; j++) { /* then the 128 bits of four vectors */
        __m512 p = _mm512_shuffle_f32x4(a[j], a[j + 4], 0x44), q = _mm512_shuffle_f32x4(a[j], a[j + 4], 0xee);
        __m512 r = _mm512_shuffle_f32x4(a[j + 8], a[j + 12], 0x44), s = _mm512_shuffle_f32x4(a[j + 8], a[j + 12], 0xee);
        v[j] = _mm512_shuffle_f32x4(p, r, 0x88);
        v[j + 4] = _mm512_shuffle_f32x4(p, r, 0xdd);
        v[j + 8] = _mm512_shuffle_f32x4(q, s, 0x88);
        v[j + 12] = _mm512_shuffle_f32x4(q, s, 0xdd);
    }
}

/* Which of 32 bytes, of 16 f32, are not zero (of either sign). */
static inline uint32_t nonzero_bytes(const int8_t *p)
{
    __m256i v = _mm256_loadu_si256((const __m256i *)p);
    return _mm256_test_epi8_mask(v, v);
}
static inline uint32_t nonzero_floats(const float *p)
{
    return _mm512_cmp_ps_mask(_mm512_loadu_ps(p), _mm512_setzero_ps(), _CMP_NEQ_UQ);
}

/* 32 or 16 bytes, loaded twice or four times over. */
static inline vi vi_load_twice(const void *p)
{
    return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)p));
}
static inline vi vi_load_fourfold(const void *p)
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)p));
}
/* Shifts the 16-byte lanes of a vector right by 0, 0, 2, 2 bits or by 0, 1, 2, 3 (bytes are masked afterwards). */
static inline vi vi_shr_twice(vi a)
{
    return _mm512_srlv_epi32(a, _mm512_set_epi32(2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0));
}
static inline vi vi_shr_fourfold(vi a)
{
    return _mm512_srlv_epi32(a, _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0));
}
/* Brings the bytes of four vectors side by side within each 16-byte lane: of[k] gets bytes 4k .. 4k + 3 of every lane. */
static inline void vi_zip(const vi v[4], vi of[4])
{
    vi low01 = _mm512_unpacklo_epi8(v[0], v[1]), high01 = _mm512_unpackhi_epi8(v[0], v[1]);
    vi low23 = _mm512_unpacklo_epi8(v[2], v[3]), high23 = _mm512_unpackhi_epi8(v[2], v[3]);
    of[0] = _mm512_unpacklo_epi16(low01, low23);
    of[1] = _mm512_unpackhi_epi16(low01, low23);
    of[2] = _mm512_unpacklo_epi16(high01, high23);
    of[3] = _mm512_unpackhi_epi16(high01, high23);
}

/* One f16 for all lanes. */
static inline vf vf_set_f16(const void *p)
{
    int16_t h;
    __builtin_memcpy(&h, p, sizeof h);
    return _mm512_cvtph_ps(_mm256_set1_epi16(h));
}

/* d * (code - 8) for codes of 4 bits; the bits above them do not matter. */
typedef __m512 q4_scale;
static inline q4_scale q4_scale_of(vf d)
{
    const __m512 value = _mm512_set_ps(7, 6, 5, 4, 3, 2, 1, 0, -1, -2, -3, -4, -5, -6, -7, -8);
    return _mm512_mul_ps(d, value);
}
static inline vf vf_of_q4(q4_scale d, vi codes) { return _mm512_permutexvar_ps(codes, d); }

#endif
