/* What begins a sequence. */
#include "base/log.h"
#include "wire/records.h"

void write_begins(struct writer *w, const struct wire_begin *begins, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        write_u32(w, begins[i].sequence);
        write_u32(w, begins[i].n_text);
        write_sampling(w, &begins[i].sampling);
    }
    for (uint32_t i = 0; i < n; i++)
        write_tokens(w, begins[i].text, begins[i].n_text);
}

/* The run of a sequence; NULL: it has none. */
static const struct wire_run *run_of(const struct wire_step *s, uint32_t sequence)
{
    for (uint32_t i = 0; i < s->n_runs; i++)
        if (s->runs[i].sequence == sequence)
            return &s->runs[i];
    return NULL;
}

static status read_begin(int kind, struct reader *r, const struct wire_step *s, uint64_t *seen, struct wire_begin *b)
{
    b->sequence = read_u32(r);
    b->n_text = read_u32(r);
    const struct wire_run *run = run_of(s, b->sequence);
    if (!run || *seen >> b->sequence & 1) {
        log_error("%s message: sequence %u begins %s", wire_name(kind), b->sequence, run ? "twice" : "without a run");
        return ST_FORMAT;
    }
    *seen |= UINT64_C(1) << b->sequence;
    status st = wire_in_range(kind, "a begin's n_text", b->n_text, 0, run->position);
    return st ? st : read_sampling(kind, r, &b->sampling);
}

status read_begins(int kind, struct reader *r, const struct wire_limits *lim, const struct wire_step *s,
                   const struct wire_copy *c)
{
    uint64_t seen = 0, n_text = 0;
    status st;
    for (uint32_t i = 0; i < s->n_begins; i++) {
        struct wire_begin *b = &c->begins[i];
        if ((st = read_begin(kind, r, s, &seen, b)) != ST_OK)
            return st;
        b->text = n_text <= s->n_text ? c->text + n_text : NULL; /* beyond: refused below */
        n_text += b->n_text;
    }
    if ((st = wire_in_range(kind, "the begins' n_text together", (int64_t)n_text, s->n_text, s->n_text)) != ST_OK)
        return st;
    return read_tokens(kind, r, lim, "a token of a text", s->n_text, c->text);
}
