/* What goes to the GPU and back through pinned memory, which is used again and again: it arrives as it was given,
 * though nobody waits for each piece. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "device/cuda/cuda.h"
#include "tests/gpu/memory.h"

enum { ROOM = 13 << 20 /* three halves of the staging and more */, AT_FIRST = 256 /* notes */ };

static struct cuda cuda;
static uint8_t *on_gpu;

static int begin(void **state)
{
    (void)state;
    cuda = (struct cuda){.notes_bytes = sizeof *cuda.notes};
    if (cuda_acquire(&cuda, AT_FIRST + ROOM) || staging_open(&cuda))
        return -1;
    cuda.notes = (struct notes *)(void *)cuda.arena.base;
    on_gpu = cuda.arena.base + AT_FIRST;
    return cudaMemsetAsync(cuda.notes, 0xff, AT_FIRST, cuda.gpu.stream) != cudaSuccess;
}

static int end(void **state)
{
    (void)state;
    cuda_settle(&cuda);
    staging_close(&cuda);
    cuda_release(&cuda);
    return 0;
}

static uint8_t byte_of(size_t i) { return (uint8_t)(i * 2654435761u >> 13); }

/* Up and down in pieces of so many bytes, each from and to memory that is then used for something else. */
static void goes_and_comes(size_t piece)
{
    uint8_t *some = malloc(piece), *all = calloc(1, ROOM);
    size_t wrong = 0;
    assert_true(some && all);
    for (size_t at = 0; at < ROOM; at += piece) {
        const size_t n = ROOM - at < piece ? ROOM - at : piece;
        for (size_t i = 0; i < n; i++)
            some[i] = byte_of(at + i);
        upload(&cuda, on_gpu + at, some, n);
        memset(some, 0, n);
    }
    for (size_t at = 0; at < ROOM; at += piece)
        download(&cuda, all + at, on_gpu + at, ROOM - at < piece ? ROOM - at : piece);
    await(&cuda);
    for (size_t i = 0; i < ROOM; i++)
        wrong += all[i] != byte_of(i);
    free(some);
    free(all);
    assert_false(cuda.lost);
    assert_int_equal(wrong, 0);
}

static void test_large_pieces(void **state)
{
    (void)state;
    goes_and_comes(ROOM);
    goes_and_comes((3 << 20) + 5);
}

/* More of them than a half keeps apart. */
static void test_small_pieces(void **state)
{
    (void)state;
    goes_and_comes(9999);
}

/* What the GPU changes meanwhile: who downloads gets what was there at that place of the stream. */
static void test_order(void **state)
{
    (void)state;
    enum { TIMES = 300, BYTES = 20000 };
    uint8_t *came = calloc(TIMES, BYTES), *sent = malloc(BYTES);
    assert_true(came && sent);
    for (int i = 0; i < TIMES; i++) {
        memset(sent, i, BYTES);
        upload(&cuda, on_gpu, sent, BYTES);
        download(&cuda, came + (size_t)i * BYTES, on_gpu, BYTES);
    }
    await(&cuda);
    for (int i = 0; i < TIMES; i++)
        for (int k = 0; k < BYTES; k += BYTES - 1)
            assert_int_equal(came[(size_t)i * BYTES + (size_t)k], (uint8_t)i);
    free(came);
    free(sent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_large_pieces, begin, end),
                                       cmocka_unit_test_setup_teardown(test_small_pieces, begin, end),
                                       cmocka_unit_test_setup_teardown(test_order, begin, end)};
    return gpu_for_test() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
