#!/usr/bin/env python3
"""Measures models with experts, hearth against llama.cpp, and writes its part of docs/benchmarks.md.

    venv/bin/python tools/bench_experts.py --build build/release

bench_vs_llamacpp.py says how to make the venv. The models are made by hearth-synth where they are missing (10 GB in
--model-dir): the shape of Qwen3-30B-A3B with 8 layers, Q4_0 and Q4_K, and that of gpt-oss-20b with 6, MXFP4. Their
routers are random, so all experts are chosen alike. Both programs run the same file and the same tokens, every
measurement is a process of its own, and the two take turns. Then several sequences at once, and two ranks of one thread
each on this machine against one (bench_ranks.py says what that means). All of it takes a quarter of an hour here.
"""
import argparse
import json
import subprocess
from pathlib import Path

from bench_ranks import FED, cores_read, mpirun
from bench_vs_llamacpp import run_hearth, run_llama
from benchmark import PAGE, ROOT, facts, interleave, medians, say_run, table, with_goal, write_section

PROMPT, DECODE, SEQUENCES = 256, 64, 8
DECODE_GOAL, PROMPT_GOAL, READ_GOAL, RANKS_GOAL, SEQUENCES_GOAL = 1.2, 1.5, 0.7, 1.7, 2
MODELS = [ # shape, type, layers
    ("qwen3-30b-a3b", "q4_0", 8),
    ("qwen3-30b-a3b", "q4_k", 8),
    ("gpt-oss-20b", "mxfp4", 6),
]


def name_of(model):
    return "{} {}, {} layers".format(*model)


def find_model(args, model):
    shape, kind, layers = model
    path = args.model_dir / f"{shape}-{layers}l-{kind}.gguf"
    if not path.exists():
        args.model_dir.mkdir(parents=True, exist_ok=True)
        subprocess.run([args.build / "hearth-synth", "--shape", shape, "--type", kind, "--layers", str(layers), "-o",
                        path], check=True)
    return path


def bench(args, path, ranks, sequences):
    """One thread a rank."""
    command = [*(mpirun(ranks) if ranks > 1 else []), str(args.build / "hearth"), "bench", "-m", str(path), "-p", "8",
               "-n", str(DECODE), "--sequences", ",".join(map(str, sequences)), "-r", "1", "-t", "1", "-q", "-o",
               "json"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL).stdout
    found = {}
    for row in json.loads(printed):
        if row["test"].startswith("tg"):
            found[f"decode {row['sequences']}"] = row["tokens_per_s"]
            found[f"bytes {row['sequences']}"] = row["bytes_per_token"]
            found["peak"] = row["peak_read_gb_per_s"]
    return found


def against_llama(args, models):
    rows = []
    for model in models:
        path = find_model(args, model)
        for threads in args.threads:
            sides = {"hearth": lambda: run_hearth(args.build / "hearth", path, threads, PROMPT, DECODE),
                     "llama.cpp": lambda: run_llama(path, threads, PROMPT, DECODE)}
            found = interleave(args.repeat, sides, f"{name_of(model)}, {threads} threads")
            ours, theirs = found["hearth"], found["llama.cpp"]
            read = ours["decode"] * ours["bytes_per_token"] * 1e-9
            rows.append([name_of(model), threads, f"{ours['decode']:.1f}", f"{theirs['decode']:.1f}",
                         with_goal(ours["decode"] / theirs["decode"], DECODE_GOAL),
                         f"{ours['bytes_per_token'] / 1e6:.0f}", f"{read:.1f}", f"{ours['peak']:.1f}",
                         with_goal(read / ours["peak"], READ_GOAL),
                         f"{ours['prompt']:.0f}", f"{theirs['prompt']:.0f}",
                         with_goal(ours["prompt"] / theirs["prompt"], PROMPT_GOAL)])
    return table(["model", "threads", "decode hearth", "llama.cpp", "ratio", "MB a token", "GB/s", "peak", "of peak",
                  "prompt hearth", "llama.cpp", "ratio"], rows)


def turns_of_ranks(args, model):
    """Runs of both sides in turn, and of these the ones between two moments at which memory fed both cores: twice as
    many turns as asked for, at most, until there are as many of those."""
    path = find_model(args, model)
    sides = {"1 rank": lambda: bench(args, path, 1, [1, SEQUENCES]), "2 ranks": lambda: bench(args, path, 2, [1])}
    runs, fed = {side: [] for side in sides}, {side: [] for side in sides}
    after = cores_read(args)
    for turn in range(2 * args.repeat):
        if turn >= args.repeat and min(map(len, fed.values())) >= args.repeat:
            break
        for side, measure in sides.items():
            before = after
            runs[side].append(measure())
            after = cores_read(args)
            say_run(name_of(model), f"{side}, both cores read {before:.1f} and {after:.1f} GB/s", turn + 1, args.repeat,
                    runs[side][-1])
            if min(before, after) >= FED * runs["1 rank"][0]["peak"]:
                fed[side].append(runs[side][-1])
    return runs, fed


def sequences_and_ranks(args, models):
    """Tables: many sequences on one rank; two ranks at any time, and while memory feeds both cores."""
    many, plain, fed = [], [], []
    for model in models:
        runs, fed_runs = turns_of_ranks(args, model)
        one = medians(runs["1 rank"])
        many.append([name_of(model), f"{one['decode 1']:.1f}", f"{one[f'decode {SEQUENCES}']:.1f}",
                     with_goal(one[f"decode {SEQUENCES}"] / one["decode 1"], SEQUENCES_GOAL),
                     f"{one['bytes 1'] / 1e6:.0f}", f"{one[f'bytes {SEQUENCES}'] / 1e6:.0f}"])
        for rows, of in ((plain, runs), (fed, fed_runs)):
            if all(of.values()):
                found = {side: medians(r)["decode 1"] for side, r in of.items()}
                rows.append([name_of(model), min(map(len, of.values())), f"{found['1 rank']:.1f}",
                             f"{found['2 ranks']:.1f}", with_goal(found["2 ranks"] / found["1 rank"], RANKS_GOAL)])
    head = ["model", "runs", "1 rank, tok/s", "2 ranks, tok/s", "ratio"]
    return [table(["model", "1 sequence, tok/s", f"{SEQUENCES} sequences, tok/s", "ratio", "MB a token, 1 sequence",
                   f"{SEQUENCES} sequences"], many),
            table(head, plain), table(head, fed) if fed else "No moment was found at which memory fed both cores."]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build/release", help="has hearth and hearth-synth")
    parser.add_argument("--model-dir", type=Path, default=ROOT / "models", help="the models are kept there")
    parser.add_argument("--models", nargs="+", help="only models whose name contains one of these words")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=3, help="runs of each (default 3)")
    parser.add_argument("--print", dest="print_only", action="store_true", help="print the tables, write nothing")
    parser.add_argument("--output", type=Path, default=PAGE)
    args = parser.parse_args()
    models = [m for m in MODELS if not args.models or any(word in name_of(m) for word in args.models)]
    parts = [against_llama(args, models), *sequences_and_ranks(args, models)]
    if args.print_only:
        print(*parts, sep="\n\n")
        return
    write_section(args.output, "Models with experts", [
        "Written by `tools/bench_experts.py`, whose head says what it needs:",
        "```\nvenv/bin/python tools/bench_experts.py --build build/release\n```", facts(args.repeat),
        f"Decoding {DECODE} tokens and a prompt of {PROMPT}, in tok/s. The bytes that a token reads, of the experts"
        " that it chooses, are counted by hearth while it decodes; `peak` is the machine's read bandwidth with as many"
        " threads.", parts[0],
        f"{SEQUENCES} sequences at once, one rank of one thread. A step reads an expert once for all tokens that have"
        " chosen it, and few tokens share few:", parts[1],
        "One rank of one thread, and two of them on the same machine, which share its memory:", parts[2],
        f"The same between two moments at which both cores together read at least {FED} times what one thread does:",
        parts[3]])


if __name__ == "__main__":
    main()
