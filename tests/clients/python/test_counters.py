"""The counters family through redis-py."""

import time

import pytest
import redis


def test_increments_and_decrements(r):
    assert r.incr("a") == 1
    assert r.incrby("a", 41) == 42
    assert r.decr("a") == 41
    assert r.decrby("a", 50) == -9
    assert r.get("a") == "-9"
    assert r.incr("fresh", 5) == 5


def test_a_counter_keeps_its_deadline(r):
    r.set("a", 1, ex=100)
    r.incr("a")
    r.incrbyfloat("a", 0.5)
    assert r.ttl("a") > 90


def test_overflow_and_non_integers_change_nothing(r):
    r.set("a", 2**63 - 1)
    for call in (lambda: r.incr("a"), lambda: r.incrby("a", 2**63 - 1)):
        with pytest.raises(redis.ResponseError, match="overflow"):
            call()
    assert r.get("a") == str(2**63 - 1)
    r.set("a", -(2**63))
    with pytest.raises(redis.ResponseError, match="overflow"):
        r.decr("a")
    assert r.get("a") == str(-(2**63))
    r.set("a", "abc")
    with pytest.raises(redis.ResponseError, match="not an integer"):
        r.incr("a")
    assert r.get("a") == "abc"


def test_incrbyfloat_prints_what_redis_prints(r):
    assert r.execute_command("INCRBYFLOAT", "f", "10.5") == 10.5
    assert r.get("f") == "10.5"
    assert r.incrbyfloat("f", 0.1) == pytest.approx(10.6)
    assert r.get("f") == "10.6"
    r.set("f", "5.0e3")
    r.execute_command("INCRBYFLOAT", "f", "2.0e2")
    assert r.get("f") == "5200"
    with pytest.raises(redis.ResponseError, match="not a valid float"):
        r.execute_command("INCRBYFLOAT", "f", "abc")
    with pytest.raises(redis.ResponseError, match="NaN or Infinity"):
        r.execute_command("INCRBYFLOAT", "f", "inf")
    assert r.get("f") == "5200"


def test_the_string_view_of_a_counter(r):
    r.incrby("a", 1234)
    assert r.strlen("a") == 4
    assert r.getrange("a", 1, 2) == "23"
    assert r.append("a", "5") == 5
    assert r.incr("a") == 12346
    assert r.setrange("a", 0, "9") == 5
    assert r.incr("a") == 92347
    assert r.object("encoding", "a") == "int"


# --- later additions -------------------------------------------------------------------------

def increx(r, *arguments):
    return [float(x) if isinstance(x, (str, bytes)) else x
            for x in r.execute_command("INCREX", *arguments)]


@pytest.mark.tallyman_only
def test_increx_counts_within_bounds(r):
    assert increx(r, "a") == [1, 1]
    assert increx(r, "a", "BYINT", 5) == [6, 5]
    assert increx(r, "a", "BYINT", 5, "UBOUND", 10) == [6, 0]
    assert increx(r, "a", "BYINT", 4, "UBOUND", 10) == [10, 4]
    assert increx(r, "a", "BYINT", 5, "UBOUND", 12, "SATURATE") == [12, 2]
    assert increx(r, "a", "BYINT", -20, "LBOUND", 0) == [12, 0]
    assert increx(r, "a", "BYINT", -20, "LBOUND", 0, "SATURATE") == [0, -12]
    assert increx(r, "missing", "BYINT", 5, "UBOUND", 3) == [0, 0]
    assert r.exists("missing") == 0
    with pytest.raises(redis.ResponseError):
        increx(r, "a", "LBOUND", 5, "UBOUND", 3)
    with pytest.raises(redis.ResponseError):
        increx(r, "a", "BYINT", 1, "BYFLOAT", 1)


@pytest.mark.tallyman_only
def test_increx_expiry(r):
    assert increx(r, "a", "EX", 100, "ENX") == [1, 1]
    assert r.ttl("a") > 90
    assert increx(r, "a", "EX", 1000, "ENX") == [2, 1]
    assert r.ttl("a") <= 100
    assert increx(r, "a", "EX", 1000) == [3, 1]
    assert r.ttl("a") > 900
    assert increx(r, "a") == [4, 1]
    assert r.ttl("a") > 900
    assert increx(r, "a", "UBOUND", 4, "EX", 5) == [4, 0]
    assert r.ttl("a") > 900
    assert increx(r, "a", "PERSIST") == [5, 1]
    assert r.ttl("a") == -1
    with pytest.raises(redis.ResponseError):
        increx(r, "a", "ENX")


@pytest.mark.tallyman_only
def test_increx_by_float(r, wire, protocol):
    assert increx(r, "f", "BYFLOAT", "1.5") == [1.5, 1.5]
    reply = wire.call("INCREX", "f", "BYFLOAT", "0.25")
    assert [type(item) for item in reply] == ([bytes, bytes] if protocol == 2 else
                                              [type(reply[0])] * 2)
    assert [float(item) for item in reply] == [1.75, 0.25]
    assert isinstance(reply[0], bytes if protocol == 2 else float)


@pytest.mark.tallyman_only
def test_fixed_window_rate_limit_with_increx(clients):
    """Never one request too many: 5 a window, many at once."""
    import threading
    allowed, lock = [], threading.Lock()

    def work():
        client = clients()
        for _ in range(20):
            _, applied = increx(client, "limit:key1", "UBOUND", 5, "EX", 100, "ENX")
            with lock:
                allowed.append(applied)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(allowed) == 320 and sum(allowed) == 5


@pytest.mark.tallyman_only
def test_cl_throttle(r):
    def throttle(*arguments):
        return r.execute_command("CL.THROTTLE", *arguments)

    assert throttle("u1", 2, 60, 60) == [0, 3, 2, -1, 1]
    assert throttle("u1", 2, 60, 60)[:4] == [0, 3, 1, -1]
    assert throttle("u1", 2, 60, 60)[:4] == [0, 3, 0, -1]
    limited = throttle("u1", 2, 60, 60)
    assert limited[:3] == [1, 3, 0]
    assert limited[3] in (0, 1)
    assert throttle("u1", 2, 60, 60, 0)[:3] == [0, 3, 0]
    assert throttle("u1", 2, 60, 60, -10)[:3] == [0, 3, 3]
    assert throttle("u2", 2, 60, 60, 4)[3] == -1
    assert r.exists("u2") == 0
    time.sleep(0.05)
    for wrong in (("u1", 2, 0, 60), ("u1", 2, 60, 0), ("u1", -1, 60, 60), ("u1", "x", 60, 60),
                  ("u1", 2, 60)):
        with pytest.raises(redis.ResponseError):
            throttle(*wrong)
