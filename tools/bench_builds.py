#!/usr/bin/env python3
"""Measures a build of hearth against an earlier one, and writes its part of docs/benchmarks.md.

    git worktree add /tmp/before COMMIT && (cd /tmp/before && cmake --preset release && cmake --build --preset release)
    python3 tools/bench_builds.py --before /tmp/before/build/release --build build/release

Models: SmolLM2, and the shapes of a 1B and of a 7B (8 layers), which hearth-synth makes where they are missing (3 GB in
--model-dir). Every measurement is a process of its own (two ranks: a mpirun) that warms up first. The two builds take
turns, and who begins changes with every pair. A cell is the median of the ratios of its pairs.
"""
import argparse
import json
import math
import os
import statistics
import subprocess
from pathlib import Path

from bench_ranks import mpirun
from benchmark import PAGE, ROOT, facts, output_of, say, table, with_goal, write_section

# name, shape to make (None: the real model), layers, prompt tokens, decoded tokens
MODELS = [("SmolLM2-135M Q4_1", None, 0, 256, 96), ("1B shape Q4_0", "1b", 0, 64, 32),
          ("7B shape Q4_0, 8 layers", "7b", 8, 48, 24)]
SPLITS = [("1 rank, 1 thread", 1, 1), ("1 rank, 2 threads", 1, 2), ("2 ranks of 1 thread", 2, 1)]
TESTS = ("decode", "prompt")


def find_model(args, shape, layers):
    if not shape:
        return args.smollm2
    path = args.model_dir / (f"7b-{layers}l-q4_0.gguf" if layers else f"{shape}-q4_0.gguf")
    if not path.exists():
        args.model_dir.mkdir(parents=True, exist_ok=True)
        some = ["--layers", str(layers)] if layers else []
        subprocess.run([args.build / "hearth-synth", "--shape", shape, "--type", "q4_0", *some, "-o", path], check=True)
    return path


def speeds(build, model, ranks, threads, n_prompt, n_decode):
    command = [*(mpirun(ranks) if ranks > 1 else []), str(build / "hearth"), "bench", "-m", str(model), "-p",
               str(n_prompt), "-n", str(n_decode), "-r", "1", "-t", str(threads), "-q", "-o", "json"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL).stdout
    by_test = {row["test"]: row["tokens_per_s"] for row in json.loads(printed)}
    return {"decode": by_test[f"tg{n_decode}"], "prompt": by_test[f"pp{n_prompt}"]}


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


def cells_of(args):
    cells = []
    for name, shape, layers, n_prompt, n_decode in MODELS:
        model = find_model(args, shape, layers)
        for split, ranks, threads in SPLITS:
            pairs = pairs_of(args, f"{name}, {split}",
                             lambda build: speeds(build, model, ranks, threads, n_prompt, n_decode))
            for test in TESTS:
                cells.append([name, split, test] + [statistics.median(pair[side][test] for pair in pairs)
                                                    for side in (0, 1)] +
                             [statistics.median(now[test] / before[test] for before, now in pairs)])
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
    cells = cells_of(args)
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
        "Dense, `hearth bench`; the prompt's tokens and the decoded ones are " +
        ", ".join(f"{n_prompt} and {n_decode} ({name})" for name, _, _, n_prompt, n_decode in MODELS) +
        ". The ratio is the median of the pairs' ratios.",
        shown, closing])


if __name__ == "__main__":
    main()
