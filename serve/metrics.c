#include "serve/metrics.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "serve/house.h"
#include "serve/paths.h"

/* Where metrics are written, and the label that vLLM's all have. */
struct page {
    FILE *out;
    char *model; /* model_name="..." */
};

enum metric_kind { COUNTER, GAUGE, HISTOGRAM };

static void head(FILE *out, const char *name, enum metric_kind kind, const char *help)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kinds[kind]);
}

/* One number; `labels` may be "". */
static void line(FILE *out, const char *name, const char *labels, double value)
{
    const bool any = *labels != 0;
    fprintf(out, "%s%s%s%s %.15g\n", name, any ? "{" : "", labels, any ? "}" : "", value);
}

static void plain(FILE *out, const char *name, enum metric_kind kind, double value, const char *help)
{
    head(out, name, kind, help);
    line(out, name, "", value);
}

static void of_model(const struct page *p, const char *name, enum metric_kind kind, double value, const char *help)
{
    head(p->out, name, kind, help);
    line(p->out, name, p->model, value);
}

static double ratio(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

static void llama_metrics(FILE *out, const struct counts *c)
{
    const double prompt = (double)(c->prompt_tokens - c->cached_tokens), made = (double)c->made_tokens;
    plain(out, "llamacpp:prompt_tokens_total", COUNTER, prompt, "Prompt tokens that have run.");
    plain(out, "llamacpp:prompt_seconds_total", COUNTER, c->prompt_s, "Seconds in which prompts ran.");
    plain(out, "llamacpp:prompt_tokens_seconds", GAUGE, ratio(prompt, c->prompt_s), "Prompt tokens per second.");
    plain(out, "llamacpp:tokens_predicted_total", COUNTER, made, "Tokens of answers.");
    plain(out, "llamacpp:tokens_predicted_seconds_total", COUNTER, c->decode_s, "Seconds in which answers were made.");
    plain(out, "llamacpp:predicted_tokens_seconds", GAUGE, ratio(made, c->decode_s), "Tokens of answers per second.");
    plain(out, "llamacpp:n_decode_total", COUNTER, (double)c->steps, "Steps of the model.");
    plain(out, "llamacpp:n_busy_slots_per_decode", GAUGE, ratio((double)c->busy, (double)c->steps),
          "Sequences of a step, on average.");
    plain(out, "llamacpp:n_tokens_max", COUNTER, c->most_tokens, "Tokens of the longest text so far.");
    plain(out, "llamacpp:requests_processing", GAUGE, c->running, "Requests that run.");
    plain(out, "llamacpp:requests_deferred", GAUGE, c->waiting, "Requests that wait.");
    plain(out, "llamacpp:spec_decode_num_drafts_total", COUNTER, (double)c->draft_rounds,
          "Steps of texts with drafts.");
    plain(out, "llamacpp:spec_decode_num_draft_tokens_total", COUNTER, (double)c->drafts, "Tokens drafted.");
    plain(out, "llamacpp:spec_decode_num_accepted_tokens_total", COUNTER, (double)c->accepted,
          "Drafted tokens that were right.");
}

static void histogram(const struct page *p, const char *name, const struct histogram *h, const char *help)
{
    uint64_t sum = 0;
    head(p->out, name, HISTOGRAM, help);
    for (uint32_t i = 0; i <= h->n && i <= COUNTS_BUCKETS; i++) {
        char bound[32] = "+Inf";
        if (i < h->n)
            snprintf(bound, sizeof bound, "%.10g", h->bounds[i]);
        sum += h->count[i];
        fprintf(p->out, "%s_bucket{%s,le=\"%s\"} %" PRIu64 "\n", name, p->model, bound, sum);
    }
    fprintf(p->out, "%s_sum{%s} %.15g\n%s_count{%s} %" PRIu64 "\n", name, p->model, h->sum, name, p->model, sum);
}

static void vllm_requests(const struct page *p, const struct counts *c)
{
    static const char *const reasons[] = {
        [JOB_ANSWERED] = "stop", [JOB_LIMIT] = "length", [JOB_CANCELLED] = "abort", [JOB_FAILED] = "error"};
    static const char name[] = "vllm:request_success_total";
    head(p->out, name, COUNTER, "Requests that are over, by why.");
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        fprintf(p->out, "%s{%s,finished_reason=\"%s\"} %" PRIu64 "\n", name, p->model, reasons[i], c->ended[i]);
}

static void vllm_metrics(const struct page *p, const struct schedule_counts *k, const struct counts *c)
{
    of_model(p, "vllm:num_requests_running", GAUGE, c->running, "Requests that run.");
    of_model(p, "vllm:num_requests_waiting", GAUGE, c->waiting, "Requests that wait.");
    of_model(p, "vllm:kv_cache_usage_perc", GAUGE, ratio(k->pages - k->free_pages, k->pages),
             "Share of the pages of the KV cache that are in use, 1: all.");
    of_model(p, "vllm:prefix_cache_queries_total", COUNTER, (double)c->prompt_tokens, "Prompt tokens looked up.");
    of_model(p, "vllm:prefix_cache_hits_total", COUNTER, (double)c->cached_tokens, "Of them, those that need not run.");
    of_model(p, "vllm:prompt_tokens_total", COUNTER, (double)c->prompt_tokens, "Prompt tokens.");
    of_model(p, "vllm:generation_tokens_total", COUNTER, (double)c->made_tokens, "Tokens of answers.");
    of_model(p, "vllm:num_preemptions_total", COUNTER, (double)k->sent_away, "Times that a text gave its pages back.");
    vllm_requests(p, c);
    histogram(p, "vllm:time_to_first_token_seconds", &c->first_token_s, "Until the first token.");
    histogram(p, "vllm:inter_token_latency_seconds", &c->between_tokens_s, "From token to token.");
    histogram(p, "vllm:e2e_request_latency_seconds", &c->whole_s, "Of a whole request.");
    histogram(p, "vllm:request_queue_time_seconds", &c->queued_s, "That a request waited.");
    histogram(p, "vllm:request_prefill_time_seconds", &c->prompt_part_s, "In which a request's prompt ran.");
    histogram(p, "vllm:request_decode_time_seconds", &c->decode_part_s, "In which a request's answer was made.");
    histogram(p, "vllm:request_prompt_tokens", &c->prompt_length, "Tokens of prompts.");
    histogram(p, "vllm:request_generation_tokens", &c->made_length, "Tokens of answers.");
}

/* A number of each rank. */
static void ranks(FILE *out, const char *name, enum metric_kind kind, const char *help, const struct house *h,
                  double (*value)(const struct wire_usage *u))
{
    head(out, name, kind, help);
    for (uint32_t r = 0; r < h->n_ranks; r++)
        fprintf(out, "%s{rank=\"%u\"} %.15g\n", name, r, value(&h->ranks[r]));
}

static double compute_s(const struct wire_usage *u) { return rank_time(u).compute_s; }
static double wait_s(const struct wire_usage *u) { return rank_time(u).wait_s; }
static double wire_s(const struct wire_usage *u) { return rank_time(u).wire_s; }

/* Of all that its devices looked at. */
static double live_share(const struct wire_usage *u)
{
    double looked = 0, live = 0;
    for (uint32_t i = 0; i < u->n_devices; i++) {
        looked += (double)u->devices[i].neurons;
        live += (double)u->devices[i].live;
    }
    return ratio(live, looked);
}

static double sent_bytes(const struct wire_usage *u) { return (double)u->bytes; }
static double sent_messages(const struct wire_usage *u) { return (double)u->messages; }
static double device_bytes(const struct wire_device *d) { return (double)d->bytes; }
static double device_neurons(const struct wire_device *d) { return (double)d->neurons; }
static double device_live(const struct wire_device *d) { return (double)d->live; }
static double device_busy_s(const struct wire_device *d) { return (double)d->busy_ns * 1e-9; }

/* A counter of each device of each rank. */
static void devices(FILE *out, const char *name, const char *help, const struct serve_house *s, const struct house *h,
                    double (*value)(const struct wire_device *d))
{
    head(out, name, COUNTER, help);
    for (uint32_t r = 0; r < h->n_ranks; r++) {
        for (uint32_t i = 0; i < h->ranks[r].n_devices; i++) {
            const char *device = s->device(s->arg, (int)r, (int)i);
            fprintf(out, "%s{rank=\"%u\",device=\"%s\"} %.15g\n", name, r, device ? device : "?",
                    value(&h->ranks[r].devices[i]));
        }
    }
}

/* What rates of counters say too, for whoever has no Prometheus. */
static void read_rates(FILE *out, const struct house *h)
{
    static const char name[] = "hearth:read_gb_per_second";
    head(out, name, GAUGE, "10^9 bytes of weights that a rank reads in a second, of late.");
    for (uint32_t r = 0; r < h->n_ranks; r++)
        fprintf(out, "%s{rank=\"%u\"} %.4g\n", name, r, h->read_gb_per_s[r]);
}

static void own_metrics(FILE *out, const struct serve_house *s, const struct house *h, const struct counts *c)
{
    devices(out, "hearth:read_bytes_total", "Bytes of weights that a device has read.", s, h, device_bytes);
    devices(out, "hearth:device_busy_seconds_total", "In which a device computed, for whichever rank.", s, h,
            device_busy_s);
    devices(out, "hearth:neurons_total", "Neurons that a device holds times tokens.", s, h, device_neurons);
    devices(out, "hearth:live_neurons_total", "Of them, those that fired.", s, h, device_live);
    ranks(out, "hearth:live_share", GAUGE, "Share of a rank's neurons that fired, since the start.", h, live_share);
    read_rates(out, h);
    ranks(out, "hearth:compute_seconds_total", COUNTER, "In which a rank computed.", h, compute_s);
    ranks(out, "hearth:wait_seconds_total", COUNTER, "In which a rank waited for others, which computed.", h, wait_s);
    ranks(out, "hearth:wire_seconds_total", COUNTER, "In which a rank waited for messages.", h, wire_s);
    ranks(out, "hearth:sent_bytes_total", COUNTER, "Bytes sent to other ranks.", h, sent_bytes);
    ranks(out, "hearth:sent_messages_total", COUNTER, "Messages sent to other ranks.", h, sent_messages);
    plain(out, "hearth:kv_pages", GAUGE, h->schedule.pages, "Pages of the KV cache.");
    plain(out, "hearth:kv_pages_free", GAUGE, h->schedule.free_pages, "Of them, those that hold nothing.");
    plain(out, "hearth:idle_texts", GAUGE, h->schedule.idle, "Texts that are kept for whoever goes on with them.");
    plain(out, "hearth:requests_refused_total", COUNTER, (double)c->refused,
          "Requests for which there was no room to wait.");
}

/* model_name="...", as a label is quoted. NULL: no memory. */
static char *model_label(const char *model)
{
    char *label = NULL;
    size_t n;
    FILE *out = open_memstream(&label, &n);
    if (!out)
        return NULL;
    fputs("model_name=\"", out);
    for (; *model; model++) {
        if (*model == '\n')
            fputs("\\n", out);
        else
            fprintf(out, "%s%c", *model == '"' || *model == '\\' ? "\\" : "", *model);
    }
    fputc('"', out);
    const bool failed = ferror(out);
    if (fclose(out) == 0 && !failed)
        return label;
    free(label);
    return NULL;
}

char *metrics_text(const struct serve_house *s, const char *model, const struct house *h, const struct counts *c,
                   size_t *n)
{
    char *text = NULL;
    struct page p = {.model = model_label(model)};
    if (!p.model)
        return NULL;
    p.out = open_memstream(&text, n);
    if (p.out) {
        llama_metrics(p.out, c);
        vllm_metrics(&p, &h->schedule, c);
        own_metrics(p.out, s, h, c);
        const bool failed = ferror(p.out);
        if (fclose(p.out) != 0 || failed) {
            free(text);
            text = NULL;
        }
    }
    free(p.model);
    return text;
}

void metrics_get(void *arg, struct http_exchange *x)
{
    struct api *a = arg;
    struct house h;
    struct counts c;
    size_t n;
    engine_house(a->engine, &h);
    counts_copy(a->counts, &c);
    char *text = metrics_text(&a->house, a->name, &h, &c, &n);
    if (text)
        http_answer(x, 200, "text/plain; version=0.0.4; charset=utf-8", text, n, NULL, 0);
    else
        api_refuse(x, 500, NULL, NULL, "the server has no memory for the metrics");
    free(text);
}
