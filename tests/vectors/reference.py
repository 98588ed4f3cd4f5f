#!/usr/bin/env python3
"""What a model of any family that hearth runs says, in float64 from the file's weights (keys and values rounded to
f16, as caches hold them): short, slow, and without a thought shared with the program that it checks.

    pip install gguf numpy
    python3 reference.py FILE [--activation relu] [--predicted] ID...        the last token's ten best
"""
import argparse
import tempfile
from pathlib import Path

import gguf
import numpy as np

RELU = lambda g: np.maximum(g, 0)
ACTIVATIONS = {  # of gate and up; without a gate of up alone: f(up, 1)
    "silu": lambda g, u: g / (1 + np.exp(-g)) * u,
    "relu": lambda g, u: RELU(g) * u,
    "relu2": lambda g, u: RELU(g)**2 * u,
    "drelu": lambda g, u: RELU(g) * RELU(u),
}


def int8(x):
    """What quantised weights are multiplied with: blocks of 32 values, each the nearest of 255 steps."""
    blocks = x.reshape(*x.shape[:-1], -1, 32)
    scale = np.abs(blocks).max(-1, keepdims=True) / 127
    return (np.round(blocks / np.where(scale, scale, 1)) * scale).reshape(x.shape)


class Reference:
    def __init__(self, path, round_inputs=False):
        """round_inputs: round what quantised matrices read, as a program that multiplies integers does."""
        data = Path(path).read_bytes()
        self.sparse_file = data[:4] == b"PWRI"
        with tempfile.NamedTemporaryFile(suffix=".gguf") as f:
            f.write(b"GGUF" + data[4:])
            f.flush()
            reader = gguf.GGUFReader(f.name)
            self.w, self.quantised = {}, {}
            for t in reader.tensors:
                kind = t.tensor_type
                self.w[t.name] = gguf.quants.dequantize(np.array(t.data), kind).astype(np.float64)
                self.quantised[t.name] = round_inputs and kind not in (0, 1, 30)
            self.keys = {name: field.contents() for name, field in reader.fields.items()
                         if not name.startswith(("tokenizer.", "GGUF."))}
        self.arch = self.keys["general.architecture"]
        key = lambda name, other=None: self.keys.get(f"{self.arch}.{name}", other)
        self.layers, self.heads = key("block_count"), key("attention.head_count")
        self.kv_heads = key("attention.head_count_kv", self.heads)
        self.head_dim = key("attention.key_length", key("embedding_length") // self.heads)
        self.eps = key("attention.layer_norm_rms_epsilon", key("attention.layer_norm_epsilon", 1e-5))
        self.rope_base = key("rope.freq_base", 10000.0)
        self.activation = ("relu" if self.sparse_file or self.arch == "opt" else "silu", "drelu")[self.arch == "bamboo"]

    def linear(self, name, x, bias=None):
        if self.quantised[name]:
            x = int8(x)
        y = x @ self.w[name].T
        return y + self.w[bias] if bias in self.w else y

    def norm(self, name, x):
        if self.arch in ("falcon", "opt"):
            x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + self.eps) * self.w[name + ".weight"]
        return x + self.w.get(name + ".bias", 0)

    def rotate(self, x):
        """Rotary positions of [n, heads, head_dim]: pairs of neighbours, or of the two halves."""
        half = self.head_dim // 2
        angle = np.outer(np.arange(len(x)), self.rope_base ** (-np.arange(half) / half))[:, None]
        pairs = ((x[..., :half], x[..., half:]) if self.arch == "falcon" else (x[..., 0::2], x[..., 1::2]))
        a = pairs[0] * np.cos(angle) - pairs[1] * np.sin(angle)
        b = pairs[0] * np.sin(angle) + pairs[1] * np.cos(angle)
        return np.concatenate((a, b), -1) if self.arch == "falcon" else np.stack((a, b), -1).reshape(x.shape)

    def attention(self, p, x):
        n, q_rows, kv_rows = len(x), self.heads * self.head_dim, self.kv_heads * self.head_dim
        if p + "attn_qkv.weight" in self.w:
            q, k, v = np.split(self.linear(p + "attn_qkv.weight", x), [q_rows, q_rows + kv_rows], axis=1)
        else:
            q, k, v = (self.linear(f"{p}attn_{i}.weight", x, f"{p}attn_{i}.bias") for i in "qkv")
        q, k, v = (m.reshape(n, -1, self.head_dim) for m in (q, k, v))
        if self.arch != "opt":
            q, k = self.rotate(q), self.rotate(k)
        k, v = (m.astype(np.float16).astype(np.float64) for m in (k, v))  # as the KV cache keeps them
        k, v = (np.repeat(m, self.heads // self.kv_heads, axis=1) for m in (k, v))
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(self.head_dim)
        scores[:, np.triu(np.ones((n, n), bool), 1)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.einsum("hij,jhd->ihd", weights, v).reshape(n, -1)
        return self.linear(p + "attn_output.weight", mixed, p + "attn_output.bias")

    def ffn(self, p, x, residual, predicted):
        up = self.linear(p + "ffn_up.weight", x, p + "ffn_up.bias")
        f = ACTIVATIONS[self.activation]
        h = f(self.linear(p + "ffn_gate.weight", x), up) if p + "ffn_gate.weight" in self.w else f(up, 1)
        if predicted:
            logit = self.linear(p + "fc2.weight", RELU(self.linear(p + "fc1.weight", residual)))
            margin = logit - self.keys.get("powerinfer.sparse_threshold", 0)
            self.nearest = min(self.nearest, np.abs(margin[margin != 0]).min())
            h = h * (margin >= 0)
        self.live.append((h != 0).mean())
        if p + "ffn_down_t.weight" in self.w:
            return h @ self.w[p + "ffn_down_t.weight"] + self.w.get(p + "ffn_down_t.bias", 0)
        return self.linear(p + "ffn_down.weight", h, p + "ffn_down.bias")

    def logits(self, ids, predicted=False):
        """[n, n_vocab] of the n tokens. predicted: skip the neurons that the file's predictors say."""
        self.live, self.nearest = [], np.inf
        x = self.w["token_embd.weight"][ids]
        if self.arch == "opt":
            x = x + self.w["position_embd.weight"][2:2 + len(ids)]
        for layer in range(self.layers):
            p = f"blk.{layer}."
            if self.arch == "falcon":
                first = "attn_norm_2" if p + "attn_norm_2.weight" in self.w else "attn_norm"
                x = x + self.attention(p, self.norm(p + first, x)) + \
                    self.ffn(p, self.norm(p + "attn_norm", x), x, predicted)
            else:
                x = x + self.attention(p, self.norm(p + "attn_norm", x))
                x = x + self.ffn(p, self.norm(p + "ffn_norm", x), x, predicted)
        head = "output.weight" if "output.weight" in self.w else "token_embd.weight"
        return self.linear(head, self.norm("output_norm", x))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("ids", type=int, nargs="+")
    parser.add_argument("--activation", choices=ACTIVATIONS)
    parser.add_argument("--predicted", action="store_true")
    o = parser.parse_args()
    model = Reference(o.file)
    model.activation = o.activation or model.activation
    last = model.logits(o.ids, o.predicted)[-1]
    for i in np.argsort(-last)[:10]:
        print(f"{i:6d} {last[i]:9.4f}")
    print("live share by layer:", " ".join(f"{s:.3f}" for s in model.live))


if __name__ == "__main__":
    main()
