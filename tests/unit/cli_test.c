/* The parts of the command line that need no model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/log.h"
#include "base/utf8.h"
#include "cli/conversation.h"
#include "cli/options.h"
#include "cli/table.h"
#include "cli/text.h"
#include "node/planning.h"
#include "node/topology.h"

/* What `write` prints into a memory stream. */
static char *printed(void (*write)(FILE *out, const void *arg), const void *arg)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    assert_non_null(out);
    write(out, arg);
    fclose(out);
    return text;
}

static void test_utf8_whole(void **state)
{
    (void)state;
    assert_int_equal(utf8_whole("abc", 3), 3);
    assert_int_equal(utf8_whole("", 0), 0);
    assert_int_equal(utf8_whole("a\xc3", 2), 1);             /* the first byte of two */
    assert_int_equal(utf8_whole("a\xc3\xb6", 3), 3);
    assert_int_equal(utf8_whole("a\xf0\x9f\x98", 4), 1);     /* three bytes of four */
    assert_int_equal(utf8_whole("a\xf0\x9f\x98\x80", 5), 5);
    assert_int_equal(utf8_whole("\xe2\x82", 2), 0);
    assert_int_equal(utf8_whole("a\xff", 2), 2);             /* begins nothing: waiting would not help */
    assert_int_equal(utf8_whole("a\x80\x80\x80\x80", 5), 5); /* continues nothing */
}

static void test_utf8_character(void **state)
{
    (void)state;
    assert_int_equal(utf8_character("", 0), 0);
    assert_int_equal(utf8_character("ab", 2), 1);
    assert_int_equal(utf8_character("\xc3\xb6x", 3), 2);
    assert_int_equal(utf8_character("\xf0\x9f\x98\x80", 4), 4);
    assert_int_equal(utf8_character("\xf0\x9f\x98", 3), 0); /* unfinished */
    assert_int_equal(utf8_character("\xc3x", 2), 0);
    assert_int_equal(utf8_character("\x80", 1), 0);
    assert_int_equal(utf8_character("\xff", 1), 0);
}

/* Every flush ends on a whole character, and nothing is lost. */
static void test_utf8_stream(void **state)
{
    (void)state;
    static const char text[] = "z\xc3\xb6\xf0\x9f\x98\x80\xe2\x82\xac\xff!\xf0\x9f";
    char *out_text = NULL;
    size_t n_out = 0, n = sizeof text - 1;
    FILE *out = open_memstream(&out_text, &n_out);
    struct utf8_stream s = {.out = out};
    for (size_t i = 0; i < n; i++) {
        utf8_write(&s, text + i, 1);
        assert_int_equal(utf8_whole(out_text, n_out), n_out);
    }
    assert_int_equal(n_out, n - 2); /* the unfinished end waits */
    utf8_end(&s);
    assert_int_equal(n_out, n);
    assert_memory_equal(out_text, text, n);
    fclose(out);
    free(out_text);
}

static void test_utf8_long_piece(void **state)
{
    (void)state;
    char *text = malloc(3 * PIECE_MAX + 1), *out_text = NULL;
    size_t n_out = 0;
    FILE *out = open_memstream(&out_text, &n_out);
    struct utf8_stream s = {.out = out};
    assert_non_null(text);
    for (size_t i = 0; i < PIECE_MAX; i++)
        memcpy(text + 3 * i, "\xe2\x82\xac", 3);
    utf8_write(&s, text, 3 * PIECE_MAX);
    utf8_end(&s);
    assert_int_equal(n_out, 3 * PIECE_MAX);
    assert_memory_equal(out_text, text, n_out);
    fclose(out);
    free(out_text);
    free(text);
}

static void test_escapes(void **state)
{
    (void)state;
    static const struct {
        const char *typed, *meant;
        size_t n;
    } cases[] = {
        {"", "", 0},
        {"plain", "plain", 5},
        {"a\\nb\\tc\\rd", "a\nb\tc\rd", 7},
        {"\\\\n", "\\n", 2},              /* an escaped backslash escapes nothing */
        {"\\\"\\'", "\"'", 2},
        {"\\x41\\xC3\\xb6", "A\xc3\xb6", 3},
        {"\\x00.", "\0.", 2},
        {"\\d \\x4 \\xg1", "\\d \\x4 \\xg1", 11}, /* none of ours */
        {"end\\", "end\\", 4},
        {"\\x4", "\\x4", 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text;
        size_t n;
        struct text_option o = {.prompt = cases[i].typed};
        assert_int_equal(text_read(&o, true, &text, &n), ST_OK);
        assert_int_equal(n, cases[i].n);
        assert_memory_equal(text, cases[i].meant, n + 1);
        free(text);
        o.no_escape = true;
        assert_int_equal(text_read(&o, true, &text, &n), ST_OK);
        assert_string_equal(text, cases[i].typed);
        free(text);
    }
}

static void test_shares(void **state)
{
    (void)state;
    double shares[4];
    int n = 0;
    struct log_catcher caught;
    assert_int_equal(plan_shares("3,1", shares, 4, &n), ST_OK);
    assert_int_equal(n, 2);
    assert_true(shares[0] == 3 && shares[1] == 1);
    assert_int_equal(plan_shares("0.5", shares, 4, &n), ST_OK);
    assert_int_equal(n, 1);
    static const char *const wrong[] = {"", "3,", ",3", "3,,1", "3;1", "0,1", "-1,1", "x", "nan,1", "inf", "3,1x",
                                        "1,1,1,1,1"};
    log_catch(&caught);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        caught.first_error[0] = '\0';
        n = 7;
        assert_int_equal(plan_shares(wrong[i], shares, 4, &n), ST_USAGE);
        assert_int_equal(n, 7);
        assert_true(caught.first_error[0]);
    }
    log_catch(NULL);
}

static void write_rows(FILE *out, const void *arg)
{
    const enum table_format *format = arg;
    json_t *rows = json_pack("[{s:s, s:f, s:i}, {s:s, s:f, s:i}]", "test", "pp512", "rate", 1234.56, "n", 1, "test",
                             "t", "rate", 2.5, "n", 20);
    assert_int_equal(table_print(out, rows, *format), ST_OK);
    json_decref(rows);
}

static void test_table(void **state)
{
    (void)state;
    static const char *const expected[] = {
        [TABLE_MD] = "| test  |   rate |  n |\n"
                     "| ----- | -----: | -: |\n"
                     "| pp512 | 1234.6 |  1 |\n"
                     "| t     |   2.50 | 20 |\n",
        [TABLE_CSV] = "test,rate,n\npp512,1234.6,1\nt,2.50,20\n",
    };
    for (int f = TABLE_MD; f <= TABLE_CSV; f++) {
        enum table_format format = (enum table_format)f;
        char *text = printed(write_rows, &format);
        assert_string_equal(text, expected[f]);
        free(text);
    }
    enum table_format json = TABLE_JSON;
    char *text = printed(write_rows, &json);
    json_t *back = json_loads(text, 0, NULL);
    assert_int_equal(json_array_size(back), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(back, 0), "test")), "pp512");
    assert_int_equal(json_integer_value(json_object_get(json_array_get(back, 1), "n")), 20);
    json_decref(back);
    free(text);
}

static void write_hostile_rows(FILE *out, const void *arg)
{
    const enum table_format *format = arg;
    json_t *rows = json_pack("[{s:s, s:s}, {s:s, s:s}]", "a,b", "plain", "long",
                             "0123456789 123456789 123456789 123456789 123456789 123456789 1234", "a,b",
                             "say \"yes, \xc3\xb6|no\"\r\nthen", "long", "");
    assert_int_equal(table_print(out, rows, *format), ST_OK);
    json_decref(rows);
}

/* Whatever is in a cell, it is one cell, and whole. */
static void test_table_of_hostile_cells(void **state)
{
    (void)state;
    static const char *const expected[] = {
        [TABLE_MD] = "| a,b                    | long                                                              |\n"
                     "| ---------------------- | ----------------------------------------------------------------- |\n"
                     "| plain                  | 0123456789 123456789 123456789 123456789 123456789 123456789 1234 |\n"
                     "| say \"yes, \xc3\xb6\\|no\"  then |                                                             "
                     "      |\n",
        [TABLE_CSV] = "\"a,b\",long\n"
                      "plain,0123456789 123456789 123456789 123456789 123456789 123456789 1234\n"
                      "\"say \"\"yes, \xc3\xb6|no\"\"\r\nthen\",\n",
    };
    for (int f = TABLE_MD; f <= TABLE_CSV; f++) {
        enum table_format format = (enum table_format)f;
        char *text = printed(write_hostile_rows, &format);
        assert_string_equal(text, expected[f]);
        free(text);
    }
    enum table_format json = TABLE_JSON;
    char *text = printed(write_hostile_rows, &json);
    json_t *back = json_loads(text, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(json_array_get(back, 1), "a,b")),
                        "say \"yes, \xc3\xb6|no\"\r\nthen");
    json_decref(back);
    free(text);
}

/* Machines in hwloc's words, and what ranks get of them. */
static void test_topology(void **state)
{
    (void)state;
    static const struct {
        const char *machine;
        int cores, nodes, ranks, threads_each, node_of_last;
        bool bound;
    } cases[] = {
        {"core:4 pu:1", 4, 1, 1, 4, -1, false},
        {"core:8 pu:2", 8, 1, 2, 4, -1, false},          /* hyper-threads are no cores */
        {"core:8 pu:2", 8, 1, 2, 8, -1, true},           /* bound: what is left is the rank's own */
        {"core:2 pu:2", 2, 1, 4, 1, -1, false},          /* more ranks than cores: one thread each */
        {"node:2 core:6 pu:2", 12, 2, 2, 6, 1, false},
        {"node:2 core:6 pu:2", 12, 2, 1, 12, -1, false}, /* one rank uses both nodes */
        {"node:2 core:6 pu:2", 12, 2, 3, 4, -1, false},  /* three do not divide into two */
        {"node:4 core:2 pu:1", 8, 4, 8, 1, 3, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct topology *t;
        assert_int_equal(topology_open(cases[i].machine, &t), ST_OK);
        assert_int_equal(topology_cores(t), cases[i].cores);
        assert_int_equal(topology_nodes(t), cases[i].nodes);
        assert_int_equal(topology_threads(t, cases[i].ranks, cases[i].bound), cases[i].threads_each);
        assert_int_equal(topology_node_of(t, cases[i].ranks - 1, cases[i].ranks), cases[i].node_of_last);
        topology_close(t);
    }
}

/* A quota is shared by all ranks, whatever processors each is bound to; what is left over starts no thread. */
static void test_topology_under_a_quota(void **state)
{
    (void)state;
    static const struct {
        double quota;
        int ranks, threads_each;
        double most;
        bool bound;
    } cases[] = {
        {0, 1, 8, 16, false},     {0.6, 1, 1, 0.6, false}, {1.5, 1, 1, 1.5, false}, {3, 1, 3, 3, false},
        {100, 1, 8, 16, false},   {6, 2, 3, 3, false},     {6, 2, 3, 3, true},      {6, 8, 1, 0.75, false},
        {40, 2, 8, 16, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct topology *t;
        assert_int_equal(topology_open("core:8 pu:2", &t), ST_OK);
        topology_set_quota(t, cases[i].quota);
        assert_int_equal(topology_threads(t, cases[i].ranks, cases[i].bound), cases[i].threads_each);
        assert_true(topology_most_threads(t, cases[i].ranks, cases[i].bound) == cases[i].most);
        topology_close(t);
    }
}

static void test_topology_of_nonsense(void **state)
{
    (void)state;
    struct log_catcher caught;
    struct topology *t = NULL;
    log_catch(&caught);
    assert_int_equal(topology_open("nonsense:0", &t), ST_INTERNAL);
    log_catch(NULL);
    assert_null(t);
    assert_true(caught.first_error[0]);
}

static void test_this_machine(void **state)
{
    (void)state;
    struct launch alone = {.local_ranks = 1};
    int threads = 0;
    topology_settle(&alone, 1, &threads);
    assert_true(threads >= 1);
    threads = 3;
    topology_settle(&alone, 1, &threads);
    assert_int_equal(threads, 3);
}

/* Of NAME=VALUE. */
static const char *name_of(const char *variable, char name[64])
{
    snprintf(name, 64, "%.*s", (int)strcspn(variable, "="), variable);
    return name;
}

/* Variables as launchers set them, and what they say. */
static void test_launchers(void **state)
{
    (void)state;
    static const struct {
        const char *variables[8];
        struct launch says;
    } cases[] = {
        {{NULL}, {0, 1, 0, 1, false, false, NULL}},
        {{"OMPI_COMM_WORLD_RANK=3", "OMPI_COMM_WORLD_SIZE=8", "OMPI_COMM_WORLD_LOCAL_RANK=1",
          "OMPI_COMM_WORLD_LOCAL_SIZE=2", "OMPI_MCA_orte_bound_at_launch=1", "PMIX_RANK=3"},
         {3, 8, 1, 2, true, true, "mpirun"}},
        {{"OMPI_COMM_WORLD_RANK=1", "OMPI_COMM_WORLD_SIZE=2", "SLURM_PROCID=0", "SLURM_STEP_NUM_TASKS=4"},
         {1, 2, 0, 1, false, true, "mpirun"}}, /* within a step of srun */
        {{"PMI_RANK=2", "PMI_SIZE=3", "MPI_LOCALRANKID=2", "MPI_LOCALNRANKS=3"},
         {2, 3, 2, 3, false, true, "mpiexec (as of MPICH or Intel MPI)"}},
        {{"PMIX_RANK=5", "SLURM_PROCID=5", "SLURM_STEP_NUM_TASKS=8", "SLURM_LOCALID=1",
          "SLURM_STEP_TASKS_PER_NODE=3,1(x1),2(x2)", "SLURM_NODEID=2", "SLURM_CPU_BIND_TYPE=mask_cpu:"},
         {5, 8, 1, 2, true, true, "srun"}},
        {{"SLURM_PROCID=1", "SLURM_STEP_NUM_TASKS=2", "SLURM_STEP_TASKS_PER_NODE=2", "SLURM_LOCALID=1",
          "SLURM_CPU_BIND_TYPE=none"}, {1, 2, 1, 2, false, false, "srun"}},
        {{"SLURM_PROCID=0", "SLURM_NTASKS=4", "SLURM_TASKS_PER_NODE=4"}, {0, 1, 0, 1, false, false, "srun"}},
        {{"SLURM_PROCID=0", "SLURM_STEP_NUM_TASKS=2", "SLURM_STEP_TASKS_PER_NODE=2(x"},
         {0, 2, 0, 1, false, false, "srun"}},
        {{"PMIX_RANK=4"}, {4, 5, 0, 1, false, true, "srun"}}, /* of at least so many */
        {{"PMI_RANK=x", "PMI_SIZE=2"}, {0, 1, 0, 1, false, false, NULL}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct launch *says = &cases[i].says;
        char name[64];
        for (int v = 0; v < 8 && cases[i].variables[v]; v++)
            assert_int_equal(setenv(name_of(cases[i].variables[v], name), strchr(cases[i].variables[v], '=') + 1, 1),
                             0);
        const struct launch l = launch_read();
        for (int v = 0; v < 8 && cases[i].variables[v]; v++)
            unsetenv(name_of(cases[i].variables[v], name));
        if (l.rank != says->rank || l.n_ranks != says->n_ranks || l.local_rank != says->local_rank ||
            l.local_ranks != says->local_ranks || l.bound != says->bound || l.mpi != says->mpi ||
            !l.launcher != !says->launcher || (l.launcher && strcmp(l.launcher, says->launcher)))
            fail_msg("case %zu: rank %d of %d, %d of %d here, bound %d, mpi %d, %s", i, l.rank, l.n_ranks, l.local_rank,
                     l.local_ranks, l.bound, l.mpi, l.launcher ? l.launcher : "by hand");
    }
}

/* More ranks than can find each other: rank 0 says so. */
static void test_lone_ranks(void **state)
{
    (void)state;
    struct log_catcher caught;
    struct launch l = {.n_ranks = 3, .local_ranks = 3, .launcher = "srun"};
    log_catch(&caught);
    assert_int_equal(launch_meet(&l), ST_USAGE);
    assert_non_null(strstr(caught.first_error, "srun has started 3 ranks without telling MPI: use srun --mpi=pmix"));
    caught.first_error[0] = '\0';
    l.rank = 1;
    assert_int_equal(launch_meet(&l), ST_USAGE);
    assert_string_equal(caught.first_error, "");
    l = (struct launch){.n_ranks = 1, .local_ranks = 1};
    assert_int_equal(launch_meet(&l), ST_OK);
    log_catch(NULL);
}

/* The conversation is n messages, and the text of message i is this. */
static void expect_message(const struct conversation *c, size_t n, size_t i, const char *content)
{
    assert_int_equal(json_array_size(c->messages), n);
    assert_string_equal(json_string_value(json_object_get(json_array_get(c->messages, i), "content")), content);
}

static void test_conversation_drops_oldest(void **state)
{
    (void)state;
    struct conversation c = {0};
    static const char *const roles[] = {"system", "user", "assistant", "user", "assistant", "user"};
    static const char *const texts[] = {"s", "u1", "a1", "u2", "a2", "u3"};
    for (int i = 0; i < 6; i++)
        assert_int_equal(conversation_add(&c, roles[i], texts[i], ""), ST_OK);
    assert_true(conversation_drop_oldest(&c));
    expect_message(&c, 4, 0, "s");
    expect_message(&c, 4, 1, "u2");
    assert_true(conversation_drop_oldest(&c));
    expect_message(&c, 2, 1, "u3");
    assert_false(conversation_drop_oldest(&c)); /* the system message and the question stay */
    expect_message(&c, 2, 1, "u3");
    conversation_free(&c);
    assert_false(conversation_drop_oldest(&c));
}

static void test_conversation_clear(void **state)
{
    (void)state;
    struct conversation c = {0};
    conversation_clear(&c);
    assert_int_equal(conversation_add(&c, "user", "u", ""), ST_OK);
    conversation_clear(&c);
    assert_int_equal(json_array_size(c.messages), 0);
    static const char *const roles[] = {"system", "user", "assistant", "user"};
    for (int i = 0; i < 4; i++)
        assert_int_equal(conversation_add(&c, roles[i], roles[i], ""), ST_OK);
    conversation_clear(&c);
    expect_message(&c, 1, 0, "system");
    conversation_free(&c);
}

/* A thought is beside what was said, and bytes that are no UTF-8 stay what they are. */
static void test_conversation_keeps_thoughts(void **state)
{
    (void)state;
    struct conversation c = {0};
    json_t *last;
    assert_int_equal(conversation_add(&c, "system", "s", ""), ST_OK);
    assert_int_equal(conversation_add(&c, "user", "u", ""), ST_OK);
    assert_int_equal(conversation_add(&c, "assistant", "a\xff", "t"), ST_OK);
    expect_message(&c, 3, 2, "a\xff");
    const json_t *answer = json_array_get(c.messages, 2);
    assert_string_equal(json_string_value(json_object_get(answer, "reasoning_content")), "t");
    assert_null(json_object_get(json_array_get(c.messages, 1), "reasoning_content"));
    assert_int_equal(conversation_last(&c, &last), ST_OK);
    assert_int_equal(json_array_size(last), 2);
    assert_ptr_equal(json_array_get(last, 0), json_array_get(c.messages, 0));
    assert_ptr_equal(json_array_get(last, 1), answer);
    json_decref(last);
    conversation_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8_whole),
        cmocka_unit_test(test_utf8_character),
        cmocka_unit_test(test_utf8_stream),
        cmocka_unit_test(test_utf8_long_piece),
        cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_table_of_hostile_cells),
        cmocka_unit_test(test_topology),
        cmocka_unit_test(test_topology_under_a_quota),
        cmocka_unit_test(test_topology_of_nonsense),
        cmocka_unit_test(test_this_machine),
        cmocka_unit_test(test_launchers),
        cmocka_unit_test(test_lone_ranks),
        cmocka_unit_test(test_conversation_drops_oldest),
        cmocka_unit_test(test_conversation_clear),
        cmocka_unit_test(test_conversation_keeps_thoughts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
