/* Escapes in a text from the command line, where a shell lets nobody type a line's end easily. */
#ifndef HEARTH_CLI_ESCAPES_H
#define HEARTH_CLI_ESCAPES_H

#include <stddef.h>

/* Reads \n, \t, \r, \\, \", \' and \xHH in text[n], in place; every other backslash stands for itself. Returns the
 * bytes that are left; text[that] is NUL if text[n] was. */
size_t escapes_read(char *text, size_t n);

#endif
