"""MULTI, EXEC, WATCH through redis-py: pipelines with transaction=True, and histories."""

import os
import random
import threading
import time

import pytest
import redis

from conftest import connect
from harness.server import Server
from harness.wire import Error, Wire

ACCOUNTS = 64
START_BALANCE = 1000


def run_threads(count, work):
    """Runs work(number) in threads; the first error is raised."""
    errors = []

    def guarded(number):
        try:
            work(number)
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
    if errors:
        raise errors[0]


def test_a_block_returns_all_replies(r):
    with r.pipeline(transaction=True) as pipe:
        pipe.set("a", 1).incr("a").get("a").mget("a", "b").delete("a")
        assert pipe.execute() == [True, 2, "2", ["2", None], 1]


def test_a_runtime_error_does_not_undo_the_others(r):
    with r.pipeline(transaction=True) as pipe:
        pipe.set("a", "text").incr("a").set("b", 1)
        replies = pipe.execute(raise_on_error=False)
    assert replies[0] is True and isinstance(replies[1], redis.ResponseError) and replies[2]
    assert r.get("b") == "1"


def test_a_queueing_error_aborts(r):
    with r.pipeline(transaction=True) as pipe:
        pipe.set("a", 1).execute_command("NOSUCH")
        with pytest.raises(redis.ResponseError):
            pipe.execute()
    assert r.exists("a") == 0


def test_watch_sees_changes_by_others(r, clients):
    other = clients()
    for change in (lambda: other.set("a", 5), lambda: other.delete("a"), lambda: other.flushall(),
                   lambda: other.expire("a", 100), lambda: other.rename("a", "elsewhere"),
                   lambda: other.append("a", "x")):
        r.set("a", 1)
        with r.pipeline() as pipe:
            pipe.watch("a", "far", "away")
            change()
            pipe.multi()
            pipe.set("done", 1)
            with pytest.raises(redis.WatchError):
                pipe.execute()
        assert r.exists("done") == 0


def test_watch_lets_through_what_nobody_changed(r, clients):
    other = clients()
    r.set("a", 1)
    with r.pipeline() as pipe:
        pipe.watch("a")
        other.get("a")
        other.set("b", 1)
        value = int(pipe.get("a"))
        pipe.multi()
        pipe.set("a", value + 1)
        assert pipe.execute() == [True]
    assert r.get("a") == "2"


def test_watch_sees_expiry(r):
    r.set("a", 1, px=40)
    with r.pipeline() as pipe:
        pipe.watch("a")
        time.sleep(0.1)
        pipe.multi()
        pipe.set("done", 1)
        with pytest.raises(redis.WatchError):
            pipe.execute()


def test_increments_by_read_then_set_lose_nothing(clients):
    per_thread = 40

    def work(_):
        client = clients()
        for _ in range(per_thread):
            client.transaction(lambda pipe: pipe_increment(pipe), "n")

    def pipe_increment(pipe):
        value = int(pipe.get("n") or 0)
        pipe.multi()
        pipe.set("n", value + 1)

    run_threads(6, work)
    assert int(clients().get("n")) == 6 * per_thread


def transfer(wire, rng):
    """Moves an amount between two accounts in one block."""
    a, b = rng.sample(range(ACCOUNTS), 2)
    amount = rng.randint(1, 50)
    for command in (("MULTI",), ("DECRBY", f"account:{a}", amount),
                    ("INCRBY", f"account:{b}", amount)):
        assert not isinstance(wire.call(*command), Error)
    assert not isinstance(wire.call("EXEC"), Error)


def sum_of_accounts(wire):
    wire.call("MULTI")
    for index in range(ACCOUNTS):
        wire.call("GET", f"account:{index}")
    return sum(int(value) for value in wire.call("EXEC"))


def test_bank_sums_are_exact_at_all_times(server):
    seconds = 60 if os.environ.get("TALLYMAN_LONG") else 5
    end = time.monotonic() + seconds
    with Wire(server.port) as wire:
        for index in range(ACCOUNTS):
            wire.call("SET", f"account:{index}", START_BALANCE)
    sums = []

    def work(number):
        rng = random.Random(number)
        with Wire(server.port, timeout=30) as wire:
            while time.monotonic() < end:
                if number < 6:
                    transfer(wire, rng)
                else:
                    sums.append(sum_of_accounts(wire))

    run_threads(8, work)
    assert sums and set(sums) == {ACCOUNTS * START_BALANCE}


def test_opposite_orders_never_stall(server):
    seconds = 60 if os.environ.get("TALLYMAN_LONG") else 5
    end = time.monotonic() + seconds
    slowest, blocks = [0.0] * 16, [0] * 16

    def work(number):
        rng = random.Random(number)
        with Wire(server.port, timeout=30) as wire:
            while time.monotonic() < end:
                keys = rng.sample(range(200), rng.randint(2, 8))
                begun = time.monotonic()
                replies = wire.pipeline([("MULTI",), *[("INCR", f"k{key}") for key in keys],
                                         ("EXEC",)])
                slowest[number] = max(slowest[number], time.monotonic() - begun)
                blocks[number] += 1
                assert len(replies[-1]) == len(keys)

    run_threads(16, work)
    print(f"{sum(blocks) / seconds:.0f} blocks/s, slowest {max(slowest) * 1000:.0f} ms")
    assert max(slowest) < 5


def test_bank_survives_kill_9(protocol):
    cycles = 20 if os.environ.get("TALLYMAN_LONG") else 4
    rng = random.Random(int(os.environ.get("TALLYMAN_SEED", "1")))
    with Server(options={"shards": 3}) as server:
        with Wire(server.port) as wire:
            for index in range(ACCOUNTS):
                wire.call("SET", f"account:{index}", START_BALANCE)
        for _ in range(cycles):
            def work(number):
                own = random.Random(rng.random() + number)
                try:
                    with Wire(server.port, protocol) as wire:
                        for _ in range(100_000):
                            transfer(wire, own)
                except Exception:  # noqa: BLE001
                    pass  # the server was killed

            threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
            for thread in threads:
                thread.start()
            time.sleep(rng.uniform(0.1, 0.6))
            server.kill9()
            for thread in threads:
                thread.join(timeout=60)
            server.options["shards"] = rng.randint(1, 5)
            server.start()
            with Wire(server.port) as wire:
                assert sum_of_accounts(wire) == ACCOUNTS * START_BALANCE


def test_mset_over_shards_is_never_seen_half(clients):
    names = [f"part:{i}" for i in range(12)]
    end = time.monotonic() + 3
    torn = []

    def work(number):
        client = clients()
        while time.monotonic() < end:
            if number < 3:
                client.mset(dict.fromkeys(names, f"{number}:{time.monotonic()}"))
            else:
                with client.pipeline(transaction=True) as pipe:
                    for name in names:
                        pipe.get(name)
                    seen = set(pipe.execute())
                if len(seen) > 1:
                    torn.append(seen)

    run_threads(6, work)
    assert not torn


def test_a_disconnect_in_a_block_leaves_nothing(server):
    for _ in range(20):
        with Wire(server.port) as wire:
            wire.send(b"MULTI\r\nSET left 1\r\nSET right 1\r\n")
    with Wire(server.port) as wire:
        assert wire.call("EXISTS", "left", "right") == 0
        assert wire.call("SET", "left", "1") == "OK"


@pytest.mark.tallyman_only
def test_exec_with_conditions(wire):
    wire.call("SET", "a", 1)
    wire.call("MULTI")
    wire.call("INCR", "a")
    assert wire.call("EXEC", "IFEQ", "a", "1") == [2]
    wire.call("MULTI")
    wire.call("INCR", "a")
    assert not wire.call("EXEC", "IFEQ", "a", "1")
    assert wire.call("GET", "a") == b"2"


def test_transactions_by_redis_py_helper(server, protocol):
    with connect(server, protocol) as client:
        assert client.transaction(lambda pipe: (pipe.multi(), pipe.incr("n"), pipe.incr("n")),
                                  "n") == [1, 2]
