#!/usr/bin/env python3
"""Measures hearth serve against llama-server and writes its part of docs/benchmarks.md.

    python3 tools/bench_serve.py --build build/release --llama-server LLAMA_CPP_BUILD/bin/llama-server

Both servers have the same file and two threads, and answer the same requests in turns; the one that is not asked
sleeps. Prompts are random tokens, so that every text is as long as it should be and none begins like another. Models:
SmolLM2, and a dense one of the 1B shape, which hearth-synth makes where it is missing. Nobody drafts: what models say
of random tokens repeats itself, and drafts by look-up would make hearth twice as fast as it is with people's texts. The
client reads raw events and counts them, with less than a twentieth of a core. Then two ranks of one thread each against
one (bench_ranks.py says what that means).
"""
import argparse
import asyncio
import json
import random
import subprocess
import time
import urllib.request
from pathlib import Path

from bench_ranks import mpirun
from benchmark import PAGE, ROOT, facts, medians, say, say_run, table, take_turns, with_goal, write_section

STREAMS, TOKENS, RUNNING, CONTEXT = [1, 4, 8, 16], 64, 500, 4096
SHORT, LONG, VERY_LONG = 16, 500, 3000 # tokens of prompts
GOALS = {"smollm2": {"streams": [2, 2, 2, 2], "first": 1.6, "cached": 10, "gap": 2},
         "1b": {"streams": [None, 1.5, 1.5, 1.5], "first": 1.6, "cached": 10, "gap": 2}}
READ_GOAL, RANKS_GOAL, COST_GOAL = 0.9, 1.6, 0.03


# ---- servers ----

class Server:
    """A server that runs until close(), and what to ask of it."""

    def __init__(self, command, port):
        self.port = port
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        for _ in range(1200):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    return
            except OSError:
                if self.process.poll() is not None:
                    raise SystemExit(f"{command[0]} ended with status {self.process.returncode}") from None
                time.sleep(0.1)
        raise SystemExit(f"{command[0]} does not answer")

    def close(self):
        self.process.terminate()
        self.process.wait()


def hearth(args, model, port, threads=2, launcher=()):
    return Server([*launcher, str(args.build / "hearth"), "serve", "-m", str(model), "--port", str(port), "-t",
                   str(threads), "-c", str(CONTEXT), "--parallel", str(max(STREAMS)), "--device", "cpu", "-q",
                   "--no-lookup", *(["--no-verify"] if launcher else [])], port)


def llama(args, model, port):
    slots = max(STREAMS)
    return Server([str(args.llama_server), "-m", str(model), "--port", str(port), "-t", "2", "-tb", "2", "-c",
                   str(CONTEXT * slots), "-np", str(slots), "-ngl", "0", "--no-webui"], port)


# ---- one request ----

async def stream(port, prompt, tokens):
    """Asks for so many tokens; returns when each event came, in seconds of the same clock."""
    body = json.dumps({"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True})
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                 f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
    times = []
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            if b'"error"' in line:
                raise SystemExit(f"port {port}: {line.decode()}")
            times.append(time.monotonic())
    writer.close()
    return times


class Prompts:
    """Random tokens, none of them special in any vocabulary; other ones each time, the same for both servers."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def of(self, n):
        return [self.random.randrange(1000, 20000) for _ in range(n)]


# ---- what is measured ----

async def side_by_side(port, prompts, n):
    start = time.monotonic()
    ends = [times[-1] for times in await asyncio.gather(*(stream(port, prompts.of(SHORT), TOKENS) for _ in range(n)))]
    return n * TOKENS / (max(ends) - start)


async def between_tokens(port, prompts):
    """Tokens per second of one stream once it runs: what reads memory, without the prompt, which computes."""
    times = await stream(port, prompts.of(SHORT), 2 * TOKENS)
    return (len(times) - 1) / (times[-1] - times[0])


async def first_token(port, prompt):
    start = time.monotonic()
    return (await stream(port, prompt, 1))[0] - start


async def largest_gap(port, prompts):
    """Between tokens of a stream, while a very long prompt comes in beside it."""
    running = asyncio.create_task(stream(port, prompts.of(SHORT), RUNNING))
    await asyncio.sleep(0.5)
    start = time.monotonic()
    beside = (await stream(port, prompts.of(VERY_LONG), 1))[0]
    times = [t for t in await running if t >= start]
    times = [t for i, t in enumerate(times) if i == 0 or times[i - 1] <= beside]
    return max(b - a for a, b in zip(times, times[1:]))


async def all_of(port, seed):
    prompts = Prompts(seed)
    found = {f"streams {n}": await side_by_side(port, prompts, n) for n in STREAMS}
    found["running"] = await between_tokens(port, prompts)
    long = prompts.of(LONG)
    found["first"] = await first_token(port, long)
    found["cached"] = await first_token(port, long)
    found["gap"] = await largest_gap(port, prompts)
    return found


def measure(servers, repeats, label):
    turn = {name: 0 for name in servers}

    def ask(name):
        turn[name] += 1
        return asyncio.run(all_of(servers[name].port, turn[name]))

    for server in servers.values(): # warm
        asyncio.run(stream(server.port, Prompts(0).of(SHORT), 8))
    runs = take_turns(repeats, {name: lambda name=name: ask(name) for name in servers}, label)
    return {name: medians(r) for name, r in runs.items()}


def bench(args, model):
    """hearth bench on the same file: the engine without a server."""
    command = [str(args.build / "hearth"), "bench", "-m", str(model), "-p", "8", "-n", str(TOKENS), "--sequences",
               "1,8", "-r", "3", "-t", "2", "-q", "-o", "json", "--device", "cpu"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL).stdout
    rows = {row["sequences"]: row for row in json.loads(printed) if row["test"].startswith("tg")}
    return {"decode 1": rows[1]["tokens_per_s"], "decode 8": rows[8]["tokens_per_s"],
            "bytes 1": rows[1]["bytes_per_token"], "peak": rows[1]["peak_read_gb_per_s"]}


# ---- tables ----

def against_llama(args, name, model):
    servers = {"hearth": hearth(args, model, args.port), "llama-server": llama(args, model, args.port + 1)}
    try:
        found = measure(servers, args.repeat, name)
    finally:
        for server in servers.values():
            server.close()
    ours, theirs, goals = found["hearth"], found["llama-server"], GOALS[name]
    rows = []
    for n, goal in zip(STREAMS, goals["streams"]):
        ratio = ours[f"streams {n}"] / theirs[f"streams {n}"]
        rows.append([f"{n} streams, tok/s together", f"{ours[f'streams {n}']:.1f}", f"{theirs[f'streams {n}']:.1f}",
                     with_goal(ratio, goal) if goal else f"{ratio:.2f}"])
    rows.append(["1 stream between its tokens, tok/s", f"{ours['running']:.1f}", f"{theirs['running']:.1f}",
                 f"{ours['running'] / theirs['running']:.2f}"])
    for key, what in (("first", f"first token of {LONG}, ms"), ("gap", f"largest gap beside {VERY_LONG}, ms")):
        rows.append([what, f"{1e3 * ours[key]:.0f}", f"{1e3 * theirs[key]:.0f}",
                     with_goal(theirs[key] / ours[key], goals[key])])
    rows.append(["the same prompt again, ms", f"{1e3 * ours['cached']:.0f}", f"{1e3 * theirs['cached']:.0f}",
                 with_goal(ours["first"] / ours["cached"], goals["cached"]) + " against its first"])
    return table([f"{name}, 2 threads", "hearth", "llama-server", "times better"], rows), ours


def of_memory(args, name, model, ours):
    alone = bench(args, model)
    read = ours["running"] * alone["bytes 1"] * 1e-9
    return [name, f"{read:.1f}", f"{alone['peak']:.1f}",
            with_goal(read / alone["peak"], READ_GOAL) if name == "1b" else f"{read / alone['peak']:.2f}",
            f"{alone['decode 8']:.1f}", f"{ours['streams 8']:.1f}"]


def ranks(args, model):
    servers = {"1 rank": hearth(args, model, args.port, 1),
               "2 ranks": hearth(args, model, args.port + 1, 1, mpirun(2))}
    try:
        runs = take_turns(args.repeat, {name: lambda s=s: {"streams 8": asyncio.run(side_by_side(
            s.port, Prompts(1), 8))} for name, s in servers.items()}, "ranks")
    finally:
        for server in servers.values():
            server.close()
    one, two = (medians(runs[name])["streams 8"] for name in servers)
    return [f"{one:.1f}", f"{two:.1f}", with_goal(two / one, RANKS_GOAL)]


def find_model(args):
    path = args.model_dir / "1b-q4_0.gguf"
    if not path.exists():
        subprocess.run([args.build / "hearth-synth", "--shape", "1b", "--type", "q4_0", "-o", path], check=True)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build/release")
    parser.add_argument("--llama-server", type=Path, required=True)
    parser.add_argument("--model-dir", type=Path, default=ROOT / "models")
    parser.add_argument("--only", choices=list(GOALS), help="this model alone")
    parser.add_argument("--port", type=int, default=8100, help="and the one above it")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--print", dest="print_only", action="store_true", help="print the tables, write nothing")
    parser.add_argument("--output", type=Path, default=PAGE)
    args = parser.parse_args()
    models = {"smollm2": args.model_dir / "SmolLM2-135M-Instruct.Q4_1.gguf", "1b": find_model(args)}
    parts, memory = [], []
    for name, model in models.items():
        if args.only in (None, name):
            found, ours = against_llama(args, name, model)
            parts.append(found)
            memory.append(of_memory(args, name, model, ours))
    parts.append(table(["", "1 stream reads between its tokens, GB/s", "peak", "of peak",
                        "8 texts, `hearth bench`, tok/s", "8 streams"], memory))
    parts.append(table(["1b: 1 rank of 1 thread, 8 streams, tok/s", "2 ranks", "ratio"], [ranks(args, models["1b"])]))
    if args.print_only:
        print(*parts, sep="\n\n")
        return
    write_section(args.output, "Serving", [
        "Written by `tools/bench_serve.py`, whose head says what it measures:",
        "```\npython3 tools/bench_serve.py --llama-server LLAMA_CPP_BUILD/bin/llama-server\n```",
        facts(args.repeat, each="the servers run on between them, and are warm"), *parts])


if __name__ == "__main__":
    main()
