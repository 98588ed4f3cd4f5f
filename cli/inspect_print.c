/* What all that inspect prints of a file goes through. */
#include <stdio.h>
#include "cli/inspect.h"

void inspect_print_harmless(const char *text)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x20 || c == 0x7f)
            printf("\\x%02x", c);
        else
            putchar(c);
    }
}

void inspect_print_summary(const json_t *s)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)s, key, v) {
        if (json_is_array(v) || json_is_object(v) || json_is_null(v))
            continue;
        printf("%-20s ", key);
        if (json_is_integer(v))
            printf("%" JSON_INTEGER_FORMAT, json_integer_value(v));
        else if (json_is_real(v))
            printf("%.4g", json_real_value(v));
        else if (json_is_boolean(v))
            fputs(json_is_true(v) ? "yes" : "no", stdout);
        else
            inspect_print_harmless(json_string_value(v));
        putchar('\n');
    }
}
