"""Pipelines without MULTI: replies come in request order, however deep the pipeline is."""

import random
import threading

import pytest
import redis


def test_replies_come_in_request_order(r):
    pipe = r.pipeline(transaction=False)
    for index in range(5000):
        pipe.set(f"k{index % 97}", index)
        pipe.get(f"k{index % 97}")
        pipe.incr(f"counter:{index % 13}")
    replies = pipe.execute()
    expected = []
    for index in range(5000):
        expected += [True, str(index), index // 13 + 1]
    assert replies == expected


def test_errors_stay_in_their_place(r):
    pipe = r.pipeline(transaction=False)
    pipe.set("a", "text").incr("a").set("b", 1).execute_command("NOSUCH").get("b")
    replies = pipe.execute(raise_on_error=False)
    assert [type(reply) for reply in replies] == [
        bool, redis.ResponseError, bool, redis.ResponseError, str]


def test_fan_outs_among_single_commands_keep_the_order(r):
    rng = random.Random(7)
    model, expected = {}, []
    pipe = r.pipeline(transaction=False)
    for index in range(2000):
        key = f"k{rng.randrange(40)}"
        many = [f"k{rng.randrange(40)}" for _ in range(5)]
        choice = rng.randrange(5)
        if choice == 0:
            pipe.set(key, index)
            model[key] = str(index)
            expected.append(True)
        elif choice == 1:
            pipe.get(key)
            expected.append(model.get(key))
        elif choice == 2:
            pipe.mget(many)
            expected.append([model.get(name) for name in many])
        elif choice == 3:
            pipe.delete(*many)
            expected.append(len({name for name in many if model.pop(name, None) is not None}))
        else:
            pipe.exists(*many)
            expected.append(sum(name in model for name in many))
    assert pipe.execute() == expected


def test_a_pipeline_of_a_hundred_thousand_commands(wire):
    replies = []
    reader = threading.Thread(
        target=lambda: replies.extend(wire.read() for _ in range(100_000)))
    reader.start()
    for start in range(0, 100_000, 1000):
        wire.send(b"".join(b"*2\r\n$4\r\nINCR\r\n$4\r\nc%03d\r\n" % (i % 500)
                           for i in range(start, start + 1000)))
    reader.join(timeout=120)
    assert replies == [index // 500 + 1 for index in range(100_000)]


def test_big_values_in_a_pipeline(rb):
    pipe = rb.pipeline(transaction=False)
    values = [bytes([index]) * 300_000 for index in range(40)]
    for index, value in enumerate(values):
        pipe.set(f"v{index}", value)
    for index in range(40):
        pipe.get(f"v{index}")
    replies = pipe.execute()
    assert replies == [True] * 40 + values


def test_own_writes_are_seen_by_own_reads(wire):
    commands = []
    for index in range(500):
        commands += [("SET", f"key{index}", index), ("GET", f"key{index}"), ("DBSIZE",),
                     ("DEL", f"key{index - 1}"), ("EXISTS", f"key{index - 1}", f"key{index}")]
    replies = wire.pipeline(commands)
    for index in range(500):
        # The key before is deleted only after DBSIZE was asked.
        expected = ["OK", str(index).encode(), 2 if index else 1, 1 if index else 0, 1]
        assert replies[index * 5:index * 5 + 5] == expected


@pytest.mark.parametrize("chunk", [1, 3, 7, 64])
def test_a_pipeline_cut_into_small_pieces(wire, chunk):
    raw = b"".join(b"*2\r\n$4\r\nINCR\r\n$1\r\n%c\r\n" % (97 + i % 5) for i in range(200))
    for start in range(0, len(raw), chunk):
        wire.send(raw[start:start + chunk])
    assert [wire.read() for _ in range(200)] == [index // 5 + 1 for index in range(200)]
