#include "sampling/schema/making.h"

struct items {
    const json_t *first;  /* prefixItems, or NULL */
    const json_t *others; /* or NULL: anything */
    size_t n_first;
    uint64_t least, most;
};

/* Behind a comma, and from the middle on without one: *behind. */
static status make_item_rules(struct making *k, const struct items *t, const struct where *at, uint32_t *first,
                              uint32_t *behind)
{
    const struct aside a = aside_begin(k->m);
    comma(k->m);
    *first = grammar_here(k->m);
    status st = k->value(k, t->others ? t->others : json_true(), &(struct where){at, "items", 0});
    *behind = aside_end(k->m, &a);
    return st;
}

/* Any number of them, or one and more: written once. */
static status make_any_items(struct making *k, const struct items *t, const struct where *at)
{
    struct grammar_maker *m = k->m;
    const uint32_t none = t->least == 0 ? maybe(m) : NOWHERE, again = grammar_here(m);
    status st = k->value(k, t->others ? t->others : json_true(), &(struct where){at, "items", 0});
    const uint32_t last = maybe(m);
    comma(m);
    grammar_jump(m, again);
    grammar_patch(m, none, grammar_here(m));
    grammar_patch(m, last, grammar_here(m));
    return st;
}

static status make_counted_items(struct making *k, const struct items *t, const struct where *at)
{
    uint32_t first, behind, none = NOWHERE;
    if (t->most == 0)
        return ST_OK;
    status st = make_item_rules(k, t, at, &first, &behind);
    if (t->least == 0)
        none = maybe(k->m);
    grammar_call(k->m, first);
    repeat(k->m, behind, t->least ? t->least - 1 : 0, t->most == ANY_COUNT ? ANY_COUNT : t->most - 1, NULL);
    grammar_patch(k->m, none, grammar_here(k->m));
    return st;
}

/* Those of prefixItems, of which the last ones may be missing, and then others if there are to be any. */
static status make_first_items(struct making *k, const struct items *t, const struct where *at)
{
    struct grammar_maker *m = k->m;
    const struct where list = {at, "prefixItems", 0};
    uint32_t first, behind;
    const uint32_t out = grammar_jump(m, grammar_here(m) + 2), end = grammar_jump(m, NOWHERE);
    status st = ST_OK;
    (void)out;
    for (size_t i = 0; i < t->n_first && i < t->most && st == ST_OK; i++) {
        if (i >= t->least)
            grammar_split(m, grammar_here(m) + 1, end);
        if (i > 0)
            comma(m);
        st = k->value(k, json_array_get(t->first, i), &(struct where){&list, NULL, i});
    }
    if (st == ST_OK && t->most > t->n_first && (t->others || t->least > t->n_first)) {
        if ((st = make_item_rules(k, t, at, &first, &behind)) == ST_OK)
            repeat(m, behind, t->least > t->n_first ? t->least - t->n_first : 0,
                   t->most == ANY_COUNT ? ANY_COUNT : t->most - t->n_first, NULL);
    }
    grammar_patch(m, end, grammar_here(m));
    return st;
}

status make_array(struct making *k, const json_t *flat, const struct where *at)
{
    struct items t = {.first = json_object_get(flat, "prefixItems"), .others = json_object_get(flat, "items")};
    status st;
    t.n_first = json_array_size(t.first);
    t.least = count_of(flat, "minItems", 0);
    t.most = count_of(flat, "maxItems", ANY_COUNT);
    if (t.least > MOST_COUNT)
        return schema_refuse(at, ST_FULL, "minItems is more than %d", MOST_COUNT);
    if (t.least > t.most) {
        dead_end(k->m);
        return ST_OK;
    }
    if (t.most > MOST_COUNT)
        t.most = ANY_COUNT;
    grammar_byte(k->m, '[', '[');
    if (t.n_first > 0)
        st = make_first_items(k, &t, at);
    else if (t.least <= 1 && t.most == ANY_COUNT)
        st = make_any_items(k, &t, at);
    else
        st = make_counted_items(k, &t, at);
    grammar_byte(k->m, ']', ']');
    return st;
}
