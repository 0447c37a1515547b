"""Checks that a history of transactions is strictly serializable.

Every key holds the number of its writes: a transaction that writes a key sets it to one more than
it read. So a value is a version, the writers of a key have one order, and every reader stands
between the writer of what it read and the writer of the next version. With the order of real time
(what had ended before another began comes first) these are the edges of a graph; the history is
strictly serializable if it has no circle.
"""

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Done:
    """A transaction that succeeded, by its client's clock."""

    begun: float
    ended: float
    reads: dict
    """Key: version that was read."""
    wrote: frozenset = field(default_factory=frozenset)
    """Keys that were set to one more than was read; all of them are in `reads`."""


def violations(history):
    """What is wrong with a history, as texts; empty if nothing is."""
    found = []
    writers = {}
    for number, done in enumerate(history):
        for key in done.wrote:
            version = done.reads[key] + 1
            if (key, version) in writers:
                found.append(f"lost update: {key} was set to {version} twice")
            writers[key, version] = number
    # Behind the transactions stand the moments at which one ended, each before the next one.
    ends = sorted({done.ended for done in history})
    after = [set() for _ in range(len(history) + len(ends))]

    def edge(first, second):
        if first != second:
            after[first].add(second)

    for index in range(len(ends) - 1):
        edge(len(history) + index, len(history) + index + 1)
    moment = {ended: len(history) + index for index, ended in enumerate(ends)}
    passed = 0
    for number, done in sorted(enumerate(history), key=lambda item: item[1].begun):
        edge(number, moment[done.ended])
        while passed < len(ends) and ends[passed] < done.begun:
            passed += 1
        if passed > 0:
            edge(len(history) + passed - 1, number)
    for number, done in enumerate(history):
        for key, version in done.reads.items():
            if version > 0 and (key, version) not in writers:
                found.append(f"{key} was read as {version}, which nobody wrote")
            elif version > 0:
                edge(writers[key, version], number)
            if (key, version + 1) in writers:
                edge(number, writers[key, version + 1])
    circle = left_over(after)
    if circle:
        shown = [str(history[number]) for number in circle if number < len(history)]
        found.append(f"no order explains {len(shown)} transactions, among them "
                     + "; ".join(shown[:4]))
    return found


def left_over(after):
    """Nodes on a circle, or behind one."""
    before = [0] * len(after)
    for nodes in after:
        for node in nodes:
            before[node] += 1
    ready = deque(node for node, count in enumerate(before) if count == 0)
    while ready:
        for node in after[ready.popleft()]:
            before[node] -= 1
            if before[node] == 0:
                ready.append(node)
    return [node for node, count in enumerate(before) if count > 0]
