#include "worker/chosen.h"

void chosen_begin(struct chosen *c, const struct wire_step *s, const struct batch *b)
{
    *c = (struct chosen){.t = {.step = s, .work = {.part = DEVICE_OUTPUT, .batch = b, .tokens = c->tokens}}};
}

/* The first place of a run that is wanted. */
static uint32_t first_place(const struct wire_run *r, bool scored)
{
    if (scored)
        return r->want == WANT_SCORES || r->want == WANT_LOG_PROBS ? r->from : r->n_tokens;
    switch (r->want) {
    case WANT_TOKENS: return r->from;
    case WANT_TOKEN:
    case WANT_LOGITS:
    case WANT_TOP: return r->n_tokens - 1;
    default: return r->n_tokens;
    }
}

bool chosen_next(struct chosen *c, bool scored)
{
    const struct wire_step *s = c->t.step;
    uint32_t n = 0;
    while (n < CHOSEN_MOST && c->run < s->n_runs) {
        const struct wire_run *r = &s->runs[c->run];
        const uint32_t first = first_place(r, scored);
        c->place = c->place < first ? first : c->place;
        if (c->place >= r->n_tokens) {
            c->first += r->n_tokens;
            c->run++;
            c->place = 0;
            continue;
        }
        c->of[n].run = c->run;
        c->of[n].place = c->place;
        c->tokens[n++] = c->first + c->place++;
    }
    c->t.work.n = n;
    return n > 0;
}
