/* JSON schemas as grammars: what OpenAI's structured outputs allow of them, and more. The JSON that a grammar allows is
 * compact, but for one space behind ':' and ',' that may be there: models were trained on both. Stateless and
 * thread-safe.
 *
 * A grammar may allow less than its schema: properties come in the schema's order; where a schema names properties (or
 * prefixItems) and says nothing of others, there are none; names of others hold no escapes; without "type" a value is
 * of the types that the other keywords speak of; numbers have at most 18 digits before their point, and between bounds
 * 15 in all and no exponent; no \u0000. A maximum of more than 2^20 characters or items is none. */
#ifndef HEARTH_SAMPLING_SCHEMA_SCHEMA_H
#define HEARTH_SAMPLING_SCHEMA_SCHEMA_H

#include <jansson.h>
#include "base/status.h"
#include "sampling/grammar.h"

/* Appends what a schema allows, as a rule: a place to CALL, in *rule. Every text of it is valid by the schema. ST_USAGE
 * (logged): the schema is broken, or has what no grammar is made of (the line names the keyword and where:
 * "#/properties/a"), or nothing is valid by it; ST_NOMEM; ST_FULL: it is too large, or its texts can be read in too
 * many ways at once (sampling/ways.h). */
status schema_rule(const json_t *schema, struct grammar_maker *m, uint32_t *rule);
/* Any JSON object (response_format json_object). */
status schema_any_object(struct grammar_maker *m, uint32_t *rule);

/* The whole grammar of either; NULL: any object. out->ops is malloc'ed, caller frees. */
status schema_grammar(const json_t *schema, struct grammar *out);

#endif
