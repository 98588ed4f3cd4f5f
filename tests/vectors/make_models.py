#!/usr/bin/env python3
"""Writes the model-*.gguf files of this folder, a tiny model of random weights of every architecture with experts and
of others, and what reference_models.py says of them.

    pip install gguf numpy && python3 make_models.py [NAME...]       -> model-*.gguf, models.json
    python3 check_models.py [NAME...]                                the same files against llama.cpp

The same files come out each time; names leave the other files and entries as they are.

models.json: an object per file and activation
    file, architecture, activation (null: the file's own), n_ctx (the context to ask for: phi3's factors depend on it)
    prompt [ids], logits: [{position, values [n_vocab]}], in exact arithmetic (float64; caches in f16)
    range: between the largest and the smallest of all these logits
    error: how far the logits move at most when what quantised weights read is rounded to 8 bits; 0 for float weights
    rounded: the logits so moved, of models with quantised weights
    margin: the least difference, over tokens and layers, between the last chosen expert's score and the best of those
    that were not chosen (of groups as well); null without experts. Prompts are chosen so that it is 0.01 at least
    llama: the last of the positions as llama.cpp has it, by check_models.py; of files that llama.cpp reads, in whatever
    form the weights are
"""
import json
import math
import sys

import gguf
import numpy as np

from make_families import HERE, rows
from make_tiny import add_vocabulary
from models import BASE, MODELS
from reference import ACTIVATIONS
from reference_models import load
from rotary import N_CTX

N_PROMPT, POSITIONS = 72, [0, 17, 71]  # more than a page of the cache
MARGIN = 0.01
JSON = HERE / "models.json"


class Writer:
    def __init__(self, path, m, seed):
        self.m, self.rng = m, np.random.default_rng(seed)
        self.w = gguf.GGUFWriter(path, m["arch"])

    # ---- keys ----

    def key(self, name, value):
        w, name = self.w, f"{self.m['arch']}.{name}"
        if isinstance(value, list):
            w.add_array(name, value)
        else:
            {bool: w.add_bool, int: w.add_uint32, float: w.add_float32, str: w.add_string}[type(value)](name, value)

    def keys(self):
        m = self.m
        for name, value in {
            "block_count": m["layers"] + m["predictors"], "context_length": 512, "embedding_length": m["d"],
            "feed_forward_length": m["ff"], "attention.head_count": m["heads"], "attention.head_count_kv": m["kv"],
            "attention.key_length": m["head_dim"], "attention.value_length": m["head_dim"],
            "attention.layer_norm_rms_epsilon": m["eps"], "rope.freq_base": m["base"],
            "rope.dimension_count": m["n_rot"] or m["head_dim"], "vocab_size": m["n_vocab"],
            "expert_count": m["experts"] or None, "expert_used_count": m["used"] if m["experts"] else None,
            "expert_feed_forward_length": m["ff_exp"] or None, "nextn_predict_layers": m["predictors"] or None,
            **m["keys"],
        }.items():
            if value is not None:
                self.key(name, value)

    # ---- tensors ----

    def draw(self, shape, gain):
        """Few different values, so that the files pack well."""
        return np.round(self.rng.standard_normal(shape)) * (gain / math.sqrt(shape[-1]))

    def add(self, name, values, kind=None):
        kind = self.m["type"] if kind is None else kind
        self.w.add_tensor(name + ".weight", gguf.quants.quantize(values.astype(np.float32), kind), raw_dtype=kind)

    def matrix(self, name, rows, cols, gain=1.0, kind=None, bias=0.0):
        self.add(name, self.draw((rows, cols), gain), kind)
        if bias:
            self.vector(name + ".bias", rows, 0, bias)

    def vector(self, name, shape, mean, deviation):
        values = mean + np.round(self.rng.standard_normal(shape) * 4) / 4 * deviation
        self.w.add_tensor(name, values.astype(np.float32))

    def norm(self, name, n=None):
        self.vector(name + ".weight", n or self.m["d"], 1, 0.2)

    def attention(self, p, i):
        m = self.m
        d, n_q, n_kv = m["d"], m["heads"] * m["head_dim"], m["kv"] * m["head_dim"]
        if m["fused_qkv"]:
            self.matrix(p + "attn_qkv", n_q + 2 * n_kv, d, 1.2, bias=m["qkv_bias"])
        else:
            self.matrix(p + "attn_q", n_q, d, 1.2, bias=m["qkv_bias"])
            self.matrix(p + "attn_k", n_kv, d, 1.2, bias=m["qkv_bias"])
            self.matrix(p + "attn_v", n_kv, d, 1, bias=m["qkv_bias"])
        if m["qk_norm"]:
            whole = m["qk_norm"] == "whole"
            self.vector(p + "attn_q_norm.weight", n_q if whole else m["head_dim"], 1.5, 0.3)
            self.vector(p + "attn_k_norm.weight", n_kv if whole else m["head_dim"], 1.5, 0.3)
        if m["sinks"]:
            self.vector(p + "attn_sinks.weight", m["heads"], 1, 1)
        self.matrix(p + "attn_output", d, n_q, 1.2, bias=m["o_bias"])

    def latent_attention(self, p, i):
        m, matrix = self.m, self.matrix
        heads, rank, plain, turned, values = m["heads"], m["rank"], m["plain"], m["n_rot"], m["values"]
        if m["q_rank"]:
            matrix(p + "attn_q_a", m["q_rank"], m["d"], 1.2)
            self.norm(p + "attn_q_a_norm", m["q_rank"])
            matrix(p + "attn_q_b", heads * (plain + turned), m["q_rank"], 1.2)
        else:
            matrix(p + "attn_q", heads * (plain + turned), m["d"], 1.2)
        matrix(p + "attn_kv_a_mqa", rank + turned, m["d"], 1.2)
        self.norm(p + "attn_kv_a_norm", rank)
        k_b, v_b = self.draw((heads, rank, plain), 1.2), self.draw((heads, values, rank), 1)
        if m["form_kv"] == "both":
            self.add(p + "attn_kv_b", np.concatenate((k_b.swapaxes(1, 2), v_b), 1).reshape(-1, rank))
        else:
            self.add(p + "attn_k_b", k_b)
            self.add(p + "attn_v_b", v_b)
        matrix(p + "attn_output", m["d"], heads * values, 1.2)

    def delta_net(self, p, i):
        """Or attention with a gate, every `interval` layers."""
        m, d, matrix = self.m, self.m["d"], self.matrix
        n_q, n_kv = m["heads"] * m["head_dim"], m["kv"] * m["head_dim"]
        if (i + 1) % m["keys"]["full_attention_interval"] == 0:
            matrix(p + "attn_q", 2 * n_q, d, 1.2)
            matrix(p + "attn_k", n_kv, d, 1.2)
            matrix(p + "attn_v", n_kv, d, 1)
            for name in "attn_q_norm", "attn_k_norm":
                self.vector(f"{p}{name}.weight", m["head_dim"], 1.5, 0.3)
            return matrix(p + "attn_output", d, n_q, 1.5)
        keys, values, size = m["key_heads"], m["value_heads"], m["state"]
        channels = (2 * keys + values) * size
        matrix(p + "attn_qkv", channels, d, 1.2)
        matrix(p + "attn_gate", values * size, d, 1.2)
        if m["arch"] == "qwen3next":
            matrix(p + "ssm_ba", 2 * values, d, 1.2)
        else:
            matrix(p + "ssm_beta", values, d, 1.2)
            matrix(p + "ssm_alpha", values, d, 1.2)
        self.vector(p + "ssm_conv1d.weight", (channels, 4), 0.2, 0.5)
        self.vector(p + "ssm_dt.bias", values, -2, 1)
        self.w.add_tensor(p + "ssm_a", -np.linspace(0.2, 1.5, values).astype(np.float32))
        self.norm(p + "ssm_norm", size)
        return matrix(p + "ssm_out", d, values * size, 1.2)

    def dense(self, p, ending, ff, bias=0.0):
        m = self.m
        if m["fused_up"]:
            self.matrix(p + "ffn_up", 2 * ff, m["d"], 1.3)
        else:
            self.matrix(f"{p}ffn_gate{ending}", ff, m["d"], 1.5, bias=bias)
            self.matrix(f"{p}ffn_up{ending}", ff, m["d"], 1, bias=bias)
        self.matrix(f"{p}ffn_down{ending}", m["d"], ff, 1.5, bias=bias)

    def experts(self, p):
        m = self.m
        n, d, ff, bias, kind = m["experts"], m["d"], m["ff_exp"] or m["ff"], m["expert_bias"], m["expert_type"]
        self.matrix(p + "ffn_gate_inp", n, d, m["router_gain"], gguf.GGMLQuantizationType.F32, bias=m["router_bias"])
        if m["selection_bias"]:
            self.vector(p + "exp_probs_b.bias", n, 0, m["selection_bias"])
        gain = m["expert_gain"]
        gate, up, down = self.draw((n, ff, d), 1.5 * gain), self.draw((n, ff, d), gain), self.draw((n, d, ff), 1.5)
        if m["form"] == "each":
            for e in range(n):
                for name, values in ("gate", gate), ("up", up), ("down", down):
                    self.add(f"{p}ffn_{name}.{e}", values[e], kind)
        elif m["form"] == "gate_up":
            self.add(p + "ffn_gate_up_exps", np.concatenate((gate, up), 1), kind)
            self.add(p + "ffn_down_exps", down, kind)
        else:
            for name, values in ("gate", gate), ("up", up), ("down", down):
                self.add(f"{p}ffn_{name}_exps", values, kind)
                if bias:
                    self.vector(f"{p}ffn_{name}_exps.bias", values.shape[:2], 0, bias)
        if m["shared"]:
            if m["shared_gate"]:
                self.vector(p + "ffn_gate_inp_shexp.weight", d, 0, 1.5 / math.sqrt(d))
            self.dense(p, "_shexp", m["shared"])

    def layer(self, p, i):
        m = self.m
        for name in m["norms"]:
            self.norm(p + name)
        getattr(self, m["attention"])(p, i)
        if m["experts"] and i >= m["leading"]:
            self.experts(p)
        else:
            self.dense(p, "", m["ff"], m["ffn_bias"])

    def tensors(self):
        m = self.m
        self.matrix("token_embd", m["n_vocab"], m["d"], m["embed_gain"], m["type"])
        for name, values in m["tensors"].items():
            self.w.add_tensor(name, np.array(values, np.float32))
        for i in range(m["layers"] + m["predictors"]):
            self.layer(f"blk.{i}.", i)
            if i >= m["layers"]:
                self.matrix(f"blk.{i}.nextn.eh_proj", m["d"], 2 * m["d"])
                for name in "enorm", "hnorm", "shared_head_norm":
                    self.norm(f"blk.{i}.nextn.{name}")
        self.norm("output_norm")
        if not m["tied"]:
            self.matrix("output", m["n_vocab"], m["d"], 3)

    def close(self):
        self.w.write_header_to_file()
        self.w.write_kv_data_to_file()
        self.w.write_tensors_to_file()
        self.w.close()


def seed_of(name):
    return sum(map(ord, MODELS[name].get("weights_of", name)))


def write_model(name, path, **changes):
    m = {**BASE, **MODELS[name], **changes}
    w = Writer(path, m, seed_of(name))
    w.w.add_name("tiny")  # llama.cpp looks for more in files with some names
    w.keys()
    add_vocabulary(w.w, m["vocab"], m["n_vocab"])
    w.tensors()
    w.close()


def clear_prompt(models, seed, n_vocab):
    """Token by token, so that no choice of experts is a close one, nor the rounding of a value: a code of 8 bits more
    or less is as much as all the rounding of a narrow matrix."""
    rng, prompt = np.random.default_rng(seed), []
    while len(prompt) < N_PROMPT:
        for _ in range(1000):
            token = int(rng.integers(3, n_vocab - 4))
            for model in models:
                model.logits(prompt + [token])
            if min(model.margin[-1] for model in models) >= MARGIN and models[1].tie > 1:
                break
        else:
            sys.exit("no token leaves the choice of experts clear: change the router")
        prompt.append(token)
    return prompt


def entry(name, path, activation):
    m = {**BASE, **MODELS[name]}
    exact, rounded = load(path), load(path, round_inputs=True)
    for r in exact, rounded:
        r.activation = ACTIVATIONS.get(activation, r.activation)
    prompt = clear_prompt((exact, rounded), seed_of(name), m["n_vocab"])
    logits, noisy = (r.logits(prompt)[POSITIONS] for r in (exact, rounded))
    margin, error, spread = float(exact.margin.min()), float(np.abs(noisy - logits).max()), float(np.ptp(logits))
    print(f"{path.name} {activation or ''}: range {spread:.2f}, error {error:.4f}, margin {margin:.4f}, "
          f"{path.stat().st_size} bytes")
    out = {"file": path.name, "architecture": m["arch"], "activation": activation, "n_ctx": N_CTX,
           "prompt": prompt,
           "range": round(spread, 4), "error": round(error, 5),
           "margin": round(margin, 5) if margin < np.inf else None,
           "logits": rows(logits, POSITIONS)}
    return {**out, "rounded": rows(noisy, POSITIONS)} if error else out


def read_entries():
    """By file; the first of each is that of the file's own activation."""
    entries = {}
    if JSON.exists():
        for e in json.loads(JSON.read_text()):
            entries.setdefault(e["file"], []).append(e)
    return entries


def write_entries(entries):
    ordered = [e for name in MODELS for e in entries.get(f"model-{name}.gguf", [])]
    JSON.write_text("[\n" + ",\n".join(json.dumps(e, separators=(",", ":")) for e in ordered) + "\n]\n")


def main():
    entries = read_entries()
    for name in sys.argv[1:] or MODELS:
        path = HERE / f"model-{name}.gguf"
        write_model(name, path)
        entries[path.name] = [entry(name, path, activation) for activation in MODELS[name].get("run", [None])]
    write_entries(entries)


if __name__ == "__main__":
    main()
