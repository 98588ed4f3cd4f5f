#include "node/cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* Paths that are not absolute count as none (XDG Base Directory Specification). */
static const char *absolute(const char *variable)
{
    const char *path = getenv(variable);
    return path && path[0] == '/' ? path : NULL;
}

char *cache_folder(void)
{
    const char *cache = absolute("XDG_CACHE_HOME"), *home = cache ? NULL : absolute("HOME");
    char *folder = NULL, *parent = NULL;
    struct stat info;
    if (!cache && !home)
        return NULL;
    if (asprintf(&parent, "%s%s", cache ? cache : home, cache ? "" : "/.cache") < 0)
        return NULL;
    if (asprintf(&folder, "%s/hearth", parent) < 0)
        folder = NULL;
    mkdir(parent, 0700); /* what fails shows below */
    if (folder && mkdir(folder, 0700) != 0 && (stat(folder, &info) != 0 || !S_ISDIR(info.st_mode))) {
        free(folder);
        folder = NULL;
    }
    free(parent);
    return folder;
}
