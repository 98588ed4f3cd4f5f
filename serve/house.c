#include "serve/house.h"

#include <math.h>
#include <string.h>
#include "placement/plan.h"
#include "serve/paths.h"

struct rank_time rank_time(const struct wire_usage *u)
{
    const double wait_s = (double)u->wait_ns * 1e-9, wire_s = (double)u->wire_ns * 1e-9;
    double stage_s = (double)u->run_ns * 1e-9 - wait_s - wire_s, devices_s = 0;
    for (uint32_t i = 0; i < u->n_devices && i < WIRE_DEVICES_MOST; i++)
        devices_s += (double)u->devices[i].wait_ns * 1e-9;
    return (struct rank_time){.compute_s = stage_s > devices_s ? stage_s : devices_s, .wait_s = wait_s, .wire_s = wire_s};
}

static json_t *share(double part, double whole)
{
    return json_real(whole > 0 ? round(part / whole * 1000) / 1000 : 0);
}

/* Shares of a layer's heads and neurons that a holder has, in thousandths. */
struct part {
    int heads, neurons;
};

static struct part part_of(const struct serve_house *s, int layer, int holder)
{
    int64_t begin, end;
    const int64_t heads = model_heads(&s->model->hp, layer), neurons = plan_shape_neurons(&s->plan->layers[layer].shape);
    plan_heads(s->plan, layer, holder, heads, &begin, &end);
    return (struct part){
        .heads = heads > 0 ? (int)lround(1000.0 * (double)(end - begin) / (double)heads) : 0,
        .neurons = neurons > 0 ? (int)lround(1000.0 * (double)plan_n_neurons(s->plan, layer, holder) / (double)neurons) : 0,
    };
}

static void add_parts(json_t *out, int first, int last, struct part p)
{
    if (p.heads > 0 || p.neurons > 0)
        json_array_append_new(out, json_pack("[iiff]", first, last, p.heads / 1000.0, p.neurons / 1000.0));
}

/* Layers of which a holder has the same shares are one entry. */
static json_t *parts_of(const struct serve_house *s, int holder)
{
    json_t *out = json_array();
    struct part last = {0};
    int first = 0, n = s->plan->model.n_layers;
    for (int layer = 0; layer < n; layer++) {
        struct part p = part_of(s, layer, holder);
        if (p.heads == last.heads && p.neurons == last.neurons)
            continue;
        add_parts(out, first, layer, last);
        last = p;
        first = layer;
    }
    add_parts(out, first, n, last);
    return out;
}

/* The holder that is a rank's device of this name; -1: the plan has none. */
static int holder_of(const struct plan *p, int rank, const char *device)
{
    for (int h = 0; p && h < plan_n_holders(p); h++) {
        const bool named = strcmp(plan_holder_device(p, h), device) == 0;
        if (plan_holder_rank(p, h) == rank && named)
            return h;
    }
    return -1;
}

static json_t *device_json(const struct serve_house *s, int rank, int i, const struct wire_device *d)
{
    const char *name = s->device ? s->device(s->device_arg, rank, i) : NULL;
    const int holder = holder_of(s->plan, rank, name ? name : "cpu");
    int64_t begin = 0, end = 0;
    if (holder >= 0)
        plan_rows(s->plan, holder, s->model->hp.n_vocab, &begin, &end);
    return json_pack("{ss sI sf so so}", "name", name ? name : "cpu", "read_bytes", (json_int_t)d->bytes, "busy_s",
                     (double)d->busy_ns * 1e-9, "parts", holder >= 0 ? parts_of(s, holder) : json_array(), "rows",
                     share((double)(end - begin), (double)s->model->hp.n_vocab));
}

static json_t *stage_json(const struct plan *p, int rank)
{
    int first = 0, last = 0;
    if (p)
        plan_stage(p, rank, &first, &last);
    return first < last ? json_pack("[ii]", first, last) : json_null();
}

static json_t *rank_json(const struct serve_house *s, int rank, const struct wire_usage *u)
{
    const struct rank_time t = rank_time(u);
    json_t *devices = json_array();
    for (uint32_t i = 0; i < u->n_devices && i < WIRE_DEVICES_MOST; i++)
        json_array_append_new(devices, device_json(s, rank, (int)i, &u->devices[i]));
    return json_pack("{si so sf sf sf sI sI so}", "rank", rank, "stage", stage_json(s->plan, rank), "compute_s", t.compute_s,
                     "wait_s", t.wait_s, "wire_s", t.wire_s, "sent_bytes", (json_int_t)u->bytes, "sent_messages",
                     (json_int_t)u->messages, "devices", devices);
}

/* Of how many layers whose stage is `from` (or, where all ranks have the residual stream, of any) `to` has something. */
static int layers_between(const struct plan *p, int from, int to)
{
    int n = 0;
    for (int layer = 0; layer < p->model.n_layers; layer++)
        if (p->residual_all || p->layers[layer].stage == from)
            n += plan_rank_holds(p, PLAN_HEADS, layer, to) || plan_rank_holds(p, PLAN_NEURONS, layer, to);
    return n;
}

/* Whether the residual stream goes from rank a to rank b. */
static bool follows(const struct plan *p, int a, int b)
{
    int first, last;
    plan_stage(p, a, &first, &last);
    return first < last && plan_next_stage(p, a) == b;
}

static json_t *links_json(const struct plan *p, int n_ranks)
{
    json_t *links = json_array();
    for (int a = 0; p && a < n_ranks; a++) {
        for (int b = a + 1; b < n_ranks; b++) {
            const bool both = plan_takes_part(p, a) && plan_takes_part(p, b);
            const int n = both ? layers_between(p, a, b) + (p->residual_all ? 0 : layers_between(p, b, a)) : 0;
            if (n > 0 || follows(p, a, b) || follows(p, b, a))
                json_array_append_new(links, json_pack("{si si si}", "from", a, "to", b, "layers", n));
        }
    }
    return links;
}

static json_t *ranks_json(const struct serve_house *s, const struct house *h)
{
    json_t *ranks = json_array();
    for (uint32_t r = 0; r < h->n_ranks && r < PLAN_MAX_RANKS; r++)
        json_array_append_new(ranks, rank_json(s, (int)r, &h->ranks[r]));
    return ranks;
}

json_t *house_json(const struct serve_house *s, const char *name, const struct house *h, const struct counts *c)
{
    const struct schedule_counts *k = &h->schedule;
    uint64_t ended = 0;
    for (size_t i = 0; i < sizeof c->ended / sizeof *c->ended; i++)
        ended += c->ended[i];
    return json_pack("{ss si sI sI ss sf s{sI sI sI} s{si si sI sI} s{si si sI} s{sI sI} s{sI sI} sI so so}",
                     "model", name, "layers", s->model->hp.n_layers, "context", (json_int_t)s->n_ctx,
                     "sequences", (json_int_t)s->n_sequences, "transport", s->transport ? s->transport : "", "at_s", h->at_s,
                     "tokens", "prompt", (json_int_t)c->prompt_tokens, "cached", (json_int_t)c->cached_tokens,
                     "made", (json_int_t)c->made_tokens,
                     "requests", "running", (int)c->running, "waiting", (int)c->waiting, "refused", (json_int_t)c->refused,
                     "ended", (json_int_t)ended,
                     "kv", "pages", (int)k->pages, "free", (int)k->free_pages, "sent_away", (json_int_t)k->sent_away,
                     "neurons", "looked", (json_int_t)h->work.neurons, "live", (json_int_t)h->work.live,
                     "drafts", "made", (json_int_t)c->drafts, "accepted", (json_int_t)c->accepted,
                     "steps", (json_int_t)c->steps, "ranks", ranks_json(s, h), "links", links_json(s->plan, (int)h->n_ranks));
}

void house_get(void *arg, struct http_exchange *x)
{
    struct api *a = arg;
    struct house h;
    struct counts c;
    engine_house(a->engine, &h);
    counts_copy(a->counts, &c);
    api_answer(x, 200, house_json(&a->house, a->name, &h, &c));
}
