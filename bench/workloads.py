"""The workloads of the bench and what each is meant to reach; a new row is a new line here.

A workload is a name or a template of bench/load (`load --list`, `load --help`), which is the client
of all rows. `peer` is what another server runs in its place where it lacks the command: a script.
Every server is filled with the keys before, and nothing else runs meanwhile.
"""

from dataclasses import dataclass, field

EVERY_FSYNC = ("always", "everysec", "no")
CHECKPOINTED = (("checkpoint-size", "128mb"),)


@dataclass(frozen=True)
class Goal:
    """What a row is meant to reach: `figure` is one of results.FIGURES."""

    figure: str
    bound: float
    pipelines: tuple = ()
    """Only at these depths; nothing: at all."""
    fsyncs: tuple = ("always",)
    part: str = ""
    """Of an open loop: which line."""


@dataclass(frozen=True)
class Workload:
    """One row, measured once per fsync mode and pipeline depth."""

    name: str
    load: str
    peer: str = ""
    clients: int = 50
    pipelines: tuple = (1, 16)
    fsyncs: tuple = ("always",)
    goals: tuple = ()
    value_bytes: int = 3
    reference: bool = False
    """Also measured on redis-server without persistence."""
    two_shards: bool = False
    """With `always` also measured on tallyman with one and with two shards."""
    beside: str = ""
    """Other clients at the same time. The row is run without them as well, and the table shows
    which share of that speed is left."""
    idle: int = 0
    """Connections that do nothing; the share as above, and what each takes of memory."""
    open_loop: tuple = ()
    """Parts of the own maximum that are sent at fixed moments, whatever the server does: latencies
    count from those moments. Each part is a line of the table."""
    saves: int = 0
    """Checkpoints that tallyman is told to make within each measurement."""
    sync_ms: int = 0
    """Every sync of every server's log takes so much longer."""
    keys: int = 0
    """Random keys; 0: as the command line says."""
    filled: tuple = ("key", "counter")
    """Prefixes of the keys that are there before."""
    setup: tuple = field(default=())
    """Templates that are run once for each key number before."""
    own: tuple = ()
    """Settings of tallyman, as pairs."""
    seconds: float = 0
    """At least so long per measurement; run with --long, or when --only names the row."""


def at_least(times, *pipelines, fsyncs=("always",)):
    """So many times the faster peer."""
    return Goal("peers", times, pipelines, fsyncs)


RELAXED = (at_least(1.0, 1, fsyncs=("everysec", "no")),
           at_least(1.2, 16, fsyncs=("everysec", "no")))
AGAINST_SCRIPT = (at_least(1.5),)
TWO_SHARDS = (Goal("two shards", 1.0),)

WORKLOADS = [
    Workload("incr", "INCR counter:{rand}", fsyncs=EVERY_FSYNC, reference=True, two_shards=True,
             goals=(at_least(1.3, 1), at_least(1.8, 16), Goal("reference", 1.0, (16,)), *RELAXED,
                    *TWO_SHARDS)),
    Workload("incr-10m-keys", "INCR counter:{rand}", pipelines=(16,), keys=10_000_000, seconds=60,
             filled=("counter",), own=CHECKPOINTED,
             goals=(at_least(1.0), Goal("checkpoints", 5))),
    Workload("incr-500-clients", "INCR counter:{rand}", clients=500, pipelines=(1,),
             goals=(at_least(1.3),)),
    Workload("incr-hot-key", "INCR hot", pipelines=(16,), goals=(at_least(2.0),)),
    Workload("set", "SET key:{rand} {value}", goals=(at_least(1.3),)),
    Workload("set-1kb", "SET key:{rand} {value}", value_bytes=1024, goals=(at_least(1.3),)),
    Workload("get", "GET key:{rand}", two_shards=True,
             goals=(at_least(1.0, 1), at_least(1.2, 16), *TWO_SHARDS)),
    Workload("get-beside-sets-2ms", "GET key:{rand}", pipelines=(1,), sync_ms=2,
             beside="clients=8 pipeline=1 workload=SET key:{rand} {value}",
             goals=(at_least(4.0), Goal("share", 0.8), Goal("p99", 2.0))),
    Workload("incr-open-loop", "INCR counter:{rand}", pipelines=(1,), saves=2,
             open_loop=(0.2, 0.4, 0.6, 0.7, 0.8, 0.9),
             goals=(Goal("p99.9 to peers", 1.0, part=" 70%"),)),
    Workload("incr-beside-10k-idle", "INCR counter:{rand}", pipelines=(1,), idle=10_000,
             goals=(Goal("share", 0.9), Goal("idle bytes", 1024))),
    Workload("mset-10", "mset-10", two_shards=True, goals=(Goal("peers, two shards", 0.5),)),
    Workload("mset-10-one-slot", "mset-10-one-slot"),
    Workload("block-5-one-key", "block-one-key", two_shards=True, goals=(at_least(1.0),)),
    Workload("block-5-one-shard", "block-one-shard", two_shards=True, goals=(at_least(1.0),)),
    Workload("block-5-any-shard", "block-any-shard", two_shards=True,
             goals=(Goal("peers, two shards", 0.5),)),
    Workload("incr-beside-blocks", "INCR counter:{rand}", two_shards=True,
             beside="clients=8 pipeline=1 rate=1000 workload=block-any-shard",
             goals=(Goal("share, two shards", 0.7),)),
    Workload("hincrby", "hincrby", setup=("HSET h:{rand} n 0",)),
    Workload("hincrby-beside-script", "hincrby", peer="hincrby-lua", setup=("HSET h:{rand} n 0",),
             goals=AGAINST_SCRIPT),
    Workload("hincrby-100k-fields", "hincrby-big", setup=("HSET big f{rand} 0",)),
    Workload("hincrby-100k-fields-beside-script", "hincrby-big", peer="hincrby-big-lua",
             setup=("HSET big f{rand} 0",), goals=AGAINST_SCRIPT),
    Workload("cl.throttle-beside-script", "throttle", peer="throttle-lua", goals=AGAINST_SCRIPT),
    Workload("setifidle-setidle-beside-script", "setifidle", peer="setifidle-lua",
             goals=AGAINST_SCRIPT),
    Workload("reserve-settle-beside-script", "reserve", peer="reserve-lua",
             setup=("HSET account:{rand} balance 1000000000000",), goals=AGAINST_SCRIPT),
    Workload("once-incr-beside-script", "once", peer="once-lua", goals=AGAINST_SCRIPT),
]
