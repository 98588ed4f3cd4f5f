/* Makes the n-th allocation fail. A test program that includes this is linked with --wrap for malloc, calloc and
 * realloc (cmake/tests.cmake); allocations inside shared libraries are not counted. All threads count together.
 *
 *     for (long n = 0; alloc_fail_at(n), s = work(), alloc_failed(); n++)
 *         assert_int_equal(s, ST_NOMEM);
 */
#ifndef HEARTH_TESTS_ALLOC_FAIL_H
#define HEARTH_TESTS_ALLOC_FAIL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);

static _Atomic long alloc_fail_countdown = -1; /* allocations that still succeed; negative: all do */
static _Atomic bool alloc_fail_happened;

/* Lets n allocations succeed and the next one fail, once. */
static inline void alloc_fail_at(long n)
{
    alloc_fail_countdown = n;
    alloc_fail_happened = false;
}

/* Whether an allocation was refused since alloc_fail_at; all succeed from now on. */
static inline bool alloc_failed(void)
{
    alloc_fail_countdown = -1;
    return alloc_fail_happened;
}

static bool alloc_fail_now(void)
{
    if (atomic_load(&alloc_fail_countdown) < 0 || atomic_fetch_sub(&alloc_fail_countdown, 1) != 0)
        return false;
    alloc_fail_happened = true;
    return true;
}

void *__wrap_malloc(size_t size) { return alloc_fail_now() ? NULL : __real_malloc(size); }
void *__wrap_calloc(size_t n, size_t size) { return alloc_fail_now() ? NULL : __real_calloc(n, size); }
void *__wrap_realloc(void *p, size_t size) { return alloc_fail_now() ? NULL : __real_realloc(p, size); }

#endif
