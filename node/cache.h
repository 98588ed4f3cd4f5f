/* Where the user's cache lies. */
#ifndef HEARTH_NODE_CACHE_H
#define HEARTH_NODE_CACHE_H

/* $XDG_CACHE_HOME/hearth, or ~/.cache/hearth, which is made if it is not there; malloc'ed. NULL: there is no such
 * folder and none can be made. */
char *cache_folder(void);

#endif
