#!/usr/bin/env python3
"""Writes the tiny-*.gguf models of this folder: random weights, every weight type and every architecture.

    pip install gguf numpy && python3 make_tiny.py

The same files come out each time. A change of any of them needs make_vectors.py to run again.

Random weights usually give flat logits and attention that hardly looks at positions; the scales below are chosen so
that logits spread over several units and a wrong rotation, window, bias or norm changes them visibly.
"""
import math
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

HERE = Path(__file__).resolve().parent

# What a model is unless its entry says otherwise. `window`, `factors` and `seed` (where some other leaves
# make_vectors.py no prompt with clear choices) are optional.
BASE = dict(arch="llama", vocab="spm", type=T.Q8_0, layers=2, d=64, ff=128, heads=4, kv=2, head_dim=16, tied=False,
            base=10000.0, eps=1e-5, n_vocab=309)
NARROW = dict(d=96, ff=160, heads=3, kv=1, head_dim=32)         # rows of 96, 160 and 32
WIDE = dict(layers=1, d=256, ff=256, heads=4, kv=1, head_dim=64, tied=True)  # K types have blocks of 256

MODELS = {
    "f32": dict(type=T.F32),
    "f16": dict(type=T.F16, tied=True),
    "bf16": dict(type=T.BF16),
    "q4_0": dict(type=T.Q4_0, **NARROW),
    "q4_1": dict(type=T.Q4_1, **NARROW),
    "q5_0": dict(type=T.Q5_0, **NARROW),
    "q5_1": dict(type=T.Q5_1, **NARROW),
    "q8_0": dict(type=T.Q8_0, **NARROW, tied=True),
    "q2_k": dict(type=T.Q2_K, **WIDE),
    "q3_k": dict(type=T.Q3_K, **WIDE),
    "q4_k": dict(type=T.Q4_K, **WIDE),
    "q5_k": dict(type=T.Q5_K, **WIDE),
    "q6_k": dict(type=T.Q6_K, **WIDE),
    "llama3": dict(vocab="llama-bpe", base=500000.0, factors=True, head_dim=32, heads=4, kv=1, tied=True),
    "mistral": dict(window=12, heads=8, kv=2, head_dim=8),
    "qwen2": dict(arch="qwen2", vocab="qwen2", eps=1e-6, base=1000000.0, head_dim=16),
    "qwen3": dict(arch="qwen3", vocab="qwen2", eps=1e-6, base=1000000.0, head_dim=32, heads=4, kv=2),
    "mxfp4": dict(type=T.MXFP4, **NARROW),
    "iq4_nl": dict(type=T.IQ4_NL, **NARROW),
    "iq4_xs": dict(type=T.IQ4_XS, seed=1037, **WIDE),
    "iq3_s": dict(type=T.IQ3_S, seed=1025, **WIDE),
    "iq3_xxs": dict(type=T.IQ3_XXS, seed=1034, **WIDE),
    "iq2_xs": dict(type=T.IQ2_XS, seed=1034, **WIDE),
    "iq2_s": dict(type=T.IQ2_S, seed=1024, **WIDE),
    "iq1_s": dict(type=T.IQ1_S, seed=1026, **WIDE),
    "iq1_m": dict(type=T.IQ1_M, seed=1027, **WIDE),
    "tq1_0": dict(type=T.TQ1_0, seed=1023, **WIDE),
}


# ---- quantised blocks that the gguf package cannot make from floats: random codes, then a scale that fits ----

def halves(a):
    return np.asarray(a, np.float16).reshape(-1, 1).view(np.uint8)


# What a block is made of: so many random bytes, its f16 factors; "d4" is d four bits at a time, above 12 random ones.
PARTS = {
    T.Q2_K: (16, 64, "d", "dmin"), T.Q3_K: (32, 64, 12, "d"), T.Q4_K: ("d", "dmin", 12, 128),
    T.Q5_K: ("d", "dmin", 12, 32, 128), T.Q6_K: (128, 64, 16, "d"),
    T.IQ4_NL: ("d", 16), T.IQ4_XS: ("d", 2, 4, 128), T.IQ3_S: ("d", 64, 8, 32, 4), T.IQ3_XXS: ("d", 64, 32),
    T.IQ2_XS: ("d", 64, 8), T.IQ2_XXS: ("d", 64), T.IQ2_S: ("d", 32, 32, 8, 8), T.IQ1_S: ("d", 32, 16),
    T.IQ1_M: (32, 16, "d4"), T.TQ1_0: (48, 4, "d"), T.TQ2_0: (64, "d"),
}


def quarters(d, rng):
    """f16 numbers in the upper 4 bits of four words each, the lowest bits first."""
    bits = np.asarray(d, np.float16).reshape(-1, 1).view(np.uint16)
    scales = (bits >> [0, 4, 8, 12] << 12).astype(np.uint16)
    return (rng.integers(0, 4096, (len(bits), 4), np.uint16) | scales).view(np.uint8)


def random_blocks(kind, n, rng, d, dmin):
    """n blocks with random codes and scales; d and dmin are the blocks' factors, [n] each."""
    make = {"d": lambda: halves(d), "dmin": lambda: halves(dmin), "d4": lambda: quarters(d, rng)}
    return np.hstack([make[part]() if part in make else rng.integers(0, 256, (n, part), np.uint8)
                      for part in PARTS[kind]])


# dmin over d that makes a type's weights average about zero
MIN_OVER_D = {T.Q2_K: 1.5, T.Q4_K: 7.5, T.Q5_K: 15.5}


def random_matrix(kind, rows, cols, deviation, rng):
    """The bytes [rows, bytes per row] of a random matrix of the type with about the standard deviation."""
    if kind not in PARTS:
        return gguf.quants.quantize((rng.standard_normal((rows, cols)) * deviation).astype(np.float32), kind)
    n = rows * cols // gguf.GGML_QUANT_SIZES[kind][0]
    jitter = rng.uniform(0.7, 1.3, n)
    draws = rng.integers(0, 2**32)

    def blocks(scale):
        d = (scale * jitter).astype(np.float16).astype(np.float64)
        return random_blocks(kind, n, np.random.default_rng(draws), d, d * MIN_OVER_D.get(kind, 0))

    unit = gguf.quants.dequantize(blocks(2**-6), kind).std() * 2**6
    return blocks(deviation / unit).reshape(rows, -1)


# ---- vocabularies ----

def spm_vocabulary(w, n):
    """<unk> <s> </s>, the 256 bytes, then pieces such as SentencePiece finds."""
    pieces = ["\u2581", "e", "t", "a", "o", "h", "\u2581t", "he", "\u2581the", "in", "\u2581a", "er", "on", "\u2581in",
              "n", "i", "r", "\u2581an", "and", "\u2581and", "d", "s", "re", "at"]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + pieces
    tokens += [f"\u2581filler{i}" for i in range(n - len(tokens))]
    w.add_tokenizer_model("llama")
    w.add_token_list(tokens)
    w.add_token_scores([0.0] * 259 + [-float(i) for i in range(n - 259)])
    w.add_token_types([2, 3, 3] + [6] * 256 + [1] * (n - 259))
    w.add_unk_token_id(0)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)


def byte_symbols():
    """GPT-2's printable stand-ins for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols, extra = {}, 256
    for b in range(256):
        if b in plain:
            symbols[b] = chr(b)
        else:
            symbols[b] = chr(extra)
            extra += 1
    return [symbols[b] for b in range(256)]


def bpe_vocabulary(w, n, pre, specials, bos):
    merges = ["\u0120 t", "h e", "\u0120t he", "i n", "a n", "an d", "\u0120 and", "e r", "r e", "\u0120 a", "o n",
              "a t", "\u0120 in", "1 2", "12 3", "\u0120 \u0120", "\u010a \u010a"]
    tokens = byte_symbols() + [m.replace(" ", "") for m in merges]
    tokens += [f"filler{i}" for i in range(n - len(tokens) - len(specials))] + specials
    w.add_tokenizer_model("gpt2")
    if pre:
        w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types([1] * (n - len(specials)) + [3] * len(specials))
    w.add_token_merges(merges)
    if bos:
        w.add_bos_token_id(n - len(specials))
    w.add_add_bos_token(bos)
    w.add_eos_token_id(n - 1)


def add_vocabulary(w, kind, n):
    if kind == "spm":
        spm_vocabulary(w, n)
    elif kind == "llama-bpe":
        specials = ["<|begin_of_text|>", "<|start_header_id|>", "<|eot_id|>", "<|end_of_text|>"]
        bpe_vocabulary(w, n, "llama-bpe", specials, True)
    else:
        bpe_vocabulary(w, n, "qwen2", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], False)


# ---- a model ----

def llama3_factors(head_dim, base, old_context=256, factor=8.0, low=1.0, high=4.0):
    wavelength = 2 * math.pi * base ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = np.clip((old_context / wavelength - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def write_model(name, seed):
    m = {**BASE, **MODELS[name]}
    rng = np.random.default_rng(seed)
    w = gguf.GGUFWriter(HERE / f"tiny-{name}.gguf", m["arch"])
    w.add_name(f"tiny-{name}")
    w.add_block_count(m["layers"])
    w.add_context_length(512)
    w.add_embedding_length(m["d"])
    w.add_feed_forward_length(m["ff"])
    w.add_head_count(m["heads"])
    w.add_head_count_kv(m["kv"])
    w.add_key_length(m["head_dim"])
    w.add_value_length(m["head_dim"])
    w.add_layer_norm_rms_eps(m["eps"])
    w.add_rope_freq_base(m["base"])
    w.add_rope_dimension_count(m["head_dim"])
    w.add_vocab_size(m["n_vocab"])
    if "window" in m:
        w.add_sliding_window(m["window"])
    add_vocabulary(w, m["vocab"], m["n_vocab"])

    def matrix(tensor, rows, cols, gain):
        w.add_tensor(tensor, random_matrix(m["type"], rows, cols, gain / math.sqrt(cols), rng), raw_dtype=m["type"])

    def vector(tensor, n, mean, deviation):
        w.add_tensor(tensor, (mean + deviation * rng.standard_normal(n)).astype(np.float32))

    d, q_rows, kv_rows = m["d"], m["heads"] * m["head_dim"], m["kv"] * m["head_dim"]
    matrix("token_embd.weight", m["n_vocab"], d, 3)
    if m.get("factors"):
        w.add_tensor("rope_freqs.weight", llama3_factors(m["head_dim"], m["base"]))
    for layer in range(m["layers"]):
        p = f"blk.{layer}."
        vector(p + "attn_norm.weight", d, 1, 0.2)
        matrix(p + "attn_q.weight", q_rows, d, 1.2)
        matrix(p + "attn_k.weight", kv_rows, d, 1.2)
        matrix(p + "attn_v.weight", kv_rows, d, 1)
        if m["arch"] == "qwen2":
            vector(p + "attn_q.bias", q_rows, 0, 0.5)
            vector(p + "attn_k.bias", kv_rows, 0, 0.5)
            vector(p + "attn_v.bias", kv_rows, 0, 0.5)
        if m["arch"] == "qwen3":
            vector(p + "attn_q_norm.weight", m["head_dim"], 1.5, 0.3)
            vector(p + "attn_k_norm.weight", m["head_dim"], 1.5, 0.3)
        matrix(p + "attn_output.weight", d, q_rows, 1.2)
        vector(p + "ffn_norm.weight", d, 1, 0.2)
        matrix(p + "ffn_gate.weight", m["ff"], d, 1.5)
        matrix(p + "ffn_up.weight", m["ff"], d, 1)
        matrix(p + "ffn_down.weight", d, m["ff"], 1.2)
    vector("output_norm.weight", d, 1, 0.2)
    if not m["tied"]:
        matrix("output.weight", m["n_vocab"], d, 3)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    for number, model in enumerate(MODELS):
        write_model(model, MODELS[model].get("seed", 1000 + number))
