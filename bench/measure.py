"""One measurement: a run of the client against one server, as a sample.

Always true: the client is the same for all servers, and what it costs itself is told beside; a
warm-up comes before what counts.
"""

import csv
import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass, field

from harness.wire import Error, Wire

WARM_UP_REQUESTS = 5_000
WARM_UP_SECONDS = 0.3
REQUESTS_MAX = 50_000_000
TIME_LINE_POINTS = 60
WATCH_SECONDS = 0.05
RUN_SECONDS_MAX = 600


@dataclass
class Sample:
    """One round of one workload on one server."""

    per_second: float
    p50_ms: float
    p99_ms: float
    p999_ms: float | None = None
    """redis-benchmark does not tell it."""
    cpu_us: float = 0.0
    """CPU time of the server per request, all its threads."""
    client_us: float | None = None
    """CPU time of the client per request."""
    share: float | None = None
    """Where other clients are beside: the part of the speed without them that is left."""
    idle_bytes: float | None = None
    """Memory of the server per idle connection."""
    checkpoints: int | None = None
    """How many ended while the client ran, its warm-up included."""
    time_line: list = field(default_factory=list)
    """Seconds, requests per second, p99 and longest latency in ms."""
    marks: list = field(default_factory=list)
    """When checkpoints ran (of a peer: rewrites of its file), as pairs of seconds."""


def measure(contender, row, pipeline, options):
    """One round of a row: a list of what comes behind the row's name, and a sample."""
    if options.client == "redis-benchmark" and plain(row):
        return [("", benchmark(contender, row, pipeline, options))]

    def run(*extra, watch=False):
        return load(contender, row, pipeline, extra, watch, options)

    extra = [*(["--beside", row.beside] if row.beside else []),
             *(["--idle", str(row.idle)] if row.idle else [])]
    if not extra and not row.open_loop:
        return [("", run(watch=bool(row.saves or row.seconds)))]
    alone = run()
    if row.open_loop:
        # Latencies count here; the speed is what was asked for.
        return [(f" {part:.0%}", run("--rate", str(max(1, alone.per_second * part)),
                                     watch=bool(row.saves))) for part in row.open_loop]
    sample = run(*extra)
    sample.share = sample.per_second / alone.per_second if alone.per_second else None
    return [("", sample)]


def seconds(row, options):
    """How long a measurement of a row takes, without its warm-up."""
    return max(row.seconds if not options.quick else 0, options.seconds)


def load(contender, row, pipeline, extra, watch, options):
    """Runs bench/load once, with extra arguments. A block is one request."""
    server = contender.server
    length = seconds(row, options)
    workload = row.peer if contender.is_peer() and row.peer else row.load
    line = [options.load, "--port", str(server.port), "--pid", str(server.pid),
            "--workload", workload, "--clients", str(row.clients), "--pipeline", str(pipeline),
            "--keys", str(row.keys or options.keys), "--value", str(row.value_bytes),
            "--warm-up", str(options.warm_up), "--seconds", str(length),
            "--interval-ms", str(max(20, int(length * 1000 / TIME_LINE_POINTS))),
            "--json", "-", *extra]
    watcher = Watcher(contender, row.saves, options.warm_up, length) if watch else None
    fired = contender.faults.fired() if contender.faults else 0
    done = subprocess.run(line, capture_output=True, text=True, check=False,
                          timeout=length + RUN_SECONDS_MAX)
    told = watcher.end() if watcher else None
    if done.returncode:
        raise SystemExit(f"bench/load failed on {contender.name}, {row.name}:\n"
                         f"{done.stderr}{done.stdout[:2000]}\n{server.log_tail()}")
    if contender.faults and "--beside" in extra and contender.faults.fired() == fired:
        raise SystemExit(f"{contender.name}, {row.name}: no sync was slowed down")
    return sample_of(json.loads(done.stdout), told)


def sample_of(result, told):
    """What bench/load wrote, as a sample; with the time line if somebody watched."""
    first = result["groups"][0]
    latency = first["latency_ms"]
    units = max(1, sum(group["units"] for group in result["groups"]))
    line = first["time_line"]
    step = line[1]["at_seconds"] - line[0]["at_seconds"] if len(line) > 1 else 1.0
    marks, checkpoints = told or ([], None)
    return Sample(first["units_per_second"], latency["p50"], latency["p99"], latency["p99.9"],
                  result["server_cpu_ms"] * 1e3 / units, result["client_cpu_ms"] * 1e3 / units,
                  idle_bytes=result["idle_bytes"], checkpoints=checkpoints, marks=marks,
                  time_line=[[point["at_seconds"], point["units"] / step, point["p99_ms"],
                              point["max_ms"]] for point in line] if told else [])


class Watcher:
    """Looks when checkpoints run, and has tallyman make some, evenly over the measured time."""

    def __init__(self, contender, saves, warm_up, seconds):
        self.contender = contender
        self.begun = time.monotonic() + warm_up
        self.saves = [] if contender.is_peer() else [
            self.begun + seconds * (number + 1) / (saves + 1) for number in range(saves)]
        self.marks = []
        self.over = threading.Event()
        self.failure = None
        with Wire(contender.server.port, timeout=RUN_SECONDS_MAX) as wire:
            self.before = self.count(wire)
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def count(self, wire):
        """Checkpoints up to now; nothing where a server does not tell them."""
        found = wire.info().get("checkpoints")
        return None if found is None else int(found)

    def watch(self):
        """Asks again and again."""
        try:
            with Wire(self.contender.server.port, timeout=RUN_SECONDS_MAX) as wire:
                while not self.over.wait(WATCH_SECONDS):
                    self.look(wire)
        except (OSError, AssertionError) as error:
            self.failure = error

    def look(self, wire):
        """Asks once."""
        now = time.monotonic()
        if self.saves and now >= self.saves[0]:
            self.saves.pop(0)
            reply = wire.call("BGSAVE")
            assert not isinstance(reply, Error) or "already" in reply or "progress" in reply, reply
        told = wire.info("persistence")
        runs = told["rdb_bgsave_in_progress"] == "1" or told["aof_rewrite_in_progress"] == "1"
        at = round(now - self.begun, 3)
        if runs and (not self.marks or self.marks[-1][1] is not None):
            self.marks.append([at, None])
        elif not runs and self.marks and self.marks[-1][1] is None:
            self.marks[-1][1] = at

    def end(self):
        """The pairs of moments, and how many checkpoints ended."""
        at = round(time.monotonic() - self.begun, 3)
        self.over.set()
        self.thread.join()
        if self.failure:
            raise SystemExit(f"{self.contender.name}: {self.failure}")
        with Wire(self.contender.server.port, timeout=RUN_SECONDS_MAX) as wire:
            after = self.count(wire)
        marks = [[begun, at if ended is None else ended] for begun, ended in self.marks]
        return marks, None if after is None else after - self.before


def plain(row):
    """Whether redis-benchmark can send it: single commands, and nothing beside."""
    special = row.beside or row.idle or row.open_loop or row.saves or row.seconds
    return not special and row.load[0].isupper() and not row.peer


def benchmark(contender, row, pipeline, options):
    """Runs redis-benchmark: a warm-up that says how many requests fill the time, and a sample."""
    words = row.load.replace("{rand}", "__rand_int__").replace("{value}", "x" * row.value_bytes)

    def run(requests):
        server = contender.server
        line = ["redis-benchmark", "-p", str(server.port), "--csv", "-n", str(requests),
                "-c", str(row.clients), "-P", str(pipeline), "-r", str(options.keys)]
        before, own = server.cpu_seconds(), os.times()
        done = subprocess.run(line + words.split(), capture_output=True, text=True, check=False,
                              timeout=RUN_SECONDS_MAX)
        used, now = server.cpu_seconds() - before, os.times()
        rows = list(csv.DictReader(done.stdout.splitlines()))
        if done.returncode or not rows or "rror" in done.stderr + done.stdout:
            raise SystemExit(f"redis-benchmark failed on {contender.name}, {row.name}:\n"
                             f"{done.stderr}{done.stdout}\n{server.log_tail()}")
        told = rows[0]
        client = (now.children_user + now.children_system
                  - own.children_user - own.children_system)
        return Sample(float(told["rps"]), float(told["p50_latency_ms"]),
                      float(told["p99_latency_ms"]), cpu_us=used / requests * 1e6,
                      client_us=client / requests * 1e6)

    warm = max(WARM_UP_REQUESTS, row.clients * pipeline * 10)
    speed = run(warm).per_second
    return run(min(REQUESTS_MAX, max(warm, int(speed * options.seconds))))
