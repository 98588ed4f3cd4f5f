/* Answers of the helper that renders chat templates: any bytes are refused with one line or give a text whose contents
 * lie in it, in order, none empty. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "model/jinja/answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void require(int holds)
{
    if (!holds)
        abort();
}

static void check_text(const struct chat_text *t, size_t n)
{
    size_t behind = 0;
    require(t->n < n && t->at[t->n] == '\0');
    for (size_t i = 0; i < t->n_contents; i++) {
        require(t->contents[i].begin >= behind && t->contents[i].begin < t->contents[i].end);
        require(t->contents[i].end <= t->n && (i == 0 || t->contents[i].begin > behind));
        behind = t->contents[i].end;
    }
}

static void check_line(const char *line)
{
    require(line[0] != '\0');
    for (; *line; line++)
        require(*line >= ' ' && *line <= '~');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct log_catcher quiet;
    struct chat_text text;
    log_catch(&quiet);
    if (jinja_answer_decode(data, n, "fuzz", &text) == ST_OK) {
        check_text(&text, n);
        chat_text_free(&text);
    } else {
        check_line(quiet.first_error);
    }
    log_catch(NULL);
    return 0;
}
