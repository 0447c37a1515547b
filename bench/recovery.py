"""Measures what many counters cost in memory and on disk, and how fast a killed server is back.

Steps: resident (bytes of memory per counter), start (time from process start to the first correct
reply after kill -9, with a tail of the log), cold (many more keys than maxmemory), disk (bytes per
cold counter once compaction rests), checkpoint (slices that shards give to one, over all slots and
over one), endless (disk and bytes written while the same counters change for a minute).

redis-server is beside it where it can do the same. Every figure is printed with its goal; one that
is missed is marked. The first correct reply is a GET whose value is compared.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from harness.server import Server, StartFailed  # noqa: E402
from harness.wire import Error, Wire  # noqa: E402

MIB = 1 << 20
KEYS_PER_MSET = 500
COMMANDS_PER_ROUND = 20
REST_SECONDS = 3
WAIT_SECONDS_MAX = 600
CLIENTS = 16
PIPELINE = 100


def key(number):
    """A key of 20 bytes, as redis-benchmark makes it."""
    return b"counter:%012d" % number


def mixed(number):
    """A key of 20 bytes that does not compress as well: 18 hexadecimal digits of a mix."""
    mix = (number * 0x9E3779B97F4A7C15 + 0x1234567) & ((1 << 72) - 1)
    mix ^= mix >> 31
    return b"c:%018x" % (mix * 0xD6E8FEB86659FD93 & ((1 << 72) - 1))


def value_of(number):
    """The value that the fill gives a counter."""
    return number % 1000


def fill(port, keys, name=key):
    """Sets so many counters by pipelined MSETs."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS_MAX) as line:
        waiting = 0
        for start in range(0, keys, KEYS_PER_MSET):
            numbers = range(start, min(start + KEYS_PER_MSET, keys))
            parts = [b"*%d\r\n$4\r\nMSET\r\n" % (1 + 2 * len(numbers))]
            for number in numbers:
                text = b"%d" % value_of(number)
                parts.append(b"$20\r\n%b\r\n$%d\r\n%b\r\n" % (name(number), len(text), text))
            line.sendall(b"".join(parts))
            waiting += 1
            if waiting >= COMMANDS_PER_ROUND:
                drain(line, waiting, b"+OK\r\n")
                waiting = 0
        drain(line, waiting, b"+OK\r\n")


def drain(line, replies, reply):
    """Reads so many replies, all of which are this one."""
    left = replies * len(reply)
    while left:
        some = line.recv(min(left, 1 << 16))
        if not some or not (reply * (len(some) // len(reply) + 2)).find(some) >= 0:
            raise SystemExit(f"unexpected reply {some[:200]!r}")
        left -= len(some)


def load(port, keys, *options, workload="INCR counter:{unit}"):
    """Runs bench/load; units per second."""
    line = [os.environ["LOAD_BIN"], "--port", str(port), "--clients", str(CLIENTS),
            "--pipeline", str(PIPELINE), "--keys", str(keys), "--workload", workload,
            "--json", "-", *(str(option) for option in options)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=10 * WAIT_SECONDS_MAX,
                          check=False)
    if done.returncode:
        raise SystemExit(f"bench/load failed:\n{done.stderr}")
    group = json.loads(done.stdout)["groups"][0]
    if group["errors"] or group["lost"]:
        raise SystemExit(f"bench/load had errors: {group['first_error']}")
    return group["units_per_second"]


def count_all(port, keys, workload="INCR counter:{unit}"):
    """INCRs so many counters once each."""
    load(port, keys, "--sequential", "--count", keys, workload=workload)


def count_up(port, keys, seconds, seed):
    """INCRs of random counters for a while; how many there were."""
    return int(load(port, keys, "--seconds", seconds, "--seed", seed) * seconds)


def folder_bytes(folder):
    """Bytes that a folder's files take on disk."""
    return sum(path.stat().st_blocks * 512 for path in Path(folder).rglob("*") if path.is_file())


def info(port, name):
    """One figure of INFO, or None where the server does not tell it."""
    with Wire(port, timeout=WAIT_SECONDS_MAX) as wire:
        return wire.info().get(name)


def save(port):
    """A checkpoint; for redis-server an RDB."""
    with Wire(port, timeout=WAIT_SECONDS_MAX) as wire:
        reply = wire.call("SAVE")
        assert not isinstance(reply, Error), reply


def wait_for_rest(port):
    """Until compaction has nothing to do."""
    last, since, end = None, time.monotonic(), time.monotonic() + WAIT_SECONDS_MAX
    while time.monotonic() < end:
        now = (info(port, "store_bytes"), info(port, "store_runs"))
        if now != last:
            last, since = now, time.monotonic()
        if time.monotonic() - since > REST_SECONDS:
            return
        time.sleep(0.2)


def first_reply_seconds(server):
    """Starts a killed server; seconds until it answers a GET with what was written last."""
    begun = time.monotonic()
    server.begin()
    while time.monotonic() - begun < WAIT_SECONDS_MAX:
        if not server.running():
            raise StartFailed(server.log_tail())
        if server.port and (server.kind == "redis" or server.port_seen.is_set()):
            try:
                with Wire(server.port, timeout=5) as wire:
                    reply = wire.call("GET", "witness")
                if reply == b"before the kill":
                    return time.monotonic() - begun
                # redis-server says LOADING meanwhile.
                if not isinstance(reply, Error):
                    raise SystemExit(f"a wrong reply after the start: {reply!r}")
            except OSError:
                pass
        time.sleep(0.002)
    raise StartFailed("no correct reply in time")


class Bench:
    """The steps, with the size that was asked for."""

    def __init__(self, options):
        self.options = options
        self.folder = Path(tempfile.mkdtemp(prefix="recovery-", dir=options.dir))
        self.missed = 0

    def size(self, number):
        """So many keys (or bytes) at this scale."""
        return max(1000, int(number * self.options.scale))

    @contextlib.contextmanager
    def server(self, kind, options):
        """A server with a folder of its own; both go with the step, also when it fails."""
        place = Path(tempfile.mkdtemp(prefix=kind + "-", dir=self.folder))
        server = Server(kind=kind, options=options, folder=place)
        try:
            yield server.start()
        finally:
            server.close()
            shutil.rmtree(place, ignore_errors=True)

    def show(self, what, value, unit, goal=None):
        """One line; a goal is the most that the figure may be, negative: the least."""
        mark = ""
        if goal is not None:
            good = value <= goal if goal > 0 else value >= -goal
            self.missed += not good
            word = "at most" if goal > 0 else "at least"
            mark = f"   goal: {word} {abs(goal):g}" + ("" if good else "   MISSED")
        print(f"  {what:<58} {value:>12,.3f} {unit}{mark}", flush=True)

    def resident(self):
        """Memory per counter with all of them resident."""
        keys = self.size(10_000_000)
        print(f"resident: {keys:,} counters with keys of 20 bytes")
        for kind, options in (("tallyman", {}), ("redis", {"appendonly": "no"})):
            for what, name in (("numbered", key), ("random", mixed)):
                with self.server(kind, options) as server:
                    empty = server.memory_bytes()
                    fill(server.port, keys, name)
                    if kind == "tallyman":
                        save(server.port)
                        wait_for_rest(server.port)
                    used = server.memory_bytes()
                    goal = 48 if kind == "tallyman" else None
                    self.show(f"{kind}: memory per counter, {what} keys", used / keys, "bytes",
                              goal)
                    self.show(f"{kind}: the same without the empty server", (used - empty) / keys,
                              "bytes")

    def start(self):
        """Time to the first correct reply after kill -9."""
        keys = self.size(10_000_000)
        print(f"start: {keys:,} counters, kill -9, then the first correct reply")
        for tail_mib, goal in ((64, 1.0), (512, 5.0)):
            tail = self.size(tail_mib * MIB)
            options = {"appendfsync": "no", "checkpoint-size": "64gb"}
            with self.server("tallyman", options) as server:
                fill(server.port, keys)
                save(server.port)
                seed = 0
                while int(info(server.port, "bytes_since_checkpoint")) < tail:
                    seed += 1 << 40
                    count_up(server.port, keys, min(1.0, 10 * self.options.scale), seed)
                with Wire(server.port) as wire:
                    # appendfsync no: what was acknowledged may be lost. The reply to this write
                    # waits for a sync, which makes all that came before durable.
                    wire.call("CONFIG", "SET", "appendfsync", "always")
                    wire.call("SET", "witness", "before the kill")
                server.kill9()
                seconds = min(self.again(server) for _ in range(self.options.rounds))
                self.show(f"tallyman: with {tail / MIB:.1f} MiB of log behind the store", seconds,
                          "s", goal)
        for name, options in (("AOF", {"appendonly": "yes", "appendfsync": "no",
                                       "aof-use-rdb-preamble": "no"}),
                              ("RDB", {"appendonly": "no"})):
            with self.server("redis", options) as server:
                fill(server.port, keys)
                with Wire(server.port, timeout=WAIT_SECONDS_MAX) as wire:
                    wire.call("SET", "witness", "before the kill")
                if name == "RDB":
                    with Wire(server.port, timeout=WAIT_SECONDS_MAX) as wire:
                        wire.call("SAVE")
                # It writes to its file before it replies.
                server.kill9()
                seconds = min(self.again(server) for _ in range(self.options.rounds))
                self.show(f"redis: loading its {name}", seconds, "s")

    def again(self, server):
        """One start and one more kill."""
        seconds = first_reply_seconds(server)
        server.kill9()
        return seconds

    def cold(self):
        """Many more keys than memory."""
        keys = self.size(50_000_000)
        bound = max(8 * MIB, self.size(256 * MIB))
        print(f"cold: {keys:,} counters with maxmemory {bound / MIB:.0f}mb")
        speeds = {}
        for maxmemory in (0, bound):
            with self.server("tallyman", {"maxmemory": maxmemory}) as server:
                what = f"maxmemory {maxmemory / MIB:.0f}mb:"
                begun = time.monotonic()
                count_all(server.port, keys)
                self.show(f"{what} loading", keys / (time.monotonic() - begun), "/s")
                save(server.port)
                wait_for_rest(server.port)
                for name, number in (("a hot 1 %", max(1, keys // 100)), ("random keys", keys)):
                    # What is hot has to come into memory first, all of it.
                    if number < keys:
                        count_all(server.port, number)
                    load(server.port, number, "--seconds", self.options.seconds)
                    speed = load(server.port, number, "--seconds", self.options.seconds)
                    speeds[maxmemory, name] = speed
                    self.show(f"{what} INCR of {name}", speed, "/s")
                goal = (bound + 128 * MIB) / MIB if maxmemory else None
                self.show(f"{what} most memory ever", server.memory_bytes("VmHWM") / MIB, "MiB",
                          goal)
        self.show("hot 1 %: speed, with maxmemory to without",
                  speeds[bound, "a hot 1 %"] / speeds[0, "a hot 1 %"], "", -0.8)

    def disk(self):
        """Bytes on disk per counter once compaction rests."""
        keys = self.size(10_000_000)
        print(f"disk: {keys:,} cold counters with keys of 20 bytes")
        for what, name in (("numbered keys", key), ("keys of random digits", mixed)):
            with self.server("tallyman", {"appendfsync": "no"}) as server:
                fill(server.port, keys, name)
                save(server.port)
                wait_for_rest(server.port)
                store = folder_bytes(server.folder / "data" / "store")
                self.show(f"tallyman: {what}", store / keys, "bytes", 48)

    def checkpoint(self):
        """The slices that a shard gives to a large checkpoint."""
        keys = self.size(5_000_000)
        print(f"checkpoint: {keys:,} dirty counters")
        for what, name in (("all slots", "counter:{unit}"), ("one slot", "{{tag}}:{unit}")):
            with self.server("tallyman", {"checkpoint-size": "64gb"}) as server:
                count_all(server.port, keys, f"INCR {name}")
                begun = time.monotonic()
                save(server.port)
                self.show(f"{what}: one checkpoint", time.monotonic() - begun, "s")
                for percentile, goal in (("p50", None), ("p99.9", 1), ("max", None)):
                    slices = float(info(server.port, f"checkpoint_slice_usec_{percentile}"))
                    self.show(f"{what}: CPU of a slice of a shard's thread, {percentile}",
                              slices / 1000, "ms", goal)

    def endless(self):
        """Disk space and writes while the same counters change again and again."""
        keys, seconds = self.size(1_000_000), max(3.0, 60 * self.options.scale)
        options = {"checkpoint-size": max(MIB, self.size(32 * MIB)), "log-segment-size": "16mb"}
        print(f"endless: INCR of {keys:,} random counters for {seconds:.0f} s")
        with self.server("tallyman", options) as server:
            count_all(server.port, keys)
            save(server.port)
            wait_for_rest(server.port)
            data, before = server.folder / "data", server.written_bytes()
            most, halves, changes = folder_bytes(data), [], 0
            for _ in range(2):
                end, most_of_half = time.monotonic() + seconds / 2, 0
                while time.monotonic() < end:
                    changes += count_up(server.port, keys, 1, changes + 1)
                    most_of_half = max(most_of_half, folder_bytes(data))
                halves.append(most_of_half)
            most = max(most, *halves)
            written = server.written_bytes() - before
            self.show("INCRs", changes / seconds, "/s")
            self.show("checkpoints", float(info(server.port, "checkpoints")), "")
            self.show("most disk ever, log included", most / MIB, "MiB")
            self.show("most disk in the second half to that in the first",
                      halves[1] / halves[0], "", 1.5)
            # A key of 20 bytes and a number of 8.
            self.show("bytes written per byte that changed, log included",
                      written / changes / 28, "")


STEPS = ("resident", "start", "cold", "disk", "checkpoint", "endless")


def main():
    parser = argparse.ArgumentParser(prog="bench/recovery", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="size of everything (default 1)")
    parser.add_argument("--only", default="", help="steps whose name contains this")
    parser.add_argument("--rounds", type=int, default=3, help="starts; the fastest counts")
    parser.add_argument("--seconds", type=float, default=10, help="of each speed (default 10)")
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--dir", type=Path, default=target / "bench",
                        help="where the data folders go (default: target/bench)")
    options = parser.parse_args()
    options.dir.mkdir(parents=True, exist_ok=True)
    steps = [step for step in STEPS if options.only in step]
    if not steps:
        raise SystemExit(f"no step's name contains {options.only!r}: {', '.join(STEPS)}")
    # So that servers are ended whatever ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    bench = Bench(options)
    try:
        for step in steps:
            getattr(bench, step)()
    except StartFailed as error:
        raise SystemExit(f"a server did not start: {error}") from error
    finally:
        shutil.rmtree(bench.folder, ignore_errors=True)
    print(f"{bench.missed} goals missed")


if __name__ == "__main__":
    main()
