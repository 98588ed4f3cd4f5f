/* What the files of the schedule share: schedule.c plans steps, residence.c says who has a slot and pages, and who
 * waits for them. */
#ifndef HEARTH_COORDINATOR_SCHEDULE_PARTS_H
#define HEARTH_COORDINATOR_SCHEDULE_PARTS_H

#include "coordinator/schedule.h"

struct schedule {
    struct schedule_options o;
    struct pages *pages;
    struct states *states; /* NULL: the model has no delta nets */
    struct sequence *slots[SCHEDULE_SEQUENCES];   /* [n_sequences] who has which slot; NULL: nobody */
    struct sequence *running[SCHEDULE_SEQUENCES]; /* [n_running] who was served longest ago comes first */
    uint32_t n_running;
    struct sequence *queue;   /* of those that wait, the oldest first */
    struct sequence *exhausted; /* its turn was ended by the last plan; or NULL */
    struct step *steps;       /* [n_steps of the options], a ring */
    uint32_t oldest, n_under_way;
    uint64_t n_steps, n_runs, n_plans, n_tickets, n_sent_away;
};

/* q waits, at the place that its ticket gives it. */
void residence_queue(struct schedule *s, struct sequence *q);
/* The first of the queue runs from now on, if it finds a slot and pages for all that is known of its text; sequences
 * that do not run give theirs back for it. May begin it with another's pages, unless the step has such a sequence
 * already. NULL: not now. */
struct sequence *residence_admit(struct schedule *s, struct step *step);
/* Of the next n tokens of q, which runs, so many as there are pages for; who is younger may have to leave. If there are
 * none although q is alone, its turn ends. */
uint32_t residence_cover(struct schedule *s, struct sequence *q, uint32_t n);
/* q runs or waits no more; what it has stays. */
void residence_stop(struct schedule *s, struct sequence *q);
/* After one of its steps has come, or q was released. It may be gone then. */
void residence_settle(struct schedule *s, struct sequence *q);

#endif
