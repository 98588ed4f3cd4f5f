/* Hashes of a file's chunks: what changes them and what does not, and what is remembered of them. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/chunks.h"
#include "tests/unit/gguf_writer.h"

/* A small file of one tensor and then a hole; the last chunk is short. */
enum { TAIL = 12345, CHUNKS = 3 };
static const uint64_t file_bytes = 2 * CHUNK_BYTES + TAIL;
static char folder[64], path[96], list[160];
static struct pool *pool;

static int set_up(void **state)
{
    (void)state;
    struct gguf_writer w;
    static const float values[256] = {1, 2, 3};
    struct stat info;
    snprintf(folder, sizeof folder, "/tmp/hearth-chunks-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/model.gguf", folder);
    gguf_writer_begin(&w, "GGUF", 3);
    gguf_add_tensor(&w, "values", DT_F32, 1, (const int64_t[]){256}, values);
    gguf_writer_end(&w);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0 && write(fd, w.bytes, w.n) == (ssize_t)w.n && ftruncate(fd, (off_t)file_bytes) == 0);
    assert_true(fstat(fd, &info) == 0);
    snprintf(list, sizeof list, "%s/%llx-%llx.chunks", folder, (unsigned long long)info.st_dev,
             (unsigned long long)info.st_ino);
    close(fd);
    gguf_writer_free(&w);
    return pool_create(2, &pool);
}

static int tear_down(void **state)
{
    (void)state;
    pool_destroy(pool);
    unlink(list);
    rmdir(list);
    unlink(path);
    return rmdir(folder);
}

/* The hashes of all chunks; returns how many bytes had to be read for them. */
static uint64_t hash_all(const char *cache, uint64_t hash[CHUNKS])
{
    struct gguf *g;
    struct chunks *c;
    assert_int_equal(gguf_open(path, &g), ST_OK);
    assert_int_equal(chunks_create(g, cache, &c), ST_OK);
    assert_int_equal(chunks_count(c), CHUNKS);
    for (uint32_t i = 0; i < CHUNKS; i++) {
        hash[i] = chunks_hash(c, pool, i);
        assert_true(hash[i] != 0 && !chunks_used(c, i));
    }
    const uint64_t hashed = chunks_hashed(c);
    chunks_remember(c);
    chunks_free(c);
    gguf_close(g);
    return hashed;
}

static void flip_byte(const char *file, off_t at)
{
    uint8_t byte = 0;
    int fd = open(file, O_RDWR);
    assert_true(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= 1;
    assert_true(pwrite(fd, &byte, 1, at) == 1);
    close(fd);
}

static void test_one_byte(void **state)
{
    (void)state;
    static const off_t places[CHUNKS] = {5000, (off_t)CHUNK_BYTES, (off_t)file_bytes - 1};
    uint64_t before[CHUNKS], after[CHUNKS];
    assert_int_equal(hash_all(NULL, before), file_bytes);
    assert_true(before[0] != before[1] && before[1] != before[2]);
    for (int changed = 0; changed < CHUNKS; changed++) {
        flip_byte(path, places[changed]);
        assert_int_equal(hash_all(NULL, after), file_bytes);
        for (int i = 0; i < CHUNKS; i++)
            assert_int_equal(before[i] == after[i], i != changed);
        flip_byte(path, places[changed]);
    }
    hash_all(NULL, after);
    assert_memory_equal(before, after, sizeof before);
}

/* Only what somebody loads from is read. */
static void test_use(void **state)
{
    (void)state;
    struct gguf *g;
    struct chunks *c;
    uint64_t begin, end;
    assert_int_equal(gguf_open(path, &g), ST_OK);
    assert_int_equal(chunks_create(g, NULL, &c), ST_OK);
    const uint8_t *data = gguf_tensor_at(g, 0)->data, other = 0;
    chunks_use(c, pool, &other, 1);
    chunks_use(c, pool, data, 0);
    chunks_use(c, pool, data - (1 << 20), 1);
    chunks_use(c, pool, data, file_bytes); /* beyond its end */
    assert_int_equal(chunks_hashed(c), 0);
    chunks_use(c, pool, data + 2 * CHUNK_BYTES, 1);
    chunks_use(c, pool, data + 2 * CHUNK_BYTES + 9, 5);
    assert_int_equal(chunks_hashed(c), TAIL);
    assert_true(!chunks_used(c, 0) && !chunks_used(c, 1) && chunks_used(c, 2));
    chunks_use(c, pool, data, CHUNK_BYTES);
    assert_int_equal(chunks_hashed(c), file_bytes);
    assert_true(chunks_used(c, 0) && chunks_used(c, 1));
    assert_string_equal(chunks_place(c, 2, &begin, &end), path);
    assert_true(begin == 2 * CHUNK_BYTES && end == file_bytes);
    chunks_free(c);
    gguf_close(g);
}

static void test_remembered(void **state)
{
    (void)state;
    uint64_t first[CHUNKS], again[CHUNKS];
    assert_int_equal(hash_all(folder, first), file_bytes);
    assert_int_equal(hash_all(folder, again), 0);
    assert_memory_equal(first, again, sizeof first);
    const struct timespec then[2] = {{1000, 1}, {1000, 1}};
    assert_int_equal(utimensat(AT_FDCWD, path, then, 0), 0); /* it may be another file now */
    assert_int_equal(hash_all(folder, again), file_bytes);
    assert_int_equal(hash_all(folder, again), 0);
    assert_memory_equal(first, again, sizeof first);
}

/* What two processes learn of one file at the same time is remembered together. */
static void test_parts_add_up(void **state)
{
    (void)state;
    struct gguf *g;
    struct chunks *one, *two;
    uint64_t hash[CHUNKS];
    assert_int_equal(gguf_open(path, &g), ST_OK);
    unlink(list);
    assert_int_equal(chunks_create(g, folder, &one), ST_OK);
    assert_int_equal(chunks_create(g, folder, &two), ST_OK);
    chunks_hash(one, pool, 0);
    chunks_hash(two, pool, 2);
    chunks_remember(one);
    chunks_remember(two);
    chunks_free(one);
    chunks_free(two);
    gguf_close(g);
    assert_int_equal(hash_all(folder, hash), CHUNK_BYTES);
}

/* Whatever lies in a list's place, the hashes are those of the file. */
static void test_damaged_lists(void **state)
{
    (void)state;
    uint64_t right[CHUNKS], found[CHUNKS];
    struct stat info;
    unlink(list);
    hash_all(folder, right);
    assert_int_equal(stat(list, &info), 0);
    for (off_t at = 0; at < info.st_size; at += 11) {
        flip_byte(list, at);
        assert_int_equal(hash_all(folder, found), file_bytes);
        assert_memory_equal(right, found, sizeof right);
    }
    const off_t sizes[] = {0, 1, 63, info.st_size - 1, info.st_size + 1, 1 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(truncate(list, sizes[i]), 0);
        assert_int_equal(hash_all(folder, found), file_bytes);
        assert_memory_equal(right, found, sizeof right);
    }
    unlink(list);
    assert_int_equal(mkdir(list, 0700), 0); /* it cannot be written either */
    assert_int_equal(hash_all(folder, found), file_bytes);
    assert_int_equal(rmdir(list), 0);
    assert_int_equal(hash_all("/nonexistent/folder", found), file_bytes);
    assert_memory_equal(right, found, sizeof right);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_byte),     cmocka_unit_test(test_use),          cmocka_unit_test(test_remembered),
        cmocka_unit_test(test_parts_add_up), cmocka_unit_test(test_damaged_lists),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
