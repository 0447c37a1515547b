"""Starts a server for a test on a free loopback port and ends it again.

The server under test is tallyman (`TALLYMAN_BIN`, or the debug build), or redis-server when
`TALLYMAN_SERVER=redis`: the tests themselves are validated against the original this way.

Always true here: only processes started here are ended, by their process id; the port is never
6379; data lies in a temporary folder that goes with the server; every wait has a bound.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60
READY_PORT = re.compile(r"127\.0\.0\.1:(\d+)")


def kind_under_test():
    """`tallyman` or `redis`, as the environment says."""
    kind = os.environ.get("TALLYMAN_SERVER", "tallyman")
    if kind not in ("tallyman", "redis"):
        raise SystemExit(f"TALLYMAN_SERVER: {kind!r} is neither tallyman nor redis")
    return kind


def tallyman_path():
    """The binary under test."""
    if "TALLYMAN_BIN" in os.environ:
        return os.environ["TALLYMAN_BIN"]
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return str(target / "debug" / "tallyman")


def free_port():
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class StartFailed(Exception):
    """The server ended, or did not get ready in time; the text holds its last output."""


class Server:
    """One server process and its data folder.

    `options` is a dict of command-line options without dashes (`{"appendfsync": "no"}`).
    The folder survives `kill9` and `stop`, so `start` recovers from it; `close` removes it.
    """

    def __init__(self, kind=None, binary=None, options=None, folder=None, prefix=()):
        self.kind = kind or kind_under_test()
        default = "redis-server" if self.kind == "redis" else tallyman_path()
        self.binary = binary or default
        self.options = dict(options or {})
        self.prefix = list(prefix)
        self.own_folder = folder is None
        self.folder = Path(folder or tempfile.mkdtemp(prefix="tallyman-test-"))
        self.log_path = self.folder / "server.log"
        self.process = None
        self.port = 0
        self.ready_line = ""
        self.ready_seconds = 0.0

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()

    @property
    def pid(self):
        return self.process.pid

    def command_line(self):
        """The process arguments; options that the other kind does not have are left out."""
        options = {"port": "0", "dir": str(self.folder / "data")}
        if self.kind == "redis":
            (self.folder / "data").mkdir(exist_ok=True)
            options |= {"port": str(free_port()), "bind": "127.0.0.1", "save": "",
                        "appendonly": "yes", "appendfsync": "always",
                        "enable-debug-command": "yes"}
        elif "TALLYMAN_MAXMEMORY" in os.environ:
            options["maxmemory"] = os.environ["TALLYMAN_MAXMEMORY"]
        options |= self.options
        if self.kind == "redis":
            options.pop("shards", None)
        line = self.prefix + [self.binary]
        for name, value in options.items():
            line += [f"--{name}", str(value)]
        return line

    def start(self):
        """Starts the process and waits until it answers PING."""
        begun = time.monotonic()
        self.begin()
        if self.kind == "tallyman":
            self._wait_for_port(begun)
        self._wait_for_ping(begun)
        self.ready_seconds = time.monotonic() - begun
        return self

    def begin(self):
        """Starts the process and waits for nothing."""
        assert self.process is None, "already running"
        self.log = open(self.log_path, "ab")
        line = self.command_line()
        try:
            self.process = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log,
                cwd=self.folder)
        except OSError as error:
            raise StartFailed(f"{self.binary}: {error}") from error
        self.lines = []
        self.port_seen = threading.Event()
        self.reader = threading.Thread(target=self._read_stdout, daemon=True)
        self.reader.start()
        if self.kind == "redis":
            self.port = int(line[line.index("--port") + 1])

    def _read_stdout(self):
        for raw in self.process.stdout:
            self.log.write(raw)
            self.log.flush()
            text = raw.decode(errors="replace")
            found = READY_PORT.search(text)
            if self.kind == "tallyman" and found and not self.port_seen.is_set():
                self.port = int(found.group(1))
                self.ready_line = text.strip()
                self.port_seen.set()

    def _wait_for_port(self, begun):
        while not self.port_seen.wait(0.02):
            self._fail_if_over(begun, "no ready line with 127.0.0.1:PORT on stdout")

    def _wait_for_ping(self, begun):
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
                    probe.sendall(b"PING\r\n")
                    answer = probe.recv(64)
                    if answer.startswith((b"+PONG", b"-NOAUTH")):
                        return
            except OSError:
                pass
            self._fail_if_over(begun, f"no answer to PING on port {self.port}")
            time.sleep(0.01)

    def _fail_if_over(self, begun, what):
        ended = self.process.poll()
        if ended is not None:
            self.reader.join(timeout=5)
            tail = self.log_tail()
            self._forget()
            raise StartFailed(f"{self.binary} ended with {ended} before it was ready:\n{tail}")
        if time.monotonic() - begun > START_SECONDS_MAX:
            tail = self.log_tail()
            self.kill9()
            raise StartFailed(f"{what} within {START_SECONDS_MAX} s:\n{tail}")

    def log_tail(self, bytes_max=4000):
        """The end of what the server wrote on stdout and stderr."""
        text = self.log_path.read_bytes()[-bytes_max:]
        return text.decode(errors="replace")

    def memory_bytes(self, what="VmRSS"):
        """The process's resident memory: now, or as `VmHWM` the most that it ever was."""
        return self._proc("status", what) * 1024

    def written_bytes(self):
        """Bytes that the process caused to be written to the disk."""
        return self._proc("io", "write_bytes")

    def cpu_seconds(self):
        """User and system time of the process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _proc(self, file, name):
        """The number behind a name, as the kernel tells it of the process."""
        lines = Path(f"/proc/{self.pid}/{file}").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))

    def running(self):
        """True while the process has not ended."""
        return self.process is not None and self.process.poll() is None

    def kill9(self):
        """`kill -9`, and waits until the process is gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=STOP_SECONDS_MAX)
        self._forget()

    def stop(self):
        """SIGTERM; returns the exit code. Killed when it does not end in time."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise
        self._forget()
        return code

    def wait_end(self, seconds=STOP_SECONDS_MAX):
        """Waits for a process that ends by itself; returns the exit code."""
        code = self.process.wait(timeout=seconds)
        self._forget()
        return code

    def _forget(self):
        self.reader.join(timeout=5)
        self.process.stdout.close()
        self.log.close()
        self.process = None

    def close(self):
        """Ends the process if it runs and removes the folder."""
        if self.process is not None:
            if self.process.poll() is None:
                self.kill9()
            else:
                self._forget()
        if self.own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)
