/* Vector types: structs with the alignment that CUDA gives them. */
#ifndef SIMT_VECTORS_H
#define SIMT_VECTORS_H

#include <simt.h>

#define SIMT_VECTORS(type, name) \
    struct name##1 { \
        type x; \
    }; \
    struct __attribute__((aligned(2 * sizeof(type)))) name##2 { \
        type x, y; \
    }; \
    struct __attribute__((aligned(4 * sizeof(type) > 16 ? 16 : 4 * sizeof(type)))) name##4 { \
        type x, y, z, w; \
    }; \
    static inline name##1 make_##name##1(type x) { return {x}; } \
    static inline name##2 make_##name##2(type x, type y) { return {x, y}; } \
    static inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
#define SIMT_TRIPLE(type, name) \
    struct name##3 { \
        type x, y, z; \
    }; \
    static inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }

SIMT_VECTORS(signed char, char)
SIMT_VECTORS(unsigned char, uchar)
SIMT_VECTORS(short, short)
SIMT_VECTORS(unsigned short, ushort)
SIMT_VECTORS(int, int)
SIMT_VECTORS(unsigned, uint)
SIMT_VECTORS(long long, longlong)
SIMT_VECTORS(unsigned long long, ulonglong)
SIMT_VECTORS(float, float)
SIMT_VECTORS(double, double)
SIMT_TRIPLE(int, int)
SIMT_TRIPLE(float, float)
#undef SIMT_VECTORS
#undef SIMT_TRIPLE

static inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned i = 1, unsigned j = 1, unsigned k = 1) : x(i), y(j), z(k) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
    constexpr operator uint3() const { return {x, y, z}; }
};

#endif
