/* Start it with -dict=tests/fuzz/schema.dict CORPUS tests/fuzz/corpus/schema.
 *
 * JSON schemas: any JSON is refused with one line or makes a grammar that stands every check, in bounded time. */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "sampling/schema/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void require(int holds)
{
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct log_catcher quiet;
    struct grammar g = {0};
    json_t *schema = json_loadb((const char *)data, n, JSON_DECODE_ANY, NULL);
    if (!schema)
        return 0;
    log_catch(&quiet);
    const status st = schema_grammar(schema, &g);
    if (st == ST_OK)
        require(grammar_check(&g) == ST_OK);
    else
        require((st == ST_USAGE || st == ST_FULL) && !g.ops && quiet.first_error[0] &&
                !strpbrk(quiet.first_error, "\n\033"));
    log_catch(NULL);
    free((void *)g.ops);
    json_decref(schema);
    return 0;
}
