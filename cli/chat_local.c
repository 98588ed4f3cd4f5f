#include "cli/chat_local.h"

#include <stdlib.h>
#include "base/log.h"
#include "cli/output.h"
#include "coordinator/dialogue.h"

static size_t common_prefix(const struct token_list *held, const int32_t *tokens, size_t n)
{
    size_t i = 0;
    while (i < held->n && i < n && held->at[i] == tokens[i])
        i++;
    return i;
}

/* ST_FULL (logged) if the last message, with the system message alone before it, fills the context. */
static status check_last_message(const struct chat_local *l, const struct conversation *c)
{
    json_t *alone;
    int32_t *tokens;
    size_t n;
    status st = conversation_last(c, &alone);
    if (st != ST_OK)
        return st;
    st = chat_writer_encode(l->writer, alone, NULL, NULL, true, &tokens, &n);
    json_decref(alone);
    if (st != ST_OK)
        return st;
    free(tokens);
    if (n < cluster_context(l->cluster))
        return ST_OK;
    log_error("the message makes %zu tokens, the context has %u (-c sets it)", n, cluster_context(l->cluster));
    return ST_FULL;
}

/* The tokens of the conversation with room left for an answer: the oldest turns are forgotten until there is. A quarter
 * of the context is room enough, so that not every turn from then on reads everything anew. */
static status encode_fitting(const struct chat_local *l, struct conversation *c, int32_t **tokens, size_t *n)
{
    size_t context = cluster_context(l->cluster), forgotten = 0;
    size_t room = l->n_predict >= 0 && (size_t)l->n_predict < context / 4 ? (size_t)l->n_predict : context / 4;
    status st = check_last_message(l, c);
    while (st == ST_OK) {
        st = chat_writer_encode(l->writer, c->messages, NULL, NULL, true, tokens, n);
        if (st != ST_OK || *n + room <= context || !conversation_drop_oldest(c))
            break;
        free(*tokens);
        forgotten++;
    }
    if (forgotten)
        log_warn("the context of %zu tokens is full: the oldest %s forgotten", context,
                 forgotten == 1 ? "turn is" : "turns are");
    return st;
}

/* Only what the dialogue does not hold yet is fed: normally the new message. */
static status answer(void *source, struct conversation *c)
{
    struct chat_local *l = source;
    struct cluster *cl = l->cluster;
    struct generation g = {
        .cluster = cl, .max_tokens = l->n_predict, .stop = l->stop, .progress = l->progress,
        .progress_arg = l->progress_arg, .meter = &l->meter, .thoughts = &l->thoughts,
    };
    int32_t *tokens;
    size_t n, made;
    enum end_reason why;
    status st = encode_fitting(l, c, &tokens, &n);
    if (st != ST_OK)
        return st;
    size_t same = common_prefix(&l->held, tokens, n);
    same -= same == n; /* something must be fed to get an answer */
    l->held.n = same;
    dialogue_truncate(cluster_dialogue(cl), same);
    st = thoughts_begin(&l->thoughts, cluster_tokenizer(cl), tokens, n);
    if (st == ST_OK)
        st = generate(&g, tokens + same, n - same, stdout, &l->held, NULL, &made, &why);
    if (st == ST_OK) {
        putchar('\n');
        st = output_flush(stdout);
    }
    if (st == ST_OK) {
        if (why == END_FULL)
            log_warn("the context of %u tokens is full: the answer is cut short", cluster_context(cl));
        st = conversation_add(c, "assistant", l->thoughts.answer.at, l->thoughts.thought.at);
    }
    free(tokens);
    return st;
}

static void clear(void *source)
{
    struct chat_local *l = source;
    l->held.n = 0;
    dialogue_truncate(cluster_dialogue(l->cluster), 0);
}

static void report(const void *source)
{
    const struct chat_local *l = source;
    meter_print(&l->meter);
}

struct chat_answers chat_local_answers(struct chat_local *l)
{
    return (struct chat_answers){.answer = answer, .clear = clear, .report = report, .source = l};
}

void chat_local_free(struct chat_local *l)
{
    thoughts_free(&l->thoughts);
    chat_writer_close(l->writer);
    token_list_free(&l->held);
}
