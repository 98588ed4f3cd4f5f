#!/usr/bin/env python3
"""Measures decoding of many sequences at once, hearth against llama.cpp, and writes its part of docs/benchmarks.md.

    python3 tools/bench_batches.py --batched-bench LLAMA_CPP_BUILD/bin/llama-batched-bench

Models: the shape of a 7B with 8 layers, Q4_0 (hearth-synth makes it where it is missing). Both programs decode the same
file, so many sequences of so many tokens each, greedily; every measurement is a process of its own and the two take
turns. Prompts as long as a batch is wide say what the products themselves allow: a step of n sequences and a step of n
prompt tokens multiply the same matrices by n tokens.
"""
import argparse
import json
import subprocess
from pathlib import Path

from bench_ranks import FED, fed_turns, mpirun
from benchmark import PAGE, ROOT, facts, interleave, medians, table, take_turns, with_goal, write_section

PROMPT = 8  # tokens before llama.cpp's decoding


def hearth(args, ranks, threads, sequences):
    wide = [n for n in sequences if n > 1]
    command = [*(mpirun(ranks) if ranks > 1 else []), str(args.build / "hearth"), "bench", "-m", str(args.model), "-p",
               ",".join(map(str, wide)), "-n", str(args.tokens), "--sequences", ",".join(map(str, sequences)),
               "-r", "2", "-t", str(threads), "-q", "-o", "json"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL).stdout
    rows = json.loads(printed)
    found = {f"batch {row['sequences']}": row["tokens_per_s"] for row in rows if row["test"].startswith("tg")}
    found["peak"] = rows[0]["peak_read_gb_per_s"]
    return found | {f"prompt {row['test'][2:]}": row["tokens_per_s"] for row in rows if row["test"].startswith("pp")}


def llama(args, threads, sequences):
    most = max(sequences) * (PROMPT + args.tokens)
    command = [str(args.batched_bench), "-m", str(args.model), "-c", str(most), "-b", "2048", "-ub", "512", "-npp",
               str(PROMPT), "-ntg", str(args.tokens), "-npl", ",".join(map(str, sequences)), "-t", str(threads),
               "-tb", str(threads), "-ngl", "0", "--output-format", "jsonl"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, text=True).stdout
    rows = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    return {f"batch {row['pl']}": row["speed_tg"] for row in rows}


def find_model(args):
    if args.model.exists():
        return
    args.model.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([args.build / "hearth-synth", "--shape", "7b", "--layers", "8", "--type", "q4_0", "-o", args.model],
                   check=True)


def against_llama(args):
    sequences = [1, 8, 32]
    found = interleave(args.repeat, {"hearth": lambda: hearth(args, 1, 2, sequences),
                                     "llama.cpp": lambda: llama(args, 2, sequences)}, "2 threads")
    rows = []
    for n in sequences:
        ours, theirs = found["hearth"][f"batch {n}"], found["llama.cpp"][f"batch {n}"]
        prompt = found["hearth"].get(f"prompt {n}")
        times = with_goal(ours / theirs, 1.5) if n > 1 else f"{ours / theirs:.2f}"
        rows.append([n, f"{theirs:.1f}", f"{ours:.1f}", times,
                     f"{prompt:.1f}" if prompt else "", with_goal(ours / prompt, 0.9) if prompt else ""])
    return table(["sequences", "llama.cpp, tok/s", "hearth, tok/s", "times llama.cpp", "a prompt as long, tok/s",
                  "of the prompt"], rows)


def rows_of_ranks(runs):
    found = {name: medians(r) for name, r in runs.items()}
    if len(found) < 2:
        return "No moment was found at which memory fed both cores."
    rows = []
    for n in (1, 8):
        one, two = found["1 rank"][f"batch {n}"], found["2 ranks"][f"batch {n}"]
        rows.append([n, min(map(len, runs.values())), f"{one:.1f}", f"{two:.1f}",
                     with_goal(two / one, 1.6) if n > 1 else f"{two / one:.2f}"])
    return table(["sequences", "runs", "1 rank, tok/s", "2 ranks, tok/s", "times one"], rows)


def over_ranks(args):
    """Plain turns, and runs between two moments at which memory feeds both cores."""
    sides = {"1 rank": lambda: hearth(args, 1, 1, [1, 8]), "2 ranks": lambda: hearth(args, 2, 1, [1, 8])}
    runs = take_turns(args.repeat, sides, "ranks of 1 thread")
    return rows_of_ranks(runs), rows_of_ranks(fed_turns(args, sides, medians(runs["1 rank"])["peak"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batched-bench", type=Path, required=True, help="llama.cpp's llama-batched-bench")
    parser.add_argument("--build", type=Path, default=ROOT / "build/release", help="has hearth and hearth-synth")
    parser.add_argument("--model", type=Path, default=ROOT / "models/7b-8l-q4_0.gguf")
    parser.add_argument("--tokens", type=int, default=24, help="that each sequence decodes (default 24)")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each (default 5)")
    parser.add_argument("--patience", type=float, default=20, help="minutes to wait for memory that feeds both cores")
    parser.add_argument("--print", dest="print_only", action="store_true", help="print the tables, write nothing")
    parser.add_argument("--output", type=Path, default=PAGE)
    args = parser.parse_args()
    find_model(args)
    parts = [against_llama(args), *over_ranks(args)]
    if args.print_only:
        print(*parts, sep="\n\n")
        return
    write_section(args.output, "Many sequences at once", [
        "Written by `tools/bench_batches.py`, whose head says how:", facts(args.repeat),
        f"The shape of a 7B with 8 layers, Q4_0; each sequence decodes {args.tokens} tokens. Two threads:", parts[0],
        "One rank of one thread, and two of them on the same machine, which share its memory:", parts[1],
        f"The same between two moments at which both cores together read at least {FED} times what one thread does:",
        parts[2]])


if __name__ == "__main__":
    main()
