"""Measures what many counters cost in memory and on disk, and how fast a killed server is back.

Steps: resident (bytes of memory per counter), start (time from process start to the first correct
reply after kill -9, with a tail of the log), cold (many more keys than maxmemory), disk (bytes per
cold counter once compaction rests), checkpoint (slices that shards give to one).

redis-server is beside it where it can do the same. Every figure is printed with its goal; one that
is missed is marked. The first correct reply is a GET whose value is compared.
"""

import argparse
import os
import random
import shutil
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
INCR_PER_ROUND = 5_000
REST_SECONDS = 3
WAIT_SECONDS_MAX = 600
CLIENTS = 50
PIPELINE = 16


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


def count_up(port, keys, done):
    """INCRs of random counters until `done` says so."""
    rng = random.Random(1)
    with Wire(port, timeout=WAIT_SECONDS_MAX) as wire:
        while not done(wire):
            commands = b"".join(b"*2\r\n$4\r\nINCR\r\n$20\r\n%b\r\n" % key(rng.randrange(keys))
                                for _ in range(INCR_PER_ROUND))
            wire.send(commands)
            for _ in range(INCR_PER_ROUND):
                reply = wire.read()
                assert isinstance(reply, int), reply


def resident_bytes(pid):
    """The process's resident memory."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines()
                if line.startswith("VmRSS:"))


def folder_bytes(folder):
    """Bytes that a folder's files take on disk."""
    return sum(path.stat().st_blocks * 512 for path in Path(folder).rglob("*") if path.is_file())


def info(port, name):
    """One figure of INFO, or None where the server does not tell it."""
    with Wire(port, timeout=WAIT_SECONDS_MAX) as wire:
        text = wire.call("INFO", "everything").decode()
    for line in text.splitlines():
        if line.startswith(name + ":"):
            return line.split(":", 1)[1]
    return None


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

    def server(self, kind, options):
        """A server with a folder of its own."""
        place = Path(tempfile.mkdtemp(prefix=kind + "-", dir=self.folder))
        return Server(kind=kind, options=options, folder=place).start()

    def remove(self, server):
        server.close()
        shutil.rmtree(server.folder, ignore_errors=True)

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
        for kind, options in (("tallyman", {"appendfsync": "no"}),
                              ("redis", {"appendonly": "no"})):
            server = self.server(kind, options)
            empty = resident_bytes(server.pid)
            fill(server.port, keys)
            if kind == "tallyman":
                save(server.port)
                time.sleep(1)
            used = resident_bytes(server.pid)
            goal = 48 if kind == "tallyman" else None
            self.show(f"{kind}: memory per counter, everything included", used / keys, "bytes",
                      goal)
            self.show(f"{kind}: memory per counter, without the empty server",
                      (used - empty) / keys, "bytes")
            self.remove(server)

    def start(self):
        """Time to the first correct reply after kill -9."""
        keys = self.size(10_000_000)
        print(f"start: {keys:,} counters, kill -9, then the first correct reply")
        for tail_mib, goal in ((64, 1.0), (512, 5.0)):
            tail = self.size(tail_mib * MIB)
            server = self.server("tallyman", {"appendfsync": "no", "checkpoint-size": "64gb"})
            fill(server.port, keys)
            save(server.port)
            count_up(server.port, keys, lambda wire, tail=tail: self.log_bytes(wire) >= tail)
            with Wire(server.port) as wire:
                # appendfsync no: what was acknowledged may be lost, so it is made durable here.
                wire.call("CONFIG", "SET", "appendfsync", "always")
                time.sleep(1)
                wire.call("SET", "witness", "before the kill")
            server.kill9()
            seconds = min(self.again(server) for _ in range(self.options.rounds))
            self.show(f"tallyman: with {tail / MIB:.1f} MiB of log behind the store", seconds,
                      "s", goal)
            self.remove(server)
        for name, options in (("AOF", {"appendonly": "yes", "appendfsync": "no",
                                       "aof-use-rdb-preamble": "no"}),
                              ("RDB", {"appendonly": "no"})):
            server = self.server("redis", options)
            fill(server.port, keys)
            with Wire(server.port, timeout=WAIT_SECONDS_MAX) as wire:
                wire.call("SET", "witness", "before the kill")
            if name == "RDB":
                with Wire(server.port, timeout=WAIT_SECONDS_MAX) as wire:
                    wire.call("SAVE")
            time.sleep(2)
            server.kill9()
            seconds = min(self.again(server) for _ in range(self.options.rounds))
            self.show(f"redis: loading its {name}", seconds, "s")
            self.remove(server)

    def again(self, server):
        """One start and one more kill."""
        seconds = first_reply_seconds(server)
        server.kill9()
        return seconds

    def log_bytes(self, wire):
        text = wire.call("INFO", "everything").decode()
        return int(text.split("bytes_since_checkpoint:")[1].split()[0])

    def cold(self):
        """Many more keys than memory."""
        keys = self.size(50_000_000)
        bound = max(32 * MIB, self.size(256 * MIB))
        print(f"cold: {keys:,} counters with maxmemory {bound / MIB:.0f}mb")
        speeds = {}
        for maxmemory in (0, bound):
            server = self.server("tallyman", {"maxmemory": maxmemory})
            fill(server.port, keys)
            save(server.port)
            wait_for_rest(server.port)
            for name, number in (("random keys", keys), ("a hot 1 %", max(1, keys // 100))):
                speeds[maxmemory, name] = self.benchmark(server.port, number)
                self.show(f"maxmemory {maxmemory / MIB:.0f}mb: INCR of {name}",
                          speeds[maxmemory, name], "/s")
            goal = 384 * bound / (256 * MIB) if maxmemory and self.options.scale >= 1 else None
            self.show(f"maxmemory {maxmemory / MIB:.0f}mb: memory",
                      resident_bytes(server.pid) / MIB, "MiB", goal)
            self.remove(server)
        self.show("hot 1 %: speed, with maxmemory to without",
                  speeds[bound, "a hot 1 %"] / speeds[0, "a hot 1 %"], "", -0.8)

    def benchmark(self, port, keys):
        """INCRs per second of random counters."""
        line = ["redis-benchmark", "-p", str(port), "-c", str(CLIENTS), "-P", str(PIPELINE),
                "-n", str(self.size(2_000_000)), "-r", str(keys), "--csv", "INCR",
                "counter:__rand_int__"]
        out = subprocess.run(line, capture_output=True, text=True, timeout=WAIT_SECONDS_MAX,
                             check=True).stdout
        return float(out.splitlines()[-1].split('","')[1].strip('"'))

    def disk(self):
        """Bytes on disk per counter once compaction rests."""
        keys = self.size(10_000_000)
        print(f"disk: {keys:,} cold counters with keys of 20 bytes")
        for what, name in (("numbered keys", key), ("keys of random digits", mixed)):
            server = self.server("tallyman", {"appendfsync": "no"})
            fill(server.port, keys, name)
            save(server.port)
            wait_for_rest(server.port)
            store = folder_bytes(server.folder / "data" / "store")
            self.show(f"tallyman: {what}", store / keys, "bytes", 48)
            self.remove(server)

    def checkpoint(self):
        """The slices that a shard gives to a large checkpoint."""
        keys = self.size(5_000_000)
        print(f"checkpoint: {keys:,} dirty counters")
        server = self.server("tallyman", {"appendfsync": "no", "checkpoint-size": "64gb"})
        fill(server.port, keys)
        begun = time.monotonic()
        save(server.port)
        self.show("one checkpoint", time.monotonic() - begun, "s")
        slices = info(server.port, "checkpoint_slice_usec_p99.9")
        if slices is None:
            print("  the server does not tell checkpoint_slice_usec_p99.9", flush=True)
        else:
            self.show("slice of a shard's thread, p99.9", float(slices) / 1000, "ms", 1)
        before, written = keys, written_bytes(server.pid)
        for _ in range(5):
            count_up(server.port, keys, rounds(self.size(1_000_000) // INCR_PER_ROUND + 1))
            save(server.port)
        wait_for_rest(server.port)
        written = written_bytes(server.pid) - written
        changes = 5 * (self.size(1_000_000) // INCR_PER_ROUND + 1) * INCR_PER_ROUND
        self.show("bytes written per INCR over five checkpoints, log included",
                  written / changes, "bytes")
        self.show("disk per counter after that",
                  folder_bytes(server.folder / "data" / "store") / before, "bytes")
        self.remove(server)


def written_bytes(pid):
    """Bytes that a process caused to be written to the disk."""
    text = Path(f"/proc/{pid}/io").read_text(encoding="ascii")
    return int(text.split("write_bytes: ")[1].split()[0])


def rounds(number):
    """Says so when it was asked so often."""
    left = [number]

    def done(_wire):
        left[0] -= 1
        return left[0] < 0
    return done


STEPS = ("resident", "start", "cold", "disk", "checkpoint")


def main():
    parser = argparse.ArgumentParser(prog="bench/recovery", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="size of everything (default 1)")
    parser.add_argument("--only", default="", help="steps whose name contains this")
    parser.add_argument("--rounds", type=int, default=3, help="starts; the fastest counts")
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--dir", type=Path, default=target / "bench",
                        help="where the data folders go (default: target/bench)")
    options = parser.parse_args()
    options.dir.mkdir(parents=True, exist_ok=True)
    steps = [step for step in STEPS if options.only in step]
    if not steps:
        raise SystemExit(f"no step's name contains {options.only!r}: {', '.join(STEPS)}")
    bench = Bench(options)
    try:
        for step in steps:
            getattr(bench, step)()
    finally:
        shutil.rmtree(bench.folder, ignore_errors=True)
    print(f"{bench.missed} goals missed")


if __name__ == "__main__":
    main()
