#include "base/machine.h"

#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH_BYTES = PATH_MAX };

/* A folder of a cgroup file system, and the topmost one above it that can be seen. */
struct cgroup {
    char path[PATH_BYTES];
    size_t top; /* bytes of the topmost one's path */
};

/* ---- files of one value ---- */

static FILE *open_file(const char *folder, const char *name)
{
    char path[PATH_BYTES];
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    return n > 0 && n < (int)sizeof path ? fopen(path, "re") : NULL;
}

/* The first line, without its end; "" if there is none. */
static void read_line(const char *folder, const char *name, char *out, int n)
{
    FILE *f = open_file(folder, name);
    out[0] = '\0';
    if (!f)
        return;
    if (!fgets(out, n, f))
        out[0] = '\0';
    out[strcspn(out, "\n")] = '\0';
    fclose(f);
}

/* The number of a file's line "key: 12 kB", in bytes; `otherwise` if there is none. */
static uint64_t read_kib(const char *folder, const char *name, const char *key, uint64_t otherwise)
{
    FILE *f = open_file(folder, name);
    const size_t n = strlen(key);
    char line[256];
    uint64_t kib;
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, n) != 0 || sscanf(line + n, ": %" SCNu64 " kB", &kib) != 1)
            continue;
        otherwise = kib * 1024;
        break;
    }
    if (f)
        fclose(f);
    return otherwise;
}

/* ---- where the process's cgroup is ---- */

/* Whether `word` is in a list such as "rw,cpu,cpuacct". */
static bool has_word(const char *list, const char *word)
{
    const size_t n = strlen(word);
    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, word, n) == 0 && (at[n] == ',' || at[n] == '\0'))
            return true;
    }
    return false;
}

/* The process's path in the hierarchy of `controller` (version 1), or in the one of version 2 (""). */
static bool find_path(const char *root, const char *controller, char *path)
{
    FILE *f = open_file(root, "proc/self/cgroup");
    char *line = NULL;
    size_t n = 0;
    bool found = false;
    while (f && !found && getline(&line, &n, f) > 0) {
        char *list = strchr(line, ':'), *at = list ? strchr(list + 1, ':') : NULL; /* "4:cpu,cpuacct:/path" */
        if (!at || strlen(at + 1) >= PATH_BYTES)
            continue;
        *at = '\0';
        at[1 + strcspn(at + 1, "\n")] = '\0';
        found = *controller ? has_word(list + 1, controller) : list[1] == '\0';
        if (found)
            strcpy(path, at + 1);
    }
    free(line);
    if (f)
        fclose(f);
    return found;
}

/* What of `path` is below `top`, "" or "/..."; NULL if it is elsewhere. */
static const char *below(const char *path, const char *top)
{
    const size_t n = strcmp(top, "/") == 0 ? 0 : strlen(top);
    if (strncmp(path, top, n) != 0 || (path[n] != '\0' && path[n] != '/'))
        return NULL;
    return path[n] == '/' && path[n + 1] == '\0' ? path + n + 1 : path + n;
}

/* One line of mountinfo: where the hierarchy is mounted, and which of its folders is there. */
static bool read_mount(const char *line, const char *controller, char *folder, char *point)
{
    char type[16], options[1024];
    const char *rest = strstr(line, " - ");
    if (!rest || sscanf(line, "%*s %*s %*s %4095s %4095s", folder, point) != 2 ||
        sscanf(rest, " - %15s %*s %1023s", type, options) != 2)
        return false;
    return *controller ? strcmp(type, "cgroup") == 0 && has_word(options, controller) : strcmp(type, "cgroup2") == 0;
}

/* A container may see its own cgroup as the top of what is mounted, by a path that is none inside: then that is it. */
static bool find_cgroup(const char *root, const char *controller, struct cgroup *out)
{
    char path[PATH_BYTES], folder[PATH_BYTES], point[PATH_BYTES], *line = NULL;
    size_t n = 0;
    bool found = false, certain = false;
    if (!find_path(root, controller, path))
        return false;
    FILE *f = open_file(root, "proc/self/mountinfo");
    while (f && !certain && getline(&line, &n, f) > 0) {
        if (!read_mount(line, controller, folder, point))
            continue;
        const char *rest = below(path, folder);
        certain = rest != NULL;
        if (found && !certain)
            continue;
        int length = snprintf(out->path, sizeof out->path, "%s%s%s", root, point, rest ? rest : "");
        out->top = strlen(root) + strlen(point);
        found = length > 0 && length < (int)sizeof out->path;
    }
    free(line);
    if (f)
        fclose(f);
    return found;
}

/* On to the cgroup above, whose limits count too; false if there is none. */
static bool go_up(struct cgroup *c)
{
    char *end = strrchr(c->path, '/');
    if (!end || (size_t)(end - c->path) < c->top)
        return false;
    *end = '\0';
    return true;
}

/* ---- limits ---- */

static void limit_memory(const struct cgroup *c, const char *file, struct machine *m)
{
    char text[64], *end;
    struct stat s;
    read_line(c->path, file, text, sizeof text);
    uint64_t bytes = strtoull(text, &end, 10);
    if (end == text || *end || bytes >= m->limit_bytes) /* "max", or a number that stands for it */
        return;
    m->limit_bytes = bytes;
    m->limit_id = stat(c->path, &s) == 0 ? s.st_ino : 0;
}

static void limit_cpus(const struct cgroup *c, bool second, struct machine *m)
{
    char text[64], period[32] = "";
    double quota_us = 0, period_us = 0;
    read_line(c->path, second ? "cpu.max" : "cpu.cfs_quota_us", text, sizeof text);
    if (second) { /* "60000 100000", "max 100000" */
        if (sscanf(text, "%lf %lf", &quota_us, &period_us) != 2)
            return;
    } else { /* -1: none */
        read_line(c->path, "cpu.cfs_period_us", period, sizeof period);
        if (sscanf(text, "%lf", &quota_us) != 1 || sscanf(period, "%lf", &period_us) != 1)
            return;
    }
    if (quota_us > 0 && period_us > 0 && (m->cpus == 0 || quota_us / period_us < m->cpus))
        m->cpus = quota_us / period_us;
}

static void read_limits(const char *root, struct machine *m)
{
    struct cgroup c;
    bool more;
    for (more = find_cgroup(root, "memory", &c); more; more = go_up(&c))
        limit_memory(&c, "memory.limit_in_bytes", m);
    for (more = find_cgroup(root, "cpu", &c); more; more = go_up(&c))
        limit_cpus(&c, false, m);
    for (more = find_cgroup(root, "", &c); more; more = go_up(&c)) {
        limit_memory(&c, "memory.max", m);
        limit_cpus(&c, true, m);
    }
}

static void read_boot_id(const char *root, struct machine *m)
{
    uint64_t high, low;
    read_line(root, "proc/sys/kernel/random/boot_id", m->boot_id, sizeof m->boot_id);
    if (strlen(m->boot_id) == MACHINE_ID_BYTES - 1 && strspn(m->boot_id, "0123456789abcdef-") == MACHINE_ID_BYTES - 1 &&
        sscanf(m->boot_id, "%8" SCNx64 "-%*4x-%*4x-%*4x-%12" SCNx64, &high, &low) == 2)
        m->id = high << 32 ^ low;
    else
        m->boot_id[0] = '\0';
}

void machine_read(const char *root, struct machine *out)
{
    struct machine m = {.boot_id = ""};
    read_boot_id(root, &m);
    m.memory_bytes = m.limit_bytes = read_kib(root, "proc/meminfo", "MemTotal", UINT64_MAX);
    read_limits(root, &m);
    *out = m;
}

uint64_t machine_held(void)
{
    return read_kib("/proc/self", "status", "RssAnon", 0);
}
