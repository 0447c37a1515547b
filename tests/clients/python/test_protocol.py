"""The protocol by hand: split requests, inline commands, garbage, silence. Others go on."""

import os
import random
import socket
import time

import pytest

from harness.wire import Closed, Error, Nil, Wire, encode

MIXED = [("PING",), ("SET", "key", "va\r\nlue"), ("GET", "key"), ("MGET", "key", "none"),
         ("INCR", "n"), ("NOSUCH", "x"), ("DEL", "key", "n"), ("ECHO", "")]


def answers(wire, raw_parts, count):
    for part in raw_parts:
        wire.send(part)
        time.sleep(0.0004)
    return [wire.read() for _ in range(count)]


def test_requests_split_at_every_byte(server, protocol):
    raw = b"".join(encode(*command) for command in MIXED)
    with Wire(server.port, protocol) as wire:
        expected = answers(wire, [raw], len(MIXED))
        assert expected[0] == "PONG" and expected[2] == b"va\r\nlue"
        for at in range(1, len(raw)):
            assert answers(wire, [raw[:at], raw[at:]], len(MIXED)) == expected, f"split at {at}"


def test_requests_sent_byte_by_byte(wire):
    raw = b"".join(encode(*command) for command in MIXED)
    expected = answers(wire, [raw], len(MIXED))
    assert answers(wire, [bytes([b]) for b in raw], len(MIXED)) == expected


def test_inline_commands(wire):
    wire.send(b"PING\r\n")
    assert wire.read() == "PONG"
    wire.send(b"SET inline 'a b' \r\n  GET   inline\r\nPING\n")
    assert [wire.read() for _ in range(3)] == ["OK", b"a b", "PONG"]
    wire.send(b'SET inline "x\\x00\\n\\"y\\""\r\nGET inline\r\n')
    assert [wire.read() for _ in range(2)] == ["OK", b'x\x00\n"y"']
    wire.send(b"\r\n\r\n   \r\nPING\r\n")
    assert wire.read() == "PONG"
    wire.send(b"PING\r\n*1\r\n$4\r\nPING\r\nPING\r\n")
    assert [wire.read() for _ in range(3)] == ["PONG"] * 3


def test_empty_requests_are_skipped(wire):
    wire.send(b"*0\r\n*-1\r\n*1\r\n$4\r\nPING\r\n")
    assert wire.read() == "PONG"


BROKEN = [
    (b"*1\r\n:1\r\n", "expected '$', got ':'"),
    (b"*abc\r\n", "invalid multibulk length"),
    (b"*2147483648\r\n", "invalid multibulk length"),
    (b"*99999999999999999999\r\n", "invalid multibulk length"),
    (b"*1\r\n$abc\r\n", "invalid bulk length"),
    (b"*1\r\n$-1\r\n", "invalid bulk length"),
    (b"*1\r\n$-5\r\n", "invalid bulk length"),
    (b"*1\r\n$99999999999\r\n", "invalid bulk length"),
    (b"*1\r\n$536870913\r\n", "invalid bulk length"),
    (b"*1\r\n*1\r\n$4\r\nPING\r\n", "expected '$', got '*'"),
    (b"*2\r\n$3\r\nGET\r\n+x\r\n", "expected '$', got '+'"),
    (b"SET 'unbalanced\r\n", "unbalanced quotes in request"),
    (b'SET "a"b c\r\n', "unbalanced quotes in request"),
    (b"x" * 70_000, "too big inline request"),
    (b"*" + b"1" * 70_000, "too big mbulk count string"),
    (b"*1\r\n$" + b"1" * 70_000, "too big bulk count string"),
]


@pytest.mark.parametrize("raw, text", BROKEN, ids=[text + str(i) for i, (_, text)
                                                   in enumerate(BROKEN)])
def test_a_protocol_error_is_told_and_closes_only_its_connection(server, raw, text):
    with Wire(server.port) as other, Wire(server.port) as wire:
        wire.send(encode("SET", "before", "1") + raw)
        assert wire.read() == "OK"
        reply = wire.read()
        assert isinstance(reply, Error) and reply.startswith("ERR Protocol error: "), reply
        assert text in reply
        assert wire.closed_by_peer()
        assert other.call("GET", "before") == b"1"


def test_nothing_behind_a_protocol_error_is_run(server):
    with Wire(server.port) as wire, Wire(server.port) as other:
        wire.send(b"*1\r\n:1\r\n" + encode("SET", "after", "1"))
        assert wire.closed_by_peer()
        assert other.call("EXISTS", "after") == 0


@pytest.mark.tallyman_only
def test_a_bulk_without_its_line_end_is_refused(server):
    with Wire(server.port) as wire:
        wire.send(b"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n")
        assert isinstance(wire.read(), Error)
        assert wire.closed_by_peer()


def test_nested_arrays_are_refused(server):
    with Wire(server.port) as wire:
        try:
            wire.send(b"*1\r\n" * 100_000)
        except ConnectionError:
            pass
        assert wire.closed_by_peer()
    with Wire(server.port) as wire:
        assert wire.call("PING") == "PONG"


def test_ten_megabytes_of_garbage(server):
    seed = 20240607
    rng = random.Random(seed)
    garbage = [rng.randbytes(10 << 20), b"\x00" * (10 << 20), b"*" * (10 << 20),
               b"$" * (10 << 20), b"\r\n" * (5 << 20), (b"*1\r\n$1\r\n" * (2 << 20))[:10 << 20]]
    with Wire(server.port) as other:
        other.call("SET", "kept", "1")
        for raw in garbage:
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as wild:
                try:
                    wild.sendall(raw)
                    wild.shutdown(socket.SHUT_WR)
                    for _ in range(100_000):
                        if not wild.recv(1 << 16):
                            break
                except OSError:
                    pass
            assert other.call("GET", "kept") == b"1"
            assert other.call("PING") == "PONG"


def test_random_bytes_behind_valid_starts(server):
    rng = random.Random(int(os.environ.get("TALLYMAN_SEED", "99")))
    starts = [b"*", b"*1\r\n$", b"*3\r\n$3\r\nSET\r\n", b"PING ", b"*2\r\n$3\r\nGET\r\n$5\r\n"]
    for _ in range(200):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as wild:
            try:
                wild.sendall(rng.choice(starts) + rng.randbytes(rng.randrange(200)))
            except OSError:
                pass
    with Wire(server.port) as wire:
        assert wire.call("PING") == "PONG"


def test_half_a_request_and_then_silence(server):
    halves = [b"*", b"*2\r\n$3\r\nGE", b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1000000\r\nabc", b"PIN"]
    silent = [Wire(server.port) for _ in range(20)]
    try:
        for index, wire in enumerate(silent):
            wire.send(halves[index % len(halves)])
        with Wire(server.port) as other:
            for index in range(200):
                assert other.call("INCR", "n") == index + 1
        silent[3].send(b"G\r\n")
        assert silent[3].read() == "PONG"
    finally:
        for wire in silent:
            wire.close()


def test_a_connection_cut_in_the_middle_of_its_pipeline(server):
    for _ in range(30):
        with Wire(server.port) as wire:
            wire.send(b"".join(encode("INCR", "n") for _ in range(100)) + b"*2\r\n$4\r\nIN")
    with Wire(server.port) as wire:
        for _ in range(200):
            if wire.call("GET", "n") == b"3000":
                return
            time.sleep(0.02)
        # What was read before the cut is run; nothing that was half sent is.
        assert int(wire.call("GET", "n")) <= 3000


def test_half_close_still_gets_its_replies(server):
    with Wire(server.port) as wire:
        wire.send(b"".join(encode("INCR", "n") for _ in range(500)))
        wire.socket.shutdown(socket.SHUT_WR)
        replies = []
        try:
            for _ in range(500):
                replies.append(wire.read())
        except Closed:
            pass
        assert replies == list(range(1, len(replies) + 1))


def test_a_client_that_never_reads_hurts_nobody(server):
    with Wire(server.port) as setup:
        setup.call("SET", "big", b"x" * 100_000)
    with Wire(server.port) as lazy, Wire(server.port) as other:
        lazy.socket.settimeout(1)
        try:
            for _ in range(2000):
                lazy.send(encode("GET", "big"))
        except OSError:
            pass
        for index in range(100):
            begun = time.monotonic()
            assert other.call("INCR", "n") == index + 1
            assert time.monotonic() - begun < 5


def test_resp3_types(server):
    with Wire(server.port, 3) as wire:
        assert wire.call("GET", "missing") == Nil("_")
        assert type(wire.call("CONFIG", "GET", "appendfsync")).__name__ == "Map"
        assert type(wire.call("INFO", "server")).__name__ == "Verbatim"
        assert wire.call("MGET", "missing", "gone") == [Nil("_"), Nil("_")]
    with Wire(server.port, 2) as wire:
        assert wire.call("GET", "missing") == Nil("$")
        assert wire.call("CONFIG", "GET", "appendfsync") == [b"appendfsync", b"always"]
        assert isinstance(wire.call("INFO", "server"), bytes)


def test_names_are_case_insensitive(wire):
    assert wire.call("sEt", "a", "1", "eX", "100") == "OK"
    assert wire.call("ttl", "a") in (99, 100)
    assert wire.call("CoNfIg", "gEt", "appendfsync")


def test_many_arguments(wire):
    keys = [f"k{i}" for i in range(100_000)]
    assert wire.call("DEL", *keys) == 0
    flat = [part for key in keys[:30_000] for part in (key, "v")]
    assert wire.call("MSET", *flat) == "OK"
    assert wire.call("EXISTS", *keys) == 30_000


def test_five_hundred_connections(server):
    wires = [Wire(server.port) for _ in range(500)]
    try:
        for wire in wires:
            wire.send(encode("INCR", "n") * 3)
        counted = sorted(wire.read() for wire in wires for _ in range(3))
        assert counted == list(range(1, 1501))
    finally:
        for wire in wires:
            wire.close()
