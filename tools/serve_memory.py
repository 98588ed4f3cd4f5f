#!/usr/bin/env python3
"""Whether the memory of hearth serve stays what it is: many short requests, and what the ranks hold meanwhile.

    python3 tools/serve_memory.py --build build/release -m MODEL.gguf [--requests 10000] [--ranks 2]

Eight clients ask: whole and streamed, chats, texts and embeddings, with grammars and tools, some that leave in the
middle and some that are wrong. Printed: the resident memory of every process of the server after 100 requests, 200,
500, ..., as a table. Status 1 if a process holds more than --growth MiB more at the end than after a tenth of the
requests.
"""
import argparse
import http.client
import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

from bench_ranks import mpirun
from bench_serve import Server
from benchmark import ROOT, say, table

CLIENTS = 8
CHAT, TEXT, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer",
          "minimum": 0, "maximum": 120}}, "required": ["name", "age"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {
    "type": "object", "properties": {"word": {"type": "string", "maxLength": 12}}, "required": ["word"]}}}


# ---- requests ----

def request_of(random):
    """Path, body, the status that is expected, and whether the client leaves in the middle."""
    word = "".join(random.choice("aeiounrstl") for _ in range(random.randrange(3, 9)))
    chat = {"messages": [{"role": "user", "content": f"Tell me of {word} number {random.randrange(1000)}."}],
            "max_tokens": random.randrange(4, 24), "stream": random.random() < 0.5, "seed": random.randrange(1 << 30)}
    kind = random.randrange(20)
    if kind < 9:
        return CHAT, chat, 200, False
    if kind < 11:
        return CHAT, dict(chat, max_tokens=200, stream=True), 200, True
    if kind == 11:
        schema = dict(SCHEMA, title=word)
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        return CHAT, dict(chat, response_format=wanted), 200, False
    if kind == 12:
        return CHAT, dict(chat, tools=[TOOL]), 200, False
    if kind == 13:
        return CHAT, dict(chat, n=3, logprobs=True, top_logprobs=2), 200, False
    if kind == 14:
        return TEXT, {"prompt": [f"{word} and", "once"], "max_tokens": 8, "stop": ["."], "n": 2}, 200, False
    if kind == 15:
        return TEXT, {"prompt": f"{word} {word} " * random.randrange(1, 100), "max_tokens": 8}, 200, False
    if kind == 16:
        return EMBED, {"input": [word] * random.randrange(1, 9)}, 200, False
    if kind == 17:
        return CHAT, dict(chat, messages=[{"role": "user"}]), 400, False
    if kind == 18:
        return CHAT, dict(chat, temperature="hot"), 400, False
    return "/v1/" + word, chat, 404, False


def ask(port, path, body, expected, leaves):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", path, json.dumps(body))
    answer = connection.getresponse()
    if answer.status != expected:
        raise SystemExit(f"{path}: status {answer.status}, expected {expected}: {answer.read()!r}")
    if leaves:
        answer.readline()
    elif b'"error"' in answer.read() and expected == 200:
        raise SystemExit(f"{path}: an error in an answer to {body}")
    answer.close()
    connection.close()


class Clients:
    """They share a number of requests."""

    def __init__(self, port, seed):
        self.port, self.random, self.lock = port, random.Random(seed), threading.Lock()
        self.left, self.failed = 0, False

    def next(self):
        with self.lock:
            if self.left == 0 or self.failed:
                return None
            self.left -= 1
            return request_of(self.random)

    def run(self):
        try:
            while request := self.next():
                ask(self.port, *request)
        except (SystemExit, OSError) as e:
            self.failed = True
            print(f"error: {e}", file=sys.stderr)

    def ask(self, n):
        self.left = n
        threads = [threading.Thread(target=self.run) for _ in range(CLIENTS)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        if self.failed:
            raise SystemExit(1)


# ---- memory ----

def processes_of(pid):
    """Those of hearth among a process and its descendants."""
    found, wanted = [], [pid]
    while wanted:
        p = wanted.pop()
        try:
            children = [int(c) for t in Path(f"/proc/{p}/task").iterdir() for c in (t / "children").read_text().split()]
            name = Path(f"/proc/{p}/comm").read_text().strip()
        except OSError:
            continue # it has ended
        wanted += children
        if name.startswith("hearth"):
            found.append(p)
    return sorted(found)


def held_mib(pid):
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


def moments(n):
    """100, 200, 500, ... and n."""
    found = [d * 10 ** e for e in range(2, 9) for d in (1, 2, 5) if d * 10 ** e < n]
    return [*found, n]


def measure(args, server):
    clients, done, rows = Clients(args.port, args.seed), 0, []
    processes = processes_of(server.process.pid)
    if not processes:
        raise SystemExit("no process of hearth is there")
    began = time.monotonic()
    for n in moments(args.requests):
        clients.ask(n - done)
        done = n
        time.sleep(1) # what runs for those who left ends
        rows.append([n, *(held_mib(p) for p in processes)])
        say(f"{n} requests, {time.monotonic() - began:.0f} s: " + ", ".join(f"{m:.1f}" for m in rows[-1][1:]) + " MiB")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build/release")
    parser.add_argument("-m", "--model", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--requests", type=int, default=10000)
    parser.add_argument("--ranks", type=int, default=1, help="above 1: under mpirun")
    parser.add_argument("-t", "--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--growth", type=float, default=4, metavar="MIB")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=8120)
    args = parser.parse_args()
    server = Server([*(mpirun(args.ranks) if args.ranks > 1 else []), str(args.build / "hearth"), "serve", "-m",
                     str(args.model), "--port", str(args.port), "-t", str(args.threads), "-c", "2048", "-q"], args.port)
    try:
        rows = measure(args, server)
    finally:
        server.close()
    print(table(["requests", *(f"process {i}, MiB" for i in range(len(rows[0]) - 1))],
                [[n, *(f"{m:.1f}" for m in held)] for n, *held in rows]))
    early = next(held for n, *held in rows if n >= args.requests / 10)
    growth = max(b - a for a, b in zip(early, rows[-1][1:]))
    if growth > args.growth:
        raise SystemExit(f"a process has grown by {growth:.1f} MiB since a tenth of the requests")


if __name__ == "__main__":
    main()
