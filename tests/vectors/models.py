"""What the models are that make_models.py writes: BASE, and of each what differs from it."""
import numpy as np
from gguf import GGMLQuantizationType as T

from make_tiny import llama3_factors

BASE = dict(
    arch="llama", vocab="qwen2", n_vocab=284, type=T.F16, layers=2, tied=True, embed_gain=3.0, eps=1e-5, base=10000.0,
    d=32, ff=160, heads=4, kv=2, head_dim=16, n_rot=None,
    keys={},     # others, without the architecture's name; they come last, None takes one away
    tensors={},  # that belong to no layer, with their values
    norms=["attn_norm", "ffn_norm"],  # of a layer
    attention="attention",            # the writer's function
    fused_qkv=False, qkv_bias=0.0, o_bias=0.0, qk_norm=None, sinks=False,  # biases: their deviation
    fused_up=False, ffn_bias=0.0,
    # latent attention: values of a head's query that are not turned, of what a head reads, and what is kept of a token;
    # form_kv: apart, or both in one tensor
    plain=16, values=16, rank=32, q_rank=0, form_kv="apart",
    # gated delta nets: heads of keys and of values, values of a head
    key_heads=2, value_heads=4, state=16,
    # experts: how many, 0 for none; used: how many a token chooses; ff_exp: their width, if not ff; form of their
    # tensors: 3d, each (a tensor each) or gate_up (gates and ups in one); leading: layers without experts
    # expert_gain: of gates and ups
    experts=0, used=2, ff_exp=0, form="3d", expert_gain=1, expert_type=None, expert_bias=0.0, router_gain=3.0,
    router_bias=0.0, selection_bias=0.0, shared=0, shared_gate=False, leading=0,
    predictors=0,  # blocks behind the layers that predict a token further, which nothing here runs
    # also: run, the activations to run it with; weights_of, the model that has the same weights in another form;
    # checked_with, checked_as: see check_models.py
)

YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 8.0, "rope.scaling.original_context_length": 48}
MIXTRAL = dict(vocab="spm", experts=4, ff=160, base=1e6)
GPT_OSS = dict(
    arch="gpt-oss", d=96, heads=4, kv=2, head_dim=32, base=500.0, tied=False, qkv_bias=0.5, o_bias=0.3, sinks=True,
    norms=["attn_norm", "post_attention_norm"], experts=3, ff=160, ff_exp=160, expert_bias=0.5, expert_gain=3,
    router_bias=0.5,
    keys={**YARN, "attention.sliding_window": 12})
GLM4 = dict(
    arch="glm4moe", n_rot=8, qkv_bias=0.5, norms=["attn_norm", "post_attention_norm"], experts=6, ff=160, ff_exp=48,
    leading=1, selection_bias=0.3, shared=48,
    keys={"expert_shared_count": 1, "leading_dense_block_count": 1, "expert_weights_norm": True,
          "expert_weights_scale": 2.5, "expert_gating_func": 2})
MLA_KEYS = {"attention.head_count_kv": 1, "attention.key_length": 48, "attention.value_length": 32,
            "attention.key_length_mla": 32, "attention.value_length_mla": 16, "attention.kv_lora_rank": 32}
DEEPSEEK = dict(
    arch="deepseek2", attention="latent_attention", base=500.0, n_rot=16, kv=1, experts=8, ff=160, ff_exp=32, leading=1,
    shared=64)
DEEPSEEK_KEYS = {**MLA_KEYS, **YARN, "expert_shared_count": 2, "leading_dense_block_count": 1}
DELTA = dict(attention="delta_net", eps=1e-6, base=500.0, n_rot=8, norms=["attn_norm", "post_attention_norm"])
DELTA_KEYS = {"ssm.conv_kernel": 4, "ssm.inner_size": 64, "ssm.state_size": 16, "ssm.time_step_rank": 4,
              "ssm.group_count": 2, "full_attention_interval": 2}
DELTA_MOE = dict(**DELTA, experts=5, ff=64, ff_exp=48, shared=160, shared_gate=True)
OLMO = dict(arch="olmo2", head_dim=8, tied=False, norms=["post_attention_norm", "post_ffw_norm"], qk_norm="whole")
GEMMA_NORMS = ["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"]

MODELS = {
    "qwen3moe": dict(arch="qwen3moe", eps=1e-6, base=1e6, qk_norm="head", experts=5, ff=64, ff_exp=160),
    "qwen3moe-q4_0": dict(arch="qwen3moe", type=T.Q4_0, eps=1e-6, base=1e6, qk_norm="head", head_dim=32, experts=5,
                          ff=64, ff_exp=160),
    "llama-moe": dict(**MIXTRAL, run=[None, "drelu"]),
    "llama-moe-each": dict(**MIXTRAL, form="each", weights_of="llama-moe", checked_as=dict(form="3d")),
    "llama-moe-gate-up": dict(**MIXTRAL, form="gate_up", weights_of="llama-moe", checked_as=dict(form="3d")),
    "llama-biases": dict(vocab="spm", fused_qkv=True, qkv_bias=0.5, o_bias=0.3, ffn_bias=0.3, tied=False),
    "gpt-oss": dict(**GPT_OSS, type=T.Q8_0, expert_type=T.MXFP4),
    "gpt-oss-f16": dict(**{**GPT_OSS, "layers": 3, "d": 32, "ff_exp": 48,
                           "keys": {**GPT_OSS["keys"], "attention.sliding_window_pattern": 3}}),
    "qwen2moe": dict(arch="qwen2moe", d=64, tied=False, qkv_bias=0.5, experts=4, ff=64, ff_exp=48, shared=160,
                     shared_gate=True, keys={"expert_shared_feed_forward_length": 160}),
    "glm4moe": dict(**GLM4, predictors=1),
    "glm4moe-norms": dict(**{**GLM4, "keys": {**GLM4["keys"], "expert_weights_scale": 1.0, "block_count": 3,
                                              "nextn_predict_layers": 1}}, qk_norm="head"),
    "deepseek2": dict(
        **DEEPSEEK, layers=3, q_rank=32, selection_bias=0.3, used=3,
        keys={**DEEPSEEK_KEYS, "attention.q_lora_rank": 32, "rope.scaling.yarn_log_multiplier": 0.1,
              "expert_group_count": 4, "expert_group_used_count": 2, "expert_gating_func": 2,
              "expert_weights_norm": True, "expert_weights_scale": 2.5}),
    "deepseek2-lite": dict(**DEEPSEEK, keys={**DEEPSEEK_KEYS, "rope.scaling.yarn_log_multiplier": 0.0707},
                           checked_with=dict(layers=27)),
    "deepseek2-kv-b": dict(
        **DEEPSEEK, q_rank=32, form_kv="both",
        keys={**DEEPSEEK_KEYS, "attention.q_lora_rank": 32, "attention.head_count_kv": 4, "attention.key_length": 32,
              "attention.value_length": 16, "attention.key_length_mla": None, "attention.value_length_mla": None}),
    "deepseek2-q8_0": dict(
        **DEEPSEEK, type=T.Q8_0, q_rank=32, plain=32, values=32,
        keys={**DEEPSEEK_KEYS, "attention.q_lora_rank": 32, "rope.scaling.yarn_log_multiplier": 0.1,
              "attention.key_length_mla": 48, "attention.value_length_mla": 32}),
    "smallthinker": dict(arch="smallthinker", experts=5, ff=160, ff_exp=160,
                         keys={"expert_gating_func": 2, "attention.sliding_window": 4096}),
    "smallthinker-rope": dict(arch="smallthinker", experts=5, ff=48, ff_exp=48, keys={"expert_gating_func": 1}),
    "gemma2": dict(arch="gemma2", vocab="spm", norms=GEMMA_NORMS, embed_gain=2.0,
                   keys={"attention.sliding_window": 12, "attn_logit_softcapping": 5.0,
                         "final_logit_softcapping": 8.0}),
    "gemma3": dict(arch="gemma3", vocab="spm", norms=GEMMA_NORMS, embed_gain=2.0, layers=6, ff=48, base=500.0,
                   qk_norm="head",
                   keys={"attention.sliding_window": 12, "rope.freq_base_swa": 100.0, "rope.scaling.type": "linear",
                         "rope.scaling.factor": 8.0}),
    "phi3": dict(arch="phi3", vocab="spm", d=64, fused_qkv=True, fused_up=True, tied=False, kv=2,
                 tensors={"rope_factors_long.weight": np.linspace(1.5, 8, 8),
                          "rope_factors_short.weight": np.linspace(1, 2, 8)},
                 keys={"rope.scaling.original_context_length": 32, "rope.scaling.attn_factor": 1.19,
                       "attention.sliding_window": 12}),
    "phi3-short": dict(arch="phi3", vocab="spm", d=64, fused_qkv=True, fused_up=True, kv=2,
                       tensors={"rope_factors_long.weight": np.linspace(1.5, 8, 8),
                                "rope_factors_short.weight": np.linspace(1, 2, 8)},
                       keys={"rope.scaling.original_context_length": 512}),
    "mistral3": dict(arch="mistral3", vocab="llama-bpe", base=500.0,
                     keys={**YARN, "rope.scaling.original_context_length": 16, "rope.scaling.yarn_beta_fast": 4.0,
                           "rope.scaling.yarn_beta_slow": 0.5, "rope.scaling.yarn_log_multiplier": 0.5,
                           "attention.temperature_scale": 0.5}),
    "granite": dict(arch="granite", embed_gain=1.0,
                    keys={"embedding_scale": 3.0, "residual_scale": 0.6, "attention.scale": 0.4, "logit_scale": 0.5}),
    "olmo2": dict(**OLMO),
    "olmo3": dict(**OLMO, base=500.0,
                  keys={**YARN, "attention.sliding_window": 12, "attention.sliding_window_pattern": [True, False]}),
    "smollm3": dict(arch="smollm3", layers=4, ff=96, vocab="llama-bpe"),
    "llama-linear": dict(vocab="spm", ff=96, keys={"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}),
    "llama-yarn": dict(vocab="spm", ff=96, base=500.0, keys={**YARN, "rope.scaling.attn_factor": 1.1}),
    "llama-llama3": dict(vocab="llama-bpe", ff=96, base=500.0,
                         tensors={"rope_freqs.weight": llama3_factors(16, 500.0)}),
    "qwen3next": dict(arch="qwen3next", **DELTA_MOE,
                      keys={**DELTA_KEYS, "expert_shared_feed_forward_length": 160}),
    "qwen35moe": dict(arch="qwen35moe", **{**DELTA_MOE, "ff": 96},  # shared by the two that are used
                      keys={**DELTA_KEYS, "expert_feed_forward_length": None,
                            "expert_shared_feed_forward_length": 160,
                            "rope.dimension_sections": [2, 1, 1, 0]}),
    "qwen35": dict(arch="qwen35", **DELTA, layers=3,
                   keys={**DELTA_KEYS, "rope.dimension_sections": [2, 1, 1, 0]}),
    "qwen35-q8_0": dict(arch="qwen35", **DELTA, type=T.Q8_0, layers=3, ff=96, key_heads=4, value_heads=8, state=32,
                        keys={**DELTA_KEYS, "ssm.inner_size": 256, "ssm.state_size": 32, "ssm.time_step_rank": 8,
                              "ssm.group_count": 4, "rope.dimension_sections": [2, 1, 1, 0]}),
}
