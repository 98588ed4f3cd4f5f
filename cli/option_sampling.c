/* The options of sampling, and the seed where none is given. */
#include <limits.h>
#include <sys/random.h>
#include "base/log.h"
#include "cli/options.h"

enum key { KEY_TEMP = 256, KEY_TOP_K, KEY_TOP_P, KEY_MIN_P, KEY_REPEAT_PENALTY, KEY_PRESENCE_PENALTY,
           KEY_FREQUENCY_PENALTY, KEY_REPEAT_LAST };

const struct sampler_params sampling_defaults = {
    .temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1.0f, .repeat_last = 64,
};

static const struct argp_option sampling_options[] = {
    {NULL, 0, NULL, 0, "Sampling:", 6},
    {"seed", 's', "N", 0, "seed of the random numbers (default -1: a new one each time, and told unless -q)", 6},
    {"temp", KEY_TEMP, "T", 0, "temperature, 0 takes the likeliest token always (default 0.8)", 6},
    {"top-k", KEY_TOP_K, "K", 0, "only the K likeliest tokens, 0 or -1: all (default 40)", 6},
    {"top-p", KEY_TOP_P, "P", 0, "only the likeliest tokens that together have P (default 0.95, 1: off)", 6},
    {"min-p", KEY_MIN_P, "P", 0, "only tokens with P times the likeliest one's probability (default 0.05, 0: off)", 6},
    {"repeat-penalty", KEY_REPEAT_PENALTY, "X", 0, "make recent tokens less likely (default 1: off)", 6},
    {"presence-penalty", KEY_PRESENCE_PENALTY, "X", 0, "take X from every recent token's logit (default 0: off)", 6},
    {"frequency-penalty", KEY_FREQUENCY_PENALTY, "X", 0, "take X from it each time that it came (default 0: off)", 6},
    {"repeat-last-n", KEY_REPEAT_LAST, "N", 0, "how many tokens are recent, -1: all (default 64)", 6},
    {0},
};

static uint64_t new_seed(void)
{
    uint32_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        log_warn("the system gives no random number: the seed is 0");
    return seed;
}

static error_t parse_sampling(int key, char *arg, struct argp_state *state)
{
    struct sampler_params *p = state->input;
    int64_t v = 0;
    error_t e = 0;
    switch (key) {
    case ARGP_KEY_INIT:
        p->seed = UINT64_MAX;
        break;
    case 's':
        e = option_int(state, "--seed", arg, -1, UINT32_MAX, &v);
        p->seed = (uint64_t)v;
        break;
    case KEY_TEMP:
        e = option_float(state, "--temp", arg, 0, 100, &p->temperature);
        break;
    case KEY_TOP_K:
        e = option_int(state, "--top-k", arg, -1, INT_MAX, &v);
        p->top_k = (int32_t)v;
        break;
    case KEY_TOP_P:
        e = option_float(state, "--top-p", arg, 0, 1, &p->top_p);
        break;
    case KEY_MIN_P:
        e = option_float(state, "--min-p", arg, 0, 1, &p->min_p);
        break;
    case KEY_REPEAT_PENALTY:
        e = option_float(state, "--repeat-penalty", arg, 0.01, 100, &p->repeat_penalty);
        break;
    case KEY_PRESENCE_PENALTY:
        e = option_float(state, "--presence-penalty", arg, -100, 100, &p->presence_penalty);
        break;
    case KEY_FREQUENCY_PENALTY:
        e = option_float(state, "--frequency-penalty", arg, -100, 100, &p->frequency_penalty);
        break;
    case KEY_REPEAT_LAST:
        e = option_int(state, "--repeat-last-n", arg, -1, INT_MAX, &v);
        p->repeat_last = (int32_t)v;
        break;
    case ARGP_KEY_SUCCESS:
        if (p->seed == UINT64_MAX)
            p->seed = p->temperature > 0 ? new_seed() : 0;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return e;
}

const struct argp argp_sampling = {.options = sampling_options, .parser = parse_sampling};
