"""The README's examples: what it shows is what redis-cli prints."""

import re
import subprocess
from pathlib import Path

import pytest
from harness.server import Server

README = Path(__file__).resolve().parents[3] / "README.md"
SECONDS_MAX = 120

pytestmark = pytest.mark.tallyman_only


def test_every_example_prints_what_it_shows():
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", README.read_text(), re.M | re.S)
    shown = 0
    with Server(options={"shards": 2}) as server:
        for (kind, text), (_, answer) in zip(blocks, blocks[1:] + [("", "")]):
            if kind == "redis":
                assert cli(server, text) == answer, text
                shown += 1
            elif "kill -9" in text:
                server.kill9()
                server.start()
            elif "redis-benchmark" in text:
                line = text.replace("redis-benchmark", f"redis-benchmark -p {server.port}")
                subprocess.run(line, shell=True, check=True, capture_output=True,
                               timeout=SECONDS_MAX)
    assert shown > 5


def cli(server, lines):
    done = subprocess.run(["redis-cli", "--no-raw", "-p", str(server.port)], input=lines,
                          capture_output=True, text=True, timeout=SECONDS_MAX, check=True)
    return done.stdout
