"""redis-cli and redis-benchmark against the server."""

import os
import re
import socket
import subprocess

import pytest

SECONDS_MAX = 120


def cli(server, *arguments, protocol=2, stdin=None, code=0):
    line = ["redis-cli", "-p", str(server.port)] + (["-3"] if protocol == 3 else [])
    done = subprocess.run(line + list(arguments), input=stdin, capture_output=True,
                          timeout=SECONDS_MAX, check=False)
    assert done.returncode == code, done.stderr.decode() + done.stdout.decode()
    return done.stdout.decode(errors="replace")


def test_single_commands(server, protocol):
    assert cli(server, "SET", "a", "1", protocol=protocol) == "OK\n"
    assert cli(server, "INCR", "a", protocol=protocol) == "2\n"
    assert cli(server, "--no-raw", "INCR", "a", protocol=protocol) == "(integer) 3\n"
    assert cli(server, "--no-raw", "GET", "nothing", protocol=protocol) == "(nil)\n"
    assert cli(server, "--json", "-3", "MGET", "a", "nothing") == '["3",null]\n'
    assert cli(server, "--csv", "MGET", "a", "nothing") == '"3",NULL\n'
    assert cli(server, "-n", "2", "EXISTS", "a") == "0\n"
    assert cli(server, "-x", "SET", "a", stdin=b"from stdin") == "OK\n"
    assert cli(server, "GET", "a") == "from stdin\n"
    assert cli(server, "-r", "5", "INCR", "n") == "1\n2\n3\n4\n5\n"
    assert "redis_version" in cli(server, "INFO", protocol=protocol)


def test_commands_from_a_file(server):
    out = cli(server, stdin=b"SET a 5\nINCR a\nMGET a b\n")
    assert out == "OK\n6\n6\n\n"


def test_the_transcripts_print_as_redis_cli_does(server, protocol):
    """The printer of tests/harness/transcript.py is checked against redis-cli itself."""
    from harness.transcript import printed, split_arguments
    from harness.wire import Wire
    lines = ["PING", "INCR n", 'SET s "a\\x00\\r\\n\\"\\\\\\a\xff"', "GET s", "GET none",
             "MGET s none n", "NOSUCH a", "CONFIG GET appendfs*", "COMMAND INFO get mget",
             "COMMAND GETKEYSANDFLAGS SET a 1 GET", "COMMAND DOCS getdel", "KEYS nothing*",
             "COMMAND DOCS nosuch", "SCAN 0"]
    with Wire(server.port, protocol) as wire:
        for line in lines:
            ours = printed(wire.call(*split_arguments(line)))
            if line == "INCR n":
                wire.call("DECR", "n")
            theirs = cli(server, "--no-raw", protocol=protocol, stdin=line.encode() + b"\n")
            assert theirs == ours + "\n", line


def test_mass_insertion_with_pipe(server):
    raw = b"".join(b"*3\r\n$3\r\nSET\r\n$8\r\nk%07d\r\n$5\r\nv%04d\r\n" % (i, i % 10_000)
                   for i in range(100_000))
    out = cli(server, "--pipe", stdin=raw)
    assert "errors: 0, replies: 100000" in out
    assert cli(server, "DBSIZE") == "100000\n"
    assert cli(server, "GET", "k0054321") == "v4321\n"
    out = cli(server, "--pipe", stdin=b"INCR k0000001\r\nINCR n\r\nINCR n\r\n", code=1)
    assert "errors: 1, replies: 3" in out


def test_scan(server):
    commands = "".join(f"SET key:{i} v\n" for i in range(3000))
    cli(server, stdin=commands.encode())
    assert len(set(cli(server, "--scan").split())) == 3000
    found = cli(server, "--scan", "--pattern", "key:2?9").split()
    assert sorted(found) == sorted(f"key:2{i}9" for i in range(10))


def test_bigkeys_and_memkeys(server):
    cli(server, stdin=b"SET small 1\nSET large 0123456789012345678901234567890123456789\n")
    out = cli(server, "--bigkeys")
    assert "Sampled 2 keys" in out and """'"large"' has 40 bytes""" in out
    assert "Sampled 2 keys" in cli(server, "--memkeys")


def test_latency_and_stat_modes_end(server):
    line = ["redis-cli", "-p", str(server.port), "--raw", "--latency", "-i", "1"]
    done = subprocess.run(line, capture_output=True, timeout=SECONDS_MAX, check=False,
                          stdin=subprocess.DEVNULL)
    assert re.match(rb"\d+ \d+ [\d.]+ \d+", done.stdout)


def test_inline_over_a_plain_socket(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
        plain.sendall(b"set greeting hello\nget greeting\nquit\n")
        out = b""
        while more := plain.recv(4096):
            out += more
    assert out == b"+OK\r\n$5\r\nhello\r\n+OK\r\n"


def benchmark(server, *arguments):
    count = os.environ.get("TALLYMAN_BENCHMARK_REQUESTS", "20000")
    line = ["redis-benchmark", "-p", str(server.port), "--csv", "-n", count, *arguments]
    done = subprocess.run(line, capture_output=True, timeout=SECONDS_MAX, check=False)
    out = done.stdout.decode()
    assert done.returncode == 0, done.stderr.decode() + out
    assert "rror" not in done.stderr.decode(), done.stderr.decode()
    return [row.split(",")[0].strip('"') for row in out.splitlines()[1:]]


@pytest.mark.parametrize("pipeline", ["1", "16"])
def test_redis_benchmark(server, pipeline):
    tests = "ping,set,get,incr,mset"
    names = benchmark(server, "-t", tests, "-P", pipeline, "-r", "10000")
    assert names == ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"]


def test_redis_benchmark_with_500_clients_and_one_hot_key(server):
    assert benchmark(server, "-t", "incr", "-c", "500", "-P", "16") == ["INCR"]
    assert int(cli(server, "GET", "counter:__rand_int__")) >= 1
