"""The servers that take part: how they are set, started, filled, stopped between their turns.

Always true: only processes started here are signalled; a server that is not measured is stopped
(SIGSTOP), so that no background work disturbs; all get the same keys by the same commands.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from harness.faults import LOG, STORE, SYNC, WRITE, Faults
from harness.server import Server
from harness.wire import Error, Wire

FILL_CLIENTS = 4
FILL_KEYS_PER_COMMAND = 20
FILL_SECONDS_MAX = 1200
REWRITE_SECONDS_MAX = 600
# A peer's file of commands is rewritten between measurements when it is longer.
AOF_BYTES_MAX = 512 << 20
IDLE_ROOM = 1_000
OWN = "tallyman"
BASE = "base"
REDIS = "redis-server"
REFERENCE = ", no persistence"


def shards_name(shards):
    """The name of tallyman with a number of shards that is not its default."""
    return f"{OWN}, {shards} shard{'' if shards == 1 else 's'}"


def is_own(name):
    """Whether a server is the tallyman that is measured (and no peer)."""
    return name == OWN or name.startswith(OWN + ", ")


@dataclass(frozen=True)
class Setup:
    """What rows need of their servers; rows with the same needs share them."""

    fsync: str
    keys: int
    filled: tuple
    own: tuple
    sync_ms: int

    @staticmethod
    def of(row, fsync, options):
        """What a row needs in this mode."""
        return Setup(fsync, row.keys or options.keys, row.filled, row.own, row.sync_ms)


@dataclass
class Contender:
    """A server that takes part: its name in the table and its process."""

    name: str
    server: Server
    shards: int = 0
    faults: Faults | None = None

    def pause(self):
        """Stops the process."""
        os.kill(self.server.pid, signal.SIGSTOP)

    def resume(self):
        """Lets it go on."""
        os.kill(self.server.pid, signal.SIGCONT)

    def is_peer(self):
        """Whether it is of the Redis kind."""
        return self.server.kind == "redis"

    def takes_part(self, row, options):
        """Whether it is measured in this row."""
        if self.name.endswith(REFERENCE):
            return row.reference
        return not self.shards or self.shards == options.shards or row.two_shards

    def tidy(self):
        """Between measurements: a long file of commands is rewritten."""
        if not self.is_peer():
            return
        with Wire(self.server.port, timeout=REWRITE_SECONDS_MAX) as wire:
            if int(wire.info("persistence").get("aof_current_size", 0)) < AOF_BYTES_MAX:
                return
            wire.call("BGREWRITEAOF")
            end = time.monotonic() + REWRITE_SECONDS_MAX
            while time.monotonic() < end:
                time.sleep(0.05)
                told = wire.info("persistence")
                if told["aof_rewrite_in_progress"] == told["aof_rewrite_scheduled"] == "0":
                    return
        raise SystemExit(f"{self.name} did not rewrite its file in time")

    def close(self):
        """Ends the process and removes its folder."""
        if self.server.running():
            self.resume()
        self.server.close()
        shutil.rmtree(self.server.folder, ignore_errors=True)
        if self.faults:
            self.faults.close()


def wanted(setup, rows, options):
    """Name, kind, binary, settings and shards of the servers for these rows."""
    idle = max(row.idle for row in rows)
    room = {"maxclients": idle + IDLE_ROOM} if idle else {}
    own = {"appendfsync": setup.fsync} | dict(setup.own) | room
    both = not options.base and setup.fsync == "always" and any(row.two_shards for row in rows)
    shards = {options.shards, *((1, 2) if both else ())}
    servers = [(OWN if number == options.shards else shards_name(number), "tallyman", None,
                own | {"shards": number}, number) for number in sorted(shards)]
    # The default first: what it is compared with follows.
    servers.sort(key=lambda server: server[0] != OWN)
    if options.base:
        servers.append((BASE, "tallyman", options.base, own | {"shards": options.shards}, 0))
    peer = {"appendfsync": setup.fsync} | room
    if not options.aof_rewrite:
        peer["auto-aof-rewrite-percentage"] = "0"
    for name, binary in options.peers.items():
        servers.append((name, "redis", binary, peer, 0))
    if REDIS in options.peers and setup.fsync == "always" and any(row.reference for row in rows):
        servers.append((REDIS + REFERENCE, "redis", options.peers[REDIS],
                        room | {"appendonly": "no"}, 0))
    return [server for server in servers
            if not options.chosen or server[0].split(",")[0] in options.chosen]


def start_all(setup, rows, folder, options):
    """The servers of a setup, filled and stopped."""
    started = []
    try:
        for name, kind, binary, settings, shards in wanted(setup, rows, options):
            contender = start(name, kind, binary, settings, folder, setup)
            started.append(contender)
            contender.shards = shards
            fill(contender, setup, rows, options)
            if contender.faults:
                slow_down(contender, setup.sync_ms)
            contender.pause()
    except BaseException:
        close_all(started)
        raise
    if not started:
        raise SystemExit("no server is left to be measured")
    return started


def close_all(started):
    """Ends all of them, whatever happens to one."""
    for contender in started:
        contender.close()


def start(name, kind, binary, settings, folder, setup):
    """Starts a server; with a slow disk below it if the setup says so."""
    # A peer may be called by its path.
    prefix = Path(name.split(",")[0]).name + "-"
    place = Path(tempfile.mkdtemp(prefix=prefix, dir=folder)).resolve()
    faults = Faults() if setup.sync_ms else None
    server = Server(kind=kind, binary=binary, options=settings, folder=place,
                    prefix=faults.prefix(place / "data") if faults else ())
    try:
        server.start()
    except BaseException:
        server.close()
        shutil.rmtree(place, ignore_errors=True)
        if faults:
            faults.close()
        raise
    return Contender(name, server, faults=faults)


def slow_down(contender, sync_ms):
    """Every sync of the log takes longer: a direct write of tallyman's, a peer's fdatasync."""
    if contender.is_peer():
        contender.faults.arm([SYNC], [STORE], times=-1, delay_us=sync_ms * 1000)
    else:
        contender.faults.arm([WRITE], [LOG], times=-1, delay_us=sync_ms * 1000, growing=-1)


def fill(contender, setup, rows, options):
    """Sets every key that the workloads draw, so that reads find them; then nothing is pending."""
    port = contender.server.port
    keys = setup.keys
    with Wire(port, timeout=FILL_SECONDS_MAX) as wire:
        command(wire, "CONFIG", "SET", "appendfsync", "no")
        for prefix in setup.filled:
            value = "0" if prefix == "counter" else "xxx"
            words = f" {prefix}:{{rand}} {value}" * FILL_KEYS_PER_COMMAND
            run_load(port, "MSET" + words, -(-keys // FILL_KEYS_PER_COMMAND), keys, options)
        for template in dict.fromkeys(template for row in rows for template in row.setup):
            run_load(port, template, keys, keys, options)
        command(wire, "CONFIG", "SET", "appendfsync", setup.fsync)
        if not contender.is_peer():
            command(wire, "SAVE")
    contender.tidy()


def command(wire, *words):
    """One command that must not fail."""
    reply = wire.call(*words)
    if isinstance(reply, Error):
        raise SystemExit(f"{' '.join(words)}: {reply}")


def run_load(port, template, count, keys, options):
    """Sends a template so many times, with numbers that count up."""
    line = [options.load, "--port", str(port), "--workload", template, "--count", str(count),
            "--keys", str(keys), "--clients", str(FILL_CLIENTS), "--pipeline", "16",
            "--sequential", "--json", "-"]
    done = subprocess.run(line, capture_output=True, text=True, check=False,
                          timeout=FILL_SECONDS_MAX)
    if done.returncode:
        raise SystemExit(f"filling failed: {template[:60]}: {done.stderr}{done.stdout[:2000]}")
