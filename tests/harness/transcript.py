"""Transcripts: commands and the replies that redis-cli prints for them.

A transcript file is read line by line:

    # text          a comment
    > SET a 1       a command, quoted as in redis-cli; `> @b GET a` sends it on connection b
    >u HKEYS a      the same, and the order of the reply's elements does not matter
    OK              the reply as redis-cli --no-raw prints it, recorded from redis-server 7.0
    3| OK           the reply in RESP3, where it differs
    T| OK           what tallyman answers where it differs from 7.0 on purpose (both protocols)
    T3| OK          the same in RESP3, where that differs from T
    why| text       the reason for T
    ~| regex        the reply is not fixed: it has to match this in full, on both servers
    * only tallyman       the whole file is about commands that redis-server does not have
    * flush               FLUSHALL
    * sleep 20            waits so many milliseconds

Recording replaces the plain and the `3|` lines and keeps everything else.
"""

import re
import time

from .wire import Double, Error, Map, Nil, Push, Set, Simple, Verbatim, Wire

SLEEP_MS_MAX = 2000
ESCAPES = {"n": 10, "r": 13, "t": 9, "b": 8, "a": 7}
PRINTED = {92: "\\\\", 34: '\\"', 10: "\\n", 13: "\\r", 9: "\\t", 7: "\\a", 8: "\\b"}


def split_arguments(text):
    """Splits a command line as redis-cli does; the arguments as bytes."""
    arguments, at = [], 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if at == len(text):
            return arguments
        argument, at = _one_argument(text, at)
        arguments.append(bytes(argument))


def _one_argument(text, at):
    out = bytearray()
    quote = ""
    while at < len(text):
        char = text[at]
        if quote == '"' and char == "\\" and at + 1 < len(text):
            taken, byte = _escape(text, at)
            out += byte
            at += taken
            continue
        if quote == "'" and text.startswith("\\'", at):
            out += b"'"
            at += 2
            continue
        if quote and char == quote:
            assert at + 1 == len(text) or text[at + 1].isspace(), f"unbalanced quotes: {text}"
            return out, at + 1
        if not quote and char.isspace():
            return out, at
        if not quote and char in "\"'":
            quote = char
        else:
            out += char.encode()
        at += 1
    assert not quote, f"unbalanced quotes: {text}"
    return out, at


def _escape(text, at):
    """The escape at `at`: how many characters it takes, and its bytes."""
    if re.match(r"\\x[0-9a-fA-F]{2}", text[at:at + 4]):
        return 4, bytes([int(text[at + 2:at + 4], 16)])
    char = text[at + 1]
    return 2, bytes([ESCAPES[char]]) if char in ESCAPES else char.encode()


def quote(raw):
    """Bytes as redis-cli prints them, in double quotes."""
    shown = (PRINTED.get(b) or (chr(b) if 32 <= b < 127 else f"\\x{b:02x}") for b in raw)
    return '"' + "".join(shown) + '"'


def printed(reply, prefix=""):
    """A reply as redis-cli prints it on a terminal, without the last line end."""
    if isinstance(reply, Error):
        return f"(error) {reply}"
    if isinstance(reply, Simple):
        return str(reply)
    if isinstance(reply, bool):
        return "(true)" if reply else "(false)"
    if isinstance(reply, Double):
        return f"(double) {reply.text}"
    if isinstance(reply, int):
        return f"(integer) {reply:d}"
    if isinstance(reply, bytes):
        return quote(reply)
    if isinstance(reply, Verbatim):
        return reply.text.decode(errors="replace")
    if isinstance(reply, Nil):
        return "(nil)"
    return _printed_list(reply, prefix)


def _printed_list(reply, prefix):
    mark, name = {Map: ("#", "hash"), Set: ("~", "set"), Push: (">", "push")}.get(
        type(reply), (")", "array"))
    if not reply:
        return f"(empty {name})"
    width = len(str(len(reply)))
    inner = prefix + " " * (width + 2)
    lines = []
    for index, item in enumerate(reply):
        head = f"{prefix if index else ''}{index + 1:{width}d}{mark} "
        if isinstance(reply, Map):
            key, value = item
            shown = printed(value, inner)
            below = f"\n{inner}" if "\n" in shown else ""
            lines.append(f"{head}{printed(key, inner)} => {below}{shown}")
        else:
            lines.append(head + printed(item, inner))
    return "\n".join(lines)


def elements(text):
    """The lines of a printed reply without their numbers."""
    return [re.sub(r"^ *(\d+[)#~] *)*", "", line) for line in text.split("\n")]


class Step:
    """One line of a transcript: a command with what is expected, or anything else."""

    def __init__(self, line, number):
        self.line = line
        self.number = number
        self.is_command = line.startswith(("> ", ">u "))
        self.unordered = line.startswith(">u ")
        self.tags = {"": [], "3": [], "T": [], "T3": [], "why": [], "~": []}
        self.connection, text = "", line[3 if self.unordered else 2:]
        if self.is_command and text.startswith("@"):
            self.connection, text = text[1:].split(" ", 1)
        self.text = text

    def expected(self, kind, protocol):
        """The reply expected from this kind of server, or a compiled pattern."""
        tags = self.tags
        if tags["~"]:
            return re.compile("\n".join(tags["~"]), re.DOTALL)
        order = ["3", ""] if protocol == 3 else [""]
        if kind == "tallyman":
            order = (["T3", "T"] if protocol == 3 else ["T"]) + order
        for tag in order:
            if tags[tag]:
                return "\n".join(tags[tag])
        return None

    def fits(self, kind, protocol, reply):
        """True when the reply is the expected one."""
        expected = self.expected(kind, protocol)
        if isinstance(expected, re.Pattern):
            return expected.fullmatch(reply) is not None
        if self.unordered and expected is not None:
            return sorted(elements(expected)) == sorted(elements(reply))
        return expected == reply

    def rendered(self):
        """The lines of the file for this step."""
        if not self.is_command:
            return [self.line]
        out = [self.line] + self.tags[""]
        for tag in ("3", "~", "T", "T3", "why"):
            out += [f"{tag}| {line}" for line in self.tags[tag]]
        return out


class Transcript:
    """A transcript file and its steps."""

    def __init__(self, path):
        self.path = path
        self.steps = []
        last = None
        for number, line in enumerate(path.read_text().splitlines(), 1):
            tagged = re.match(r"(3|T3|T|why|~)\| ?(.*)", line)
            if line.startswith(("> ", ">u ", "# ", "* ")) or line in ("", "#"):
                last = Step(line, number)
                self.steps.append(last)
            elif last is None or not last.is_command:
                raise SystemExit(f"{path}:{number}: a reply without a command")
            elif tagged:
                last.tags[tagged.group(1)].append(tagged.group(2))
            else:
                last.tags[""].append(line)
        lines = [step.line for step in self.steps]
        self.only_tallyman = "* only tallyman" in lines

    def play(self, port, protocol):
        """Runs the file; yields each command step and the printed reply."""
        wires = {"": Wire(port, protocol)}
        try:
            wires[""].call("SELECT", 0)
            wires[""].call("FLUSHALL")
            for step in self.steps:
                if step.is_command:
                    if step.connection not in wires:
                        wires[step.connection] = Wire(port, protocol)
                    wire = wires[step.connection]
                    yield step, printed(wire.call(*split_arguments(step.text)))
                elif step.line == "* flush":
                    wires[""].call("FLUSHALL")
                elif step.line.startswith("* sleep "):
                    time.sleep(min(int(step.line[8:]), SLEEP_MS_MAX) / 1000)
        finally:
            for wire in wires.values():
                wire.close()

    def record(self, port):
        """Replaces the recorded replies by what this server answers now."""
        for protocol in (2, 3):
            for step, reply in self.play(port, protocol):
                if step.tags["~"]:
                    step.tags[""] = step.tags["3"] = []
                elif protocol == 2:
                    step.tags[""], step.tags["3"] = reply.split("\n"), []
                elif reply != "\n".join(step.tags[""]):
                    step.tags["3"] = reply.split("\n")
        lines = [line for step in self.steps for line in step.rendered()]
        self.path.write_text("\n".join(lines) + "\n")
