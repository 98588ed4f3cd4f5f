/* hearth inspect on each kind of file: what it prints, and what of hostile text reaches the terminal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/command.h"
#include "sparsity/fit/neurons_save.h"
#include "tests/unit/neuron_fixture.h"

static struct log_catcher caught;

/* A model, its neuron file beside it and a split file, in a folder of their own. */
static struct {
    struct tiny_model model;
    struct tiny_neurons made;
    char folder[32], model_path[64], neurons_path[64], split_path[64], printed_path[64];
    char printed[1 << 16];
} f;

static void save_split(const char *path)
{
    static const int32_t index[TINY_FF] = {0, 1, 1, 1};
    struct gguf_writer w;
    gguf_writer_begin(&w, "PWRI", 3);
    gguf_key_string(&w, "general.architecture", "generic.gpu_index");
    gguf_key_u32(&w, "generic.gpu_index.block_count", 1);
    gguf_add_tensor(&w, "blk.0.gpu_idx", DT_I32, 1, (int64_t[]){TINY_FF}, index);
    gguf_writer_end(&w);
    assert_int_equal(gguf_writer_save(&w, path), 0);
    gguf_writer_free(&w);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(f.folder, sizeof f.folder, "/tmp/hearth-inspect-XXXXXX");
    assert_non_null(mkdtemp(f.folder));
    snprintf(f.model_path, sizeof f.model_path, "%s/tiny.gguf", f.folder);
    snprintf(f.neurons_path, sizeof f.neurons_path, "%s/tiny.neurons.gguf", f.folder);
    snprintf(f.split_path, sizeof f.split_path, "%s/tiny.gpuidx", f.folder);
    snprintf(f.printed_path, sizeof f.printed_path, "%s/printed", f.folder);
    tiny_model_open(&f.model, (struct tiny_recipe){.gate_type = DT_Q4_0, .up_type = DT_Q4_0});
    assert_int_equal(gguf_writer_save(&f.model.file, f.model_path), 0);
    tiny_neurons_make(&f.made, f.model.model);
    assert_int_equal(neurons_save(&f.made.n, f.neurons_path), ST_OK);
    save_split(f.split_path);
    caught.first_error[0] = 0;
    log_catch(&caught);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    log_catch(NULL);
    unlink(f.model_path);
    unlink(f.neurons_path);
    unlink(f.split_path);
    unlink(f.printed_path);
    tiny_model_close(&f.model);
    return rmdir(f.folder);
}

/* Runs `hearth inspect FILE` with up to two arguments more; what it prints is in f.printed. */
static status inspect(const char *file, const char *a, const char *b)
{
    const struct launch launch = {.local_ranks = 1};
    char *argv[] = {(char *)"hearth inspect", (char *)file, (char *)a, (char *)b, NULL};
    fflush(stdout);
    int terminal = dup(STDOUT_FILENO);
    FILE *out = fopen(f.printed_path, "w+b");
    assert_non_null(out);
    dup2(fileno(out), STDOUT_FILENO);
    status s = command_inspect(&launch, a ? b ? 4 : 3 : 2, argv);
    fflush(stdout);
    dup2(terminal, STDOUT_FILENO);
    close(terminal);
    rewind(out);
    f.printed[fread(f.printed, 1, sizeof f.printed - 1, out)] = 0;
    fclose(out);
    return s;
}

static json_t *inspect_json(const char *file)
{
    assert_int_equal(inspect(file, "-o", "json"), ST_OK);
    json_t *j = json_loads(f.printed, 0, NULL);
    assert_non_null(j);
    return j;
}

static void assert_text(const json_t *j, const char *key, const char *expected)
{
    const char *found = json_string_value(json_object_get(j, key));
    assert_non_null(found);
    assert_string_equal(found, expected);
}

static double number(const json_t *j, const char *key)
{
    const json_t *v = json_object_get(j, key);
    assert_true(json_is_number(v));
    return json_number_value(v);
}

static void a_models_activation_is_its_neuron_files(void **state)
{
    (void)state;
    json_t *j = inspect_json(f.model_path);
    assert_text(j, "architecture", "llama");
    assert_text(j, "activation", "relu");
    assert_text(j, "activation_from", "neuron file");
    assert_text(j, "sparse_modes", "dense, exact, predicted (after `hearth prepare`)");
    assert_int_equal((int)number(j, "d_ff"), TINY_FF);
    json_decref(j);

    assert_int_equal(unlink(f.neurons_path), 0);
    j = inspect_json(f.model_path);
    assert_text(j, "activation", "silu");
    assert_text(j, "activation_from", "model");
    json_decref(j);
}

static void a_neuron_file_that_does_not_fit_is_only_named(void **state)
{
    (void)state;
    f.made.n.model_hash ^= 1;
    assert_int_equal(neurons_save(&f.made.n, f.neurons_path), ST_OK);
    json_t *j = inspect_json(f.model_path);
    assert_text(j, "activation", "silu");
    json_decref(j);
    assert_string_equal(caught.first_error, ""); /* a warning */
    /* Unless it was asked for. */
    log_catch(&caught);
    assert_int_equal(inspect(f.model_path, "--neurons", f.neurons_path), ST_MISMATCH);
    assert_string_equal(f.printed, "");
    assert_non_null(strstr(caught.first_error, "made for another model"));
}

static void a_neuron_file_is_shown_whole(void **state)
{
    (void)state;
    json_t *j = inspect_json(f.neurons_path);
    assert_text(j, "architecture", "hearth-neurons");
    assert_text(j, "text", "licences.txt");
    assert_int_equal((int)number(j, "tokens"), 12345);
    assert_true(number(j, "perplexity_dense") == 21.5);
    assert_true(json_is_null(json_object_get(j, "perplexity_exact")));
    assert_true(number(j, "live") == 0.625);
    const json_t *layers = json_object_get(j, "layer");
    assert_int_equal(json_array_size(layers), TINY_LAYERS);
    const json_t *first = json_array_get(layers, 0), *last = json_array_get(layers, 1);
    const json_t *mlp = json_object_get(first, "mlp");
    assert_int_equal((int)number(mlp, "rank"), TINY_RANK);
    assert_text(mlp, "fc1_type", "Q8_0");
    assert_int_equal((int)number(mlp, "bytes"), TINY_RANK * TINY_D * 34 / 32 + TINY_FF * TINY_RANK * 2);
    assert_true(number(mlp, "threshold") == -0.75 && number(mlp, "recall") == 0.5);
    assert_int_equal(json_array_size(json_object_get(first, "skip")), SKIP_STEPS);
    assert_true(number(first, "never_fired") > 0.0104 && number(first, "never_fired") < 0.0105); /* 1 of 96 */
    assert_true(number(first, "often_fired") > 0.489 && number(first, "often_fired") < 0.49); /* 47 of 96 */
    assert_true(json_is_null(json_object_get(last, "mlp")) && json_is_null(json_object_get(last, "planes")) &&
                json_is_null(json_object_get(last, "skip")));
    json_decref(j);
}

static void people_get_a_row_for_each_layer(void **state)
{
    (void)state;
    assert_int_equal(inspect(f.neurons_path, NULL, NULL), ST_OK);
    assert_non_null(strstr(f.printed, "activation           relu\n"));
    assert_non_null(strstr(f.printed, "| planes_recall |"));
    assert_non_null(strstr(f.printed, "| 0.250 | 0.010 | 0.490 | 0.5        | 0.960         |"));
    assert_null(strstr(f.printed, "perplexity_exact"));
    assert_int_equal(inspect(f.neurons_path, "-o", "csv"), ST_OK);
    assert_int_equal(strncmp(f.printed, "layer,live,never,often,skip_below,planes_recall,", 48), 0);

    /* What no layer has gets no column. */
    f.made.layers[0] = f.made.layers[1];
    assert_int_equal(neurons_save(&f.made.n, f.neurons_path), ST_OK);
    assert_int_equal(inspect(f.neurons_path, "-o", "csv"), ST_OK);
    assert_int_equal(strncmp(f.printed, "layer,live,never,often\n0,1.000,", 31), 0);
}

/* A name from a file cannot steer the terminal, nor spoil the JSON. */
static void hostile_text_is_printed_harmlessly(void **state)
{
    (void)state;
    snprintf(f.made.n.text, sizeof f.made.n.text, "\x1b[2J\xff\xc3\xb6");
    assert_int_equal(neurons_save(&f.made.n, f.neurons_path), ST_OK);
    assert_int_equal(inspect(f.neurons_path, NULL, NULL), ST_OK);
    assert_non_null(strstr(f.printed, "text                 \\x1b[2J?\xc3\xb6\n"));
    json_t *j = inspect_json(f.neurons_path);
    assert_text(j, "text", "\x1b[2J?\xc3\xb6");
    json_decref(j);
    assert_null(strchr(f.printed, 0x1b));
}

static void a_split_file_is_shown(void **state)
{
    (void)state;
    json_t *j = inspect_json(f.split_path);
    assert_text(j, "architecture", "generic.gpu_index");
    assert_int_equal((int)number(j, "on_gpu"), 3);
    assert_int_equal((int)number(json_array_get(json_object_get(j, "layer"), 0), "on_gpu"), 3);
    json_decref(j);
    assert_int_equal(inspect(f.split_path, NULL, NULL), ST_OK);
    assert_non_null(strstr(f.printed, "|     0 |      3 | 0.031 |"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_models_activation_is_its_neuron_files), TEST(a_neuron_file_that_does_not_fit_is_only_named),
        TEST(a_neuron_file_is_shown_whole), TEST(people_get_a_row_for_each_layer),
        TEST(hostile_text_is_printed_harmlessly), TEST(a_split_file_is_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
