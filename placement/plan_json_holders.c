/* The holders of a plan: devices of ranks; and which of them are homes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "placement/plan_json.h"

/* The first n_ranks are the ranks' CPUs; nobody is there twice. */
static status check_holder(const struct plan_reader *r, int h)
{
    const struct plan_holder *list = r->p->holders, *new = &list[h];
    if (h < r->p->n_ranks && (new->rank != h || strcmp(new->device, "cpu") != 0))
        return field_refuse(r->where, "holders[%d] is %s of rank %d, expected cpu of rank %d: the CPUs of all ranks "
                            "come first", h, new->device, new->rank, h);
    for (int i = 0; i < h; i++)
        if (list[i].rank == new->rank && strcmp(list[i].device, new->device) == 0)
            return field_refuse(r->where, "holders[%d] is %s of rank %d again, as holders[%d] is", h, new->device,
                                new->rank, i);
    return ST_OK;
}

/* The i-th entry of "holders" or "stages": a device of a rank. */
static status read_entry(const struct plan_reader *r, const char *key, int i, json_t *v, struct plan_holder *out)
{
    static const char *const keys[] = {"rank", "device", NULL};
    struct place at = {.where = r->where};
    int64_t rank = 0;
    status st;
    snprintf(at.prefix, sizeof at.prefix, "%s[%d].", key, i);
    if (!json_is_object(v))
        return field_refuse(r->where, "%s[%d] is %s, expected an object", key, i, field_type_name(v));
    if ((st = field_check_keys(&at, v, keys)) != ST_OK ||
        (st = field_get_int(&at, v, "rank", 0, r->p->n_ranks - 1, &rank)) != ST_OK ||
        (st = field_get_device(&at, v, out->device)) != ST_OK)
        return st;
    out->rank = (int)rank;
    return ST_OK;
}

static status read_holder(const struct plan_reader *r, int h, json_t *v)
{
    status st = read_entry(r, "holders", h, v, &r->p->holders[h]);
    return st == ST_OK ? check_holder(r, h) : st;
}

/* A rank's home is one of its holders, and is named once. */
static status read_stage(const struct plan_reader *r, int i, json_t *v, bool named[PLAN_MAX_RANKS])
{
    struct plan *p = r->p;
    struct plan_holder home;
    int h = 0;
    status st = read_entry(r, "stages", i, v, &home);
    if (st != ST_OK)
        return st;
    while (h < p->n_holders && (p->holders[h].rank != home.rank || strcmp(p->holders[h].device, home.device) != 0))
        h++;
    if (h == p->n_holders)
        return field_refuse(r->where, "stages[%d] is on %s of rank %d, which is none of the holders", i, home.device,
                            home.rank);
    if (named[home.rank])
        return field_refuse(r->where, "stages[%d] is rank %d's again", i, home.rank);
    named[home.rank] = true;
    p->homes[home.rank] = h == home.rank ? 0 : h;
    return ST_OK;
}

status plan_read_stages(const struct plan_reader *r, const json_t *v)
{
    bool named[PLAN_MAX_RANKS] = {false};
    if (!v)
        return ST_OK;
    if (!json_is_array(v))
        return field_refuse(r->where, "stages is %s, expected an array", field_type_name(v));
    for (size_t i = 0; i < json_array_size(v); i++) {
        status st = read_stage(r, (int)i, json_array_get(v, i), named);
        if (st != ST_OK)
            return st;
    }
    return ST_OK;
}

static void ranks_hold(struct plan *p)
{
    p->n_holders = p->n_ranks;
    for (int h = 0; h < p->n_ranks; h++)
        p->holders[h] = (struct plan_holder){h, "cpu"};
}

status plan_read_holders(const struct plan_reader *r, const json_t *v)
{
    if (r->version == 1) {
        ranks_hold(r->p);
        return ST_OK;
    }
    const size_t n = json_array_size(v);
    if (!json_is_array(v))
        return field_refuse(r->where, "holders is %s, expected an array", field_type_name(v));
    if (n < (size_t)r->p->n_ranks || n > PLAN_MAX_HOLDERS)
        return field_refuse(r->where, "holders has %zu devices, expected %d (the ranks' CPUs) to %d", n, r->p->n_ranks,
                            PLAN_MAX_HOLDERS);
    for (size_t h = 0; h < n; h++) {
        status st = read_holder(r, (int)h, json_array_get(v, h));
        if (st != ST_OK)
            return st;
    }
    r->p->n_holders = (int)n;
    return ST_OK;
}
