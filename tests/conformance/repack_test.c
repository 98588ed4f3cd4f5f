/* Rows and columns of single neurons become the packed matrix that the file's bytes make: byte for byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/repack.h"
#include "tests/conformance/kernels_suite.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static struct packed empty_like(const struct packed *m)
{
    struct packed p = *m;
    p.data = guarded(packed_bytes(m));
    memset(p.data, 0x5a, packed_bytes(m)); /* what is left out shows */
    return p;
}

static void check_equal(struct packed *found, struct packed *expected, const char *what)
{
    if (memcmp(found->data, expected->data, packed_bytes(found)) != 0)
        fail_msg("%s of %s, [%lld, %lld]: other bytes than the file's", what, dtype_name(found->type),
                 (long long)found->rows, (long long)found->cols);
    assert_true(guarded_intact(found->data, packed_bytes(found)));
    guarded_free(found->data);
    guarded_free(expected->data);
}

static void check_rows(struct rng *r, enum dtype type, int64_t n, int64_t cols, enum filling f)
{
    uint8_t *weights = make_weights(r, type, n, cols, f);
    struct packed expected = make_packed(type, n, cols, weights), found = empty_like(&expected);
    struct neuron_rows rows;
    neuron_rows_shape(&rows, type, n, cols, false);
    rows.top = guarded((size_t)n * rows.top_bytes);
    neuron_rows_fill(&rows, 0, n, weights, dtype_row_bytes(type, cols), NULL);
    repack_rows(&found, 0, 1, &rows);
    repack_rows(&found, 1, found.groups, &rows);
    check_equal(&found, &expected, "rows");
    guarded_free(rows.top);
    free(weights);
}

/* Neurons [first, first + n) of a layer of d_ff. */
static void check_columns(struct rng *r, enum dtype type, int64_t outputs, int64_t d_ff, int64_t first, int64_t n,
                          enum filling f)
{
    const int64_t blocks = (n + ACT_BLOCK - 1) / ACT_BLOCK;
    const size_t stride = dtype_row_bytes(type, d_ff);
    uint8_t *weights = make_weights(r, type, outputs, d_ff, f);
    int32_t *block = malloc((size_t)blocks * sizeof *block);
    int32_t *column = malloc((size_t)(blocks * ACT_BLOCK) * sizeof *column);
    for (int64_t b = 0; b < blocks; b++)
        block[b] = (int32_t)(first / ACT_BLOCK + b);
    for (int64_t i = 0; i < blocks * ACT_BLOCK; i++)
        column[i] = i < n ? (int32_t)i : -1;
    struct neuron_columns columns;
    neuron_columns_shape(&columns, type, false, outputs, n, blocks);
    columns.block = block;
    columns.column = column;
    columns.codes = guarded(neuron_columns_code_bytes(&columns));
    columns.scales = guarded(neuron_columns_scale_bytes(&columns));
    neuron_columns_fill(&columns, 0, outputs, weights, stride);

    struct packed expected;
    packed_shape(&expected, type, outputs, n);
    expected.data = guarded(packed_bytes(&expected));
    packed_fill(&expected, 0, expected.groups, weights + dtype_row_bytes(type, first), stride, NULL);
    struct packed found = empty_like(&expected);
    for (int64_t row = 0; row < outputs; row += COLUMN_TILE)
        repack_columns(&found, row, row + COLUMN_TILE < outputs ? row + COLUMN_TILE : outputs, &columns);
    check_equal(&found, &expected, "columns");
    guarded_free(columns.codes);
    guarded_free(columns.scales);
    free(column);
    free(block);
    free(weights);
}

static void test_rows(void **state)
{
    (void)state;
    struct rng r = {3};
    for (size_t i = 0; i < COUNT(weight_types); i++)
        for (int f = 0; f < FILLINGS; f++) {
            check_rows(&r, weight_types[i], 37, 768, (enum filling)f);
            check_rows(&r, weight_types[i], 32, 256, (enum filling)f);
        }
}

static void test_columns(void **state)
{
    (void)state;
    struct rng r = {4};
    for (size_t i = 0; i < COUNT(weight_types); i++)
        for (int f = 0; f < FILLINGS; f++) {
            const int64_t odd = dtype_block(weight_types[i]) == 1 ? 3 : 0;
            check_columns(&r, weight_types[i], 300, 1024 + odd, 256, 768 + odd, (enum filling)f);
            check_columns(&r, weight_types[i], 128, 768, 0, 512, (enum filling)f);
            check_columns(&r, weight_types[i], 70, 512, 256, 256, (enum filling)f);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_columns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
