#include "node/hosts.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

/* Containers and network namespaces of a machine have its id under other names; machines of one image have one name and
 * other ids. */
static bool same_machine(const struct wire_host *a, const struct wire_host *b)
{
    return a->id && b->id ? a->id == b->id : strcmp(a->name, b->name) == 0;
}

static bool same_limit(const struct wire_host *a, const struct wire_host *b)
{
    return same_machine(a, b) && a->limit_id == b->limit_id;
}

typedef bool same_fn(const struct wire_host *a, const struct wire_host *b);

static double gib(uint64_t bytes) { return (double)bytes / (1 << 30); }

/* "rank 0 1.50, rank 2 3.00", cut short where there are many. */
static void list_needs(const struct wire_hello *hellos, int n, int of, same_fn *same, char *out, size_t size)
{
    size_t at = 0;
    for (int r = 0; r < n && at + 32 < size; r++)
        if (same(&hellos[r].host, &hellos[of].host))
            at += (size_t)snprintf(out + at, size - at, "%srank %d %.2f", at ? ", " : "", r, gib(hellos[r].need_bytes));
    if (at + 32 >= size)
        snprintf(out + at, size - at, " ...");
}

/* What rank `of` and those that share with it have together is `has`; `whose`: who says so. */
static status check(const struct wire_hello *hellos, int n, int of, same_fn *same, uint64_t has, const char *whose)
{
    uint64_t sum = 0;
    char needs[512];
    for (int r = 0; r < n; r++)
        if (same(&hellos[r].host, &hellos[of].host) && __builtin_add_overflow(sum, hellos[r].need_bytes, &sum))
            sum = UINT64_MAX;
    if (sum <= has)
        return ST_OK;
    list_needs(hellos, n, of, same, needs, sizeof needs);
    log_error("the ranks of host %s need %.2f GiB of memory together (%s), %s %.2f: give them smaller shares "
              "(--shares, --plan), more hosts, or a shorter context (-c)",
              hellos[of].host.name, gib(sum), needs, whose, gib(has));
    return ST_BUDGET;
}

status hosts_hold(const struct wire_hello *hellos, int n)
{
    status st = ST_OK;
    for (int r = 0; r < n && !st; r++) {
        const struct wire_host *h = &hellos[r].host;
        st = check(hellos, n, r, same_machine, h->memory_bytes, "the machine has");
        if (!st && h->limit_id)
            st = check(hellos, n, r, same_limit, h->limit_bytes, "its cgroup's limit is");
    }
    return st;
}
