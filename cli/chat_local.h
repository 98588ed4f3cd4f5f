/* Answers of the model that this process, or its ranks, have loaded. */
#ifndef HEARTH_CLI_CHAT_LOCAL_H
#define HEARTH_CLI_CHAT_LOCAL_H

#include "cli/chat_answers.h"
#include "cli/generate.h"
#include "model/jinja/writer.h"

struct chat_local {
    struct cluster *cluster;     /* borrowed */
    struct chat_writer *writer;  /* owned */
    int64_t n_predict;           /* of an answer, < 0: no limit */
    volatile sig_atomic_t *stop; /* ends an answer */
    void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total);
    void *progress_arg;
    /* its own, zero at first but for what generate.h says of a meter */
    struct token_list held;      /* what the dialogue holds */
    struct thoughts thoughts;    /* of the answer at hand */
    struct meter meter;
};

/* When the context is full, the oldest turns are forgotten. */
struct chat_answers chat_local_answers(struct chat_local *l);
void chat_local_free(struct chat_local *l);

#endif
