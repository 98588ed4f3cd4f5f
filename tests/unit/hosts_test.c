/* What the ranks of a host need together, whichever way ranks share machines and limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/log.h"
#include "node/hosts.h"

#define GIB (UINT64_C(1) << 30)

static struct wire_hello rank_of(const char *name, uint64_t id, uint64_t has, uint64_t need)
{
    struct wire_hello h = {.need_bytes = need, .host = {.id = id, .memory_bytes = has, .limit_bytes = has}};
    strcpy(h.host.name, name);
    return h;
}

static void limit(struct wire_hello *h, uint64_t id, uint64_t bytes)
{
    h->host.limit_id = id;
    h->host.limit_bytes = bytes;
}

/* `says`: part of the line, NULL: they fit. */
static void assert_hosts(const struct wire_hello *hellos, int n, const char *says)
{
    struct log_catcher caught = {0};
    log_catch(&caught);
    const status st = hosts_hold(hellos, n);
    log_catch(NULL);
    assert_int_equal(st, says ? ST_BUDGET : ST_OK);
    if (!strstr(caught.first_error, says ? says : ""))
        fail_msg("expected '%s', got '%s'", says, caught.first_error);
}

static void ranks_of_a_machine_add_up(void **state)
{
    (void)state;
    struct wire_hello h[3] = {rank_of("pc1", 7, 8 * GIB, 5 * GIB), rank_of("pc2", 8, 8 * GIB, 5 * GIB),
                              rank_of("pc1", 7, 8 * GIB, 3 * GIB)};
    assert_hosts(h, 3, NULL);
    h[2].need_bytes++;
    assert_hosts(h, 3, "the ranks of host pc1 need 8.00 GiB of memory together (rank 0 5.00, rank 2 3.00), the machine "
                       "has 8.00: give them smaller shares");
    assert_hosts(h, 2, NULL);
}

static void names_do_not_tell_machines_apart(void **state)
{
    (void)state;
    const struct wire_hello namesakes[] = {rank_of("debian", 7, 8 * GIB, 5 * GIB),
                                           rank_of("debian", 8, 8 * GIB, 5 * GIB)};
    const struct wire_hello one_machine[] = {rank_of("host1", 7, 8 * GIB, 5 * GIB),
                                             rank_of("host2", 7, 8 * GIB, 5 * GIB)};
    const struct wire_hello unknown[] = {rank_of("pc1", 0, 8 * GIB, 5 * GIB), rank_of("pc1", 0, 8 * GIB, 5 * GIB),
                                         rank_of("pc2", 0, 8 * GIB, 8 * GIB)};
    assert_hosts(namesakes, 2, NULL);
    assert_hosts(one_machine, 2, "host host1 need 10.00 GiB of memory together (rank 0 5.00, rank 1 5.00)");
    assert_hosts(unknown, 3, "host pc1 need 10.00 GiB of memory together (rank 0 5.00, rank 1 5.00)");
}

/* Containers of one machine have limits of their own, and share the machine all the same. */
static void limits_add_up_apart(void **state)
{
    (void)state;
    struct wire_hello h[3] = {rank_of("a", 7, 16 * GIB, 5 * GIB), rank_of("b", 7, 16 * GIB, 5 * GIB),
                              rank_of("c", 7, 16 * GIB, 5 * GIB)};
    limit(&h[0], 1, 6 * GIB);
    limit(&h[1], 2, 6 * GIB);
    assert_hosts(h, 3, NULL);
    limit(&h[1], 1, 6 * GIB);
    assert_hosts(h, 3, "host a need 10.00 GiB of memory together (rank 0 5.00, rank 1 5.00), its cgroup's limit is "
                       "6.00");
    limit(&h[1], 2, 6 * GIB);
    h[2].need_bytes = 7 * GIB;
    assert_hosts(h, 3, "need 17.00 GiB of memory together (rank 0 5.00, rank 1 5.00, rank 2 7.00), the machine has "
                       "16.00");
}

static void sums_do_not_wrap(void **state)
{
    (void)state;
    const struct wire_hello h[] = {rank_of("a", 7, 8 * GIB, UINT64_MAX), rank_of("a", 7, 8 * GIB, 2)};
    assert_hosts(h, 2, "host a need 17179869184.00 GiB");
}

static void many_ranks_are_one_line(void **state)
{
    (void)state;
    struct wire_hello h[64];
    for (int r = 0; r < 64; r++)
        h[r] = rank_of("pc", 7, GIB, GIB);
    assert_hosts(h, 64, " ...), the machine has 1.00: give them");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_of_a_machine_add_up),
        cmocka_unit_test(names_do_not_tell_machines_apart),
        cmocka_unit_test(limits_add_up_apart),
        cmocka_unit_test(sums_do_not_wrap),
        cmocka_unit_test(many_ranks_are_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
