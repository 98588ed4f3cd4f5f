/* For schema_test.py: makes grammars of schemas, and says what they allow. Reads lines and answers each:
 *   S SCHEMA    "ok OPS", or "no LINE" with the line that says why not
 *   W SEED N    N texts that the last schema's grammar allows, a line each
 *   M TEXT      "yes" or "no": whether that grammar allows it */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "sampling/schema/schema.h"
#include "tests/schema/walk.h"

static void make(const char *text, struct grammar *g, uint32_t **cost)
{
    struct log_catcher quiet;
    json_t *schema = json_loads(text, JSON_DECODE_ANY, NULL);
    free((void *)g->ops);
    free(*cost);
    *g = (struct grammar){0};
    *cost = NULL;
    log_catch(&quiet);
    if (schema && schema_grammar(schema, g) == ST_OK) {
        *cost = walk_costs(g);
        printf("ok %u\n", g->n_ops);
    } else {
        printf("no %s\n", schema ? quiet.first_error : "no JSON");
    }
    log_catch(NULL);
    json_decref(schema);
}

static void write_texts(const char *line, const struct grammar *g, const uint32_t *cost)
{
    static char text[WALK_TEXT];
    uint64_t seed = 0;
    int n = 0;
    if (sscanf(line, "%" SCNu64 " %d", &seed, &n) != 2 || !cost)
        return;
    for (int i = 0; i < n; i++) {
        const size_t size = walk_text(g, cost, seed + (uint64_t)i, text);
        fwrite(text, 1, size, stdout);
        putchar('\n');
    }
}

int main(void)
{
    char *line = NULL;
    size_t cap = 0;
    struct grammar g = {0};
    uint32_t *cost = NULL;
    for (ssize_t n; (n = getline(&line, &cap, stdin)) > 0;) {
        if (line[n - 1] == '\n')
            line[--n] = '\0';
        if (n < 2)
            continue;
        if (line[0] == 'S')
            make(line + 2, &g, &cost);
        else if (line[0] == 'W')
            write_texts(line + 2, &g, cost);
        else
            puts(g.n_ops && walk_accepts(&g, line + 2, (size_t)n - 2) ? "yes" : "no");
        fflush(stdout);
    }
    free(line);
    free((void *)g.ops);
    free(cost);
    return 0;
}
