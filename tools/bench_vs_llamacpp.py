#!/usr/bin/env python3
"""Measures hearth against llama.cpp on this machine and writes its part of docs/benchmarks.md.

    python3 -m venv venv
    CMAKE_ARGS="-DGGML_NATIVE=ON -DGGML_AMX_TILE=OFF -DGGML_AMX_INT8=OFF" \\
        venv/bin/pip install --no-binary llama-cpp-python llama-cpp-python==0.3.36
    venv/bin/python tools/bench_vs_llamacpp.py --build build/release

Every measurement is a process of its own, and the two programs take turns (hearth, llama.cpp, hearth, ...), so that
whatever else the machine does hits both alike. llama.cpp is driven through its C API with fixed tokens: no Python runs
between the tokens that are timed but the call itself. Both warm up once before they are timed.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmark import PAGE, ROOT, facts, interleave, say, table, with_goal, write_section

# name, prompt tokens, decoded tokens, goals (decode, prompt): how many times llama.cpp's speed
MODELS = [
    ("SmolLM2-135M Q4_1", 512, 128, 1.7, 1.7),
    ("1B shape q4_0", 128, 64, 1.3, 1.2),
    ("1B shape q4_k", 128, 64, 1.3, 1.2),
    ("1B shape q8_0", 128, 64, 1.15, 1.2),
]


# ---- llama.cpp: one measurement, in a process of its own ----

def llama_measure(model_path, threads, n_prompt, n_decode):
    import ctypes
    import llama_cpp.llama_cpp as lc

    @lc.llama_log_callback
    def quiet(level, text, user_data):
        pass

    lc.llama_log_set(quiet, ctypes.c_void_p(0))
    lc.llama_backend_init()
    model_params = lc.llama_model_default_params()
    model_params.n_gpu_layers = 0
    model = lc.llama_model_load_from_file(str(model_path).encode(), model_params)
    if not model:
        sys.exit(f"llama.cpp cannot load {model_path}")
    params = lc.llama_context_default_params()
    params.n_ctx = max(n_prompt, n_decode) + 64
    params.n_threads = params.n_threads_batch = threads
    context = lc.llama_init_from_model(model, params)
    if not context:
        sys.exit(f"llama.cpp cannot make a context for {model_path}")
    memory = lc.llama_get_memory(context)
    n_vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))
    batch = lc.llama_batch_init(n_prompt, 0, 1)

    def decode(first, count):
        batch.n_tokens = count
        for i in range(count):
            batch.token[i] = 1000 + (first + i) * 7919 % (n_vocab - 1000)
            batch.pos[i] = first + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = i == count - 1
        start = time.perf_counter()
        if lc.llama_decode(context, batch) != 0:
            sys.exit("llama_decode failed")
        lc.llama_synchronize(context)
        return time.perf_counter() - start

    decode(0, n_prompt)
    decode(n_prompt, 1)
    lc.llama_memory_clear(memory, True)
    prompt_s = decode(0, n_prompt)
    lc.llama_memory_clear(memory, True)
    decode(0, 8)
    decode_s = sum(decode(8 + i, 1) for i in range(n_decode))
    print(json.dumps({"prompt": n_prompt / prompt_s, "decode": n_decode / decode_s,
                      "model_bytes": lc.llama_model_size(model)}))


def run_llama(model, threads, n_prompt, n_decode):
    command = [sys.executable, __file__, "--llama-child", str(model), str(threads), str(n_prompt), str(n_decode)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


# ---- hearth ----

def run_hearth(hearth, model, threads, n_prompt, n_decode):
    command = [str(hearth), "bench", "-m", str(model), "-p", str(n_prompt), "-n", str(n_decode), "-r", "1",
               "-t", str(threads), "-o", "json"]
    rows = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    by_test = {row["test"]: row for row in rows}
    decode = by_test[f"tg{n_decode}"]
    return {"prompt": by_test[f"pp{n_prompt}"]["tokens_per_s"], "decode": decode["tokens_per_s"],
            "peak": decode["peak_read_gb_per_s"], "bytes_per_token": decode["bytes_per_token"]}


def first_token_seconds(hearth, model):
    """Wall time from starting the process to the first byte of its answer."""
    command = [str(hearth), "run", "-m", str(model), "-p", "The capital of France is", "-n", "8", "--temp", "0"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    byte = os.read(process.stdout.fileno(), 1)
    seconds = time.perf_counter() - start
    process.stdout.read()
    if process.wait() != 0 or not byte:
        sys.exit(f"{' '.join(command)} failed")
    return seconds


# ---- the comparison ----

def compare(args, models, sides_wanted):
    """Rows of the main table, and the medians behind them by (model, threads)."""
    rows, found = [], {}
    for name, n_prompt, n_decode, decode_goal, prompt_goal in MODELS:
        path = models[name]
        if not path:
            continue
        for threads in args.threads:
            sides = {
                "hearth": lambda: run_hearth(args.hearth, path, threads, n_prompt, n_decode),
                "llama.cpp": lambda: run_llama(path, threads, n_prompt, n_decode),
            }
            result = interleave(args.repeat, {s: sides[s] for s in sides_wanted}, f"{name}, {threads} threads")
            found[name, threads] = result
            if len(result) < 2:
                continue
            ours, theirs = result["hearth"], result["llama.cpp"]
            gb = theirs["model_bytes"] * 1e-9
            rows.append([
                name, threads,
                f"{ours['decode']:.1f}", f"{theirs['decode']:.1f}",
                with_goal(ours["decode"] / theirs["decode"], decode_goal),
                f"{ours['decode'] * gb:.1f}", f"{theirs['decode'] * gb:.1f}", f"{ours['peak']:.1f}",
                f"{100 * ours['decode'] * gb / ours['peak']:.0f} %",
                f"{ours['prompt']:.0f}", f"{theirs['prompt']:.0f}",
                with_goal(ours["prompt"] / theirs["prompt"], prompt_goal) + f" at {n_prompt}",
            ])
    return rows, found


def write_report(args, rows, first_token_s):
    import llama_cpp
    parts = [
        "Written by `tools/bench_vs_llamacpp.py`, whose head says what it needs:",
        "```\nvenv/bin/python tools/bench_vs_llamacpp.py --build build/release\n```",
        facts(args.repeat, ["llama.cpp", f"llama-cpp-python {llama_cpp.__version__}, built here from source"]),
        "Decoding (tok/s, after a short prompt; 128 tokens with SmolLM2, 64 with the others) and prompt processing"
        " (tok/s, for the number of tokens in the last column). Read rates are the weights' bytes in the file, all of"
        " which a token needs (the embedding is tied to the output), times tokens per second. `peak` is the machine's"
        " read bandwidth with as many threads, measured by `hearth bench` in the same runs. The 1B shape is"
        " `hearth-synth --shape 1b`.",
        table(["model", "threads", "decode hearth", "llama.cpp", "ratio", "GB/s hearth", "llama.cpp", "peak",
               "hearth of peak", "prompt hearth", "llama.cpp", "ratio"], rows),
    ]
    if first_token_s is not None:
        parts += [
            "### Start to first token",
            "`hearth run` on SmolLM2, from starting the process to the first byte of the answer, the file in the page"
            f" cache: {first_token_s:.2f} s (goal: under 1 s).",
        ]
    write_section(args.output, "Against llama.cpp, one process", parts)


def find_models(args):
    """The file of each model of MODELS, synthetic ones made where missing; None for those not asked for."""
    files = {}
    for name, *_ in MODELS:
        if args.models and not any(word in name for word in args.models):
            files[name] = None
        elif name.startswith("SmolLM2"):
            files[name] = args.smollm2
        else:
            kind = name.split()[-1]
            files[name] = args.model_dir / f"1b-{kind}.gguf"
            if not files[name].exists():
                args.model_dir.mkdir(parents=True, exist_ok=True)
                synth = [args.build / "hearth-synth", "--shape", "1b", "--type", kind, "-o", files[name]]
                subprocess.run(synth, check=True)
        if files[name] and not files[name].exists():
            sys.exit(f"{files[name]} is missing (deploy/demo.sh downloads SmolLM2)")
    return files


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--llama-child":
        model, threads, n_prompt, n_decode = sys.argv[2:]
        llama_measure(model, int(threads), int(n_prompt), int(n_decode))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build/release", help="has hearth and hearth-synth")
    parser.add_argument("--model-dir", type=Path, default=ROOT / "models", help="synthetic models are kept there")
    parser.add_argument("--smollm2", type=Path, help="SmolLM2-135M-Instruct.Q4_1.gguf (default: in the model folder)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=5, help="runs of each program (default 5)")
    parser.add_argument("--models", nargs="+", help="only models whose name contains one of these words")
    parser.add_argument("--only", choices=["hearth", "llama.cpp"], help="measure one program, write nothing")
    parser.add_argument("--output", type=Path, default=PAGE)
    args = parser.parse_args()
    args.hearth = args.build / "hearth"
    args.smollm2 = args.smollm2 or args.model_dir / "SmolLM2-135M-Instruct.Q4_1.gguf"
    models = find_models(args)

    rows, found = compare(args, models, [args.only] if args.only else ["hearth", "llama.cpp"])
    if args.only:
        for (name, threads), result in found.items():
            m = result[args.only]
            print(f"{name}, {threads} threads: decode {m['decode']:.1f} tok/s, prompt {m['prompt']:.0f} tok/s")
        return
    first_token_s = None
    if models["SmolLM2-135M Q4_1"]:
        first_token_seconds(args.hearth, args.smollm2) # fills the page cache
        first_token_s = statistics.median(first_token_seconds(args.hearth, args.smollm2) for _ in range(args.repeat))
    write_report(args, rows, first_token_s)


if __name__ == "__main__":
    main()
