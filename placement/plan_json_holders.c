/* The holders of a plan: devices of ranks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "placement/plan_json.h"

enum { DEVICE_MAX_DIGITS = 3 };

/* Whether it is a number without zeros in front. */
static bool is_number(const char *text)
{
    const size_t n = strlen(text);
    return n > 0 && n <= DEVICE_MAX_DIGITS && strspn(text, "0123456789") == n && (text[0] != '0' || n == 1);
}

/* Kinds of devices that some program knows; the first CPU goes without its number. */
static bool is_device(const char *text)
{
    if (strncmp(text, "cuda:", 5) == 0)
        return is_number(text + 5);
    return strcmp(text, "cpu") == 0 || (strncmp(text, "cpu:", 4) == 0 && is_number(text + 4) && text[4] != '0');
}

static status read_device(const struct place *at, const json_t *v, char out[PLAN_DEVICE_BYTES])
{
    const char *text = json_string_value(v);
    if (!text)
        return field_refuse(at->where, "%sdevice is %s, expected a string", at->prefix, field_type_name(v));
    if (!is_device(text))
        return field_refuse(at->where, "%sdevice is '%.64s', which is no device: expected \"cpu\", or \"cpu:N\" or "
                            "\"cuda:N\" with a number, of CPUs from 1 on", at->prefix, text);
    snprintf(out, PLAN_DEVICE_BYTES, "%s", text);
    return ST_OK;
}

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

static status read_holder(const struct plan_reader *r, int h, json_t *v)
{
    static const char *const keys[] = {"rank", "device", NULL};
    struct place at = {.where = r->where};
    int64_t rank = 0;
    status st;
    snprintf(at.prefix, sizeof at.prefix, "holders[%d].", h);
    if (!json_is_object(v))
        return field_refuse(r->where, "holders[%d] is %s, expected an object", h, field_type_name(v));
    if ((st = field_check_keys(&at, v, keys)) != ST_OK ||
        (st = field_get_int(&at, v, "rank", 0, r->p->n_ranks - 1, &rank)) != ST_OK ||
        (st = read_device(&at, json_object_get(v, "device"), r->p->holders[h].device)) != ST_OK)
        return st;
    r->p->holders[h].rank = (int)rank;
    return check_holder(r, h);
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
