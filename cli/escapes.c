#include "cli/escapes.h"

#include <ctype.h>
#include <string.h>

static int digit(char c)
{
    return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

/* The character that the escape at text[n] stands for; *length becomes the escape's bytes, 1 if it is none. */
static char escape_at(const char *text, size_t n, size_t *length)
{
    static const char names[] = "ntr\\\"'", meant[] = "\n\t\r\\\"'";
    const char *known = n > 1 && text[0] == '\\' && text[1] ? strchr(names, text[1]) : NULL;
    *length = 1;
    if (known) {
        *length = 2;
        return meant[known - names];
    }
    if (n > 3 && text[0] == '\\' && text[1] == 'x' && isxdigit((unsigned char)text[2]) &&
        isxdigit((unsigned char)text[3])) {
        *length = 4;
        return (char)(digit(text[2]) << 4 | digit(text[3]));
    }
    return text[0];
}

size_t escapes_read(char *text, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0, length; i < n; i += length)
        text[kept++] = escape_at(text + i, n - i, &length);
    if (kept < n)
        text[kept] = '\0';
    return kept;
}
