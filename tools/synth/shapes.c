#include <string.h>
#include "tools/synth/synth.h"

static const struct shape shapes[] = {
    {"1b", LLAMA, 16, 2048, 8192, 32, 8, 64, 128256, 131072, 500000, true, 32, 0, 0}, /* Llama 3.2 1B */
    {"7b", LLAMA, 32, 4096, 11008, 32, 32, 128, 32000, 4096, 10000, false, 0, 0, 0},  /* Llama 2 7B */
    {"70b", LLAMA, 80, 8192, 28672, 64, 8, 128, 32000, 4096, 10000, false, 0, 0, 0},  /* Llama 2 70B */
    {"opt-6.7b", OPT, 32, 4096, 16384, 32, 32, 128, 50272, 2048, 0, true, 0, 0, 0},   /* OPT 6.7B */
    {"qwen3-30b-a3b", QWEN3MOE, 48, 2048, 768, 32, 4, 128, 151936, 40960, 1000000, false, 0, 128, 8},
    {"qwen3-235b-a22b", QWEN3MOE, 94, 4096, 1536, 64, 4, 128, 151936, 40960, 1000000, false, 0, 128, 8},
    {"qwen3-next-80b", QWEN3NEXT, 48, 2048, 512, 16, 2, 256, 151936, 262144, 10000000, false, 0, 512, 10},
    {"gpt-oss-20b", GPT_OSS, 24, 2880, 2880, 64, 8, 64, 201088, 131072, 150000, false, 0, 32, 4},
    {"gpt-oss-120b", GPT_OSS, 36, 2880, 2880, 64, 8, 64, 201088, 131072, 150000, false, 0, 128, 4},
};

static const struct weight_type weight_types[] = {
    {"q4_0", DT_Q4_0, DT_Q4_0, DT_Q4_0, 2},
    {"q8_0", DT_Q8_0, DT_Q8_0, DT_Q8_0, 7},
    {"q4_k", DT_Q4_K, DT_Q6_K, DT_Q4_K, 14},
    {"q5_k", DT_Q5_K, DT_Q6_K, DT_Q5_K, 16},
    {"q6_k", DT_Q6_K, DT_Q6_K, DT_Q6_K, 18},
    {"iq4_nl", DT_IQ4_NL, DT_IQ4_NL, DT_IQ4_NL, 25},
    {"iq4_xs", DT_IQ4_XS, DT_Q6_K, DT_IQ4_XS, 30},
    {"iq3_s", DT_IQ3_S, DT_Q6_K, DT_IQ3_S, 26},
    {"iq3_xxs", DT_IQ3_XXS, DT_Q5_K, DT_IQ3_XXS, 23},
    {"iq2_s", DT_IQ2_S, DT_Q5_K, DT_IQ2_S, 28},
    {"iq2_xs", DT_IQ2_XS, DT_Q5_K, DT_IQ2_XS, 20},
    {"iq2_xxs", DT_IQ2_XXS, DT_Q5_K, DT_IQ2_XXS, 19},
    {"iq1_m", DT_IQ1_M, DT_Q5_K, DT_IQ1_M, 31},
    {"iq1_s", DT_IQ1_S, DT_Q5_K, DT_IQ1_S, 24},
    {"tq1_0", DT_TQ1_0, DT_Q6_K, DT_TQ1_0, 36},
    {"tq2_0", DT_TQ2_0, DT_Q6_K, DT_TQ2_0, 37},
    {"mxfp4", DT_MXFP4, DT_Q8_0, DT_Q8_0, 38},
};

const struct shape *shape_of(const char *name)
{
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        if (strcmp(name, shapes[i].name) == 0)
            return &shapes[i];
    return NULL;
}

const struct weight_type *weight_type_of(const char *name)
{
    for (size_t i = 0; i < sizeof weight_types / sizeof weight_types[0]; i++)
        if (strcmp(name, weight_types[i].name) == 0)
            return &weight_types[i];
    return NULL;
}

const char *ffn_name(enum ffn f)
{
    static const char *const names[FFNS] = {"silu", "reglu", "drelu", "relu"};
    return names[f];
}
