/* The shim finds what is wrong, and finds nothing where all is right: each mistake in a process of its own. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <simt.h>

#include "tests/gpu/shim/selftest/planted.h"

enum { SEEDS = 8 };

/* Runs it with stderr in `said`. Whether all was right. */
static bool run(const struct planted *p, bool with_mistake, int seed, char *said, size_t size)
{
    int end[2], status;
    assert_int_equal(pipe(end), 0);
    const pid_t child = fork();
    if (child == 0) {
        dup2(end[1], 2);
        signal(SIGSEGV, SIG_DFL); /* cmocka would go on */
        simt_seed((uint64_t)seed);
        _exit(!p->run(with_mistake));
    }
    close(end[1]);
    size_t n = 0;
    ssize_t got;
    while ((got = read(end[0], said + n, size - 1 - n)) > 0)
        n += (size_t)got;
    said[n] = '\0';
    close(end[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status == 0;
}

static void mistakes_are_found(void **state)
{
    (void)state;
    for (const struct planted *p = planted; p < planted + n_planted; p++) {
        int found = 0;
        char said[1 << 16];
        for (int seed = 1; seed <= SEEDS; seed++) {
            if (!run(p, false, seed, said, sizeof said))
                fail_msg("%s: found with seed %d where there is none: %s", p->name, seed, said);
            found += !run(p, true, seed, said, sizeof said);
            if (p->says && !strstr(said, p->says))
                fail_msg("%s: with seed %d is said: %s", p->name, seed, said);
        }
        if (p->by_chance ? found == 0 : found < SEEDS)
            fail_msg("%s: found with %d seeds of %d", p->name, found, SEEDS);
        print_message("%s: found with %d of %d seeds\n", p->name, found, SEEDS);
    }
}

static void products_are_right(void **state)
{
    (void)state;
    assert_true(mma_is_right(false));
    assert_true(mma_is_right(true));
}

static void graphs(void **state)
{
    (void)state;
    assert_true(graphs_are_launched_again());
}

static void warps(void **state)
{
    (void)state;
    for (int seed = 1; seed <= SEEDS; seed++) {
        simt_seed((uint64_t)seed);
        assert_true(warps_exchange_values());
    }
}

static void traffic(void **state)
{
    (void)state;
    assert_true(traffic_is_counted());
}

static void calls_fail_when_asked(void **state)
{
    void *p;
    (void)state;
    simt_fail(2, cudaErrorMemoryAllocation, false);
    assert_int_equal(cudaMalloc(&p, 10), cudaSuccess);
    assert_int_equal(cudaFree(p), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    assert_int_not_equal(cudaFree(p), cudaSuccess); /* what fails to be given back is gone all the same */
    assert_int_not_equal(cudaGetLastError(), cudaSuccess);
    simt_fail(1, cudaErrorIllegalAddress, true);
    assert_int_equal(cudaMalloc(&p, 10), cudaErrorIllegalAddress);
    assert_int_equal(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
    simt_fail(0, cudaSuccess, false);
    assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
    cudaGetLastError();
}

static void memory_is_small(void **state)
{
    void *p, *q;
    size_t left, all;
    (void)state;
    simt_memory((size_t)16 << 20);
    assert_int_equal(cudaMemGetInfo(&left, &all), cudaSuccess);
    assert_int_equal(cudaMalloc(&p, left - 4096), cudaSuccess);
    assert_int_equal(cudaMalloc(&q, 8192), cudaErrorMemoryAllocation);
    assert_int_equal(cudaMalloc(&q, 4096), cudaSuccess);
    assert_int_equal(cudaMemGetInfo(&left, &all), cudaSuccess);
    assert_int_equal(left, 0);
    assert_int_equal(cudaFree(p), cudaSuccess);
    assert_int_equal(cudaFree(q), cudaSuccess);
    simt_memory((size_t)1 << 30);
    cudaGetLastError();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mistakes_are_found), cmocka_unit_test(products_are_right), cmocka_unit_test(graphs),
        cmocka_unit_test(warps), cmocka_unit_test(traffic), cmocka_unit_test(calls_fail_when_asked),
        cmocka_unit_test(memory_is_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
