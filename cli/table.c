#include "cli/table.h"

#include <string.h>
#include "base/log.h"

enum { COLUMNS_MAX = 32, CELL_MAX = 64 };

bool table_format_of(const char *name, enum table_format *out)
{
    static const char *const names[] = {[TABLE_MD] = "md", [TABLE_CSV] = "csv", [TABLE_JSON] = "json"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (enum table_format)i;
            return true;
        }
    }
    return false;
}

static void cell_text(const json_t *v, char text[CELL_MAX])
{
    if (json_is_string(v))
        snprintf(text, CELL_MAX, "%s", json_string_value(v));
    else if (json_is_integer(v))
        snprintf(text, CELL_MAX, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else if (json_is_real(v))
        snprintf(text, CELL_MAX, "%.*f", json_real_value(v) < 100 ? 2 : 1, json_real_value(v));
    else
        snprintf(text, CELL_MAX, "%s", json_is_null(v) ? "" : json_is_true(v) ? "true" : "false");
}

static void print_csv(FILE *out, const json_t *rows)
{
    const char *key, *separator = "";
    json_t *v;
    json_object_foreach(json_array_get(rows, 0), key, v) {
        fprintf(out, "%s%s", separator, key);
        separator = ",";
    }
    fputc('\n', out);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        separator = "";
        json_object_foreach(json_array_get(rows, i), key, v) {
            char text[CELL_MAX];
            cell_text(v, text);
            fprintf(out, strpbrk(text, ",\"\n") ? "%s\"%s\"" : "%s%s", separator, text);
            separator = ",";
        }
        fputc('\n', out);
    }
}

/* Columns are as wide as their widest cell; numbers stand at the right. */
static void print_markdown(FILE *out, const json_t *rows)
{
    int width[COLUMNS_MAX] = {0};
    const char *key;
    char text[CELL_MAX];
    json_t *v;
    const json_t *first = json_array_get(rows, 0);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        int c = 0;
        json_object_foreach(json_array_get(rows, i), key, v) {
            cell_text(v, text);
            int n = (int)strlen(text), head = (int)strlen(key);
            n = n > head ? n : head;
            width[c] = n > width[c] ? n : width[c];
            c += c < COLUMNS_MAX - 1;
        }
    }
    int c = 0;
    json_object_foreach((json_t *)first, key, v)
        fprintf(out, json_is_number(v) ? "| %*s " : "| %-*s ", width[c++], key);
    fputs("|\n", out);
    c = 0;
    json_object_foreach((json_t *)first, key, v) {
        fputs("| ", out);
        for (int i = 1; i < width[c]; i++)
            fputc('-', out);
        fputs(json_is_number(v) ? ": " : "- ", out);
        c++;
    }
    fputs("|\n", out);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        c = 0;
        json_object_foreach(json_array_get(rows, i), key, v) {
            cell_text(v, text);
            fprintf(out, json_is_number(v) ? "| %*s " : "| %-*s ", width[c++], text);
        }
        fputs("|\n", out);
    }
}

status table_print_json(FILE *out, const json_t *value)
{
    if (json_dumpf(value, out, JSON_INDENT(2) | JSON_REAL_PRECISION(7) | JSON_ENCODE_ANY) != 0) {
        log_error("cannot print the result as JSON");
        return ST_INTERNAL;
    }
    fputc('\n', out);
    return ST_OK;
}

status table_print(FILE *out, const json_t *rows, enum table_format format)
{
    if (format == TABLE_JSON)
        return table_print_json(out, rows);
    if (json_array_size(rows) == 0)
        return ST_OK;
    if (format == TABLE_CSV)
        print_csv(out, rows);
    else
        print_markdown(out, rows);
    return ST_OK;
}
