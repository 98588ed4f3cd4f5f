#!/usr/bin/env python3
"""Makes the small vocabulary-only models tok-*.gguf for the tokenizer tests. Deterministic.

usage: make_tokenizers.py DIRECTORY     (needs the PyPI package gguf)

Byte-level vocabularies: the 256 byte characters, a few hundred merges learnt from the text below, special tokens.
SentencePiece: special tokens, 256 byte tokens, the characters and the frequent strings of the same text with scores.
Gemma 4: special tokens, 256 byte tokens, the characters and merges of them.
"""
import collections
import os
import sys

import gguf

TEXT = """
The quick brown fox jumps over the lazy dog. She said: "I'm sure we'll see that they've gone, and you're not
the one who'd believe it's true." Numbers such as 1, 12, 123, 1234, 2024 and 3.14159 come in many lengths; so do
    indented lines,   runs of spaces, and tabs.

int main(void)
{
    for (int i = 0; i < 100; i++)
        printf("%d\\n", i * i);
    return 0;
}

def square(x):
    # the square of x
    return x ** 2

Die Straße war naß, aber schön. Où est le café? El niño comió la manzana. Это простой текст на русском языке.
这是一个简单的中文句子。これは日本語の文です。 한국어 문장입니다. هذا نص عربي. यह हिंदी का वाक्य है।
THE END. I'LL DON'T WE'VE IT'S  (parentheses) [brackets] {braces} <tags> a+b=c $5 50% #1 @home ~x ^y `z` |pipe|
""" * 2

# Words that merges may not cross, roughly as the pre-tokenizers cut; only plausible merges matter here.


def words(text):
    word = ""
    for c in text:
        kind = "l" if c.isalpha() else "n" if c.isnumeric() else "s" if c.isspace() else "o"
        if word and (kind != last or kind == "n") and word != " ":
            yield word
            word = ""
        word += c
        last = kind
    if word:
        yield word


def byte_characters():
    plain = [b for b in range(256) if 0x21 <= b <= 0x7E or 0xA1 <= b <= 0xAC or b >= 0xAE]
    table, extra = {b: chr(b) for b in plain}, 0
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + extra)
            extra += 1
    return table


def probes():
    """Merges that cross where the pre-tokenizers cut, so that ids show the cuts around characters of every kind."""
    table = byte_characters()
    leads = [0xC2, 0xC3, 0xCC, 0xD9, 0xE0, 0xE1, 0xE2, 0xE3, 0xEF, 0xF0]
    return [(table[ord(c)], table[b]) for c in "a1!'\nELMSTDe" for b in leads]


def in_bytes(word):
    table = byte_characters()
    return [table[b] for b in word.encode()]


def learn(count, spell=in_bytes):
    """Merges by frequency (ties: the smaller pair), over the byte characters or another spelling of words."""
    counted = collections.Counter(words(TEXT))
    for extra in ["    ", "        ", "\n\n", " \n", "\t\t", "123", "2024", "  ", "!!", "...", "'s", "\r\n"]:
        counted[extra] += 9
    items = [(spell(w), n) for w, n in sorted(counted.items())]
    merges = []
    while len(merges) < count:
        pairs = collections.Counter()
        for symbols, n in items:
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += n
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        for symbols, _ in items:
            i = 0
            while i + 1 < len(symbols):
                if (symbols[i], symbols[i + 1]) == best:
                    symbols[i:i + 2] = [symbols[i] + symbols[i + 1]]
                i += 1
    return merges


def begin(path, model, name="tokenizer test"):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_tokenizer_model(model)
    return writer


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def write_bpe(path, pre, count, specials, drop=(), whole=(), **keys):
    """drop: merges whose result is no token; whole: tokens that no merge makes."""
    normal = gguf.TokenType.NORMAL
    tokens = [(c, normal) for c in byte_characters().values()]
    merges = learn(count)
    merges += [p for p in probes() if p[0] + p[1] not in {a + b for a, b in merges}]
    for number, (left, right) in enumerate(merges):
        if number not in drop:
            tokens.append((left + right, normal))
    known = {t for t, _ in tokens}
    tokens += [(w, normal) for w in whole if w not in known] + [s for s in specials if s[0] not in known]
    writer = begin(path, "gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([t for t, _ in tokens])
    writer.add_token_types([int(k) for _, k in tokens])
    writer.add_token_merges([f"{a} {b}" for a, b in merges])
    ids = {t: i for i, (t, _) in enumerate(tokens)}
    write_keys(writer, ids, keys)
    finish(writer)


def write_keys(writer, ids, keys):
    """Of tokenizer.ggml: truths, and the ids of texts."""
    for key, value in keys.items():
        if isinstance(value, bool):
            writer.add_bool("tokenizer.ggml." + key, value)
        else:
            writer.add_uint32("tokenizer.ggml." + key + "_token_id", ids[value])


NORMAL, UNKNOWN, CONTROL = gguf.TokenType.NORMAL, gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL
USER, BYTE = gguf.TokenType.USER_DEFINED, gguf.TokenType.BYTE
LLAMA = ([("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)],
         [("<|user|>", USER), ("[INST]", CONTROL), ("<|end|>", CONTROL), ("<|endoftext|>", CONTROL), ("\n\n", USER)])
GEMMA = ([("<pad>", CONTROL), ("<eos>", CONTROL), ("<bos>", CONTROL), ("<unk>", UNKNOWN), ("<unused0>", CONTROL)],
         [("<start_of_turn>", CONTROL), ("<end_of_turn>", CONTROL), ("\n\n", USER), ("\n\n\n", USER), ("  ", USER),
          ("    ", USER), ("\t\t", USER), ("<h1>", USER), ("</h1>", USER), ("[multimodal]", USER)])
GEMMA_4 = (GEMMA[0], [("<|turn>", CONTROL), ("<turn|>", CONTROL), ("<|tool_response>", USER), ("</s>", NORMAL),
                      ("<|think|>", USER), ("\n\n", NORMAL), ("\n\n\n", NORMAL), ("<h1>", USER)])


def write_spm(path, name="tokenizer test", specials=LLAMA, **keys):
    """specials: the first and the last tokens."""
    tokens = [(t, 0.0, kind) for t, kind in specials[0]]
    tokens += [(f"<0x{b:02X}>", 0.0, BYTE) for b in range(256)]
    text = " " + TEXT
    counted = collections.Counter()
    for word in text.replace("\t", " ").replace("\n", " \n").split(" "):
        word = "\u2581" + word.strip("\n")
        for i in range(len(word)):
            for j in range(i + 2, min(len(word), i + 8) + 1):
                counted[word[i:j]] += 1
    counted["\u2581\u2581"], counted["\u2581\u2581\u2581\u2581"] = 40, 30
    pieces = sorted(counted, key=lambda p: (-counted[p] * (len(p) - 1), p))[:900]
    tokens += [(p, -float(i // 2), NORMAL) for i, p in enumerate(pieces)]  # equal scores in pairs: ties are tested
    for i, c in enumerate(sorted(set(text.replace("\n", "").replace("\t", "").replace(" ", "\u2581")))):
        tokens.append((c, -float(len(pieces) + i), NORMAL))
    tokens += [(t, 0.0, kind) for t, kind in specials[1]]
    seen, unique = set(), []
    for t in tokens:
        if t[0] not in seen:
            seen.add(t[0])
            unique.append(t)
    writer = begin(path, "llama", name)
    writer.add_token_list([t for t, _, _ in unique])
    writer.add_token_scores([s for _, s, _ in unique])
    writer.add_token_types([int(k) for _, _, k in unique])
    write_keys(writer, {t: i for i, (t, _, _) in enumerate(unique)}, keys)
    finish(writer)


def write_gemma4(path, count, **keys):
    merges = learn(count, lambda word: list(word.replace(" ", "\u2581")))
    merges = [m for m in merges if "\n" not in m[0] + m[1]]
    tokens = GEMMA_4[0] + [(f"<0x{b:02X}>", BYTE) for b in range(256)]
    tokens += [(c, NORMAL) for c in sorted(set(TEXT.replace(" ", "\u2581")))]
    tokens += [(a + b, NORMAL) for i, (a, b) in enumerate(merges) if i % 29 != 7]  # some merges make no token
    tokens += GEMMA_4[1]
    writer = begin(path, "gemma4")
    writer.add_token_list([t for t, _ in tokens])
    writer.add_token_types([int(kind) for _, kind in tokens])
    writer.add_token_merges([f"{a} {b}" for a, b in merges])
    write_keys(writer, {t: i for i, (t, _) in enumerate(tokens)}, keys)
    finish(writer)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = sys.argv[1]
    control, user = gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED
    chat = [("<|endoftext|>", control), ("<|im_start|>", control), ("<|im_end|>", control), ("<tool>", user),
            ("<tool><tool>", user), ("\u0120\u0120\u0120", user)]
    path = lambda name: os.path.join(out, f"tok-{name}.gguf")
    write_bpe(path("gpt-2"), "gpt-2", 400, chat, bos="<|endoftext|>", eos="<|endoftext|>")
    write_bpe(path("llama-bpe"), "llama-bpe", 400,
              [("<|begin_of_text|>", control), ("<|end_of_text|>", control), ("<|eot_id|>", control),
               ("<|start_header_id|>", control), ("<|end_header_id|>", control), ("<|python_tag|>", user)],
              drop=range(20, 400, 37), whole=["\u0120parentheses", "brackets", "Zyx"],
              bos="<|begin_of_text|>", eos="<|eot_id|>")
    write_bpe(path("qwen2"), "qwen2", 400, chat + [("<|fim_pad|>", control), ("<|file_sep|>", user)],
              add_bos_token=False, eos="<|im_end|>", bos="<|endoftext|>")
    write_bpe(path("falcon"), "falcon", 400, chat + [(">>TITLE<<", control)], drop=range(5, 400, 23),
              add_bos_token=True, add_eos_token=True, bos=">>TITLE<<", eos="<|endoftext|>")
    write_bpe(path("default"), "default", 300, chat, bos="<|endoftext|>", eos="<|endoftext|>")
    write_bpe(path("smollm"), "smollm", 300, chat, bos="<|endoftext|>", eos="<|im_end|>")
    write_spm(path("spm"))
    write_spm(path("phi3"), name="Phi-3 lookalike")
    write_spm(path("spm-noprefix"), add_space_prefix=False, add_bos_token=False, add_eos_token=True)
    gemma = {"bos": "<bos>", "eos": "<eos>", "unknown": "<unk>", "padding": "<pad>"}
    write_spm(path("gemma"), specials=GEMMA, add_space_prefix=False, **gemma)
    write_gemma4(path("gemma4"), 500, add_bos_token=False, **gemma)


if __name__ == "__main__":
    main()
