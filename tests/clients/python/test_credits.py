"""Credits: reserve, then settle; no overdraft, whatever happens at once."""

import random
import threading
import time

import pytest

from conftest import connect
from harness.server import Server

pytestmark = pytest.mark.tallyman_only


def reserve(client, account, name, amount, *options):
    return client.execute_command("RESERVE", account, name, amount, *(options or ("EX", 60)))


def settle(client, account, name, token, amount, *options):
    return client.execute_command("SETTLE", account, name, token, amount, *options)


def test_reserve_and_settle(r):
    r.hset("acc", "balance", 100)
    status, token, available, held = reserve(r, "acc", "job", 30)
    assert (status, available, held) == (1, 70, 30) and token > 0
    assert reserve(r, "acc", "job", 30) == [1, token, 70, 30]
    assert reserve(r, "acc", "job", 31)[0] == -1
    assert reserve(r, "acc", "big", 71)[0] == 0
    assert settle(r, "acc", "job", token + 1, 20)[0] == 0
    assert settle(r, "acc", "job", token, 40)[0] == -1
    assert settle(r, "acc", "job", token, 20)[:3] == [1, 20, 80]
    assert settle(r, "acc", "job", token, 20)[:3] == [1, 20, 80]
    assert r.hget("acc", "balance") == "80"
    assert r.hexists("acc", "settled:job") and not r.hexists("acc", "hold:job")


def test_settling_more_than_was_held(r):
    r.hset("acc", "balance", 100)
    token = reserve(r, "acc", "a", 30)[1]
    assert settle(r, "acc", "a", token, 50, "OVERDRAFT", "CLAMP")[:3] == [1, 30, 70]
    token = reserve(r, "acc", "b", 30)[1]
    assert settle(r, "acc", "b", token, 100, "OVERDRAFT", "ALLOW")[:3] == [1, 100, -30]
    assert r.hget("acc", "balance") == "-30"


def test_releasing_and_reserving_again(r):
    r.hset("acc", "balance", 10)
    token = reserve(r, "acc", "a", 10)[1]
    assert settle(r, "acc", "a", token, 0)[:3] == [1, 0, 10]
    again = reserve(r, "acc", "a", 10)
    assert again[0] == 1 and again[1] > token


def test_holds_end_at_their_deadline(r):
    r.hset("acc", "balance", 10)
    token = reserve(r, "acc", "back", 4, "PX", 60)[1]
    reserve(r, "acc", "charged", 3, "PX", 60, "ONEXPIRE", "CHARGE")
    time.sleep(0.25)
    assert r.hget("acc", "balance") == "7"
    assert not r.hexists("acc", "hold:back") and not r.hexists("acc", "hold:charged")
    assert settle(r, "acc", "back", token, 4)[0] == 0
    assert reserve(r, "acc", "all", 7)[:1] == [1]


def test_the_lower_bound(r):
    r.hset("acc", "balance", 5)
    assert reserve(r, "acc", "a", 6)[0] == 0
    assert reserve(r, "acc", "a", 15, "EX", 60, "LBOUND", -10)[0::2] == [1, -10]


def test_no_overdraft_under_many_clients(clients):
    first = clients()
    first.hset("acc", "balance", 1000)
    charged, lock = [], threading.Lock()

    def work(number):
        client, rng = clients(), random.Random(number)
        for index in range(30):
            name, amount = f"{number}:{index}", rng.randint(1, 20)
            status, token, available, _ = reserve(client, "acc", name, amount)
            assert available >= 0
            if status == 1:
                used = rng.randint(0, amount)
                assert settle(client, "acc", name, token, used)[:2] == [1, used]
                with lock:
                    charged.append(used)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert int(first.hget("acc", "balance")) == 1000 - sum(charged) >= 0


def test_the_balance_sheet_after_kill_9(protocol):
    """balance = start - settled, for what was acknowledged and at most one step more each."""
    with Server(options={"shards": 2}) as server:
        with connect(server, protocol) as client:
            client.hset("acc", "balance", 1_000_000)
        least, most = [0] * 8, [0] * 8

        def work(number):
            try:
                with connect(server, protocol) as client:
                    for index in range(100_000):
                        token = reserve(client, "acc", f"{number}:{index}", 5)[1]
                        most[number] += 3
                        settle(client, "acc", f"{number}:{index}", token, 3)
                        least[number] += 3
            except Exception:  # noqa: BLE001
                pass  # the server was killed

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.7)
        server.kill9()
        for thread in threads:
            thread.join(timeout=60)
        server.options["shards"] = 3
        server.start()
        with connect(server, protocol) as client:
            spent = 1_000_000 - int(client.hget("acc", "balance"))
            assert sum(least) <= spent <= sum(most)
