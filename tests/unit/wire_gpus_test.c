/* GPUS and LINK: what is encoded comes back, its size is exact, and what is broken is refused with one line. */
#include "tests/unit/wire_checks.h"

static status decode_gpus(uint8_t *in, size_t n)
{
    struct wire_gpus g;
    return wire_gpus_decode(in, n, &g);
}

static void gpus_come_back(void **state)
{
    (void)state;
    struct wire_gpus g = {.n = 2, .at = {{.id = {1, 2, 255}, .layers = 7, .bytes = 10, .marks = 11,
                                          .need_bytes = 8, .free_bytes = UINT64_MAX},
                                         {.layers = UINT32_MAX}}};
    struct wire_gpus found;
    uint8_t message[WIRE_GPUS_MAX], again[WIRE_GPUS_MAX];
    const size_t n = wire_gpus_encode(&g, message, sizeof message);
    assert_int_equal(n, 4 + 2 * 52);
    assert_int_equal(wire_gpus_encode(&g, message, n - 1), 0);
    assert_int_equal(wire_gpus_decode(message, n, &found), ST_OK);
    assert_true(found.n == 2 && found.at[0].id[2] == 255 && found.at[0].layers == 7);
    assert_true(found.at[0].bytes == 10 && found.at[0].marks == 11 && found.at[0].need_bytes == 8 &&
                found.at[0].free_bytes == UINT64_MAX && found.at[1].layers == UINT32_MAX);
    assert_int_equal(wire_gpus_encode(&found, again, sizeof again), n);
    assert_memory_equal(again, message, n);
    assert_size_is_exact(decode_gpus, message, n);
    assert_field_refused(decode_gpus, message, n, 0, WIRE_GPUS_MOST + 1, "n is 17, expected 0 to 16");
    assert_field_refused(decode_gpus, message, n, 0, UINT32_MAX, "n is 4294967295");
    g.n = 0;
    assert_int_equal(wire_gpus_encode(&g, message, sizeof message), 4);
    assert_size_is_exact(decode_gpus, message, 4);
    g.n = WIRE_GPUS_MOST;
    assert_int_equal(wire_gpus_encode(&g, message, sizeof message), WIRE_GPUS_MAX);
}

static status decode_link(uint8_t *in, size_t n)
{
    struct wire_link l;
    return wire_link_decode(in, n, &l);
}

static void link_comes_back(void **state)
{
    (void)state;
    struct wire_link l = {.id = {7, [15] = 9}, .why_not = "no\nway"}, found;
    uint8_t message[WIRE_LINK_MAX + 1];
    assert_int_equal(wire_link_encode(&l, message, 21), 0);
    assert_int_equal(wire_link_encode(&l, message, 22), 22);
    assert_int_equal(wire_link_decode(message, 22, &found), ST_OK);
    assert_memory_equal(found.id, l.id, sizeof l.id);
    assert_string_equal(found.why_not, "no?way");
    assert_int_equal(wire_link_decode(message, 16, &found), ST_OK);
    assert_string_equal(found.why_not, "");
    memset(l.why_not, 'x', sizeof l.why_not);
    assert_int_equal(wire_link_encode(&l, message, sizeof message), WIRE_LINK_MAX);
    assert_int_equal(wire_link_decode(message, WIRE_LINK_MAX, &found), ST_OK);
    assert_int_equal(strlen(found.why_not), 255);
    assert_refused(decode_link, message, 15, "LINK message: size is 15, expected 16 to 271");
    assert_refused(decode_link, message, WIRE_LINK_MAX + 1, "size is 272");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(gpus_come_back), cmocka_unit_test(link_comes_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
