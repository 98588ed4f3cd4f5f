"""What the models are that make_models.py writes: BASE, and of each what differs from it."""
from gguf import GGMLQuantizationType as T

BASE = dict(
    arch="llama", vocab="qwen2", n_vocab=284, type=T.F16, layers=2, tied=True, embed_gain=3.0, eps=1e-5, base=10000.0,
    d=32, ff=160, heads=4, kv=2, head_dim=16, n_rot=None,
    keys={},     # others, without the architecture's name
    tensors={},  # that belong to no layer, with their values
    norms=["attn_norm", "ffn_norm"],  # of a layer
    attention="attention",            # the writer's function
    fused_qkv=False, qkv_bias=0.0, o_bias=0.0, qk_norm=None, sinks=False,  # biases: their deviation
    fused_up=False, ffn_bias=0.0,
    # experts: how many, 0 for none; used: how many a token chooses; ff_exp: their width, if not ff; form of their
    # tensors: 3d, each (a tensor each) or gate_up (gates and ups in one); leading: layers without experts
    experts=0, used=2, ff_exp=0, form="3d", expert_type=None, expert_bias=0.0, router_gain=3.0, router_bias=0.0,
    selection_bias=0.0, shared=0, shared_gate=False, leading=0,
    exact=False,  # neurons are often exactly zero
)

MODELS = {
    "qwen3moe": dict(arch="qwen3moe", eps=1e-6, base=1e6, qk_norm="head", experts=6, used=3, ff=64, ff_exp=160),
}
