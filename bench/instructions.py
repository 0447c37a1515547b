"""Counts what commands cost in instructions: the same on a busy machine, within half a percent.

bench/execute runs under callgrind: a shard with 50 connections, from the bytes of the requests to
the bytes of the replies, without sockets and threads. The figures depend on the compiler and its
settings; the file says which.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

STORED = Path(__file__).with_name("instructions.txt")
PIPELINES = (1, 16)
UNITS = 8_000
MEASURED = "execute::measured*"
TOLERANCE = 0.03
RUN_SECONDS_MAX = 300


def workloads(binary):
    """The names that this build knows."""
    return subprocess.run([binary, "--list"], capture_output=True, text=True, check=False,
                          timeout=60).stdout.split()


def count(binary, workload, pipeline, needed=True):
    """Instructions per unit; nothing where a build does not know the workload and need not."""
    line = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
            f"--toggle-collect={MEASURED}", binary, workload, str(pipeline), str(UNITS)]
    done = subprocess.run(line, capture_output=True, text=True, check=False,
                          timeout=RUN_SECONDS_MAX)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode and not needed:
        return None
    if done.returncode or not found or found.group(1) == "0":
        raise SystemExit(f"callgrind failed on {workload}:\n{done.stdout}{done.stderr}")
    return int(found.group(1)) / UNITS


def compiler():
    """What built it, as far as this machine knows."""
    return subprocess.run(["rustc", "--version"], capture_output=True, text=True,
                          check=False).stdout.strip()


def read(path):
    """The stored figures by workload and pipeline, and the compiler that they are of."""
    figures, of = {}, ""
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.startswith("# rustc"):
            of = line[2:]
        elif line and not line.startswith("#"):
            workload, pipeline, number = line.split()
            figures[workload, int(pipeline)] = float(number)
    return figures, of


def write(path, figures):
    """Stores figures."""
    head = ["# Instructions per unit (a command; of block: a whole one) by pipeline depth,",
            "# written by bench/instructions --write.", f"# {compiler()}"]
    lines = [f"{workload} {pipeline} {number:.0f}"
             for (workload, pipeline), number in figures.items()]
    path.write_text("\n".join(head + lines) + "\n")


def main():
    parser = argparse.ArgumentParser(prog="bench/instructions", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", help="the build of bench/execute")
    parser.add_argument("--base", help="compare with this build instead of the stored figures")
    parser.add_argument("--only", default="", help="workloads with these names, with commas")
    parser.add_argument("--write", action="store_true", help="store the figures")
    options = parser.parse_args()
    names = [name for name in workloads(options.binary)
             if not options.only or name in options.only.split(",")]
    stored, of = ({}, compiler()) if options.base else read(STORED)
    if of != compiler():
        print(f"the stored figures are of {of or 'nobody'}, not of {compiler()}", file=sys.stderr)
    print("| workload | pipeline | before | now | change |\n| --- | ---: | ---: | ---: | ---: |")
    now, worse = {}, []
    for name in names:
        for pipeline in PIPELINES:
            number = now[name, pipeline] = count(options.binary, name, pipeline)
            if options.base:
                stored[name, pipeline] = count(options.base, name, pipeline, needed=False)
            before = stored.get((name, pipeline))
            change = number / before - 1 if before else None
            if change is not None and change > TOLERANCE:
                worse.append(f"{name} at pipeline {pipeline}")
            print(f"| {name} | {pipeline} | {'' if before is None else f'{before:,.0f}'} | "
                  f"{number:,.0f} | {'' if change is None else f'{change:+.1%}'} |", flush=True)
    if options.write:
        write(STORED, stored | now if options.only else now)
    elif worse:
        sys.exit(f"over {TOLERANCE:.0%} more instructions: {', '.join(worse)}")


if __name__ == "__main__":
    main()
