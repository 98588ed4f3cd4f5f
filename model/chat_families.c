/* The families of chat templates, and which templates are theirs. */
#include "model/chat_family.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#define IM(role) {"<|im_start|>" role "\n", "<|im_end|>\n"}
#define CHATML .system = IM("system"), .user = IM("user"), .assistant = IM("assistant"), \
    .reply = "<|im_start|>assistant\n"
#define HEADER(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"
#define LLAMA3(role) {HEADER(role), "<|eot_id|>"}
#define LLAMA3_ROLES .system = LLAMA3("system"), .user = LLAMA3("user"), .assistant = LLAMA3("assistant"), \
    .reply = HEADER("assistant"), .trim = TRIM_CONTENTS, .begins = true
#define TAG(role, end) {"<|" role "|>\n", end "\n"}
#define TAGGED(end) .system = TAG("system", end), .user = TAG("user", end), .assistant = TAG("assistant", end), \
    .reply = "<|assistant|>\n"
#define MISTRAL .begins = true, .place = SYSTEM_INSIDE, .system = {"", "\n\n"}

static const struct chat_family families[] = {
    {"chatml", CHATML},
    {"smollm2", CHATML, .default_system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"},
    {"qwen2.5", CHATML, .default_system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
    {"qwen2", CHATML, .default_system = "You are a helpful assistant."},
    {"llama2", .begins = true, .place = SYSTEM_INSIDE, .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
     .user = {"[INST] ", " [/INST]"}, .assistant = {" ", " " EOS}, .turn = BOS, .trim = TRIM_TURNS},
    {"llama3", LLAMA3_ROLES},
    {"llama3.1", LLAMA3_ROLES, .default_system = "",
     .system_prefix = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"},
    {"mistral", MISTRAL, .user = {"[INST] ", " [/INST]"}, .assistant = {"", EOS}},
    {"mistral-v1", MISTRAL, .user = {" [INST] ", " [/INST]"}, .assistant = {" ", EOS}},
    {"mistral-v3", MISTRAL, .user = {"[INST] ", "[/INST]"}, .assistant = {" ", EOS}, .trim = TRIM_REPLIES},
    {"mistral-v3-tekken", MISTRAL, .user = {"[INST]", "[/INST]"}, .assistant = {"", EOS}},
    {"mistral-v7", .begins = true, .system = {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"}, .user = {"[INST] ", "[/INST]"},
     .assistant = {" ", EOS}},
    {"mistral-v7-tekken", .begins = true, .system = {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"},
     .user = {"[INST]", "[/INST]"}, .assistant = {"", EOS}},
    {"zephyr", TAGGED(EOS)},
    {"phi3", TAGGED("<|end|>")},
    {"gemma", .begins = true, .place = SYSTEM_INSIDE, .system = {"", "\n\n"},
     .user = {"<start_of_turn>user\n", "<end_of_turn>\n"}, .assistant = {"<start_of_turn>model\n", "<end_of_turn>\n"},
     .reply = "<start_of_turn>model\n", .trim = TRIM_CONTENTS},
    {"vicuna", .system = {"", " "}, .user = {"USER: ", " "}, .assistant = {"ASSISTANT: ", EOS},
     .reply = "ASSISTANT:",
     .default_system = "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
                       "helpful, detailed, and polite answers to the user's questions."},
    {"vicuna-lines", .system = {"", "\n\n"}, .user = {"USER: ", "\n"}, .assistant = {"ASSISTANT: ", "</s>\n"},
     .reply = "ASSISTANT:"},
};


enum { N_FAMILIES = sizeof families / sizeof *families };

const struct chat_family *chat_family_find(const char *name)
{
    for (int i = 0; i < N_FAMILIES; i++)
        if (!strcmp(families[i].name, name))
            return &families[i];
    return NULL;
}

void chat_family_names(char *out, size_t n)
{
    size_t at = 0;
    for (int i = 0; i < N_FAMILIES && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, "%s%s", i ? ", " : "", families[i].name);
}

/* Templates that are known by their text: their families write what Jinja makes of them, character for character
 * (tests/unit/jinja_test.c). One that differs in a character may mean something else. */
static const struct known {
    uint64_t hash; /* XXH3 of the text without the line end at its end */
    const char *family;
    bool no_system; /* but not what begins with a system message */
} known[] = {
    {0x4c6e807ee5fe9f4a, "chatml", false},           /* OpenHermes 2.5 and many others */
    {0x6260d1fdadc84078, "chatml", false},           /* Qwen3-Coder */
    {0x8a47f0d72cc56d1d, "chatml", true},            /* LFM2 */
    {0x778e09617c92b4b1, "chatml", true},            /* LFM2.5 */
    {0x99ab995e9629dacd, "smollm2", false},          /* SmolLM2 */
    {0xc79034a9d5f0ae58, "qwen2", false},            /* Qwen2 */
    {0x2469c9508f79506e, "qwen2.5", false},          /* Qwen2.5 */
    {0x866fc8fa50da12fe, "llama3", false},           /* Llama 3 */
    {0x6ca7779b7730196a, "llama3.1", false},         /* Llama 3.1, 3.3 */
    {0xa5d004210ebce758, "mistral", true},           /* Mistral 7B v0.1, v0.2 */
    {0xf89cfc57f651ff3d, "mistral-v1", false},       /* Mistral 7B v0.2, with system messages */
    {0xc6614466504d495b, "mistral-v3", true},        /* Mistral Large 2407 */
    {0xcae647ce0048756b, "mistral-v3-tekken", true}, /* Mistral Nemo */
    {0x11381d1c62000f60, "mistral-v7", false},       /* Mistral Large 2411 */
    {0x1db34e9fc60441d8, "zephyr", false},           /* Zephyr */
    {0x551cbfd01fcc4680, "phi3", true},              /* Phi 3 mini */
    {0x874eeb59684ce46e, "phi3", true},              /* Phi 3 medium */
    {0xa7a03066f0ed13e9, "phi3", false},             /* Phi 3 vision */
    {0x2c2e86beabccd2a4, "gemma", true},             /* Gemma 2 */
    {0xed0bf16fe1aa8d94, "gemma", true},             /* Gemma */
};

const struct chat_family *chat_family_of(struct gguf_string template, bool *no_system)
{
    const size_t n = template.n - (template.n && template.at[template.n - 1] == '\n'); /* Jinja leaves it out */
    const uint64_t hash = XXH3_64bits(template.at, n);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].hash == hash) {
            *no_system = known[i].no_system;
            return chat_family_find(known[i].family);
        }
    return NULL;
}
