"""The stories of state cells: who may work on this now, and did the world move on."""

import threading
import time

import pytest
import redis

pytestmark = pytest.mark.tallyman_only


def text(reply):
    return reply.decode() if isinstance(reply, bytes) else reply


def setifidle(client, key, state, *options):
    status, token, ms, value = client.execute_command("SETIFIDLE", key, state, *options)
    return text(status), token, ms, text(value)


def test_the_second_request_is_dropped_while_the_first_is_processed(r, clients):
    other = clients()
    status, token, ms, value = setifidle(r, "user:7", "processing", "PX", 60_000)
    assert (status, value) == ("STARTED", "processing") and token > 0 and 0 < ms <= 60_000
    assert setifidle(other, "user:7", "processing", "PX", 60_000)[:2] == ("BUSY", token)
    assert r.execute_command("SETIDLE", "user:7", token) == [1, token]
    assert r.exists("user:7") == 0
    again = setifidle(other, "user:7", "processing", "PX", 60_000)
    assert again[0] == "STARTED" and again[1] > token
    assert r.execute_command("SETIDLE", "user:7", token) == [0, again[1]]


def test_a_dead_worker_loses_its_lease_and_the_late_one_is_refused(r):
    token = setifidle(r, "job", "working", "PX", 80)[1]
    time.sleep(0.15)
    status, new_token, _, _ = setifidle(r, "job", "working", "PX", 60_000)
    assert status == "STARTED" and new_token > token
    assert r.execute_command("SETIDLE", "job", token) == [0, new_token]
    assert r.execute_command("RENEW", "job", token, "EX", 100) == 0
    assert r.execute_command("RENEW", "job", new_token, "EX", 100) == 1
    assert 99 <= r.ttl("job") <= 100


def test_the_same_owner_may_repeat(r):
    status, token, _, _ = setifidle(r, "k", "working", "PX", 60_000, "OWNER", "req-1")
    assert status == "STARTED"
    assert setifidle(r, "k", "halfway", "OWNER", "req-1")[:2] == ("RENEWED", token)
    assert r.get("k") == "halfway" and 0 < r.pttl("k") <= 60_000
    assert setifidle(r, "k", "x", "OWNER", "req-2")[0] == "BUSY"


def test_idempotency_key(r):
    def start(body):
        return setifidle(r, "idem:42", "started", "PX", 60_000, "FP", body)

    status, token, _, _ = start("hash-1")
    assert status == "STARTED"
    assert start("hash-1")[0] == "BUSY"
    assert start("hash-2")[0] == "MISMATCH"
    finish = ("SETIDLE", "idem:42", token, "RESULT", '{"ok":true}', "PX", 86_400_000)
    assert r.execute_command(*finish) == [1, token]
    assert r.execute_command(*finish) == [1, token]
    assert start("hash-1")[0::3] == ("DONE", '{"ok":true}')
    assert start("hash-2")[0] == "MISMATCH"
    assert r.get("idem:42") == '{"ok":true}'


def test_a_kept_result_is_never_idle_whatever_its_text(r):
    token = setifidle(r, "k", "s")[1]
    assert r.execute_command("SETIDLE", "k", token, "RESULT", "idle") == [1, token]
    assert setifidle(r, "k", "s")[0::3] == ("DONE", "idle")


def test_cancel_against_upgrade_in_flight(r):
    def setstate(*arguments):
        applied, state, token = r.execute_command("SETSTATE", "sub:42", *arguments)
        return applied, text(state), token

    # The cancel comes first: the late worker is told.
    _, _, token = setstate("upgrading")
    assert setstate("cancelled", "FROM", 2, "active", "upgrading")[0] == 1
    assert setstate("active", "IFTOKEN", token)[:2] == (0, "cancelled")
    # The worker comes first: the cancel takes the upgraded subscription.
    _, _, token = setstate("upgrading")
    assert setstate("active", "IFTOKEN", token)[0] == 1
    assert setstate("cancelled", "FROM", 2, "active", "upgrading")[:2] == (1, "cancelled")
    assert r.get("sub:42") == "cancelled"


def test_tokens_grow_and_are_never_used_again(r):
    seen = []
    for _ in range(50):
        seen.append(setifidle(r, "k", "s")[1])
        r.delete("k")
    for _ in range(10):
        seen.append(setifidle(r, "k", "s")[1])
        r.flushall()
    assert seen == sorted(set(seen)) and seen[-1] < 2**53


def test_an_ordinary_write_makes_an_ordinary_string(r):
    setifidle(r, "k", "s")
    r.set("k", "plain")
    state, token, owner, ms = r.execute_command("GETSTATE", "k")
    assert (text(state), token, owner, ms) == ("plain", 0, None, -1)
    assert r.execute_command("GETSTATE", "missing") is None


def test_two_hundred_at_once_start_exactly_once(clients):
    rounds, threads = 1_000, 20
    barrier = threading.Barrier(threads)
    started = [[] for _ in range(rounds)]

    def work(client):
        for index in range(rounds):
            pipe = client.pipeline(transaction=False)
            for _ in range(10):
                pipe.execute_command("SETIFIDLE", f"race:{index}", "busy", "PX", 60_000)
            barrier.wait(timeout=30)
            started[index].extend(reply[1] for reply in pipe.execute()
                                  if text(reply[0]) == "STARTED")

    running = [threading.Thread(target=work, args=(clients(),)) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(timeout=120)
    assert [len(tokens) for tokens in started] == [1] * rounds
    assert len({tokens[0] for tokens in started}) == rounds


def test_wrong_arguments_are_named_and_change_nothing(r):
    for arguments, word in [(("k", ""), "SETIFIDLE: state"), (("k", "idle"), "SETIFIDLE: state"),
                            (("k", "s", "EX", "0"), "invalid expire time in 'setifidle' command"),
                            (("k", "s", "PXAT", "1"), "SETIFIDLE: the deadline"),
                            (("k", "s", "OWNER", ""), "SETIFIDLE: OWNER"),
                            (("k", "s", "OWNER"), "syntax error")]:
        with pytest.raises(redis.ResponseError, match=word):
            r.execute_command("SETIFIDLE", *arguments)
    assert r.exists("k") == 0
