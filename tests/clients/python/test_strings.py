"""The strings family through redis-py."""

import datetime
import time

import pytest
import redis

from harness.wire import Error


def test_set_with_every_option(r):
    assert r.set("a", 1) is True
    assert r.set("a", 2, nx=True) is None
    assert r.set("a", 2, xx=True) is True
    assert r.set("missing", 2, xx=True) is None
    assert r.set("a", 3, get=True) == "2"
    assert r.set("new", 3, get=True) is None
    assert r.set("a", 4, nx=True, get=True) == "3"
    assert r.get("a") == "3"
    assert r.set("a", 5, ex=100) and 99 <= r.ttl("a") <= 100
    assert r.set("a", 5, keepttl=True) and r.ttl("a") > 90
    assert r.set("a", 5) and r.ttl("a") == -1
    assert r.set("a", 5, px=datetime.timedelta(seconds=50)) and 49 <= r.ttl("a") <= 50
    at = int(time.time()) + 500
    assert r.set("a", 5, exat=at) and r.expiretime("a") == at
    assert r.set("a", 5, pxat=at * 1000 + 1) and r.pexpiretime("a") == at * 1000 + 1
    for wrong in ({"ex": 0}, {"ex": -1}, {"px": 0}):
        with pytest.raises(redis.ResponseError, match="invalid expire time"):
            r.set("a", 6, **wrong)
    assert r.get("a") == "5"


def test_older_forms_of_set(r):
    assert r.setnx("a", 1) is True
    assert r.setnx("a", 2) is False
    assert r.setex("a", 100, "x") is True and r.ttl("a") > 90
    assert r.psetex("a", 100_000, "y") is True and r.ttl("a") > 90
    assert r.getset("a", "z") == "y"
    assert r.ttl("a") == -1
    assert r.getdel("a") == "z"
    assert r.getdel("a") is None


def test_getex_with_every_option(r):
    r.set("a", "v")
    assert r.getex("a") == "v" and r.ttl("a") == -1
    assert r.getex("a", ex=100) == "v" and r.ttl("a") > 90
    assert r.getex("a", px=50_000) == "v" and r.ttl("a") <= 50
    at = int(time.time()) + 500
    assert r.getex("a", exat=at) == "v" and r.expiretime("a") == at
    assert r.getex("a", pxat=at * 1000 + 1) == "v" and r.pexpiretime("a") == at * 1000 + 1
    assert r.getex("a", persist=True) == "v" and r.ttl("a") == -1
    assert r.getex("missing") is None


def test_mget_mset_msetnx(r):
    many = {f"k{i}": str(i) for i in range(500)}
    assert r.mset(many) is True
    assert r.mget(list(many)) == list(many.values())
    assert r.mget(["k1", "missing", "k2"]) == ["1", None, "2"]
    assert r.msetnx({"k1": "x", "fresh": "y"}) is False
    assert r.get("fresh") is None
    assert r.msetnx({"{t}1": "x", "{t}2": "y"}) is True
    assert r.msetnx({"other": "x", "keys": "y", "everywhere": "z"}) is True
    assert r.mget("other", "keys", "everywhere") == ["x", "y", "z"]


def test_append_ranges_and_length(r):
    assert r.append("a", "Hello") == 5
    assert r.append("a", " World") == 11
    assert r.strlen("a") == 11
    assert r.getrange("a", 0, 4) == "Hello"
    assert r.getrange("a", -5, -1) == "World"
    assert r.substr("a", 6) == "World"
    assert r.setrange("a", 6, "Redis") == 11
    assert r.get("a") == "Hello Redis"
    assert r.setrange("pad", 5, "x") == 6
    assert r.get("pad") == "\x00" * 5 + "x"
    assert r.strlen("missing") == 0
    assert r.setrange("missing", 10, "") == 0
    assert r.exists("missing") == 0


def test_lcs(r):
    r.mset({"{l}1": "ohmytext", "{l}2": "mynewtext"})
    assert r.lcs("{l}1", "{l}2") == "mytext"
    assert r.lcs("{l}1", "{l}2", len=True) == 6
    found = r.lcs("{l}1", "{l}2", idx=True, withmatchlen=True, minmatchlen=3)
    assert "[[4, 7], [5, 8], 4]" in str(found)


def test_bits(r):
    assert r.setbit("b", 7, 1) == 0
    assert r.setbit("b", 7, 0) == 1
    assert r.getbit("b", 7) == 0
    r.set("b", "foobar")
    assert r.bitcount("b") == 26
    assert r.bitcount("b", 1, 1) == 6
    assert r.bitcount("b", 5, 30, "BIT") == 17
    assert r.bitpos("b", 1) == 1
    assert r.bitpos("b", 1, 2, 5, "BIT") == 2
    r.mset({"{o}a": "abc", "{o}b": "abd"})
    assert r.bitop("AND", "{o}r", "{o}a", "{o}b") == 3
    assert r.get("{o}r") == "ab`"
    assert r.bitop("NOT", "{o}n", "{o}r") == 3
    r.mset({"left": "abc", "right": "abd"})
    assert r.bitop("XOR", "somewhere", "left", "right") == 3


def test_bitfield(r):
    field = r.bitfield("f", default_overflow="SAT")
    field.set("u8", 0, 250).incrby("u8", 0, 10).get("u8", 0)
    assert field.execute() == [0, 255, 255]
    field = r.bitfield("f")
    assert field.incrby("u8", 0, 10, "FAIL").incrby("u8", 0, 10, "WRAP").execute() == [None, 9]
    assert r.bitfield_ro("f", "u8", 0, items=[("i4", 4)]) == [9, -7]


@pytest.mark.parametrize("size", [0, 1, 15, 16, 4095, 4096, 65_535, 65_536, 1_000_000, 20_000_000])
def test_values_of_every_size(rb, size):
    value = bytes(i * 31 % 256 for i in range(min(size, 256))) * (size // 256 + 1)
    value = value[:size]
    assert rb.set("v", value) is True
    assert rb.strlen("v") == size
    assert rb.get("v") == value
    assert rb.append("v", b"x") == size + 1
    assert rb.getrange("v", size, -1) == b"x"


def test_large_key_names(rb):
    for size in (1000, 10_000, 32_000):
        rb.set(b"k" * size, size)
        assert rb.get(b"k" * size) == str(size).encode()


@pytest.mark.tallyman_only
def test_a_key_above_the_limit_is_refused_and_nothing_breaks(rb):
    with pytest.raises(redis.ResponseError):
        rb.set(b"k" * 70_000, 1)
    with pytest.raises(redis.ResponseError):
        rb.get(b"k" * 70_000)
    assert rb.dbsize() == 0
    assert rb.ping()


def test_wrong_type(r):
    r.hset("h", "f", "v")
    for call in (lambda: r.get("h"), lambda: r.append("h", "x"), lambda: r.strlen("h"),
                 lambda: r.incr("h"), lambda: r.getrange("h", 0, 1), lambda: r.setbit("h", 1, 1),
                 lambda: r.getset("h", 1), lambda: r.set("h", 1, get=True)):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE|wrong kind"):
            call()
    assert r.mget("h", "x") == [None, None]
    assert r.set("h", 1) is True


# --- later additions -------------------------------------------------------------------------

@pytest.mark.tallyman_only
def test_set_with_a_condition_on_the_value(r, wire):
    do = wire.call
    assert not do("SET", "a", 1, "IFEQ", "x")
    assert r.exists("a") == 0
    assert do("SET", "a", "x", "IFNE", "y") == "OK"
    assert not do("SET", "a", "z", "IFNE", "x")
    assert do("SET", "a", "z", "IFEQ", "x") == "OK"
    assert do("SET", "a", "w", "IFEQ", "no", "GET") == b"z"
    assert do("SET", "a", "w", "IFEQ", "z", "GET", "EX", 100) == b"z"
    assert r.get("a") == "w" and r.ttl("a") > 90
    digest = do("DIGEST", "a")
    assert not do("SET", "a", "v", "IFDNE", digest)
    assert do("SET", "a", "v", "IFDEQ", digest) == "OK"
    for wrong in (("IFEQ", "a", "IFNE", "b"), ("NX", "IFEQ", "a"), ("IFEQ",)):
        assert isinstance(do("SET", "a", "x", *wrong), Error)


@pytest.mark.tallyman_only
def test_digest(r):
    r.set("a", "Hello world")
    digest = r.execute_command("DIGEST", "a")
    assert digest in ("b6acb9d84a38ff74", b"b6acb9d84a38ff74")
    assert r.execute_command("DIGEST", "missing") is None


@pytest.mark.tallyman_only
def test_delex_and_delifeq(r):
    do = r.execute_command
    r.set("a", "v")
    assert do("DELEX", "a", "IFEQ", "x") == 0
    assert do("DELEX", "a", "IFNE", "v") == 0
    assert do("DELEX", "a", "IFEQ", "v") == 1
    r.set("a", "Hello world")
    assert do("DELEX", "a", "IFDNE", "b6acb9d84a38ff74") == 0
    assert do("DELEX", "a", "IFDEQ", "b6acb9d84a38ff74") == 1
    assert do("DELEX", "a") == 0
    r.set("a", "v")
    assert do("DELEX", "a") == 1
    r.set("a", "v")
    assert do("DELIFEQ", "a", "x") == 0
    assert do("DELIFEQ", "a", "v") == 1
    assert do("DELIFEQ", "a", "v") == 0


@pytest.mark.tallyman_only
def test_msetex(r):
    do = r.execute_command
    assert do("MSETEX", 2, "{m}a", 1, "{m}b", 2, "EX", 100) == 1
    assert r.ttl("{m}a") > 90
    assert do("MSETEX", 2, "{m}a", 3, "{m}c", 4, "NX") == 0
    assert r.get("{m}c") is None
    assert do("MSETEX", 2, "{m}a", 3, "{m}c", 4, "XX") == 0
    assert do("MSETEX", 2, "{m}a", 3, "{m}b", 4, "XX", "KEEPTTL") == 1
    assert r.get("{m}b") == "4" and r.ttl("{m}b") > 90
    assert do("MSETEX", 1, "{m}a", 5) == 1
    assert r.ttl("{m}a") == -1
    for wrong in ((0, "a", 1), (2, "a", 1), (1, "a"), (-1, "a", 1), ("x", "a", 1),
                  (1, "a", 1, "NX", "XX"), (1, "a", 1, "EX", 0)):
        with pytest.raises(redis.ResponseError):
            do("MSETEX", *wrong)
