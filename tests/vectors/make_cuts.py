#!/usr/bin/env python3
"""Makes the vectors that show where each pre-tokenizer cuts: tok-cuts.gguf, a vocabulary whose merges cross most cuts,
and cuts.json, the ids of short texts under every name in tokenizer.ggml.pre that hearth knows.

usage: make_cuts.py DIRECTORY    (needs the PyPI packages gguf, tokenizers and llama-cpp-python; 0.23.3 and 0.3.36 made
                                  the committed files)

Where the pattern of a model's own tokenizer.json is known and llama.cpp rewrote it, tokenizers gives the ids by that
pattern; how many texts llama.cpp takes otherwise is printed. Elsewhere llama.cpp gives them, by each name.
cuts.json: `texts`; for each of them `ids`, the lists of ids that occur; for each kind `names` and `which` of these
lists each text has.
"""
import json
import os
import random
import sys
import tempfile

import gguf
import llama_cpp
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from make_tokenizers import byte_characters, learn
from make_tokens import WRITING, rows, tokenize

C = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"


def cased(suffix, digits, ends, but=""):
    return "|".join(rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}{but}]{a}[{LOWER}{but}]{b}{suffix}" for a, b in ("*+", "+*")) + \
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+{ends}|{BLANKS}"


GPT_4O = cased(C + "?", r"\p{N}{1,3}", r"[\r\n/]*")
DEEPSEEK_V3 = [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
               r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
               r"| ?[\p{P}\p{S}]+[\r\n]*|" + BLANKS]
LETTERS = (
    "41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376-377 37B-37D 37F 386 388-38A 38C 38E-3A1 "
    "3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA 1CBD-1CBF 1D00-1D2B 1D6B-1D77 1D79-1D9A "
    "1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE 1FC2-1FC4 "
    "1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102 2107 210A-2113 2115 2119-211D 2124 2126 2128 "
    "212A-212D 212F-2134 2139 213C-213F 2145-2149 214E 2183-2184 2C00-2C7B 2C7E-2CE4 2CEB-2CEE 2CF2-2CF3 A640-A66D "
    "A680-A69B A722-A76F A771-A787 A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F "
    "104B0-104D3 104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF 1E900-1E943")
LETTERS = "".join("-".join(chr(int(c, 16)) for c in r.split("-")) for r in LETTERS.split())  # DeepSeek LLM's
# Names, and the patterns of the models' own tokenizers where llama.cpp has others.
KINDS = [
    (["gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4", "jina-es", "jina-de", "gigachat", "a.x-4.0", "mellum",
      "trillion", "granite-docling"], None),
    (["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2", "midm-2.0"], None),
    (["dbrx", "smaug-bpe", "chatglm-bpe"], None),
    (["glm4", "glm5"], None),
    (["minicpm5"], None),
    (["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"], None),
    (["qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan", "kormo", "f2llmv2", "solar-open", "grok-2"], None),
    (["qwen35"], None),
    (["seed-coder"], None),
    (["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], [GPT_4O]),
    (["tekken"], [cased("", r"\p{N}", r"[\r\n/]*")]),
    (["kimi-k2"], [r"[\p{Han}]+|" + cased(C + "?", r"\p{N}{1,3}", r"[\r\n]*", r"&&[^\p{Han}]")]),
    (["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], DEEPSEEK_V3),
    (["deepseek-llm"], ["[\r\n]", rf"\s?[{LETTERS}]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", "[一-龥ࠀ-一가-퟿]+",
                        r"\p{N}+"]),
    (["deepseek-coder"], ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"]),
    (["youtu"], ["[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+",
                 cased(C + "?", r"\p{N}", r"[\r\n/]*")]),
    (["falcon"], None),
    (["default"], None),
]
WHOLE = {"llama-bpe", "glm4", "minicpm5", "tekken", "youtu"}  # a word that is a token stays whole

CHARACTERS = list("abestmABSTEéßÉЖжǅʰª中国のカ한ㄱ〇々⺀豈𠀀ᄀ가ㄅक กაᲐաԱⲁᎠꭰ𐐀𝐀ʔ12340٣½²Ⅷ "
                  " \u00a0\u3000\n\r\t\u2028.,!?/'\"$+<=`_-(@#~，。‘’“…！～"
                  "€😀\x01\u200d\u0301\u093f\u0e31\u20e3\ue000️") + ["'s", "'S", "'ll", "'LL", "'Re", "'ſ", "  ", "\n\n"]


def texts():
    rng = random.Random(13)
    made = {"".join(rng.choice(CHARACTERS) for _ in range(rng.randint(2, 9))) for _ in range(500)}
    words = ["camelCase", "HTTPServer", "iPhone's", "ÉCOLEs", "naïveÉcole", "ABCdefGHI", "Ünïcödé", "हिंदी में",
             "x=1234567",
             "don'T", "we'LLgo", "/usr//local/\n/", ".\n/", "!\r\n/", "~\n/\n/a", "(\n//", "?\r/", "+\n/s", "a/b\r\n",
             "中文abcABC中", "ÀÉ中ÀÉ", "中ÀÉé", "ᲐᲑaა", "1२३४५"]
    return sorted(made) + words + [t for t in WRITING if 0 < len(t) < 30]


def vocabulary():
    """Tokens and merges: whatever bytes stand side by side where two of the characters meet."""
    table, rng = byte_characters(), random.Random(7)
    ends = [c.encode() for c in CHARACTERS]
    meet = sorted({(a[-1], b[0]) for a in ends for b in ends})
    rng.shuffle(meet)
    merges = [(table[a], table[b]) for a, b in meet]
    merges += [m for m in learn(300) if m not in set(merges)]
    tokens = list(dict.fromkeys(list(table.values()) + [a + b for a, b in merges]))
    return tokens, [m for i, m in enumerate(merges) if m[0] + m[1] not in {a + b for a, b in merges[:i]}]


def write(path, pre, tokens, merges):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([int(gguf.TokenType.NORMAL)] * len(tokens))
    writer.add_token_merges([f"{a} {b}" for a, b in merges])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def by_llama_cpp(name, vocabulary, items):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.gguf")
        write(path, name, *vocabulary)
        llama = llama_cpp.Llama(path, vocab_only=True, verbose=False)
        return [tokenize(llama_cpp, llama._model.vocab, t.encode(), False, False) for t in items]


def by_patterns(patterns, whole, vocabulary, items):
    tokens, merges = vocabulary
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges, ignore_merges=whole))
    cuts = [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts + [pre_tokenizers.ByteLevel(False, use_regex=False)])
    return [tokenizer.encode(t).ids for t in items]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    items, made = texts(), vocabulary()
    write(os.path.join(sys.argv[1], "tok-cuts.gguf"), "gpt-2", *made)
    lists, kinds = [[] for _ in items], []
    for names, patterns in KINDS:
        found = [by_llama_cpp(name, made, items) for name in names]
        assert all(f == found[0] for f in found), names
        ids = found[0]
        if patterns:
            ids = by_patterns(patterns, names[0] in WHOLE, made, items)
            other = sum(a != b for a, b in zip(ids, found[0]))
            print(f"{names[0]}: llama.cpp takes {other} of {len(items)} texts otherwise")
        which = []
        for known, one in zip(lists, ids):
            if one not in known:
                known.append(one)
            which.append(known.index(one))
        kinds.append({"names": names, "which": which})
    with open(os.path.join(sys.argv[1], "cuts.json"), "w") as f:
        f.write('{"texts": ' + rows(items) + ',\n"ids": ' + rows(lists) + ',\n"kinds": ' + rows(kinds) + "}\n")


if __name__ == "__main__":
    main()
