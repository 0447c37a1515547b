"""MULTI, EXEC, WATCH through redis-py: pipelines with transaction=True, and histories."""

import os
import random
import threading
import time

import pytest
import redis

from conftest import connect
from harness.histories import Done, violations
from harness.server import Server, kind_under_test
from harness.wire import Closed, Error, Wire

ACCOUNTS = 64
START_BALANCE = 1000
LONG = bool(os.environ.get("TALLYMAN_LONG"))


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


def two_accounts(rng):
    a, b = rng.sample(range(ACCOUNTS), 2)
    return f"account:{a}", f"account:{b}", rng.randint(1, 50)


def no_error(replies):
    for reply in replies:
        assert not isinstance(reply, Error), reply
    return replies


def transfer(wire, rng):
    """Moves an amount between two accounts in one block."""
    a, b, amount = two_accounts(rng)
    no_error(wire.call(*command) for command in (
        ("MULTI",), ("DECRBY", a, amount), ("INCRBY", b, amount), ("EXEC",)))


def transfer_watching(wire, rng):
    """The same by read-then-set under WATCH; somebody else may be faster."""
    a, b, amount = two_accounts(rng)
    _, from_a, from_b = no_error(wire.pipeline([("WATCH", a, b), ("GET", a), ("GET", b)]))
    no_error(wire.pipeline([("MULTI",), ("SET", a, int(from_a) - amount),
                            ("SET", b, int(from_b) + amount), ("EXEC",)]))


def transfer_on_condition(wire, rng):
    """The same by read-then-set with conditions at EXEC."""
    a, b, amount = two_accounts(rng)
    from_a, from_b = no_error(wire.pipeline([("GET", a), ("GET", b)]))
    no_error(wire.pipeline([("MULTI",), ("SET", a, int(from_a) - amount),
                            ("SET", b, int(from_b) + amount),
                            ("EXEC", "IFEQ", a, from_a, "IFEQ", b, from_b)]))


def transfer_somehow(wire, rng):
    ways = [transfer, transfer_watching]
    if kind_under_test() == "tallyman":
        ways.append(transfer_on_condition)
    rng.choice(ways)(wire, rng)


def sum_of_accounts(wire):
    """The sum of all accounts, read in one block."""
    replies = no_error(wire.pipeline([("MULTI",), *[("GET", f"account:{index}")
                                                    for index in range(ACCOUNTS)], ("EXEC",)]))
    return sum(int(value) for value in replies[-1])


def open_accounts(port):
    with Wire(port) as wire:
        for index in range(ACCOUNTS):
            wire.call("SET", f"account:{index}", START_BALANCE)


def test_bank_sums_are_exact_at_all_times(server):
    end = time.monotonic() + (60 if LONG else 5)
    open_accounts(server.port)
    sums = []

    def work(number):
        rng = random.Random(number)
        with Wire(server.port, timeout=30) as wire:
            while time.monotonic() < end:
                if number < 8:
                    transfer_somehow(wire, rng)
                else:
                    sums.append(sum_of_accounts(wire))

    run_threads(10, work)
    assert sums and set(sums) == {ACCOUNTS * START_BALANCE}


def bank_under_load(server, seconds, seed, sums, end_of_load):
    """Clients move amounts and sum all accounts, until `end_of_load` ends their connections."""
    begun = threading.Event()

    def work(number):
        rng = random.Random(f"{seed} {number}")
        try:
            with Wire(server.port, 2 + number % 2, timeout=30) as wire:
                while True:
                    if number < 8:
                        transfer_somehow(wire, rng)
                    else:
                        sums.append(sum_of_accounts(wire))
                    begun.set()
        except (OSError, Closed):
            pass  # the server ended

    def ender():
        assert begun.wait(30)
        time.sleep(seconds)
        end_of_load()

    run_threads(11, lambda number: ender() if number == 10 else work(number))


def test_opposite_orders_never_stall(server):
    seconds = 60 if LONG else 5
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
    assert max(slowest) < 1


def test_bank_survives_20_times_kill_9():
    rng = random.Random(int(os.environ.get("TALLYMAN_SEED", "1")))
    exact = ACCOUNTS * START_BALANCE
    sums = []
    with Server(options={"shards": 3}) as server:
        open_accounts(server.port)
        for _ in range(20):
            seconds = rng.uniform(0.05, 2 if LONG else 0.3)
            bank_under_load(server, seconds, rng.random(), sums, server.kill9)
            server.options["shards"] = rng.randint(1, 5)
            server.start()
            with Wire(server.port) as wire:
                assert sum_of_accounts(wire) == exact
    assert sums and set(sums) == {exact}


def test_shutdown_while_shards_are_lent_ends_in_time_and_loses_nothing():
    exact = ACCOUNTS * START_BALANCE
    sums = []
    with Server(options={"shards": 3}) as server:
        open_accounts(server.port)
        for how in ("SHUTDOWN", "signal", "SHUTDOWN"):
            def end():
                begun = time.monotonic()
                if how == "signal":
                    assert server.stop() == 0
                else:
                    with Wire(server.port, timeout=30) as wire:
                        wire.send(b"SHUTDOWN\r\n")
                        assert server.wait_end(30) == 0
                assert time.monotonic() - begun < 20

            bank_under_load(server, 0.3, how, sums, end)
            server.start()
            with Wire(server.port) as wire:
                assert sum_of_accounts(wire) == exact
    assert sums and set(sums) == {exact}


def test_clients_that_are_killed_or_leave_bring_every_shard_home(server):
    """Whatever happens to a client in the middle of a lending, nobody waits for it."""
    open_accounts(server.port)
    end = time.monotonic() + (30 if LONG else 4)
    sums, slowest = [], [0.0]

    def victim(number):
        rng = random.Random(number)
        while time.monotonic() < end:
            try:
                with Wire(server.port, timeout=30) as wire:
                    for _ in range(rng.randint(1, 30)):
                        transfer_somehow(wire, rng)
                    a, b, amount = two_accounts(rng)
                    # Leaves without waiting for the replies, sometimes in the middle of a block.
                    pipeline = (f"WATCH {a} {b}\r\nMULTI\r\nINCRBY {a} {amount}\r\nINCR text\r\n"
                                f"DECRBY {b} {amount}\r\nEXEC\r\n") * rng.randint(1, 20)
                    wire.send(pipeline.encode()[:rng.choice([None, rng.randint(1, 400)])])
            except (OSError, Closed):
                pass  # killed

    def killer(wire, rng):
        for line in wire.call("CLIENT", "LIST").decode().splitlines():
            fields = dict(part.split("=", 1) for part in line.split(" "))
            if fields["name"] != "safe" and rng.random() < 0.2:
                wire.call("CLIENT", "KILL", "ID", fields["id"])
        time.sleep(0.02)

    def work(number):
        if number < 8:
            return victim(number)
        with Wire(server.port, timeout=30) as wire:
            wire.call("CLIENT", "SETNAME", "safe")
            rng = random.Random(number)
            while time.monotonic() < end:
                if number == 8:
                    killer(wire, rng)
                    continue
                begun = time.monotonic()
                sums.append(sum_of_accounts(wire))
                slowest[0] = max(slowest[0], time.monotonic() - begun)
        return None

    with Wire(server.port) as wire:
        wire.call("SET", "text", "no number")
    run_threads(10, work)
    assert sums and set(sums) == {ACCOUNTS * START_BALANCE}
    assert slowest[0] < 2


def test_the_checker_of_histories_can_fail():
    first = Done(0, 1, {"a": 0}, frozenset("a"))
    assert not violations([first, Done(2, 3, {"a": 1}, frozenset("a"))])
    assert not violations([first, Done(0.5, 3, {"a": 0})]), "beside each other: either order"
    assert violations([first, Done(0, 1, {"a": 0}, frozenset("a"))]), "a lost update"
    assert violations([first, Done(2, 3, {"a": 2})]), "nobody wrote this"
    assert violations([first, Done(2, 3, {"a": 0})]), "a read of what was there before it began"
    torn = [Done(0, 9, {"a": 0, "b": 0}, frozenset("ab")), Done(0, 9, {"a": 1, "b": 0})]
    assert violations(torn), "half of a block"
    skew = [Done(0, 9, {"a": 0, "b": 0}, frozenset("a")),
            Done(0, 9, {"a": 0, "b": 0}, frozenset("b"))]
    assert violations(skew), "each read what the other one wrote, from before"


def test_watch_histories_are_serializable(server):
    """Read-then-set under WATCH over several keys, and blocks that only read."""
    end = time.monotonic() + (60 if LONG else 5)
    names = [f"version:{index}" for index in range(6)]
    histories = [[] for _ in range(8)]
    refused = [0] * 8

    def attempt(wire, rng, number):
        keys = rng.sample(names, rng.randint(1, 4))
        wrote = frozenset(rng.sample(keys, rng.randint(1, len(keys))))
        begun = time.monotonic()
        replies = no_error(wire.pipeline([("WATCH", *keys), *[("GET", key) for key in keys]]))
        reads = {key: int(value or 0) for key, value in zip(keys, replies[1:])}
        sets = [("SET", key, reads[key] + 1) for key in wrote]
        done = no_error(wire.pipeline([("MULTI",), *sets, ("EXEC",)]))[-1]
        if done:
            histories[number].append(Done(begun, time.monotonic(), reads, wrote))
        else:
            refused[number] += 1

    def read(wire, number):
        begun = time.monotonic()
        gets = [("GET", name) for name in names]
        values = no_error(wire.pipeline([("MULTI",), *gets, ("EXEC",)]))[-1]
        reads = {name: int(value or 0) for name, value in zip(names, values)}
        histories[number].append(Done(begun, time.monotonic(), reads))

    def work(number):
        rng = random.Random(number)
        with Wire(server.port, 2 + number % 2, timeout=30) as wire:
            while time.monotonic() < end:
                if rng.random() < 0.2:
                    read(wire, number)
                else:
                    attempt(wire, rng, number)

    run_threads(8, work)
    with Wire(server.port) as wire:
        last = {name: int(wire.call("GET", name) or 0) for name in names}
    history = [done for histories_of in histories for done in histories_of]
    history.append(Done(time.monotonic(), time.monotonic(), last))
    assert violations(history) == []
    for name in names:
        assert last[name] == sum(name in done.wrote for done in history)
    assert sum(refused) > 0, "nobody was ever in somebody's way"
    print(f"{len(history)} transactions, {sum(refused)} refused")


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


@pytest.mark.tallyman_only
def test_a_block_has_bounds(wire):
    wire.call("CONFIG", "SET", "multi-commands-max", 3)
    wire.call("CONFIG", "SET", "multi-bytes-max", "1mb")
    try:
        replies = wire.pipeline([("MULTI",), *[("INCR", "a")] * 4, ("EXEC",)])
        assert replies[3] == "QUEUED"
        assert replies[4] == "ERR more than 3 commands in a MULTI block"
        assert replies[5].startswith("EXECABORT")
        large = "x" * 600_000
        replies = wire.pipeline([("MULTI",), ("SET", "a", large), ("SET", "b", large), ("EXEC",)])
        assert replies[2] == "ERR more than 1048576 bytes in a MULTI block"
        assert replies[3].startswith("EXECABORT")
        assert wire.call("EXISTS", "a", "b") == 0
        assert wire.pipeline([("MULTI",), ("SET", "a", large), ("EXEC",)])[2] == ["OK"]
    finally:
        wire.call("CONFIG", "SET", "multi-commands-max", 65536)
        wire.call("CONFIG", "SET", "multi-bytes-max", "1gb")


def test_transactions_by_redis_py_helper(server, protocol):
    with connect(server, protocol) as client:
        assert client.transaction(lambda pipe: (pipe.multi(), pipe.incr("n"), pipe.incr("n")),
                                  "n") == [1, 2]
