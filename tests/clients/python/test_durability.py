"""What a restart keeps, and what a start refuses."""

import signal
import subprocess
import time

import pytest

from harness.server import Server, StartFailed, tallyman_path
from harness.wire import Closed, Wire, encode


def fill(port):
    with Wire(port) as wire:
        wire.call("MSET", *[part for i in range(1000) for part in (f"key:{i}", i)])
        for _ in range(3):
            wire.pipeline([("INCR", f"counter:{i}") for i in range(300)])
        wire.call("SET", "with-ttl", "x", "EX", "1000")
        wire.call("SET", "short", "x", "PX", "1")
        wire.call("SET", b"bin\x00\xff", b"\r\n\x00")
        wire.call("DEL", "key:0", "key:1")
        wire.call("SELECT", "5")
        wire.call("SET", "in-five", "5")


def check(port):
    with Wire(port) as wire:
        # The key that expired around the stop may be counted for a moment.
        end = time.monotonic() + 2
        while wire.call("DBSIZE") != 998 + 300 + 2 and time.monotonic() < end:
            time.sleep(0.02)
        assert wire.call("DBSIZE") == 998 + 300 + 2
        assert wire.call("GET", "key:999") == b"999"
        assert not wire.call("GET", "key:0")
        assert wire.call("MGET", *[f"counter:{i}" for i in range(300)]) == [b"3"] * 300
        assert 900 <= wire.call("TTL", "with-ttl") <= 1000
        assert wire.call("GET", b"bin\x00\xff") == b"\r\n\x00"
        wire.call("SELECT", "5")
        assert wire.call("GET", "in-five") == b"5"
        assert wire.call("DBSIZE") == 1


@pytest.mark.parametrize("fsync", ["always", "everysec", "no"])
def test_a_clean_stop_keeps_everything_with_any_number_of_shards(fsync):
    with Server(options={"appendfsync": fsync, "shards": 2}) as server:
        fill(server.port)
        for shards in (1, 5, 3):
            time.sleep(0.01)
            assert server.stop() == 0
            server.options["shards"] = shards
            server.start()
            check(server.port)


def test_kill_9_keeps_every_acknowledged_write():
    with Server(options={"shards": 2}) as server:
        fill(server.port)
        for shards in (1, 4, 2):
            time.sleep(0.01)
            server.kill9()
            server.options["shards"] = shards
            server.start()
            check(server.port)


def woken_fields(wire):
    return int(wire.info("tallyman")["woken_fields"])


def test_a_large_hash_that_hibernates_is_read_field_by_field():
    fields = {f"field:{i}".encode(): str(i).encode() for i in range(20_000)}
    with Server(options={"shards": 2}) as server:
        with Wire(server.port) as wire:
            wire.call("HSET", "large", *[part for pair in fields.items() for part in pair])
        for kill in (False, True, False, True, True):
            server.kill9() if kill else server.stop()
            server.start()
            with Wire(server.port) as wire:
                assert wire.call("HINCRBY", "large", "field:7", 1) == int(fields[b"field:7"]) + 1
                fields[b"field:7"] = str(int(fields[b"field:7"]) + 1).encode()
                name, _ = fields.popitem()
                assert wire.call("HDEL", "large", name, "none") == 1
                calls = [("HGET", "large", f"field:{i}") for i in range(100, 150)]
                assert wire.pipeline(calls) == [str(i).encode() for i in range(100, 150)]
                wire.call("MULTI")
                wire.call("HSETNX", "large", "field:8", "x")
                wire.call("HEXISTS", "large", name)
                wire.call("HLEN", "large")
                assert wire.call("EXEC") == [0, 0, len(fields)]
                assert woken_fields(wire) <= 53
        with Wire(server.port) as wire:
            told = wire.call("HGETALL", "large")
            assert dict(zip(told[::2], told[1::2])) == fields
            assert wire.call("HPEXPIRE", "large", 1, "FIELDS", 1, "field:9") in ([1], [2])
            del fields[b"field:9"]
        server.stop()
        server.start()
        with Wire(server.port) as wire:
            assert wire.call("HLEN", "large") == len(fields)
            assert not wire.call("HGET", "large", "field:9")


def test_a_flush_stays_flushed():
    with Server() as server:
        fill(server.port)
        with Wire(server.port) as wire:
            wire.call("FLUSHALL")
            wire.call("SET", "only", "1")
        server.kill9()
        server.start()
        with Wire(server.port) as wire:
            assert wire.call("DBSIZE") == 1
            assert wire.call("KEYS", "*") == [b"only"]


def test_swapdb_survives():
    with Server() as server:
        with Wire(server.port) as wire:
            wire.call("SET", "a", "zero")
            wire.call("SWAPDB", "0", "1")
            wire.call("SET", "a", "new zero")
        server.kill9()
        server.start()
        with Wire(server.port) as wire:
            assert wire.call("GET", "a") == b"new zero"
            wire.call("SELECT", "1")
            assert wire.call("GET", "a") == b"zero"


def test_deadlines_that_pass_while_the_server_is_down():
    with Server() as server:
        with Wire(server.port) as wire:
            wire.call("SET", "a", "1", "PX", "300")
            wire.call("SET", "b", "1")
        server.kill9()
        time.sleep(0.4)
        server.start()
        with Wire(server.port) as wire:
            assert not wire.call("GET", "a")
            assert wire.call("EXISTS", "a", "b") == 1


def test_sigterm_answers_what_it_took_and_exits_zero():
    with Server() as server:
        with Wire(server.port) as wire:
            wire.send(b"".join(encode("INCR", "n") for _ in range(20_000)))
            assert wire.read() == 1
            server.process.send_signal(signal.SIGTERM)
            acknowledged = 1
            try:
                while acknowledged < 20_000:
                    assert wire.read() == acknowledged + 1
                    acknowledged += 1
            except (Closed, OSError):
                pass
        assert server.wait_end() == 0
        server.start()
        with Wire(server.port) as wire:
            assert acknowledged <= int(wire.call("GET", "n")) <= 20_000


def test_sigint_stops_as_well():
    with Server() as server:
        server.process.send_signal(signal.SIGINT)
        assert server.wait_end() == 0


# --- what tallyman says about itself ---------------------------------------------------------

@pytest.mark.tallyman_only
def test_the_ready_line_says_address_shards_folder_and_keys():
    with Server(options={"shards": 3}) as server:
        fill(server.port)
        server.stop()
        server.start()
        line = server.ready_line
        assert f"127.0.0.1:{server.port}" in line
        assert "3 shards" in line or "shards=3" in line or "shards: 3" in line, line
        # The key that expired around the stop may be counted.
        assert "data" in line and ("1301" in line or "1302" in line), line


@pytest.mark.tallyman_only
def test_two_servers_on_one_folder():
    with Server() as server:
        second = subprocess.run([server.binary, "--port", "0", "--dir",
                                 str(server.folder / "data")], capture_output=True, timeout=60,
                                check=False, cwd=server.folder)
        assert second.returncode != 0
        assert str(server.pid) in (second.stderr + second.stdout).decode()
        with Wire(server.port) as wire:
            assert wire.call("PING") == "PONG"


def refused(*arguments, cwd):
    done = subprocess.run([tallyman_path(), *arguments], capture_output=True, timeout=60,
                          check=False, cwd=cwd)
    return done.returncode, (done.stderr + done.stdout).decode()


@pytest.mark.tallyman_only
def test_bad_options_exit_with_2_and_name_the_option(tmp_path):
    for arguments, word in [(("--nosuch", "1"), "nosuch"), (("--port", "abc"), "port"),
                            (("--port", "70000"), "port"), (("--shards", "many"), "shards"),
                            (("--appendfsync", "sometimes"), "everysec"),
                            (("--databases", "-1"), "databases")]:
        code, text = refused(*arguments, cwd=tmp_path)
        assert code == 2, (arguments, code, text)
        assert word in text, (arguments, text)


@pytest.mark.tallyman_only
def test_config_file_is_read_and_its_errors_name_the_line(tmp_path):
    good = tmp_path / "good.toml"
    good.write_text('appendfsync = "everysec"\nmaxclients = 77\n')
    with Server(options={"config": str(good)}) as server, Wire(server.port) as wire:
        assert wire.call("CONFIG", "GET", "maxclients") == [b"maxclients", b"77"]
        assert wire.call("CONFIG", "GET", "appendfsync") == [b"appendfsync", b"everysec"]
    bad = tmp_path / "bad.toml"
    bad.write_text('appendfsync = "everysec"\n\nnosuch = 1\n')
    code, text = refused("--config", str(bad), "--port", "0", cwd=tmp_path)
    assert code == 2 and "nosuch" in text and "3" in text, text


@pytest.mark.tallyman_only
def test_help_explains_every_option(tmp_path):
    code, text = refused("--help", cwd=tmp_path)
    assert code == 0
    for name in ("bind", "port", "unixsocket", "dir", "shards", "appendfsync", "maxclients",
                 "timeout", "tcp-keepalive", "requirepass", "databases", "loglevel",
                 "logformat", "config"):
        assert f"--{name}" in text, name


@pytest.mark.tallyman_only
def test_a_folder_that_is_not_ours_is_left_alone(tmp_path):
    folder = tmp_path / "holiday-photos"
    folder.mkdir()
    (folder / "beach.jpg").write_bytes(b"not a data folder")
    code, text = refused("--dir", str(folder), "--port", "0", cwd=tmp_path)
    assert code != 0 and "holiday-photos" in text, text
    assert [p.name for p in folder.iterdir()] == ["beach.jpg"]
    in_the_way = tmp_path / "a-file"
    in_the_way.write_text("x")
    code, text = refused("--dir", str(in_the_way), "--port", "0", cwd=tmp_path)
    assert code != 0 and "a-file" in text, text


@pytest.mark.tallyman_only
def test_a_port_in_use_is_named():
    with Server() as server:
        second = Server(options={"port": str(server.port)})
        try:
            with pytest.raises(StartFailed, match=str(server.port)):
                second.start()
        finally:
            second.close()


@pytest.mark.tallyman_only
def test_unix_socket(tmp_path):
    import socket
    path = tmp_path / "t.sock"
    with Server(options={"unixsocket": str(path)}):
        with socket.socket(socket.AF_UNIX) as plain:
            plain.connect(str(path))
            plain.sendall(b"PING\r\n")
            assert plain.recv(100) == b"+PONG\r\n"
