/* What goes wrong, goes wrong cleanly: allocations and system calls that fail, model files with flipped bits. Nothing
 * leaks (AddressSanitizer), nothing hangs (ctest's time limit), nothing crashes. */
#include "tests/engine/made_model.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>

#include "base/log.h"
#include "tests/unit/alloc_fail.h"

/* ---- the n-th allocation, mapping or thread fails ---- */

void *__real_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *arg);

void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (!alloc_fail_now())
        return __real_mmap(at, size, protection, flags, fd, offset);
    errno = ENOMEM;
    return MAP_FAILED;
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return alloc_fail_now() ? NULL : __real_aligned_alloc(alignment, size);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *arg)
{
    return alloc_fail_now() ? EAGAIN : __real_pthread_create(thread, attributes, run, arg);
}

static status start_and_run(const struct cluster_options *o)
{
    struct cluster *c = NULL;
    status st = cluster_start(o, &c);
    struct wire_usage usage;
    int32_t token = 1;
    if (!st)
        st = dialogue_sampling(cluster_dialogue(c), &sampler_greedy);
    if (!st)
        st = session_usage(cluster_session(c), &usage, NULL);
    for (int i = 0; i < 2 && !st; i++)
        st = dialogue_next(cluster_dialogue(c), token, &token);
    cluster_stop(c);
    return st;
}

static void test_no_memory(void **state)
{
    (void)state;
    static const char *const models[] = {"tiny-q4_0", "model-qwen2moe", "tiny-q4_0"}; /* the second one has experts */
    for (int ranks = 1; ranks <= 3; ranks++) {
        char path[512];
        snprintf(path, sizeof path, TEST_DATA "/%s.gguf", models[ranks - 1]);
        struct cluster_options o = plain_options(path);
        o.ranks = ranks;
        o.threads = 2;
        o.n_ctx = 64;
        o.split = ranks == 2 ? SPLIT_SHARDS : SPLIT_BOTH;
        long n = 0;
        for (bool failed = true; failed; n++) {
            struct log_catcher caught;
            log_catch(&caught);
            alloc_fail_at(n);
            status st = start_and_run(&o);
            failed = alloc_failed();
            log_catch(NULL);
            if (failed && (st == ST_OK || !caught.first_error[0]))
                fail_msg("%d ranks, failure %ld: status %s, line '%s'", ranks, n, status_name(st), caught.first_error);
            if (!failed)
                assert_int_equal(st, ST_OK);
        }
        print_message("%d ranks: %ld allocations, mappings and threads, each failed once\n", ranks, n - 1);
        assert_true(n > 20);
    }
}

/* ---- a flipped bit of the model file ---- */

/* Starts a cluster over the file and lets it make two tokens, if it will. */
static status try_model(const struct cluster_options *o)
{
    struct log_catcher caught;
    log_catch(&caught);
    status st = start_and_run(o);
    log_catch(NULL);
    if (st && !caught.first_error[0])
        fail_msg("status %s without a line", status_name(st));
    return st;
}

static void flip(int fd, off_t at, uint8_t bits)
{
    uint8_t byte;
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= bits;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
}

/* Where tensor data begin: the lowest address of any. */
static off_t header_bytes(const uint8_t *bytes, size_t n)
{
    struct gguf *g;
    assert_int_equal(gguf_open_bytes(bytes, n, "model", &g), ST_OK);
    const uint8_t *first = bytes + n;
    for (int i = 0; i < gguf_n_tensors(g); i++)
        if (gguf_tensor_at(g, i)->data < first)
            first = gguf_tensor_at(g, i)->data;
    gguf_close(g);
    return first - bytes;
}

static uint8_t *read_model(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    uint8_t *bytes = malloc(*n);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *n, f), *n);
    fclose(f);
    return bytes;
}

/* Every `step`-th byte of the header and every `data_step`-th of the weights, a bit of each. (tests/fuzz/fuzz_gguf.c
 * flips any of them.) */
static void flip_through(const char *path, off_t step, off_t data_step)
{
    size_t n;
    uint8_t *bytes = read_model(path, &n);
    off_t header = header_bytes(bytes, n), at;
    char copy[MADE_NAME];
    made_file_of(bytes, n, copy);
    int fd = open(copy, O_RDWR);
    assert_true(fd >= 0);
    struct cluster_options o = plain_options(copy);
    o.n_ctx = 16;
    o.n_batch = 4;
    int refused = 0, tried = 0;
    assert_int_equal(try_model(&o), ST_OK);
    for (at = 0; at < (off_t)n; at += at < header ? step : data_step, tried++) {
        uint8_t bits = (uint8_t)(1u << ((unsigned)at / (unsigned)step % 8));
        flip(fd, at, bits);
        refused += try_model(&o) != ST_OK;
        flip(fd, at, bits);
    }
    assert_int_equal(try_model(&o), ST_OK);
    print_message("%s: %d flips tried, %d refused\n", strrchr(path, '/') + 1, tried, refused);
    assert_true(refused > 0 && refused < tried);
    close(fd);
    unlink(copy);
    free(bytes);
}

static void test_flipped_bits(void **state)
{
    (void)state;
    static const char *const models[] = {"tiny-q4_0", "tiny-q4_k", "tiny-mxfp4", "tiny-iq4_xs", "tiny-llama3",
                                         "tiny-mistral", "tiny-qwen2", "tiny-qwen3", "model-glm4moe"};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char path[512];
        snprintf(path, sizeof path, TEST_DATA "/%s.gguf", models[i]);
        flip_through(path, (i ? 31 : 5) * (SANITIZED ? 3 : 1), SANITIZED ? 4001 : 1999);
    }
}

/* A file that ends anywhere. */
static void test_cut_file(void **state)
{
    (void)state;
    size_t n;
    uint8_t *bytes = read_model(TEST_DATA "/tiny-q4_0.gguf", &n);
    char copy[MADE_NAME];
    made_file_of(bytes, n, copy);
    struct cluster_options o = plain_options(copy);
    o.n_ctx = 16;
    for (size_t size = n - 64; size > 0; size = size * 9 / 10) { /* what pads the last tensor may be missing */
        assert_int_equal(truncate(copy, (off_t)size), 0);
        assert_int_not_equal(try_model(&o), ST_OK);
    }
    unlink(copy);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_cut_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
