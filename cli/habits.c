#include "cli/habits.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"

/* A command line under way from llama.cpp's words to hearth's. */
struct walk {
    const struct argp *argp;
    const char *program; /* "hearth run" */
    bool quiet;
    char **in, **out;
    int n_in, at, n_out;
};

/* ---- hearth's own options ---- */

static bool ends(const struct argp_option *o) { return !o->name && !o->key && !o->doc && !o->group; }

static bool is_named(const struct argp_option *o, const char *word, size_t n)
{
    if (word[1] == '-')
        return o->name && strlen(o->name) == n - 2 && strncmp(o->name, word + 2, n - 2) == 0;
    return o->key == word[1] && !isalpha((unsigned char)word[2]); /* what begins with no letter may be its value */
}

/* The option that word[n], such as "--temp" or "-n5", names in a parser or its children; NULL: none. */
static const struct argp_option *find(const struct argp *argp, const char *word, size_t n)
{
    static const struct argp_option built_in[] = {{"help", '?', NULL, 0, NULL, 0},
                                                  {"usage", 0, NULL, 0, NULL, 0},
                                                  {"version", 'V', NULL, 0, NULL, 0},
                                                  {0}};
    for (const struct argp_option *o = built_in; !ends(o); o++)
        if (is_named(o, word, n))
            return o;
    for (const struct argp_option *o = argp->options; o && !ends(o); o++)
        if (is_named(o, word, n))
            return o;
    for (const struct argp_child *c = argp->children; c && c->argp; c++) {
        const struct argp_option *o = find(c->argp, word, n);
        if (o)
            return o;
    }
    return NULL;
}

/* ---- habits ---- */

/* Whether word[n] is one of those in `words`, which spaces divide. */
static bool contains(const char *words, const char *word, size_t n)
{
    for (; *words; words += strspn(words, " ")) {
        const size_t length = strcspn(words, " ");
        if (length == n && strncmp(words, word, n) == 0)
            return true;
        words += length;
    }
    return false;
}

static const struct habit *habit_of(const struct walk *w, const char *word, size_t n)
{
    const char *space = strrchr(w->program, ' '), *command = space ? space + 1 : w->program;
    for (const struct habit *h = habits; h->words; h++)
        if (contains(h->words, word, n) && (!h->commands || contains(h->commands, command, strlen(command))))
            return h;
    return NULL;
}

static bool is_position(const char *word)
{
    return word[strspn(word, "0123456789,")] == '\0' ||
           contains("on off auto true false enabled disabled", word, strlen(word));
}

/* ---- word by word ---- */

static void put(struct walk *w, const char *word) { w->out[w->n_out++] = (char *)word; }

static void put_next(struct walk *w)
{
    if (w->at < w->n_in)
        put(w, w->in[w->at++]);
}

/* An option of hearth in another word: word[n], and what follows "=". */
static status translate(struct walk *w, const struct habit *h, const char *word, size_t n)
{
    const struct argp_option *own = find(w->argp, h->text, strlen(h->text));
    if (!own) {
        if (!w->quiet)
            log_error("%.*s is hearth's %s, which %s does not have", (int)n, word, h->text, w->program);
        return ST_USAGE;
    }
    put(w, h->text);
    if (own->arg && word[n] == '=')
        put(w, word + n + 1);
    else if (own->arg)
        put_next(w);
    return ST_OK;
}

static status leave_out(struct walk *w, const struct habit *h, const char *word, size_t n)
{
    const bool value = h->value == VALUE_ONE || (w->at < w->n_in && is_position(w->in[w->at]));
    if (h->value != VALUE_NONE && value && word[n] != '=' && w->at < w->n_in)
        w->at++;
    if (!w->quiet)
        log_info("%.*s changes nothing: %s", (int)n, word, h->text);
    return ST_OK;
}

static status refuse(const struct walk *w, const struct habit *h, const char *word, size_t n)
{
    const char letter[] = {'-', word[1], '\0'};
    const struct argp_option *begins = word[1] != '-' && word[2] ? find(w->argp, letter, 2) : NULL;
    if (w->quiet)
        return ST_USAGE;
    if (h)
        log_error("%.*s is not to be had: %s", (int)n, word, h->text);
    else if (begins)
        log_error("%s has no option %.*s (a %s stands apart, as in %s %s)", w->program, (int)n, word,
                  begins->arg ? "value" : "letter", letter, begins->arg ? "VALUE" : "-LETTER");
    else
        log_error("%s has no option %.*s%s (%s --help lists them)", w->program, (int)n, word,
                  strchr(w->program, ' ') ? "" : " before a command", w->program);
    return ST_USAGE;
}

static status take_option(struct walk *w, char *word)
{
    const size_t n = strcspn(word, "=");
    for (size_t i = 2; i < n && word[1] == '-'; i++)
        if (word[i] == '_')
            word[i] = '-';
    const struct argp_option *own = find(w->argp, word, n);
    if (own) {
        put(w, word);
        if (own->arg && !(word[1] == '-' ? word[n] : word[2]))
            put_next(w);
        return ST_OK;
    }
    const struct habit *h = habit_of(w, word, n);
    if (!h || h->kind == HABIT_REFUSED)
        return refuse(w, h, word, n);
    return h->kind == HABIT_SAME ? translate(w, h, word, n) : leave_out(w, h, word, n);
}

status habits_apply(const struct argp *argp, int argc, char **argv, bool quiet, int *out_argc, char ***out_argv)
{
    struct walk w = {.argp = argp, .program = argc > 0 ? argv[0] : "hearth", .quiet = quiet, .in = argv, .n_in = argc};
    status st = ST_OK;
    w.out = malloc((2 * (size_t)argc + 1) * sizeof *w.out); /* a word becomes two at most */
    if (!w.out) {
        log_error("no memory for a command line of %d words", argc);
        return ST_NOMEM;
    }
    put_next(&w); /* the program */
    while (w.at < argc && st == ST_OK) {
        char *word = argv[w.at++];
        if (strcmp(word, "--") == 0) {
            put(&w, word);
            while (w.at < argc)
                put_next(&w);
        } else if (word[0] == '-' && word[1]) {
            st = take_option(&w, word);
        } else {
            put(&w, word);
        }
    }
    w.out[w.n_out] = NULL;
    if (st != ST_OK) {
        free(w.out);
        return st;
    }
    *out_argc = w.n_out;
    *out_argv = w.out;
    return ST_OK;
}
