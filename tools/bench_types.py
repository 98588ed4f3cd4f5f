#!/usr/bin/env python3
"""Measures decoding type by type, and with a full context, against llama-bench; writes its part of docs/benchmarks.md.

    python3 tools/bench_types.py --llama-bench LLAMA_CPP_BUILD/bin/llama-bench

Models: the shape of a 7B with 8 layers in several types, which hearth-synth makes where they are missing (1 GB each).
Every measurement is a process of its own and the two programs take turns.
"""
import argparse
import json
import subprocess
from pathlib import Path

from benchmark import PAGE, ROOT, facts, interleave, table, with_goal, write_section

TYPES = ["q4_0", "q4_k", "q5_k", "q6_k", "q8_0"]
GOAL = {"q4_k": 1.2, "q5_k": 1.2, "q6_k": 1.2}
GOAL_SHARE = 0.85  # of what the memory gives: then the goal is reached whatever llama.cpp does
DEPTH = 4096


def model_of(args, kind):
    path = args.model_dir / f"7b-8l-{kind}.gguf"
    if not path.exists():
        args.model_dir.mkdir(parents=True, exist_ok=True)
        subprocess.run([args.build / "hearth-synth", "--shape", "7b", "--layers", "8", "--type", kind, "-o", path],
                       check=True)
    return path


def printed(command):
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                     stderr=subprocess.DEVNULL).stdout)


def hearth(args, model, threads, depth):
    row = printed([str(args.build / "hearth"), "bench", "-m", str(model), "-p", "0", "-n", str(args.tokens), "-d",
                   str(depth), "-r", "1" if depth else "3", "-t", str(threads), "-q", "-o", "json"])[0]
    return {"tok/s": row["tokens_per_s"], "read": row["read_gb_per_s"], "peak": row["peak_read_gb_per_s"]}


def llama(args, model, threads, depth):
    row = printed([str(args.llama_bench), "-m", str(model), "-p", "0", "-n", str(args.tokens), "-d", str(depth), "-r",
                   "1" if depth else "3", "-t", str(threads), "-ngl", "0", "-o", "json"])[0]
    return {"tok/s": row["avg_ts"]}


def turns(args, model, threads, depth, label):
    return interleave(args.repeat, {"hearth": lambda: hearth(args, model, threads, depth),
                                    "llama.cpp": lambda: llama(args, model, threads, depth)}, label)


def by_type(args):
    rows = []
    for kind in args.types.split(","):
        found = turns(args, model_of(args, kind), 1, 0, kind)
        ours, theirs = found["hearth"], found["llama.cpp"]["tok/s"]
        ratio, share = ours["tok/s"] / theirs, ours["read"] / ours["peak"]
        rows.append([kind.upper(), f"{theirs:.2f}", f"{ours['tok/s']:.2f}",
                     f"{ratio:.2f}" if kind not in GOAL or share >= GOAL_SHARE else with_goal(ratio, GOAL[kind]),
                     f"{ours['read']:.1f}", f"{ours['peak']:.1f}", f"{100 * share:.0f} %"])
    return table(["type", "llama.cpp, tok/s", "hearth, tok/s", "times llama.cpp", "weights read, GB/s",
                  "memory gives, GB/s", "share"], rows)


def full_context(args):
    rows = []
    for name, model in [("SmolLM2-135M Q4_1", args.smollm2), ("7B shape Q4_0, 8 layers", model_of(args, "q4_0"))]:
        empty, full = (turns(args, model, 2, depth, f"{name}, {depth} tokens") for depth in (0, DEPTH))
        for depth, found in ((0, empty), (DEPTH, full)):
            ours, theirs = found["hearth"]["tok/s"], found["llama.cpp"]["tok/s"]
            rows.append([name, depth, f"{theirs:.1f}", f"{ours:.1f}", f"{ours / theirs:.2f}"])
    return table(["model", "tokens before", "llama.cpp, tok/s", "hearth, tok/s", "times llama.cpp"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-bench", type=Path, required=True, help="llama.cpp's llama-bench")
    parser.add_argument("--build", type=Path, default=ROOT / "build/release", help="has hearth and hearth-synth")
    parser.add_argument("--model-dir", type=Path, default=ROOT / "models", help="made models lie there")
    parser.add_argument("--smollm2", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--types", default=",".join(TYPES), help=f"of the models (default {','.join(TYPES)})")
    parser.add_argument("--tokens", type=int, default=16, help="decoded in a run (default 16)")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each (default 5)")
    parser.add_argument("--print", dest="print_only", action="store_true", help="print the tables, write nothing")
    parser.add_argument("--output", type=Path, default=PAGE)
    args = parser.parse_args()
    parts = [by_type(args), full_context(args)]
    if args.print_only:
        print(*parts, sep="\n\n")
        return
    write_section(args.output, "Decoding by type, and with a full context", [
        "Written by `tools/bench_types.py`, whose head says how:", facts(args.repeat),
        f"The shape of a 7B with 8 layers, one thread. The goal is 1.2 times llama.cpp or {GOAL_SHARE:.0%} of what the "
        "memory gives:", parts[0],
        f"Two threads, an empty context and one that {DEPTH} tokens fill already:", parts[1]])


if __name__ == "__main__":
    main()
