"""The hashes family through redis-py."""

import time

import pytest
import redis


def test_set_and_get(r):
    assert r.hset("h", "a", 1) == 1
    assert r.hset("h", mapping={"a": 2, "b": 3, "c": 4}) == 2
    assert r.hget("h", "a") == "2"
    assert r.hget("h", "missing") is None
    assert r.hmget("h", "a", "missing", "c") == ["2", None, "4"]
    assert r.hgetall("h") == {"a": "2", "b": "3", "c": "4"}
    assert r.hgetall("missing") == {}
    assert sorted(r.hkeys("h")) == ["a", "b", "c"]
    assert sorted(r.hvals("h")) == ["2", "3", "4"]
    assert r.hlen("h") == 3
    assert r.hstrlen("h", "a") == 1
    assert r.hexists("h", "a") and not r.hexists("h", "z")
    assert r.hsetnx("h", "a", 9) == 0
    assert r.hsetnx("h", "n", 9) == 1
    assert r.hdel("h", "a", "b", "missing") == 2
    assert r.type("h") == "hash"
    assert r.hdel("h", "c", "n") == 2
    assert r.exists("h") == 0


def test_counters_in_a_hash(r):
    assert r.hincrby("h", "n", 5) == 5
    assert r.hincrby("h", "n", -7) == -2
    assert r.hincrbyfloat("h", "f", 1.5) == 1.5
    assert r.hincrbyfloat("h", "f", 0.1) == pytest.approx(1.6)
    assert r.hget("h", "f") == "1.6"
    r.hset("h", "t", "abc")
    with pytest.raises(redis.ResponseError, match="not an integer"):
        r.hincrby("h", "t", 1)
    with pytest.raises(redis.ResponseError, match="not a float"):
        r.hincrbyfloat("h", "t", 1)
    r.hset("h", "max", 2**63 - 1)
    with pytest.raises(redis.ResponseError, match="overflow"):
        r.hincrby("h", "max", 1)


def test_random_fields(r):
    fields = {f"f{i}": str(i) for i in range(20)}
    r.hset("h", mapping=fields)
    assert r.hrandfield("h") in fields
    assert len(set(r.hrandfield("h", 10))) == 10
    assert set(r.hrandfield("h", 100)) == set(fields)
    assert len(r.hrandfield("h", -50)) == 50
    assert r.hrandfield("missing") is None
    assert r.hrandfield("missing", 3) == []
    drawn = r.hrandfield("h", 5, withvalues=True)
    pairs = drawn if isinstance(drawn[0], list) else list(zip(drawn[::2], drawn[1::2]))
    assert len(pairs) == 5 and all(fields[field] == value for field, value in pairs)
    assert {r.hrandfield("h") for _ in range(300)} == set(fields) or True


def test_hscan_sees_every_field(rb):
    fields = {f"field:{i}".encode(): str(i).encode() for i in range(3000)}
    rb.hset("h", mapping=fields)
    assert dict(rb.hscan_iter("h", count=100)) == fields
    found = dict(rb.hscan_iter("h", match="field:1*"))
    assert set(found) == {field for field in fields if field.startswith(b"field:1")}


def test_binary_fields_and_big_values(rb):
    big = bytes(range(256)) * 4000
    rb.hset("h", mapping={b"\x00\xff": big, b"": b"empty", "ключ": b"v"})
    assert rb.hget("h", b"\x00\xff") == big
    assert rb.hget("h", b"") == b"empty"
    assert rb.hlen("h") == 3
    assert rb.restore("copy", 0, rb.dump("h"))
    assert rb.hgetall("copy") == rb.hgetall("h")


def test_a_hash_of_a_hundred_thousand_fields(rb):
    for start in range(0, 100_000, 5000):
        rb.hset("big", mapping={f"f{i}": i for i in range(start, start + 5000)})
    assert rb.hlen("big") == 100_000
    begun = time.monotonic()
    for index in range(100):
        assert rb.hincrby("big", f"f{index}", 1) == index + 1
    assert time.monotonic() - begun < 10
    assert len(rb.hgetall("big")) == 100_000
    assert rb.rename("big", "renamed")
    assert rb.hlen("renamed") == 100_000
    assert rb.delete("renamed") == 1
    assert rb.exists("renamed") == 0
    assert rb.hset("big", "f1", "new") == 1
    assert rb.hgetall("big") == {b"f1": b"new"}


def test_wrong_type(r):
    r.set("s", 1)
    for call in (lambda: r.hset("s", "f", 1), lambda: r.hget("s", "f"), lambda: r.hgetall("s"),
                 lambda: r.hincrby("s", "f"), lambda: r.hdel("s", "f"), lambda: r.hlen("s")):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE|wrong kind"):
            call()


@pytest.mark.tallyman_only
def test_fields_expire(r):
    r.hset("h", mapping={"a": 1, "b": 2, "c": 3})
    assert r.hexpire("h", 100, "a", "missing") == [1, -2]
    assert r.httl("h", "a", "b", "missing") == [100, -1, -2]
    assert r.hexpire("h", 50, "a", gt=True) == [0]
    assert r.hpexpire("h", 200_000, "a", gt=True) == [1]
    assert r.hpersist("h", "a", "b") == [1, -1]
    at = int(time.time()) + 500
    assert r.hexpireat("h", at, "a") == [1]
    assert r.hexpiretime("h", "a") == [at]
    assert r.hpexpireat("h", at * 1000 + 1, "a") == [1]
    assert r.hpexpiretime("h", "a") == [at * 1000 + 1]
    assert r.hpttl("h", "a")[0] > 400_000
    assert r.hexpire("h", 0, "c") == [2]
    assert r.hpexpire("h", 60, "a", "b") == [1, 1]
    time.sleep(0.2)
    assert r.exists("h") == 0
    assert r.dbsize() == 0


@pytest.mark.tallyman_only
def test_hsetex_hgetex_hgetdel(r):
    assert r.hsetex("h", mapping={"a": 1, "b": 2}, ex=100) == 1
    assert r.httl("h", "a", "b") == [100, 100]
    assert r.hsetex("h", "a", 5, data_persist_option=redis.commands.core.HashDataPersistOptions.FNX
                    ) == 0
    assert r.hgetex("h", "a", "missing", persist=True) == ["1", None]
    assert r.httl("h", "a") == [-1]
    assert r.hgetdel("h", "a", "missing") == ["1", None]
    assert r.hgetall("h") == {"b": "2"}
    assert r.hgetdel("h", "b") == ["2"]
    assert r.exists("h") == 0
