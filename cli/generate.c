#include "cli/generate.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/log.h"
#include "cli/output.h"
#include "coordinator/dialogue.h"

double process_age_s(void)
{
    /* Field 22 of /proc/self/stat: the start in clock ticks since boot. The name before it ends with the last ')'. */
    char line[1024];
    FILE *f = fopen("/proc/self/stat", "r");
    size_t n = f ? fread(line, 1, sizeof line - 1, f) : 0;
    if (f)
        fclose(f);
    line[n] = '\0';
    char *at = strrchr(line, ')');
    unsigned long long ticks = 0;
    struct timespec now;
    if (!at || sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                      &ticks) != 1 || clock_gettime(CLOCK_BOOTTIME, &now) != 0)
        return 0;
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9 - (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

static double rate(size_t n, double seconds)
{
    return seconds > 0 ? (double)n / seconds : 0;
}

void meter_print(const struct meter *m)
{
    double decode = rate(m->decoded_tokens, m->decode_s);
    char first[48] = "";
    if (m->first_token_s > 0)
        snprintf(first, sizeof first, "; first token after %.2f s", m->first_token_s);
    log_info("prompt %zu tokens, %.1f tok/s; decoding %zu tokens, %.1f tok/s, %.1f GB/s%s", m->prompt_tokens,
             rate(m->prompt_tokens, m->prompt_s), m->decoded_tokens, decode,
             m->decode_s > 0 ? m->decode_bytes / m->decode_s / 1e9 : 0, first);
}

status sampling_begin(struct cluster *c, const struct sampler_params *p, bool quiet)
{
    if (p->temperature > 0 && !quiet)
        log_info("seed %" PRIu64, p->seed);
    return dialogue_sampling(cluster_dialogue(c), p);
}

status token_list_append(struct token_list *l, const int32_t *tokens, size_t n)
{
    if (l->cap - l->n < n) {
        size_t cap = 2 * l->cap + n;
        int32_t *at = realloc(l->at, cap * sizeof *at);
        if (!at) {
            log_error("no memory for a list of %zu tokens", cap);
            return ST_NOMEM;
        }
        l->at = at;
        l->cap = cap;
    }
    if (n)
        memcpy(l->at + l->n, tokens, n * sizeof *tokens);
    l->n += n;
    return ST_OK;
}

void token_list_free(struct token_list *l)
{
    free(l->at);
    *l = (struct token_list){0};
}

static status feed_prompt(const struct generation *g, const int32_t *prompt, size_t n, struct token_list *held,
                          int32_t *next)
{
    struct dialogue *d = cluster_dialogue(g->cluster);
    size_t room = cluster_context(g->cluster) - dialogue_length(d);
    if (n > room) {
        log_error("the text has %zu tokens and the context room for %zu more of %u (-c sets it)", n, room,
                  cluster_context(g->cluster));
        return ST_FULL;
    }
    double start = clock_s();
    status st = dialogue_prompt(d, prompt, n, next, g->progress, g->progress_arg);
    if (st != ST_OK)
        return st;
    g->meter->prompt_s += clock_s() - start;
    g->meter->prompt_tokens += n;
    session_reset_counts(cluster_session(g->cluster));
    if (g->meter->first_token_s == 0)
        g->meter->first_token_s = process_age_s();
    return token_list_append(held, prompt, n);
}

/* Whether the answer is over before `token` becomes part of it. */
static bool over(const struct generation *g, int32_t token, size_t made, enum end_reason *why)
{
    if (g->stop && *g->stop)
        *why = END_STOPPED;
    else if (g->max_tokens >= 0 && made >= (size_t)g->max_tokens)
        *why = END_LIMIT;
    else if (!g->ignore_end && tokenizer_is_end(cluster_tokenizer(g->cluster), token))
        *why = END_ANSWER;
    else
        return false;
    return true;
}

/* Writes a token and adds it to the answer. */
static status say(const struct generation *g, int32_t token, struct utf8_stream *stream, struct text *answer)
{
    const struct tokenizer *t = cluster_tokenizer(g->cluster);
    char piece[PIECE_MAX];
    status st;
    if (g->thoughts) {
        st = thoughts_take(g->thoughts, t, token, stream);
    } else {
        const size_t bytes = text_piece(t, token, g->special, piece);
        utf8_write(stream, piece, bytes);
        st = text_append(answer, piece, bytes);
    }
    const status written = output_flush(stream->out);
    return st == ST_OK ? written : st;
}

status generate(const struct generation *g, const int32_t *prompt, size_t n, FILE *out, struct token_list *held,
                struct text *answer, size_t *n_made, enum end_reason *why)
{
    struct dialogue *d = cluster_dialogue(g->cluster);
    struct utf8_stream stream = {.out = out};
    int32_t token;
    size_t made = 0;
    enum end_reason end = END_LIMIT;
    status st = feed_prompt(g, prompt, n, held, &token);
    while (st == ST_OK && !over(g, token, made, &end)) {
        st = say(g, token, &stream, answer);
        made++;
        if (st == ST_OK && g->thoughts && g->thoughts->ended) {
            end = END_ANSWER;
            break;
        }
        if (st != ST_OK || (g->max_tokens >= 0 && made >= (size_t)g->max_tokens)) {
            end = END_LIMIT;
            break;
        }
        if (dialogue_length(d) >= cluster_context(g->cluster)) {
            end = END_FULL;
            break;
        }
        double start = clock_s();
        int32_t next;
        st = dialogue_next(d, token, &next);
        if (st != ST_OK)
            break;
        g->meter->decode_s += clock_s() - start;
        g->meter->decoded_tokens++;
        st = token_list_append(held, &token, 1);
        token = next;
    }
    if (st == ST_OK && g->thoughts)
        st = thoughts_end(g->thoughts, &stream);
    utf8_end(&stream);
    g->meter->decode_bytes += (double)session_counts(cluster_session(g->cluster)).bytes;
    if (st != ST_OK)
        return st;
    *n_made = made;
    *why = end;
    return ST_OK;
}
