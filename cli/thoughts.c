#include "cli/thoughts.h"

#include <stdlib.h>

/* Tells the terminal; after a thought the answer begins on a line of its own. */
static void set_faint(struct thoughts *h, bool faint)
{
    if (!h->dimmed || h->faint == faint)
        return;
    utf8_end(h->out);
    fputs(faint ? "\033[2m" : h->line_begins ? "\033[22m" : "\n\033[22m", h->out->out);
    h->faint = faint;
}

/* Control tokens that are no marks are nothing. */
static status give(void *arg, enum thoughts_part part, const char *at, size_t n, bool control)
{
    struct thoughts *h = arg;
    if (control)
        return ST_OK;
    if (h->dimmed) {
        set_faint(h, part == IS_THOUGHT);
        utf8_write(h->out, at, n);
        h->line_begins = at[n - 1] == '\n';
    }
    return text_append(part == IS_THOUGHT ? &h->thought : &h->answer, at, n);
}

status thoughts_begin(struct thoughts *h, const struct tokenizer *t, const int32_t *prompt, size_t n)
{
    h->faint = h->line_begins = h->ended = false;
    h->thought.n = h->answer.n = 0;
    status st = text_append(&h->thought, "", 0);
    if (st == ST_OK)
        st = text_append(&h->answer, "", 0);
    h->reader.tell = give;
    h->reader.arg = h;
    thoughts_reader_begin(&h->reader, t, prompt, n);
    return st;
}

status thoughts_take(struct thoughts *h, const struct tokenizer *t, int32_t token, struct utf8_stream *out)
{
    char all[PIECE_MAX], plain[PIECE_MAX];
    const size_t n_all = text_piece(t, token, true, all), n_plain = text_piece(t, token, false, plain);
    h->out = out;
    if (!h->dimmed && !h->ended)
        utf8_write(out, plain, n_plain);
    status st = thoughts_reader_take(&h->reader, all, n_all, n_plain == 0);
    h->ended = h->reader.ended;
    return st;
}

status thoughts_end(struct thoughts *h, struct utf8_stream *out)
{
    h->out = out;
    status st = thoughts_reader_end(&h->reader);
    set_faint(h, false);
    return st;
}

void thoughts_free(struct thoughts *h)
{
    free(h->thought.at);
    free(h->answer.at);
    thoughts_reader_free(&h->reader);
    *h = (struct thoughts){0};
}
