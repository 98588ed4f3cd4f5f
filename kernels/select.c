/* Which tables this machine can run. */
#include <string.h>

#include "base/log.h"
#include "kernels/tables.h"

#if HEARTH_X86
#include <cpuid.h>

/* What the CPU has and the operating system saves on a context switch (XGETBV, Intel SDM vol. 1, 13.3): a feature that
 * is announced but not enabled would fault. */
static uint64_t enabled_state(void)
{
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return (uint64_t)d << 32 | a;
}

static bool has_avx2(void)
{
    enum { STATE = 0x6 }; /* SSE, AVX */
    uint32_t a, b, c, d;
    if ((enabled_state() & STATE) != STATE || !__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_FMA) || !(c & bit_F16C))
        return false;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2);
}

static bool has_avx512(void)
{
    enum { STATE = 0xe6 }; /* SSE, AVX, opmask, upper ZMM, high ZMM */
    const uint32_t need = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    uint32_t a, b, c, d;
    return has_avx2() && (enabled_state() & STATE) == STATE && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
           (b & need) == need && (c & bit_AVX512VNNI);
}
#endif

const struct kernels *kernels_available(int i)
{
    const struct kernels *tables[4] = {&kernels_scalar};
    int n = 1;
#if HEARTH_X86
    if (has_avx2())
        tables[n++] = &kernels_avx2;
    if (has_avx512())
        tables[n++] = &kernels_avx512;
#endif
    return i >= 0 && i < n ? tables[i] : NULL;
}

status kernels_select(const char *name, const struct kernels **out)
{
    const struct kernels *k, *found = NULL;
    for (int i = 0; (k = kernels_available(i)); i++)
        if (!name || strcmp(k->name, name) == 0)
            found = k;
    if (!found) {
        char names[64] = "";
        for (int i = 0; (k = kernels_available(i)); i++)
            strcat(strcat(names, i ? ", " : ""), k->name);
        log_error("kernels '%s' are not available on this machine; it runs %s", name, names);
        return ST_USAGE;
    }
    *out = found;
    return ST_OK;
}
