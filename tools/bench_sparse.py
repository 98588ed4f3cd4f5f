#!/usr/bin/env python3
"""Measures hearth's sparse modes against hearth dense and llama.cpp, and writes their part of docs/benchmarks.md.

    venv/bin/python tools/bench_sparse.py --build build/release

bench_vs_llamacpp.py says how to make the venv. The models are made by hearth-synth, the neuron file by hearth prepare
on a text of the made-up vocabulary, where they are missing: 6 GB in --model-dir. Every measurement is a process of its
own that warms up first, and the contestants take turns. llama.cpp runs the same file with its SiLU: it computes every
neuron whatever the activation.
"""
import argparse
import json
import random
import subprocess
from pathlib import Path

from bench_vs_llamacpp import run_llama
from benchmark import PAGE, ROOT, facts, interleave, table, with_goal, write_section

BATCH = 8       # tokens of the prompt
Q4_0 = 18 / 32  # bytes of a weight
# Predictors of recall 0.98, whose accuracy does not matter here; an MLP may not grow for its sake.
PREPARE = ["--miss", "0.015", "--recall", "0.98", "--accuracy", "0.9", "--mlp-size", "1", "--samples", "2048",
           "--epochs", "8", "--chunks", "5"]
# Of a row's bytes in the layout of two parts: scales and the top 2 bits of a code, and the other 2.
TOP, REST = 10 / 18, 8 / 18


class Model:
    def __init__(self, title, file, synth, d, d_ff, vocab, layers, gates, predictors=()):
        self.title, self.file, self.synth = title, file, synth
        self.d, self.d_ff, self.vocab, self.layers, self.gates = d, d_ff, vocab, layers, gates
        self.predictors = predictors

    def matrix_bytes(self):
        """Of one FFN matrix: dm of the formulas."""
        return self.d * self.d_ff * Q4_0

    def dense_bytes(self):
        """All that a token reads: attention, FFNs, output matrix (norms and biases are next to nothing)."""
        return self.layers * (4 * self.d * self.d * Q4_0 + self.ffn_matrices() * self.matrix_bytes()) \
            + self.vocab * self.d * Q4_0

    def ffn_matrices(self):
        return 2 + self.gates

    def sparse_bytes(self, ffn):
        """The same where a layer's FFN reads `ffn` times the bytes of one matrix."""
        return self.dense_bytes() - self.layers * (self.ffn_matrices() - ffn) * self.matrix_bytes()


def models(layers):
    shape_7b = dict(d=4096, d_ff=11008, vocab=32000, layers=layers, gates=1)
    shape_opt = dict(d=4096, d_ff=16384, vocab=50272, layers=layers, gates=0)
    return {
        "reglu": Model(f"7B shape, {layers} layers, ReGLU, live 0.10", f"7b-{layers}l-reglu-q4_0.gguf",
                       ["--shape", "7b", "--ffn", "reglu", "--live", "0.1"], predictors=("mlp", "planes"), **shape_7b),
        "opt": Model(f"OPT 6.7B shape, {layers} layers, no gate, live 0.02", f"opt-{layers}l-relu-live02-q4_0.gguf",
                     ["--shape", "opt-6.7b", "--live", "0.02"], **shape_opt),
        "all": Model(f"7B shape, {layers} layers, ReGLU, live 1.0", f"7b-{layers}l-reglu-live1-q4_0.gguf",
                     ["--shape", "7b", "--ffn", "reglu", "--live", "1.0"], **shape_7b),
    }


def find_model(args, model):
    path = args.model_dir / model.file
    if not path.exists():
        args.model_dir.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part") # a file that was measured and found right gets its name
        subprocess.run([args.build / "hearth-synth", *model.synth, "--type", "q4_0", "--layers", str(model.layers),
                        "-o", part], check=True)
        part.rename(path)
    return path


def word(n):
    """The n-th word of hearth-synth's vocabulary, from 1: a, b, ..., z, aa, ..."""
    text = ""
    while n > 0:
        text = chr(ord("a") + (n - 1) % 26) + text
        n = (n - 1) // 26
    return text


def find_neurons(args, path, model):
    """The neuron file of a model, prepared on random words where it is missing. What inspect says of it."""
    neurons = path.with_suffix(".neurons.gguf")
    if not neurons.exists():
        draw = random.Random(1)
        text = path.with_suffix(".txt")
        words = (model.vocab - 260) // 2
        text.write_text("\n".join(" ".join(word(draw.randint(1, words)) for _ in range(20))
                                  for _ in range(args.prepare_tokens // 20)) + "\n")
        subprocess.run([args.hearth, "prepare", "-m", path, "-f", text, "--activation", "relu", *PREPARE], check=True)
    found = subprocess.run([args.hearth, "inspect", neurons, "-o", "json"], check=True, stdout=subprocess.PIPE).stdout
    return json.loads(found)


# ---- what is measured, and what is expected ----

def run_hearth(args, path, threads, mode, predictor=None):
    command = [args.hearth, "bench", "-m", path, "-p", str(BATCH), "-n", str(args.tokens), "-r", "3", "-t",
               str(threads), "-q", "-o", "json", "--activation", "relu", "--sparse", mode]
    command += ["--predictor", predictor] if predictor else []
    rows = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    by_test = {row["test"]: row for row in rows}
    prompt, decode = by_test[f"pp{BATCH}"], by_test[f"tg{args.tokens}"]
    return {"prompt": prompt["tokens_per_s"], "decode": decode["tokens_per_s"], "live": decode["live"],
            "bytes": decode["bytes_per_token"], "peak": decode["peak_read_gb_per_s"]}


def mean(neurons, predictor, key):
    return sum(layer[predictor][key] for layer in neurons["layer"]) / len(neurons["layer"])


def formula(model, side, live, neurons):
    """FFN bytes of a layer in units of one matrix, and how that is written."""
    if side == "exact":
        return 1 + (1 + model.gates) * live, "1 + 2a" if model.gates else "1 + a"
    if side == "mlp":
        predictor = neurons["mlp_bytes"] / model.layers / model.matrix_bytes()
        return predictor + mean(neurons, "mlp", "flagged") + 2 * live, "pred + f + 2a"
    if side == "planes":
        return TOP + REST * mean(neurons, "planes", "flagged") + 2 * live, ".56 + .44f + 2a"
    return model.ffn_matrices(), str(model.ffn_matrices())


def sides_of(args, model, path, threads):
    sides = {}
    if args.llama and not model.synth[1].startswith("opt"): # llama.cpp has no opt
        sides["llama.cpp"] = lambda: run_llama(path, threads, BATCH, args.tokens)
    sides["dense"] = lambda: run_hearth(args, path, threads, "dense")
    sides["exact"] = lambda: run_hearth(args, path, threads, "exact")
    for p in model.predictors:
        sides[p] = lambda predictor=p: run_hearth(args, path, threads, "predicted", predictor)
    return sides


GOALS = { # decoding, times hearth dense
    ("reglu", "exact"): 1.45, ("reglu", "mlp"): 1.75, ("reglu", "planes"): 1.75, ("opt", "exact"): 1.35,
    ("all", "exact"): 0.97,
}
PROMPT_GOALS = {("reglu", "exact"): 1.2}


def ratio_text(name, side, goals, ours, dense):
    goal = goals.get((name, side))
    return with_goal(ours / dense, goal) if goal else f"{ours / dense:.2f}"


def table_rows(name, model, threads, result, neurons):
    rows = []
    dense = result["dense"]
    for side, m in result.items():
        row = [model.title, threads, side if side == "llama.cpp" else f"hearth {side}", f"{m['decode']:.2f}",
               ratio_text(name, side, GOALS, m["decode"], dense["decode"]), f"{m['prompt']:.1f}",
               ratio_text(name, side, PROMPT_GOALS, m["prompt"], dense["prompt"])]
        if side == "llama.cpp":
            row += [""] * 5
        else:
            ffn, written = formula(model, side, m["live"], neurons)
            expected = model.sparse_bytes(ffn)
            error = m["bytes"] / expected - 1
            row += [f"{m['live']:.3f}", f"{m['bytes'] * 1e-6:.0f}", f"{expected * 1e-6:.0f} ({written})",
                    f"{100 * error:+.1f} %{'' if abs(error) <= 0.1 else ' (more than 10)'}",
                    f"{100 * m['decode'] * m['bytes'] * 1e-9 / m['peak']:.0f} %"]
        rows.append(row)
    return rows


def predictor_rows(model, neurons):
    return [[model.title, p, f"{neurons['mlp_bytes'] * 1e-6:.0f}" if p == "mlp" else "0"] +
            [f"{mean(neurons, p, key):.3f}" for key in ("recall", "precision", "accuracy", "flagged")]
            for p in model.predictors]


# ---- the page ----

def write_report(args, rows, predictors):
    parts = [
        "Written by `tools/bench_sparse.py`:",
        "```\nvenv/bin/python tools/bench_sparse.py --build build/release\n```",
        facts(args.repeat),
        "Models of random weights, all Q4_0 (`hearth-synth --ffn reglu --live 0.1`, ...). Decoding"
        f" {args.tokens} tokens one by one, and prompts of {BATCH} tokens in one batch, in tok/s; ratios are to hearth"
        " dense in the same run. The bytes that a token reads are counted while decoding; beside them what the formula"
        " gives for attention, output and, per layer, so many times the bytes of an FFN matrix (a: live share as"
        " counted, f: share that the predictor flags, pred: its own bytes). Of peak: these bytes times tokens per"
        " second, over the read bandwidth that as many threads reach.",
        table(["model", "threads", "", "decode", "ratio", f"prompt of {BATCH}", "ratio", "live",
               "MB a token", "formula", "off by", "of peak"], rows),
    ]
    if predictors:
        parts += [f"The predictors (`hearth prepare {' '.join(PREPARE)}` on {args.prepare_tokens} random words), as"
                  " measured on tokens that they were not fitted on, means over the layers:",
                  table(["model", "predictor", "MB", "recall", "precision", "accuracy", "flagged"], predictors)]
    write_section(args.output, "Only the neurons that fire", parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build/release", help="has hearth and hearth-synth")
    parser.add_argument("--model-dir", type=Path, default=ROOT / "models", help="models and neuron files lie there")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=5, help="runs of each contestant (default 5)")
    parser.add_argument("--tokens", type=int, default=16, help="decoded tokens, three times a run (default 16)")
    parser.add_argument("--layers", type=int, default=16, help="of the models (default 16)")
    parser.add_argument("--models", nargs="+", choices=["reglu", "opt", "all"], default=["reglu", "opt", "all"])
    parser.add_argument("--prepare-tokens", type=int, default=6000, help="words of the text for prepare (default 6000)")
    parser.add_argument("--no-llama", dest="llama", action="store_false", help="hearth alone")
    parser.add_argument("--no-predicted", action="store_true", help="exact alone, without a neuron file")
    parser.add_argument("--print", dest="print_only", action="store_true", help="print the table, write nothing")
    parser.add_argument("--output", type=Path, default=PAGE)
    args = parser.parse_args()
    args.hearth = args.build / "hearth"

    rows, predictors = [], []
    chosen = {name: model for name, model in models(args.layers).items() if name in args.models}
    for name, model in chosen.items():
        path = find_model(args, model)
        if args.no_predicted:
            model.predictors = ()
        neurons = find_neurons(args, path, model) if model.predictors else None
        predictors += predictor_rows(model, neurons)
        for threads in args.threads:
            result = interleave(args.repeat, sides_of(args, model, path, threads), f"{model.title}, {threads} threads")
            rows += table_rows(name, model, threads, result, neurons)
    if args.print_only:
        print(table(["model", "threads", "", "decode", "ratio", f"prompt of {BATCH}", "ratio", "live", "MB a token",
                     "formula", "off by", "of peak"], rows))
        print(table(["model", "predictor", "MB", "recall", "precision", "accuracy", "flagged"], predictors))
        return
    write_report(args, rows, predictors)


if __name__ == "__main__":
    main()
