/* Blobs in pieces: there and back, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "base/log.h"
#include "wire/blob.h"

static void test_there_and_back(void **state)
{
    (void)state;
    uint8_t message[WIRE_BLOB_HEADER + 5];
    struct wire_blob b = {.what = 7, .index = 31, .offset = 1ull << 33, .total = (1ull << 33) + 9, .n = 5,
                          .bytes = (const uint8_t *)"piece"},
                     back;
    assert_int_equal(wire_blob_encode(&b, message, sizeof message - 1), 0);
    assert_int_equal(wire_blob_encode(&b, message, sizeof message), sizeof message);
    assert_int_equal(wire_blob_decode(message, sizeof message, &back), ST_OK);
    assert_int_equal(back.what, 7);
    assert_int_equal(back.index, 31);
    assert_true(back.offset == b.offset && back.total == b.total);
    assert_int_equal(back.n, 5);
    assert_memory_equal(back.bytes, "piece", 5);

    b = (struct wire_blob){.what = 1};
    assert_int_equal(wire_blob_encode(&b, message, sizeof message), WIRE_BLOB_HEADER);
    assert_int_equal(wire_blob_decode(message, WIRE_BLOB_HEADER, &back), ST_OK);
    assert_int_equal(back.n, 0);
}

static void refused(uint64_t offset, uint64_t total, uint32_t n)
{
    uint8_t message[WIRE_BLOB_HEADER + 8] = {0};
    struct wire_blob b = {.offset = offset, .total = total, .n = n, .bytes = (const uint8_t *)"12345678"}, back = {0};
    struct log_catcher line;
    size_t size = wire_blob_encode(&b, message, sizeof message);
    log_catch(&line);
    assert_int_equal(wire_blob_decode(message, size, &back), ST_FORMAT);
    log_catch(NULL);
    assert_non_null(strstr(line.first_error, "BLOB"));
    assert_null(back.bytes);
}

static void test_refused(void **state)
{
    (void)state;
    refused(0, 7, 8);             /* more than all */
    refused(5, 8, 4);             /* beyond the end */
    refused(9, 8, 1);             /* after the end */
    refused(UINT64_MAX, 8, 8);    /* wraps around */
    refused(0, 8, 0);             /* a piece of nothing */
    refused(0, 0, 4);             /* of nothing, a piece */
    uint8_t message[WIRE_BLOB_HEADER] = {0};
    struct wire_blob back;
    struct log_catcher line;
    log_catch(&line);
    for (size_t n = 0; n < WIRE_BLOB_HEADER; n++)
        assert_int_equal(wire_blob_decode(message, n, &back), ST_FORMAT);
    log_catch(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
