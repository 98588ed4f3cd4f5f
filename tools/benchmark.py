"""What the benchmark scripts share: turns, medians, tables, and their sections of docs/benchmarks.md."""
import datetime
import os
import platform
import re
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/benchmarks.md"


def say(text):
    print(text, file=sys.stderr, flush=True)


# ---- medians of runs that take turns ----

def medians(runs):
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def say_run(label, name, i, repeats, run):
    say(f"{label}, {name}, {i}/{repeats}: " + ", ".join(f"{key} {value:.4g}" for key, value in run.items()))


def take_turns(repeats, sides, label):
    """sides: {name: function}. Returns {name: [what it returned]}, the functions called in turn, `repeats` times
    each."""
    runs = {name: [] for name in sides}
    for i in range(repeats):
        for name, measure in sides.items():
            runs[name].append(measure())
            say_run(label, name, i + 1, repeats, runs[name][-1])
    return runs


def interleave(repeats, sides, label):
    """{name: medians} of so many turns."""
    return {name: medians(r) for name, r in take_turns(repeats, sides, label).items()}


# ---- the page ----

def with_goal(ratio, goal):
    return f"{ratio:.2f} (goal {goal:g}{'' if ratio >= goal else ', missed'})"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def output_of(*command):
    try:
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine():
    fields = dict(line.split(":", 1) for line in output_of("lscpu").splitlines() if ":" in line)
    model = fields.get("Model name", platform.machine()).strip()
    family = ", ".join(f"{k.lower()} {fields[k].strip()}" for k in ("CPU family", "Model", "Stepping") if k in fields)
    return f"{model} ({family}), {os.cpu_count()} processors, Linux {platform.release()}"


def facts(repeats, *more, each="each is a process that warms up first"):
    """The table that says where, when and of what the figures are. more: rows; each: what every measurement is."""
    commit = output_of("git", "rev-parse", "--short=12", "HEAD")
    if output_of("git", "status", "--porcelain", "--untracked-files=no"):
        commit += " with local changes"
    today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    return table(["", ""], [
        ["machine", machine()], ["date", today], ["commit", commit], *more,
        ["runs", f"medians of {repeats} of each, taking turns; {each}"],
        ["load average at the end", f"{os.getloadavg()[0]:.1f}"],
    ])


def write_section(page, heading, parts):
    """Puts paragraphs under a heading of the page, in the place of those that were there, or at its end."""
    text = page.read_text() if page.exists() else "# Benchmarks\n"
    section = "\n\n".join([f"## {heading}", *parts]) + "\n"
    there = re.search(rf"^## {re.escape(heading)}\n.*?(?=^## |\Z)", text, flags=re.M | re.S)
    if there:
        after = text[there.end():]
        text = text[:there.start()] + section + ("\n" + after if after else "")
    else:
        text = text.rstrip() + "\n\n" + section
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text)
    say(f"wrote {page}")
