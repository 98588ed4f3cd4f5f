/* Activations on a GPU, and with them its exponential, give the bits of the scalar table: over f32 in steps and over
 * what is odd. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/neurons.h"
#include "kernels/kernels.h"
#include "tests/gpu/memory.h"

static const struct kernels *scalar;
static struct gpu *gpu;

/* Against both the products of a gate and of up alone. */
static void expect_activations(const float *gate, const float *up, int64_t n)
{
    const size_t bytes = (size_t)n * sizeof(float);
    float *expected = malloc(bytes), *got = malloc(bytes);
    float *g = gpu_copy_of(gate, bytes), *u = gpu_copy_of(up, bytes), *h = gpu_copy_of(NULL, bytes);
    for (enum activation a = 0; a < ACTIVATIONS; a++) {
        for (int gated = a == ACT_DRELU; gated < 2; gated++) {
            scalar->activate(a, gated ? gate : NULL, up, n, expected);
            gpu_activate(gpu, a, gated ? g : NULL, u, n, n, 1, NULL, &(struct acts){.cols = n, .f32 = h}, false,
                         &(struct gpu_clearing){0});
            gpu_read(got, h, bytes);
            for (int64_t i = 0; i < n; i++)
                if (memcmp(&expected[i], &got[i], sizeof *got) != 0 && !(isnan(expected[i]) && isnan(got[i])))
                    fail_msg("%s of %a, %a is %a, expected %a", activation_name(a), (double)gate[i], (double)up[i],
                             (double)got[i], (double)expected[i]);
        }
    }
    gpu_release(g);
    gpu_release(u);
    gpu_release(h);
    free(expected);
    free(got);
}

/* All signs and exponents, and some mantissas of each. */
static void gives_the_bits_over_all_f32(void **state)
{
    enum { N = 1 << 16, STEP = 65521 }; /* a prime, about 2^32 / N */
    float *gate = malloc(N * sizeof *gate), *up = malloc(N * sizeof *up);
    (void)state;
    for (uint32_t i = 0; i < N; i++) {
        const uint32_t g = i * STEP + i % 7, u = ~g * 2654435761u;
        memcpy(&gate[i], &g, sizeof g);
        memcpy(&up[i], &u, sizeof u);
    }
    expect_activations(gate, up, N);
    expect_activations(up, gate, N);
    free(gate);
    free(up);
}

/* Where the exponential is not clamped, and about the bounds of its clamping. */
static void gives_the_bits_where_exp_is_computed(void **state)
{
    enum { N = 1 << 15 };
    float *gate = malloc(N * sizeof *gate), *up = malloc(N * sizeof *up);
    (void)state;
    for (int i = 0; i < N; i++) {
        gate[i] = ((float)i - N / 2) * (178.0f / N) + (float)(i % 13) * 0x1p-18f;
        up[i] = 1.0f;
    }
    expect_activations(gate, up, N);
    expect_activations(up, gate, N);
    free(gate);
    free(up);
}

static void gives_the_bits_of_what_is_odd(void **state)
{
    static const float odd[] = {0, -0.0f, 1, -1, 87, -87, 88, -88, 0x1.62e43p-1f, 0x1.5d5896p+6f, -0x1.5d5896p+6f,
                                0x1p-149f, -0x1p-149f, 0x1p-126f, -0x1p-126f, 3.4028235e38f, -3.4028235e38f,
                                INFINITY, -INFINITY, NAN};
    enum { ODD = sizeof odd / sizeof *odd };
    float gate[ODD * ODD], up[ODD * ODD];
    (void)state;
    for (int i = 0; i < ODD * ODD; i++) {
        gate[i] = odd[i / ODD];
        up[i] = odd[i % ODD];
    }
    expect_activations(gate, up, ODD * ODD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_bits_over_all_f32),
        cmocka_unit_test(gives_the_bits_where_exp_is_computed),
        cmocka_unit_test(gives_the_bits_of_what_is_odd),
    };
    gpu = gpu_for_test();
    if (!gpu)
        return 77;
    if (kernels_select("scalar", &scalar))
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
