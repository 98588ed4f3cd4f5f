/* What families' own keys say: which layers slide, how they turn, what is scaled; and each key wrong in one way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/log.h"
#include "model/hparams.h"
#include "tests/unit/gguf_writer.h"

static struct log_catcher caught;

enum { D = 64, HEADS = 4, HEAD = 16, LAYERS = 8, KEYS = 9 };

/* A value of a key, by the first letter of its name here. */
struct value {
    const char *key; /* after "ARCH." */
    enum { INTEGER, FLOAT, TEXT, TRUTH, TRUTHS } kind;
    double number;   /* TRUTHS: so many, every second of them true */
    const char *text;
};

struct recipe {
    const char *arch;
    struct value values[KEYS]; /* beside, or in place of, those that all need; the first without a key ends them */
};

static void put(struct gguf_writer *w, const char *arch, const struct value *v)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", arch, v->key);
    switch (v->kind) {
    case INTEGER: gguf_key_u32(w, key, (uint32_t)v->number); break;
    case FLOAT: gguf_key_f32(w, key, (float)v->number); break;
    case TEXT: gguf_key_string(w, key, v->text); break;
    case TRUTH: gguf_key_uint(w, key, GGUF_BOOL, v->number != 0); break;
    default:
        gguf_key_array(w, key, GGUF_BOOL, (uint64_t)v->number);
        for (int i = 0; i < (int)v->number; i++)
            gguf_put_uint(w, i % 2 == 0, 1);
    }
}

static bool has_own(const struct recipe *r, const char *key)
{
    for (int i = 0; i < KEYS && r->values[i].key; i++)
        if (!strcmp(r->values[i].key, key))
            return true;
    return false;
}

static status read_keys(const struct recipe *r, struct hparams *hp)
{
    static const struct value usual[] = {
        {"block_count", INTEGER, LAYERS, NULL},     {"embedding_length", INTEGER, D, NULL},
        {"feed_forward_length", INTEGER, 96, NULL}, {"context_length", INTEGER, 512, NULL},
        {"attention.head_count", INTEGER, HEADS, NULL}, {"attention.layer_norm_rms_epsilon", FLOAT, 1e-5, NULL},
    };
    struct gguf_writer w;
    struct gguf *g;
    gguf_writer_begin(&w, "GGUF", 3);
    gguf_key_string(&w, "general.architecture", r->arch);
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        if (!has_own(r, usual[i].key))
            put(&w, r->arch, &usual[i]);
    for (int i = 0; i < KEYS && r->values[i].key; i++)
        put(&w, r->arch, &r->values[i]);
    gguf_add_tensor(&w, "token_embd.weight", DT_F32, 2, (int64_t[]){D, 3}, NULL);
    gguf_writer_end(&w);
    log_catch(&caught);
    assert_int_equal(gguf_open_bytes(w.bytes, w.n, "tiny.gguf", &g), ST_OK);
    status s = hparams_read(g, hp);
    gguf_close(g);
    gguf_writer_free(&w);
    return s;
}

static struct hparams good(struct recipe r)
{
    struct hparams hp;
    if (read_keys(&r, &hp) != ST_OK)
        fail_msg("%s: %s", r.arch, caught.first_error);
    return hp;
}

static void refused(struct recipe r, status expected, const char *line)
{
    struct hparams hp;
    status s = read_keys(&r, &hp);
    if (s != expected || !strstr(caught.first_error, line))
        fail_msg("expected status %d and \"%s\", found %d and \"%s\"", expected, line, s, caught.first_error);
}

static void assert_layers(const struct hparams *hp, const char *slide, const char *turn)
{
    for (int i = 0; i < hp->n_layers; i++) {
        assert_int_equal(hp->layer[i].slides, slide[i] == 's');
        assert_int_equal(hp->layer[i].rope, turn[i] == '-' ? NO_ROPE : turn[i] - '0');
        assert_int_equal(model_window(hp, i), slide[i] == 's' ? hp->window : 0);
    }
}

#define WINDOW {"attention.sliding_window", INTEGER, 12, NULL}

static void which_layers_slide(void **state)
{
    (void)state;
    struct hparams hp = good((struct recipe){"gemma2", {WINDOW}});
    assert_layers(&hp, "s.s.s.s.", "10101010");
    assert_int_equal(hp.window, 12);
    hp = good((struct recipe){"gemma2", {{0}}});
    assert_int_equal(hp.window, 4096);
    hp = good((struct recipe){"gemma3", {WINDOW}});
    assert_layers(&hp, "sssss.ss", "11111011");
    hp = good((struct recipe){"gemma3", {WINDOW, {"attention.sliding_window_pattern", INTEGER, 3, NULL}}});
    assert_layers(&hp, "ss.ss.ss", "11011011");
    hp = good((struct recipe){"gemma3", {WINDOW, {"attention.sliding_window_pattern", TRUTHS, LAYERS, NULL}}});
    assert_layers(&hp, "s.s.s.s.", "10101010");
    hp = good((struct recipe){"gemma3", {{0}}});
    assert_layers(&hp, "........", "00000000");
    hp = good((struct recipe){"olmo2", {WINDOW}});
    assert_layers(&hp, "sss.sss.", "11101110");
    hp = good((struct recipe){"smollm3", {WINDOW}});
    assert_layers(&hp, "........", "000-000-");
    hp = good((struct recipe){"phi3", {WINDOW}});
    assert_layers(&hp, "........", "00000000");
    hp = good((struct recipe){"llama", {WINDOW}});
    assert_layers(&hp, "ssssssss", "00000000");
    hp = good((struct recipe){"granite", {{"logit_scale", FLOAT, 8, NULL},
                                          {"rope.scaling.finetuned", TRUTH, 0, NULL}}});
    assert_layers(&hp, "........", "--------");
    refused((struct recipe){"gemma3", {WINDOW, {"attention.sliding_window_pattern", TRUTHS, LAYERS - 1, NULL}}},
            ST_FORMAT, "key gemma3.attention.sliding_window_pattern: expected a number or 8 truths, found 7");
    refused((struct recipe){"gemma3", {WINDOW, {"attention.sliding_window_pattern", TEXT, 0, "all"}}}, ST_FORMAT,
            "key gemma3.attention.sliding_window_pattern: expected an integer, found another value");
    refused((struct recipe){"gemma2", {{"attention.sliding_window", FLOAT, 1, NULL}}}, ST_FORMAT,
            "key gemma2.attention.sliding_window");
}

#define YARN {"rope.scaling.type", TEXT, 0, "yarn"}, {"rope.scaling.factor", FLOAT, 8, NULL}

static void how_layers_turn(void **state)
{
    (void)state;
    struct hparams hp = good((struct recipe){"llama", {YARN, {"rope.scaling.attn_factor", FLOAT, 2, NULL}}});
    assert_true(hp.rope[0].yarn && hp.rope[0].scale == 0.125 && hp.rope[0].beta_fast == 32 &&
                hp.rope[0].beta_slow == 1);
    assert_float_equal(hp.rope[0].magnitude, 2 * (1 + 0.1 * log(8)), 1e-6);
    assert_int_equal(hp.rope_original, 512);
    assert_true(hp.rope[1].base == 0);
    /* Others ignore what Ministral reads. */
    const struct value own[] = {{"rope.scaling.yarn_beta_fast", FLOAT, 4, NULL},
                                {"rope.scaling.yarn_beta_slow", FLOAT, 0.5, NULL},
                                {"rope.scaling.yarn_log_multiplier", FLOAT, 1, NULL}};
    hp = good((struct recipe){"llama", {YARN, own[0], own[1], own[2]}});
    assert_true(hp.rope[0].beta_fast == 32 && hp.rope[0].beta_slow == 1);
    hp = good((struct recipe){"mistral3", {YARN, own[0], own[1], own[2],
                                           {"attention.temperature_scale", FLOAT, 0.5, NULL},
                                           {"rope.scaling.original_context_length", INTEGER, 16, NULL}}});
    assert_true(hp.rope[0].beta_fast == 4 && hp.rope[0].beta_slow == 0.5);
    assert_float_equal(hp.rope[0].magnitude, 1, 1e-9);
    assert_true(model_temper(&hp, 15) == 1);
    assert_float_equal(model_temper(&hp, 48), 1 + 0.5 * log(4), 1e-6);
    /* Gemma's layers that slide turn without the scaling, by a base of their own. */
    hp = good((struct recipe){"gemma3",
                              {WINDOW, {"rope.freq_base", FLOAT, 1e6, NULL}, {"rope.scaling.factor", FLOAT, 8, NULL}}});
    assert_true(hp.rope[0].base == 1e6 && hp.rope[0].scale == 0.125 && hp.rope[1].base == 1e4 && hp.rope[1].scale == 1);
    hp = good((struct recipe){"gemma3", {WINDOW, {"rope.freq_base_swa", FLOAT, 500, NULL}}});
    assert_true(hp.rope[1].base == 500);
    hp = good((struct recipe){"olmo2", {WINDOW, YARN}});
    assert_true(hp.rope[0].yarn && !hp.rope[1].yarn && hp.rope[1].scale == 1 && hp.rope[1].magnitude == 1);
    assert_true(hp.whole_norms && model_head_unit(&(struct model){.hp = hp}, 0) == hp.n_kv_heads);
    refused((struct recipe){"mistral3", {YARN, {"rope.scaling.yarn_beta_fast", FLOAT, 0, NULL}}}, ST_FORMAT,
            "key mistral3.rope.scaling.yarn_beta_fast: expected 1e-06 to 1e+06, found 0");
    refused((struct recipe){"llama", {{"rope.scaling.original_context_length", INTEGER, 0, NULL}}}, ST_FORMAT,
            "key llama.rope.scaling.original_context_length");
    refused((struct recipe){"gemma2", {{"rope.freq_base_swa", FLOAT, 0, NULL}}}, ST_FORMAT,
            "key gemma2.rope.freq_base_swa");
}

static void what_is_scaled(void **state)
{
    (void)state;
    struct hparams hp = good((struct recipe){"llama", {{0}}});
    assert_true(hp.attn_scale == 0.25f && hp.embedding_scale == 1 && hp.residual_scale == 1 && hp.logit_scale == 1);
    assert_true(hp.attn_softcap == 0 && hp.logit_softcap == 0 && hp.temper == 0 && model_temper(&hp, 1000) == 1);
    hp = good((struct recipe){"granite", {{"embedding_scale", FLOAT, 12, NULL}, {"residual_scale", FLOAT, 0.5, NULL},
                                          {"attention.scale", FLOAT, 0.125, NULL}, {"logit_scale", FLOAT, 8, NULL}}});
    assert_true(hp.attn_scale == 0.125f && hp.embedding_scale == 12 && hp.residual_scale == 0.5f &&
                hp.logit_scale == 0.125f);
    hp = good((struct recipe){"gemma2", {{0}}});
    assert_true(hp.embedding_scale == 8 && hp.attn_softcap == 50 && hp.logit_softcap == 30 &&
                hp.activation == ACT_GELU);
    hp = good((struct recipe){"gemma2", {{"block_count", INTEGER, 46, NULL},
                                         {"attention.head_count", INTEGER, 256, NULL},
                                         {"attention.key_length", INTEGER, HEAD, NULL}}});
    assert_true(hp.attn_scale == 2); /* more heads than values */
    hp = good((struct recipe){"gemma3", {{"final_logit_softcapping", FLOAT, 20, NULL}}});
    assert_true(hp.embedding_scale == 8 && hp.attn_softcap == 0 && hp.logit_softcap == 20);
    refused((struct recipe){"granite", {{0}}}, ST_FORMAT,
            "key granite.logit_scale: expected what logits are divided by, found no such key");
    refused((struct recipe){"granite", {{"logit_scale", FLOAT, 0, NULL}}}, ST_FORMAT, "1e-06 at least, found 0");
    refused((struct recipe){"granite", {{"logit_scale", FLOAT, -1e-40, NULL}}}, ST_FORMAT, "1e-06 at least, found -");
    refused((struct recipe){"granite", {{"logit_scale", FLOAT, 8, NULL}, {"residual_scale", FLOAT, NAN, NULL}}},
            ST_FORMAT, "key granite.residual_scale: expected -1e+06 to 1e+06, found nan");
    refused((struct recipe){"granite", {{"logit_scale", FLOAT, 8, NULL}, {"rope.scaling.finetuned", INTEGER, 0, NULL}}},
            ST_FORMAT, "key granite.rope.scaling.finetuned: expected true or false, found another value");
    refused((struct recipe){"gemma2", {{"attn_logit_softcapping", FLOAT, -1, NULL}}}, ST_FORMAT,
            "key gemma2.attn_logit_softcapping: expected 0 to 1e+06, found -1");
}

#define LATENT {"attention.kv_lora_rank", INTEGER, 32, NULL}, {"attention.key_length_mla", INTEGER, 24, NULL}, \
               {"attention.value_length_mla", INTEGER, 16, NULL}, {"rope.dimension_count", INTEGER, 8, NULL}

static void what_latent_heads_are(void **state)
{
    (void)state;
    struct hparams hp = good((struct recipe){"deepseek2", {LATENT, {"attention.q_lora_rank", INTEGER, 48, NULL}}});
    assert_true(hp.latent.rank == 32 && hp.latent.q_rank == 48 && hp.head_dim == 24 && hp.value_dim == 16 &&
                hp.n_rot == 8);
    assert_int_equal(hp.n_kv_heads, HEADS);
    assert_float_equal(hp.attn_scale, 1 / sqrt(24), 1e-6);
    hp = good((struct recipe){"deepseek2", {LATENT, YARN, {"rope.scaling.yarn_log_multiplier", FLOAT, 0.1, NULL}}});
    const double m = 1 + 0.1 * log(8);
    assert_float_equal(hp.attn_scale, m * m / sqrt(24), 1e-6);
    assert_float_equal(hp.rope[0].magnitude, 1, 1e-6);
    hp = good((struct recipe){"deepseek2", {LATENT, YARN}});
    assert_float_equal(hp.attn_scale, m * m / sqrt(24), 1e-6);
    assert_float_equal(hp.rope[0].magnitude, m, 1e-6);
    refused((struct recipe){"deepseek2", {{0}}}, ST_FORMAT,
            "key deepseek2.attention.kv_lora_rank: expected an integer");
    refused((struct recipe){"deepseek2", {{"attention.kv_lora_rank", INTEGER, 8, NULL},
                                          {"attention.key_length_mla", INTEGER, 24, NULL},
                                          {"attention.value_length_mla", INTEGER, 16, NULL}}}, ST_UNSUPPORTED,
            "key deepseek2.attention.kv_lora_rank: expected a multiple of 16");
    refused((struct recipe){"deepseek2", {{"attention.kv_lora_rank", INTEGER, 32, NULL},
                                          {"attention.key_length", INTEGER, 24, NULL},
                                          {"attention.value_length", INTEGER, 16, NULL}}}, ST_UNSUPPORTED,
            "key deepseek2.rope.dimension_count: expected less than the key's 24, found 24");
}

#define NET {"ssm.group_count", INTEGER, 2, NULL}, {"ssm.time_step_rank", INTEGER, 6, NULL}, \
            {"ssm.state_size", INTEGER, 32, NULL}, {"ssm.conv_kernel", INTEGER, 4, NULL}
#define INNER {"ssm.inner_size", INTEGER, 192, NULL}

static void assert_kinds(const struct hparams *hp, const char *kinds)
{
    for (int i = 0; i < hp->n_layers; i++)
        assert_int_equal(hp->layer[i].kind, kinds[i] == 'n' ? LAYER_DELTA : LAYER_ATTENTION);
}

static void which_layers_are_delta_nets(void **state)
{
    (void)state;
    struct hparams hp = good((struct recipe){"qwen35", {NET, INNER}});
    assert_kinds(&hp, "nnn.nnn.");
    assert_int_equal(model_n_nets(&hp), 6);
    assert_true(hp.delta.key_heads == 2 && hp.delta.value_heads == 6 && hp.delta.size == 32 && hp.delta.taps == 4);
    assert_true(hp.delta.in_turn && hp.gated);
    assert_int_equal(model_heads(&hp, 0), 2);
    assert_int_equal(model_heads(&hp, 3), HEADS);
    assert_int_equal(model_head_columns(&hp, 0), 32);
    assert_int_equal(model_head_columns(&hp, 3), HEAD);
    assert_int_equal(model_state_bytes(&hp), 4 * (6 * 32 * 32 + 3 * (2 + 2 + 6) * 32));
    hp.delta.in_turn = false;
    assert_int_equal(model_head_columns(&hp, 0), 3 * 32);
    hp = good((struct recipe){"qwen35", {NET, INNER, {"full_attention_interval", INTEGER, 3, NULL}}});
    assert_kinds(&hp, "nn.nn.nn");
    hp = good((struct recipe){"qwen35", {NET, INNER, {"attention.recurrent_layers", TRUTHS, LAYERS, NULL}}});
    assert_kinds(&hp, "n.n.n.n.");
    refused((struct recipe){"qwen35", {NET, INNER, {"attention.recurrent_layers", TRUTHS, LAYERS - 1, NULL}}},
            ST_FORMAT, "key qwen35.attention.recurrent_layers: expected 8 truths, found 7");
    refused((struct recipe){"qwen35", {NET, INNER, {"full_attention_interval", INTEGER, 0, NULL}}}, ST_FORMAT,
            "key qwen35.full_attention_interval: expected 1 to 1024, found 0");
    refused((struct recipe){"qwen35", {NET}}, ST_FORMAT, "key qwen35.ssm.inner_size");
    refused((struct recipe){"qwen35", {NET, {"ssm.inner_size", INTEGER, 191, NULL}}}, ST_FORMAT,
            "key qwen35.ssm.inner_size: expected 6 heads of 32 values, found 191");
    refused((struct recipe){"qwen35", {{"ssm.group_count", INTEGER, 4, NULL}, {"ssm.time_step_rank", INTEGER, 6, NULL},
                                       {"ssm.state_size", INTEGER, 32, NULL}, {"ssm.conv_kernel", INTEGER, 4, NULL},
                                       INNER}},
            ST_FORMAT, "key qwen35.ssm.time_step_rank: expected a multiple of the 4 key heads, found 6");
    refused((struct recipe){"qwen35", {{"ssm.group_count", INTEGER, 2, NULL}, {"ssm.time_step_rank", INTEGER, 6, NULL},
                                       {"ssm.state_size", INTEGER, 24, NULL}, {"ssm.conv_kernel", INTEGER, 4, NULL},
                                       {"ssm.inner_size", INTEGER, 144, NULL}}},
            ST_UNSUPPORTED, "key qwen35.ssm.state_size: expected a multiple of 16, found 24");
    refused((struct recipe){"qwen35", {{"ssm.group_count", INTEGER, 2, NULL}, {"ssm.time_step_rank", INTEGER, 6, NULL},
                                       {"ssm.state_size", INTEGER, 32, NULL}, {"ssm.conv_kernel", INTEGER, 9, NULL},
                                       INNER}},
            ST_FORMAT, "key qwen35.ssm.conv_kernel: expected 2 to 8, found 9");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(which_layers_slide),
        cmocka_unit_test(how_layers_turn),
        cmocka_unit_test(what_is_scaled),
        cmocka_unit_test(what_latent_heads_are),
        cmocka_unit_test(which_layers_are_delta_nets),
    };
    return cmocka_run_group_tests_name("family_keys", tests, NULL, NULL);
}
