"""A plain Redis-protocol client for tests: RESP2 and RESP3, nothing hidden, nothing retried.

Replies keep their wire type, so that a test can tell `:1` from `#t` and `$-1` from `_`:
`Simple` and `Error` are text, `bytes` is a bulk string, `Nil` says which null it was, and
`Push`, `Set`, `Map`, `Verbatim`, `Big` are the RESP3 kinds.
"""

import socket
from dataclasses import dataclass

REPLY_DEPTH_MAX = 32


class Simple(str):
    """`+text`"""


class Error(str):
    """`-text`"""


class Big(int):
    """`(digits`"""


class Push(list):
    """`>n`"""


class Set(list):
    """`~n`, in the order sent"""


class Map(list):
    """`%n`: a list of pairs, in the order sent"""


class Double(float):
    """`,text`, the text kept in `.text`"""

    def __new__(cls, text):
        value = super().__new__(cls, text)
        value.text = text
        return value


@dataclass(frozen=True)
class Nil:
    """A null: `kind` is `$`, `*` or `_`."""

    kind: str

    def __bool__(self):
        return False


@dataclass(frozen=True)
class Verbatim:
    """`=n fmt:text`"""

    form: bytes
    text: bytes


class Closed(Exception):
    """The server closed the connection."""


def encode(*arguments):
    """A request as an array of bulk strings; str, int and float arguments are turned to text."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        raw = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(raw), raw))
    return b"".join(parts)


class Wire:
    """One connection. `call` sends a command and returns its reply."""

    def __init__(self, port, protocol=2, timeout=10.0):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.at = 0
        if protocol == 3:
            self.call("HELLO", "3")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, raw):
        """Raw bytes."""
        self.socket.sendall(raw)

    def call(self, *arguments):
        """One command, one reply (pushes that come first are skipped)."""
        self.send(encode(*arguments))
        while True:
            reply = self.read()
            if not isinstance(reply, Push):
                return reply

    def info(self, section="everything"):
        """The fields of INFO, as text."""
        text = self.call("INFO", section).decode()
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def pipeline(self, commands):
        """All commands in one write; the list of their replies."""
        self.send(b"".join(encode(*command) for command in commands))
        return [self.read() for _ in commands]

    def closed_by_peer(self, seconds=10.0):
        """True when the server closes within the time; what it sends before is dropped."""
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(65536):
                pass
            return True
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def read(self, depth=0):
        """The next reply, however deep."""
        assert depth < REPLY_DEPTH_MAX, "reply nested too deeply"
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return Simple(rest.decode(errors="surrogateescape"))
        if kind == b"-":
            return Error(rest.decode(errors="surrogateescape"))
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return Nil("$") if rest == b"-1" else self._bulk(int(rest))
        if kind == b"_":
            return Nil("_")
        if kind == b"#":
            return {b"t": True, b"f": False}[rest]
        if kind == b",":
            return Double(rest.decode())
        if kind == b"(":
            return Big(rest)
        if kind == b"!":
            return Error(self._bulk(int(rest)).decode(errors="surrogateescape"))
        if kind == b"=":
            body = self._bulk(int(rest))
            return Verbatim(body[:3], body[4:])
        if kind == b"*" and rest == b"-1":
            return Nil("*")
        if kind in (b"*", b"~", b">"):
            items = [self.read(depth + 1) for _ in range(int(rest))]
            return {b"*": list, b"~": Set, b">": Push}[kind](items)
        if kind == b"%":
            return Map((self.read(depth + 1), self.read(depth + 1)) for _ in range(int(rest)))
        raise AssertionError(f"not a reply: {line!r}")

    def _fill(self):
        if self.at > 1 << 16:
            del self.buffer[: self.at]
            self.at = 0
        more = self.socket.recv(1 << 16)
        if not more:
            raise Closed()
        self.buffer += more

    def _line(self):
        while True:
            end = self.buffer.find(b"\r\n", self.at)
            if end >= 0:
                line = bytes(self.buffer[self.at:end])
                self.at = end + 2
                return line
            self._fill()

    def _bulk(self, length):
        while len(self.buffer) < self.at + length + 2:
            self._fill()
        body = bytes(self.buffer[self.at:self.at + length])
        assert self.buffer[self.at + length:self.at + length + 2] == b"\r\n"
        self.at += length + 2
        return body
