#!/usr/bin/env python3
"""Writes what llama.cpp says about the test models, for tests that need no llama.cpp.

    pip install gguf numpy llama-cpp-python==0.3.36       (built from source, AMX off)
    python3 make_vectors.py tiny                          -> tiny.json, for the tiny-*.gguf of this folder
    python3 make_vectors.py smollm2 --smollm2 FILE        -> smollm2.json
    python3 make_vectors.py perplexity --smollm2 FILE     -> perplexity.json (minutes)

llama.cpp runs on the CPU with one thread, an f16 KV cache and without flash attention.

tiny.json: an object per model
    file, window (0: none), prompt [ids]
    logits: [{position, values [n_vocab]}], of the prompt's tokens and, in the end, of the last greedy token
    greedy: [{token, logit, second, second_logit}], 16 steps after the prompt; the last token was decoded as well. The
    prompt is one whose choices are all clear by a quarter; where that is less than `error`, a right implementation may
    still choose the second.
    error: the largest difference of these logits from those in exact arithmetic (float64, nothing but the weights
    quantised). llama.cpp quantises activations too, and rounds them to f16 or bf16 where the weights are.
smollm2.json: an object per prompt
    text, special (whether "<|im_start|>" in the text is a token), ids
    clear: no choice is closer than 0.2. Rounding activations to 8 bits moves the difference of two logits of this
    model by 0.15 (root mean square; against float64), so among close choices right programs part: llama.cpp with
    flash attention parts from llama.cpp without it on 6 of the 10 prompts that are not clear. Those are for comparing
    logits along the recorded tokens.
    steps: [[token, logit, second token, second logit]], up to 64; `ended` if an end token is the last of them
    top: [[token, logit]], the 20 best after the prompt
perplexity.json: as llama-perplexity does it. The text's tokens are cut into windows of n_ctx, what remains is left out;
of each window the tokens after the first half plus one are scored, so n_ctx / 2 - 1 of them.
"""
import argparse
import ctypes
import json
import math
import sys
from pathlib import Path

import llama_cpp.llama_cpp as lc
import numpy as np

HERE = Path(__file__).resolve().parent
N_PROMPT = 40
N_GREEDY = 16
PROMPT_POSITIONS = [0, 11, 24, N_PROMPT - 1]
MIN_MARGIN = 0.25  # of the greedy choices for the tiny models
MIN_DISTINCT = 8  # different tokens in the continuation of a tiny model


@lc.llama_log_callback
def quiet(level, text, user_data):
    pass


class Llama:
    def __init__(self, path, n_ctx, cache=lc.GGML_TYPE_F16):
        params = lc.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = lc.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            sys.exit(f"llama.cpp cannot load {path}")
        params = lc.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = n_ctx
        params.n_threads = params.n_threads_batch = 1
        params.flash_attn_type = 0
        params.type_k = params.type_v = cache
        self.context = lc.llama_init_from_model(self.model, params)
        self.memory = lc.llama_get_memory(self.context)
        self.vocab = lc.llama_model_get_vocab(self.model)
        self.n_vocab = lc.llama_vocab_n_tokens(self.vocab)
        self.batch = lc.llama_batch_init(n_ctx, 0, 1)

    def close(self):
        lc.llama_batch_free(self.batch)
        lc.llama_free(self.context)
        lc.llama_model_free(self.model)

    def clear(self):
        lc.llama_memory_clear(self.memory, True)

    def decode(self, tokens, first, wanted):
        """Logits [len(wanted), n_vocab] of the positions `wanted` (sorted, indices into tokens)."""
        self.batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            self.batch.token[i] = token
            self.batch.pos[i] = first + i
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = 0
            self.batch.logits[i] = i in wanted
        if lc.llama_decode(self.context, self.batch) != 0:
            sys.exit("llama_decode failed")
        return np.stack([np.ctypeslib.as_array(lc.llama_get_logits_ith(self.context, i), (self.n_vocab,)).copy()
                         for i in wanted])

    def tokenize(self, text, special):
        """Ids with the file's BOS and EOS rules."""
        data = text if isinstance(text, bytes) else text.encode()
        ids = (lc.llama_token * (len(data) + 8))()
        n = lc.llama_tokenize(self.vocab, data, len(data), ids, len(ids), True, special)
        return list(ids[:n])


def best_two(logits):
    """[token, logit, second, second_logit]; the lower id wins among equals."""
    order = np.argsort(-logits, kind="stable")[:2]
    return [int(order[0]), rounded(logits[order[0]]), int(order[1]), rounded(logits[order[1]])]


def rounded(x):
    return float(f"{float(x):.7g}")


# ---- the tiny models ----

class Windowed:
    """llama.cpp reads no window for arch llama; forgetting what lies behind it, token by token, is the same."""

    def __init__(self, llama, window):
        self.llama, self.window = llama, window

    def decode(self, tokens, first, wanted):
        if not self.window:
            return self.llama.decode(tokens, first, wanted)
        rows = []
        for i, token in enumerate(tokens):
            position = first + i
            lc.llama_memory_seq_rm(self.llama.memory, 0, 0, max(0, position - self.window + 1))
            rows.append(self.llama.decode([token], position, [0])[0])
        return np.stack([rows[i] for i in wanted])


def run_tiny(llama, window, seed):
    prompt = [int(i) for i in np.random.default_rng(seed).integers(3, llama.n_vocab - 4, N_PROMPT)]
    llama.clear()
    decoder = Windowed(llama, window)
    rows = decoder.decode(prompt, 0, PROMPT_POSITIONS)
    logits = [{"position": p, "values": row} for p, row in zip(PROMPT_POSITIONS, rows)]
    greedy = []
    for step in range(N_GREEDY):
        greedy.append(best_two(rows[-1]))
        rows = decoder.decode([greedy[-1][0]], N_PROMPT + step, [0])
    logits.append({"position": N_PROMPT + N_GREEDY - 1, "values": rows[-1]})
    return prompt, logits, greedy


def exact_logits(path, tokens):
    """All logits in float64, from the dequantised weights."""
    import gguf
    reader = gguf.GGUFReader(path)
    key = {name: field.contents() for name, field in reader.fields.items()}
    arch = key["general.architecture"]
    w = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float64) for t in reader.tensors}
    get = lambda name, default=None: key.get(f"{arch}.{name}", default)
    heads, kv, hd = get("attention.head_count"), get("attention.head_count_kv"), get("attention.key_length")
    eps, base = get("attention.layer_norm_rms_epsilon"), get("rope.freq_base")
    window = get("attention.sliding_window", 0)
    n = len(tokens)

    def norm(x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight

    freq = base ** (-np.arange(0, hd, 2) / hd) / w.get("rope_freqs.weight", 1)
    cos, sin = (f(np.arange(n)[:, None, None] * freq) for f in (np.cos, np.sin))

    def rope(x):
        out = np.empty_like(x)
        a, b = (slice(0, hd // 2), slice(hd // 2, hd)) if arch != "llama" else (slice(0, hd, 2), slice(1, hd, 2))
        out[..., a], out[..., b] = x[..., a] * cos - x[..., b] * sin, x[..., a] * sin + x[..., b] * cos
        return out

    distance = np.arange(n)[:, None] - np.arange(n)
    mask = np.where((distance >= 0) & (distance < (window or n)), 0, -np.inf)
    x = w["token_embd.weight"][tokens]
    for layer in range(get("block_count")):
        def t(name):
            return w[f"blk.{layer}.{name}"]

        def project(h, name):
            return h @ t(name + ".weight").T + w.get(f"blk.{layer}.{name}.bias", 0)

        h = norm(x, t("attn_norm.weight"))
        q = project(h, "attn_q").reshape(n, heads, hd)
        k, v = (project(h, name).reshape(n, kv, hd) for name in ("attn_k", "attn_v"))
        if arch == "qwen3":
            q, k = norm(q, t("attn_q_norm.weight")), norm(k, t("attn_k_norm.weight"))
        q, k = rope(q), np.repeat(rope(k), heads // kv, 1)
        scores = np.einsum("qhd,khd->hqk", q, k) / math.sqrt(hd) + mask
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        x = x + project(np.einsum("hqk,khd->qhd", p, np.repeat(v, heads // kv, 1)).reshape(n, -1), "attn_output")
        h = norm(x, t("ffn_norm.weight"))
        g = project(h, "ffn_gate")
        x = x + project(g / (1 + np.exp(-g)) * project(h, "ffn_up"), "ffn_down")
    return norm(x, w["output_norm.weight"]) @ w.get("output.weight", w["token_embd.weight"]).T


def make_tiny_vectors():
    from make_tiny import MODELS
    lines = []
    for name, options in MODELS.items():
        path = HERE / f"tiny-{name}.gguf"
        window = options.get("window", 0)
        llama = Llama(path, 128)
        for seed in range(1000):
            prompt, logits, greedy = run_tiny(llama, window, seed)
            margin = min(step[1] - step[3] for step in greedy)
            if margin >= MIN_MARGIN and len({step[0] for step in greedy}) >= MIN_DISTINCT:
                break
        else:
            sys.exit(f"tiny-{name}: no prompt with a clear continuation")
        llama.close()
        exact = exact_logits(path, prompt + [step[0] for step in greedy])
        error = max(np.abs(row["values"] - exact[row["position"]]).max() for row in logits)
        print(f"tiny-{name}: seed {seed}, least margin {margin:.3f}, error {error:.4f}", file=sys.stderr)
        for row in logits:
            row["values"] = [rounded(v) for v in row["values"]]
        lines.append(json.dumps({
            "file": path.name, "window": window, "prompt": prompt, "error": rounded(error),
            "greedy": [dict(zip(("token", "logit", "second", "second_logit"), step)) for step in greedy],
            "logits": logits}, separators=(",", ":")))
    (HERE / "tiny.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


# ---- SmolLM2 ----

def chatml(user, system="You are a helpful AI assistant named SmolLM, trained by Hugging Face"):
    return f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"


ENGLISH = ("The old clock in the hall struck nine as Maria closed her book and looked out of the window, where the "
           "rain had finally stopped and a thin moon was rising behind the trees of the park. She thought of her "
           "brother, who was travelling somewhere in the north, and wondered whether he had found a warm "
           "place to sleep.")
GERMAN = ("Der alte Müller stand am Fenster und sah hinaus auf den Fluss, der nach dem langen Regen hoch über die Ufer "
          "getreten war. Er dachte an seinen Sohn, der in der Stadt lebte und nur noch selten nach Hause kam, und an "
          "die Mühle, die bald niemand mehr brauchen würde.")
RUSSIAN = ("Москва является столицей России и самым большим городом страны. Город расположен на реке Москве в центре "
           "Восточно-Европейской равнины.")
JAPANESE = "東京は日本の首都であり、世界最大の都市の一つです。"

CLEAR_PROMPTS = [  # text, special
    (chatml("Count from 1 to 30, one number per line."), True),
    (chatml("Write a Java program that prints Hello, World!"), True),
    (chatml("Write a JSON object describing a person."), True),
    (f"{ENGLISH}\n\n{ENGLISH}\n\nThe old clock", False),
    (f"{GERMAN}\n\n{GERMAN}\n\nDer alte Müller", False),
    (f"{RUSSIAN}\n\n{RUSSIAN}\n\nМосква является", False),
    (f"{JAPANESE}\n{JAPANESE}\n東京は日", False),
    ("10, 20, 30, 40, 50, 60,", False),
    ("| a | b |\n|---|---|\n| 1 | 2 |\n", False),
    ("Mary had a little lamb,", False),
]
CLOSE_PROMPTS = [
    (chatml("Explain in a few sentences why the sky is blue."), True),
    (chatml("What are the main differences between cats and dogs?"), True),
    (chatml("Write a short story about a lighthouse keeper and a lost dog."), True),
    (chatml("List the planets of the solar system and describe each."), True),
    (chatml("Write a Python function that returns the n-th Fibonacci number."), True),
    ("The three laws of thermodynamics are", False),
    ("The history of the Roman Empire begins", False),
    ("#include <stdio.h>\n\nint main(void)\n{\n", False),
    ("Il était une fois, dans un petit village près de la mer,", False),
    ("Dear Sir or Madam,\n\n", False),
]


def make_smollm2_vectors(path):
    llama = Llama(path, 512)
    lines = []
    for text, special in CLEAR_PROMPTS + CLOSE_PROMPTS:
        clear = (text, special) in CLEAR_PROMPTS
        ids = llama.tokenize(text, special)
        llama.clear()
        logits = llama.decode(ids, 0, [len(ids) - 1])[0]
        order = np.argsort(-logits, kind="stable")[:20]
        top = [[int(i), rounded(logits[i])] for i in order]
        steps, ended = [], False
        while len(steps) < 64 and not ended:
            steps.append(best_two(logits))
            ended = bool(lc.llama_vocab_is_eog(llama.vocab, steps[-1][0]))
            logits = llama.decode([steps[-1][0]], len(ids) + len(steps) - 1, [0])[0]
        print(f"{text[-40:]!r}: {len(ids)} ids, {len(steps)} steps, least margin "
              f"{min(s[1] - s[3] for s in steps):.3f}", file=sys.stderr)
        lines.append(json.dumps({
            "text": text, "special": special, "clear": clear, "ids": ids, "top": top, "ended": ended, "steps": steps,
        }, ensure_ascii=False, separators=(",", ":")))
    llama.close()
    (HERE / "smollm2.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


def make_perplexity(path, n_ctx=512):
    text = HERE / "text/licences.txt"
    llama = Llama(path, n_ctx)
    tokens = llama.tokenize(text.read_bytes(), False)
    windows, first = len(tokens) // n_ctx, n_ctx // 2
    add_bos = lc.llama_vocab_get_add_bos(llama.vocab)
    nll, scored = 0.0, 0
    for i in range(windows):
        window = tokens[i * n_ctx:(i + 1) * n_ctx]
        fed = [lc.llama_vocab_bos(llama.vocab)] + window[1:] if add_bos else window
        llama.clear()
        logits = llama.decode(fed, 0, range(first, n_ctx - 1)).astype(np.float64)
        top = logits.max(1)
        log_sum = top + np.log(np.exp(logits - top[:, None]).sum(1))
        nll += float((log_sum - logits[np.arange(len(logits)), window[first + 1:]]).sum())
        scored += len(logits)
        print(f"{i + 1}/{windows} {math.exp(nll / scored):.4f}", file=sys.stderr)
    llama.close()
    (HERE / "perplexity.json").write_text(json.dumps({
        "text": "text/licences.txt", "n_ctx": n_ctx, "perplexity": rounded(math.exp(nll / scored)),
        "tokens": len(tokens), "windows": windows, "scored": scored}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tiny", "smollm2", "perplexity"])
    parser.add_argument("--smollm2", help="SmolLM2-135M-Instruct.Q4_1.gguf")
    args = parser.parse_args()
    if args.what != "tiny" and not args.smollm2:
        parser.error("--smollm2 is needed")
    lc.llama_log_set(quiet, ctypes.c_void_p(0))
    lc.llama_backend_init()
    if args.what == "tiny":
        make_tiny_vectors()
    elif args.what == "smollm2":
        make_smollm2_vectors(args.smollm2)
    else:
        make_perplexity(args.smollm2)


if __name__ == "__main__":
    main()
