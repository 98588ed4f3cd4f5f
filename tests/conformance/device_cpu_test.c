/* The CPU as a device, with every table of kernels. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "device/cpu/table.h"
#include "kernels/kernels.h"
#include "model/model.h"
#include "tests/conformance/device_conformance.h"

static void test_conforms(void **state)
{
    (void)state;
    static const char *const models[] = {"family-llama-q4_0", "family-opt-q4_0", "family-falcon-two", "tiny-mistral",
                                         "tiny-qwen3", "tiny-q4_k", "model-qwen3moe", "model-qwen3moe-q4_0"};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char path[512];
        struct model *m;
        snprintf(path, sizeof path, TEST_DATA "/%s.gguf", models[i]);
        assert_int_equal(model_load(path, &m), ST_OK);
        for (int k = 0; kernels_available(k); k++) {
            const struct device_trial trial = {.ops = &device_cpu, .m = m, .kernels = kernels_available(k),
                                               .n_threads = 1 + k % 3};
            if (!device_conforms(&trial))
                fail_msg("%s with %s kernels", models[i], kernels_available(k)->name);
        }
        model_free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_conforms)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
