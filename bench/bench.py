"""Measures tallyman side by side with redis-server and Valkey, and prints a table.

The same client (bench/load), the same disk, interleaved rounds: in each round every server runs
every workload, and while one is measured the others are stopped (SIGSTOP). Figures are medians over
the rounds. The ratio is to the faster peer in the same mode; what it is meant to be is printed with
it. Workloads and goals stand in bench/workloads.py.
"""

import argparse
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "bench"))
import contenders  # noqa: E402
import measure  # noqa: E402
import results  # noqa: E402
from harness.server import StartFailed, tallyman_path  # noqa: E402
from workloads import WORKLOADS  # noqa: E402

SYNC_SAMPLES = 300
SYNC_BLOCK_BYTES = 4096
PLOTS = (("latency.svg", "Throughput against latency"), ("ratios.svg", "Ratio per workload"),
         ("time-line.svg", "A run with checkpoints"))


def setups(rows, options):
    """What rows need, each with its rows, in the order of the modes."""
    groups = {}
    for fsync in results.MODES:
        if options.fsync and fsync not in options.fsync.split(","):
            continue
        for row in rows:
            if fsync in row.fsyncs:
                setup = contenders.Setup.of(row, fsync, options)
                groups.setdefault(setup, []).append(row)
    return groups


def run_setup(setup, rows, measured, options):
    """All rounds of the workloads that share servers."""
    started = contenders.start_all(setup, rows, options.folder, options)
    try:
        for number in range(options.rounds):
            for row in rows:
                for pipeline in row.pipelines:
                    if not options.pipeline or pipeline == options.pipeline:
                        run_round(number, row, pipeline, setup, started, measured, options)
    finally:
        contenders.close_all(started)


def run_round(number, row, pipeline, setup, started, measured, options):
    """One round of a row, on all servers; each round begins with another one."""
    taking_part = [one for one in started if one.takes_part(row, options)]
    conditions = results.Conditions(options.rounds, measure.seconds(row, options), options.warm_up,
                                    setup.keys)
    turn = number % len(taking_part)
    shown = []
    for contender in taking_part[turn:] + taking_part[:turn]:
        contender.resume()
        samples = measure.measure(contender, row, pipeline, options)
        contender.tidy()
        contender.pause()
        for part, sample in samples:
            measured.add(results.Key(row.name, part, pipeline, setup.fsync), contender.name, sample,
                         conditions)
        shown.append(f"{contender.name} {samples[-1][1].per_second:,.0f}/s")
    # In the order of the table, whoever began.
    print(f"  {setup.fsync}, round {number + 1} of {options.rounds}, {row.name}, "
          f"pipeline {pipeline}: {'; '.join(sorted(shown))}", file=sys.stderr, flush=True)


def sync_latency(folder):
    """Microseconds of a 4 KiB pwrite and fdatasync into preallocated space: p50, p99."""
    times = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(b"\0" * SYNC_BLOCK_BYTES * SYNC_SAMPLES)
        file.flush()
        os.fsync(file.fileno())
        for index in range(SYNC_SAMPLES):
            begun = time.perf_counter()
            os.pwrite(file.fileno(), os.urandom(SYNC_BLOCK_BYTES), index * SYNC_BLOCK_BYTES)
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - begun) * 1e6)
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100]


def version(binary):
    """What a program says of itself, without its build."""
    text = subprocess.run([binary, "--version"], capture_output=True, text=True,
                          check=False).stdout.strip()
    short, _, rest = text.partition(" sha=")
    malloc = next((word for word in rest.split() if word.startswith("malloc=")), "")
    return f"{short} {malloc}".strip()


def machine(options):
    """What the figures were measured on, and how the servers were set."""
    model = next((line.split(":")[1].strip() for line in
                  Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    disk = subprocess.run(["df", "--output=fstype,source", str(options.folder)],
                          capture_output=True, text=True,
                          check=False).stdout.splitlines()[-1].split()
    p50, p99 = sync_latency(options.folder)
    load1 = os.getloadavg()[0]
    servers = [version(binary) for binary in options.peers.values()]
    if "tallyman" in (options.servers or "tallyman").split(","):
        servers.insert(0, f"{version(tallyman_path())}, {options.shards} shard(s)")
    rewrite = "by their defaults" if options.aof_rewrite else \
        "never while they are measured, which is in their favour"
    peers = ["peers: appendonly yes, appendfsync as in the row, no snapshots (save \"\"), their "
             f"default io-threads; they rewrite their files {rewrite}"]
    return [f"machine: {os.cpu_count()} cores, {model}, Linux {platform.release()}; load average "
            f"before: {load1:.2f}",
            f"disk: {' on '.join(disk)}; 4 KiB write and fdatasync: {p50:.0f} us (p50), "
            f"{p99:.0f} us (p99)",
            f"servers: {'; '.join(servers)}", *(peers if options.peers else []),
            f"client: {options.client}, one thread, on the same machine; random keys and 50 "
            "clients, if the row says nothing else; rounds are interleaved"]


EXPLANATION = """\
Figures are medians of the rounds (of idle bytes: the most, for later rounds use memory anew that
was freed), spread is that of the rates. The ratio is to the faster peer in the same mode; its range
is that of the single rounds. Alone: the share of the own speed without the other clients. CPU time
is per request. A name that ends in `beside-script` has the peers run a Lua script that does the
same (by EVALSHA); `hincrby` and the others have them run the same command. In `incr-open-loop`,
requests are sent at fixed moments, at so many percent of each server's own maximum; latencies count
from those moments, and tallyman makes two checkpoints in each measurement. In
`get-beside-sets-2ms`, each sync of each server's log takes 2 ms longer."""


def write_results(head, measured, options):
    """Writes RESULTS.md, with what was written by hand about what did not help, and the plots."""
    import plots  # needs matplotlib, which only this needs

    folder = ROOT / "bench"
    drawn = plots.draw(measured, WORKLOADS, options.shards, folder)
    images = [f"![{text}]({name})\n" for name, text in PLOTS if name in drawn]
    text = ["# Measured", "", "Written by `bench/run --write`; the last part is `TRIED.md`.", "",
            "  \n".join([*head, results.rounds(measured, WORKLOADS)]), "", EXPLANATION, "",
            "## Goals", "",
            *results.goals(measured, WORKLOADS, options.shards), "", *images, "## Figures", "",
            *results.table(measured, WORKLOADS, options.shards), "",
            (folder / "TRIED.md").read_text().rstrip()]
    (folder / "RESULTS.md").write_text("\n".join(text) + "\n")


def parse():
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--quick", action="store_true", help="1 round of half a second, long rows too if they are "
                                             "named: to see that it works")
    add("--rounds", type=int, help="rounds per workload (default 3)")
    add("--seconds", type=float, help="seconds per measurement (default 4)")
    add("--warm-up", type=float, default=measure.WARM_UP_SECONDS, metavar="SECONDS",
        help="before each measurement (default %(default)s)")
    add("--keys", type=int, default=100_000, help="random keys (default 100000)")
    add("--only", default="", help="workloads whose name is one of these words, or begins with one "
                                   "that ends in *; with commas")
    add("--long", action="store_true", help="the rows that take minutes as well")
    add("--list", action="store_true", help="shows the workloads and their goals")
    add("--fsync", default="", help="only these modes, with commas: always, everysec, no")
    add("--pipeline", type=int, help="only this depth")
    add("--servers", default="", help="only these, with commas: tallyman, redis-server, "
                                      "valkey-server, base")
    add("--peer", action="append", default=[], metavar="PATH",
        help="another server of the Redis kind as well")
    add("--base", metavar="PATH", help="another build of tallyman to be compared with")
    add("--shards", type=int, help="tallyman's number of shards")
    add("--aof-rewrite", action="store_true", help="peers rewrite their files when they like")
    add("--client", choices=("load", "redis-benchmark"), default="load",
        help="redis-benchmark for the rows that it can send (default %(default)s)")
    add("--dir", type=Path, help="where the data folders go (default: target/bench)")
    add("--write", action="store_true", help="write bench/RESULTS.md and its plots")
    add("--merge", action="store_true", help="keep lines of the last run that are not measured now")
    return fill_in(parser.parse_args())


def fill_in(options):
    """Defaults that depend on other things."""
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (0.5 if options.quick else 4.0)
    options.shards = options.shards or max(1, (os.cpu_count() or 1) - 1)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    options.load = os.environ.get("LOAD_BIN", str(target / "release" / "examples" / "load"))
    options.dir = options.dir or target / "bench"
    options.peers = {}
    for binary in ("redis-server", os.environ.get("VALKEY_BIN", ""), *options.peer):
        if binary:
            name = Path(binary).name
            options.peers[binary if name in options.peers else name] = binary
    # Nothing: all take part.
    options.chosen = set()
    if options.base or options.servers:
        named = options.servers.split(",") + options.peer
        options.peers = {name: path for name, path in options.peers.items()
                         if name in named or path in named}
    if options.servers:
        options.chosen = {*options.servers.split(","), *options.peers}
    return options


def chosen(options):
    """The rows that were asked for."""
    words = [word for word in options.only.split(",") if word]

    def named(row):
        return any(row.name == word or (word.endswith("*") and row.name.startswith(word[:-1]))
                   for word in words)

    rows = [row for row in WORKLOADS if named(row) or
            (not words and (options.long or not row.seconds))]
    if not rows:
        raise SystemExit(f"no workload is called {options.only!r}; there are "
                         + ", ".join(row.name for row in WORKLOADS))
    return rows


def show_list():
    """The workloads and their goals."""
    for row in WORKLOADS:
        bounds = [f"{results.FIGURES[goal.figure][0].format(goal.bound)}"
                  f"{' at pipeline ' + str(goal.pipelines[0]) if goal.pipelines else ''}"
                  f" ({', '.join(goal.fsyncs)})" for goal in row.goals]
        print(f"{row.name:36} {'; '.join(bounds)}{'  [--long]' if row.seconds else ''}")


def main():
    options = parse()
    if options.list:
        show_list()
        return
    rows = chosen(options)
    # So that servers are ended whatever ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Idle connections take file descriptors, here and in the servers.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    options.dir.mkdir(parents=True, exist_ok=True)
    kept = options.dir / "results.json"
    options.folder = Path(tempfile.mkdtemp(prefix="run-", dir=options.dir))
    # Read before the measuring, which takes long.
    measured, before = results.Results(), results.Results()
    if options.merge and kept.exists():
        before = results.Results.load(kept)
    try:
        head = machine(options)
        print("\n".join(head), flush=True)
        for setup, group in setups(rows, options).items():
            run_setup(setup, group, measured, options)
    except StartFailed as error:
        raise SystemExit(f"a server did not start: {error}") from error
    finally:
        shutil.rmtree(options.folder, ignore_errors=True)
    if options.base:
        print("\n" + "\n".join(results.changes(measured, rows)))
        return
    before.merge(measured)
    measured = before
    measured.save(kept, head)
    print("\n" + results.rounds(measured, WORKLOADS))
    print("\n" + "\n".join(results.table(measured, WORKLOADS, options.shards)))
    print("\n" + "\n".join(results.goals(measured, WORKLOADS, options.shards)))
    if options.write:
        write_results(head, measured, options)


if __name__ == "__main__":
    main()
