/* States of delta nets as the coordinator knows them: by number, the same on all ranks. Sequence slot i has number i +
 * 1 for its own; those that follow keep what own states were after beginnings of texts, for these cannot go back. A
 * kept state belongs to one sequence, whose pages hold that beginning, until it forgets it or another needs the place:
 * then the one goes that was made or read longest ago. Ranks are told of it in the runs of a step (schedule.h). One
 * thread. */
#ifndef HEARTH_COORDINATOR_STATES_H
#define HEARTH_COORDINATOR_STATES_H

#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"

struct sequence;
struct states;

/* Own states of n_sequences, and n_kept more. ST_NOMEM (logged). */
status states_create(uint32_t n_sequences, uint32_t n_kept, struct states **out);
void states_free(struct states *s); /* NULL is fine */

static inline uint32_t states_own(uint32_t slot) { return slot + 1; }

/* The state that is kept of the longest beginning of q of at most n tokens; *found: how many. 0, and *found = 0: none
 * is. */
uint32_t states_find(const struct states *s, const struct sequence *q, uint32_t n, uint32_t *found);
/* A number for the state after q's first n tokens, which is made by the step that is being planned. 0: all are to be
 * read. */
uint32_t states_keep(struct states *s, const struct sequence *q, uint32_t n);
/* What is kept of more than q's first n tokens is worth nothing any more. */
void states_forget(struct states *s, const struct sequence *q, uint32_t n);
/* Somebody will read a state, which stays until he has: as often as states_read was called. An own one, or 0:
 * nothing. */
void states_read(struct states *s, uint32_t state);
void states_was_read(struct states *s, uint32_t state);

#endif
