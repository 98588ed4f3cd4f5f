/* llama.cpp's options in hearth's words: docs/from-llama.cpp.md and the program's list say the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/log.h"
#include "cli/habits.h"
#include "cli/options.h"
#include "cli/text.h"

/* What some command has that is in the table. */
static const struct argp_option options[] = {
    {"system", 900, "TEXT", 0, NULL, 0},          {"n-predict", 'n', "N", 0, NULL, 0},
    {"special", 901, NULL, 0, NULL, 0},           {"ignore-eos", 902, NULL, 0, NULL, 0},
    {"chat-template", 903, "NAME", 0, NULL, 0},   {"chunks", 904, "N", 0, NULL, 0},
    {"ids", 905, NULL, 0, NULL, 0},               {"no-bos", 906, NULL, 0, NULL, 0},
    {"no-parse-special", 907, NULL, 0, NULL, 0},
    {0},
};
static const struct argp_child children[] = {{&argp_text, 0, NULL, 0},     {&argp_cluster, 0, NULL, 0},
                                             {&argp_context, 0, NULL, 0},  {&argp_sampling, 0, NULL, 0},
                                             {&argp_output, 0, NULL, 0},   {0}};
static const struct argp everything = {.options = options, .children = children};
/* In chat there is no text. */
static const struct argp chat = {.options = options, .children = children + 1};
/* -r is another option in bench, and there alone is --sequences. */
static const struct argp_option bench_options[] = {{"repetitions", 'r', "N", 0, NULL, 0},
                                                   {"sequences", 908, "N", 0, NULL, 0},
                                                   {0}};
static const struct argp_child bench_children[] = {{&everything, 0, NULL, 0}, {0}};
static const struct argp bench = {.options = bench_options, .children = bench_children};
/* What the server alone has. */
static const struct argp_option serve_options[] = {
    {"host", 909, "ADDRESS", 0, NULL, 0}, {"port", 910, "N", 0, NULL, 0},        {"api-key", 911, "KEY", 0, NULL, 0},
    {"parallel", 912, "N", 0, NULL, 0},   {"tls-cert", 913, "FILE", 0, NULL, 0}, {"tls-key", 914, "FILE", 0, NULL, 0},
    {"alias", 'a', "NAME", 0, NULL, 0},
    {0},
};
static const struct argp serve = {.options = serve_options, .children = bench_children};

/* A command line as one text, and what became of it: "" if it was refused. malloc'ed. */
static char *applied(const char *program, const char *line)
{
    char *words = strdup(line), *argv[16] = {strdup(program)}, **own, *text = calloc(1, 1000);
    int argc = 1, n_own = 0;
    for (char *word = strtok(words, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    const struct argp *argp = strcmp(program, "hearth bench") == 0   ? &bench
                              : strcmp(program, "hearth chat") == 0  ? &chat
                              : strcmp(program, "hearth serve") == 0 ? &serve
                                                                     : &everything;
    if (habits_apply(argp, argc, argv, true, &n_own, &own) == ST_OK) {
        assert_null(own[n_own]);
        assert_ptr_equal(own[0], argv[0]);
        for (int i = 1; i < n_own; i++)
            snprintf(text + strlen(text), 1000 - strlen(text), i > 1 ? " %s" : "%s", own[i]);
        free(own);
    }
    free(argv[0]);
    free(words);
    return text;
}

static void assert_applied(const char *program, const char *line, const char *expected)
{
    char *found = applied(program, line);
    if (strcmp(found, expected) != 0)
        print_error("%s %s\n", program, line);
    assert_string_equal(found, expected);
    free(found);
}

/* ---- the table ---- */

struct row {
    char options[1000], commands[64], here[300];
};

static char *document(void)
{
    FILE *f = fopen(TEST_DATA "/../../docs/from-llama.cpp.md", "r");
    char *text = calloc(1, 1 << 16);
    assert_non_null(f);
    assert_true(fread(text, 1, (1 << 16) - 1, f) > 1000);
    fclose(f);
    return text;
}

/* Takes a row off *text; false at its end. */
static bool next_row(char **text, struct row *r)
{
    for (char *line; (line = strsep(text, "\n"));)
        if (sscanf(line, "| %999[^|] | %63[^|] | %299[^|] |", r->options, r->commands, r->here) == 3 &&
            strncmp(r->options, "`-", 2) == 0) {
            r->commands[strlen(r->commands) - 1] = '\0'; /* the space before the bar */
            r->here[strlen(r->here) - 1] = '\0';
            return true;
        }
    return false;
}

static char *table(char *text)
{
    char *at = strstr(text, "| llama.cpp | command |");
    assert_non_null(at);
    return at;
}

/* The row's first command, as habits_apply wants it. */
static void program_of(const struct row *r, char program[80])
{
    if (strcmp(r->commands, "hearth") == 0)
        snprintf(program, 80, "hearth");
    else
        snprintf(program, 80, "hearth %.*s", (int)strcspn(r->commands, " "),
                 strcmp(r->commands, "any") == 0 ? "run" : r->commands);
}

/* An option of a row, with its value, as the third column says. */
static void check_option(const struct row *r, const char *typed)
{
    char program[80], expected[2400], *dash;
    program_of(r, program);
    snprintf(expected, sizeof expected, "%s", typed);
    if (r->here[0] == '`')
        snprintf(expected, sizeof expected, "%.*s%s", (int)strcspn(r->here + 1, "`"), r->here + 1,
                 typed + strcspn(typed, " "));
    else if (strncmp(r->here, "the same", 8) != 0)
        expected[0] = '\0';
    while (expected[0] && (dash = strpbrk(expected, "_")))
        *dash = '-';
    assert_applied(program, typed, expected);
}

/* Every option of every row; the values too are gone where an option is left out. */
static void test_rows_do_what_they_say(void **state)
{
    (void)state;
    char *text = document(), *at = table(text);
    struct row r;
    int n = 0;
    for (; next_row(&at, &r); n++) {
        char *left = r.options; /* `option`, `option` */
        for (char *typed; strsep(&left, "`") && (typed = strsep(&left, "`"));)
            check_option(&r, typed);
    }
    assert_true(n > 60);
    free(text);
}

/* Whether the document has a row that is this habit. */
static bool is_in_document(const struct habit *h)
{
    char *text = document(), *at = table(text), here[400];
    struct row r;
    bool found = false;
    snprintf(here, sizeof here, h->kind == HABIT_SAME       ? "`%s`"
                                : h->kind == HABIT_NEEDLESS ? "changes nothing: %s"
                                                            : "not to be had: %s", h->text);
    while (!found && next_row(&at, &r)) {
        char *words = strdup(h->words);
        found = strcmp(r.here, here) == 0 && strcmp(r.commands, h->commands ? h->commands : "any") == 0;
        for (char *word = strtok(words, " "); word && found; word = strtok(NULL, " ")) {
            char bare[100], valued[100];
            snprintf(bare, sizeof bare, "`%s`", word);
            snprintf(valued, sizeof valued, "`%s ", word);
            found = strstr(r.options, h->value == VALUE_ONE ? valued : bare) ||
                    (h->value == VALUE_MAYBE && strstr(r.options, valued));
        }
        free(words);
    }
    free(text);
    return found;
}

static void test_document_has_every_habit(void **state)
{
    (void)state;
    for (const struct habit *h = habits; h->words; h++) {
        if (!is_in_document(h))
            print_error("%s (%s) is not in the document\n", h->words, h->commands ? h->commands : "any");
        assert_true(is_in_document(h));
    }
}

/* ---- the rules ---- */

static void test_rules(void **state)
{
    (void)state;
    static const struct {
        const char *typed, *meant; /* "": refused */
    } cases[] = {
        {"-n 16 -p text", "-n 16 -p text"},
        {"-n16 -t2", "-n16 -t2"},                          /* a number may follow at once */
        {"-ntwo", ""},
        {"-nope", ""},
        {"--temperature=0.5", "--temp 0.5"},
        {"--temp=0.5", "--temp=0.5"},
        {"--top_k 5 --repeat_last_n=8", "--top-k 5 --repeat-last-n=8"},
        {"--top_k=a_b", "--top-k=a_b"},                    /* a value keeps its underscores */
        {"--predict 4", "--n-predict 4"},
        {"--predictor mlp", "--predictor mlp"},
        {"--pred 4", ""},
        {"--predicto mlp", ""},
        {"-fa file", "file"},
        {"-fa on file", "file"},
        {"-fa 0,1 file", "file"},
        {"-fa 7B.gguf", "7B.gguf"},                        /* no switch's position */
        {"--flash-attn=off file", "file"},
        {"-ngl=99 file", "--gpu-layers 99 file"},
        {"-mg", ""},                                       /* left out, though nothing follows */
        {"-p -ngl", "-p -ngl"},                            /* a value is no option */
        {"--prompt --ngl", "--prompt --ngl"},
        {"-- -ngl", "-- -ngl"},
        {"-f - -q", "-f - -q"},
        {"-h", "--help"},
        {"--help", "--help"},
        {"-?", "-?"},
        {"-V", "-V"},
        {"-1", ""},
        {"-x", ""},
        {"--", "--"},
        {"--=x", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_applied("hearth run", cases[i].typed, cases[i].meant);
}

static void test_refusals_have_one_line(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"hearth run", "-hf", "-hf is not to be had: nothing is downloaded; -m names a file that is here"},
        {"hearth run", "-nope", "hearth run has no option -nope (a value stands apart, as in -n VALUE)"},
        {"hearth run", "--pred", "hearth run has no option --pred (hearth run --help lists them)"},
        {"hearth", "-m", "hearth has no option -m before a command (hearth --help lists them)"},
        {"hearth bench", "--temperature", "--temperature is hearth's --temp, which hearth bench does not have"},
    };
    static const struct argp few = {.options = options};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *argv[] = {strdup(cases[i][0]), strdup(cases[i][1])}, **own;
        struct log_catcher caught;
        int n;
        log_catch(&caught);
        assert_int_equal(habits_apply(&few, 2, argv, false, &n, &own), ST_USAGE);
        log_catch(NULL);
        assert_string_equal(caught.first_error, cases[i][2]);
        free(argv[0]);
        free(argv[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_do_what_they_say),
        cmocka_unit_test(test_document_has_every_habit),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_refusals_have_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
