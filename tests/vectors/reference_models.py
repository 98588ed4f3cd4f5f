#!/usr/bin/env python3
"""What a model of the families below says, in float64 from the file's weights (what caches hold rounded to f16):
short, slow, and without a thought shared with the program that it checks. `Llama` is the whole of a plain model, with
or without experts; each other family is a class of what differs. Rotary positions are in rotary.py.

    pip install gguf numpy
    python3 reference_models.py FILE [--activation relu] ID...        the last token's ten best
"""
import argparse
import math
from pathlib import Path

import gguf
import numpy as np

from reference import ACTIVATIONS, int8
from rotary import frequencies, turn

FLOATS = (0, 1, 30)  # F32, F16, BF16


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
        self.layers, self.d, self.heads = key("block_count"), key("embedding_length"), key("attention.head_count")
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

    def linear(self, name, x, expert=None):
        pick = (lambda t: t) if expert is None else (lambda t: t[expert])
        if self.quantised[name + ".weight"]:
            x = int8(x)
        y = x @ pick(self.w[name + ".weight"]).T
        return y + pick(self.w[name + ".bias"]) if name + ".bias" in self.w else y

    def rms(self, x, weight=1):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + self.eps) * weight

    def norm(self, name, x):
        return self.rms(x, self.w[name + ".weight"])

    def kept(self, x):
        return x.astype(self.cache).astype(np.float64)

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
        """[n, n_vocab] of the n tokens. Leaves in self.margin [n] how clear the closest choice of experts was."""
        self.clear = [np.full(len(ids), np.inf)]
        x = self.embed(ids)
        for i in range(self.layers):
            x = self.layer(i, f"blk.{i}.", x)
        self.margin = np.min(self.clear, 0)
        return self.head(self.norm("output_norm", x))


def gap(scores, n):
    """Between the worst of the n best scores and the best of the others."""
    ordered = -np.sort(-scores, -1)
    return ordered[..., n - 1] - ordered[..., n] if n < scores.shape[-1] else np.full(len(scores), np.inf)


class Qwen3Moe(Llama):
    """q and k normed per head before they are turned."""
    neighbours = False

    def qkv(self, p, x):
        q, k, v = super().qkv(p, x)
        return self.norm(p + "attn_q_norm", q), self.norm(p + "attn_k_norm", k), v


class Qwen2Moe(Llama):
    """Weights as the softmax over all experts gives them; the shared neurons have a gate of their own."""
    neighbours, weights_norm = False, False

    def shared(self, p, x):
        return sigmoid(x @ self.w[p + "ffn_gate_inp_shexp.weight"])[:, None] * super().shared(p, x)


class GptOss(Llama):
    """Sinks, every other layer looks through a window, the choice is among logits, and an activation of its own."""
    neighbours, ffn_norm = False, "post_attention_norm"
    gating = staticmethod(lambda logits: logits)

    def setup(self):
        self.activation = self.clamped

    @staticmethod
    def clamped(gate, up):
        gate, up = np.minimum(gate, 7), np.clip(up, -7, 7)
        return (up + 1) * gate * sigmoid(1.702 * gate)

    def weigh(self, scores):
        return softmax(scores)

    def attention(self, i, p, x):
        q, k, v = self.qkv(p, x)
        mixed = self.mix(self.rotate(i, q), self.rotate(i, k), v, self.window(i, 2),
                         sinks=self.w[p + "attn_sinks.weight"])
        return self.linear(p + "attn_output", mixed)


class Glm4Moe(Llama):
    """Part of a head is turned; sigmoid gates, a bias for choosing, shared neurons, leading layers without experts."""
    neighbours, ffn_norm = False, "post_attention_norm"
    gating = staticmethod(sigmoid)

    def setup(self):
        self.weights_norm = self.key("expert_weights_norm", False)
        self.weights_scale = self.key("expert_weights_scale", 0) or 1

    def qkv(self, p, x):
        q, k, v = super().qkv(p, x)
        if p + "attn_q_norm.weight" in self.w:
            q, k = self.norm(p + "attn_q_norm", q), self.norm(p + "attn_k_norm", k)
        return q, k, v


class DeepSeek2(Llama):
    """Latent attention in its absorbed form: of a token are kept c, from which every head makes its keys and values,
    and one turned key; heads bring their queries into the space of c and what they read of it back."""

    def setup(self):
        self.gating = {1: softmax, 2: sigmoid}[self.key("expert_gating_func", 1)]
        self.weights_norm = self.key("expert_weights_norm", False)
        self.weights_scale = self.key("expert_weights_scale", 0) or 1
        self.rank = self.key("attention.kv_lora_rank")
        self.head_dim = self.key("attention.key_length_mla", self.head_dim)
        self.plain = self.head_dim - self.n_rot  # values of a query that are not turned
        factor = self.key("rope.scaling.factor", 1.0)
        multiplier = self.key("rope.scaling.yarn_log_multiplier", 0)
        m = 1 + (multiplier or 0.1) * math.log(factor)
        self.score_scale = m * m / math.sqrt(self.head_dim)
        if multiplier:
            self.yarn_magnitude = 1

    def absorbed(self, p):
        """Of each head: from queries to the space of c, and from there to values."""
        if p + "attn_k_b.weight" in self.w:
            return self.w[p + "attn_k_b.weight"], self.w[p + "attn_v_b.weight"]
        both = self.w[p + "attn_kv_b.weight"].reshape(self.heads, -1, self.rank)
        return both[:, :self.plain].swapaxes(1, 2), both[:, self.plain:]

    def attention(self, i, p, x):
        n = len(x)
        if p + "attn_q_a.weight" in self.w:
            q = self.linear(p + "attn_q_b", self.norm(p + "attn_q_a_norm", self.linear(p + "attn_q_a", x)))
        else:
            q = self.linear(p + "attn_q", x)
        q = q.reshape(n, self.heads, self.head_dim)
        c, key = np.split(self.linear(p + "attn_kv_a_mqa", x), [self.rank], axis=1)
        c, key = self.norm(p + "attn_kv_a_norm", c)[:, None], self.rotate(i, key[:, None])
        k_b, v_b = self.absorbed(p)
        inward = np.einsum("nhd,hrd->nhr", q[..., :self.plain], k_b)
        q = np.concatenate((inward, self.rotate(i, q[..., self.plain:])), -1)
        mixed = self.mix(q, np.concatenate((c, key), -1), c).reshape(n, self.heads, self.rank)
        return self.linear(p + "attn_output", np.einsum("nhr,hvr->nhv", mixed, v_b).reshape(n, -1))


class SmallThinker(Llama):
    """The router reads what the layer begins with, before norm and attention; every fourth layer has no positions."""
    neighbours = False

    def setup(self):
        self.activation = ACTIVATIONS["relu"]
        self.gating = {1: softmax, 2: sigmoid}[self.key("expert_gating_func")]
        self.slides = self.key("attention.sliding_window", 0) > 0

    def attention(self, i, p, x):
        q, k, v = self.qkv(p, x)
        if self.slides and i % 4 == 0:
            return self.linear(p + "attn_output", self.mix(q, k, v))
        window = 4096 if self.slides else 0
        return self.linear(p + "attn_output", self.mix(self.rotate(i, q), self.rotate(i, k), v, window))

    def layer(self, i, p, x):
        choice = self.route(p, x)
        x = x + self.attention(i, p, self.norm(p + "attn_norm", x))
        return x + self.experts(p, self.norm(p + "ffn_norm", x), *choice)


class Gemma2(Llama):
    """Norms before and after attention and neurons; scores and logits bent by tanh; every other layer slides."""
    neighbours, pattern = False, 2

    def setup(self):
        self.activation = lambda g, u: 0.5 * g * (1 + np.tanh(math.sqrt(2 / math.pi) * (g + 0.044715 * g**3))) * u
        self.default_window = 4096

    def embed(self, ids):
        return super().embed(ids) * math.sqrt(self.d)

    def attention(self, i, p, x):
        q, k, v = self.qkv(p, x)
        mixed = self.mix(self.rotate(i, q), self.rotate(i, k), v, self.window(i, self.pattern),
                         softcap=self.key("attn_logit_softcapping", 50.0))
        return self.linear(p + "attn_output", mixed)

    def layer(self, i, p, x):
        y = self.attention(i, p, self.norm(p + "attn_norm", x))
        x = x + self.norm(p + "post_attention_norm", y)
        return x + self.norm(p + "post_ffw_norm", self.ffn(p, self.norm(p + "ffn_norm", x)))

    def head(self, x):
        cap = self.key("final_logit_softcapping", 30.0)
        return cap * np.tanh(self.linear("token_embd", x) / cap)


class Gemma3(Gemma2):
    """As Gemma2, but q and k are normed per head and nothing is bent; sliding layers turn by their own base, and only
    the others are scaled."""
    pattern = 6

    def setup(self):
        super().setup()
        self.default_window = 0

    def qkv(self, p, x):
        q, k, v = super().qkv(p, x)
        return self.norm(p + "attn_q_norm", q), self.norm(p + "attn_k_norm", k), v

    def rotate(self, i, x):
        if not self.window(i, self.pattern):
            return super().rotate(i, x)
        return turn(x, *frequencies(self, i, self.key("rope.freq_base_swa", 10000.0), scaled=False), self.neighbours)

    def attention(self, i, p, x):
        q, k, v = self.qkv(p, x)
        return self.linear(p + "attn_output", self.mix(self.rotate(i, q), self.rotate(i, k), v,
                                                       self.window(i, self.pattern)))

    def head(self, x):
        y, cap = self.linear("token_embd", x), self.key("final_logit_softcapping", 0)
        return cap * np.tanh(y / cap) if cap else y


class Phi3(Llama):
    """Gates and ups in one matrix; the window that its files name is not used."""
    neighbours = False

    def gated(self, p, ending, x, expert=None):
        gate, up = np.split(self.linear(p + "ffn_up", x), 2, axis=1)
        return self.linear(p + "ffn_down", self.activation(gate, up))


class Mistral3(Llama):
    """Queries of later positions are made larger, in steps of the original context."""

    def setup(self):
        self.yarn_betas = (self.key("rope.scaling.yarn_beta_fast", 32.0), self.key("rope.scaling.yarn_beta_slow", 1.0))
        s, multiplier = self.key("rope.scaling.factor", 1.0), self.key("rope.scaling.yarn_log_multiplier", 0)
        if multiplier:
            self.yarn_magnitude = (0.1 * math.log(s) + 1) / (0.1 * multiplier * math.log(s) + 1)

    def attention(self, i, p, x):
        q, k, v = self.qkv(p, x)
        q, k = self.rotate(i, q), self.rotate(i, k)
        steps = np.arange(len(x)) // self.key("rope.scaling.original_context_length", 1)
        q = q * (1 + self.key("attention.temperature_scale", 0) * np.log(1 + steps))[:, None, None]
        return self.linear(p + "attn_output", self.mix(q, k, v))


class Granite(Llama):
    """Factors on the embedding, on scores, on what is added to the stream, and under the logits."""

    def setup(self):
        self.score_scale = self.key("attention.scale", 0) or self.score_scale

    def embed(self, ids):
        return super().embed(ids) * (self.key("embedding_scale", 0) or 1)

    def layer(self, i, p, x):
        r = self.key("residual_scale", 0) or 1
        x = x + r * self.attention(i, p, self.norm(p + "attn_norm", x))
        return x + r * self.ffn(p, self.norm(p + "ffn_norm", x))

    def head(self, x):
        return super().head(x) / self.key("logit_scale")


class Olmo2(Llama):
    """q and k normed over all heads at once; norms only after attention and neurons."""
    neighbours = False

    def attention(self, i, p, x):
        q, k, v = (self.linear(p + f"attn_{name}", x) for name in "qkv")
        q, k = self.norm(p + "attn_q_norm", q), self.norm(p + "attn_k_norm", k)
        q, k, v = (m.reshape(len(x), -1, self.head_dim) for m in (q, k, v))
        window = self.window(i, 4)
        q, k = (turn(m, *frequencies(self, i, scaled=not window), self.neighbours) for m in (q, k))
        return self.linear(p + "attn_output", self.mix(q, k, v, window))

    def layer(self, i, p, x):
        x = x + self.norm(p + "post_attention_norm", self.attention(i, p, x))
        return x + self.norm(p + "post_ffw_norm", self.ffn(p, x))


class SmolLm3(Llama):
    """The last of every four layers has no positions."""

    def rotate(self, i, x):
        return x if i % 4 == 3 else super().rotate(i, x)


FAMILIES = {
    "llama": Llama,
    "qwen3moe": Qwen3Moe,
    "qwen2moe": Qwen2Moe,
    "gpt-oss": GptOss,
    "glm4moe": Glm4Moe,
    "deepseek2": DeepSeek2,
    "smallthinker": SmallThinker,
    "gemma2": Gemma2,
    "gemma3": Gemma3,
    "phi3": Phi3,
    "mistral3": Mistral3,
    "granite": Granite,
    "olmo2": Olmo2,
    "smollm3": SmolLm3,
}


def load(path, **options):
    reader = gguf.GGUFReader(path)
    return FAMILIES[reader.fields["general.architecture"].contents()](path, **options)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("ids", type=int, nargs="+")
    parser.add_argument("--activation", choices=ACTIVATIONS)
    o = parser.parse_args()
    model = load(o.file)
    model.activation = ACTIVATIONS.get(o.activation, model.activation)
    last = model.logits(o.ids)[-1]
    for i in np.argsort(-last)[:10]:
        print(f"{i:6d} {last[i]:9.4f}")


if __name__ == "__main__":
    main()
