"""The stories, as applications would have them: many clients at once, and a server that is killed."""

import random
import threading
import time

import pytest
import redis

from conftest import connect
from harness.server import Server

pytestmark = pytest.mark.tallyman_only

JOIN_SECONDS = 120


def text(reply):
    return reply.decode() if isinstance(reply, bytes) else reply


def together(count, work):
    """Runs `work(number)` in so many threads that begin at once; returns what they returned."""
    barrier, results, failures = threading.Barrier(count), [None] * count, []

    def run(number):
        try:
            barrier.wait(timeout=JOIN_SECONDS)
            results[number] = work(number)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=JOIN_SECONDS)
    assert not failures, failures[0]
    assert not any(thread.is_alive() for thread in threads)
    return results


def test_one_request_per_user_is_processed_and_a_dead_worker_is_replaced_once(clients):
    pool, users = [clients() for _ in range(32)], 20

    def take(number):
        line = ("processing", "PX", 1_500)
        return [pool[number].execute_command("SETIFIDLE", f"user:{user}", *line)[:2]
                for user in range(users)]

    dead = {}
    for answers in together(32, take):
        for user, (status, token) in enumerate(answers):
            if text(status) == "STARTED":
                assert user not in dead, "two requests are processed"
                dead[user] = token
            else:
                assert text(status) == "BUSY"
    assert len(dead) == users
    # All workers die. When their leases have run out, each user gets one new worker.
    time.sleep(1.6)
    taken = [(user, token) for answers in together(32, take)
             for user, (status, token) in enumerate(answers) if text(status) == "STARTED"]
    assert sorted(user for user, _ in taken) == list(range(users))
    for user, token in taken:
        late = pool[0].execute_command("SETIDLE", f"user:{user}", dead[user])
        assert late == [0, token] and token > dead[user]
        assert pool[1].execute_command("SETIDLE", f"user:{user}", token) == [1, token]


def test_an_idempotency_key_under_concurrent_repeats(clients):
    pool = [clients() for _ in range(24)]

    def request(number):
        """What a request handler does: the work, or the stored answer."""
        client = pool[number]
        while True:
            status, token, _, value = client.execute_command(
                "SETIFIDLE", "idem:pay", "started", "PX", 60_000, "FP", "body-1")
            if text(status) == "STARTED":
                body = f"receipt {client.incr('payments')}"
                finish = ("SETIDLE", "idem:pay", token, "RESULT", body, "PX", 86_400_000)
                assert client.execute_command(*finish) == [1, token]
                return body
            if text(status) == "DONE":
                return text(value)
            assert text(status) == "BUSY"

    assert together(24, request) == ["receipt 1"] * 24
    other = pool[0].execute_command("SETIFIDLE", "idem:pay", "started", "PX", 1, "FP", "body-2")
    assert text(other[0]) == "MISMATCH"
    assert pool[0].get("payments") == "1"


def test_cancel_and_upgrade_race_and_none_is_lost(clients):
    pool, subscriptions = [clients() for _ in range(16)], 50
    tokens = [pool[0].execute_command("SETSTATE", f"sub:{number}", "upgrading")[2]
              for number in range(subscriptions)]

    def act(number):
        """Half of the clients are workers, half are the API; each takes its share."""
        client, answers = pool[number], {}
        for sub in range(number // 2, subscriptions, 8):
            if number % 2:
                call = ("cancelled", "FROM", 2, "active", "upgrading")
            else:
                call = ("active", "IFTOKEN", tokens[sub])
            answers[sub] = client.execute_command("SETSTATE", f"sub:{sub}", *call)
        return answers

    results = together(16, act)
    for sub in range(subscriptions):
        upgrade, cancel = results[sub % 8 * 2][sub], results[sub % 8 * 2 + 1][sub]
        assert cancel[0] == 1, "the cancel always applies"
        if upgrade[0] == 1:
            assert tokens[sub] < upgrade[2] < cancel[2]
        else:
            assert (text(upgrade[1]), upgrade[2]) == ("cancelled", cancel[2])
        assert pool[0].get(f"sub:{sub}") == "cancelled"


class Account:
    """AI credits on a server that is killed: each call is repeated until it was answered."""

    START = 1_500

    def __init__(self, server, protocol):
        self.server, self.protocol = server, protocol
        self.up = threading.Event()
        self.up.set()
        self.lock = threading.Lock()
        self.charged = self.finished = self.refused = 0

    def caller(self):
        """A client that finds the server again; RESERVE and SETTLE may be repeated."""
        client = None

        def call(*line):
            nonlocal client
            while True:
                assert self.up.wait(timeout=JOIN_SECONDS)
                try:
                    client = client or connect(self.server, self.protocol)
                    return client.execute_command(*line)
                except (redis.ConnectionError, redis.TimeoutError):
                    client = None
                    time.sleep(0.01)

        return call

    def work(self, number):
        call, rng = self.caller(), random.Random(number)
        for index in range(10):
            name, amount = f"{number}:{index}", rng.randint(1, 9)
            ending = rng.choice(("settle", "settle", "settle", "refund", "charge"))
            options = ("EX", 600) if ending == "settle" else ("PX", 300, "ONEXPIRE", ending)
            status, token, available, held = call("RESERVE", "acc", name, amount, *options)
            assert available >= 0 and held >= 0, "an overdraft"
            if status == 0:
                self.note(0, refused=1)
                continue
            assert status == 1
            used = {"settle": rng.randint(0, amount), "refund": 0, "charge": amount}[ending]
            if ending == "settle":
                assert call("SETTLE", "acc", name, token, used)[:2] == [1, used]
            self.note(used)

    def note(self, charged, refused=0):
        with self.lock:
            self.charged += charged
            self.refused += refused
            self.finished += 1

    def kill_in_the_middle(self):
        """Twice, and the second start has another number of shards."""
        for finished, shards in ((250, 2), (600, 3)):
            begun = time.monotonic()
            while self.finished < finished:
                assert time.monotonic() - begun < JOIN_SECONDS
                time.sleep(0.001)
            self.up.clear()
            self.server.kill9()
            self.server.options["shards"] = shards
            self.server.start()
            self.up.set()


def test_100_clients_reserve_and_settle_while_the_server_is_killed(protocol):
    with Server(options={"shards": 2}) as server:
        account = Account(server, protocol)
        with connect(server, protocol) as client:
            client.hset("acc", "balance", account.START)
        killer = threading.Thread(target=account.kill_in_the_middle)
        killer.start()
        together(100, account.work)
        killer.join(timeout=JOIN_SECONDS)
        assert account.finished == 1_000 and account.refused > 0
        time.sleep(0.4)
        with connect(server, protocol, decode_responses=True) as client:
            assert not [name for name in client.hkeys("acc") if name.startswith("hold:")]
            assert int(client.hget("acc", "balance")) == account.START - account.charged >= 0


def test_webhooks_delivered_three_times_by_many_are_credited_once(clients):
    pool, events = [clients() for _ in range(48)], 40

    def deliver(number):
        """Client n, n + 16 and n + 32 deliver the same events."""
        return [pool[number].execute_command(
                    "ONCE", "credits:u1", f"evt_{event}", "EX", 86_400,
                    "HINCRBY", "credits:u1", "balance", event + 1)
                for event in range(number % 16, events, 16)]

    answers = [answer for list_ in together(48, deliver) for answer in list_]
    assert len(answers) == 3 * events
    assert sum(first for first, _ in answers) == events
    assert len({balance for _, balance in answers}) == events
    assert pool[0].hget("credits:u1", "balance") == str(sum(range(events + 1)))


def test_64_clients_never_get_one_request_too_many(clients):
    pool, limit = [clients() for _ in range(64)], 100

    def ask(number):
        throttled = counted = 0
        for _ in range(5):
            call = ("CL.THROTTLE", "api:key1", limit - 1, 1, 3_600)
            throttled += 1 - pool[number].execute_command(*call)[0]
            call = ("INCREX", "window:key1", "UBOUND", limit, "EX", 3_600, "ENX")
            counted += pool[number].execute_command(*call)[1]
        return throttled, counted

    allowed = together(64, ask)
    assert sum(throttled for throttled, _ in allowed) == limit
    assert sum(counted for _, counted in allowed) == limit
    assert 3_590 <= pool[0].ttl("window:key1") <= 3_600
