#!/usr/bin/env python3
"""Measures what drafts by look-up bring with texts as people ask for them, and writes its part of docs/benchmarks.md.

    python3 tools/bench_drafts.py --build build/release

Two servers of one model, one of them with --no-lookup, answer the same chats in turns: the summary of a page of docs/,
a function of this repository with one of its names changed, a question, the translation of lines that are like each
other. Every chat is asked at temperature 0 and at 0.8 with a seed, and its text must be the very same with drafts and
without. Of prompts all but the last token is known from the first time, so what is measured is how answers are made.
"""
import argparse
import concurrent.futures
import json
import re
import time
import urllib.request
from pathlib import Path

from bench_serve import Server
from benchmark import PAGE, ROOT, facts, say, table, take_turns, with_goal, write_section

STREAMS, TEMPERATURES, TOKENS, CONTEXT, GOAL = [1, 4, 8], [0, 0.8], 160, 4096, 0.97
MOST = max(STREAMS)


# ---- what people ask ----

def summaries():
    """Pages of prose, as they are."""
    prose = [p for p in (ROOT / "docs/architecture.md").read_text().split("\n\n") if len(p) > 300 and p[0].isalpha()]
    return ["Summarise this text in three sentences.\n\n" + "\n\n".join(prose[i:i + 2])[:2400]
            for i in range(0, min(len(prose) - 1, 2 * MOST), 2)]


def edits():
    """Functions of a screen, with one of their names changed."""
    functions = []
    for path in sorted((ROOT / "coordinator").glob("*.c")):
        for f in re.findall(r"^[a-z][^\n;]*\([^;{]*\)\n\{\n.*?^\}\n", path.read_text(), flags=re.M | re.S):
            name = re.search(r"(\w+)\)\n\{", f).group(1) # its last parameter
            if 400 < len(f) < 1200:
                functions.append(f"Write this C function again, with its parameter {name} called {name}_given. Say "
                                 f"nothing else.\n\n```c\n{f}```")
    return functions[:MOST]


def questions():
    return ["What should I think of when I buy an old house?", "Explain to a child why the sky is blue.",
            "How do I bake bread without yeast?", "Write a short letter to my landlord about the heating.",
            "What is the difference between a virus and a bacterium?", "Plan a day in Lisbon for two people.",
            "Why do cats purr?", "Give me five tips for learning a language."][:MOST]


def translations():
    """Lines of a list, which repeat each other."""
    things = ["door", "window", "garden", "kitchen", "roof", "stair", "lamp", "table"]
    return ["Translate into French, line by line:\n\n" + "\n".join(
        f"{i + 1}. The {a} of the house is {colour}, and the {things[k % 8]} is next to the {a}."
        for i, (a, colour) in enumerate(zip(things, ["red", "blue", "green", "white"] * 2))) for k in range(MOST)]


TASKS = {"a summary": summaries, "a function again": edits, "a question": questions, "a translation": translations}


# ---- servers ----

def hearth(args, port, *options):
    return Server([str(args.build / "hearth"), "serve", "-m", str(args.model), "--port", str(port),
                   "-t", str(args.threads), "-c", str(CONTEXT), "--parallel", str(MOST), "--device", "cpu", "-q",
                   *options], port)


def ask(port, prompt, temperature, seed):
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": TOKENS, "temperature": temperature,
            "seed": seed}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        found = json.load(answer)
    return found["choices"][0]["message"]["content"], found["usage"]["completion_tokens"]


def drafts(port):
    """Tokens that were guessed, and guessed right, so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    return [int(re.search(rf"^llamacpp:spec_decode_num_{what}_tokens_total (\d+)", text, flags=re.M).group(1))
            for what in ("draft", "accepted")]


# ---- what is measured ----

def together(port, prompts, temperature, texts):
    """Asks all at once. texts [of each prompt]: what it said before, or None; it says the same again."""
    before = drafts(port)
    with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
        start = time.monotonic()
        found = list(pool.map(lambda i: ask(port, prompts[i], temperature, i), range(len(prompts))))
        seconds = time.monotonic() - start
    for i, (text, _) in enumerate(found):
        if texts[i] not in (None, text):
            raise SystemExit(f"port {port}, temperature {temperature}: another text of {prompts[i]!r}:\n{text!r}\nwas\n"
                             f"{texts[i]!r}")
        texts[i] = text
    made, right = (b - a for a, b in zip(before, drafts(port)))
    return {"tokens/s": sum(n for _, n in found) / seconds, "drafted": made, "right": right,
            "tokens": sum(n for _, n in found)}


def row(args, servers, what, prompts, temperature, texts):
    n = len(prompts)
    runs = take_turns(args.repeat, {name: lambda s=s: together(s.port, prompts, temperature, texts)
                                    for name, s in servers.items()}, f"{what}, temperature {temperature}, {n} streams")
    without, with_drafts = (sorted(r["tokens/s"] for r in runs[name])[args.repeat // 2] for name in servers)
    drafted, right, tokens = (sum(r[key] for r in runs["with"]) for key in ("drafted", "right", "tokens"))
    return [what, temperature, n, f"{without:.1f}", f"{with_drafts:.1f}", with_goal(with_drafts / without, GOAL),
            f"{right / drafted:.0%}" if drafted else "none", f"{right / tokens:.0%}"]


def measure(args, servers):
    rows = []
    for what, make in TASKS.items():
        prompts = make()
        if len(prompts) < MOST:
            raise SystemExit(f"{what}: {len(prompts)} prompts, expected {MOST}")
        for temperature in TEMPERATURES:
            texts = [None] * MOST
            for server in servers.values(): # what follows finds the prompts in its cache
                together(server.port, prompts, temperature, texts)
            rows += [row(args, servers, what, prompts[:n], temperature, texts[:n]) for n in args.streams]
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build/release")
    parser.add_argument("-m", "--model", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--streams", type=int, nargs="+", choices=range(1, MOST + 1), default=STREAMS, metavar="N")
    parser.add_argument("--port", type=int, default=8110, help="and the one above it")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--print", dest="print_only", action="store_true", help="print the table, write nothing")
    parser.add_argument("--output", type=Path, default=PAGE)
    args = parser.parse_args()
    servers = {"without": hearth(args, args.port, "--no-lookup"), "with": hearth(args, args.port + 1)}
    try:
        rows = measure(args, servers)
    finally:
        for server in servers.values():
            server.close()
    say("every text was the same with drafts and without")
    found = table([f"{args.model.stem}, {args.threads} threads", "temperature", "streams", "tok/s without",
                   "with drafts", "ratio", "of the drafts right", "of the tokens drafted"], rows)
    if args.print_only:
        print(found)
        return
    write_section(args.output, "Drafts by look-up", [
        "Written by `tools/bench_drafts.py`, whose head says what it measures:",
        "```\npython3 tools/bench_drafts.py\n```",
        facts(args.repeat, each="the servers run on between them, and are warm"), found])


if __name__ == "__main__":
    main()
