"""Renders chat templates with Jinja, for hearth, which starts it with this text (docs/models.md, "Chat templates").

  python3 -I -c TEXT CPU_SECONDS MEMORY_BYTES OUTPUT_BYTES

Requests come on standard input, answers go to standard output; both begin with their length (u32, little-endian).
A request is JSON: template, bos_token, eos_token, messages, tools (or null), variables (others, by their names), reply,
now (year to second). An answer is a byte that says what it is, then for TEXT pieces: a u32, twice the piece's bytes and
1 if the template wrote it, and the bytes; for the others a line of text.

A template comes out of a model file, so nobody knows what it is up to: it runs in Jinja's sandbox, and the process
gives up all it does not need before it reads the first one.
"""
import sys

TEXT, REFUSED, UNABLE = 0, 1, 2


def send(kind, data):
    import os
    import random
    data = bytes([kind]) + data
    data = len(data).to_bytes(4, "little") + data
    while data:
        data = data[os.write(1, data):]


try:
    import ctypes
    import datetime
    import json
    import os
    import random
    import re
    import resource
    import string
    import textwrap
    import time

    import jinja2
    import jinja2.constants
    import jinja2.debug
    import jinja2.ext
    import jinja2.runtime
    import jinja2.sandbox
except ImportError as error:
    send(UNABLE, str(error).encode(errors="replace"))
    sys.exit(1)


# --- what the template wrote, and what it was given ---

class Words(str):
    """A text of which _own says, by a byte for each character, what the template itself wrote: 1. The template's
    literals are such texts. Messages are plain strings, and so is whatever comes out of an operation that is not here:
    what cannot be told to be the template's is not."""

    def __new__(cls, text, own=None):
        self = super().__new__(cls, text)
        self._own = own if own is not None else bytes(len(self))
        return self

    def __str__(self):
        return self

    def __getitem__(self, key):
        own = self._own[key]
        return Words(super().__getitem__(key), own if isinstance(own, bytes) else bytes([own]))

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __add__(self, other):
        return Words(super().__add__(other), self._own + own_of(other))

    def __radd__(self, other):
        return Words(str.__add__(other, self), own_of(other) + self._own) if isinstance(other, str) else NotImplemented

    def __mul__(self, n):
        return Words(super().__mul__(n), self._own * n)

    __rmul__ = __mul__

    def join(self, parts):
        parts = list(parts)
        return Words(super().join(parts), self._own.join(map(own_of, parts)))

    def strip(self, characters=None):
        return self.lstrip(characters).rstrip(characters)

    def lstrip(self, characters=None):
        return self[len(self) - len(super().lstrip(characters)):]

    def rstrip(self, characters=None):
        return self[:len(super().rstrip(characters))]

    def split(self, sep=None, maxsplit=-1):
        parts, at = [], 0
        for part in super().split(sep, maxsplit):
            at = self.find(part, at)
            parts.append(self[at:at + len(part)])
            at += len(part) + len(sep or "")
        return parts

    def replace(self, old, new, count=-1):
        if not old:
            return super().replace(old, new, count)
        new = new if isinstance(new, Words) else Words(new)
        return new.join(self.split(old, count))

    def _same_length(self, text):
        return Words(text, self._own) if len(text) == len(self) else text

    def upper(self):
        return self._same_length(super().upper())

    def lower(self):
        return self._same_length(super().lower())

    def capitalize(self):
        return self._same_length(super().capitalize())


class Safe(Words):
    """What the filter `safe` makes: added to another text it has that one's <, >, & and quotes escaped."""

    def __html__(self):
        return self

    def __add__(self, other):
        other = escaped(other)
        return Safe(str.__add__(self, other), self._own + other._own)

    def __radd__(self, other):
        other = escaped(other)
        return Safe(str.__add__(other, self), other._own + self._own)


def escaped(text):
    if isinstance(text, Safe):
        return text
    text = text if isinstance(text, Words) else Words(text)
    for character, name in (("&", "&amp;"), (">", "&gt;"), ("<", "&lt;"), ("'", "&#39;"), ('"', "&#34;")):
        text = text.replace(character, name)
    return text


def own_of(text):
    return text._own if isinstance(text, Words) else bytes(len(text))


def literal(text):
    return Words(text, b"\1" * len(text))


def concat(parts):
    parts = list(parts)
    return Words("").join(parts) if any(isinstance(part, Words) for part in parts) else "".join(parts)


jinja2.runtime.concat = concat  # for ~, recursive loops and blocks


def code_of(value):
    """Python's text of a constant whose texts, also those within what Jinja has folded, are Words."""
    if type(value) is str:
        return f"environment.literal({value!r})"
    if type(value) is list:
        return "[" + ", ".join(map(code_of, value)) + "]"
    if type(value) is tuple:
        return "(" + "".join(code_of(v) + ", " for v in value) + ")"
    if type(value) is dict:
        return "{" + ", ".join(f"{code_of(k)}: {code_of(v)}" for k, v in value.items()) + "}"
    return repr(value)


class Generator(jinja2.compiler.CodeGenerator):
    """Compiles templates whose literals are Words."""

    def visit_Const(self, node, frame):
        self.write(code_of(node.as_const(frame.eval_ctx)))

    def visit_TemplateData(self, node, frame):
        self.write(f"environment.literal({node.data!r})")

    def _output_const_repr(self, group):
        return f"environment.literal({''.join(group)!r})"


# --- the environment that templates expect ---

def raise_exception(message):
    raise jinja2.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class Dict:
    """dict() without the attributes of the type."""

    def __call__(self, *args, **kwargs):
        return dict(*args, **kwargs)

    def fromkeys(self, *args):
        return dict.fromkeys(*args)


class Namespace(jinja2.runtime.Namespace):
    """Keeps no names of Python's own."""

    def __init__(*args, **kwargs):
        self, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            check_name(name)
        jinja2.runtime.Namespace.__init__(self, values)

    def __setitem__(self, name, value):
        check_name(name)
        jinja2.runtime.Namespace.__setitem__(self, name, value)


def check_name(name):
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace keeps no name like {name!r}")


class Generation(jinja2.ext.Extension):
    """{% generation %} marks what a model says: here it changes nothing."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller):
        return caller()


class Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    def __init__(self):
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
        self.filters["tojson"] = tojson
        self.globals.update(raise_exception=raise_exception, strftime_now=self.strftime_now, dict=Dict(),
                            namespace=Namespace)
        self.now = datetime.datetime(1970, 1, 1)

    def strftime_now(self, form):
        return self.now.strftime(form)


class Marking(Environment):
    code_generator_class = Generator
    concat = staticmethod(concat)
    literal = staticmethod(literal)

    def __init__(self):
        super().__init__()
        join = self.filters["join"]

        @jinja2.pass_eval_context
        def join_words(context, value, d="", attribute=None):
            return join(context, value, d if isinstance(d, Words) else Words(d), attribute)
        self.filters["join"] = join_words
        self.filters["safe"] = lambda value: Safe(str(value), own_of(str(value)))

    def wrap_str_format(self, value):
        form = super().wrap_str_format(value)
        text = getattr(value, "__self__", None)
        if form is None or not isinstance(text, Words) or value.__name__ != "format":
            return form
        return lambda *args, **kwargs: self.format_words(form, text, args, kwargs)

    def format_words(self, form, text, args, kwargs):
        whole, parts, automatic = form(*args, **kwargs), [], 0
        formatter = jinja2.sandbox.SandboxedFormatter(self)
        for words, field, spec, conversion in string.Formatter().parse(str.__str__(text)):
            parts.append(literal(words) if 0 not in text._own else Words(words))
            if field is None:
                continue
            if field == "":
                field, automatic = str(automatic), automatic + 1
            value, _ = formatter.get_field(field, args, kwargs)
            value = formatter.convert_field(value, conversion)
            parts.append(value if isinstance(value, str) and not spec else formatter.format_field(value, spec))
        parts = concat(parts)
        return parts if parts == whole else whole


# --- requests ---

# A role may be half a control token ('<|' + message.role + '|>'), so these are the template's. Any other is what
# somebody said.
ROLES = {role: literal(role) for role in ("system", "developer", "user", "assistant", "tool", "function", "ipython")}


def prepare(message):
    """As transformers does: keys without a value are left out, and a thought goes by the names that templates read."""
    message = {key: value for key, value in message.items() if value is not None}
    thought = next((message[k] for k in ("reasoning_content", "thinking", "reasoning") if k in message), None)
    if thought is not None:
        message = {"thinking": thought, **message, "reasoning_content": thought}
    return message


def render(environment, request, mark):
    messages = [prepare(message) for message in request["messages"]]
    for message in messages:
        if mark and message.get("role") in ROLES:
            message["role"] = ROLES[message["role"]]
    environment.now = datetime.datetime(*request["now"])
    names = {"messages": messages, "tools": request["tools"], "documents": None,
             "add_generation_prompt": request["reply"]}
    return compiled(environment, request["template"]).render(
        {**request.get("variables", {}), **names},
        **{key: literal(request[key]) if mark else request[key]
           for key in ("bos_token", "eos_token") if request[key] is not None})


latest = {}


def compiled(environment, text):
    """Templates seldom change: the latest is kept."""
    if latest.get(environment, ("",))[0] != text:
        latest[environment] = (text, environment.from_string(text))
    return latest[environment][1]


def pieces(text, most):
    if not isinstance(text, Words):
        text = Words(text)
    out = bytearray()
    for run in re.finditer(b"\0+|\1+", text._own):
        piece = str.__getitem__(text, slice(run.start(), run.end())).encode()
        out += (2 * len(piece) + text._own[run.start()]).to_bytes(4, "little") + piece
        if len(out) >= most:  # the answer has a byte more
            raise jinja2.TemplateError(f"it makes more than {most} bytes")
    return bytes(out)


def line_of(error):
    """Templates raise whatever they like, also what cannot be printed."""
    try:
        return f"{error}" or type(error).__name__
    except Exception:
        return type(error).__name__


def answer(plain, marking, request, most):
    """What Jinja prints without any of our marks is what counts: with marks it must print the same."""
    try:
        if isinstance(request, bytes):
            request = json.loads(request)
        text = render(plain, request, False)
        marked = render(marking, request, True)
        if text != marked:
            raise jinja2.TemplateError("what it writes cannot be told from what it is given")
        return TEXT, pieces(marked, most)
    except MemoryError:
        return REFUSED, b"it needs more memory than a template gets"
    except RecursionError:
        return REFUSED, b"it, or what it is given, goes too deep"
    except Exception as error:
        return REFUSED, line_of(error)[:1000].encode(errors="replace")


# --- giving up what is not needed ---

# read, write, mmap, mprotect, munmap, brk, rt_sigaction, rt_sigprocmask, rt_sigreturn, madvise, mremap, futex,
# clock_gettime, exit, exit_group, getrandom
CALLS = {
    "x86_64": (0xC000003E, (0, 1, 9, 10, 11, 12, 13, 14, 15, 28, 25, 202, 228, 60, 231, 318)),
    "aarch64": (0xC00000B7, (63, 64, 222, 226, 215, 214, 134, 135, 139, 233, 216, 98, 113, 93, 94, 278)),
}


def bar_calls():
    """From now on the system refuses all calls but those: a filter (seccomp) that reads the architecture and the call's
    number. Machines without a list go without."""
    if os.uname().machine not in CALLS:
        return
    machine, calls = CALLS[os.uname().machine]

    def step(code, yes, no, value):
        return code.to_bytes(2, "little") + bytes([yes, no]) + value.to_bytes(4, "little")
    load, equal, give, allow, refuse = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050001  # refuse: EPERM
    steps = [step(load, 0, 0, 4), step(equal, 1, 0, machine), step(give, 0, 0, refuse), step(load, 0, 0, 0)]
    steps += [step(equal, len(calls) - i, 0, call) for i, call in enumerate(calls)]
    steps += [step(give, 0, 0, refuse), step(give, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(steps))

    class Program(ctypes.Structure):
        _fields_ = [("n", ctypes.c_ushort), ("code", ctypes.c_void_p)]
    program = Program(len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    set_no_new_privileges, set_seccomp, filtered = 38, 22, 2
    if libc.prctl(set_no_new_privileges, 1, 0, 0, 0) or libc.prctl(set_seccomp, filtered, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG: nobody is left to end what a template does


def give_up(cpu_s, memory):
    for what, most in ((resource.RLIMIT_CPU, cpu_s), (resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, 0),
                       (resource.RLIMIT_NPROC, 0), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 0)):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, 9, 0, 0, 0)
    bar_calls()


def read(n):
    data = b""
    while len(data) < n:
        more = os.read(0, n - len(data))
        if not more:
            sys.exit(0)
        data += more
    return data


def main():
    cpu_s, memory, most = map(int, sys.argv[1:])
    plain, marking = Environment(), Marking()
    # What Python loads on its first use must be there before files are out of reach.
    for template in "{{ strftime_now('%A %B') }}", "{{ raise_exception(1) }}":
        answer(plain, marking, {"template": template, "messages": [], "tools": None, "reply": True, "now": [2000, 1, 1],
                                "bos_token": None, "eos_token": None}, most)
    try:
        give_up(cpu_s, memory)
    except (OSError, ValueError) as error:
        send(UNABLE, f"it cannot lock itself in: {error}".encode(errors="replace"))
        return
    while time.process_time() < cpu_s / 2:  # then another one is started
        send(*answer(plain, marking, read(int.from_bytes(read(4), "little")), most))


main()
