#include "cli/table.h"

#include <stdlib.h>
#include <string.h>
#include "base/log.h"

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

static status no_memory(void)
{
    log_error("no memory for the table");
    return ST_NOMEM;
}

/* malloc'ed; NULL: no memory. */
static char *cell_text(const json_t *v)
{
    char *text;
    int n;
    if (json_is_integer(v))
        n = asprintf(&text, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else if (json_is_real(v))
        n = asprintf(&text, "%.*f", json_real_value(v) < 100 ? 2 : 1, json_real_value(v));
    else
        return strdup(json_is_string(v) ? json_string_value(v) : json_is_null(v) ? "" : json_is_true(v) ? "true"
                                                                                                        : "false");
    return n < 0 ? NULL : text;
}

/* RFC 4180, with the line ends of this system. */
static void put_csv(FILE *out, const char *text)
{
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++)
        fprintf(out, *text == '"' ? "\"\"" : "%c", *text);
    fputc('"', out);
}

static status print_csv(FILE *out, const json_t *rows)
{
    const char *key, *separator = "";
    json_t *v;
    json_object_foreach(json_array_get(rows, 0), key, v) {
        fputs(separator, out);
        put_csv(out, key);
        separator = ",";
    }
    fputc('\n', out);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        separator = "";
        json_object_foreach(json_array_get(rows, i), key, v) {
            char *text = cell_text(v);
            if (!text)
                return no_memory();
            fputs(separator, out);
            put_csv(out, text);
            separator = ",";
            free(text);
        }
        fputc('\n', out);
    }
    return ST_OK;
}

/* Writes text so that neither a bar nor a line's end in it ends a cell of Markdown; with `out` NULL it writes nothing.
 * Returns its width in characters. */
static int put_markdown(FILE *out, const char *text)
{
    int width = 0;
    for (; *text; text++) {
        const char c = *text == '\n' || *text == '\r' ? ' ' : *text;
        width += (c == '|') + ((c & 0xc0) != 0x80);
        if (out)
            fprintf(out, c == '|' ? "\\|" : "%c", c);
    }
    return width;
}

static void put_times(FILE *out, char c, int n)
{
    for (; n > 0; n--)
        fputc(c, out);
}

/* Numbers stand at the right. */
static void put_cell(FILE *out, const char *text, int width, bool right)
{
    const int space = width - put_markdown(NULL, text);
    fputs("| ", out);
    put_times(out, ' ', right ? space : 0);
    put_markdown(out, text);
    put_times(out, ' ', right ? 1 : space + 1);
}

/* A row of texts, as wide as their columns. */
static status print_row(FILE *out, const json_t *row, const int *width)
{
    const char *key;
    json_t *v;
    int c = 0;
    json_object_foreach((json_t *)row, key, v) {
        char *text = cell_text(v);
        if (!text)
            return no_memory();
        put_cell(out, text, width[c++], json_is_number(v));
        free(text);
    }
    fputs("|\n", out);
    return ST_OK;
}

/* width [columns]: of each column's widest cell, its name included. */
static status find_widths(const json_t *rows, int *width)
{
    const char *key;
    json_t *v;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        int c = 0;
        json_object_foreach(json_array_get(rows, i), key, v) {
            char *text = cell_text(v);
            if (!text)
                return no_memory();
            int n = put_markdown(NULL, text), head = put_markdown(NULL, key);
            n = n > head ? n : head;
            width[c] = n > width[c] ? n : width[c];
            c++;
            free(text);
        }
    }
    return ST_OK;
}

static void print_head(FILE *out, const json_t *first, const int *width)
{
    const char *key;
    json_t *v;
    int c = 0;
    json_object_foreach((json_t *)first, key, v)
        put_cell(out, key, width[c++], json_is_number(v));
    fputs("|\n", out);
    c = 0;
    json_object_foreach((json_t *)first, key, v) {
        fputs("| ", out);
        put_times(out, '-', width[c++] - 1);
        fputs(json_is_number(v) ? ": " : "- ", out);
    }
    fputs("|\n", out);
}

static status print_markdown(FILE *out, const json_t *rows)
{
    const json_t *first = json_array_get(rows, 0);
    int *width = calloc(json_object_size(first) + 1, sizeof *width);
    status st = width ? find_widths(rows, width) : no_memory();
    if (st == ST_OK)
        print_head(out, first, width);
    for (size_t i = 0; i < json_array_size(rows) && st == ST_OK; i++)
        st = print_row(out, json_array_get(rows, i), width);
    free(width);
    return st;
}

status table_print_json(FILE *out, const json_t *value)
{
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(7) | JSON_ENCODE_ANY);
    if (!text) {
        log_error("cannot print the result as JSON");
        return ST_INTERNAL;
    }
    fprintf(out, "%s\n", text);
    free(text);
    return ST_OK;
}

status table_print(FILE *out, const json_t *rows, enum table_format format)
{
    if (format == TABLE_JSON)
        return table_print_json(out, rows);
    if (json_array_size(rows) == 0)
        return ST_OK;
    return format == TABLE_CSV ? print_csv(out, rows) : print_markdown(out, rows);
}
