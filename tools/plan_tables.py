#!/usr/bin/env python3
"""Computes what several PCs hold of large models, and writes its part of docs/plans.md.

    python3 tools/plan_tables.py --build build/release

Nothing is measured and nothing is loaded: hearth-synth writes files that have a model's header and size and no weights,
and `hearth plan` computes what each PC needs, and what a token takes by a probe that says what the PCs are supposed to
be.
"""
import argparse
import csv
import json
import re
import subprocess
import tempfile
from pathlib import Path

from benchmark import ROOT, table, write_section

MODELS = [ # what people call it, shape, type
    ("gpt-oss-120b, MXFP4", "gpt-oss-120b", "mxfp4"),
    ("Qwen3-235B-A22B, Q4_K", "qwen3-235b-a22b", "q4_k"),
    ("Qwen3-235B-A22B, IQ4_XS", "qwen3-235b-a22b", "iq4_xs"),
    ("Llama 2 70B, Q4_K", "70b", "q4_k"),
]
COUNTS, SIZES, SYSTEM = (2, 3, 4), (24, 32, 48, 64), 2  # of PCs; GiB of memory, of which the system keeps some
READ = 60                                               # GB/s of a PC's memory
LINKS = [                                               # us of a small message, GB/s
    ("1 Gbit/s", 60, 0.117),
    ("10 Gbit/s", 25, 1.17),
    ("RDMA, 56 Gbit/s", 3, 5.5),
]
MESSAGES = [1024, 8192, 65536, 1048576]  # bytes


def probe_of(n, link):
    """n PCs that are alike, each linked to each, with more memory than any model needs: what it does need is asked."""
    name, us, gb_per_s = link
    ranks = [{"host": f"pc{i}", "cores": 8, "threads": 8, "memory_bytes": 10**12,
              "gb_per_s": [READ / 3, READ / 1.5, READ, READ], "shared_gb_per_s": READ} for i in range(n)]
    links = [{"from": i, "to": j, "us": [us + size / (gb_per_s * 1e3) for size in MESSAGES], "gb_per_s": gb_per_s}
             for i in range(n) for j in range(n) if i != j]
    return {"hearth_probe": 1, "ranks": ranks, "sizes": MESSAGES, "transports": [{"name": "mpi", "links": links}]}


def plan_of(args, model, n, link):
    """What hearth plan says of all PCs in equal shares: GiB that the fullest needs and that a token reads there, and
    tok/s."""
    probe = args.folder / "probe.json"
    probe.write_text(json.dumps(probe_of(n, link)))
    done = subprocess.run([args.build / "hearth", "plan", "-m", model, "--probe", probe, "--device", "cpu", "-t", "8",
                           "--shares", ",".join(["1"] * n), "-o", "csv"], check=True, capture_output=True, text=True)
    rows = list(csv.DictReader(done.stdout.splitlines()))
    eight, one = re.search(r"([0-9.]+) tok/s of all \(of one text ([0-9.]+)\)", done.stderr).groups()
    plans = [[cell.strip() for cell in line.split("|")] for line in done.stderr.splitlines() if line.startswith("| ")]
    split = next(cells[1] for cells in plans if cells[-2] == "true")
    gib = {key: max(float(row[f"{key}_mib"]) for row in rows) / 1024 for key in ("total", "read")}
    return {**gib, "one": float(one), "eight": float(eight), "split": split}


def smallest(need):
    return next((f"{size} GiB" for size in SIZES if need <= size - SYSTEM), f"none up to {SIZES[-1]} GiB")


def rows_of(args, model, path):
    rows = []
    for n in COUNTS:
        plans = [plan_of(args, path, n, link) for link in LINKS]
        need = max(p["total"] for p in plans)
        rows.append([model, n, f"{need:.1f}", smallest(need), f"{plans[1]['read']:.2f}",
                     *[f"{p['one']:.1f}" + ("" if p["split"] == "shards" else f" ({p['split']})") for p in plans],
                     f"{plans[1]['eight']:.0f}"])
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build/release", help="has hearth and hearth-synth")
    parser.add_argument("--print", dest="print_only", action="store_true", help="print the table, write nothing")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/plans.md")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        args.folder = Path(folder)
        for model, shape, kind in MODELS:
            path = args.folder / f"{shape}-{kind}.gguf"
            subprocess.run([args.build / "hearth-synth", "--shape", shape, "--type", kind, "--header-only", "-o", path],
                           check=True)
            rows += rows_of(args, model, path)
    head = ["model", "PCs", "GiB a PC", "PCs of", "GiB a token reads there", *[name for name, *_ in LINKS],
            f"8 texts, {LINKS[1][0]}"]
    if args.print_only:
        print(table(head, rows))
        return
    links = "; ".join(f"{name}: {us} us and {gb_per_s} GB/s" for name, us, gb_per_s in LINKS)
    write_section(args.output, "What PCs hold", [
        "Written by `tools/plan_tables.py`, by files that have headers alone. Nothing of it is measured:",
        f"PCs that are alike, each of {READ} GB/s of memory bandwidth (two channels of DDR5), without GPUs, the context"
        f" the usual one. What a PC needs is the most that any of them does; of its memory {SYSTEM} GiB are left to the"
        f" system. Decoding is estimated in tok/s as above, for three networks ({links}), by shards on all PCs where"
        " nothing else is said; the last column is of 8 texts together. Experts are taken to be chosen alike.",
        table(head, rows)])


if __name__ == "__main__":
    main()
