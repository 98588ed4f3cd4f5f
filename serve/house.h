/* The picture of the house, as JSON: what GET /house says. Counts are since the start, so that whoever asks twice knows
 * what went by between; times are seconds on one clock.
 *
 *     {"model": "SmolLM2", "layers": 30, "context": 4096, "sequences": 8, "transport": "mpi",
 *      "now_s": 81.9,                                      of all but the ranks
 *      "at_s": 81.2,                                       of the ranks; 0: they have said nothing yet
 *      "tokens": {"prompt": 0, "cached": 0, "made": 0},    of prompts; of them, those that did not run; of answers
 *      "requests": {"running": 0, "waiting": 0, "refused": 0, "ended": 0},
 *      "kv": {"pages": 64, "free": 64, "sent_away": 0},    pages; times that a text gave its pages back
 *      "drafts": {"made": 0, "accepted": 0},
 *      "steps": 0,
 *      "ranks": [{"rank": 0, "host": "kitchen",
 *                 "stage": [0, 30],                        its layers, from, to (not included); null: none
 *                 "compute_s": 0, "wait_s": 0, "wire_s": 0,
 *                 "sent_bytes": 0, "sent_messages": 0,
 *                 "devices": [{"name": "cpu", "read_bytes": 0, "busy_s": 0,
 *                              "neurons": 0, "live": 0,     held neurons times tokens; those that fired
 *                              "parts": [[0, 30, 1, 1]],   layers from, to, share of their heads, of their neurons
 *                              "rows": 1}]}],              share of the output matrix
 *      "links": [{"from": 0, "to": 1, "layers": 30}]}      who talks with whom, for how many layers' heads and neurons;
 *                                                          0: the residual stream alone passes */
#ifndef HEARTH_SERVE_HOUSE_H
#define HEARTH_SERVE_HOUSE_H

#include <jansson.h>
#include "serve/counts.h"
#include "serve/engine.h"
#include "serve/serve.h"

/* Where a rank's time went since its start, in seconds. A rank that is a stage knows how long it waited for others,
 * which computed, and for messages; one that only computes for others knows how long its devices took. */
struct rank_time {
    double compute_s, wait_s, wire_s;
};
struct rank_time rank_time(const struct wire_usage *u);

/* `name`: the model's; now_s: when `c` was copied. NULL: no memory. Stateless and thread-safe. */
json_t *house_json(const struct serve_house *s, const char *name, const struct house *h, const struct counts *c,
                   double now_s);

#endif
