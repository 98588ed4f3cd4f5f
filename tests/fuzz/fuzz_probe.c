/* The probe reader: any text is refused in a line, or gives a probe that reads back the same and whose times are
 * finite.
 *
 * Start it with CORPUS tests/fuzz/corpus/probe. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "placement/probe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void require(int holds)
{
    if (!holds)
        abort();
}

static void check(const struct probe *p)
{
    static const int64_t sizes[] = {0, 1, 1000, 100000, INT32_MAX};
    const int best = probe_transport(p, NULL);
    require(p->n_ranks >= 1 && p->n_ranks <= PLAN_MAX_RANKS && best < p->n_transports);
    require((best < 0) == (p->n_ranks == 1));
    for (int r = 0; r < p->n_ranks; r++)
        require(p->ranks[r].host[0] && p->ranks[r].n_curve >= 1 && p->ranks[r].curve[0] > 0);
    for (int r = 0; r < p->n_ranks; r++)
        require(probe_rank_possible(&p->ranks[r]));
    for (int i = 0; best >= 0 && i < p->n_ranks * p->n_ranks; i++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            const double us = probe_message_us(p, best, i / p->n_ranks, i % p->n_ranks, sizes[s]);
            require(us >= 0 && (us > 0 || i / p->n_ranks == i % p->n_ranks));
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct log_catcher quiet;
    struct probe *p = NULL, *again = NULL;
    log_catch(&quiet);
    if (probe_parse((const char *)data, n, "fuzz", &p) == ST_OK) {
        check(p);
        char *text = probe_format(p), *twice = NULL;
        require(text && probe_parse(text, strlen(text), "fuzz", &again) == ST_OK);
        require((twice = probe_format(again)) && strcmp(text, twice) == 0);
        free(twice);
        free(text);
        probe_free(again);
        probe_free(p);
    } else {
        require(quiet.first_error[0] != '\0' && !strpbrk(quiet.first_error, "\n\033"));
    }
    log_catch(NULL);
    return 0;
}
