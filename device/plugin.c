#include "device/plugin.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The program's folder with its slash, "" where the system does not say. */
static void find_folder(char out[PATH_MAX])
{
    const ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 1);
    out[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(out, '/');
    out[slash ? slash + 1 - out : 0] = '\0';
}

/* Where a plug-in would lie. */
static bool place(const char *folder, const char *below, char out[PATH_MAX])
{
    const int n = snprintf(out, PATH_MAX, "%s%s" DEVICE_PLUGIN_FILE, folder, below);
    return n > 0 && n < PATH_MAX && access(out, F_OK) == 0;
}

static status find_file(const char *folder, char path[PATH_MAX], char why[LOG_LINE_MAX])
{
    char own[PATH_MAX];
    find_folder(own);
    if (folder ? place(folder, "/", path) : place(own, "", path) || place(own, "../lib/hearth/", path))
        return ST_OK;
    snprintf(why, LOG_LINE_MAX, "the plug-in for GPUs, " DEVICE_PLUGIN_FILE ", is not there: expected in %.400s%s",
             folder ? folder : own, folder ? "" : " or its ../lib/hearth");
    return ST_UNSUPPORTED;
}

/* The layout first: of another nothing else can be read. Then the release, which says most. */
static status check(const struct device_plugin *p, const char *path, char why[LOG_LINE_MAX])
{
    if (p->layout != DEVICE_PLUGIN_LAYOUT)
        snprintf(why, LOG_LINE_MAX,
                 "%.400s is of another hearth than this program (layout %u, expected %u): install both of "
                 "one build", path, p->layout, DEVICE_PLUGIN_LAYOUT);
    else if (strcmp(p->release, HEARTH_VERSION) != 0)
        snprintf(why, LOG_LINE_MAX, "%.400s is of hearth %.32s, this is %s: install both of one release", path,
                 p->release, HEARTH_VERSION);
    else if (strcmp(p->shared, device_shared) != 0)
        snprintf(why, LOG_LINE_MAX,
                 "%.400s was built from other files than this program (%.32s, expected %s): install both of one "
                 "build", path, p->shared, device_shared);
    else
        return ST_OK;
    return ST_UNSUPPORTED;
}

status plugin_open(const char *folder, const struct device_plugin **out, char why[LOG_LINE_MAX])
{
    char path[PATH_MAX];
    status st = find_file(folder, path, why);
    if (st)
        return st;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    device_plugin_entry *entry = library ? (device_plugin_entry *)dlsym(library, DEVICE_PLUGIN_ENTRY) : NULL;
    const struct device_plugin *p = entry ? entry(log_write) : NULL;
    if (!p) {
        const char *said = dlerror();
        snprintf(why, LOG_LINE_MAX, "the plug-in for GPUs cannot be opened: %.600s", said ? said : path);
        st = ST_UNSUPPORTED;
    } else if ((st = check(p, path, why)) == ST_OK) {
        *out = p;
        return ST_OK;
    }
    if (library)
        dlclose(library);
    return st;
}
