/* All families, and which of them a file's is. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "model/family.h"
#include "model/gguf_parts.h"

static const struct family *const families[] = {
    &family_llama, &family_mistral3, &family_smollm3, &family_granite, &family_qwen2, &family_qwen3,
    &family_qwen2moe, &family_qwen3moe, &family_qwen3next, &family_qwen35, &family_qwen35moe, &family_gpt_oss,
    &family_glm4moe, &family_deepseek2, &family_smallthinker, &family_gemma2, &family_gemma3, &family_phi3,
    &family_olmo2, &family_bamboo, &family_falcon, &family_opt,
};

enum { FAMILIES = sizeof families / sizeof *families, NAME_SIZE = 24 };

static status refuse(const struct gguf *g, const struct gguf_string *name)
{
    char known[FAMILIES * NAME_SIZE] = "", found[64];
    for (int i = 0; i < FAMILIES; i++) {
        const size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", families[i]->name);
    }
    gguf_printable(name->at, name->n, found, sizeof found);
    log_error("%s: architecture: expected one of %s, found '%s'", gguf_path(g), known, found);
    return ST_UNSUPPORTED;
}

status family_of(const struct gguf *g, const struct family **out)
{
    struct gguf_string name;
    if (!gguf_get_string(g, "general.architecture", &name)) {
        log_error("%s: key general.architecture: expected a string, found %s", gguf_path(g),
                  gguf_has_key(g, "general.architecture") ? "another value" : "no such key");
        return ST_FORMAT;
    }
    for (int i = 0; i < FAMILIES; i++) {
        if (strlen(families[i]->name) == name.n && !memcmp(families[i]->name, name.at, name.n)) {
            *out = families[i];
            return ST_OK;
        }
    }
    return refuse(g, &name);
}
