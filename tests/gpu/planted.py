#!/usr/bin/env python3
"""Plants the mistakes of planted.list into kernels and the device of GPUs, one at a time, and sees that tests find
them.

    planted.py [--build DIR] [-j N] [NUMBER...]   those with the numbers; all
    planted.py --check                            only that each can still be planted

DIR (build/release) has been built with its race programs: cmake --build DIR --target gpu_races. The sources stay as
they are: a mistake is made in a copy, of which the objects that have it are compiled, and linked before the libraries.
Prints a table; fails if a mistake is not found, cannot be planted, or a test fails without one.

An entry of the list is a line KIND FILE TEST[,TEST...] [SOURCE...], then lines that begin with "-", which together
occur in the file once, and those with "+" that replace them. A test is NAME (gpu_NAME_test), NAME/race (gpu_NAME_race)
or NAME/asan (DIR/../asan), and runs with up to eight seeds. Of a header the SOURCEs are those that are compiled anew.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SEEDS = range(1, 9)
LIMIT = 300  # seconds of a test: a mistake may make it wait for ever
SAID = [("race", "has no order with"), ("sanitizer", "Sanitizer"), ("sanitizer", "runtime error:"), ("shim", "simt: ")]


class Mistake:
    """An entry of the list; its number is its place there, from 1."""

    def __init__(self, number, text):
        head, *lines = text.splitlines()
        kind, path, tests, *sources = head.split()
        self.number, self.kind, self.path = number, kind, path
        self.tests = tests.split(",")
        self.sources = sources or [path]
        self.old = "\n".join(line[1:] for line in lines if line[0] == "-")
        self.new = "\n".join(line[1:] for line in lines if line[0] == "+")
        self.line = 0

    def planted(self):
        """The file with the mistake; None: it cannot be planted."""
        text = (ROOT / self.path).read_text()
        if not self.old or text.count(self.old) != 1:
            return None
        self.line = text[:text.index(self.old)].count("\n") + 1
        return text.replace(self.old, self.new)


def read_list():
    text = re.sub(r"^#.*\n", "", (ROOT / "tests/gpu/planted.list").read_text(), flags=re.M)
    return [Mistake(i, entry) for i, entry in enumerate(re.split(r"\n\n+", text.strip("\n")), 1)]


class Build:
    """Compiles and links what a build has, with other objects."""

    def __init__(self, folder):
        self.folder = folder
        self.compiles = {}
        for entry in json.loads((folder / "compile_commands.json").read_text()):
            target = re.search(r" -o CMakeFiles/([a-z_]+)\.dir/(\S+)\.o -c (\S+)", entry["command"])
            if target:
                self.compiles[target[1], pathlib.Path(target[2]).name.replace(".cu.cc", ".cu")] = entry["command"]

    def compile(self, target, source, overlay, to):
        """`source` of the target, where `overlay` has what is other than here. Returns the object; raises."""
        name = pathlib.Path(source).name
        compiler, *options = shlex.split(self.compiles[target, name].split(" -o ")[0])
        output = to / f"{target}_{name}.o"
        at = overlay / source if (overlay / source).exists() else ROOT / source
        kind = ["-x", "c++"] if name.endswith(".cu") else []
        ccache = [shutil.which("ccache")] if shutil.which("ccache") else []
        run_tool([*ccache, compiler, f"-iquote{overlay}", *options, "-w", *kind, "-c", str(at), "-o", str(output)],
                 self.folder)
        return output

    def link(self, program, objects, to):
        command = subprocess.run(["ninja", "-C", self.folder, "-t", "commands", program], capture_output=True,
                                 text=True, check=True).stdout.splitlines()[-1]
        output = to / program
        run_tool(["sh", "-c", command.replace(f" -o {program} ", f" {' '.join(map(str, objects))} -o {output} ")],
                 self.folder)
        return output


def run_tool(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr or done.stdout)


class Planter:
    def __init__(self, folder):
        self.folder, self.builds = folder, {}

    def build_of(self, way):
        folder = self.folder.parent / "asan" if way == "asan" else self.folder
        if folder not in self.builds:
            self.builds[folder] = Build(folder)
        return self.builds[folder]

    def program(self, mistake, test, to):
        """Compiles the test with the mistake; without one where that is None."""
        name, _, way = test.partition("/")
        build, program = self.build_of(way), f"gpu_{name}_{'race' if way == 'race' else 'test'}"
        if not mistake:
            return build.folder / program
        kernels = "simt_kernels_race" if way == "race" else "simt_kernels"
        objects = [build.compile(kernels if source.endswith(".cu") else "simt_device", source, to, to)
                   for source in mistake.sources]
        return build.link(program, objects, to)


def outcome(program, seed):
    """What a run finds; None: nothing."""
    env = dict(os.environ, HEARTH_SIMT_SEED=str(seed), ASAN_OPTIONS="detect_stack_use_after_return=1")
    try:
        done = subprocess.run([program], env=env, capture_output=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return "timeout"
    said = (done.stderr + done.stdout).decode(errors="replace")
    if done.returncode in (0, 77):
        return None
    return next((by for by, words in SAID if words in said), "crash" if done.returncode < 0 else "test")


def find(planter, mistake, scratch):
    """Who finds a mistake, as a text; None: nobody does."""
    to = scratch / str(mistake.number)
    shutil.rmtree(to, ignore_errors=True)
    at = to / mistake.path
    at.parent.mkdir(parents=True)
    at.write_text(mistake.planted())
    for test in mistake.tests:
        program = planter.program(mistake, test, to)
        for seed in SEEDS:
            by = outcome(program, seed)
            if by:
                shutil.rmtree(to)
                return f"{test}, seed {seed}: {by}"
    return None


def judge(planter, mistake, scratch):
    """Found?, and a row of the table."""
    begin, found = time.monotonic(), None
    if mistake.planted() is None:
        says = "CANNOT BE PLANTED: what it replaces is not there, or more than once"
    else:
        try:
            found = find(planter, mistake, scratch)
            says = found or "NOT FOUND"
        except RuntimeError as e:
            says = f"CANNOT BE BUILT: {next((l for l in str(e).splitlines() if 'error' in l), e)}"
    row = (str(mistake.number), mistake.kind, f"{mistake.path}:{mistake.line}", says, f"{time.monotonic() - begin:.1f}")
    print("  ".join(row), file=sys.stderr)
    return bool(found), row


def print_table(rows):
    rows = [("", "kind", "where", "found by", "s"), *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def tests_pass(planter, mistakes, pool):
    """Whether tests find nothing where there is nothing."""
    tests = sorted({test for m in mistakes for test in m.tests})
    found = list(pool.map(lambda test: outcome(planter.program(None, test, None), 1), tests))
    for test, by in zip(tests, found):
        if by:
            print(f"{test} fails without a mistake: {by}")
    return not any(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count())
    parser.add_argument("numbers", nargs="*", type=int)
    args = parser.parse_args()
    mistakes = [m for m in read_list() if not args.numbers or m.number in args.numbers]
    if args.check:
        missing = [m for m in mistakes if m.planted() is None]
        for m in missing:
            print(f"mistake {m.number} cannot be planted into {m.path}: what it replaces is not there, or more"
                  " than once")
        print(f"{len(mistakes)} mistakes, {len(missing)} cannot be planted")
        return bool(missing)
    planter, scratch = Planter(args.build.resolve()), args.build.resolve() / "planted"
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        if not tests_pass(planter, mistakes, pool):
            return 1
        results = list(pool.map(lambda m: judge(planter, m, scratch), mistakes))
    print_table([row for _, row in results])
    found = sum(found for found, _ in results)
    print(f"{len(results)} mistakes planted, {found} found")
    return found < len(results)


if __name__ == "__main__":
    sys.exit(main())
