#!/usr/bin/env python3
"""What a model of the families below says, in float64 from the file's weights: short, slow, and without a thought
shared with the program that it checks. Each family is a class of what differs from the plain model of
reference_llama.py; rotary positions are in rotary.py.

    pip install gguf numpy
    python3 reference_models.py FILE [--activation relu] ID...        the last token's ten best
"""
import argparse
import math
from pathlib import Path

import gguf
import numpy as np

from reference import ACTIVATIONS
from reference_llama import Llama, sigmoid, softmax
from rotary import frequencies, turn


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

    def inward(self, p, q):
        """Queries [n, heads, values] in the space of c."""
        if p + "attn_k_b.weight" in self.w:
            return np.einsum("nhd,hrd->nhr", self.read(p + "attn_k_b", q), self.w[p + "attn_k_b.weight"])
        both = self.w[p + "attn_kv_b.weight"].reshape(self.heads, -1, self.rank)
        return np.einsum("nhd,hdr->nhr", q, both[:, :self.plain])

    def outward(self, p, mixed):
        """What heads read of c, [n, heads, rank], as values."""
        if p + "attn_v_b.weight" in self.w:
            return np.einsum("nhr,hvr->nhv", self.read(p + "attn_v_b", mixed), self.w[p + "attn_v_b.weight"])
        both = self.w[p + "attn_kv_b.weight"].reshape(self.heads, -1, self.rank)
        return np.einsum("nhr,hvr->nhv", mixed, both[:, self.plain:])

    def attention(self, i, p, x):
        n = len(x)
        if p + "attn_q_a.weight" in self.w:
            q = self.linear(p + "attn_q_b", self.norm(p + "attn_q_a_norm", self.linear(p + "attn_q_a", x)))
        else:
            q = self.linear(p + "attn_q", x)
        q = q.reshape(n, self.heads, self.head_dim)
        c, key = np.split(self.linear(p + "attn_kv_a_mqa", x), [self.rank], axis=1)
        c, key = self.norm(p + "attn_kv_a_norm", c)[:, None], self.rotate(i, key[:, None])
        q = np.concatenate((self.inward(p, q[..., :self.plain]), self.rotate(i, q[..., self.plain:])), -1)
        mixed = self.mix(q, np.concatenate((c, key), -1), c).reshape(n, self.heads, self.rank)
        return self.linear(p + "attn_output", self.outward(p, mixed).reshape(n, -1))


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


class Qwen3Next(Qwen2Moe):
    """Attention whose output has a gate, and, in most layers, a gated delta net instead: a matrix of every head that
    forgets, is corrected towards v where k points, and is read where q points."""
    ffn_norm, weights_norm = "post_attention_norm", True

    def setup(self):
        self.key_heads, self.value_heads = self.key("ssm.group_count"), self.key("ssm.time_step_rank")
        self.state = self.key("ssm.state_size")

    def attention(self, i, p, x):
        if (i + 1) % self.key("full_attention_interval", 4):
            return self.delta_net(p, x)
        n, hd = len(x), self.head_dim
        q, gate = np.split(self.linear(p + "attn_q", x).reshape(n, self.heads, 2 * hd), 2, axis=-1)
        k, v = (self.linear(p + name, x).reshape(n, -1, hd) for name in ("attn_k", "attn_v"))
        q, k = self.norm(p + "attn_q_norm", q), self.norm(p + "attn_k_norm", k)
        mixed = self.mix(self.rotate(i, q), self.rotate(i, k), v)
        return self.linear(p + "attn_output", mixed * sigmoid(gate.reshape(n, -1)))

    def key_head(self, value_head):
        return value_head // (self.value_heads // self.key_heads)

    def beta_alpha(self, p, x):
        """[n, value heads] each, from runs of a key head."""
        both = self.linear(p + "ssm_ba", x).reshape(len(x), self.key_heads, 2, -1)
        return both[:, :, 0].reshape(len(x), -1), both[:, :, 1].reshape(len(x), -1)

    def convolved(self, p, x):
        """Of each channel the last values by its taps, the newest by the last; then SiLU."""
        taps = self.w[p + "ssm_conv1d.weight"]
        padded = np.concatenate((np.zeros((taps.shape[1] - 1, x.shape[1])), x))
        y = sum(padded[t:t + len(x)] * taps[:, t] for t in range(taps.shape[1]))
        return y * sigmoid(y)

    def delta_net(self, p, x):
        n, size = len(x), self.state
        mixed = self.convolved(p, self.linear(p + "attn_qkv", x)).reshape(n, -1, size)
        q, k, v = np.split(mixed, [self.key_heads, 2 * self.key_heads], axis=1)
        q, k = (m / np.sqrt((m**2).sum(-1, keepdims=True) + self.eps) for m in (q, k))
        beta, alpha = self.beta_alpha(p, x)
        decay = np.exp(self.w[p + "ssm_a"] * np.log1p(np.exp(alpha + self.w[p + "ssm_dt.bias"])))
        out = np.empty((n, self.value_heads, size))
        for head in range(self.value_heads):
            s, of = np.zeros((size, size)), self.key_head(head)
            for t in range(n):
                s = s * decay[t, head]
                s = s + np.outer(k[t, of], sigmoid(beta[t, head]) * (v[t, head] - k[t, of] @ s))
                out[t, head] = q[t, of] @ s / math.sqrt(size)
        z = self.linear(p + "attn_gate", x).reshape(out.shape)
        return self.linear(p + "ssm_out", (self.norm(p + "ssm_norm", out) * z * sigmoid(z)).reshape(n, -1))


class Qwen35Moe(Qwen3Next):
    """As Qwen3Next, but value heads take the key heads in turn, and beta and alpha have a matrix each."""

    def key_head(self, value_head):
        return value_head % self.key_heads

    def beta_alpha(self, p, x):
        return self.linear(p + "ssm_beta", x), self.linear(p + "ssm_alpha", x)


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
    "qwen3next": Qwen3Next,
    "qwen35moe": Qwen35Moe,
    "qwen35": Qwen35Moe,  # without experts
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
