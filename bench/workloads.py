"""The workloads of the bench: a list; a new row is a new line here.

A command is what redis-benchmark gets behind its options; it replaces `__rand_int__` by a random
number of 12 digits below the number of keys. `peer` is what another server runs in its place
where it lacks the command (a Lua script). Rows with `load` are run by our own load generator
(bench/load) instead, which can send blocks, and several kinds of clients at once. Every server is
filled with the keys before.
"""

from dataclasses import dataclass, field
from pathlib import Path

EVERY_FSYNC = ("always", "everysec", "no")
VALUE_1_KB = "x" * 1024


@dataclass(frozen=True)
class Workload:
    """One row, measured once per fsync mode and pipeline depth."""

    name: str
    command: tuple = ()
    peer: tuple | None = None
    clients: int = 50
    pipelines: tuple = (1, 16)
    fsyncs: tuple = ("always",)
    reference: bool = False
    """Also measured on the peers with persistence off."""
    later: bool = False
    """Only with --all: the commands are not built yet."""
    load: str = ""
    """A workload or template of bench/load; then `command` is not used."""
    beside: str = ""
    """Other clients of bench/load at the same time. The row is run without them as well, and the
    table shows what share of that is left."""
    two_shards: bool = False
    """Also measured on a tallyman with two shards, if its default is another number."""
    setup: tuple = field(default=())
    """Commands that are run once on each server before the first round."""


def hash_of(fields):
    """HSET commands that fill the hash `big` with so many fields."""
    step = 1000
    return tuple(("HSET", "big", *[part for i in range(start, start + step)
                                   for part in (f"f{i:012d}", "0")])
                 for start in range(0, fields, step))


SETIFIDLE_SCRIPT = (Path(__file__).parent / "lua" / "setifidle.lua").read_text()

THROTTLE_SCRIPT = """
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local interval = ARGV[3] * 1000000 / ARGV[2]
local tolerance = interval * (ARGV[1] + 1)
local tat = tonumber(redis.call('GET', KEYS[1]) or now)
local new = math.max(now, tat) + interval
if now < new - tolerance then return {1, 0} end
redis.call('SET', KEYS[1], string.format('%.0f', new), 'PX', math.ceil((new - now) / 1000))
return {0, math.floor((tolerance - (new - now)) / interval)}
"""

ONCE_INCR_SCRIPT = """
local kept = redis.call('GET', KEYS[1] .. ':once:' .. ARGV[1])
if kept then return {0, tonumber(kept)} end
local reply = redis.call('INCR', KEYS[1])
redis.call('SET', KEYS[1] .. ':once:' .. ARGV[1], reply, 'EX', ARGV[2])
return {1, reply}
"""

WORKLOADS = [
    Workload("incr", ("INCR", "counter:__rand_int__"), fsyncs=EVERY_FSYNC, reference=True),
    Workload("set", ("SET", "key:__rand_int__", "xxx"), fsyncs=EVERY_FSYNC, reference=True),
    Workload("get", ("GET", "key:__rand_int__"), fsyncs=EVERY_FSYNC, reference=True),
    Workload("incr-500-clients", ("INCR", "counter:__rand_int__"), clients=500, pipelines=(1,)),
    Workload("incr-hot-key", ("INCR", "hot"), pipelines=(16,)),
    Workload("set-1kb", ("SET", "key:__rand_int__", VALUE_1_KB)),
    Workload("mset-10", ("MSET", *[part for _ in range(10)
                                   for part in ("key:__rand_int__", "xxx")])),
    Workload("mset-10-one-slot", ("MSET", *[part for i in range(10)
                                            for part in (f"{{a}}{i}:__rand_int__", "xxx")])),
    Workload("block-5-one-key", load="block-one-key", two_shards=True),
    Workload("block-5-one-shard", load="block-one-shard", two_shards=True),
    Workload("block-5-any-shard", load="block-any-shard", two_shards=True),
    Workload("block-mset-10", load="mset-10", two_shards=True),
    Workload("incr-beside-blocks", load="incr", two_shards=True,
             beside="clients=8 pipeline=1 rate=1000 workload=block-any-shard"),
    Workload("hincrby", ("HINCRBY", "h:__rand_int__", "n", "1"), later=True),
    Workload("hincrby-100k-fields", ("HINCRBY", "big", "f__rand_int__", "1"), later=True,
             setup=hash_of(100_000)),
    Workload("setifidle", ("SETIFIDLE", "state:__rand_int__", "busy", "PX", "60000"),
             peer=("EVAL", SETIFIDLE_SCRIPT, "1", "state:__rand_int__", "busy", "60000"),
             later=True),
    Workload("cl.throttle", ("CL.THROTTLE", "rate:__rand_int__", "15", "30", "60"),
             peer=("EVAL", THROTTLE_SCRIPT, "1", "rate:__rand_int__", "15", "30", "60")),
    Workload("once-incr", ("ONCE", "once:__rand_int__", "id", "EX", "600", "INCR",
                           "once:__rand_int__"),
             peer=("EVAL", ONCE_INCR_SCRIPT, "1", "once:__rand_int__", "id", "600"), later=True),
]
