"""Random JSON schemas, asked of PyPI's jsonschema: every text that a schema's grammar allows must be valid by it, and
instances that are made for it here must be allowed.

    schema_test.py SCHEMA_TEXTS

Exit status 77: jsonschema is not there. HEARTH_SCHEMAS=N makes N schemas instead of a few, HEARTH_SCHEMA_SEED=N others.
"""
import json
import os
import random
import subprocess
import sys

try:
    import jsonschema
except ImportError:
    print("SKIP: python3-jsonschema is not installed")
    sys.exit(77)

TEXTS = 5  # of each schema, and as many instances


class Grammar:
    """Answers of the C program (schema_texts.c)."""

    def __init__(self, program):
        self.p = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, line, answers=1):
        self.p.stdin.write(line.encode() + b"\n")
        self.p.stdin.flush()
        return [self.p.stdout.readline().rstrip(b"\n") for _ in range(answers)]

    def make(self, schema):
        return self.ask("S " + json.dumps(schema))[0].decode()

    def texts(self, seed, n):
        return self.ask(f"W {seed} {n}", n)

    def allows(self, text):
        return self.ask("M " + text)[0] == b"yes"


class Maker:
    """Makes schemas, each with a function that makes an instance of it."""

    def __init__(self, r):
        self.r = r
        self.defs = {}

    def word(self, least=0, most=6, alphabet="abcxyz AZ09_-/.\"\\\n\té€😀"):
        return "".join(self.r.choice(alphabet) for _ in range(self.r.randint(least, most)))

    def value(self, depth=2):
        kind = self.r.randrange(8 if depth else 6)
        if kind < 3:
            return [None, True, False][kind]
        if kind == 3:
            return self.r.choice([self.r.randint(-1000, 1000), self.r.randint(-4000, 4000) / 8])
        if kind < 6:
            return self.word()
        if kind == 6:
            return [self.value(depth - 1) for _ in range(self.r.randrange(4))]
        return {self.word(): self.value(depth - 1) for _ in range(self.r.randrange(4))}

    # --- leaves ---

    def simple(self):
        return self.r.choice([
            ({"type": "null"}, lambda: None),
            ({"type": "boolean"}, lambda: self.r.random() < 0.5),
            ({"type": "string"}, self.word),
            ({"type": "string", "description": "d", "x-other": 1}, self.word),
            ({}, self.value),
            (True, self.value),
            ({"type": "object"}, lambda: {self.word(): self.value(1) for _ in range(self.r.randrange(3))}),
            ({"type": "array"}, lambda: [self.value(1) for _ in range(self.r.randrange(3))]),
        ])

    def const(self):
        v = self.value()
        return {"const": v}, lambda: v

    def enum(self):
        if self.r.random() < 0.5:
            all = sorted({self.word() for _ in range(self.r.randint(1, 8))})
            return {"type": "string", "enum": all}, lambda: self.r.choice(all)
        all = [self.value() for _ in range(self.r.randint(1, 6))]
        return {"enum": all}, lambda: self.r.choice(all)

    def bounds(self, schema, lo, hi, step):
        """Some of lo and hi, as they are or as what is excluded; what is left of them."""
        least, most = lo - 2000, hi + 2000
        if self.r.random() < 0.8:
            least = lo
            if self.r.random() < 0.3:
                schema["exclusiveMinimum"] = lo
                least = lo + step
            else:
                schema["minimum"] = lo
        if self.r.random() < 0.8:
            most = hi
            if self.r.random() < 0.3:
                schema["exclusiveMaximum"] = hi
                most = hi - step
            else:
                schema["maximum"] = hi
        return least, most

    def integer(self):
        lo = self.r.choice([0, 1, -1, self.r.randint(-10, 10), self.r.randint(-100000, 100000)])
        schema = {"type": "integer"}
        least, most = self.bounds(schema, lo, lo + self.r.choice([2, 9, 100, self.r.randint(2, 100000)]), 1)
        return schema, lambda: self.r.choice([least, most, self.r.randint(least, most)])

    def number(self):
        scale = self.r.choice([1, 10, 100, 8])
        lo = self.r.choice([0, 0, self.r.randint(-1000, 1000)])
        schema = {"type": "number"}
        # In thousandths, so that what is made can be compared exactly.
        least, most = self.bounds(schema, lo / scale, (lo + self.r.randint(2, 300)) / scale, 0.001)

        def make():
            v = self.r.choice([least, most, self.r.uniform(least, most)])
            return min(max(round(v, 3), round(least, 3)), round(most, 3))

        return schema, make

    def counted(self):
        least = self.r.choice([0, 1, 3, 20])
        most = least + self.r.choice([0, 1, 5, 80, 300])
        schema = {"type": "string"}
        if self.r.random() < 0.7:
            schema["minLength"] = least
        if self.r.random() < 0.7:
            schema["maxLength"] = most
        return schema, lambda: self.word(least, self.r.choice([least, most, (least + most) // 2]))

    def format(self):
        r = self.r

        def digits(n, base="0123456789"):
            return "".join(r.choice(base) for _ in range(n))

        def date():
            return f"{r.randint(1000, 2999):04}-{r.randint(1, 12):02}-{r.randint(1, 28):02}"

        def time():
            return (f"{r.randint(0, 23):02}:{r.randint(0, 59):02}:{r.randint(0, 59):02}" +
                    r.choice(["Z", "+01:30", ".25Z"]))

        def uuid():
            return "-".join(digits(n, "0123456789abcdef") for n in (8, 4, 4, 4, 12))

        name, make = r.choice([
            ("date", date), ("time", time), ("date-time", lambda: date() + "T" + time()), ("uuid", uuid),
            ("ipv4", lambda: ".".join(str(r.randint(0, 255)) for _ in range(4))),
            ("ipv6", lambda: ":".join(digits(r.randint(1, 4), "0123456789abcdef") for _ in range(8))),
            ("email", lambda: f"{digits(3, 'abc')}.{digits(3, 'xyz')}@g{digits(4, 'hi-')}x.org"),
            ("hostname", lambda: f"{digits(4, 'abc')}.example"),
            ("uri", lambda: f"https://a.org/{digits(3)}?q={digits(2)}"),
            ("duration", lambda: f"P{r.randint(1, 9)}DT{r.randint(1, 9)}H"), ("unheard-of", self.word)])
        return {"type": "string", "format": name}, make

    # --- patterns: an expression and what it finds ---

    def expression(self, depth):
        kind = self.r.randrange(7 if depth else 4)
        if kind == 0:
            c = self.r.choice("abcZ09_é€-")
            return c, lambda: c
        if kind == 1:
            text, alphabet = self.r.choice([
                ("[a-c]", "abc"), (r"\d", "0189"), (r"\w", "aZ_7"), (r"\s", " \t\n"), (".", "a \"\\é😀"),
                (r"[^a-z\"]", "A0\\ é"),
                (r"[\w.-]", "a.-9"), (r"\.", "."), (r"\\", "\\"), ('"', '"'), (r"[^\d\s]", "ab\"é"), (r"\S", "a\\😀"),
                (r"[\u00e9\-x]", "é-x"), (r"\x41", "A"), (r"\n", "\n"), (r"\/", "/")])
            return text, lambda: self.r.choice(alphabet)
        if kind < 4 or depth == 0:
            return self.expression(0) if kind != 3 else ("ab", lambda: "ab")
        if kind == 4:
            parts = [self.expression(depth - 1) for _ in range(self.r.randint(1, 3))]
            return "".join(p[0] for p in parts), lambda: "".join(p[1]() for p in parts)
        if kind == 5:
            parts = [self.expression(depth - 1) for _ in range(self.r.randint(1, 3))]
            return self.r.choice(["(", "(?:"]) + "|".join(p[0] for p in parts) + ")", lambda: self.r.choice(parts)[1]()
        text, make = self.expression(depth - 1)
        counts = [(0, 1), (0, 5), (1, 5), (2, 2), (1, 3), (2, 5)]
        least, most = self.r.choice(counts + [(0, 90)] if "{" not in text else counts)
        times = {(0, 1): "?", (0, 5): "*", (1, 5): "+", (2, 2): "{2}", (2, 5): "{2,}"}.get(
            (least, most), f"{{{least},{most}}}")
        if "*" in times or "+" in times or times == "{2,}":
            text, make = f"(?:{text}q)", lambda make=make: make() + "q"  # never empty
        else:
            text = f"(?:{text})"
        return text + times, lambda: "".join(make() for _ in range(self.r.randint(least, most)))

    def pattern(self):
        text, make = self.expression(3)
        text = f"(?:{text})"
        ends = self.r.randrange(4)
        before = after = lambda: ""
        if ends & 1:
            text = "^" + text
        else:
            before = self.word
        if ends & 2:
            text += "$"
        else:
            after = self.word
        return {"type": "string", "pattern": text}, lambda: before() + make() + after()

    def cut_pattern(self):
        most = self.r.randint(1, 70)
        least = self.r.randint(1, most)
        return ({"type": "string", "pattern": "^[a-z][a-z0-9_]*$", "minLength": least, "maxLength": most},
                lambda: self.r.choice("az") + self.word(least - 1, self.r.choice([least, most]) - 1, "a0_"))

    # --- what holds others ---

    def array(self, depth):
        schema, make = self.any(depth - 1)
        least = self.r.choice([0, 0, 1, 2])
        most = least + self.r.choice([0, 1, 3, 70])
        all = {"type": "array", "items": schema}
        if self.r.random() < 0.5:
            all["minItems"] = least
        if self.r.random() < 0.5:
            all["maxItems"] = most
        return all, lambda: [make() for _ in range(self.r.randint(least, min(most, least + 3)))]

    def tuple(self, depth):
        parts = [self.any(depth - 1) for _ in range(self.r.randint(1, 3))]
        n = len(parts)
        all = {"type": "array", "prefixItems": [p[0] for p in parts]}
        others = None
        least = self.r.randint(0, n)
        if self.r.random() < 0.5:
            schema, others = self.any(depth - 1)
            all["items"] = schema
        all["minItems"] = least
        return all, lambda: ([p[1]() for p in parts[:self.r.randint(least, n)]] if not others or self.r.random() < 0.5
                             else [p[1]() for p in parts] + [others() for _ in range(self.r.randint(0, 2))])

    def object(self, depth):
        names = list(dict.fromkeys(self.word(0, 5, "abn\"\\é€_ 1") for _ in range(self.r.randint(0, 5))))
        parts = {name: self.any(depth - 1) for name in names}
        required = [name for name in names if self.r.random() < 0.5]
        all = {"type": "object", "properties": {name: p[0] for name, p in parts.items()}, "required": required}
        others = None
        if self.r.random() < 0.4:
            all["additionalProperties"] = False
        elif self.r.random() < 0.4:
            all["additionalProperties"], others = self.any(depth - 1)

        def make():
            v = {name: p[1]() for name, p in parts.items() if name in required or self.r.random() < 0.5}
            for _ in range(self.r.randint(0, 2) if others else 0):
                name = self.word(0, 5, "abné€_ 1z")
                if name not in names and name not in v:
                    v[name] = others()
            return v

        return all, make

    def any_of(self, depth):
        parts = [self.any(depth - 1) for _ in range(self.r.randint(1, 3))]
        return {"anyOf": [p[0] for p in parts]}, lambda: self.r.choice(parts)[1]()

    def one_of(self, depth):
        kinds = [f"k{i}" for i in range(self.r.randint(1, 3))]
        parts = []
        for kind in kinds:
            schema, make = self.any(depth - 1)
            required = self.r.choice([["kind", "v"], ["v"]])
            parts.append(({"type": "object", "properties": {"kind": {"const": kind}, "v": schema},
                           "required": required},
                          lambda make=make, kind=kind: {"kind": kind, "v": make()}))
        parts.append(({"type": "null"}, lambda: None))
        return {"oneOf": [p[0] for p in parts]}, lambda: self.r.choice(parts)[1]()

    def all_of(self, depth):
        """An object's schema in two, with a property that both speak of."""
        a, b = self.any(depth - 1), self.any(depth - 1)
        return ({"allOf": [{"type": "object", "properties": {"a": a[0], "n": {"type": "number", "minimum": 2}},
                            "required": ["a"]},
                           {"properties": {"n": {"type": "integer", "maximum": 40}, "b": b[0]}, "required": ["n"]}]},
                lambda: {"a": a[1](), "n": self.r.randint(2, 40), **({"b": b[1]()} if self.r.random() < 0.5 else {})})

    def reference(self, depth):
        name = f"d{len(self.defs)} /~"
        self.defs[name] = None
        schema, make = self.any(depth - 1)
        path = "#/$defs/" + name.replace("~", "~0").replace("/", "~1")
        if self.r.random() < 0.5:
            self.defs[name] = schema
            return self.r.choice([{"$ref": path}, {"$ref": path, "title": "t"}]), make
        self.defs[name] = {"type": "object",
                           "properties": {"v": schema, "next": {"anyOf": [{"type": "null"}, {"$ref": path}]}},
                           "required": ["v", "next"]}

        def nested(n):
            return {"v": make(), "next": nested(n - 1) if n else None}

        return {"$ref": path}, lambda: nested(self.r.randint(0, 3))

    def any(self, depth):
        leaves = [self.simple, self.const, self.enum, self.integer, self.number, self.counted, self.format,
                  self.pattern, self.cut_pattern]
        if depth <= 0 or self.r.random() < 0.25:
            return self.r.choice(leaves)()
        return self.r.choice([self.array, self.tuple, self.object, self.object, self.any_of, self.one_of, self.all_of,
                              self.reference])(depth)

    def root(self, depth):
        schema, make = self.any(depth)
        if isinstance(schema, dict) and self.defs:
            schema = {**schema, "$defs": self.defs}
        return schema, make

    def wild(self):
        """Whatever comes: it may be refused, but what is not must be right."""
        schemas = [self.any(2)[0] for _ in range(3)]
        schemas = [s if isinstance(s, dict) else {} for s in schemas]
        form = self.r.randrange(5)
        if form == 0:
            schema = {**schemas[0], **schemas[1]}
        elif form == 1:
            schema = {"allOf": schemas[:2]}
        elif form == 2:
            schema = {**schemas[0], "anyOf": schemas[1:]}
        elif form == 3:
            schema = {"oneOf": schemas}
        else:
            schema = {"allOf": [{"anyOf": schemas[:2]}, {"anyOf": schemas[1:]}]}
        return {**schema, "$defs": self.defs}


def spelled(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def is_valid(validator, value):
    try:
        return validator.is_valid(value)
    except RecursionError:
        return True


def formats():
    """What jsonschema checks without other packages; its "time" is that of an old draft."""
    return jsonschema.FormatChecker([name for name in jsonschema.FormatChecker.checkers if name != "time"])


def check(grammar, n, seed):
    counts = dict(schemas=0, wild=0, refused=0, texts=0, instances=0, ops=0)
    wrong = 0
    for i in range(n):
        r = random.Random(f"{seed} {i}")
        maker = Maker(r)
        is_wild = i % 5 == 4
        schema, make = (maker.wild(), None) if is_wild else maker.root(3)
        counts["wild" if is_wild else "schemas"] += 1
        answer = grammar.make(schema)
        if not answer.startswith("ok"):
            counts["refused"] += 1
            may = ("more than 16384 ops", "a count of more than 8", "the schema is too large")
            if not is_wild and not any(why in answer for why in may):
                wrong += 1
                print("refused:", answer, json.dumps(schema))
            continue
        counts["ops"] += int(answer.split()[1])
        # A format beside enum says nothing: only the plain ones are held to formats.
        validator = jsonschema.Draft202012Validator(schema, format_checker=None if is_wild else formats())
        for text in grammar.texts(i * TEXTS, TEXTS):
            counts["texts"] += 1
            try:
                valid = is_valid(validator, json.loads(text.decode()))
            except ValueError as e:
                valid = False
                print(e)
            if text and not valid:
                wrong += 1
                print("allowed, not valid:", text, json.dumps(schema))
        for _ in range(0 if is_wild else TEXTS):
            value = make()
            counts["instances"] += 1
            if not is_valid(validator, value):
                wrong += 1
                print("the test's own is not valid:", spelled(value), json.dumps(schema))
            elif not grammar.allows(spelled(value)):
                wrong += 1
                print("valid, not allowed:", spelled(value), json.dumps(schema))
        if wrong > 5:
            break
    print(", ".join(f"{v} {k}" for k, v in counts.items()), f"{wrong} wrong", sep=", ")
    return wrong == 0


if __name__ == "__main__":
    sys.exit(0 if check(Grammar(sys.argv[1]), int(os.environ.get("HEARTH_SCHEMAS", 400)),
                        os.environ.get("HEARTH_SCHEMA_SEED", "1")) else 1)
