"""A plain model, with or without experts, in float64 from the file's weights (what caches hold rounded to f16): what
reference_models.py builds the families on."""
import gguf
import numpy as np

from reference import ACTIVATIONS, int8
from rotary import frequencies, turn

FLOATS = (0, 1, 30)  # F32, F16, BF16
CODE_ERROR, CACHE_ERROR = 1e-4, 2e-7  # of f32 sums: of a code of 8 bits, and of keys as a part of their size


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Llama:
    neighbours = True  # rotary positions turn pairs of neighbours; else those half of the turned values apart
    ffn_norm = "ffn_norm"
    gating = staticmethod(softmax)
    weights_norm, weights_scale = True, 1.0
    default_window = 0
    yarn_betas, yarn_magnitude = (32, 1), None  # magnitude None: what the factor gives

    def __init__(self, path, round_inputs=False, cache=np.float16):
        """round_inputs: round what quantised matrices read, as a program that multiplies integers does.
        cache: the type that keys, values and what else is kept of a token are rounded to."""
        reader = gguf.GGUFReader(path)
        self.cache, self.w, self.quantised = cache, {}, {}
        for t in reader.tensors:
            self.w[t.name] = gguf.quants.dequantize(np.array(t.data), t.tensor_type).astype(np.float64)
            self.quantised[t.name] = round_inputs and t.tensor_type not in FLOATS
        self.keys = {name: field.contents() for name, field in reader.fields.items()
                     if not name.startswith(("tokenizer.", "GGUF."))}
        self.arch, key = self.keys["general.architecture"], self.key
        self.layers = key("block_count") - key("nextn_predict_layers", 0)
        self.d, self.heads = key("embedding_length"), key("attention.head_count")
        self.kv_heads = key("attention.head_count_kv", self.heads)
        self.head_dim = key("attention.key_length", self.d // self.heads)
        self.n_rot = key("rope.dimension_count", self.head_dim)
        self.eps = key("attention.layer_norm_rms_epsilon")
        self.score_scale = self.head_dim ** -0.5
        self.activation = ACTIVATIONS["silu"]
        self.experts_used = key("expert_used_count", 0)
        self.setup()

    def setup(self):
        """What a family reads of its keys."""

    def key(self, name, other=None):
        return self.keys.get(f"{self.arch}.{name}", other)

    # ---- parts ----

    def read(self, name, x):
        """x as the matrix reads it."""
        if not self.quantised[name + ".weight"]:
            return x
        blocks = x.reshape(-1, 32)
        codes = 127 * blocks / np.maximum(np.abs(blocks).max(-1, keepdims=True), 1e-30)
        self.tie = min(self.tie, (0.5 - np.abs(codes - np.round(codes))).min() / CODE_ERROR)
        return int8(x)

    def linear(self, name, x, expert=None):
        pick = (lambda t: t) if expert is None else (lambda t: t[expert])
        y = self.read(name, x) @ pick(self.w[name + ".weight"]).T
        return y + pick(self.w[name + ".bias"]) if name + ".bias" in self.w else y

    def rms(self, x, weight=1):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + self.eps) * weight

    def norm(self, name, x):
        return self.rms(x, self.w[name + ".weight"])

    def kept(self, x):
        rounded = x.astype(self.cache).astype(np.float64)
        step = np.spacing(np.abs(rounded).astype(self.cache)).astype(np.float64)
        size = np.sqrt((x**2).mean(-1, keepdims=True))
        self.tie = min(self.tie, ((step / 2 - np.abs(x - rounded)) / size).min() / CACHE_ERROR)
        return rounded

    def rotate(self, i, x):
        """Rotary positions of [n, heads, values] in layer i."""
        return turn(x, *frequencies(self, i), self.neighbours)

    def qkv(self, p, x):
        """[n, heads, head_dim] each."""
        n_q, n_kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        if p + "attn_qkv.weight" in self.w:
            parts = np.split(self.linear(p + "attn_qkv", x), [n_q, n_q + n_kv], axis=1)
        else:
            parts = [self.linear(p + f"attn_{name}", x) for name in "qkv"]
        return [part.reshape(len(x), -1, self.head_dim) for part in parts]

    def window(self, i, pattern):
        """Of layer i, the n-th of every n sees all; 0: no window."""
        window = self.key("attention.sliding_window", self.default_window)
        pattern = self.key("attention.sliding_window_pattern", pattern)
        slides = pattern[i] if isinstance(pattern, list) else i % pattern < pattern - 1
        return window if slides else 0

    def mix(self, q, k, v, window=0, softcap=0, sinks=None):
        """What the heads read, [n, heads * values]; window 0: all that came before."""
        n, heads = q.shape[:2]
        k, v = (np.repeat(self.kept(m), heads // m.shape[1], axis=1) for m in (k, v))
        scores = np.einsum("ihd,jhd->hij", q, k) * self.score_scale
        if softcap:
            scores = softcap * np.tanh(scores / softcap)
        distance = np.arange(n)[:, None] - np.arange(n)
        scores[:, (distance < 0) | (distance >= (window or n))] = -np.inf
        if sinks is not None:  # one more score, behind which is nothing
            scores = np.concatenate((scores, np.broadcast_to(sinks[:, None, None], (heads, n, 1))), -1)
        return np.einsum("hij,jhd->ihd", softmax(scores)[..., :n], v).reshape(n, -1)

    def attention(self, i, p, x):
        q, k, v = self.qkv(p, x)
        return self.linear(p + "attn_output", self.mix(self.rotate(i, q), self.rotate(i, k), v))

    # ---- neurons ----

    def gated(self, p, ending, x, expert=None):
        gate, up = (self.linear(f"{p}ffn_{name}{ending}", x, expert) for name in ("gate", "up"))
        return self.linear(f"{p}ffn_down{ending}", self.activation(gate, up), expert)

    def route(self, p, x):
        """The chosen experts [n, k], the best first, and their weights. Notes how clear each token's choice was."""
        scores = self.gating(self.linear(p + "ffn_gate_inp", x))
        selection = scores + self.w.get(p + "exp_probs_b.bias", 0)
        clear = np.full(len(x), np.inf)
        groups, groups_used = self.key("expert_group_count", 1), self.key("expert_group_used_count", 1)
        if groups > 1:
            by_group = selection.reshape(len(x), groups, -1)
            best = np.sort(by_group, -1)[..., -2:].sum(-1)  # of a group: the sum of its two best
            clear = gap(best, groups_used)
            dropped = np.argsort(-best, -1)[:, groups_used:]
            np.put_along_axis(by_group, dropped[..., None], -np.inf, 1)
            selection = by_group.reshape(selection.shape)
        self.clear.append(np.minimum(clear, gap(selection, self.experts_used)))
        chosen = np.argsort(-selection, -1)[:, :self.experts_used]
        return chosen, self.weigh(np.take_along_axis(scores, chosen, -1))

    def weigh(self, scores):
        if self.weights_norm:
            scores = scores / scores.sum(-1, keepdims=True)
        return scores * self.weights_scale

    def experts(self, p, x, chosen, weights):
        y = np.zeros_like(x)
        for token, (ids, shares) in enumerate(zip(chosen, weights)):
            for e, share in zip(ids, shares):
                y[token] += share * self.expert(p, e, x[token])
        return y

    def expert(self, p, e, x):
        if p + "ffn_gate_up_exps.weight" in self.w:
            gate, up = np.split(self.linear(p + "ffn_gate_up_exps", x, e), 2)
            return self.linear(p + "ffn_down_exps", self.activation(gate, up), e)
        if p + f"ffn_gate.{e}.weight" in self.w:  # a tensor each
            gate, up = (self.linear(f"{p}ffn_{name}.{e}", x) for name in ("gate", "up"))
            return self.linear(f"{p}ffn_down.{e}", self.activation(gate, up))
        return self.gated(p, "_exps", x, e)

    def shared(self, p, x):
        return self.gated(p, "_shexp", x) if p + "ffn_up_shexp.weight" in self.w else 0

    def ffn(self, p, x):
        if p + "ffn_gate_inp.weight" not in self.w:
            return self.gated(p, "", x)
        return self.experts(p, x, *self.route(p, x)) + self.shared(p, x)

    # ---- the whole ----

    def embed(self, ids):
        return self.w["token_embd.weight"][ids]

    def layer(self, i, p, x):
        x = x + self.attention(i, p, self.norm(p + "attn_norm", x))
        return x + self.ffn(p, self.norm(p + self.ffn_norm, x))

    def head(self, x):
        return self.linear("output" if "output.weight" in self.w else "token_embd", x)

    def logits(self, ids):
        """[n, n_vocab] of the n tokens. Leaves in self.margin [n] how clear the closest choice of experts was, and in
        self.tie how far the value that was hardest to round lay from a tie, in errors of a program with f32."""
        self.clear, self.tie = [np.full(len(ids), np.inf)], np.inf
        x = self.embed(ids)
        for i in range(self.layers):
            x = self.layer(i, f"blk.{i}.", x)
        self.margin = np.min(self.clear, 0)
        return self.head(self.norm("output_norm", x))


def gap(scores, n):
    """Between the worst of the n best scores and the best of the others."""
    ordered = -np.sort(-scores, -1)
    return ordered[..., n - 1] - ordered[..., n] if n < scores.shape[-1] else np.full(len(scores), np.inf)
