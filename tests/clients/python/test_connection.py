"""The connection family through redis-py."""

import time

import pytest
import redis

from conftest import connect
from harness.server import Server
from harness.wire import Error, Map, Wire


def test_ping_and_echo(r, wire):
    assert r.ping() is True
    assert r.echo("hi") == "hi"
    assert wire.call("PING", "hello") == b"hello"


def test_hello_names_the_server(wire, protocol):
    reply = wire.call("HELLO", protocol)
    assert isinstance(reply, Map) == (protocol == 3)
    pairs = reply if protocol == 3 else zip(reply[::2], reply[1::2])
    fields = dict(pairs)
    assert fields[b"server"] == b"redis"
    assert fields[b"proto"] == protocol
    assert fields[b"mode"] == b"standalone"
    assert fields[b"role"] == b"master"
    assert fields[b"id"] > 0
    assert fields[b"modules"] == []
    assert fields[b"version"].split(b".")[0] == b"7"


def test_hello_sets_the_name_and_changes_the_protocol_within_a_connection(server):
    with Wire(server.port) as wire:
        assert isinstance(wire.call("HELLO", "3", "SETNAME", "me"), Map)
        assert wire.call("CLIENT", "GETNAME") == b"me"
        assert wire.call("GET", "missing").kind == "_"
        assert isinstance(wire.call("HELLO", "2"), list)
        assert wire.call("GET", "missing").kind == "$"
        assert isinstance(wire.call("HELLO"), list)
        assert wire.call("HELLO", "9").startswith("NOPROTO")


def test_select_keeps_databases_apart(r, clients):
    other = clients(db=3)
    r.set("a", 1)
    assert other.get("a") is None
    other.set("a", 2)
    assert r.get("a") == "1"
    assert other.dbsize() == 1
    with pytest.raises(redis.ResponseError, match="DB index is out of range"):
        r.execute_command("SELECT", 99)


def test_reset_puts_the_connection_back(wire):
    wire.call("SELECT", 5)
    wire.call("CLIENT", "SETNAME", "me")
    assert wire.call("RESET") == "RESET"
    with_name = wire.call("CLIENT", "GETNAME")
    assert not with_name and with_name.kind == "$"
    assert b" db=0 " in _text(wire.call("CLIENT", "INFO"))


def _text(reply):
    return getattr(reply, "text", reply)


def test_quit_answers_and_closes(wire):
    assert wire.call("QUIT") == "OK"
    assert wire.closed_by_peer()


def test_client_names_and_ids(r, clients):
    other = clients(single_connection_client=True)
    assert r.client_getname() is None
    assert other.client_setname("worker-1")
    assert other.client_getname() == "worker-1"
    assert other.client_id() != r.client_id()
    assert "worker-1" in [c["name"] for c in r.client_list()]
    info = other.client_info()
    assert info["name"] == "worker-1"
    assert info["id"] == other.client_id()


def test_client_list_has_the_fields_that_tools_read(r):
    (row,) = [c for c in r.client_list() if c["cmd"] == "client|list"]
    for field in ("id", "addr", "laddr", "fd", "name", "age", "idle", "flags", "db", "sub",
                  "psub", "multi", "qbuf", "qbuf-free", "obl", "oll", "omem", "events", "cmd",
                  "user"):
        assert field in row
    assert row["addr"].startswith("127.0.0.1:")
    (same,) = r.client_list(client_id=[row["id"]])
    assert same["id"] == row["id"]
    assert r.client_list(_type="pubsub") == []
    assert len(r.client_list(_type="normal")) >= 1


@pytest.mark.tallyman_only
def test_client_setinfo(r, wire):
    assert wire.call("CLIENT", "SETINFO", "LIB-NAME", "mine") == "OK"
    assert wire.call("CLIENT", "SETINFO", "lib-ver", "1.2.3") == "OK"
    assert b"lib-name=mine lib-ver=1.2.3" in _text(wire.call("CLIENT", "INFO"))
    assert isinstance(wire.call("CLIENT", "SETINFO", "LIB-NAME", "a b"), Error)
    assert isinstance(wire.call("CLIENT", "SETINFO", "FOO", "b"), Error)
    assert wire.call("CLIENT", "NO-TOUCH", "ON") == "OK"
    assert wire.call("CLIENT", "NO-TOUCH", "OFF") == "OK"


def test_client_kill_by_id_and_by_address(r, clients):
    victim = clients(single_connection_client=True)
    assert r.client_kill_filter(_id=victim.client_id()) == 1
    with pytest.raises(redis.ConnectionError):
        victim.ping()
    victim = clients(single_connection_client=True)
    address = victim.client_info()["addr"]
    assert r.client_kill(address) is True
    with pytest.raises(redis.ConnectionError):
        victim.ping()
    with pytest.raises(redis.ResponseError, match="No such client"):
        r.client_kill("1.2.3.4:5")


def test_client_kill_skips_the_caller_unless_told(server):
    with Wire(server.port) as caller, Wire(server.port) as other:
        assert other.call("PING") == "PONG"
        assert caller.call("CLIENT", "KILL", "TYPE", "normal") >= 1
        assert other.closed_by_peer()
        assert caller.call("PING") == "PONG"
        own = caller.call("CLIENT", "ID")
        assert caller.call("CLIENT", "KILL", "ID", own, "SKIPME", "no") == 1
        assert caller.closed_by_peer()


def test_client_reply_off_skip_and_on(wire):
    wire.send(b"CLIENT REPLY SKIP\r\nPING one\r\nPING two\r\n")
    assert wire.read() == b"two"
    wire.send(b"CLIENT REPLY OFF\r\nPING one\r\nSET a 5\r\nCLIENT REPLY ON\r\nGET a\r\n")
    assert wire.read() == "OK"
    assert wire.read() == b"5"


def test_client_pause_holds_writes_back(r, clients):
    writer = clients(single_connection_client=True)
    writer.set("a", 1)
    begun = time.monotonic()
    r.client_pause(300, all=False)
    assert r.get("a") == "1"
    assert time.monotonic() - begun < 0.25
    writer.set("a", 2)
    assert time.monotonic() - begun >= 0.25
    r.client_pause(60_000, all=False)
    r.client_unpause()
    begun = time.monotonic()
    writer.set("a", 3)
    assert time.monotonic() - begun < 5


def test_password_is_asked_for(protocol):
    with Server(options={"requirepass": "s3cret"}) as server:
        with Wire(server.port) as wire:
            assert wire.call("GET", "a").startswith("NOAUTH")
            assert wire.call("HELLO", "3").startswith("NOAUTH")
            assert wire.call("AUTH", "wrong").startswith("WRONGPASS")
            assert wire.call("AUTH", "s3cret") == "OK"
            assert wire.call("SET", "a", "1") == "OK"
        with Wire(server.port) as wire:
            reply = wire.call("HELLO", "3", "AUTH", "default", "s3cret", "SETNAME", "me")
            assert isinstance(reply, Map)
            assert wire.call("CLIENT", "GETNAME") == b"me"
        with connect(server, protocol, password="s3cret") as client:
            assert client.get("a") == b"1"
        with connect(server, protocol, username="default", password="wrong") as client:
            with pytest.raises(redis.AuthenticationError):
                client.get("a")


def test_maxclients_refuses_the_one_too_many():
    with Server(options={"maxclients": 5}) as server:
        wires = [Wire(server.port) for _ in range(5)]
        try:
            assert [w.call("PING") for w in wires] == ["PONG"] * 5
            with Wire(server.port) as extra:
                assert extra.read() == "ERR max number of clients reached"
                assert extra.closed_by_peer()
            wires.pop().close()
            for _ in range(100):
                with Wire(server.port) as again:
                    again.send(b"PING\r\n")
                    if again.read() == "PONG":
                        return
                time.sleep(0.02)
            raise AssertionError("the place of a closed connection was not given back")
        finally:
            for w in wires:
                w.close()
