"""`tallyman check`, `tallyman backup` and BACKUP with the real binary."""

import hashlib
import os
import shutil
import struct
import subprocess
import threading
from pathlib import Path

import pytest

from harness.server import Server, StartFailed, tallyman_path
from harness.wire import Closed, Error, Wire

pytestmark = pytest.mark.tallyman_only

PIPELINE = 50
# Small ones, so that checkpoints, trims and compaction fall into the backups.
BUSY = {"shards": 2, "checkpoint-size": "1mb", "log-segment-size": "1mb"}


def tool(*arguments):
    """Runs the program; returns the exit code, standard output and standard error."""
    done = subprocess.run([tallyman_path(), *map(str, arguments)], capture_output=True, text=True,
                          timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def fingerprint(folder):
    """Every file below a folder with a hash of its bytes and its time of change."""
    return {str(path.relative_to(folder)):
            (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
            for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def keys_in(text):
    return int(text.split("keys: ")[1].split("\n")[0])


def fill(port):
    with Wire(port) as wire:
        wire.call("MSET", *[part for i in range(5000) for part in (f"key:{i}", i)])
        wire.call("HSET", "h", *[part for i in range(500) for part in (f"f{i}", "x")])
        wire.call("SAVE")
        wire.call("DEL", "key:0", "h")
        wire.call("SET", "with-ttl", "x", "EX", "1000")
        wire.call("SETIFIDLE", "state", "busy", "PX", "60000")
        wire.call("SELECT", "3")
        wire.call("SET", "three", "3")
        wire.call("FLUSHDB")
        wire.call("SET", "four", "4")


def test_check_counts_and_changes_nothing():
    with Server(options={"shards": 2}) as server:
        fill(server.port)
        server.kill9()
        data = server.folder / "data"
        before = fingerprint(data)
        code, out, err = tool("check", data)
        assert (code, err) == (0, "")
        assert keys_in(out) == 4999 + 3
        assert fingerprint(data) == before
        server.start()
        assert server.stop() == 0
        code, out, _ = tool("check", data)
        assert (code, keys_in(out)) == (0, 4999 + 3)
        assert "log: 0 batches" in out


def test_check_refuses_a_folder_in_use_and_one_that_is_none():
    with Server() as server:
        code, out, err = tool("check", server.folder / "data")
        assert (code, out) == (1, "")
        assert f"in use by process {server.pid}" in err
    code, _, err = tool("check", "/nonexistent")
    assert code == 1 and "there is no such folder" in err


def live_segments(log):
    """The segments in use, in the order of their numbers."""
    number = {path: struct.unpack("<Q", path.read_bytes()[24:32])[0]
              for path in log.glob("segment-*")}
    return sorted((path for path in number if number[path]), key=number.get)


def lost_files(log):
    """Ways to lose a part of a log: what it is called, and how."""
    def remove(paths):
        for path in paths:
            path.unlink()

    live = live_segments(log)
    yield "half of the last segment", lambda: os.truncate(live[-1], 512 * 1024)
    yield "all of it but its header", lambda: os.truncate(live[-1], 4096)
    yield "the last segment", lambda: remove(live[-1:])
    yield "the last three", lambda: remove(live[-3:])
    yield "all segments", lambda: remove(log.glob("segment-*"))
    yield "everything", lambda: remove(log.iterdir())
    yield "the head", lambda: remove([log / "HEAD"])


def test_a_log_that_lost_a_file_is_refused(tmp_path):
    options = {"shards": 2, "log-segment-size": "1mb"}
    with Server(options=options) as server:
        with Wire(server.port) as wire:
            for start in range(0, 2500, 10):
                wire.pipeline([("SET", f"key:{i}", "x" * 1000) for i in range(start, start + 10)])
        server.kill9()
        cases = len(list(lost_files(server.folder / "data" / "log")))
        for case in range(cases):
            folder = tmp_path / str(case)
            shutil.copytree(server.folder / "data", folder / "data")
            what, lose = list(lost_files(folder / "data" / "log"))[case]
            lose()
            code, out, err = tool("check", folder / "data")
            assert (code, out) == (1, "") and "restore the" in err, what
            broken = Server(options=options, folder=folder)
            with pytest.raises(StartFailed, match="acknowledged writes may be lost"):
                broken.start()
            broken.close()
        assert cases == 7
        server.start()
        with Wire(server.port) as wire:
            assert wire.call("DBSIZE") == 2500


def test_check_names_the_file_and_the_offset_of_a_fault():
    with Server(options={"shards": 2}) as server:
        fill(server.port)
        server.kill9()
        data = server.folder / "data"
        table = max((data / "store/keyspaces/1/tables").iterdir(), key=lambda f: f.stat().st_size)
        log = live_segments(data / "log")[0]
        for path, at in ((table, table.stat().st_size // 2), (log, 4096 + 30)):
            kept = path.read_bytes()
            path.write_bytes(kept[:at] + bytes([kept[at] ^ 1]) + kept[at + 1:])
            code, out, err = tool("check", data)
            assert (code, out) == (1, "")
            assert str(path) in err and "offset" in err
            path.write_bytes(kept)
        assert tool("check", data)[0] == 0


class Load(threading.Thread):
    """One connection that counts a counter of its own up, with new keys beside it."""

    def __init__(self, port, number):
        super().__init__(daemon=True)
        self.port, self.number = port, number
        self.acknowledged, self.sent, self.stopping = 0, 0, False

    def run(self):
        try:
            with Wire(self.port, timeout=60) as wire:
                while not self.stopping:
                    batch = [call for step in range(PIPELINE) for call in (
                        ("INCR", f"count:{self.number}"),
                        ("SET", f"new:{self.number}:{self.sent + step}", "x" * 200))]
                    self.sent += PIPELINE
                    for reply in wire.pipeline(batch):
                        assert not isinstance(reply, Error), reply
                    self.acknowledged += PIPELINE
        except (Closed, OSError):
            pass


def check_copy(folder, loads, before, after):
    """A server on the copy has what was acknowledged before, and nothing that was never sent."""
    code, out, err = tool("check", folder)
    assert code == 0, err
    with Server(options={"dir": str(folder)}) as server:
        with Wire(server.port, timeout=60) as wire:
            keys = 0
            for load in loads:
                count = int(wire.call("GET", f"count:{load.number}") or 0)
                low, high = before[load.number], after[load.number]
                assert low <= count <= high, (low, count, high)
                acknowledged = [f"new:{load.number}:{i}" for i in range(low)]
                assert not acknowledged or wire.call("EXISTS", *acknowledged) == low
                keys += count + (count > 0)
            size = wire.call("DBSIZE")
            # Of a pipeline on its way, one shard's part may be in the copy without another's.
            assert abs(keys - size) <= PIPELINE * len(loads), (keys, size)
            assert keys_in(out) == size
            wire.call("SET", "written-on", "1")
        assert server.stop() == 0


@pytest.mark.parametrize("how", ["tool", "command"])
def test_backups_under_load_have_what_was_acknowledged(how, tmp_path):
    options = BUSY | {"backup-dir": str(tmp_path)}
    with Server(options=options) as server:
        loads = [Load(server.port, number) for number in range(4)]
        for load in loads:
            load.start()
        try:
            for turn in range(4):
                target = tmp_path / f"copy{turn}"
                before = {load.number: load.acknowledged for load in loads}
                if how == "tool":
                    code, _, err = tool("backup", server.folder / "data", target)
                    assert code == 0, err
                else:
                    with Wire(server.port, timeout=120) as wire:
                        assert wire.call("BACKUP", target.name) == "OK"
                after = {load.number: load.sent for load in loads}
                check_copy(target, loads, before, after)
        finally:
            for load in loads:
                load.stopping = True
                load.join(timeout=60)
        assert all(load.acknowledged > 0 for load in loads)
        with Wire(server.port) as wire:
            for load in loads:
                assert int(wire.call("GET", f"count:{load.number}")) == load.acknowledged
        assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_backup_is_refused_where_nobody_allowed_it_and_never_overwrites(tmp_path):
    with Server() as server:
        with Wire(server.port) as wire:
            reply = wire.call("BACKUP", "a")
            assert isinstance(reply, Error) and "backup-dir" in str(reply)
    with Server(options={"backup-dir": str(tmp_path)}) as server:
        with Wire(server.port, timeout=60) as wire:
            assert wire.call("BACKUP", "a") == "OK"
            reply = wire.call("BACKUP", "a")
            assert isinstance(reply, Error) and "there is something already" in str(reply)
            assert isinstance(wire.call("BACKUP", "../b"), Error)
            assert isinstance(wire.call("CONFIG", "SET", "backup-dir", "/tmp"), Error)
    assert os.listdir(tmp_path) == ["a"]
