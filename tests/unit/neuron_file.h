/* What tests of the neuron file start with; included after cmocka. */
#ifndef HEARTH_TESTS_NEURON_FILE_H
#define HEARTH_TESTS_NEURON_FILE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "sparsity/fit/neurons_save.h"
#include "sparsity/neurons.h"
#include "tests/unit/neuron_fixture.h"

static struct log_catcher caught;

#define assert_logged(text)                                                                       \
    do {                                                                                          \
        if (!strstr(caught.first_error, text))                                                    \
            fail_msg("expected a line with \"%s\", found \"%s\"", text, caught.first_error);      \
    } while (0)

/* What every test starts with: a model, its neurons, and their file in a folder of its own. */
static struct {
    struct tiny_model model;
    struct tiny_neurons made;
    char folder[64], path[96];
    uint8_t *bytes; /* [n] of the file */
    size_t n;
} f;

static uint8_t *read_file(const char *path, size_t *n)
{
    FILE *in = fopen(path, "rb");
    assert_non_null(in);
    assert_int_equal(fseek(in, 0, SEEK_END), 0);
    *n = (size_t)ftell(in);
    rewind(in);
    uint8_t *bytes = malloc(*n);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *n, in), *n);
    fclose(in);
    return bytes;
}

static int set_up(void **state)
{
    (void)state;
    tiny_model_open(&f.model, (struct tiny_recipe){0});
    assert_non_null(f.model.model);
    tiny_neurons_make(&f.made, f.model.model);
    snprintf(f.folder, sizeof f.folder, "/tmp/hearth-neurons-XXXXXX");
    assert_non_null(mkdtemp(f.folder));
    snprintf(f.path, sizeof f.path, "%s/tiny.neurons.gguf", f.folder);
    assert_int_equal(neurons_save(&f.made.n, f.path), ST_OK);
    f.bytes = read_file(f.path, &f.n);
    caught.first_error[0] = 0;
    log_catch(&caught);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    log_catch(NULL);
    unlink(f.path);
    assert_int_equal(rmdir(f.folder), 0); /* no temporary is left */
    free(f.bytes);
    tiny_model_close(&f.model);
    return 0;
}

#endif
