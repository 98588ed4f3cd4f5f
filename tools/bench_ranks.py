#!/usr/bin/env python3
"""Measures hearth on several ranks of one machine against one rank, and writes its part of docs/benchmarks.md.

    python3 tools/bench_ranks.py --build build/release

A dense model of the 7B shape is made by hearth-synth where it is missing (2 GB in --model-dir). Ranks meet through shared
memory, and through network namespaces of 10 Gbit/s (deploy/lab; root only, else left out). Every measurement is a
mpirun of its own that warms up first, and the contestants take turns. Two ranks of one thread each on two cores stand for
two hosts with a core each as far as memory feeds both cores at a time. A virtual machine's often does not: while its two
processors are on one chiplet, both together read little more than one alone. Each run therefore measures what its
threads can read together, and the runs where that is FED times what one thread reads are counted apart: rounds are
repeated until there are enough of them.
"""
import argparse
import json
import os
import subprocess
from pathlib import Path

from benchmark import PAGE, ROOT, facts, medians, table, take_turns, with_goal, write_section

LAB = ROOT / "deploy/lab/lab.sh"
PROMPT, BANDWIDTH, FED = 128, "10gbit", 1.6


def find_model(args):
    path = args.model_dir / f"7b-{args.layers}l-q4_0.gguf"
    if not path.exists():
        args.model_dir.mkdir(parents=True, exist_ok=True)
        subprocess.run([args.build / "hearth-synth", "--shape", "7b", "--type", "q4_0", "--layers", str(args.layers),
                        "-o", path], check=True)
    return path


def mpirun(n):
    command = ["mpirun", "-np", str(n), "--oversubscribe", "--bind-to", "none"]
    if os.geteuid() == 0:
        command.append("--allow-run-as-root")
    if n > os.cpu_count():
        command += ["--mca", "mpi_yield_when_idle", "1"]
    return command


def lab(n):
    return ["sh", str(LAB), "-n", str(n), "-b", BANDWIDTH, "--"]


def run(args, model, launcher=(), options=()):
    command = [*launcher, str(args.build / "hearth"), "bench", "-m", str(model), "-p", str(PROMPT), "-n",
               str(args.tokens), "-r", "1", "-t", "1", "-q", "-o", "json", *options]
    rows = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL).stdout)
    by_test = {row["test"]: row for row in rows}
    decode = by_test[f"tg{args.tokens}"]
    return {"decode": decode["tokens_per_s"], "prompt": by_test[f"pp{PROMPT}"]["tokens_per_s"],
            "peak": decode["peak_read_gb_per_s"],
            **{key: decode.get(key, 0) for key in ("compute_ms", "wire_ms", "wait_ms", "messages_per_token",
                                                   "sent_bytes_per_token")}}


def sides_of(args, model):
    """{name: what to run}; the goals stand in goals_of."""
    home, every = ["--split", "shards", "--residual", "home"], ["--split", "shards", "--residual", "all"]
    sides = {
        "1 rank": lambda: run(args, model),
        "2 ranks, shared memory": lambda: run(args, model, mpirun(2), every),
        "2 ranks, shared memory, residual at home": lambda: run(args, model, mpirun(2), home),
        "4 ranks, shared memory": lambda: run(args, model, mpirun(4), every),
    }
    if os.geteuid() == 0 and args.lab:
        sides[f"2 ranks, {BANDWIDTH} namespaces"] = lambda: run(args, model, lab(2), every)
        sides[f"2 ranks, {BANDWIDTH} namespaces, residual at home"] = lambda: run(args, model, lab(2), home)
    return sides


GOALS = {"2 ranks, shared memory": ("1 rank", 1.7), f"2 ranks, {BANDWIDTH} namespaces": ("1 rank", 1.6),
         "4 ranks, shared memory": ("2 ranks, shared memory", 0.9)}


def fed(runs):
    """Of each contestant the runs whose cores were fed; of one rank all."""
    one = medians(runs["1 rank"])["peak"]
    return {name: [run for run in all_runs if name == "1 rank" or run["peak"] >= FED * one]
            for name, all_runs in runs.items()}


def enough_fed(wanted):
    def enough(runs):
        counted = fed(runs)
        return all(len(counted[name]) >= wanted for name in (*GOALS, "1 rank") if name in runs)
    return enough


def rows_of(runs):
    """The table's rows: of all runs, and of those that were fed."""
    rows = []
    for which, kept in (("all", runs), ("fed", fed(runs))):
        result = {name: medians(r) for name, r in kept.items() if r}
        one = result["1 rank"]
        for name, m in result.items():
            to, goal = GOALS.get(name, (None, None))
            goal = f"{with_goal(m['decode'] / result[to]['decode'], goal)} of {to}" if result.get(to) else ""
            rows.append([name, f"{which}, {len(kept[name])}", f"{m['decode']:.1f}", f"{m['decode'] / one['decode']:.2f}",
                         goal, f"{m['peak']:.0f}", f"{m['compute_ms']:.1f}", f"{m['wire_ms']:.1f}",
                         f"{m['wait_ms']:.1f}", f"{m['messages_per_token']:.0f}",
                         f"{m['sent_bytes_per_token'] / 1e3:.0f}", f"{m['prompt']:.0f}",
                         f"{m['prompt'] / one['prompt']:.2f}"])
    return rows


def exchanges(args):
    """What the exchange bench prints, over shared memory and over namespaces."""
    places = {"shared memory": mpirun(2)}
    if os.geteuid() == 0 and args.lab:
        places[f"{BANDWIDTH} namespaces"] = lab(2)
    rows = []
    for place, launcher in places.items():
        printed = subprocess.run([*launcher, str(args.build / "hearth-exchange-bench"), "--json"], check=True,
                                 stdout=subprocess.PIPE, stdin=subprocess.DEVNULL).stdout
        for row in json.loads(printed):
            rows.append([place, row["bytes"], f"{row['mpi_us']:.1f}", f"{row['hearth_us']:.1f}",
                         f"{row['ratio']:.2f} (goal at most 1.3{'' if row['ratio'] <= 1.3 else ', missed'})"])
    return rows


HEAD = ["", "runs", "decode, tok/s", "of 1 rank", "goal", "cores read, GB/s", "compute, ms", "wire, ms", "waiting, ms",
        "messages", "kB sent", "prompt, tok/s", "of 1 rank"]
EXCHANGE_HEAD = ["through", "bytes", "bare MPI, us", "hearth, us", "ratio"]


def write_report(args, rows, exchange_rows):
    write_section(args.output, "Several ranks on one machine", [
        "Written by `tools/bench_ranks.py`:",
        "```\npython3 tools/bench_ranks.py --build build/release\n```",
        facts("the runs"),
        f"7B shape, {args.layers} layers, Q4_0, dense, one thread a rank, `--split shards`, the residual stream on all"
        " ranks unless said otherwise. Times, messages and bytes are of one decoded token, messages and bytes of all"
        f" ranks together; prompts have {PROMPT} tokens. Namespaces are hosts of their own to TCP, each behind"
        " a token bucket (`deploy/lab`). Nothing here was measured on two machines or on an RDMA card.",
        "The machine's two processors can read much more together than one alone only at times: what the threads of a"
        " run read at most, measured in that run before it decodes, stands under «cores read». Rows «all» are the medians"
        f" of all runs, rows «fed» of those whose threads could read at least {FED} times what one thread could (the"
        " median of the rows «1 rank»): they say what a second host brings, whose memory is its own.",
        table(HEAD, rows),
        "### An exchange against bare MPI",
        "A message there and one of the same size back, through hearth's `mpi` transport and through `MPI_Send` and"
        " `MPI_Recv`, taking turns in one run (`hearth-exchange-bench`).",
        table(EXCHANGE_HEAD, exchange_rows),
    ])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build/release", help="has hearth and hearth-synth")
    parser.add_argument("--model-dir", type=Path, default=ROOT / "models", help="the model lies there")
    parser.add_argument("--repeat", type=int, default=5,
                        help="runs of each contestant whose cores are fed (default 5)")
    parser.add_argument("--rounds", type=int, default=30, help="of all contestants at most (default 30)")
    parser.add_argument("--tokens", type=int, default=32, help="decoded tokens of a run (default 32)")
    parser.add_argument("--layers", type=int, default=8, help="of the model (default 8)")
    parser.add_argument("--no-lab", dest="lab", action="store_false", help="shared memory alone")
    parser.add_argument("--print", dest="print_only", action="store_true", help="print the tables, write nothing")
    parser.add_argument("--output", type=Path, default=PAGE)
    args = parser.parse_args()
    model = find_model(args)
    rows = rows_of(take_turns(args.rounds, sides_of(args, model), "7B shape, ranks of 1 thread",
                              enough_fed(args.repeat)))
    exchange_rows = exchanges(args)
    if args.print_only:
        print(table(HEAD, rows), table(EXCHANGE_HEAD, exchange_rows), sep="\n\n")
    else:
        write_report(args, rows, exchange_rows)


if __name__ == "__main__":
    main()
