"""Fixtures: one server per run, emptied before each test, and redis-py in RESP2 and RESP3."""

import sys
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from harness.server import Server, kind_under_test  # noqa: E402
from harness.wire import Wire  # noqa: E402


def pytest_collection_modifyitems(items):
    if kind_under_test() == "redis":
        skip = pytest.mark.skip(reason="redis-server 7.0 does not have this")
        for item in items:
            if item.get_closest_marker("tallyman_only"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def running_server():
    with Server(options={"shards": 2}) as server:
        yield server


@pytest.fixture
def server(running_server):
    """The shared server, emptied."""
    assert running_server.running(), f"the server has ended:\n{running_server.log_tail()}"
    with Wire(running_server.port) as wire:
        wire.call("FLUSHALL")
        wire.call("CONFIG", "RESETSTAT")
    return running_server


def connect(server, protocol, **options):
    """redis-py without retries, so that a lost connection fails the test."""
    return redis.Redis(port=server.port, protocol=protocol, retry=Retry(NoBackoff(), 0),
                       socket_timeout=20, **options)


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def protocol(request):
    return request.param


@pytest.fixture
def r(server, protocol):
    """A client that decodes replies."""
    with connect(server, protocol, decode_responses=True) as client:
        yield client


@pytest.fixture
def rb(server, protocol):
    """A client with replies in bytes."""
    with connect(server, protocol) as client:
        yield client


@pytest.fixture
def wire(server, protocol):
    """A raw connection."""
    with Wire(server.port, protocol) as connection:
        yield connection


@pytest.fixture
def clients(server, protocol):
    """Makes more clients; all are closed at the end."""
    made = []

    def make(**options):
        made.append(connect(server, protocol, **({"decode_responses": True} | options)))
        return made[-1]

    yield make
    for client in made:
        client.close()
