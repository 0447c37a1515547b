"""The checker of histories tells right ones from wrong ones. (No server is asked here.)"""

import random

import pytest

from harness.linear import LOST, Op, is_linearizable

KEYS = ["n", "m", "cell"]


def verdict(*rows):
    """Rows are (began, ended, call, reply)."""
    return is_linearizable([Op(at, *row) for at, row in enumerate(rows)], KEYS)


INCR, GET, DEL = ("INCR", "n"), ("GET", "n"), ("DEL", "n")
TAKE_A = ("SETIFIDLE", "cell", "a", "A")
TAKE_B = ("SETIFIDLE", "cell", "b", "B")
BOTH = ("BLOCK", ("INCR", "n"), ("INCR", "m"))
LOOK = ("BLOCK", ("GET", "n"), ("GET", "m"))

RIGHT = {
    "one after the other": [(0, 1, INCR, 1), (2, 3, INCR, 2), (4, 5, GET, 2)],
    "at once, in either order": [(0, 9, INCR, 2), (0, 9, INCR, 1), (0, 9, GET, 1)],
    "a lost call that happened": [(0, 5, INCR, LOST), (6, 7, GET, 1)],
    "a lost call that did not happen": [(0, 5, INCR, LOST), (6, 7, GET, None)],
    "a lost call seen before the crash": [(0, 5, INCR, LOST), (1, 2, GET, 1), (6, 7, GET, 1)],
    "one holder": [(0, 9, TAKE_A, ("STARTED", 5, "a")), (0, 9, TAKE_B, ("BUSY", 5, "a"))],
    "a lost start whose token is seen later": [
        (0, 5, TAKE_A, LOST), (6, 7, TAKE_B, ("BUSY", 8, "a")),
        (8, 9, TAKE_A, ("RENEWED", 8, "a")), (10, 11, ("SETIDLE", "cell", 8), (1, 8))],
    "freed and taken": [
        (0, 1, TAKE_A, ("STARTED", 5, "a")), (2, 3, ("SETIDLE", "cell", 5), (1, 5)),
        (4, 5, TAKE_B, ("STARTED", 6, "b")), (6, 7, ("SETIDLE", "cell", 5), (0, 6))],
    "a block is seen whole": [(0, 9, BOTH, [1, 1]), (0, 9, LOOK, [1, 1]), (0, 9, LOOK, [None] * 2)],
    "a lost block is whole or not there": [(0, 5, BOTH, LOST), (6, 7, LOOK, [1, 1])],
}

WRONG = {
    "a lost update": [(0, 9, INCR, 1), (0, 9, INCR, 1)],
    "an acknowledged write is gone": [(0, 1, INCR, 1), (2, 3, GET, None)],
    "a stale read": [(0, 1, INCR, 1), (2, 3, INCR, 2), (4, 5, GET, 1)],
    "two readers disagree on the order": [
        (0, 9, ("SET", "n", 7), "OK"), (1, 2, GET, 7), (3, 4, GET, None)],
    "a value that nobody wrote": [(0, 1, GET, 3)],
    "what was seen before a crash is gone after it": [
        (0, 5, INCR, LOST), (1, 2, GET, 1), (6, 7, GET, None)],
    "a lost call that happens after the crash": [
        (0, 5, INCR, LOST), (6, 7, GET, None), (8, 9, GET, 1)],
    "a lost call that happens twice": [(0, 5, INCR, LOST), (6, 7, GET, 2)],
    "deleted twice": [(0, 1, INCR, 1), (2, 9, DEL, 1), (2, 9, DEL, 1)],
    "two holders": [(0, 9, TAKE_A, ("STARTED", 5, "a")), (0, 9, TAKE_B, ("STARTED", 6, "b"))],
    "a token used again": [
        (0, 1, TAKE_A, ("STARTED", 5, "a")), (2, 3, ("SETIDLE", "cell", 5), (1, 5)),
        (4, 5, TAKE_B, ("STARTED", 5, "b"))],
    "a late worker overwrites": [
        (0, 1, TAKE_A, ("STARTED", 5, "a")), (2, 3, ("SETIDLE", "cell", 5), (1, 5)),
        (4, 5, TAKE_B, ("STARTED", 6, "b")), (6, 7, ("SETIDLE", "cell", 5), (1, 5))],
    "half a block": [(0, 9, BOTH, [1, 1]), (0, 9, LOOK, [1, None])],
    "half of a lost block": [(0, 5, BOTH, LOST), (6, 7, LOOK, [None, 1])],
    "two tokens for one lost start": [
        (0, 5, TAKE_A, LOST), (6, 7, TAKE_B, ("BUSY", 8, "a")), (8, 9, TAKE_B, ("BUSY", 9, "a"))],
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_history_is_accepted(name):
    assert verdict(*RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_history_is_refused(name):
    assert not verdict(*WRONG[name])


def test_random_histories_with_one_reply_changed_are_refused():
    rng, refused = random.Random(5), 0
    for _ in range(200):
        # Right by construction: each call has its moment, and begins and ends around it.
        value, rows = 0, []
        for moment in range(0, 300, 10):
            if rng.random() < 0.6:
                value += 1
                rows.append([moment - rng.randrange(30), moment + rng.randrange(30), INCR, value])
            else:
                rows.append([moment - rng.randrange(30), moment + rng.randrange(30), GET,
                             value or None])
        assert verdict(*rows)
        row = rng.choice([row for row in rows if row[2] is INCR])
        row[3] += rng.choice([-1, 1])
        refused += not verdict(*rows)
    assert refused == 200
