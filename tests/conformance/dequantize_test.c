/* What blocks of every quantised type hold, to the last bit, as tests/vectors/make_blocks.py has recorded it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "model/gguf.h"
#include "tests/conformance/kernels_suite.h"

/* All blocks of a tensor, its rows being one. */
static void check_tensor(const struct gguf_tensor *t, const float *want)
{
    const int64_t n = t->dims[0] * t->dims[1];
    float *got = malloc((size_t)n * sizeof *got);
    dequantize_row((enum dtype)t->type, t->data, n, got);
    for (int64_t i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], sizeof *got) != 0)
            fail_msg("%s: value %lld is %a, expected %a", t->name, (long long)i, (double)got[i], (double)want[i]);
    free(got);
}

static void blocks_hold_what_is_recorded(void **state)
{
    (void)state;
    struct gguf *g;
    assert_int_equal(gguf_open(TEST_DATA "/blocks.gguf", &g), ST_OK);
    for (int i = 0; i < WEIGHT_TYPES; i++) {
        if (!dtype_is_quantised(weight_types[i]))
            continue;
        char values[64];
        snprintf(values, sizeof values, "%s.f32", dtype_name(weight_types[i]));
        const struct gguf_tensor *blocks = gguf_find_tensor(g, dtype_name(weight_types[i]));
        const struct gguf_tensor *f32 = gguf_find_tensor(g, values);
        assert_non_null(blocks);
        assert_non_null(f32);
        assert_int_equal(blocks->type, weight_types[i]);
        assert_true(f32->type == DT_F32 && f32->dims[0] * f32->dims[1] == blocks->dims[0] * blocks->dims[1]);
        check_tensor(blocks, (const float *)f32->data);
    }
    gguf_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(blocks_hold_what_is_recorded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
