"""Measures tallyman side by side with redis-server and prints a table.

The same client (redis-benchmark, or bench/load for blocks), the same disk, interleaved rounds: in each round every server
runs every workload, and while one is measured the others are stopped (SIGSTOP), so that no
background work disturbs. Figures are medians over the rounds. A server runs with
`appendfsync always`, `everysec` or `no`; redis-server without persistence is the reference.
"""

import argparse
import csv
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "bench"))
from harness.server import Server, StartFailed  # noqa: E402
from harness.wire import Error, Wire  # noqa: E402
from workloads import WORKLOADS  # noqa: E402

WARM_UP_REQUESTS = 5_000
WARM_UP_SECONDS = 0.3
OWN_TWO_SHARDS = "tallyman, 2 shards"
REQUESTS_MAX = 50_000_000
SYNC_SAMPLES = 300
SYNC_BLOCK_BYTES = 4096


@dataclass
class Sample:
    """One round of one workload on one server."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_micros: float
    """CPU time of the server per command, all its threads."""
    share: float | None = None
    """Where other clients run beside: the part of the speed without them that is left."""


@dataclass
class Contender:
    """A server that takes part: its name in the table and its process."""

    name: str
    server: Server
    samples: dict = field(default_factory=dict)

    def pause(self):
        os.kill(self.server.pid, signal.SIGSTOP)

    def resume(self):
        os.kill(self.server.pid, signal.SIGCONT)


def median(samples, what):
    return statistics.median(getattr(sample, what) for sample in samples)


def cpu_seconds(pid):
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def benchmark(contender, workload, command, pipeline, requests, options):
    """Runs redis-benchmark once; returns a sample."""
    server = contender.server
    line = ["redis-benchmark", "-p", str(server.port), "--csv", "-n", str(requests),
            "-c", str(workload.clients), "-P", str(pipeline), "-r", str(options.keys)]
    if options.threads:
        line += ["--threads", str(options.threads)]
    before = cpu_seconds(server.pid)
    done = subprocess.run(line + list(command), capture_output=True, text=True, check=False,
                          timeout=600)
    used = cpu_seconds(server.pid) - before
    rows = list(csv.DictReader(done.stdout.splitlines()))
    if done.returncode or not rows or "rror" in done.stderr + done.stdout:
        raise SystemExit(f"redis-benchmark failed on {contender.name}, {workload.name}:\n"
                         f"{done.stderr}{done.stdout}\n{server.log_tail()}")
    (row,) = rows
    return Sample(float(row["rps"]), float(row["p50_latency_ms"]), float(row["p99_latency_ms"]),
                  used / requests * 1e6)


def load(contender, workload, pipeline, seconds, beside, options):
    """Runs bench/load once; returns a sample. A block counts as one request."""
    server = contender.server
    line = [options.load, "--port", str(server.port), "--workload", workload.load,
            "--clients", str(workload.clients), "--pipeline", str(pipeline),
            "--keys", str(options.keys), "--seconds", str(seconds), "--json", "-"]
    if beside:
        line += ["--beside", beside]
    before = cpu_seconds(server.pid)
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=600)
    used = cpu_seconds(server.pid) - before
    if done.returncode:
        raise SystemExit(f"bench/load failed on {contender.name}, {workload.name}:\n"
                         f"{done.stderr}{done.stdout}\n{server.log_tail()}")
    groups = json.loads(done.stdout)["groups"]
    latency = groups[0]["latency_ms"]
    units = sum(group["units"] for group in groups)
    return Sample(groups[0]["units_per_second"], latency["p50"], latency["p99"],
                  used / max(units, 1) * 1e6)


def measure_load(contender, workload, pipeline, options):
    """One round of a workload of bench/load, with and without the clients beside it."""
    load(contender, workload, pipeline, WARM_UP_SECONDS, "", options)
    sample = load(contender, workload, pipeline, options.seconds, "", options)
    if workload.beside:
        alone = sample.per_second
        sample = load(contender, workload, pipeline, options.seconds, workload.beside, options)
        sample.share = sample.per_second / alone
    return sample


def measure(contender, workload, pipeline, options):
    """One round of a workload: a warm-up that says how many requests fill the time."""
    if workload.load:
        return measure_load(contender, workload, pipeline, options)
    is_peer = contender.server.kind == "redis" and workload.peer
    command = workload.peer if is_peer else workload.command
    unit = workload.clients * pipeline
    warm = max(WARM_UP_REQUESTS, unit * 10)
    speed = benchmark(contender, workload, command, pipeline, warm, options).per_second
    requests = min(REQUESTS_MAX, max(warm, int(speed * options.seconds)))
    return benchmark(contender, workload, command, pipeline, requests, options)


def fill(port, keys):
    """Sets every key that the workloads draw, so that reads find them."""
    with Wire(port, timeout=120) as wire:
        step = 500
        for start in range(0, keys, step):
            commands = [("MSET", *[part for i in range(start, min(start + step, keys))
                                   for part in (f"{name}:{i:012d}", value)])
                        for name, value in (("key", "xxx"), ("counter", "0"))]
            for reply in wire.pipeline(commands):
                assert not isinstance(reply, Error), reply


def start(name, kind, binary, options_of_server, folder, options, setups):
    """Starts and fills a server."""
    place = Path(tempfile.mkdtemp(prefix=f"{name}-".replace(" ", "-"), dir=folder))
    server = Server(kind=kind, binary=binary, options=options_of_server, folder=place)
    try:
        server.start()
        fill(server.port, options.keys)
        with Wire(server.port, timeout=120) as wire:
            for command in setups:
                reply = wire.call(*command)
                assert not isinstance(reply, Error), f"{name}: {command[:3]}: {reply}"
    except BaseException:
        server.close()
        raise
    return Contender(name, server)


def own_shards():
    """How many shards tallyman takes by default: one core is left to the log."""
    return max(1, (os.cpu_count() or 1) - 1)


def contenders(fsync, rows, folder, options):
    """The servers of one fsync mode; `none` is the peers' persistence off."""
    setups = [command for row in rows for command in row.setup]
    wanted = []
    if fsync != "none" and not options.without_tallyman:
        wanted.append(("tallyman", "tallyman", None, {"appendfsync": fsync} | (
            {"shards": options.shards} if options.shards else {})))
        if any(row.two_shards for row in rows) and (options.shards or own_shards()) != 2:
            wanted.append((OWN_TWO_SHARDS, "tallyman", None, {"appendfsync": fsync, "shards": 2}))
    settings = ({"appendonly": "no"} if fsync == "none" else {"appendfsync": fsync})
    for binary in ["redis-server", *options.peer]:
        wanted.append((Path(binary).name, "redis", binary, settings))
    started = []
    try:
        for name, kind, binary, settings in wanted:
            contender = start(name, kind, binary, settings, folder, options, setups)
            contender.pause()
            started.append(contender)
    except BaseException:
        close(started)
        raise
    return started


def close(started):
    for contender in started:
        if contender.server.running():
            contender.resume()
        contender.server.close()
        shutil.rmtree(contender.server.folder, ignore_errors=True)


def run_mode(fsync, rows, folder, options):
    """All rounds of the workloads in one fsync mode: {(row, pipeline): {server: [samples]}}."""
    started = contenders(fsync, rows, folder, options)
    results = {}
    try:
        for round_number in range(options.rounds):
            for row in rows:
                for pipeline in row.pipelines:
                    # Each round begins with another server.
                    turn = round_number % len(started)
                    for contender in started[turn:] + started[:turn]:
                        if contender.name == OWN_TWO_SHARDS and not row.two_shards:
                            continue
                        contender.resume()
                        sample = measure(contender, row, pipeline, options)
                        contender.pause()
                        results.setdefault((row.name, pipeline), {}).setdefault(
                            contender.name, []).append(sample)
            print(f"  {fsync}: round {round_number + 1} of {options.rounds}", file=sys.stderr,
                  flush=True)
    finally:
        close(started)
    return results


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


def machine(folder):
    """What the figures were measured on."""
    model = next((line.split(":")[1].strip() for line in
                  Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    disk = subprocess.run(["df", "--output=fstype,source", str(folder)], capture_output=True,
                          text=True, check=False).stdout.splitlines()[-1].split()
    versions = [subprocess.run([binary, "--version"], capture_output=True, text=True,
                               check=False).stdout.strip()
                for binary in ("redis-server", "redis-benchmark")]
    p50, p99 = sync_latency(folder)
    return [f"machine: {os.cpu_count()} cores, {model}, Linux {platform.release()}",
            f"disk: {' on '.join(disk)}; 4 KiB write and fdatasync: {p50:.0f} us (p50), "
            f"{p99:.0f} us (p99)",
            f"peer: {versions[0].split(' sha')[0]}; client: {versions[1]}"]


def table(results):
    """Markdown: a line per workload, pipeline and mode; ratios are to the fastest peer."""
    lines = ["| workload | pipeline | appendfsync | server | requests/s (median) | spread | "
             "p50 ms | p99 ms | CPU us/request | ratio | to no persistence | share |",
             "| --- | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for (name, pipeline, fsync), servers in results.items():
        peers = [median(samples, "per_second") for server, samples in servers.items()
                 if not server.startswith("tallyman")]
        reference = [median(samples, "per_second") for samples in
                     results.get((name, pipeline, "none"), {}).values()]
        for server, samples in servers.items():
            speed = median(samples, "per_second")
            low = min(sample.per_second for sample in samples)
            high = max(sample.per_second for sample in samples)
            own = server.startswith("tallyman")
            shares = [sample.share for sample in samples if sample.share is not None]
            share = f"{statistics.median(shares) * 100:.0f}%" if shares else ""
            ratio = f"**{speed / max(peers):.2f}x**" if own and peers else ""
            against = f"{speed / max(reference):.2f}x" if own and reference else ""
            lines.append(
                f"| {name} | {pipeline} | {fsync} | {server} | {speed:,.0f} | "
                f"{(high - low) / speed * 100:.0f}% | {median(samples, 'p50_ms'):.3f} | "
                f"{median(samples, 'p99_ms'):.3f} | {median(samples, 'cpu_micros'):.2f} | "
                f"{ratio} | {against} | {share} |")
    return lines


def parse():
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds of half a second")
    parser.add_argument("--rounds", type=int, help="rounds per workload (default 3, at least 3 "
                                                   "for figures worth keeping)")
    parser.add_argument("--seconds", type=float, help="seconds per measurement (default 4)")
    parser.add_argument("--keys", type=int, default=100_000, help="random keys (default 100000)")
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    parser.add_argument("--fsync", default="", help="only these modes, with commas: always, "
                                                    "everysec, no, none")
    parser.add_argument("--peer", action="append", default=[], metavar="PATH",
                        help="another server of the Redis kind as well")
    parser.add_argument("--all", action="store_true", help="also rows whose commands are not "
                                                           "built yet")
    parser.add_argument("--shards", type=int, help="tallyman's number of shards")
    parser.add_argument("--threads", type=int, help="threads of redis-benchmark")
    parser.add_argument("--dir", type=Path, help="where the data folders go (default: target/bench)")
    parser.add_argument("--without-tallyman", action="store_true", help="only the peers")
    parser.add_argument("--write", action="store_true", help="write bench/RESULTS.md")
    options = parser.parse_args()
    options.rounds = options.rounds or 3
    options.seconds = options.seconds or (0.5 if options.quick else 4.0)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    options.load = os.environ.get("LOAD_BIN", str(target / "release" / "examples" / "load"))
    options.dir = options.dir or target / "bench"
    return options


def main():
    options = parse()
    options.dir.mkdir(parents=True, exist_ok=True)
    rows = [row for row in WORKLOADS if options.only in row.name
            and (options.all or not row.later)]
    if not rows:
        raise SystemExit(f"no workload's name contains {options.only!r}; there are "
                         + ", ".join(row.name for row in WORKLOADS))
    head = machine(options.dir)
    print("\n".join(head), flush=True)
    results = {}
    for fsync in ("none", "always", "everysec", "no"):
        chosen = [row for row in rows
                  if (row.reference if fsync == "none" else fsync in row.fsyncs)]
        if not chosen or (options.fsync and fsync not in options.fsync.split(",")):
            continue
        try:
            measured = run_mode(fsync, chosen, options.dir, options)
        except StartFailed as error:
            raise SystemExit(f"a server did not start: {error}") from error
        for (name, pipeline), servers in measured.items():
            results[name, pipeline, fsync] = servers
    order = [row.name for row in rows]
    modes = ["always", "everysec", "no", "none"]
    results = dict(sorted(results.items(), key=lambda item: (
        order.index(item[0][0]), item[0][1], modes.index(item[0][2]))))
    lines = head + [f"{options.rounds} interleaved rounds of {options.seconds:g} s, "
                    f"{options.keys} keys; ratio: to the fastest peer in the same mode; share: of "
                    "the own speed without the clients beside it", ""]
    lines += table(results)
    print("\n" + "\n".join(lines[len(head):]))
    if options.write:
        (ROOT / "bench" / "RESULTS.md").write_text("# Measured\n\n" + "  \n".join(
            lines[:len(head) + 1]) + "\n\n" + "\n".join(lines[len(head) + 2:]) + "\n")


if __name__ == "__main__":
    main()
