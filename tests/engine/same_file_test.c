/* Rank 0 compares what another rank says of its file with its own: equal, different, or no such message at all. */
#include "tests/engine/made_model.h"

#include "base/log.h"
#include "node/roll_call.h"
#include "wire/channels.h"
#include "worker/worker.h"

static char path[MADE_NAME];
static struct gguf *file;
static struct chunks *own;
static struct pool *pool;

/* Three chunks. */
static int set_up(void **state)
{
    (void)state;
    made_model_write(&made_quantised, path);
    assert_int_equal(truncate(path, (off_t)(2 * CHUNK_BYTES + 100)), 0);
    assert_int_equal(gguf_open(path, &file), ST_OK);
    assert_int_equal(chunks_create(file, NULL, &own), ST_OK);
    assert_int_equal(chunks_count(own), 3);
    return pool_create(1, &pool);
}

static int tear_down(void **state)
{
    (void)state;
    pool_destroy(pool);
    chunks_free(own);
    gguf_close(file);
    return unlink(path);
}

enum { MOST = 3 };

struct message {
    _Alignas(TRANSPORT_ALIGN) uint8_t bytes[256];
    size_t size;
    struct send send;
};

static size_t say(const struct wire_chunk *entries, uint32_t n, struct message *m)
{
    return m->size = wire_chunks_encode(entries, n, m->bytes, sizeof m->bytes);
}

/* What rank 0 makes of these messages and READY. */
static status hear(const struct same_file *mine, struct message *m, int n, struct log_catcher *caught)
{
    struct transport_config config;
    struct transport *t[2];
    struct message ready;
    uint64_t held[2] = {0};
    wire_channels(config.channel, TRANSPORT_KINDS);
    assert_int_equal(transport_inproc_open(&config, 2, t), ST_OK);
    for (int i = 0; i < n; i++)
        assert_int_equal(transport_post(t[1], 0, WIRE_CHUNKS, m[i].bytes, m[i].size, &m[i].send), ST_OK);
    ready.size = wire_ready_encode(77, ready.bytes, sizeof ready.bytes);
    assert_int_equal(transport_post(t[1], 0, WIRE_READY, ready.bytes, ready.size, &ready.send), ST_OK);
    log_catch(caught);
    const status st = roll_call_ready(t[0], mine, held);
    log_catch(NULL);
    assert_true(st || held[1] == 77);
    transport_close(t[1]);
    transport_close(t[0]);
    return st;
}

static void test_compare(void **state)
{
    (void)state;
    const struct same_file mine = {.chunks = own, .pool = pool}, none = {0};
    const uint64_t hash[MOST] = {chunks_hash(own, pool, 0), chunks_hash(own, pool, 1), chunks_hash(own, pool, 2)};
    struct log_catcher caught;
    struct message m[2];
    say((const struct wire_chunk[]){{0, hash[0]}, {2, hash[2]}}, 2, &m[0]);
    assert_int_equal(hear(&mine, m, 1, &caught), ST_OK);
    assert_int_equal(hear(&mine, m, 0, &caught), ST_OK);

    say((const struct wire_chunk[]){{0, hash[0]}}, 1, &m[0]);
    say((const struct wire_chunk[]){{1, hash[1]}, {2, hash[2]}}, 2, &m[1]);
    assert_int_equal(hear(&mine, m, 2, &caught), ST_OK);

    say((const struct wire_chunk[]){{1, hash[1] + 1}}, 1, &m[1]);
    assert_int_equal(hear(&mine, m, 2, &caught), ST_MISMATCH);
    assert_non_null(strstr(caught.first_error,
                           "rank 1's copy differs from rank 0's between bytes 67108864 and 134217728"));
    assert_non_null(strstr(caught.first_error, path));
    assert_int_equal(hear(&none, m, 2, &caught), ST_OK); /* nobody compares */
}

static void test_broken(void **state)
{
    (void)state;
    const struct same_file mine = {.chunks = own, .pool = pool};
    const uint64_t hash[MOST] = {chunks_hash(own, pool, 0), chunks_hash(own, pool, 1), chunks_hash(own, pool, 2)};
    struct log_catcher caught;
    struct message m[2];
    say((const struct wire_chunk[]){{1, hash[1]}}, 1, &m[0]);
    for (uint32_t again = 0; again < 2; again++) { /* the same or an earlier one: there would be no end */
        say((const struct wire_chunk[]){{again, hash[again]}}, 1, &m[1]);
        assert_int_equal(hear(&mine, m, 2, &caught), ST_FORMAT);
        assert_non_null(strstr(caught.first_error, "from rank 1: "));
    }
    say((const struct wire_chunk[]){{3, 1}}, 1, &m[0]); /* the file has none such */
    assert_int_equal(hear(&mine, m, 1, &caught), ST_FORMAT);
    say((const struct wire_chunk[]){{1, hash[1]}, {1, hash[1]}}, 2, &m[0]);
    assert_int_equal(hear(&mine, m, 1, &caught), ST_FORMAT);
    say(NULL, 0, &m[0]);
    assert_int_equal(hear(&mine, m, 1, &caught), ST_FORMAT);
    for (size_t size = say((const struct wire_chunk[]){{1, hash[1]}}, 1, &m[0]); m[0].size--;) {
        assert_true(m[0].size < size);
        assert_int_equal(hear(&mine, m, 1, &caught), ST_FORMAT);
        if (!m[0].size)
            break;
    }
}

/* A list too long for one message. */
static void test_long_list(void **state)
{
    (void)state;
    static struct wire_chunk entries[WIRE_CHUNKS_MOST + 1];
    static uint8_t message[WIRE_CHUNKS_MAX + 12];
    static struct wire_chunk found[WIRE_CHUNKS_MOST];
    uint32_t n = 0;
    struct log_catcher caught;
    for (uint32_t i = 0; i <= WIRE_CHUNKS_MOST; i++)
        entries[i] = (struct wire_chunk){i, i + 5};
    size_t size = wire_chunks_encode(entries, WIRE_CHUNKS_MOST, message, WIRE_CHUNKS_MAX);
    assert_int_equal(size, WIRE_CHUNKS_MAX);
    assert_int_equal(wire_chunks_decode(message, size, WIRE_CHUNKS_MOST, found, &n), ST_OK);
    assert_int_equal(n, WIRE_CHUNKS_MOST);
    assert_int_equal(found[9].hash, 14);
    assert_int_equal(wire_chunks_encode(entries, WIRE_CHUNKS_MOST + 1, message, WIRE_CHUNKS_MAX), 0);
    size = wire_chunks_encode(entries, WIRE_CHUNKS_MOST + 1, message, sizeof message);
    log_catch(&caught);
    assert_int_equal(wire_chunks_decode(message, size, WIRE_CHUNKS_MOST + 1, found, &n), ST_FORMAT);
    log_catch(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compare),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_long_list),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
