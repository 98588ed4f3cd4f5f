/* A vector of 16 lanes as two ymm registers; the words are those of avx512_vec.h. */
#ifndef HEARTH_KERNELS_X86_AVX2_VEC_H
#define HEARTH_KERNELS_X86_AVX2_VEC_H

#include <immintrin.h>
#include <stdint.h>

enum { TILE_TOKENS = 4 }; /* accumulators of a tile fit the 16 registers */

typedef struct { __m256 a, b; } vf;
typedef struct { __m256i a, b; } vi;

#define VF(op_a, op_b) ((vf){op_a, op_b})
#define VI(op_a, op_b) ((vi){op_a, op_b})

static inline vf vf_load(const float *p) { return VF(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
static inline void vf_store(float *p, vf v)
{
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
}
static inline vf vf_load_part(const float *p, int64_t n)
{
    float all[16] = {0};
    __builtin_memcpy(all, p, (size_t)n * sizeof *p);
    return vf_load(all);
}
static inline void vf_store_part(float *p, vf v, int64_t n)
{
    float all[16];
    vf_store(all, v);
    __builtin_memcpy(p, all, (size_t)n * sizeof *p);
}
static inline vf vf_set(float x) { return VF(_mm256_set1_ps(x), _mm256_set1_ps(x)); }
static inline vf vf_zero(void) { return VF(_mm256_setzero_ps(), _mm256_setzero_ps()); }
static inline vf vf_add(vf x, vf y) { return VF(_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)); }
static inline vf vf_sub(vf x, vf y) { return VF(_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)); }
static inline vf vf_mul(vf x, vf y) { return VF(_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)); }
static inline vf vf_div(vf x, vf y) { return VF(_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)); }
static inline vf vf_fma(vf x, vf y, vf z) { return VF(_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)); }
static inline vf vf_fnma(vf x, vf y, vf z)
{
    return VF(_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b));
}
static inline vf vf_max(vf x, vf y) { return VF(_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)); }
static inline vf vf_min(vf x, vf y) { return VF(_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)); }
static inline vf vf_abs(vf x)
{
    __m256 s = _mm256_set1_ps(-0.0f);
    return VF(_mm256_andnot_ps(s, x.a), _mm256_andnot_ps(s, x.b));
}
static inline vf vf_neg(vf x)
{
    __m256 s = _mm256_set1_ps(-0.0f);
    return VF(_mm256_xor_ps(s, x.a), _mm256_xor_ps(s, x.b));
}
static inline vf vf_of_vi(vi x) { return VF(_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)); }
static inline vi vi_round(vf x) { return VI(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)); }
static inline vi vi_bits(vf x) { return VI(_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)); }
static inline vf vf_bits(vi x) { return VF(_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)); }
static inline __m128i load128(const void *p) { return _mm_loadu_si128((const __m128i *)p); }
static inline vf vf_of_f16(const uint16_t *p)
{
    return VF(_mm256_cvtph_ps(load128(p)), _mm256_cvtph_ps(load128(p + 8)));
}
static inline vf vf_of_bf16(const uint16_t *p)
{
    return VF(_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load128(p)), 16)),
              _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load128(p + 8)), 16)));
}
static inline void vf_to_f16(uint16_t *p, vf x)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i *)(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
static inline float vf_add_lanes(vf x)
{
    __m256 b = _mm256_add_ps(x.a, x.b);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
static inline float vf_max_lanes(vf x)
{
    __m256 b = _mm256_max_ps(x.a, x.b);
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_shuffle_ps(c, c, 1)));
}
static inline vi vi_max(vi x, vi y) { return VI(_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)); }
static inline int32_t vi_max_lanes(vi x)
{
    __m256i b = _mm256_max_epi32(x.a, x.b);
    __m128i c = _mm_max_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    c = _mm_max_epi32(c, _mm_unpackhi_epi64(c, c));
    return _mm_cvtsi128_si32(_mm_max_epi32(c, _mm_shuffle_epi32(c, 1)));
}

typedef struct { __m256d v[4]; } vd;
static inline vd vd_zero(void)
{
    __m256d z = _mm256_setzero_pd();
    return (vd){{z, z, z, z}};
}
static inline __m256d on_grid(__m128 v, __m256d grid)
{
    return _mm256_sub_pd(_mm256_add_pd(_mm256_cvtps_pd(v), grid), grid);
}
static inline vd vd_add_on_grid(vd sum, vf v, double grid)
{
    __m256d g = _mm256_set1_pd(grid);
    return (vd){{_mm256_add_pd(sum.v[0], on_grid(_mm256_castps256_ps128(v.a), g)),
                 _mm256_add_pd(sum.v[1], on_grid(_mm256_extractf128_ps(v.a, 1), g)),
                 _mm256_add_pd(sum.v[2], on_grid(_mm256_castps256_ps128(v.b), g)),
                 _mm256_add_pd(sum.v[3], on_grid(_mm256_extractf128_ps(v.b, 1), g))}};
}
/* The same counted in units of the grid, of which 1 has so many: fewer instructions, the same bits below 2^98. */
static inline vd vd_add_units(vd sum, vf v, float units)
{
    const __m256 u = _mm256_set1_ps(units);
    const __m256 a = _mm256_round_ps(_mm256_mul_ps(v.a, u), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256 b = _mm256_round_ps(_mm256_mul_ps(v.b, u), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return (vd){{_mm256_add_pd(sum.v[0], _mm256_cvtps_pd(_mm256_castps256_ps128(a))),
                 _mm256_add_pd(sum.v[1], _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1))),
                 _mm256_add_pd(sum.v[2], _mm256_cvtps_pd(_mm256_castps256_ps128(b))),
                 _mm256_add_pd(sum.v[3], _mm256_cvtps_pd(_mm256_extractf128_ps(b, 1)))}};
}
static inline vd vd_scale(vd x, double by)
{
    for (int i = 0; i < 4; i++)
        x.v[i] = _mm256_mul_pd(x.v[i], _mm256_set1_pd(by));
    return x;
}
static inline void vd_store(double *p, vd x)
{
    for (int i = 0; i < 4; i++)
        _mm256_storeu_pd(p + 4 * i, x.v[i]);
}
static inline vd vd_load(const double *p)
{
    return (vd){{_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4), _mm256_loadu_pd(p + 8), _mm256_loadu_pd(p + 12)}};
}

static inline vi vi_zero(void) { return VI(_mm256_setzero_si256(), _mm256_setzero_si256()); }
static inline vi vi_set(int32_t x) { return VI(_mm256_set1_epi32(x), _mm256_set1_epi32(x)); }
static inline vi vi_load(const void *p)
{
    return VI(_mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)p + 1));
}
/* The same, where the compiler may not move it behind the next of its kind. */
static inline vi vi_load_in_order(const void *p)
{
    vi v = vi_load(p);
    __asm__ volatile("" : "+x"(v.a), "+x"(v.b));
    return v;
}
static inline vi vi_and(vi x, vi y) { return VI(_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)); }
static inline vi vi_or_and(vi x, vi y, vi z)
{
    return VI(_mm256_or_si256(x.a, _mm256_and_si256(y.a, z.a)), _mm256_or_si256(x.b, _mm256_and_si256(y.b, z.b)));
}
static inline vi vi_add(vi x, vi y) { return VI(_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)); }
static inline vi vi_sub(vi x, vi y) { return VI(_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)); }
static inline vi vi_mul(vi x, vi y) { return VI(_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)); }
static inline vi vi_mul16(vi x, vi y) { return VI(_mm256_mullo_epi16(x.a, y.a), _mm256_mullo_epi16(x.b, y.b)); }
#define vi_shl32(x, n) VI(_mm256_slli_epi32((x).a, n), _mm256_slli_epi32((x).b, n))
#define vi_shr16(x, n) VI(_mm256_srli_epi16((x).a, n), _mm256_srli_epi16((x).b, n))
#define vi_shl16(x, n) VI(_mm256_slli_epi16((x).a, n), _mm256_slli_epi16((x).b, n))
static inline __m128i load64(const void *p) { return _mm_loadl_epi64((const __m128i *)p); }
static inline vi vi_of_u8(const uint8_t *p)
{
    return VI(_mm256_cvtepu8_epi32(load64(p)), _mm256_cvtepu8_epi32(load64(p + 8)));
}
static inline vi vi_of_i8(const uint8_t *p)
{
    return VI(_mm256_cvtepi8_epi32(load64(p)), _mm256_cvtepi8_epi32(load64(p + 8)));
}

static inline vi vi_look_up(const uint8_t book[16], vi codes)
{
    const __m256i v = _mm256_broadcastsi128_si256(load128(book));
    return VI(_mm256_shuffle_epi8(v, codes.a), _mm256_shuffle_epi8(v, codes.b));
}

/* Of a book of 8 bits: values with their signs. */
static inline vi vi_look_up8(const uint8_t book[16], vi codes)
{
    const __m128i values = _mm_xor_si128(load128(book), _mm_set1_epi8((char)0x80));
    const __m256i v = _mm256_broadcastsi128_si256(values);
    return VI(_mm256_shuffle_epi8(v, codes.a), _mm256_shuffle_epi8(v, codes.b));
}

typedef __m256i quad_x;
static inline quad_x quad_load(const int8_t *p)
{
    int32_t v;
    __builtin_memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
}
/* Codes are below 128, so that the two products of a 16-bit word cannot saturate. */
static inline __m256i dot_ymm(__m256i acc, __m256i codes, __m256i x)
{
    return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(codes, x), _mm256_set1_epi16(1)));
}
static inline vi vi_dot(vi acc, vi codes, quad_x x)
{
    return VI(dot_ymm(acc.a, codes.a, x), dot_ymm(acc.b, codes.b, x));
}
enum { HOLDS_ALL_CODES = 0 };
/* A 16-bit sum of products has room for those of 8 quads of codes below 16 (8 * 2 * 15 * 127), of 4 below 32, of 2
 * below 64; only then it is widened. */
static inline __attribute__((always_inline)) int dot_room(int bits)
{
    return bits <= 4 ? 8 : bits == 5 ? 4 : bits == 6 ? 2 : 1;
}
static inline vi vi_add_products(vi narrow, vi codes, quad_x x)
{
    return VI(_mm256_add_epi16(narrow.a, _mm256_maddubs_epi16(codes.a, x)),
              _mm256_add_epi16(narrow.b, _mm256_maddubs_epi16(codes.b, x)));
}
static inline vi vi_add_widened(vi acc, vi narrow)
{
    const __m256i ones = _mm256_set1_epi16(1);
    return vi_add(acc, VI(_mm256_madd_epi16(narrow.a, ones), _mm256_madd_epi16(narrow.b, ones)));
}
/* 8-bit codes: as signed weights w, |w| times sign(w) x: 128 * 127 * 2 still fits 16 bits. No bias is left. */
static inline __m256i dot8_ymm(__m256i acc, __m256i codes, __m256i x)
{
    __m256i w = _mm256_xor_si256(codes, _mm256_set1_epi8((char)0x80));
    return dot_ymm(acc, _mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
}
static inline vi vi_dot8(vi acc, vi codes, quad_x x)
{
    return VI(dot8_ymm(acc.a, codes.a, x), dot8_ymm(acc.b, codes.b, x));
}
/* A book has no -128, so here it is x whose sign moves: less to do where it is the same for all lanes. */
static inline vi vi_dot8_book(vi acc, vi values, quad_x x)
{
    const __m256i size = _mm256_abs_epi8(x);
    return VI(dot_ymm(acc.a, size, _mm256_sign_epi8(values.a, x)), dot_ymm(acc.b, size, _mm256_sign_epi8(values.b, x)));
}
static inline vi vi_dot8_start(int32_t minus_sum)
{
    (void)minus_sum;
    return vi_zero();
}

static inline __m256i first_lanes(int64_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vi vi_load_part(const void *p, int64_t n)
{
    return VI(_mm256_maskload_epi32(p, first_lanes(n)), _mm256_maskload_epi32((const int *)p + 8, first_lanes(n - 8)));
}
static inline vf vf_of_f16_part(const uint16_t *p, int64_t n)
{
    uint16_t all[16] = {0};
    __builtin_memcpy(all, p, (size_t)n * sizeof *p);
    return vf_of_f16(all);
}
static inline vf vf_of_bf16_part(const uint16_t *p, int64_t n)
{
    uint16_t all[16] = {0};
    __builtin_memcpy(all, p, (size_t)n * sizeof *p);
    return vf_of_bf16(all);
}
static inline vi vi_of_u8_part(const uint8_t *p, int64_t n)
{
    uint8_t all[16] = {0};
    __builtin_memcpy(all, p, (size_t)n);
    return vi_of_u8(all);
}
static inline vi vi_of_i8_part(const uint8_t *p, int64_t n)
{
    uint8_t all[16] = {0};
    __builtin_memcpy(all, p, (size_t)n);
    return vi_of_i8(all);
}
static inline vf vf_of_f16_pair(uint32_t pair)
{
    __m128 both = _mm_cvtph_ps(_mm_cvtsi32_si128((int)pair));
    return VF(_mm256_broadcastss_ps(both), _mm256_broadcastss_ps(_mm_movehdup_ps(both)));
}
static inline __attribute__((always_inline)) vi vi_dot_lanes(vi acc, int bits, const vi *codes, const int8_t *x, int n)
{
    const __m256i ones = _mm256_set1_epi16(1);
    for (int q = 0; q < n;) {
        const int end = q + dot_room(bits) < n ? q + dot_room(bits) : n;
        vi sum = vi_zero();
        for (; q < end; q++) {
            const vi v = vi_load(x + 64 * q);
            sum.a = _mm256_add_epi16(sum.a, _mm256_maddubs_epi16(codes[q].a, v.a));
            sum.b = _mm256_add_epi16(sum.b, _mm256_maddubs_epi16(codes[q].b, v.b));
        }
        acc = vi_add(acc, VI(_mm256_madd_epi16(sum.a, ones), _mm256_madd_epi16(sum.b, ones)));
    }
    return acc;
}
static inline __attribute__((always_inline)) vi vi_dot8_lanes(vi minus_sum, const vi *codes, const int8_t *x, int n)
{
    (void)minus_sum;
    vi acc = vi_zero();
    for (int q = 0; q < n; q++) {
        const vi v = vi_load(x + 64 * q);
        acc = VI(dot8_ymm(acc.a, codes[q].a, v.a), dot8_ymm(acc.b, codes[q].b, v.b));
    }
    return acc;
}
static inline __attribute__((always_inline)) vi vi_dot8_book_lanes(vi minus_sum, const vi *values, const int8_t *x,
                                                                   int n)
{
    (void)minus_sum;
    vi acc = vi_zero();
    for (int q = 0; q < n; q++) {
        const vi v = vi_load(x + 64 * q);
        acc = VI(dot_ymm(acc.a, _mm256_abs_epi8(v.a), _mm256_sign_epi8(values[q].a, v.a)),
                 dot_ymm(acc.b, _mm256_abs_epi8(v.b), _mm256_sign_epi8(values[q].b, v.b)));
    }
    return acc;
}

/* Lane j of v[i] becomes lane i of v[j], 8 x 8; 4 x 4 within each 128 bits, then the 128 bits of two vectors. */
static inline void transpose8(__m256 v[8])
{
    __m256 a[8];
    for (int i = 0; i < 8; i += 4) {
        __m256 p = _mm256_unpacklo_ps(v[i], v[i + 1]), q = _mm256_unpackhi_ps(v[i], v[i + 1]);
        __m256 r = _mm256_unpacklo_ps(v[i + 2], v[i + 3]), s = _mm256_unpackhi_ps(v[i + 2], v[i + 3]);
        a[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(p), _mm256_castps_pd(r)));
        a[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(p), _mm256_castps_pd(r)));
        a[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(q), _mm256_castps_pd(s)));
        a[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(q), _mm256_castps_pd(s)));
    }
    for (int j = 0; j < 4; j++) {
        v[j] = _mm256_permute2f128_ps(a[j], a[j + 4], 0x20);
        v[j + 4] = _mm256_permute2f128_ps(a[j], a[j + 4], 0x31);
    }
}
static inline void vf_transpose16(vf v[16])
{
    __m256 part[2][2][8]; /* [lanes][vectors] */
    for (int i = 0; i < 16; i++) {
        part[0][i / 8][i % 8] = v[i].a;
        part[1][i / 8][i % 8] = v[i].b;
    }
    for (int i = 0; i < 4; i++)
        transpose8(part[i / 2][i % 2]);
    for (int i = 0; i < 16; i++)
        v[i] = VF(part[i / 8][0][i % 8], part[i / 8][1][i % 8]);
}

static inline uint32_t nonzero_bytes(const int8_t *p)
{
    __m256i v = _mm256_loadu_si256((const __m256i *)p);
    return ~(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(v, _mm256_setzero_si256()));
}
static inline uint32_t nonzero_floats(const float *p)
{
    const __m256 zero = _mm256_setzero_ps();
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(p), zero, _CMP_NEQ_UQ)) |
           (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(p + 8), zero, _CMP_NEQ_UQ)) << 8;
}

static inline vi vi_load_twice(const void *p)
{
    __m256i v = _mm256_loadu_si256((const __m256i *)p);
    return VI(v, v);
}
static inline vi vi_load_fourfold(const void *p)
{
    __m256i v = _mm256_broadcastsi128_si256(load128(p));
    return VI(v, v);
}
static inline vi vi_shr_twice(vi x) { return VI(x.a, _mm256_srli_epi32(x.b, 2)); }
static inline vi vi_shr_fourfold(vi x)
{
    return VI(_mm256_srlv_epi32(x.a, _mm256_set_epi32(1, 1, 1, 1, 0, 0, 0, 0)),
              _mm256_srlv_epi32(x.b, _mm256_set_epi32(3, 3, 3, 3, 2, 2, 2, 2)));
}
static inline void vi_zip(const vi v[4], vi of[4])
{
    vi low01 = VI(_mm256_unpacklo_epi8(v[0].a, v[1].a), _mm256_unpacklo_epi8(v[0].b, v[1].b));
    vi high01 = VI(_mm256_unpackhi_epi8(v[0].a, v[1].a), _mm256_unpackhi_epi8(v[0].b, v[1].b));
    vi low23 = VI(_mm256_unpacklo_epi8(v[2].a, v[3].a), _mm256_unpacklo_epi8(v[2].b, v[3].b));
    vi high23 = VI(_mm256_unpackhi_epi8(v[2].a, v[3].a), _mm256_unpackhi_epi8(v[2].b, v[3].b));
    of[0] = VI(_mm256_unpacklo_epi16(low01.a, low23.a), _mm256_unpacklo_epi16(low01.b, low23.b));
    of[1] = VI(_mm256_unpackhi_epi16(low01.a, low23.a), _mm256_unpackhi_epi16(low01.b, low23.b));
    of[2] = VI(_mm256_unpacklo_epi16(high01.a, high23.a), _mm256_unpacklo_epi16(high01.b, high23.b));
    of[3] = VI(_mm256_unpackhi_epi16(high01.a, high23.a), _mm256_unpackhi_epi16(high01.b, high23.b));
}

static inline vf vf_set_f16(const void *p)
{
    int16_t h;
    __builtin_memcpy(&h, p, sizeof h);
    __m256 v = _mm256_cvtph_ps(_mm_set1_epi16(h));
    return VF(v, v);
}

typedef vf q4_scale;
static inline q4_scale q4_scale_of(vf d) { return d; }
static inline vf vf_of_q4(q4_scale d, vi codes)
{
    return vf_mul(d, vf_of_vi(vi_sub(vi_and(codes, vi_set(15)), vi_set(8))));
}

#endif
