"""Is a history linearizable? A search in the manner of Wing, Gong and Lowe, with a memo.

A history is a list of `Op`: who called what, when, and what came back when. It is right if every
call can be given one moment between call and reply such that, in the order of these moments, a
single machine would have given exactly these replies. A call without a reply (the server was
killed) either happened at a moment before the crash or never.

The machine here is a handful of keys that blocks may touch together: each key is (value, last
token), where a value is None, an integer, or the state cell (text, owner, token). The token of a
cell whose reply was lost is `UNKNOWN` until somebody sees it.
"""

from dataclasses import dataclass

UNKNOWN = 0
NODES_MAX = 2_000_000


@dataclass
class Op:
    """One call. `reply` is `LOST` when there was none; `ended` is then the time of the crash."""

    client: int
    began: int
    ended: int
    call: tuple
    reply: object

    def __str__(self):
        return f"[{self.began / 1e6:.3f}, {self.ended / 1e6:.3f}] client {self.client}: " \
            f"{' '.join(map(str, self.call))} -> {self.reply!r}"


class Lost:
    """The reply that never came."""

    def __repr__(self):
        return "(lost)"


LOST = Lost()


class TooHard(Exception):
    """The search was given up."""


def is_linearizable(ops, keys):
    """Whether there is an order that explains every reply. `keys` names the keys."""
    ops = sorted(ops, key=lambda op: op.began)
    assert all(op.began <= op.ended for op in ops), "a call ended before it began"
    everything = (1 << len(ops)) - 1
    start = (0, tuple((None, UNKNOWN) for _ in keys))
    index = {key: number for number, key in enumerate(keys)}
    seen, stack = {start}, [start]
    while stack:
        done, state = stack.pop()
        if done == everything:
            return True
        if len(seen) > NODES_MAX:
            raise TooHard(f"more than {NODES_MAX} states")
        for at in candidates(ops, done):
            for after in outcomes(ops[at], state, index):
                node = (done | 1 << at, after)
                if node not in seen:
                    seen.add(node)
                    stack.append(node)
    return False


def candidates(ops, done):
    """The calls that may be next: those that began before every open one ended."""
    at = (~done & (done + 1)).bit_length() - 1
    ended = None
    found = []
    while at < len(ops) and (ended is None or ops[at].began <= ended):
        if not done >> at & 1:
            found.append(at)
            ended = ops[at].ended if ended is None else min(ended, ops[at].ended)
        at += 1
    return [at for at in found if ops[at].began <= ended]


def outcomes(op, state, index):
    """The states that the call may lead to, given what it replied."""
    if op.call[0] == "BLOCK":
        calls = op.call[1:]
        replies = [LOST] * len(calls) if op.reply is LOST else op.reply
        after = state
        for call, reply in zip(calls, replies):
            after = step(after, index[call[1]], call, reply)
            if after is None:
                break
    else:
        after = step(state, index[op.call[1]], op.call, op.reply)
    found = [] if after is None else [after]
    if op.reply is LOST:
        found.append(state)
    return found


def step(state, at, call, reply):
    """The state after one command on one key; None if it cannot reply that."""
    after = KINDS[call[0]](*state[at], call, reply)
    if after is None:
        return None
    return state[:at] + (after,) + state[at + 1:]


def text_of(value):
    """What GET says."""
    return value[0] if isinstance(value, tuple) else value


def get(value, last, _, reply):
    return (value, last) if reply is LOST or reply == text_of(value) else None


def put(_, last, call, reply):
    return (call[2], last) if reply in (LOST, "OK") else None


def increase(value, last, _, reply):
    after = (value or 0) + 1
    return (after, last) if reply is LOST or reply == after else None


def delete(value, last, _, reply):
    return (None, last) if reply is LOST or reply == int(value is not None) else None


def start(value, last, call, reply):
    """SETIFIDLE key text owner -> (status, token, text)."""
    _, _, text, owner = call
    if value is None:
        if reply is LOST:
            return (text, owner, UNKNOWN), last
        status, token, said = reply
        fits = status == "STARTED" and token > last and said == text
        return ((text, owner, token), token) if fits else None
    old, holder, token = value
    expected, after = ("RENEWED", text) if holder == owner else ("BUSY", old)
    if reply is LOST:
        return (after, holder, token), last
    status, seen, said = reply
    token, last = bind(token, last, seen)
    if (status, said, seen) != (expected, after, token):
        return None
    return (after, holder, token), last


def finish(value, last, call, reply):
    """SETIDLE key token -> (1, token) or (0, the current token)."""
    given = call[2]
    token = value[2] if isinstance(value, tuple) else UNKNOWN
    if reply is LOST:
        return (None, last) if token and token == given else (value, last)
    done, seen = reply
    if value is None:
        return (value, last) if (done, seen) == (0, 0) else None
    token, last = bind(token, last, seen)
    if seen != token or done != (token == given):
        return None
    return (None if done else (value[0], value[1], token), last)


def bind(token, last, seen):
    """The token of a lost reply becomes known; it has to be a new one."""
    if token == UNKNOWN and seen > last:
        return seen, seen
    return token, last


KINDS = {"GET": get, "SET": put, "INCR": increase, "DEL": delete, "SETIFIDLE": start,
         "SETIDLE": finish}
