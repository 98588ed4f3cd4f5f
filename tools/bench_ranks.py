#!/usr/bin/env python3
"""Measures hearth on several ranks of one machine against one rank, and writes its part of docs/benchmarks.md.

    python3 tools/bench_ranks.py --build build/release

A dense model of the 7B shape is made by hearth-synth where it is missing (2 GB in --model-dir). Ranks meet through
shared memory, and through network namespaces of 10 Gbit/s (deploy/lab; root only, else left out). Every measurement is
a mpirun of its own that warms up first, and the contestants take turns. Two ranks of one thread each on two cores stand
for two hosts with a core each as far as memory feeds both cores at a time. A virtual machine's often does not: while
its two processors are on one chiplet, both together read little more than one alone. So there are two tables of
decoding: of plain turns, and of runs before and after which both cores read at least FED times what one does: those
wait for such moments.
"""
import argparse
import json
import os
import subprocess
import time
from pathlib import Path

from benchmark import PAGE, ROOT, facts, medians, say_run, table, take_turns, with_goal, write_section

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


def cores_read(args):
    """GB/s of all cores together, now."""
    printed = subprocess.run([args.build / "hearth", "bench", "-m", ROOT / "tests/vectors/tiny-q5_1.gguf", "-p", "1",
                              "-n", "1", "-r", "1", "-t", str(os.cpu_count()), "-q", "-o", "json"], check=True,
                             stdout=subprocess.PIPE).stdout
    return json.loads(printed)[0]["peak_read_gb_per_s"]


def fed_turns(args, sides, one):
    """{name: runs} between two moments at which all cores read at least FED times what one does."""
    runs = {name: [] for name in sides}
    until = time.monotonic() + 60 * args.patience
    while min(map(len, runs.values())) < args.repeat and time.monotonic() < until:
        name = min(runs, key=lambda name: len(runs[name]))
        if cores_read(args) < FED * one:
            time.sleep(1)
            continue
        run_now = sides[name]()
        if cores_read(args) >= FED * one:
            runs[name].append(run_now)
            say_run("both cores fed", name, len(runs[name]), args.repeat, run_now)
    return {name: r for name, r in runs.items() if r}


def rows_of(runs):
    result = {name: medians(r) for name, r in runs.items()}
    one = result["1 rank"]
    rows = []
    for name, m in result.items():
        to, goal = GOALS.get(name, (None, None))
        goal = f"{with_goal(m['decode'] / result[to]['decode'], goal)} of {to}" if to in result else ""
        rows.append([name, len(runs[name]), f"{m['decode']:.1f}", f"{m['decode'] / one['decode']:.2f}", goal,
                     f"{m['compute_ms']:.1f}", f"{m['wire_ms']:.1f}", f"{m['wait_ms']:.1f}",
                     f"{m['messages_per_token']:.0f}", f"{m['sent_bytes_per_token'] / 1e3:.0f}", f"{m['prompt']:.0f}",
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


HEAD = ["", "runs", "decode, tok/s", "of 1 rank", "goal", "compute, ms", "wire, ms", "waiting, ms",
        "messages", "kB sent", "prompt, tok/s", "of 1 rank"]
EXCHANGE_HEAD = ["through", "bytes", "bare MPI, us", "hearth, us", "ratio"]


def write_report(args, one, rows, fed_rows, exchange_rows):
    write_section(args.output, "Several ranks on one machine", [
        "Written by `tools/bench_ranks.py`:",
        "```\npython3 tools/bench_ranks.py --build build/release\n```",
        facts("the runs"),
        f"7B shape, {args.layers} layers, Q4_0, dense, one thread a rank, `--split shards`, the residual stream on all"
        " ranks unless said otherwise. Times, messages and bytes are of one decoded token, messages and bytes of all"
        f" ranks together; prompts have {PROMPT} tokens. Namespaces are hosts of their own to TCP, each behind"
        " a token bucket (`deploy/lab`). Nothing here was measured on two machines or on an RDMA card.",
        "### While memory feeds both cores",
        f"One thread reads {one:.1f} GB/s here, both cores together sometimes nearly twice of that and mostly hardly"
        " more: two processors of a virtual machine on one chiplet share its way to memory. Two hosts do not. Every run"
        f" of this table lies between two moments at which both cores together read at least {FED} times what one"
        " thread does (`hearth bench` of a tiny model measures it); the contestants take turns.",
        table(HEAD, fed_rows),
        "### At any time",
        "The same in plain turns, whatever memory gives. Where both cores together read no more than one, two ranks can"
        " decode no faster than one.",
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
                        help="runs of each contestant in each table (default 5)")
    parser.add_argument("--patience", type=float, default=15, help="minutes of waiting for fed cores (default 15)")
    parser.add_argument("--tokens", type=int, default=32, help="decoded tokens of a run (default 32)")
    parser.add_argument("--layers", type=int, default=8, help="of the model (default 8)")
    parser.add_argument("--no-lab", dest="lab", action="store_false", help="shared memory alone")
    parser.add_argument("--print", dest="print_only", action="store_true", help="print the tables, write nothing")
    parser.add_argument("--output", type=Path, default=PAGE)
    args = parser.parse_args()
    model = find_model(args)
    sides = sides_of(args, model)
    runs = take_turns(args.repeat, sides, "7B shape, ranks of 1 thread")
    one = medians(runs["1 rank"])["peak"]
    fed = fed_turns(args, sides, one)
    fed_rows = rows_of(fed) if "1 rank" in fed else []
    exchange_rows = exchanges(args)
    if args.print_only:
        print(table(HEAD, fed_rows), table(HEAD, rows_of(runs)), table(EXCHANGE_HEAD, exchange_rows), sep="\n\n")
    else:
        write_report(args, one, rows_of(runs), fed_rows, exchange_rows)


if __name__ == "__main__":
    main()
