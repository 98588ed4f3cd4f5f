#include "tests/conformance/verbs_ranks.h"

#include <pthread.h>
#include <stdlib.h>

static void *live(void *arg)
{
    struct verbs_rank *r = arg;
    const struct transport_config config = conformance_config();
    const struct verbs_gather gather = {fake_gather, &r->seat};
    uint8_t everyone[64];
    log_catch(&r->errors);
    fake_i_am(r->rank);
    r->options.calls = &fake_verbs;
    r->opened = transport_verbs_open(&config, &r->options, r->rank, r->n_ranks, &gather, &r->t);
    r->connected = ST_INTERNAL;
    /* As a program does: all connect or none. */
    const uint8_t ok = r->opened == ST_OK;
    bool all = true;
    fake_gather(&r->seat, &ok, 1, everyone);
    for (int i = 0; i < r->n_ranks; i++)
        all = all && everyone[i];
    if (all) {
        r->connected = transport_connect(r->t);
        if (!r->connected && r->body)
            r->body(r);
    }
    transport_close(r->t);
    log_catch(NULL);
    return NULL;
}

void verbs_ranks_run(int n, struct verbs_rank *ranks, void (*body)(struct verbs_rank *r))
{
    pthread_t threads[FAKE_RANKS];
    struct fake_gather *g = fake_gather_new(n);
    for (int i = 0; i < n; i++) {
        ranks[i].rank = i;
        ranks[i].n_ranks = n;
        ranks[i].seat = (struct fake_seat){g, i};
        ranks[i].body = body;
        ranks[i].t = NULL;
        if (pthread_create(&threads[i], NULL, live, &ranks[i]))
            abort();
    }
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    fake_gather_free(g);
}
