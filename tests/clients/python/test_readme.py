"""The README's examples: what it shows is what redis-cli prints. Only tokens are other numbers, and
milliseconds pass."""

import re
import subprocess
from pathlib import Path

import pytest
from harness.server import Server

README = Path(__file__).resolve().parents[3] / "README.md"
SECONDS_MAX = 120
# A number from here on stands for a token; where it comes up again, it is the same token.
TOKEN_MIN = 2**22
# So many milliseconds may have passed where the README shows some.
MS_PASSED_MAX = 5_000

pytestmark = pytest.mark.tallyman_only


def test_every_example_prints_what_it_shows():
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", README.read_text(), re.M | re.S)
    shown, tokens = 0, {}
    with Server(options={"shards": 2}) as server:
        for (kind, text), (_, answer) in zip(blocks, blocks[1:] + [("", "")]):
            if kind == "redis":
                for written, token in tokens.items():
                    text = text.replace(str(written), str(token))
                printed = cli(server, text)
                assert as_written(printed, answer, tokens) == answer, text
                shown += 1
            elif "kill -9" in text:
                server.kill9()
                server.start()
            elif "redis-benchmark" in text:
                line = text.replace("redis-benchmark", f"redis-benchmark -p {server.port}")
                subprocess.run(line, shell=True, check=True, capture_output=True,
                               timeout=SECONDS_MAX)
    assert shown > 15 and len(tokens) > 5


def as_written(printed, answer, tokens):
    """What was printed, with the README's tokens, milliseconds and durations."""
    lines = printed.splitlines(keepends=True)
    for at, (line, shown) in enumerate(zip(lines, answer.splitlines(keepends=True))):
        if all(re.fullmatch(r"\(\d+\.\d+s\)\n", text) for text in (line, shown)):
            lines[at] = shown
            continue
        numbers = [re.search(r"^(.*\(integer\) )(\d+)$", text) for text in (line, shown)]
        if not all(numbers):
            continue
        is_, should = (int(number[2]) for number in numbers)
        if TOKEN_MIN <= should < 10_000_000:
            fits = tokens.setdefault(should, is_) == is_
        else:
            fits = 1_000 <= should and should - MS_PASSED_MAX <= is_ <= should
        if fits:
            lines[at] = shown
    return "".join(lines)


def cli(server, lines):
    done = subprocess.run(["redis-cli", "--no-raw", "-p", str(server.port)], input=lines,
                          capture_output=True, text=True, timeout=SECONDS_MAX, check=True)
    return done.stdout
