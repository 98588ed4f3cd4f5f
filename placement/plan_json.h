/* Reading a plan from JSON: the parts of that. Private to placement/.
 *
 * The newest version, 2:
 *
 *   {"hearth_plan": 2,
 *    "model": {"architecture": "llama", "layers": 30, "file_bytes": 98, "file_hash": "0123456789abcdef"},
 *    "ranks": 2,
 *    "holders": [{"rank": 0, "device": "cpu"}, {"rank": 1, "device": "cpu"}, {"rank": 0, "device": "cuda:0"}],
 *    "layers": [{"from": 0, "to": 15, "stage": 0, "d_ff": 1536, "neuron_unit": 128, "kv_heads": 3, "head_unit": 1,
 *                "heads": [0, 2, 3, 3],
 *                "sets": [{"holder": 0, "neurons": [[0, 768]]}, {"holder": 2, "neurons": [[768, 1536]]}]},
 *               {"from": 15, "to": 30, "stage": 1, "d_ff": 1536, "units": "split", "down": "stage",
 *                "sets": [{"holder": 0, "neurons": [[0, 700], [900, 910]]},
 *                         {"holder": 1, "neurons": [[700, 900], [910, 1536]]}]}],
 *    "rows": [0, 512, 1000, 1000],
 *    "stages": [{"rank": 0, "device": "cuda:0"}],
 *    "residual": "home"}
 *
 * and version 1, where ranks are the holders and all layers have the shape that "model" states:
 *
 *   {"hearth_plan": 1,
 *    "model": {"architecture": "llama", "layers": 30, "d_ff": 1536, "neuron_unit": 32, "kv_heads": 3, "head_unit": 1},
 *    "ranks": 2,
 *    "layers": [{"from": 0, "to": 15, "stage": 0, "heads": [0, 2, 3], "neurons": [0, 768, 1536]},
 *               {"from": 15, "to": 30, "stage": 1, "neurons": [[[0, 700], [900, 910]], [[700, 900], [910, 1536]]]}]}
 *
 * "layers" lists runs of equal layers, [from, to), in ascending order without a gap. Ranges are [begin, end), those of
 * a set ascending; boundaries are one more than holders. What may be left out: docs/plans.md. Unknown and repeated
 * fields are refused: a misspelt one would otherwise be ignored. */
#ifndef HEARTH_PLACEMENT_PLAN_JSON_H
#define HEARTH_PLACEMENT_PLAN_JSON_H

#include "placement/fields.h"
#include "placement/plan.h"

#define PLAN_LARGEST INT64_C(0x7fffffffffff) /* of sizes and counts: far above any real one, far below overflow */

/* A plan on its way. */
struct plan_reader {
    const char *where;
    struct plan *p;
    int version;
    struct plan_shape shape; /* version 1: of every layer */
};

/* The holders' array, after "ranks" is known. */
status plan_read_holders(const struct plan_reader *r, const json_t *v);
/* The optional array of what ranks have their stages on, after the holders are known. */
status plan_read_stages(const struct plan_reader *r, const json_t *v);
/* The fields of a layer's shape that `object` has: d_ff must be there. Its neurons can be numbered. */
status plan_read_shape(const struct place *at, const json_t *object, struct plan_shape *out);
/* All layers. */
status plan_read_layers(struct plan_reader *r, const json_t *v);
/* A layer's neurons, of version 1 and of version 2: fills its sets and what each holder has. */
status plan_read_neurons(const struct plan_reader *r, const struct place *at, const json_t *v,
                         struct plan_layer *layer);
status plan_read_sets(const struct plan_reader *r, const struct place *at, const json_t *v, struct plan_layer *layer);

/* Boundaries: one more than holders, ascending from 0; the last in [least, most], all others on multiples of the unit
 * (0: any) or equal to it. */
status plan_read_bounds(const struct plan_reader *r, const struct place *at, const char *key, const json_t *v,
                        int64_t unit, int64_t least, int64_t most, int64_t bound[PLAN_MAX_HOLDERS + 1]);
/* The ranges of neurons of a set, called `name` after the prefix: ascending, of the layer's neurons, each with at least
 * one and beginning on a unit if they are to and it is stated. They are appended to the plan's. */
status plan_read_ranges(const struct plan_reader *r, const struct place *at, const char *name, const json_t *v,
                        const struct plan_shape *shape, bool on_units);
/* A field that is one of two words, the first of them unless it is there. */
status plan_read_choice(const struct place *at, const char *key, const json_t *v, const char *first, const char *second,
                        bool *is_second);

#endif
