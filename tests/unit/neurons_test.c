/* The neuron file: the round trip, a disk that is full, memory that runs out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "sparsity/fit/neurons_save.h"
#include "sparsity/neurons.h"
#include "tests/unit/alloc_fail.h"
#include "tests/unit/neuron_file.h"

/* ---- the round trip ---- */

static void assert_same_array(const float *a, const float *b)
{
    assert_int_equal(!a, !b);
    if (a) {
        assert_memory_equal(a, b, TINY_FF * sizeof *a);
        assert_int_equal((uintptr_t)a % 32, 0);
    }
}

static void assert_same_matrix(const struct matrix *a, const struct matrix *b)
{
    assert_int_equal(!a->data, !b->data);
    if (!a->data)
        return;
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->cols, b->cols);
    assert_memory_equal(a->data, b->data, (size_t)a->rows * dtype_row_bytes(a->type, a->cols));
    assert_int_equal((uintptr_t)a->data % 32, 0);
}

static void assert_same(const struct neurons *a, const struct neurons *b)
{
    assert_int_equal(a->activation, b->activation);
    assert_int_equal(a->n_layers, b->n_layers);
    assert_int_equal(a->d_model, b->d_model);
    assert_int_equal(a->d_ff, b->d_ff);
    assert_int_equal(a->model_hash, b->model_hash);
    assert_int_equal(a->model_bytes, b->model_bytes);
    assert_int_equal(a->n_tokens, b->n_tokens);
    assert_string_equal(a->text, b->text);
    assert_memory_equal(&a->skip_share, &b->skip_share, 6 * sizeof(float)); /* it and the perplexities */
    for (int i = 0; i < b->n_layers; i++) {
        const struct neuron_layer *x = &a->layers[i], *y = &b->layers[i];
        assert_same_array(x->fired, y->fired);
        assert_same_array(x->strength, y->strength);
        assert_same_array(x->weight, y->weight);
        assert_same_array(x->bound, y->bound);
        assert_same_matrix(&x->fc1, &y->fc1);
        assert_same_matrix(&x->fc2, &y->fc2);
        assert_memory_equal(&x->live, &y->live, sizeof x->live);
        assert_memory_equal(x->skip, y->skip, sizeof x->skip);
        assert_memory_equal(&x->planes, &y->planes, sizeof x->planes);
        assert_memory_equal(&x->mlp, &y->mlp, sizeof x->mlp);
        assert_memory_equal(&x->mlp_threshold, &y->mlp_threshold, sizeof x->mlp_threshold);
    }
}

static void what_is_saved_is_loaded(void **state)
{
    (void)state;
    struct neurons *n;
    assert_int_equal(neurons_load(f.path, f.model.model, &n), ST_OK);
    assert_same(n, &f.made.n);
    assert_true(neurons_is_file(n->file));
    assert_false(neurons_is_file(f.model.model->file));
    assert_false(neurons_have_weights(n) || neurons_have_bounds(n) || neurons_have_mlp(n));
    neurons_free(n);
    struct stat st;
    assert_int_equal(stat(f.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0644);

    tiny_neurons_fill(&f.made);
    f.made.bound[3] = INFINITY; /* where nothing ever fired, nothing is flagged */
    f.made.bound[4] = -INFINITY;
    f.made.layers[1].mlp_threshold = INFINITY;
    assert_int_equal(neurons_save(&f.made.n, f.path), ST_OK);
    assert_int_equal(neurons_load(f.path, NULL, &n), ST_OK);
    assert_same(n, &f.made.n);
    assert_true(neurons_have_weights(n) && neurons_have_bounds(n) && neurons_have_mlp(n));
    neurons_free(n);
    assert_false(neurons_have_weights(NULL) || neurons_have_bounds(NULL) || neurons_have_mlp(NULL));
}

/* Layers have as many neurons as the model's have, and shares are of all tokens. */
static void experts_are_saved_and_loaded(void **state)
{
    (void)state;
    struct neurons *n;
    assert_null(memmem(f.bytes, f.n, "hearth-neurons.expert", 21)); /* nothing of it where there are none */
    tiny_neurons_make_experts(&f.made);
    assert_int_equal(neurons_save(&f.made.n, f.path), ST_OK);
    assert_int_equal(neurons_load(f.path, NULL, &n), ST_OK);
    assert_memory_equal(&n->experts, &f.made.n.experts, sizeof n->experts);
    assert_int_equal(neurons_of_layer(n, 0), TINY_DENSE);
    assert_int_equal(neurons_of_layer(n, 1), TINY_FF);
    assert_int_equal(neurons_experts(n, 0), 0);
    assert_int_equal(neurons_experts(n, 1), TINY_EXPERTS);
    assert_null(n->layers[0].chosen);
    assert_memory_equal(n->layers[0].fired, f.made.fired, TINY_DENSE * sizeof(float));
    assert_memory_equal(n->layers[1].bound, f.made.bound, sizeof f.made.bound);
    assert_memory_equal(n->layers[1].chosen, f.made.layers[1].chosen, TINY_EXPERTS * sizeof(float));
    assert_int_equal(neurons_expert_of(n, 0, 0), -1);
    assert_int_equal(neurons_expert_of(n, 1, 24), 1);
    assert_int_equal(neurons_expert_of(n, 1, 72), -1); /* shared */
    assert_true(neurons_looked_at(n, 1, 47) == 0.5f && neurons_looked_at(n, 1, 95) == 1 &&
                neurons_looked_at(n, 0, 9) == 1);
    const struct expert_use use = neurons_expert_use(n, 1), none = neurons_expert_use(n, 0);
    assert_int_equal(use.most, 9259); /* of 12345 */
    assert_int_equal(use.least, 3086);
    assert_int_equal(use.rare, 0);
    assert_true(none.most == 0 && none.rare == 0);
    double fired = 0;
    for (int i = 24; i < 48; i++)
        fired += (double)f.made.fired[i] / 24;
    assert_true(fabs(neurons_expert_live(n, 1, 1) - fired / 0.5) < 1e-6);
    neurons_free(n);
}

static void the_same_neurons_give_the_same_bytes(void **state)
{
    (void)state;
    size_t n;
    assert_int_equal(neurons_save(&f.made.n, f.path), ST_OK);
    uint8_t *again = read_file(f.path, &n);
    assert_int_equal(n, f.n);
    assert_memory_equal(again, f.bytes, n);
    free(again);
}

static void a_file_is_beside_its_model(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"a/b.gguf", "a/b.neurons.gguf"},
        {"b-00001-of-00003.gguf", "b.neurons.gguf"},
        {"b-00001-of-0003.gguf", "b-00001-of-0003.neurons.gguf"},
        {"b-00001-of-0000x.gguf", "b-00001-of-0000x.neurons.gguf"},
        {"-00001-of-00003.gguf", "-00001-of-00003.neurons.gguf"},
        {"b", "b.neurons.gguf"},
        {".gguf", ".neurons.gguf"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char *path = neurons_path(pairs[i][0]);
        assert_string_equal(path, pairs[i][1]);
        free(path);
    }
}

/* ---- what fails while writing ---- */

static int files_in_folder(void)
{
    DIR *d = opendir(f.folder);
    int n = 0;
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

/* A limit of the process stands for a disk of so many bytes. */
static void a_full_disk_leaves_no_half_file(void **state)
{
    (void)state;
    struct rlimit was, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    static const size_t sizes[] = {0, 1, 120, 1000, 4096};
    for (size_t i = 0; i <= sizeof sizes / sizeof *sizes; i++) {
        small = was;
        small.rlim_cur = i < sizeof sizes / sizeof *sizes ? sizes[i] : f.n - 1;
        caught.first_error[0] = 0;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        status s = neurons_save(&f.made.n, f.path);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
        assert_int_equal(s, ST_IO);
        assert_logged("cannot write");
        assert_int_equal(files_in_folder(), 1);
    }
    signal(SIGXFSZ, handler);
    /* The one that was there before is as it was. */
    size_t n;
    uint8_t *bytes = read_file(f.path, &n);
    assert_int_equal(n, f.n);
    assert_memory_equal(bytes, f.bytes, n);
    free(bytes);
}

static void a_file_that_cannot_be_made_is_named(void **state)
{
    (void)state;
    assert_int_equal(neurons_save(&f.made.n, "/tmp/hearth-there-is-no-such-folder/x.gguf"), ST_IO);
    assert_logged("/tmp/hearth-there-is-no-such-folder/x.gguf: cannot write: No such file");
    /* The name is taken by a folder: the temporary goes, or the folder around it could not be removed in the end. */
    assert_int_equal(unlink(f.path), 0);
    assert_int_equal(mkdir(f.path, 0700), 0);
    assert_int_equal(neurons_save(&f.made.n, f.path), ST_IO);
    assert_int_equal(rmdir(f.path), 0);
}

static void no_memory_leaks_nothing(void **state)
{
    (void)state;
    struct neurons *out;
    status s;
    long n;
    for (n = 0; alloc_fail_at(n), s = neurons_load(f.path, f.model.model, &out), alloc_failed(); n++)
        assert_int_equal(s, ST_NOMEM);
    assert_int_equal(s, ST_OK);
    assert_true(n > 5);
    neurons_free(out);
    for (n = 0; alloc_fail_at(n), s = neurons_save(&f.made.n, f.path), alloc_failed(); n++) {
        assert_int_equal(s, ST_NOMEM);
        assert_int_equal(files_in_folder(), 1);
    }
    assert_int_equal(s, ST_OK);
    assert_true(n > 2);
    alloc_fail_at(0);
    char *path = neurons_path("x.gguf");
    assert_true(alloc_failed());
    assert_null(path);
    neurons_free(NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_is_saved_is_loaded), TEST(experts_are_saved_and_loaded), TEST(the_same_neurons_give_the_same_bytes),
        TEST(a_file_is_beside_its_model),
        TEST(a_full_disk_leaves_no_half_file), TEST(a_file_that_cannot_be_made_is_named),
        TEST(no_memory_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
