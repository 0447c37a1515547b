"""The keys family through redis-py."""

import time

import pytest
import redis


def test_del_unlink_exists_touch_type(r):
    r.mset({"a": 1, "b": 2, "c": 3, "d": 4})
    assert r.exists("a", "b", "missing", "a") == 3
    assert r.touch("a", "missing", "b") == 2
    assert r.type("a") == "string"
    assert r.type("missing") == "none"
    assert r.delete("a", "b", "missing") == 2
    assert r.unlink("c", "d", "d") == 2
    assert r.dbsize() == 0


def test_many_keys_are_whole_over_all_shards(r):
    keys = [f"key:{i}" for i in range(2000)]
    r.mset(dict.fromkeys(keys, "v"))
    assert r.exists(*keys) == 2000
    assert r.mget(keys) == ["v"] * 2000
    assert r.touch(*keys) == 2000
    assert r.unlink(*keys[:1000]) == 1000
    assert r.delete(*keys) == 1000
    assert r.dbsize() == 0


def test_expire_options(r):
    r.set("a", 1)
    assert r.expire("a", 100, xx=True) is False
    assert r.expire("a", 100, gt=True) is False
    assert r.expire("a", 100, nx=True) is True
    assert r.expire("a", 50, nx=True) is False
    assert r.expire("a", 50, gt=True) is False
    assert r.expire("a", 200, gt=True) is True
    assert r.expire("a", 300, lt=True) is False
    assert r.expire("a", 100, lt=True) is True
    assert 99 <= r.ttl("a") <= 100
    assert r.pexpire("a", 50_000) is True
    assert 49_000 <= r.pttl("a") <= 50_000
    at = int(time.time()) + 1000
    assert r.expireat("a", at) is True
    assert r.expiretime("a") == at
    assert r.pexpireat("a", at * 1000 + 7) is True
    assert r.pexpiretime("a") == at * 1000 + 7
    assert r.persist("a") is True
    assert r.persist("a") is False
    assert (r.ttl("a"), r.pttl("a"), r.expiretime("a")) == (-1, -1, -1)
    assert (r.ttl("x"), r.pttl("x"), r.pexpiretime("x")) == (-2, -2, -2)
    assert r.expire("missing", 10) is False
    with pytest.raises(redis.ResponseError):
        r.expire("a", 100, nx=True, xx=True)


def test_keys_expire_on_time(r):
    r.set("a", 1, px=150)
    r.set("b", 1)
    r.pexpire("b", 150)
    assert r.exists("a", "b") == 2
    time.sleep(0.3)
    assert r.exists("a", "b") == 0
    assert r.dbsize() == 0


@pytest.mark.tallyman_only
def test_expiry_needs_no_reader(r, wire):
    """Within 100 ms of the deadline on an idle server; DBSIZE does not touch the keys."""
    wire.pipeline([("SET", f"k{i}", "v", "PX", 300) for i in range(1000)])
    assert r.dbsize() == 1000
    time.sleep(0.55)
    assert r.dbsize() == 0
    assert r.info("stats")["expired_keys"] >= 1000


def test_a_negative_deadline_deletes(r):
    for command in (lambda: r.expire("a", -1), lambda: r.expireat("a", 1),
                    lambda: r.pexpire("a", -5), lambda: r.pexpireat("a", 1)):
        r.set("a", 1)
        assert command() is True
        assert r.exists("a") == 0


def test_rename_and_renamenx(r):
    for a, b in (("{t}a", "{t}b"), ("left", "right"), ("x", "completely:other")):
        r.set(a, "v", ex=100)
        assert r.rename(a, b) is True
        assert r.exists(a) == 0
        assert r.get(b) == "v"
        assert r.ttl(b) > 90
        r.set(a, "w")
        assert r.renamenx(a, b) is False
        r.delete(b)
        assert r.renamenx(a, b) is True
        assert r.get(b) == "w"
        assert r.ttl(b) == -1
    with pytest.raises(redis.ResponseError, match="no such key"):
        r.rename("missing", "b")


def test_copy_and_move(r, clients):
    other = clients(db=1)
    for a, b in (("{t}a", "{t}b"), ("left", "right"), ("x", "completely:other")):
        r.set(a, "v", ex=100)
        assert r.copy(a, b) is True
        assert r.copy(a, b) is False
        assert r.get(b) == "v" and r.ttl(b) > 90
        r.set(a, "w")
        assert r.copy(a, b, replace=True) is True
        assert r.get(b) == "w" and r.ttl(b) == -1
        assert r.copy(a, b, destination_db=1) is True
        assert other.get(b) == "w"
        assert r.move(a, 1) is True
        assert r.move(b, 1) is False
        assert (r.exists(a), other.get(a)) == (0, "w")
    assert r.copy("missing", "b") is False


def test_keys_and_patterns(r):
    names = ["one", "two", "three", "on[e", "hello", "hallo", "hxllo", "hllo", "heello"]
    r.mset(dict.fromkeys(names, 1))
    assert sorted(r.keys("*")) == sorted(names)
    assert sorted(r.keys("h?llo")) == ["hallo", "hello", "hxllo"]
    assert sorted(r.keys("h*llo")) == ["hallo", "heello", "hello", "hllo", "hxllo"]
    assert sorted(r.keys("h[ae]llo")) == ["hallo", "hello"]
    assert sorted(r.keys("h[^e]llo")) == ["hallo", "hxllo"]
    assert sorted(r.keys("h[a-e]llo")) == ["hallo", "hello"]
    assert r.keys(r"on\[e") == ["on[e"]
    assert r.keys("nothing*") == []


def test_scan_sees_every_key_once_it_stays(rb):
    keys = {f"key:{i}".encode() for i in range(5000)}
    pipe = rb.pipeline(transaction=False)
    for key in keys:
        pipe.set(key, 1)
    pipe.execute()
    assert set(rb.scan_iter(count=100)) == keys
    assert set(rb.scan_iter(match=b"key:1*", count=1000)) == {
        key for key in keys if key.startswith(b"key:1")}
    assert set(rb.scan_iter(_type="string")) == keys
    assert list(rb.scan_iter(_type="hash")) == []
    seen, cursor = set(), 0
    for round_number in range(100_000):
        cursor, some = rb.scan(cursor, count=50)
        seen.update(some)
        rb.set(f"new:{round_number}", 1)
        rb.delete(f"new:{round_number - 3}")
        if cursor == 0:
            break
    assert keys <= seen


def test_randomkey(r):
    assert r.randomkey() is None
    r.mset({f"k{i}": i for i in range(50)})
    drawn = {r.randomkey() for _ in range(400)}
    assert len(drawn) > 10
    assert drawn <= {f"k{i}" for i in range(50)}


def test_dump_and_restore(rb):
    values = {b"int": b"123", b"neg": b"-70000", b"big": b"12345678901", b"text": b"hello",
              b"bin": bytes(range(256)), b"long": b"abc" * 10_000, b"empty": b""}
    for key, value in values.items():
        rb.set(key, value)
        dumped = rb.dump(key)
        copy = key + b":copy"
        assert rb.restore(copy, 0, dumped)
        assert rb.get(copy) == value
        with pytest.raises(redis.ResponseError, match="BUSYKEY"):
            rb.restore(copy, 0, dumped)
        assert rb.restore(copy, 5000, dumped, replace=True)
        assert 0 < rb.pttl(copy) <= 5000
        at = int(time.time() * 1000) + 100_000
        assert rb.restore(copy, at, dumped, replace=True, absttl=True)
        assert rb.pexpiretime(copy) == at
        damaged = dumped[:-1] + bytes([dumped[-1] ^ 1])
        with pytest.raises(redis.ResponseError, match="DUMP payload version or checksum"):
            rb.restore(b"damaged", 0, damaged)
    assert rb.dump("missing") is None


def test_restore_takes_what_redis_7_0_dumps(rb):
    rb.restore("a", 0, b"\x00\xc0\n\n\x00n\x9fWE\x0e\xaec\xbb")
    assert rb.get("a") == b"10"


def test_binary_keys_of_every_byte(rb):
    for byte in range(256):
        key = bytes([byte]) * 3
        rb.set(key, key)
        assert rb.get(key) == key
    assert rb.dbsize() == 256
    assert set(rb.keys("*")) == {bytes([byte]) * 3 for byte in range(256)}


def test_hash_tags_and_odd_names(r):
    for key in ("{", "}", "{}", "{}x", "a{b}c", "a{b", "{{b}}", "{b}{c}", " ", "\r\n", "ключ", "🔑"):
        r.set(key, key)
    for key in r.keys("*"):
        assert r.get(key) == key
    assert r.dbsize() == 12
