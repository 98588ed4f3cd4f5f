/* Without hwloc: by what Linux says of the processors that this process may use. A process that is alone on its machine
 * is bound to no node, so of nodes nothing is asked. */
#include "node/cores.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/log.h"

struct cores {
    int physical, processors;
};

/* The first of the processors that share a core with this one; itself where nothing is said. */
static int first_sibling(int processor)
{
    char path[96];
    int first = processor;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", processor);
    FILE *f = fopen(path, "r");
    if (f && fscanf(f, "%d", &first) != 1)
        first = processor;
    if (f)
        fclose(f);
    return first;
}

status cores_open(const char *synthetic, struct cores **out)
{
    cpu_set_t mine, cores;
    if (synthetic) {
        log_error("built without hwloc: %s is not understood", synthetic);
        return ST_UNSUPPORTED;
    }
    struct cores *c = calloc(1, sizeof *c);
    if (!c) {
        log_error("no memory for the machine's topology");
        return ST_NOMEM;
    }
    if (sched_getaffinity(0, sizeof mine, &mine) != 0) { /* more processors than a set holds */
        CPU_ZERO(&mine);
        CPU_SET(0, &mine);
    }
    CPU_ZERO(&cores);
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &mine))
            CPU_SET(first_sibling(i), &cores);
    c->physical = CPU_COUNT(&cores);
    c->processors = CPU_COUNT(&mine);
    *out = c;
    return ST_OK;
}

void cores_close(struct cores *c) { free(c); }
int cores_physical(const struct cores *c) { return c->physical; }
int cores_processors(const struct cores *c) { return c->processors; }

int cores_nodes(const struct cores *c)
{
    (void)c;
    return 1;
}

void cores_bind(const struct cores *c, int node)
{
    (void)c;
    (void)node;
}
