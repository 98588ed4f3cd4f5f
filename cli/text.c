#include "cli/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "base/utf8.h"
#include "cli/escapes.h"

static status read_all(FILE *f, const char *name, struct text *t)
{
    char buffer[1 << 16];
    status st = text_append(t, "", 0);
    while (st == ST_OK) {
        size_t got = fread(buffer, 1, sizeof buffer, f);
        if (got == 0)
            break;
        st = text_append(t, buffer, got);
    }
    if (st == ST_OK && ferror(f)) {
        log_error("cannot read %s: %s", name, strerror(errno));
        st = ST_IO;
    }
    return st;
}

status text_mark(const char *bytes, size_t n, const char *name, size_t *skip)
{
    static const struct { const char *bytes; size_t n; const char *encoding; } marks[] = {
        {"\xff\xfe\0\0", 4, "UTF-32"}, {"\0\0\xfe\xff", 4, "UTF-32"}, /* before UTF-16, whose mark begins alike */
        {"\xff\xfe", 2, "UTF-16"}, {"\xfe\xff", 2, "UTF-16"}};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        if (n < marks[i].n || memcmp(bytes, marks[i].bytes, marks[i].n) != 0)
            continue;
        log_error("%s: the text is %s, expected UTF-8: convert it, for example with iconv -f %s -t UTF-8", name,
                  marks[i].encoding, marks[i].encoding);
        return ST_USAGE;
    }
    *skip = n >= 3 && memcmp(bytes, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    return ST_OK;
}

/* Leaves `skip` bytes out, and the carriage return of every line that ends in CR LF; one that stands alone is data. */
static void tidy(struct text *t, size_t skip)
{
    size_t n = 0;
    for (size_t i = skip; i < t->n; i++)
        if (t->at[i] != '\r' || t->at[i + 1] != '\n') /* a NUL stands behind the last byte */
            t->at[n++] = t->at[i];
    t->n = n;
    t->at[n] = '\0';
}

static status read_file(const char *path, struct text *t)
{
    bool standard = strcmp(path, "-") == 0;
    const char *name = standard ? "standard input" : path;
    FILE *f = standard ? stdin : fopen(path, "rb");
    size_t skip;
    if (!f) {
        log_error("cannot open %s: %s", path, strerror(errno));
        return ST_IO;
    }
    status st = read_all(f, name, t);
    if (!standard)
        fclose(f);
    if (st == ST_OK)
        st = text_mark(t->at, t->n, name, &skip);
    if (st == ST_OK)
        tidy(t, skip);
    return st;
}

status text_read(const struct text_option *o, bool trim_newline, char **text, size_t *n)
{
    struct text t = {0};
    status st;
    if (o->prompt)
        st = text_append(&t, o->prompt, strlen(o->prompt));
    else
        st = read_file(o->file, &t);
    if (st == ST_OK && o->prompt && !o->no_escape)
        t.n = escapes_read(t.at, t.n);
    if (st != ST_OK) {
        free(t.at);
        return st;
    }
    if (!o->prompt && trim_newline && t.n && t.at[t.n - 1] == '\n')
        t.at[--t.n] = '\0';
    *text = t.at;
    *n = t.n;
    return ST_OK;
}

static void put(struct utf8_stream *s, const char *bytes, size_t n)
{
    if (n)
        fwrite(bytes, 1, n, s->out);
}

void utf8_write(struct utf8_stream *s, const char *bytes, size_t n)
{
    char joined[PIECE_MAX + sizeof s->held];
    while (n > 0) {
        size_t take = n < PIECE_MAX ? n : PIECE_MAX;
        memcpy(joined, s->held, s->n_held);
        memcpy(joined + s->n_held, bytes, take);
        size_t all = s->n_held + take, whole = utf8_whole(joined, all);
        put(s, joined, whole);
        s->n_held = all - whole;
        memcpy(s->held, joined + whole, s->n_held);
        bytes += take;
        n -= take;
    }
    fflush(s->out);
}

void utf8_end(struct utf8_stream *s)
{
    put(s, s->held, s->n_held);
    s->n_held = 0;
    fflush(s->out);
}

size_t text_piece(const struct tokenizer *t, int32_t token, bool special, char piece[PIECE_MAX])
{
    size_t n = tokenizer_piece(t, token, special, piece, PIECE_MAX);
    return n <= PIECE_MAX ? n : 0;
}
