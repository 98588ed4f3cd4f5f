#!/usr/bin/env python3
"""Measures a build of hearth against an earlier one, and writes its part of docs/benchmarks.md.

    git worktree add /tmp/before COMMIT && (cd /tmp/before && cmake --preset release && cmake --build --preset release)
    python3 tools/bench_builds.py --before /tmp/before/build/release --build build/release

Models: SmolLM2, the shapes of a 1B and of a 7B (8 layers), and of a 7B of which a tenth of the neurons fire, which
hearth-synth makes where they are missing (4 GB in --model-dir). Every measurement is a process of its own (two ranks: a
mpirun) that warms up first. The two builds take turns, and who begins changes with every pair. A cell is the median of
the ratios of its pairs.
"""
import argparse
import json
import math
import os
import re
import statistics
import subprocess
import tempfile
from pathlib import Path

from bench_ranks import mpirun
from benchmark import PAGE, ROOT, facts, output_of, say, table, with_goal, write_section

# What hearth-synth makes beside the shape, and what hearth is told then.
SPARSE = (["--ffn", "reglu", "--live", "0.1"], ["--sparse", "exact", "--activation", "relu"])
# name, file (None: the real model), what hearth-synth is told, what hearth is told, prompt tokens, decoded tokens
MODELS = [("SmolLM2-135M Q4_1", None, [], [], 256, 96),
          ("1B shape Q4_0", "1b-q4_0.gguf", ["--shape", "1b"], [], 64, 32),
          ("7B shape Q4_0, 8 layers", "7b-8l-q4_0.gguf", ["--shape", "7b", "--layers", "8"], [], 48, 24),
          ("7B shape Q4_0, 8 layers, ReGLU, live 0.1, exact", "7b-8l-reglu-q4_0.gguf",
           ["--shape", "7b", "--layers", "8", *SPARSE[0]], SPARSE[1], 48, 24)]
SPLITS = [("1 rank, 1 thread", 1, 1), ("1 rank, 2 threads", 1, 2), ("2 ranks of 1 thread", 2, 1)]
TESTS = ("decode", "prompt")
LONG = "The quick brown fox jumps over the lazy dog near the river bank while the sun goes down. " * 215
LONG_TOKENS, LONG_CONTEXT, LONG_DECODED = 4086, 4352, 64  # of SmolLM2


def find_model(args, file, synth):
    if not file:
        return args.smollm2
    path = args.model_dir / file
    if not path.exists():
        args.model_dir.mkdir(parents=True, exist_ok=True)
        subprocess.run([args.build / "hearth-synth", *synth, "--type", "q4_0", "-o", path], check=True)
    return path


def hearth(build, ranks, threads, command, model, *more):
    return [*(mpirun(ranks) if ranks > 1 else []), str(build / "hearth"), command, "-m", str(model), "-t", str(threads),
            *more]


def speeds(build, model, ranks, threads, told, n_prompt, n_decode):
    command = hearth(build, ranks, threads, "bench", model, "-p", str(n_prompt), "-n", str(n_decode), "-r", "1", "-q",
                     "-o", "json", *told)
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL).stdout
    by_test = {row["test"]: row["tokens_per_s"] for row in json.loads(printed)}
    return {"decode": by_test[f"tg{n_decode}"], "prompt": by_test[f"pp{n_prompt}"]}


def long_speeds(build, model, ranks, threads, text):
    """What run says at its end: not every build's bench can begin with a context that is there."""
    command = hearth(build, ranks, threads, "run", model, "-f", text, "-c", str(LONG_CONTEXT), "-n", str(LONG_DECODED),
                     "--temp", "0", "--ignore-eos")
    said = subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True).stderr
    found = re.search(rf"prompt {LONG_TOKENS} tokens, ([0-9.]+) tok/s; decoding [0-9]+ tokens, ([0-9.]+) tok/s", said)
    return {"decode": float(found[2]), "prompt": float(found[1])}


def pairs_of(args, label, measure):
    """[(before, now)], each a dictionary of TESTS."""
    pairs = []
    for i in range(args.repeat):
        order = [args.before, args.build] if i % 2 == 0 else [args.build, args.before]
        found = {build: measure(build) for build in order}
        pairs.append((found[args.before], found[args.build]))
        say(f"{label}, {i + 1}/{args.repeat}: " +
            ", ".join(f"{test} {pairs[-1][1][test]:.4g} / {pairs[-1][0][test]:.4g}" for test in TESTS))
    return pairs


def cells_of(args, name, measure):
    """A row for each split and test. measure: of a build, ranks and threads."""
    cells = []
    for split, ranks, threads in SPLITS:
        pairs = pairs_of(args, f"{name}, {split}", lambda build: measure(build, ranks, threads))
        for test in TESTS:
            cells.append([name, split, test] + [statistics.median(pair[side][test] for pair in pairs)
                                                for side in (0, 1)] +
                         [statistics.median(now[test] / before[test] for before, now in pairs)])
    return cells


def all_cells(args):
    cells = []
    for name, file, synth, told, n_prompt, n_decode in MODELS:
        model = find_model(args, file, synth)
        cells += cells_of(args, name, lambda build, ranks, threads: speeds(build, model, ranks, threads, told, n_prompt,
                                                                           n_decode))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as text:
        text.write(LONG)
        text.flush()
        cells += cells_of(args, f"SmolLM2-135M Q4_1, context of {LONG_TOKENS}",
                          lambda build, ranks, threads: long_speeds(build, args.smollm2, ranks, threads, text.name))
    return cells


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="the earlier build: has hearth")
    parser.add_argument("--build", type=Path, default=ROOT / "build/release", help="has hearth and hearth-synth")
    parser.add_argument("--model-dir", type=Path, default=ROOT / "models", help="made models lie there")
    parser.add_argument("--smollm2", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--repeat", type=int, default=11, help="pairs of runs in each cell (default 11)")
    parser.add_argument("--print", dest="print_only", action="store_true", help="print the table, write nothing")
    parser.add_argument("--output", type=Path, default=PAGE)
    args = parser.parse_args()
    cells = all_cells(args)
    ratios = [cell[-1] for cell in cells]
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    rows = [[name, split, test, f"{before:.1f}", f"{now:.1f}", f"{ratio:.3f}"]
            for name, split, test, before, now, ratio in cells]
    shown = table(["model", "", "", "before, tok/s", "now, tok/s", "now of before"], rows)
    closing = (f"Geometric mean {with_goal(mean, 0.98)}, the slowest cell {with_goal(min(ratios), 0.95)}, "
               f"load average at the end {os.getloadavg()[0]:.1f}.")
    if args.print_only:
        print(shown, closing, sep="\n\n")
        return
    before = output_of("git", "-C", str(args.before), "rev-parse", "--short=12", "HEAD")
    write_section(args.output, "Against an earlier commit", [
        "Written by `tools/bench_builds.py`, whose head says how:",
        facts(args.repeat, ["before", before]),
        "`hearth bench`; the prompt's tokens and the decoded ones are " +
        ", ".join(f"{n_prompt} and {n_decode} ({name})" for name, *_, n_prompt, n_decode in MODELS) +
        f". The long context is `hearth run`: a prompt of {LONG_TOKENS} tokens, {LONG_DECODED} decoded behind it. The "
        "ratio is the median of the pairs' ratios.",
        shown, closing])


if __name__ == "__main__":
    main()
