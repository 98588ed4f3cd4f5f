#include "serve/house.h"

#include <math.h>
#include <string.h>
#include "base/clock.h"
#include "placement/plan.h"
#include "serve/paths.h"

struct rank_time rank_time(const struct wire_usage *u)
{
    const double wait_s = (double)u->wait_ns * 1e-9, wire_s = (double)u->wire_ns * 1e-9;
    double stage_s = (double)u->run_ns * 1e-9 - wait_s - wire_s, devices_s = 0;
    for (uint32_t i = 0; i < u->n_devices && i < WIRE_DEVICES_MOST; i++)
        devices_s += (double)u->devices[i].wait_ns * 1e-9;
    return (struct rank_time){
        .compute_s = stage_s > devices_s ? stage_s : devices_s, .wait_s = wait_s, .wire_s = wire_s};
}

/* ---- who has what ---- */

static int thousandths(int64_t part, int64_t whole)
{
    return whole > 0 ? (int)lround(1000.0 * (double)part / (double)whole) : 0;
}

/* Shares of a layer's heads and neurons that a holder has, in thousandths. */
struct part {
    int heads, neurons;
};

static struct part part_of(const struct serve_house *s, int layer, int holder)
{
    int64_t begin, end;
    const int64_t heads = model_heads(&s->model->hp, layer);
    const int64_t neurons = plan_shape_neurons(&s->plan->layers[layer].shape);
    plan_heads(s->plan, layer, holder, heads, &begin, &end);
    return (struct part){
        .heads = thousandths(end - begin, heads),
        .neurons = thousandths(plan_n_neurons(s->plan, layer, holder), neurons),
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
    int first = 0;
    const int n = s->plan->model.n_layers;
    for (int layer = 0; layer < n; layer++) {
        const struct part p = part_of(s, layer, holder);
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
    for (int h = 0; p && h < plan_n_holders(p); h++)
        if (plan_holder_rank(p, h) == rank && strcmp(plan_holder_device(p, h), device) == 0)
            return h;
    return -1;
}

static json_t *device_json(const struct serve_house *s, int rank, const char *name, const struct wire_device *d)
{
    const int holder = holder_of(s->plan, rank, name);
    int64_t begin = 0, end = 0;
    if (holder >= 0)
        plan_rows(s->plan, holder, s->model->hp.n_vocab, &begin, &end);
    return json_pack("{ss sI sf sI sI so sf}", "name", name, "read_bytes", (json_int_t)d->bytes,
                     "busy_s", (double)d->busy_ns * 1e-9,
                     "neurons", (json_int_t)d->neurons, "live", (json_int_t)d->live,
                     "parts", holder >= 0 ? parts_of(s, holder) : json_array(),
                     "rows", thousandths(end - begin, s->model->hp.n_vocab) / 1000.0);
}

static json_t *stage_json(const struct plan *p, int rank)
{
    int first = 0, last = 0;
    if (p)
        plan_stage(p, rank, &first, &last);
    return first < last ? json_pack("[ii]", first, last) : json_null();
}

/* A machine may have any name. */
static json_t *host_json(const char *name)
{
    json_t *host = json_string(name);
    return host ? host : json_string("?");
}

static json_t *rank_json(const struct serve_house *s, int rank, const struct wire_usage *u)
{
    const struct rank_time t = rank_time(u);
    json_t *devices = json_array();
    const char *name;
    for (int i = 0; i < WIRE_DEVICES_MOST && (name = s->device(s->arg, rank, i)); i++)
        json_array_append_new(devices, device_json(s, rank, name, &u->devices[i]));
    return json_pack("{si so so sf sf sf sI sI so}", "rank", rank, "host", host_json(s->host(s->arg, rank)),
                     "stage", stage_json(s->plan, rank),
                     "compute_s", t.compute_s, "wait_s", t.wait_s, "wire_s", t.wire_s,
                     "sent_bytes", (json_int_t)u->bytes, "sent_messages", (json_int_t)u->messages, "devices", devices);
}

static json_t *ranks_json(const struct serve_house *s, const struct house *h)
{
    json_t *ranks = json_array();
    for (int r = 0; r < s->n_ranks && r < PLAN_MAX_RANKS; r++)
        json_array_append_new(ranks, rank_json(s, r, &h->ranks[r]));
    return ranks;
}

/* ---- who talks with whom ---- */

/* Of how many layers whose stage is `from` (of any, where all ranks have the residual stream) `to` has something. */
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

json_t *house_json(const struct serve_house *s, const char *name, const struct house *h, const struct counts *c,
                   double now_s)
{
    const struct schedule_counts *k = &h->schedule;
    uint64_t ended = 0;
    for (size_t i = 0; i < sizeof c->ended / sizeof *c->ended; i++)
        ended += c->ended[i];
    return json_pack("{ss si sI sI ss sf sf s{sI sI sI} s{sI sI sI sI} s{sI sI sI} s{sI sI} sI so so}",
                     "model", name, "layers", s->model->hp.n_layers, "context", (json_int_t)s->n_ctx,
                     "sequences", (json_int_t)s->n_sequences, "transport", s->transport,
                     "now_s", now_s, "at_s", h->at_s,
                     "tokens", "prompt", (json_int_t)c->prompt_tokens, "cached", (json_int_t)c->cached_tokens,
                     "made", (json_int_t)c->made_tokens,
                     "requests", "running", (json_int_t)c->running, "waiting", (json_int_t)c->waiting,
                     "refused", (json_int_t)c->refused, "ended", (json_int_t)ended,
                     "kv", "pages", (json_int_t)k->pages, "free", (json_int_t)k->free_pages,
                     "sent_away", (json_int_t)k->sent_away,
                     "drafts", "made", (json_int_t)c->drafts, "accepted", (json_int_t)c->accepted,
                     "steps", (json_int_t)c->steps,
                     "ranks", ranks_json(s, h), "links", links_json(s->plan, s->n_ranks));
}

void house_get(void *arg, struct http_exchange *x)
{
    struct api *a = arg;
    struct house h;
    struct counts c;
    engine_house(a->engine, &h);
    counts_copy(a->counts, &c);
    api_answer(x, 200, house_json(&a->house, a->name, &h, &c, clock_s()));
}
