/* hearth-synth's models: the neurons that fire in a forward pass are as many as was asked for. */
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "kernels/kernels.h"
#include "model/model.h"
#include "tools/synth/blocks.h"
#include "tools/synth/firing.h"
#include "tools/synth/synth.h"

enum { LAYERS = 3, NEURONS = 2048 };

static const struct shape small_llama = {"small", LLAMA, LAYERS, 512, NEURONS, 8, 2, 64, 600, 512, 10000, false, 0, 0,
                                         0};
static const struct shape small_tied = {"tied", LLAMA, LAYERS, 256, NEURONS, 4, 4, 64, 600, 512, 10000, true, 32, 0, 0};
static const struct shape small_opt = {"opt", OPT, LAYERS, 512, NEURONS, 8, 8, 64, 600, 512, 0, true, 0, 0, 0};

static const struct shape small_experts = {"experts", QWEN3MOE, LAYERS, 512, 256, 8, 2, 64, 600, 512, 10000, false, 0,
                                           6, 2};
static const struct shape small_oss = {"oss", GPT_OSS, LAYERS, 288, 160, 8, 2, 32, 600, 512, 10000, false, 0, 5, 2};

static const struct shape small_net = {"net", QWEN3NEXT, LAYERS, 256, 256, 2, 1, 256, 600, 512, 10000, false, 0, 6, 2};

static void make_path(char path[64])
{
    snprintf(path, 64, "/tmp/hearth-synth-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(close(fd), 0);
}

static double model_live(const struct layer_measure *layers)
{
    double sum = 0;
    for (int i = 0; i < LAYERS; i++)
        sum += layers[i].live;
    return sum / LAYERS;
}

static void check_live(const struct shape *shape, const char *type, enum ffn ffn, float live, float skew)
{
    char path[64];
    make_path(path);
    struct synth_options o = {.shape = shape, .type = weight_type_of(type), .ffn = ffn, .layers = LAYERS, .seed = 5,
                              .path = path, .live = live, .skew = skew};
    struct synth_file file;
    struct layer_measure layers[LAYERS];
    assert_int_equal(synth_write(&o, &file), ST_OK);
    assert_int_equal(synth_calibrate(&o, &file, layers), ST_OK);
    double found = model_live(layers);
    print_message("%s, %s, %s: live %.4f of %g\n", shape->name, type, ffn_name(ffn), found, (double)live);
    assert_true(fabs(found / live - 1) <= 0.1);
    for (int i = 0; i < LAYERS; i++)
        assert_true(fabs(layers[i].live / live - 1) <= 0.15);
    if (live == 1)
        assert_true(found == 1);
    free(file.norms);
    unlink(path);
}

static void test_live_share(void **state)
{
    (void)state;
    check_live(&small_llama, "q4_0", FFN_REGLU, 0.10f, 1.25f);
    check_live(&small_llama, "q8_0", FFN_DRELU, 0.10f, 1.25f);
    check_live(&small_llama, "q4_k", FFN_REGLU, 0.30f, 0);
    check_live(&small_llama, "q4_0", FFN_REGLU, 1, 1.25f);
    check_live(&small_tied, "q4_k", FFN_DRELU, 0.20f, 0.8f);
    check_live(&small_llama, "q5_k", FFN_REGLU, 0.10f, 1.25f);
    check_live(&small_llama, "q6_k", FFN_DRELU, 0.10f, 1.25f);
    check_live(&small_llama, "iq4_nl", FFN_REGLU, 0.10f, 1.25f);
    check_live(&small_llama, "iq4_xs", FFN_REGLU, 0.10f, 1.25f);
    check_live(&small_llama, "mxfp4", FFN_REGLU, 0.10f, 1.25f);
    check_live(&small_opt, "q4_0", FFN_RELU, 0.02f, 1.25f);
    check_live(&small_opt, "q8_0", FFN_RELU, 0.50f, 0.5f);
}

/* Drawn weights have the deviation that is said; what is encoded says what it gives back, near what was given. */
static void check_maker(const struct block_maker *maker)
{
    enum { BLOCKS = 4096 };
    const int block = dtype_block(maker->type), bytes = dtype_block_bytes(maker->type);
    struct random r = {(uint64_t)maker->type};
    uint16_t scales[N_SCALES];
    uint8_t blocks[HEAD * 2];
    float w[HEAD], given[HEAD], said[HEAD];
    double sum = 0, squares = 0, error = 0;
    block_scales(maker, 1 / SCALES_RMS, scales);
    for (int i = 0; i < BLOCKS; i++) {
        block_fill(maker, &r, scales, blocks);
        dequantize_row(maker->type, blocks, block, w);
        for (int j = 0; j < block; j++) {
            sum += (double)w[j] / (BLOCKS * block);
            squares += (double)(w[j] * w[j]) / (BLOCKS * block);
        }
    }
    if (fabs(sum) > 0.02 || fabs(sqrt(squares) - 1) > 0.03)
        fail_msg("%s: mean %.3f, deviation %.3f", dtype_name(maker->type), sum, sqrt(squares));
    if (!maker->encode)
        return;
    for (int j = 0; j < HEAD; j++)
        given[j] = w[j] = draw_normal(&r);
    maker->encode(w, blocks);
    assert_in_range(HEAD / block * bytes, 1, sizeof blocks);
    dequantize_row(maker->type, blocks, HEAD, said);
    for (int j = 0; j < HEAD; j++) {
        error += (double)((w[j] - given[j]) * (w[j] - given[j])) / HEAD;
        if (fabsf(w[j] - said[j]) > 1e-5f)
            fail_msg("%s: weight %d is %g, said to be %g", dtype_name(maker->type), j, (double)said[j], (double)w[j]);
    }
    assert_true(sqrt(error) < 0.25);
    for (int g = 0; g < HEAD; g += GROUP) {
        float kept = 0;
        for (int j = g; j < g + GROUP; j++)
            kept += w[j] - given[j];
        assert_true(fabsf(kept) < 0.5f);
    }
}

static void test_blocks(void **state)
{
    (void)state;
    static const enum dtype types[] = {DT_Q4_0, DT_Q8_0, DT_Q4_K, DT_Q5_K, DT_Q6_K, DT_MXFP4, DT_IQ4_NL, DT_IQ4_XS,
                                       DT_IQ3_S, DT_IQ3_XXS, DT_IQ2_S, DT_IQ2_XS, DT_IQ2_XXS, DT_IQ1_M, DT_IQ1_S,
                                       DT_TQ1_0, DT_TQ2_0};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        check_maker(block_maker_of(types[i]));
    assert_null(block_maker_of(DT_Q2_K));
}

/* A model whose norms are wrong has another live share, which is measured and put right. */
static void test_calibration(void **state)
{
    (void)state;
    char path[64];
    make_path(path);
    struct synth_options o = {.shape = &small_llama, .type = weight_type_of("q4_0"), .ffn = FFN_REGLU, .layers = LAYERS,
                              .seed = 5, .path = path, .live = 0.1f, .skew = 1};
    struct synth_file file;
    struct layer_measure layers[LAYERS];
    assert_int_equal(synth_write(&o, &file), ST_OK);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    for (int i = 0; i < LAYERS; i++) {
        const float half = file.norms[i].level / 2;
        assert_int_equal(fseek(f, (long)file.norms[i].at, SEEK_SET), 0);
        for (int k = 0; k < GROUP; k++)
            assert_int_equal(fwrite(&half, sizeof half, 1, f), 1);
        file.norms[i].level = half;
    }
    assert_int_equal(fclose(f), 0);
    assert_int_equal(synth_measure(&o, layers), ST_OK);
    assert_true(model_live(layers) > 0.15);
    assert_true(fabs(layers[0].spread - 2) < 0.1);
    assert_int_equal(synth_calibrate(&o, &file, layers), ST_OK);
    assert_true(fabs(model_live(layers) / 0.1 - 1) <= 0.1);
    free(file.norms);
    unlink(path);
}

/* Writes it twice: whole, and its header alone, which is the same and makes a file of the same size. */
static void write_both(const struct shape *shape, const char *type, char whole[64], char header[64])
{
    struct synth_options o = {.shape = shape, .type = weight_type_of(type), .layers = LAYERS, .seed = 5};
    struct synth_file file[2];
    char *const paths[] = {whole, header};
    for (int i = 0; i < 2; i++) {
        make_path(paths[i]);
        o.path = paths[i];
        o.header_only = i;
        assert_int_equal(synth_write(&o, &file[i]), ST_OK);
        assert_null(file[i].norms);
    }
    assert_int_equal(file[0].bytes, file[1].bytes);
}

static void test_experts(void **state)
{
    (void)state;
    char paths[2][64];
    static const char *const types[] = {"q4_0", "q8_0", "q4_k", "q6_k", "mxfp4", "iq2_xs", "iq1_m", "tq1_0"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        write_both(&small_experts, types[i], paths[0], paths[1]);
        for (int k = 0; k < 2; k++) {
            struct model *m;
            assert_int_equal(model_load(paths[k], &m), ST_OK);
            assert_true(m->hp.n_experts == 6 && m->hp.n_experts_used == 2 && m->hp.d_expert == 256);
            assert_int_equal(m->layers[LAYERS - 1].n_bundles, 6);
            assert_int_equal(m->layers[0].bundles[5].up.type, weight_type_of(types[i])->body);
            model_free(m);
            unlink(paths[k]);
        }
    }
}

/* What the file of a model of OpenAI's has besides. */
static void test_oss(void **state)
{
    (void)state;
    static const char *const tensors[] = {
        "blk.0.attn_sinks.weight", "blk.0.post_attention_norm.weight", "blk.2.ffn_gate_inp.bias",
        "blk.0.ffn_down_exps.bias", "blk.1.attn_output.bias", "output.weight"};
    char paths[2][64];
    struct gguf *g[2];
    write_both(&small_oss, "mxfp4", paths[0], paths[1]);
    for (int k = 0; k < 2; k++) {
        assert_int_equal(gguf_open(paths[k], &g[k]), ST_OK);
        for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
            assert_non_null(gguf_find_tensor(g[k], tensors[i]));
        const struct gguf_tensor *up = gguf_find_tensor(g[k], "blk.0.ffn_up_exps.weight");
        assert_true(up && up->type == DT_MXFP4 && up->n_dims == 3);
        assert_true(up->dims[0] == 288 && up->dims[1] == 160 && up->dims[2] == 5);
        gguf_close(g[k]);
        unlink(paths[k]);
    }
}

/* Delta nets of the true size. */
static void test_net(void **state)
{
    (void)state;
    char paths[2][64];
    write_both(&small_net, "q4_k", paths[0], paths[1]);
    for (int k = 0; k < 2; k++) {
        struct model *m;
        assert_int_equal(model_load(paths[k], &m), ST_OK);
        assert_int_equal(model_n_nets(&m->hp), LAYERS);
        assert_true(m->hp.delta.key_heads == 16 && m->hp.delta.value_heads == 32 && m->hp.delta.size == 128);
        assert_true(m->layers[2].o.type == DT_Q4_K && model_head_unit(m, 2) == 1 && m->hp.d_shared == 256);
        model_free(m);
        unlink(paths[k]);
    }
}

/* Rows of 288 are no blocks of 256. */
static void test_blocks_are_whole(void **state)
{
    (void)state;
    struct log_catcher caught;
    struct synth_file file;
    struct synth_options o = {.shape = &small_oss, .type = weight_type_of("q4_k"), .layers = 1, .path = "/nowhere"};
    log_catch(&caught);
    assert_int_equal(synth_write(&o, &file), ST_USAGE);
    log_catch(NULL);
    assert_non_null(strstr(caught.first_error, "rows of 288"));
}

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* The probabilities have the wanted mean, and with the usual skew a quarter of the neurons makes 80 % of them. */
static void test_skew(void **state)
{
    (void)state;
    static float bias[11008];
    const uint32_t n = sizeof bias / sizeof *bias;
    double sum = 0, part = 0;
    firing_biases(0.1f, 1.25f, false, 1, n, bias);
    qsort(bias, n, sizeof *bias, descending);
    for (uint32_t i = 0; i < n; i++)
        sum += 0.5 * erfc(-bias[i] * M_SQRT1_2);
    assert_true(fabs(sum / n - 0.1) < 0.001);
    uint32_t enough = 0;
    while (part < 0.8 * sum)
        part += 0.5 * erfc(-bias[enough++] * M_SQRT1_2);
    print_message("%.3f of the neurons make 80 %% of the activations\n", (double)enough / n);
    assert_true(enough > 0.23 * n && enough < 0.29 * n);
}

static void test_halves(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        assert_int_equal(half_of(half_value((uint16_t)h)), h);
        if (h)
            assert_int_equal(half_of(half_value((uint16_t)(h | 0x8000))), h | 0x8000);
    }
    assert_int_equal(half_of(0x1p-26f), 0);
    assert_int_equal(half_of(2047.9f * 0x1p-25f), 0x400);
    assert_int_equal(half_of(1e9f), 0x7bff);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_live_share),
        cmocka_unit_test(test_calibration),
        cmocka_unit_test(test_experts),
        cmocka_unit_test(test_oss),
        cmocka_unit_test(test_net),
        cmocka_unit_test(test_blocks_are_whole),
        cmocka_unit_test(test_skew),
        cmocka_unit_test(test_halves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
