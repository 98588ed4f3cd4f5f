#!/usr/bin/env python3
"""Makes the token vectors of the tokenizer tests from llama.cpp.

usage: make_tokens.py strings OUT.json            writes the strings
       make_tokens.py STRINGS.json MODEL OUT.json  writes what llama.cpp makes of them

needs the PyPI package llama-cpp-python (0.3.36 made the committed files). A string is JSON text, or
{"base64": ...} when it holds NUL or is no UTF-8. For each string: `plain`, ids without special tokens, and `special`,
ids with add_special and parse_special; `pieces`: base64 of the pieces of `special` in a row, control tokens included.
"""
import base64
import ctypes
import json
import random
import sys

WRITING = [
    "", " ", "a", "Hello", "Hello world", " Hello world", "Hello  world", "Hello, world!", "hello world ",
    "HELLO WORLD", "The quick brown fox jumps over the lazy dog.", "I'm you're he's we've they'll she'd don't",
    "I'M YOU'RE HE'S WE'VE THEY'LL SHE'D", "it's 'quoted' and ''doubly'' so", "'s't're've'm'll'd",
    "'S'T'RE'VE'M'LL'D", "'sa 'ta 'rea", "o'clock rock'n'roll", "' s", "'", "''", "can\u2019t won\u2019t",
    "'\u017f '\u212a", "1", "12", "123", "1234", "12345", "123456789012345", "3.14159", "1,000,000", "1 2 3",
    "a1b2c3", "0x1F600", "2024-05-17T12:34:56Z", "\u00b2\u00b3\u00b9 x\u2082 \u00bd \u2153 \u2160\u2161\u2163",
    "\u0661\u0662\u0663\u0664", "\u0967\u0968\u0969\u096a", "\uff11\uff12\uff13", "\u4e00\u4e8c\u4e09\u5341",
    "50% off $9.99 \u20ac5 \u00a37", "Die Stra\u00dfe war na\u00df; \u00dcbergr\u00f6\u00dfe.",
    "\u00c0 bient\u00f4t, \u0153uvre na\u00efve", "El ni\u00f1o comi\u00f3 \u00bfqu\u00e9? \u00a1s\u00ed!",
    "S\u00e3o Paulo \u00e9 uma cidade", "P\u0159\u00edli\u0161 \u017elu\u0165ou\u010dk\u00fd k\u016f\u0148",
    "Za\u017c\u00f3\u0142\u0107 g\u0119\u015bl\u0105 ja\u017a\u0144", "\u0130stanbul'da \u0131\u015f\u0131k",
    "Sm\u00f8rrebr\u00f8d \u00e5 \u00e6", "\u00cdslenska \u00fe\u00fa \u00e6tlar", "M\u0101ori wh\u0101nau",
    "Ti\u1ebfng Vi\u1ec7t c\u00f3 d\u1ea5u",
    "\u042d\u0442\u043e \u043f\u0440\u043e\u0441\u0442\u043e\u0439 \u0442\u0435\u043a\u0441\u0442.",
    "\u0423\u043a\u0440\u0430\u0457\u043d\u0441\u044c\u043a\u0430 \u043c\u043e\u0432\u0430 \u0457\u0436\u0430\u043a",
    "\u0391\u03b2\u03b3 \u03b4\u03b5\u03b6 \u03ba\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1",
    "\u10e5\u10d0\u10e0\u10d7\u10e3\u10da\u10d8 \u10d4\u10dc\u10d0", "\u0540\u0561\u0575\u0565\u0580\u0565\u0576",
    "\u8fd9\u662f\u4e00\u4e2a\u7b80\u5355\u7684\u4e2d\u6587\u53e5\u5b50\u3002",
    "\u7e41\u9ad4\u4e2d\u6587\u6e2c\u8a66\uff0c\u4f60\u597d\uff01",
    "\u3053\u308c\u306f\u65e5\u672c\u8a9e\u306e\u6587\u3067\u3059\u3002\u30ab\u30bf\u30ab\u30ca",
    "\ud55c\uad6d\uc5b4 \ubb38\uc7a5\uc785\ub2c8\ub2e4.", "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "\u0647\u0630\u0627 \u0646\u0635 \u0639\u0631\u0628\u064a \u0628\u0633\u064a\u0637",
    "\u0627\u0644\u0652\u0639\u064e\u0631\u064e\u0628\u0650\u064a\u0651\u064e\u0629",
    "\u0641\u0627\u0631\u0633\u06cc \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd",
    "\u092f\u0939 \u0939\u093f\u0902\u0926\u0940 \u0915\u093e \u0935\u093e\u0915\u094d\u092f \u0939\u0948\u0964",
    "\u09ac\u09be\u0982\u09b2\u09be \u09ad\u09be\u09b7\u09be",
    "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd \u0bae\u0bca\u0bb4\u0bbf", "\u0c24\u0c46\u0c32\u0c41\u0c17\u0c41",
    "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22\u0e40\u0e02\u0e35\u0e22\u0e19\u0e15\u0e34\u0e14\u0e01\u0e31\u0e19",
    "\u0ea5\u0eb2\u0ea7", "\u1019\u103c\u1014\u103a\u1019\u102c", "\u1781\u17d2\u1798\u17c2\u179a",
    "\u0f56\u0f7c\u0f51\u0f0b\u0f61\u0f72\u0f42", "\u1208\u12cd\u1325", "\u13e3\u13b3\u13a9",
    "\u1820\u182d\u180e\u1820", "\u16a0\u16a2\u16a6", "\ud835\udc00".encode("utf-16",
    "surrogatepass").decode("utf-16")+"\U0001d401\U0001d7ce\U0001d7cf", "\U00020000\U00020001 \U0001f1e9\U0001f1ea",
    "\u0301combining e\u0301 a\u0308\u0323", "\u01c5 \u02b0 \u00aa \u00ba \u2115", "\u2460\u2461 \u3251 \u3231",
    "\U0001f600", "\U0001f600\U0001f601\U0001f602", "hi \U0001f44b\U0001f3fd there",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family", "\U0001f3f3\ufe0f\u200d\U0001f308",
    "\u2764\ufe0f love \u2665", "1\ufe0f\u20e3 2\ufe0f\u20e3", "\U0001f9d1\U0001f3ff\u200d\U0001f4bb codes",
    "\u2600\u2601\u2602 \u2713\u2717", "\u2190\u2191\u2192 \u21d2 \u2200x\u2208\u2124",
    "\u222b\u2211\u220f \u221a2 \u2248 1.41", "a\u200bb\u200cc\u200dd\ufeffe", "\u202eright-to-left\u202c",
    "\u00adsoft\u00adhyphen", "\t", "\n", "\r", "\r\n", "\n\n", "\n\n\n", "\t\t", "  ", "   ", "    ", "        ",
    "                ", " \n", "\n ", " \n ", "\n \n", "  \n  \n  ", "\t \t", "\x0b\x0c", "a b", "a  b", "a   b",
    "a    b", "a\tb", "a\t\tb", "a \tb", "a\nb", "a\n\nb", "a \nb", "a\n b", "a \n b", "a\r\nb", "a\r\n\r\nb", "a\rb",
    "a  \n  b", "a\n\n\n   b", "end  ", "end \n", "end\n\n", "end\t", "x\u00a0y", "x\u00a0\u00a0y", "x\u2003y",
    "x\u2002\u2003y", "x\u3000y", "\u3000\u3000x", "x\u2028y", "x\u2029y", "x\u0085y", "x\u0085\u0085y", "x\u1680y",
    "x\u180ey", "x\u202fy", "x\u205fy", "x\u2007 \u2007y", "x\x1cy\x1dy\x1ez\x1f", "x \u00a0 y", "\x01\x02\x03",
    "\x7f\x80\x9f", "bell\x07back\x08esc\x1b[31mred\x1b[0m", "tab\x09lf\x0avt\x0bff\x0ccr\x0d.",
    "\u0378\u0379 unassigned", "\ue000\uf8ff private", "\ufffd replaced \ufffd\ufffd", "\uffff\ufffe", "\U0010ffff",
    "\U000e0001\U000e0041", "int main(void)\n{\n    return 0;\n}\n", "for (int i = 0; i < n; i++)\n\tsum += a[i];",
    "#include <stdio.h>\n#define MAX(a, b) ((a) > (b) ? (a) : (b))",
    "def f(x):\n    if x > 0:\n        return x ** 2\n    return None\n", "    indented = True", "        deep",
    "\t\tif (x) {\n\t\t\ty();\n\t\t}", "<div class=\"a\">text</div>", "<!-- comment -->",
    "{\"key\": [1, 2.5, null, true]}", "SELECT * FROM t WHERE a = 'b';", "git commit -m \"fix: it's done\"",
    "https://example.org/path?q=1&r=%20#frag", "user@example.org", "C:\\Users\\me\\file.txt", "/usr/local/bin",
    "a+b=c; a-=b; a!=b; a<=b>=c; a&&b||!c", "x = y // z # comment", "fn main() { println!(\"{}\", 1u8); }",
    "let x: Vec<Option<&'static str>> = vec![];", "std::cout << \"hi\" << std::endl;",
    "public static void main(String[] args)", "lambda x: x+1", "regex: ^[a-z]+\\d{2,3}$", "$HOME ${x} $(cmd) `tick`",
    "\\frac{a}{b} \\alpha_1^2", "| a | b |\n|---|---|\n| 1 | 2 |", "# Title\n\n- item\n- item\n\n1. one\n2. two\n",
    "```python\nprint('x')\n```", "**bold** _it_ ~~no~~", "AAAAAAAA", "aaaaaaaaaaaaaaaa",
    "camelCaseAndSnake_case_and-kebab-case", "!", "!!", "!!!", "...", ". . .", "?!", "--", "---", "-----",
    "==========", "//////", "******", "######", "______", "(((())))", "[[[]]]", "<<<>>>", "!@#$%^&*()",
    "`~-_=+[]{}\\|;:'\",<.>/?", " !", " ...", " (", " \"quoted\"", "\"",
    "\u201cquoted\u201d \u2018single\u2019 \u00abguill\u00bb", "\u3010\u3011\u300c\u300d\u3001\u3002",
    "\u2026\u2014\u2013\u2022", "a.b.c", "a,b,c", "e.g. i.e. etc.", "a!\nb", "a!\n\nb", "a!\r\n  b", "a ! \n b",
    "end.\n", ".\n\n\n.", "$+<=>^`|~", "a$b+c<d=e>f^g`h|i~j",
    "\u00a2\u00a3\u00a4\u00a5\u00a6\u00a7\u00a9\u00ae\u00b0\u00b1", "<|endoftext|>",
    "<|im_start|>user\nHi<|im_end|>\n",
    "<|im_start|>system\nYou are a helpful AI assistant.<|im_end|>\n<|im_start|>user\nWhat is"
    " 2+2?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|> <|im_end|>", "<|im_start|><|im_start|>", "a<|im_end|>b", "a <|im_end|> b", "<|im_end|", "|im_end|>",
    "<<|im_end|>>", "<|im_end|>\n\n  text",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>", "<|end_of_text|>", "<|eot_id|>  x",
    "<|python_tag|>import x", "<s>", "</s>", "<s>[INST] Hi [/INST] Hello</s>", "[INST]  [INST]", "<unk>", "<pad>",
    "<|user|>\nHi<|end|>\n<|assistant|>\n", "<|user|> a <|user|>", "<tool>", "<tool><tool>", "<tool><tool><tool>",
    "x<tool> y <tool>z", "\u0120\u0120\u0120", "\u0120a\u010ab", ">>TITLE<< x", "<|file_sep|><|fim_pad|>",
    "<repo_name>a<file_sep>b<filename>", "<jupyter_start><empty_output>", "<start_of_turn>user\nHi<end_of_turn>",
    "<0x0A>", "<0x41>\u2581x", "\u2581", "\u2581\u2581 a", "a\u2581b", "\n\n\n\n\n", "\n\n \n\n",
    "'RE\u00e9'VE\u00e9'LL\u00e9'S\u00e9'T\u00e9'M\u00e9'D\u00e9'rE\u00e9'Re\u00e9'Ve\u00e9'lL\u00e9",
    "'re\u00e9've\u00e9'll\u00e9's\u00e9't\u00e9'm\u00e9'd\u00e9", "(parentheses) [brackets] Zyx", " parentheses",
    "brackets", "Zyx", "Zyxw", " Zyx parenthesesbrackets",
]
BROKEN = [
    b"\x00", b"a\x00b", b"\x00\x00\x00", b"\x80", b"\xff", b"\xfe\xff", b"a\x80b", b"a\xffb", b"\xc3", b"\xc3(",
    b"\xe2\x82", b"\xe2\x82(", b"\xe2(\xa1", b"\xf0\x9f\x98", b"\xf0\x9f\x98x", b"\xf0(\x8c(", b"caf\xe9 au lait",
    b"na\xefve \x93quoted\x94", b"\xc0\x80", b"\xc1\xa1", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xf0\x80\x80\x80",
    b"\xf0\x80\x81\xa1x", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"a\xed\xa0\xbd\xed\xb8\x80b",
    b" \xed\xa0\x80 \xed\xb0\x80", b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80",
    b"ok \xf0\x9f\x98\x80 \xf0\x9f", b"\xe4\xbd\xa0\xe5\xa5", b"\xa0\xa1 \xa2\xa3", b"12\xff34", b"\xff\xff\xff\xff",
    b"\x80\x80 \x80", b"\xc3\xa9\xc3", b"<|im_end|>\xff<|im_end|>",
]


KINDS = ("\t\x0b\x0c\x1c\x1f\x85\xa0\xad\xb2\xb5\xbd\xc0\xd7\u02b0\u0300\u0488\u0660\u0903\u1680\u180e\u1963"
         "\u2000\u2007\u200a\u200b\u2028\u2029\u202f\u203f"
         "\u205f\u2060\u20ac\u2160\u2190\u2460\u3000\u3007\u3021\u30fb\ue000\ufeff"
         "\uff10\uff21\uff3f\ufffd\U00010107\U00010330\U0001d7d8\U0001f600\U000e0020\U000f0000")


def kinds():
    """Characters of every kind between a letter, a digit, a sign and a line end."""
    return [f"a{c}a1{c}1!{c}!'{c}s\n{c}\n{c}{c}a  {c} !" for c in KINDS]


def mixed(count):
    """Reproducible mixtures of everything above."""
    rng = random.Random(1)
    atoms = [s for s in WRITING if 0 < len(s) < 24] + list("aeiou  \n\t019.,'\u00e9\u0436\u4e2d")
    return ["".join(rng.choice(atoms) for _ in range(rng.randint(2, 12))) for _ in range(count)]


def strings():
    long = " ".join(s for s in WRITING if s.isprintable())[:3000]
    result = [s.encode() for s in WRITING + kinds() + mixed(60)]
    result += [long.encode(), b"a" * 300, b" " * 300, b"\n" * 200, b"ab " * 100, b"1" * 200,
               "\u00e9".encode() * 100, b"!" * 200, b"word" * 100]
    result += BROKEN
    assert len(set(result)) == len(result), [s for s in result if result.count(s) > 1]
    return result


def pack(data):
    try:
        if b"\0" not in data:
            return data.decode()
    except UnicodeDecodeError:
        pass
    return {"base64": base64.b64encode(data).decode()}


def unpack(item):
    return item.encode() if isinstance(item, str) else base64.b64decode(item["base64"])


def tokenize(lib, vocab, data, add_special, parse_special):
    ids = (ctypes.c_int32 * (3 * len(data) + 16))()
    n = lib.llama_tokenize(vocab, data, len(data), ids, len(ids), add_special, parse_special)
    assert n >= 0
    return ids[:n]


def piece(lib, vocab, token):
    out = ctypes.create_string_buffer(4096)
    n = lib.llama_token_to_piece(vocab, token, out, len(out), 0, True)
    assert n >= 0
    return out.raw[:n]


def vectors(model, items):
    import llama_cpp as lib
    llama = lib.Llama(model, vocab_only=True, verbose=False)
    vocab = llama._model.vocab
    n = lib.llama_vocab_n_tokens(vocab)
    special = [tokenize(lib, vocab, s, True, True) for s in items]
    return {
        "n_vocab": n,
        "bos": lib.llama_vocab_bos(vocab),
        "eos": lib.llama_vocab_eos(vocab),
        "add_bos": bool(lib.llama_vocab_get_add_bos(vocab)),
        "ends": [i for i in range(n) if lib.llama_vocab_is_eog(vocab, i)],
        "plain": [tokenize(lib, vocab, s, False, False) for s in items],
        "special": special,
        "pieces": [base64.b64encode(b"".join(piece(lib, vocab, i) for i in ids)).decode() for ids in special],
    }


def rows(value):
    """JSON with one element of a list a line, so that files compare well."""
    if isinstance(value, list):
        return "[\n" + ",\n".join(json.dumps(v, separators=(",", ":")) for v in value) + "\n]"
    if isinstance(value, dict):
        long = ("plain", "special", "pieces")
        return "{\n" + ",\n".join(json.dumps(k) + ": " + (rows(v) if k in long else json.dumps(v))
                                  for k, v in value.items()) + "\n}\n"
    return json.dumps(value)


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "strings":
        result = rows([pack(s) for s in strings()]) + "\n"
    elif len(sys.argv) == 4:
        with open(sys.argv[1]) as f:
            result = rows(vectors(sys.argv[2], [unpack(s) for s in json.load(f)]))
    else:
        sys.exit(__doc__)
    with open(sys.argv[-1], "w") as f:
        f.write(result)


if __name__ == "__main__":
    main()
