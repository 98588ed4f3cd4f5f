#!/usr/bin/env python3
"""Measures what each sparse mode costs and gains on two real models, and writes the two tables of docs/sparsity.md.

    tools/measure_modes.py --build build/release --relu smollm2-135m-relu.Q8_0.gguf \\
        --silu SmolLM2-135M-Instruct.Q4_1.gguf

Neuron files are made by hearth prepare on the text that comes with hearth, in --work, where they are missing (this
takes most of the time). Perplexities are of that text too, of its first --relu-windows or --silu-windows of 512 tokens,
the second half of each scored; those of the ReLU model are prepare's own. Speeds are medians of --repeat processes that
take turns, one token at a time, one thread.
"""
import argparse
import json
import subprocess
from pathlib import Path

from benchmark import ROOT, facts, interleave, say, table

PAGE = ROOT / "docs/sparsity.md"
TEXT = ROOT / "tests/vectors/text/licences.txt"
SHARES = [10, 20, 30, 40, 50, 60, 70]
QUALITIES = ["recall", "precision", "accuracy", "flagged"]


def hearth(args, *arguments):
    """What a command prints as JSON."""
    command = [args.build / "hearth", *arguments, "-o", "json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def prepared(args, model, *more):
    """The neuron file of a model, and what inspect says of it."""
    neurons = args.work / (model.stem + ".neurons.gguf")
    if not neurons.exists():
        args.work.mkdir(parents=True, exist_ok=True)
        say(f"preparing {neurons}")
        subprocess.run([args.build / "hearth", "prepare", "-m", model, "-f", TEXT, "--neurons", neurons, *more],
                       check=True)
    return neurons, hearth(args, "inspect", neurons)


def speed(args, model, neurons, mode):
    row, = hearth(args, "bench", "-q", "-m", model, "--neurons", neurons, "-t", "1", "-p", "0", "-n", str(args.tokens),
                  "-r", "3", *mode)
    return {"tokens_per_s": row["tokens_per_s"], "bytes": row["bytes_per_token"]}


def speeds(args, model, neurons, modes):
    return interleave(args.repeat, {name: lambda mode=mode: speed(args, model, neurons, mode)
                                    for name, mode in modes.items()}, model.stem)


def against(value, dense):
    return "" if value is dense else f"{100 * (value / dense - 1):+.2f} %"


def measured(run):
    return [f"{run['bytes'] * 1e-6:.1f}", f"{run['tokens_per_s']:.1f}"]


# ---- a ReLU model: dense, exact and both predictors ----

def mean(found, predictor, key):
    layers = [layer[predictor][key] for layer in found["layer"] if layer.get(predictor)]
    return f"{100 * sum(layers) / len(layers):.1f} %"


def relu_table(args):
    neurons, found = prepared(args, args.relu, "--chunks", str(args.relu_windows))
    modes = {"dense": ["--sparse", "dense"], "exact": ["--sparse", "exact"]}
    for name in ("planes", "mlp"):
        if found[name]:
            modes[name] = ["--sparse", "predicted", "--predictor", name]
    runs = speeds(args, args.relu, neurons, modes)
    size = {"planes": "0", "mlp": f"{100 * found['mlp_bytes'] / args.relu.stat().st_size:.1f} % of the model"}
    dense = found["perplexity_dense"]
    rows = []
    for name in modes:
        perplexity = found[f"perplexity_{name}"]
        quality = [mean(found, name, key) for key in QUALITIES] + [size[name]] if name in size else [""] * 5
        rows.append([f"predicted, {name}" if name in size else name, f"{perplexity:.3f}",
                     "" if name == "dense" else against(perplexity, dense), *quality, *measured(runs[name])])
    return table(["mode", "perplexity", "against dense", *QUALITIES, "size", "MB a token", "tok/s"], rows)


# ---- a SiLU model: what threshold skips ----

def perplexity(args, model, neurons, mode):
    found = hearth(args, "perplexity", "-q", "-m", model, "--neurons", neurons, "-f", TEXT, "-c", "512", "--chunks",
                   str(args.silu_windows), *mode)
    say(f"{model.stem}, {' '.join(mode)}: {found['perplexity']:.3f}")
    return found["perplexity"]


def silu_table(args):
    neurons, _ = prepared(args, args.silu, "--chunks", str(args.silu_windows))
    modes = {"0 (dense)": ["--sparse", "dense"]}
    modes.update({f"{share} %": ["--sparse", "threshold", "--skip", str(share / 100)] for share in SHARES})
    runs = speeds(args, args.silu, neurons, modes)
    found = {name: perplexity(args, args.silu, neurons, mode) for name, mode in modes.items()}
    dense = found["0 (dense)"]
    return table(["skipped", "perplexity", "against dense", "MB a token", "tok/s"],
                 [[name, f"{value:.3f}", against(value, dense), *measured(runs[name])]
                  for name, value in found.items()])


# ---- the page ----

def put(page, new):
    """In the place of the table whose first line has the same first two cells."""
    begins = " | ".join(new.split(" | ")[:2])
    lines, out, there, skip = page.read_text().split("\n"), [], False, False
    for line in lines:
        skip = line.startswith("|") and (skip or line.startswith(begins))
        if skip and not there:
            out += new.split("\n")
            there = True
        if not skip:
            out.append(line)
    if not there:
        raise SystemExit(f"{page} has no table that begins with '{begins}'")
    page.write_text("\n".join(out))
    say(f"wrote a table of {page}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build/release", help="has hearth")
    parser.add_argument("--relu", type=Path, help="a ReLU model, for the first table")
    parser.add_argument("--silu", type=Path, help="a SiLU model, for the second one")
    parser.add_argument("--work", type=Path, default=ROOT / "models", help="neuron files lie there")
    parser.add_argument("--relu-windows", type=int, default=47, help="of text for the ReLU model (default 47)")
    parser.add_argument("--silu-windows", type=int, default=12, help="of text for the SiLU model (default 12)")
    parser.add_argument("--tokens", type=int, default=64, help="decoded tokens, three times a run (default 64)")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each mode (default 3)")
    parser.add_argument("--print", dest="print_only", action="store_true", help="print the tables, write nothing")
    args = parser.parse_args()
    if not args.relu and not args.silu:
        parser.error("no model given (--relu FILE, --silu FILE)")

    for model, make in ((args.relu, relu_table), (args.silu, silu_table)):
        if not model:
            continue
        made = make(args)
        print(made, flush=True)
        if not args.print_only:
            put(PAGE, made)
    print(facts(args.repeat))


if __name__ == "__main__":
    main()
