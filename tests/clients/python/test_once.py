"""ONCE: a webhook delivered three times is credited once."""

import threading

import pytest
import redis

from conftest import connect
from harness.server import Server

pytestmark = pytest.mark.tallyman_only

CREDIT = ("ONCE", "credits:u1", "evt_9", "EX", 86400, "HINCRBY", "credits:u1", "balance", 500)


def test_a_webhook_delivered_three_times_is_credited_once(r):
    assert r.execute_command(*CREDIT) == [1, 500]
    assert r.execute_command(*CREDIT) == [0, 500]
    assert r.execute_command(*CREDIT) == [0, 500]
    assert r.hget("credits:u1", "balance") == "500"
    assert r.execute_command(*CREDIT[:-1], 501) == [-1, None]


def test_delivered_at_once_by_many(clients):
    first = []

    def work():
        first.append(clients().execute_command(*CREDIT)[0])

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(first) == [0] * 19 + [1]
    assert clients().hget("credits:u1", "balance") == "500"


def test_the_record_survives_del_and_kill_9_and_goes_with_flushdb(protocol):
    with Server(options={"shards": 2}) as server:
        with connect(server, protocol) as client:
            assert client.execute_command("ONCE", "n", "id", "EX", 600, "INCR", "n") == [1, 1]
            client.delete("n")
        server.kill9()
        server.options["shards"] = 3
        server.start()
        with connect(server, protocol) as client:
            assert client.execute_command("ONCE", "n", "id", "EX", 600, "INCR", "n") == [0, 1]
            assert client.dbsize() == 0
            client.flushdb()
            assert client.execute_command("ONCE", "n", "id", "EX", 600, "INCR", "n") == [1, 1]


def test_refusals_are_kept_and_errors_are_not(r):
    r.set("a", "x")
    once = ("ONCE", "a", "id1", "EX", 600)
    assert r.execute_command(*once, "SET", "a", "y", "NX") == [1, None]
    r.delete("a")
    assert r.execute_command(*once, "SET", "a", "y", "NX") == [0, None]
    r.set("a", "text")
    with pytest.raises(redis.ResponseError, match="not an integer"):
        r.execute_command("ONCE", "a", "id2", "EX", 600, "INCR", "a")
    r.set("a", 1)
    assert r.execute_command("ONCE", "a", "id2", "EX", 600, "INCR", "a") == [1, 2]


def test_what_is_not_a_write_of_that_one_key_is_refused(r):
    for command in (("GET", "n"), ("PING",), ("INCR", "other"), ("MSET", "n", 1, "m", 2),
                    ("ONCE", "n", "id2", "EX", 5, "INCR", "n"), ("NOSUCH", "n")):
        with pytest.raises(redis.ResponseError):
            r.execute_command("ONCE", "n", "id", "EX", 600, *command)
    assert r.dbsize() == 0
