#!/usr/bin/env python3
"""Writes the family-*.gguf models of this folder, tiny ones of every family, and what reference.py says of them.

    pip install gguf numpy && python3 make_families.py       -> family-*.gguf, families.json

The same files come out each time. The names end in what is special: `two` has Falcon's two norms, `sparse` are
PowerInfer's files (magic PWRI) with a transposed down projection and predictors of different widths.

families.json: an object per file and way to run it
    file, activation (null: the file's own), predicted (neurons are skipped as the file's predictors say)
    prompt [ids], logits: [{position, values [n_vocab]}], in exact arithmetic (float64)
    range: between the largest and the smallest of all these logits
    error: how far the logits move at most when what quantised weights read is rounded to 8 bits; 0 for float weights
    rounded: the logits so moved, of models with quantised weights
"""
import json
import math
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

from make_tiny import bpe_vocabulary, spm_vocabulary
from reference import ACTIVATIONS, Reference

HERE = Path(__file__).resolve().parent
N_PROMPT, POSITIONS = 24, [0, 9, 23]
N_POSITIONS = 66  # rows of learned positions

BASE = dict(arch="llama", type=T.F16, layers=2, d=32, ff=288, heads=4, kv=2, head_dim=8, n_vocab=320)
# More query heads share the one KV head than are computed together.
MULTI_QUERY = dict(arch="falcon", heads=36, kv=1)
MODELS = {
    "llama": dict(run=["silu", "relu", "relu2", "drelu"]),
    "llama-q4_0": dict(type=T.Q4_0, run=["relu"]),
    "bamboo": dict(arch="bamboo", layers=1),
    "falcon": dict(**MULTI_QUERY, run=["relu"]),
    "falcon-two": dict(arch="falcon", layers=1, two=True, run=["relu", "relu2"]),
    "falcon-q8_0": dict(arch="falcon", type=T.Q8_0, run=["relu"]),
    "opt": dict(arch="opt", kv=4),
    "opt-q4_0": dict(arch="opt", type=T.Q4_0, kv=4),
    "llama-sparse": dict(sparse=[24, 40]),
    "llama-sparse-q4_0": dict(sparse=[32, 64], type=T.Q4_0, threshold=0.03125),
    "bamboo-sparse": dict(arch="bamboo", layers=1, sparse=[16], threshold=0.25),
    "falcon-sparse": dict(arch="falcon", two=True, layers=1, sparse=[20], threshold=-0.125),
    "opt-sparse": dict(arch="opt", kv=4, sparse=[32, 7]),
}


def random_matrix(kind, rows, cols, deviation, rng):
    """Few different values, so that the files pack well."""
    values = (np.round(rng.standard_normal((rows, cols)) * 4) / 4 * deviation).astype(np.float32)
    return gguf.quants.quantize(values, kind)


def add_vocabulary(w, m):
    specials = ["<s>", "<pad>", "</s>"]
    if m["arch"] == "falcon":
        bpe_vocabulary(w, m["n_vocab"], "falcon", ["<|endoftext|>"], False)
    elif m["arch"] == "opt":  # PowerInfer's converter names no pre-tokenizer
        bpe_vocabulary(w, m["n_vocab"], None if m.get("sparse") else "gpt-2", specials, True)
    else:
        spm_vocabulary(w, m["n_vocab"])


def write_keys(w, m):
    w.add_block_count(m["layers"])
    w.add_context_length(N_POSITIONS if m["arch"] == "opt" else 512)
    w.add_embedding_length(m["d"])
    w.add_feed_forward_length(m["ff"])
    w.add_head_count(m["heads"])
    if m["arch"] != "opt":
        w.add_head_count_kv(m["kv"])
    if m["heads"] * m["head_dim"] != m["d"]:
        w.add_key_length(m["head_dim"])
        w.add_value_length(m["head_dim"])
    if m["arch"] == "falcon":
        w.add_layer_norm_eps(1e-5)
        w.add_tensor_data_layout("jploski")
    elif m["arch"] != "opt":
        w.add_layer_norm_rms_eps(1e-5)
        w.add_rope_dimension_count(m["head_dim"])
        w.add_rope_freq_base(10000.0)
    if m.get("threshold"):
        w.add_float32("powerinfer.sparse_threshold", m["threshold"])
    add_vocabulary(w, m)


def write_tensors(w, m, rng):
    layer_norm, opt = m["arch"] in ("falcon", "opt"), m["arch"] == "opt"
    d, ff, q_rows, kv_rows = m["d"], m["ff"], m["heads"] * m["head_dim"], m["kv"] * m["head_dim"]

    def matrix(name, rows, cols, gain, kind=m["type"], fan_in=None):
        w.add_tensor(name + ".weight", random_matrix(kind, rows, cols, gain / math.sqrt(fan_in or cols), rng),
                     raw_dtype=kind)

    def vector(name, n, mean, deviation):
        w.add_tensor(name, (mean + deviation * rng.standard_normal(n)).astype(np.float32))

    def norm(name):
        vector(name + ".weight", d, 1, 0.2)
        if layer_norm:
            vector(name + ".bias", d, 0, 0.2)

    def biased(name, rows, cols, gain):
        matrix(name, rows, cols, gain)
        if opt:
            vector(name + ".bias", rows, 0, 0.3)

    matrix("token_embd", m["n_vocab"], d, 3)
    if opt:
        matrix("position_embd", N_POSITIONS, d, 2, T.F16)
    for layer in range(m["layers"]):
        p = f"blk.{layer}."
        norm(p + "attn_norm")
        if m.get("two"):
            norm(p + "attn_norm_2")
        if m["arch"] == "falcon":
            matrix(p + "attn_qkv", q_rows + 2 * kv_rows, d, 1.2)
        else:
            biased(p + "attn_q", q_rows, d, 1.2)
            biased(p + "attn_k", kv_rows, d, 1.2)
            biased(p + "attn_v", kv_rows, d, 1)
        biased(p + "attn_output", d, q_rows, 1.2)
        if m["arch"] != "falcon":
            norm(p + "ffn_norm")
        if not layer_norm:
            matrix(p + "ffn_gate", ff, d, 1.5)
        biased(p + "ffn_up", ff, d, 1)
        if m.get("sparse"):
            matrix(p + "ffn_down_t", ff, d, 1.5, fan_in=ff)
            if opt:
                vector(p + "ffn_down_t.bias", d, 0, 0.3)
            matrix(p + "fc1", m["sparse"][layer], d, 1)
            matrix(p + "fc2", ff, m["sparse"][layer], 1)
        else:
            biased(p + "ffn_down", d, ff, 1.5)
    norm("output_norm")
    if not opt:
        matrix("output", m["n_vocab"], d, 3)


def write_model(name, seed):
    m = {**BASE, **MODELS[name]}
    path = HERE / f"family-{name}.gguf"
    w = gguf.GGUFWriter(path, m["arch"])
    w.add_name(f"family-{name}")
    write_keys(w, m)
    write_tensors(w, m, np.random.default_rng(seed))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    if m.get("sparse"):
        path.write_bytes(b"PWRI" + path.read_bytes()[4:])
    return path


def rows(logits, positions=POSITIONS):
    return [{"position": p, "values": [round(v, 4) for v in row.tolist()]} for p, row in zip(positions, logits)]


def entry(path, activation, predicted, seed):
    exact, rounded = Reference(path), Reference(path, round_inputs=True)
    for r in exact, rounded:
        r.activation = activation or r.activation
    # A prediction so close that the order of a sum in f32 could turn it would prove nothing.
    while True:
        prompt = np.random.default_rng(seed).integers(3, 300, N_PROMPT)
        logits, noisy = (r.logits(prompt, predicted)[POSITIONS] for r in (exact, rounded))
        if min(exact.nearest, rounded.nearest) > 2e-5:
            break
        seed += 100
    error = float(np.abs(noisy - logits).max())
    print(f"{path.name} {exact.activation}{' predicted' if predicted else ''}: range {np.ptp(logits):.2f}, error "
          f"{error:.4f}, live {' '.join(f'{s:.2f}' for s in exact.live)}, nearest logit {exact.nearest:.1e}")
    out = {"file": path.name, "activation": activation, "predicted": predicted, "prompt": prompt.tolist(),
           "range": round(float(np.ptp(logits)), 4), "error": round(error, 5), "logits": rows(logits)}
    return {**out, "rounded": rows(noisy)} if error else out


def main():
    entries = []
    for seed, (name, m) in enumerate(MODELS.items(), 1):
        path = write_model(name, seed)
        for activation in m.get("run", [None]):
            entries.append(entry(path, activation, False, seed))
        if m.get("sparse"):
            entries.append(entry(path, None, True, seed))
    (HERE / "families.json").write_text("[\n" + ",\n".join(json.dumps(e, separators=(",", ":")) for e in entries) +
                                        "\n]\n")


if __name__ == "__main__":
    main()
