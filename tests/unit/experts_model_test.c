/* Models with experts whose files say what cannot be, or what hearth does not have: one line each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"
#include "model/model.h"
#include "tests/unit/gguf_writer.h"

enum { LAYERS = 2, D = 64, WIDTH = 96, EXPERTS = 6, VOCAB = 8 };

struct recipe {
    const char *arch;                /* NULL: as `each` has it */
    const char *key;                 /* has this value instead of the usual one, or none (LEFT_OUT) */
    uint32_t value;
    bool by_layer;                   /* the key is an array: value, value + 1 */
    const char *tensor;              /* of layer 1 is another: */
    uint32_t type;                   /* of this type, or left out (LEFT_OUT) */
    bool each;                       /* every expert has tensors of its own */
    const char *further;             /* a block behind the layers predicts further tokens, and there is this tensor */
};

enum { LEFT_OUT = 1000 };

static struct gguf_writer file;
static struct log_catcher caught;

static void put_key(const struct recipe *r, const char *arch, const char *name, uint32_t value)
{
    char key[96];
    const bool other = r->key && !strcmp(name, r->key);
    snprintf(key, sizeof key, "%s.%s", arch, name);
    if (other && r->by_layer) {
        gguf_key_array(&file, key, GGUF_U32, LAYERS);
        for (uint32_t i = 0; i < LAYERS; i++)
            gguf_put_uint(&file, r->value + i, 4);
    } else if (!other || r->value != LEFT_OUT) {
        gguf_key_u32(&file, key, other ? r->value : value);
    }
}

static void put_tensor(const struct recipe *r, int layer, const char *name, uint32_t type, int64_t cols, int64_t rows,
                       int64_t slabs)
{
    char full[96];
    const int64_t dims[] = {cols, rows, slabs};
    const bool other = layer == 1 && r->tensor && !strcmp(name, r->tensor);
    snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    if (!other || r->type != LEFT_OUT)
        gguf_add_tensor(&file, full, other ? r->type : type, slabs ? 3 : rows ? 2 : 1, dims, NULL);
}

static void put_attention(const struct recipe *r, int layer)
{
    put_tensor(r, layer, "attn_norm.weight", DT_F32, D, 0, 0);
    put_tensor(r, layer, r->each ? "ffn_norm.weight" : "post_attention_norm.weight", DT_F32, D, 0, 0);
    static const char *const names[] = {"attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        put_tensor(r, layer, names[i], DT_F16, D, D, 0);
}

static void put_experts(const struct recipe *r, int layer)
{
    char name[64];
    put_tensor(r, layer, "ffn_gate_inp.weight", DT_F32, D, EXPERTS, 0);
    for (int i = 0; r->each && i < EXPERTS; i++) {
        static const char *const what[] = {"gate", "up", "down"};
        for (int k = 0; k < 3; k++) {
            snprintf(name, sizeof name, "ffn_%s.%d.weight", what[k], i);
            put_tensor(r, layer, name, DT_Q8_0, k < 2 ? D : WIDTH, k < 2 ? WIDTH : D, 0);
        }
    }
    if (r->each)
        return;
    put_tensor(r, layer, "exp_probs_b.bias", DT_F32, EXPERTS, 0, 0);
    put_tensor(r, layer, "ffn_gate_exps.weight", DT_Q8_0, D, WIDTH, EXPERTS);
    put_tensor(r, layer, "ffn_up_exps.weight", DT_Q8_0, D, WIDTH, EXPERTS);
    put_tensor(r, layer, "ffn_down_exps.weight", DT_Q8_0, WIDTH, D, EXPERTS);
    put_tensor(r, layer, "ffn_gate_shexp.weight", DT_F16, D, 2 * WIDTH, 0);
    put_tensor(r, layer, "ffn_up_shexp.weight", DT_F16, D, 2 * WIDTH, 0);
    put_tensor(r, layer, "ffn_down_shexp.weight", DT_F16, 2 * WIDTH, D, 0);
}

static void put_dense(const struct recipe *r, int layer)
{
    put_tensor(r, layer, "ffn_gate.weight", DT_F16, D, 5 * WIDTH, 0);
    put_tensor(r, layer, "ffn_up.weight", DT_F16, D, 5 * WIDTH, 0);
    put_tensor(r, layer, "ffn_down.weight", DT_F16, 5 * WIDTH, D, 0);
}

/* llama with a tensor for each expert, or glm4moe, whose first layer is dense. */
static status load(const struct recipe *r, struct model **m)
{
    const char *arch = r->arch ? r->arch : r->each ? "llama" : "glm4moe";
    const struct { const char *name; uint32_t value; } keys[] = {
        {"block_count", LAYERS + (r->further != NULL)}, {"embedding_length", D},
        {"feed_forward_length", r->each ? WIDTH : 5 * WIDTH},
        {"context_length", 512}, {"attention.head_count", 4}, {"expert_count", EXPERTS}, {"expert_used_count", 2},
        {"expert_feed_forward_length", WIDTH}, {"expert_shared_count", 2}, {"leading_dense_block_count", 1},
        {"expert_group_count", 3}, {"expert_group_used_count", 2}, {"expert_gating_func", 2}};
    char key[96];
    struct gguf *g;
    gguf_writer_begin(&file, "GGUF", 3);
    gguf_key_string(&file, "general.architecture", arch);
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    gguf_key_f32(&file, key, 1e-5f);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!r->each || i < 7)
            put_key(r, arch, keys[i].name, keys[i].value);
    if (r->further) {
        put_key(r, arch, "nextn_predict_layers", 1);
        gguf_add_tensor(&file, r->further, DT_F32, 1, (int64_t[]){D}, NULL);
    }
    gguf_add_tensor(&file, "token_embd.weight", DT_Q8_0, 2, (int64_t[]){D, VOCAB}, NULL);
    gguf_add_tensor(&file, "output_norm.weight", DT_F32, 1, (int64_t[]){D}, NULL);
    for (int i = 0; i < LAYERS; i++) {
        put_attention(r, i);
        (r->each || i > 0 ? put_experts : put_dense)(r, i);
    }
    gguf_writer_end(&file);
    log_catch(&caught);
    assert_int_equal(gguf_open_bytes(file.bytes, file.n, "tiny.gguf", &g), ST_OK);
    status st = model_from_gguf(g, m);
    log_catch(NULL);
    return st;
}

static void assert_refused(status expected, const char *says, const struct recipe *r)
{
    struct model *m;
    status st = load(r, &m);
    if (st != expected || !strstr(caught.first_error, says))
        fail_msg("expected '%s', got %s: '%s'", says, status_name(st), caught.first_error);
    gguf_writer_free(&file);
}

#define REFUSED(st, says, ...) assert_refused(st, says, &(struct recipe){__VA_ARGS__})

static void test_bundles(void **state)
{
    (void)state;
    struct model *m;
    assert_int_equal(load(&(struct recipe){0}, &m), ST_OK);
    assert_int_equal(m->hp.d_ff, (EXPERTS + 2) * WIDTH);
    assert_int_equal(model_layer_neurons(m, 0), 5 * WIDTH);
    assert_int_equal(model_layer_neurons(m, 1), (EXPERTS + 2) * WIDTH);
    assert_true(!model_has_experts(m, 0) && model_has_experts(m, 1));
    assert_int_equal(m->layers[1].n_bundles, EXPERTS + 1);
    for (int i = 0; i <= EXPERTS; i++) {
        const struct bundle *b = &m->layers[1].bundles[i];
        assert_true(b->first == i * WIDTH && b->n == (i < EXPERTS ? WIDTH : 2 * WIDTH) && b->routed == (i < EXPERTS));
        assert_true(b->gate.rows == b->n && b->up.rows == b->n && b->down.rows == D && b->down.cols == b->n);
    }
    const struct bundle *b = m->layers[1].bundles; /* experts follow each other */
    assert_ptr_equal(b[1].gate.data, b[0].gate.data + WIDTH * dtype_row_bytes(DT_Q8_0, D));
    assert_ptr_equal(b[5].down.data, b[0].down.data + 5 * D * dtype_row_bytes(DT_Q8_0, WIDTH));
    model_free(m);
    gguf_writer_free(&file);
    assert_int_equal(load(&(struct recipe){.each = true}, &m), ST_OK);
    assert_int_equal(m->layers[0].n_bundles, EXPERTS);
    assert_string_equal(m->layers[1].bundles[4].down.name, "blk.1.ffn_down.4.weight");
    model_free(m);
    gguf_writer_free(&file);
}

static void test_wrong_keys(void **state)
{
    (void)state;
    REFUSED(ST_FORMAT, "key glm4moe.expert_count: expected 1 to 4096, found 0", .key = "expert_count", .value = 0);
    REFUSED(ST_FORMAT, "key glm4moe.expert_count: expected an integer, found no such key", .key = "expert_count",
            .value = LEFT_OUT);
    REFUSED(ST_FORMAT, "key glm4moe.expert_count: expected 1 to 4096, found 4097", .key = "expert_count",
            .value = 4097);
    REFUSED(ST_UNSUPPORTED, "key glm4moe.expert_count: expected several experts, found 1", .key = "expert_count",
            .value = 1);
    REFUSED(ST_UNSUPPORTED, "key glm4moe.expert_count: expected the same value for every layer, found 6 and 7",
            .key = "expert_count", .value = 6, .by_layer = true);
    REFUSED(ST_FORMAT, "key glm4moe.expert_used_count: expected 1 to 6, found 0", .key = "expert_used_count",
            .value = 0);
    REFUSED(ST_FORMAT, "key glm4moe.expert_used_count: expected 1 to 6, found 7", .key = "expert_used_count",
            .value = 7);
    REFUSED(ST_UNSUPPORTED, "key glm4moe.expert_used_count: expected the same value for every layer, found 1 and 2",
            .key = "expert_used_count", .value = 1, .by_layer = true);
    REFUSED(ST_FORMAT, "key glm4moe.expert_feed_forward_length: expected 1 to 4194304, found 0",
            .key = "expert_feed_forward_length", .value = 0);
    REFUSED(ST_UNSUPPORTED, "key glm4moe.expert_feed_forward_length: expected the same value for every layer, found 96 "
            "and 97", .key = "expert_feed_forward_length", .value = 96, .by_layer = true);
    REFUSED(ST_FORMAT, "key glm4moe.leading_dense_block_count: expected 0 to 1, found 2",
            .key = "leading_dense_block_count", .value = 2);
    REFUSED(ST_FORMAT, "key glm4moe.expert_group_count: expected groups of at least 2 of the 6 experts, found 4",
            .key = "expert_group_count", .value = 4);
    REFUSED(ST_FORMAT, "key glm4moe.expert_group_count: expected groups of at least 2 of the 6 experts, found 6",
            .key = "expert_group_count", .value = 6);
    REFUSED(ST_FORMAT, "key glm4moe.expert_group_used_count: expected 0 to 3, found 4",
            .key = "expert_group_used_count", .value = 4);
    REFUSED(ST_FORMAT, "key glm4moe.expert_group_used_count: expected groups with 5 experts or more, found 2 of 2",
            .key = "expert_used_count", .value = 5);
    REFUSED(ST_UNSUPPORTED, "key glm4moe.expert_gating_func: expected 1 (softmax), 2 (sigmoid) or 3 (softmax over the "
            "chosen), found 4", .key = "expert_gating_func", .value = 4);
    REFUSED(ST_UNSUPPORTED, "key qwen2.expert_count: expected a model without experts (MoE), found 6", .arch = "qwen2");
}

static void test_wrong_tensors(void **state)
{
    (void)state;
    REFUSED(ST_FORMAT, "tensor blk.1.ffn_gate_inp.weight: expected [64, 6], found no such tensor",
            .tensor = "ffn_gate_inp.weight", .type = LEFT_OUT);
    REFUSED(ST_UNSUPPORTED, "tensor blk.1.ffn_gate_inp.weight: expected F32, F16 or BF16, found type Q8_0",
            .tensor = "ffn_gate_inp.weight", .type = DT_Q8_0);
    REFUSED(ST_FORMAT, "tensor blk.1.exp_probs_b.bias: expected [6], found no such tensor",
            .tensor = "exp_probs_b.bias", .type = LEFT_OUT);
    REFUSED(ST_FORMAT, "tensor blk.1.ffn_up_exps.weight: expected [64, 96, 6], found no such tensor",
            .tensor = "ffn_up_exps.weight", .type = LEFT_OUT);
    REFUSED(ST_FORMAT, "tensor blk.1.ffn_down_shexp.weight: expected [192, 64], found no such tensor",
            .tensor = "ffn_down_shexp.weight", .type = LEFT_OUT);
    REFUSED(ST_FORMAT, "tensor blk.1.ffn_gate_exps.weight: expected [64, 80, 6], found [64, 96, 6]",
            .key = "expert_feed_forward_length", .value = 80);
    REFUSED(ST_FORMAT, "tensor blk.1.ffn_up.5.weight: expected [64, 96], found no such tensor", .each = true,
            .tensor = "ffn_up.5.weight", .type = LEFT_OUT);
    REFUSED(ST_UNSUPPORTED,
            "tensor blk.1.ffn_down.3.weight: expected type Q8_0 as of the layer's other experts, found F16",
            .each = true, .tensor = "ffn_down.3.weight", .type = DT_F16);
}

/* The tensors of blocks behind the layers are passed over, and no others, whatever their names look like. */
static void test_predictors(void **state)
{
    (void)state;
    struct model *m;
    assert_int_equal(load(&(struct recipe){.further = "blk.2.nextn.enorm.weight"}, &m), ST_OK);
    assert_int_equal(m->hp.n_layers, LAYERS);
    model_free(m);
    gguf_writer_free(&file);
    static const char *const names[] = {"blk.3.enorm.weight", "blk.1.enorm.weight", "blk.+2.enorm.weight",
                                        "blk. 2.enorm.weight", "blk.2enorm.weight", "blk.4294967298.enorm.weight"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        REFUSED(ST_UNSUPPORTED, "expected only tensors of a glm4moe model of 2 layers", .further = names[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bundles),
        cmocka_unit_test(test_wrong_keys),
        cmocka_unit_test(test_wrong_tensors),
        cmocka_unit_test(test_predictors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
