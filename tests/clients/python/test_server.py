"""The server family through redis-py."""

import threading
import time

import pytest
import redis

from harness.server import Server
from harness.wire import Error, Map, Wire

INFO_FIELDS = {
    "Server": "redis_version redis_mode os arch_bits process_id run_id tcp_port "
              "uptime_in_seconds uptime_in_days hz config_file executable",
    "Clients": "connected_clients maxclients blocked_clients",
    "Memory": "used_memory used_memory_human used_memory_rss used_memory_peak maxmemory "
              "maxmemory_policy",
    "Persistence": "loading aof_enabled rdb_changes_since_last_save rdb_bgsave_in_progress "
                   "rdb_last_save_time aof_last_write_status",
    "Stats": "total_connections_received total_commands_processed instantaneous_ops_per_sec "
             "rejected_connections expired_keys evicted_keys keyspace_hits keyspace_misses "
             "total_net_input_bytes total_net_output_bytes",
    "Replication": "role connected_slaves master_repl_offset",
    "CPU": "used_cpu_sys used_cpu_user",
}


def test_info_has_the_sections_and_fields_that_tools_read(r, wire):
    for section, names in INFO_FIELDS.items():
        info = r.info(section.lower())
        missing = [name for name in names.split() if name not in info]
        assert not missing, f"{section} lacks {missing}"
        reply = wire.call("INFO", section.lower())
        text = getattr(reply, "text", reply).decode()
        assert text.startswith(f"# {section}\r\n") and text.endswith("\r\n")
    everything = r.info()
    for names in INFO_FIELDS.values():
        assert all(name in everything for name in names.split())
    assert r.info("server")["redis_version"].startswith("7.")
    assert r.info("server", "clients")["connected_clients"] >= 1


def test_info_keyspace_counts_keys_and_deadlines(r):
    r.mset({"a": 1, "b": 2, "c": 3})
    r.expire("a", 100)
    space = r.info("keyspace")["db0"]
    assert (space["keys"], space["expires"]) == (3, 1)
    assert space["avg_ttl"] >= 0


def test_info_counts_commands_and_hits(r):
    # Counters may reach INFO a moment late.
    time.sleep(0.5)
    before = r.info("stats")
    r.set("a", 1)
    r.get("a")
    r.get("missing")
    end = time.monotonic() + 2
    while (after := r.info("stats"))["keyspace_misses"] == before["keyspace_misses"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert after["keyspace_hits"] - before["keyspace_hits"] == 1
    assert after["keyspace_misses"] - before["keyspace_misses"] == 1
    assert after["total_commands_processed"] - before["total_commands_processed"] >= 4
    stats = r.info("commandstats")
    assert stats["cmdstat_set"]["calls"] >= 1
    errors = r.info("errorstats")
    with pytest.raises(redis.ResponseError):
        r.execute_command("NOSUCH")
    assert r.info("errorstats") != errors


@pytest.mark.tallyman_only
def test_info_tallyman_section(r):
    info = r.info("tallyman")
    assert "durable_lsn" in info
    assert "tallyman_version" in r.info("server")


def test_dbsize_and_flush(r, clients):
    other = clients(db=1)
    r.mset({f"k{i}": i for i in range(100)})
    other.set("x", 1)
    assert r.dbsize() == 100
    assert r.flushdb() is True
    assert (r.dbsize(), other.dbsize()) == (0, 1)
    r.set("a", 1)
    assert r.flushall(asynchronous=True) is True
    assert (r.dbsize(), other.dbsize()) == (0, 0)
    assert r.get("a") is None
    r.set("a", 2)
    assert r.get("a") == "2"


def test_swapdb(r, clients):
    other = clients(db=1)
    r.set("a", "zero")
    other.set("a", "one")
    assert r.swapdb(0, 1) is True
    assert (r.get("a"), other.get("a")) == ("one", "zero")
    r.swapdb(0, 1)
    assert (r.get("a"), other.get("a")) == ("zero", "one")


def test_time_and_lastsave(r):
    seconds, micros = r.time()
    assert abs(seconds - time.time()) < 60
    assert 0 <= micros < 1_000_000
    assert r.lastsave().timestamp() <= time.time() + 60


def test_save_bgsave_and_bgrewriteaof(r):
    r.set("a", 1)
    for command in ("SAVE", "BGREWRITEAOF", "BGSAVE", "SAVE"):
        for _ in range(200):
            try:
                assert r.execute_command(command)
                break
            except redis.ResponseError:
                time.sleep(0.05)
        else:
            raise AssertionError(f"{command} stayed refused")


def test_config_get_and_set(r):
    assert r.config_get("appendfsync") == {"appendfsync": "always"}
    both = r.config_get("appendfsync", "databases")
    assert both == {"appendfsync": "always", "databases": "16"}
    assert "maxclients" in r.config_get("max*")
    assert r.config_get("nosuch") == {}
    assert r.config_set("slowlog-log-slower-than", 5000) is True
    assert r.config_get("slowlog-log-slower-than")["slowlog-log-slower-than"] == "5000"
    r.config_set("slowlog-log-slower-than", 10000)
    with pytest.raises(redis.ResponseError, match="Unknown option"):
        r.config_set("nosuch", 1)
    with pytest.raises(redis.ResponseError):
        r.config_set("appendfsync", "sometimes")
    assert r.config_get("appendfsync") == {"appendfsync": "always"}


def test_config_set_takes_all_or_nothing(r):
    before = r.config_get("timeout")["timeout"]
    with pytest.raises(redis.ResponseError):
        r.execute_command("CONFIG", "SET", "timeout", "77", "appendfsync", "sometimes")
    assert r.config_get("timeout")["timeout"] == before


def test_appendfsync_changes_live(r):
    for mode in ("everysec", "no", "always"):
        assert r.config_set("appendfsync", mode) is True
        assert r.config_get("appendfsync") == {"appendfsync": mode}
        assert r.incr("a") >= 1


def test_slowlog(r):
    r.slowlog_reset()
    r.config_set("slowlog-log-slower-than", 0)
    try:
        r.set("slow", "value")
        r.ping()
    finally:
        r.config_set("slowlog-log-slower-than", 10000)
    rows = r.slowlog_get(100)
    assert b"SET slow value" in [row["command"] for row in rows] or \
        "SET slow value" in [row["command"] for row in rows]
    assert r.slowlog_len() == len(rows)
    assert r.slowlog_reset() is True
    assert r.slowlog_len() == 0


def test_latency_and_memory(r):
    assert r.execute_command("LATENCY", "LATEST") == []
    assert r.execute_command("LATENCY", "RESET") >= 0
    assert r.execute_command("LATENCY", "HISTORY", "command") == []
    assert isinstance(r.execute_command("LATENCY", "DOCTOR"), (str, bytes))
    r.set("a", "x" * 1000)
    assert r.memory_usage("a") >= 1000
    assert r.memory_usage("missing") is None
    assert "total.allocated" in r.memory_stats()
    assert r.memory_purge() is True
    assert isinstance(r.execute_command("MEMORY", "DOCTOR"), (str, bytes))


def test_object(r):
    r.mset({"i": 1, "s": "short", "l": "x" * 100})
    assert [r.object("encoding", key) for key in ("i", "s", "l")] == ["int", "embstr", "raw"]
    assert r.object("idletime", "i") in (0, 1)
    assert r.object("refcount", "s") >= 1
    assert r.object("encoding", "missing") is None


def test_command_describes_the_commands(r, wire):
    table = r.command()
    assert r.command_count() >= 90
    assert table["get"]["arity"] == 2
    assert "readonly" in table["get"]["flags"]
    assert (table["mset"]["first_key_pos"], table["mset"]["last_key_pos"]) == (1, -1)
    assert table["mset"]["step_count"] == 2
    assert r.command_getkeys("MSET", "a", 1, "b", 2) == ["a", "b"]
    names = r.command_list()
    assert "get" in names and len(names) == len(set(names))
    assert b"summary" in str(wire.call("COMMAND", "DOCS", "get")).encode()


def pairs(reply):
    return dict(reply if isinstance(reply, Map) else zip(reply[::2], reply[1::2]))


def check_argument(path, argument):
    fields = pairs(argument)
    assert {b"name", b"type"} <= set(fields), (path, fields)
    inner = fields.get(b"arguments", [])
    # redis-cli ends with a fault on a choice or block without parts.
    assert inner or fields[b"type"] not in (b"oneof", b"block"), (path, fields)
    for part in inner:
        check_argument([*path, fields[b"name"]], part)


def check_docs(path, docs):
    fields = pairs(docs)
    assert {b"summary", b"since", b"group"} <= set(fields), (path, fields)
    for argument in fields.get(b"arguments", []):
        check_argument(path, argument)
    for name, inner in pairs(fields.get(b"subcommands", [])).items():
        check_docs([*path, name], inner)


def test_every_listed_command_has_docs_that_redis_cli_can_read(wire):
    docs = pairs(wire.call("COMMAND", "DOCS"))
    names = {name for name in wire.call("COMMAND", "LIST") if b"|" not in name}
    assert names == set(docs)
    for name, fields in docs.items():
        check_docs([name], fields)


def test_wait_and_role(r):
    r.set("a", 1)
    assert r.wait(0, 0) == 0
    assert r.role()[0] in ("master", b"master")


@pytest.mark.tallyman_only
def test_waitaof(r):
    r.set("a", 1)
    assert r.waitaof(1, 0, 1000) == [1, 0]
    begun = time.monotonic()
    assert r.waitaof(1, 1, 100) == [1, 0]
    assert 0.05 < time.monotonic() - begun < 5
    for mode in ("everysec", "no"):
        r.config_set("appendfsync", mode)
        try:
            r.set("a", 2)
            assert r.waitaof(1, 0, 10_000) == [1, 0]
        finally:
            r.config_set("appendfsync", "always")


def test_monitor_shows_commands(server, r):
    with Wire(server.port) as watcher:
        assert watcher.call("MONITOR") == "OK"
        r.set("watched", "value")
        for _ in range(50):
            line = watcher.read()
            if '"SET" "watched" "value"' in line:
                assert " [0 127.0.0.1:" in line
                return
    raise AssertionError("the command was not shown")


def test_lolwut(r):
    assert "ver" in str(r.lolwut())


def test_debug_is_off_unless_enabled():
    with Server(options={"enable-debug-command": "no"}) as server, Wire(server.port) as wire:
        assert isinstance(wire.call("DEBUG", "SLEEP", "0"), Error)


def test_debug_sleep_reload_and_loadaof():
    with Server(options={"enable-debug-command": "yes"}) as server, Wire(server.port) as wire:
        assert wire.call("DEBUG", "SLEEP", "0.01") == "OK"
        assert wire.call("DEBUG", "SET-ACTIVE-EXPIRE", "0") == "OK"
        assert wire.call("DEBUG", "SET-ACTIVE-EXPIRE", "1") == "OK"
        for index in range(200):
            wire.call("SET", f"k{index}", index)
        wire.call("SET", "t", "1", "EX", "1000")
        for how in ("RELOAD", "LOADAOF"):
            assert wire.call("DEBUG", how) == "OK"
            assert wire.call("DBSIZE") == 201
            assert wire.call("GET", "k77") == b"77"
            assert 990 <= wire.call("TTL", "t") <= 1000


def test_shutdown_command_ends_the_server_and_keeps_the_data():
    with Server() as server:
        with Wire(server.port) as wire:
            wire.call("SET", "a", "1")
            wire.send(b"SHUTDOWN\r\n")
            assert wire.closed_by_peer(30)
        assert server.wait_end() == 0
        server.start()
        with Wire(server.port) as wire:
            assert wire.call("GET", "a") == b"1"


def test_shutdown_nosave_keeps_acknowledged_writes():
    with Server() as server:
        with Wire(server.port) as wire:
            wire.call("SET", "a", "1")
            wire.send(b"SHUTDOWN NOSAVE\r\n")
            assert wire.closed_by_peer(30)
        assert server.wait_end() == 0
        server.start()
        with Wire(server.port) as wire:
            assert wire.call("GET", "a") == b"1"


def test_many_clients_at_once_see_every_increment(clients):
    threads, per_thread = 16, 200
    errors = []

    def work():
        try:
            client = clients()
            for _ in range(per_thread):
                client.incr("shared")
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(timeout=60)
    assert not errors
    assert clients().get("shared") == str(threads * per_thread)
