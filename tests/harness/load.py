"""Load whose every effect can be verified: what clients send, and what may be there afterwards.

Each client has things of its own (strings, numbers, hashes, state cells, blocks over three keys, a
database that is flushed) with a model of their states, and takes part in what all share (counters,
a bank, limits; ONCE and credits where the server has them). A thing's model knows its state after
the last answered command and the commands that were sent since: after a crash, what is found has
to be one of the states between. Replies are compared with the model too.

Always true here: a command enters the model before it is sent, and counts as acknowledged when its
reply is read. A refusal (no space, no memory) is a reply: the command did not happen.
"""

import random
import threading
import time
from collections import deque

from harness.wire import Closed, Error, Nil, Wire, encode

COUNTERS = 400
ACCOUNTS = 24
KEYS_OF_A_KIND = 8
FIELDS = 8
BATCH_MAX = 200
AMOUNT_MAX = 9
LARGE_VALUE_BYTES = 20_000
BOUND = 20_000
# Of an interval of a million seconds each, so that none comes back; 292 years fit in a clock.
THROTTLE_MAX = 5_000
FLEETING_DATABASE, FLUSHED_DATABASE = 3, 4
FLEETING_MS_MAX = 400
FLEETING_SECONDS_MAX = 5
BALANCE = 10**12
# Far enough for any campaign; absolute, so that it can be compared exactly.
DEADLINE_MS = 4_000_000_000_000
REFUSALS = ("NOSPACE", "OOM")
ANY = object()


class Wrong(Exception):
    """The server said, or kept, what it must not."""


def plain(reply):
    """A reply with nulls as None, to be compared."""
    if isinstance(reply, Nil):
        return None
    if isinstance(reply, list):
        return [plain(item) for item in reply]
    return reply


class Chain:
    """A thing's state after the last answered command, and the unanswered commands in order.

    An operation maps a state (and, once it is known, the reply) to the next state and the reply
    that is expected. The kinds below choose commands: one command or a list of them, of which the
    last reply decides, and the operation.
    """

    def __init__(self):
        self.base = self.latest = None
        self.pending = deque()
        self.older = []
        self.token_max = 0

    def send(self, operation):
        """A command is about to be sent."""
        self.latest = operation(self.latest, None)[0]
        self.pending.append(operation)

    def answered(self, reply, keep_older):
        """The first unanswered command has its reply; True when it had its effect."""
        operation = self.pending.popleft()
        if refused(reply):
            self.recompute()
            return False
        if keep_older:
            self.older.append(self.base)
        state, expected = operation(self.base, reply)
        if expected is not ANY and reply != expected:
            raise Wrong(f"replied {reply!r}, expected {expected!r} in state {self.base!r}")
        self.base = state
        if not self.pending:
            self.latest = state
        return True

    def recompute(self):
        self.latest = self.base
        for operation in self.pending:
            self.latest = operation(self.latest, None)[0]

    def allowed(self, refusing):
        """The states that may be found after a crash.

        `refusing`: the server may have refused any of the unanswered commands for want of space.
        """
        if refusing:
            states = {repr(self.base): self.base}
            for operation in self.pending:
                nexts = [operation(state, None)[0] for state in states.values()]
                states |= {repr(state): state for state in nexts}
            return [*self.older, *states.values()]
        states, state = [*self.older, self.base], self.base
        for operation in self.pending:
            state = operation(state, None)[0]
            states.append(state)
        return states

    def found(self, state):
        """What was found is durable: the chain begins there."""
        self.base = self.latest = state
        self.pending.clear()
        self.older = []


def refused(reply):
    """The server said that it did not do it, for want of space or memory."""
    if isinstance(reply, Error):
        if reply.startswith(REFUSALS) or (reply.startswith("EXECABORT")):
            return True
        raise Wrong(f"error {reply!r}")
    return False


class Text:
    """A string with a deadline: None, or (value, deadline in ms or 0)."""

    name, weight = "text", 20

    @staticmethod
    def choose(rng, key, chain):
        odds = rng.randrange(100)
        value = b"%x" % rng.getrandbits(rng.choice((16, 64, 256)))
        until = DEADLINE_MS + rng.randrange(10**9)
        if odds < 2:
            value = bytes([rng.randrange(256)]) * LARGE_VALUE_BYTES
        if odds < 30:
            return ("SET", key, value), lambda s, r: ((value, 0), "OK")
        if odds < 40:
            return ("SET", key, value, "PXAT", until), lambda s, r: ((value, until), "OK")
        if odds < 55:
            return ("APPEND", key, value), Text.append(value)
        if odds < 65:
            at = rng.randrange(64)
            return ("SETRANGE", key, at, value), Text.set_range(at, value)
        if odds < 70:
            bit = rng.randrange(512)
            return ("SETBIT", key, bit, 1), Text.set_bit(bit)
        if odds < 78:
            return ("PEXPIREAT", key, until), \
                lambda s, r: ((s[0], until), 1) if s else (s, 0)
        if odds < 83:
            return ("PERSIST", key), \
                lambda s, r: ((s[0], 0), 1) if s and s[1] else (s, 0)
        if odds < 90:
            guess = chain.latest[0] if chain.latest and odds < 87 else b"no such value"
            return ("SET", key, value, "IFEQ", guess), \
                lambda s, r: ((value, 0), "OK") if s and s[0] == guess else (s, None)
        if odds < 95:
            return ("GETDEL", key), lambda s, r: (None, s and s[0])
        return ("DEL", key), lambda s, r: (None, int(bool(s)))

    @staticmethod
    def append(value):
        def operation(state, _):
            old, until = state or (b"", 0)
            return (old + value, until), len(old + value)
        return operation

    @staticmethod
    def set_range(at, value):
        def operation(state, _):
            old, until = state or (b"", 0)
            new = old[:at].ljust(at, b"\0") + value + old[at + len(value):]
            return (new, until), len(new)
        return operation

    @staticmethod
    def set_bit(bit):
        def operation(state, _):
            old, until = state or (b"", 0)
            new = bytearray(old.ljust(bit // 8 + 1, b"\0"))
            before = new[bit // 8] >> (7 - bit % 8) & 1
            new[bit // 8] |= 1 << (7 - bit % 8)
            return (bytes(new), until), before
        return operation

    @staticmethod
    def reads(key):
        return [("GET", key), ("PEXPIRETIME", key)]

    @staticmethod
    def state(replies):
        value, until = replies
        return None if value is None else (value, max(until, 0))


class Number:
    """A counter of one client: None or an integer."""

    name, weight = "number", 20

    @staticmethod
    def choose(rng, key, _):
        odds, amount = rng.randrange(100), rng.randrange(-1000, 1000)
        if odds < 60:
            return ("INCRBY", key, amount), lambda s, r: ((s or 0) + amount, (s or 0) + amount)
        if odds < 80:
            return ("DECR", key), lambda s, r: ((s or 0) - 1, (s or 0) - 1)
        if odds < 95:
            return ("SET", key, amount), lambda s, r: (amount, "OK")
        return ("UNLINK", key), lambda s, r: (None, int(s is not None))

    @staticmethod
    def reads(key):
        return [("GET", key)]

    @staticmethod
    def state(replies):
        return None if replies[0] is None else int(replies[0])


class Hash:
    """A hash whose fields may have deadlines: None or {field: (value, deadline or 0)}."""

    name, weight = "hash", 20

    @staticmethod
    def choose(rng, key, _):
        odds, field = rng.randrange(100), f"f{rng.randrange(FIELDS)}"
        value = b"%x" % rng.getrandbits(64)
        if odds < 50:
            more = {f"f{rng.randrange(FIELDS)}": value for _ in range(rng.randint(1, 4))}
            pairs = [part for pair in more.items() for part in pair]
            return ("HSET", key, *pairs), Hash.set_all(more)
        if odds < 60:
            return ("HSETNX", key, field, value), \
                lambda s, r: (s, 0) if field in (s or {}) else ((s or {}) | {field: (value, 0)}, 1)
        if odds < 75:
            until = DEADLINE_MS + rng.randrange(10**9)
            return ("HPEXPIREAT", key, until, "FIELDS", 1, field), \
                lambda s, r: ((s | {field: (s[field][0], until)}, [1])
                              if field in (s or {}) else (s, [-2]))
        if odds < 95:
            return ("HDEL", key, field), \
                lambda s, r: (({name: s[name] for name in s if name != field} or None, 1)
                              if field in (s or {}) else (s, 0))
        return ("DEL", key), lambda s, r: (None, int(bool(s)))

    @staticmethod
    def set_all(more):
        def operation(state, _):
            state = state or {}
            new = sum(name not in state for name in more)
            return state | {name: (value, 0) for name, value in more.items()}, new
        return operation

    @staticmethod
    def reads(key):
        names = [f"f{field}" for field in range(FIELDS)]
        return [("HMGET", key, *names), ("HPEXPIRETIME", key, "FIELDS", FIELDS, *names),
                ("HLEN", key)]

    @staticmethod
    def state(replies):
        values, deadlines, length = replies
        there = {f"f{field}": (value, max(deadlines[field] if deadlines else 0, 0))
                 for field, value in enumerate(values) if value is not None}
        if len(there) != length:
            raise Wrong(f"HLEN says {length}, there are {sorted(there)}")
        return there or None


class Cell:
    """A state cell: None or (text, owner, done, token); the token is None until its reply came."""

    name, weight = "cell", 10

    @staticmethod
    def choose(rng, key, chain):
        odds, number = rng.randrange(100), rng.getrandbits(24)
        text, owner = b"s%x" % number, b"o%d" % (number % 2)
        token = chain.base[3] if chain.base else 0
        if odds < 50:
            return ("SETIFIDLE", key, text, "OWNER", owner), Cell.begin(chain, text, owner)
        if odds < 75:
            return ("SETIDLE", key, token or 1), Cell.finish(token or 1, None)
        result = b"r%x" % number
        return ("SETIDLE", key, token or 1, "RESULT", result), Cell.finish(token or 1, result)

    @staticmethod
    def begin(chain, text, owner):
        def operation(state, reply):
            given = reply[1] if reply else None
            if state is None:
                if reply:
                    Cell.is_new(chain, given)
                return (text, owner, False, given), reply and [b"STARTED", given, -1, text]
            old, holder, done, token = state
            if done:
                return state, [b"DONE", token, -1, old]
            if holder == owner:
                return (text, owner, False, token), [b"RENEWED", token, -1, text]
            return state, [b"BUSY", token, -1, old]
        return operation

    @staticmethod
    def is_new(chain, token):
        if token <= chain.token_max:
            raise Wrong(f"token {token} after token {chain.token_max}")
        chain.token_max = token

    @staticmethod
    def finish(token, result):
        def operation(state, _):
            if state is None:
                return state, [0, 0]
            if state[3] != token:
                return state, [0, state[3]]
            if state[2]:
                return state, [1, token] if result is not None else ANY
            return (result, state[1], True, token) if result else None, [1, token]
        return operation

    @staticmethod
    def reads(key):
        return [("GETSTATE", key)]

    @staticmethod
    def state(replies):
        if replies[0] is None:
            return None
        text, token, owner, _ = replies[0]
        return (text, owner, text[:1] == b"r", token)


class Trio:
    """A block over three keys of different slots: all three have the same value, or none."""

    name, weight = "trio", 5

    @staticmethod
    def choose(rng, key, _):
        value = b"%x" % rng.getrandbits(48)
        block = [("MULTI",), ("SET", key + ":a", value), ("SET", key + ":b", value),
                 ("HSET", key + ":c", "f", value), ("EXEC",)]
        return block, lambda s, r: (value, ["OK", "OK", int(s is None)])

    @staticmethod
    def reads(key):
        return [("GET", key + ":a"), ("GET", key + ":b"), ("HGET", key + ":c", "f")]

    @staticmethod
    def state(replies):
        if len(set(replies)) != 1:
            raise Wrong(f"half a block: {replies}")
        return replies[0]


class Flushed:
    """A database that is flushed now and then: the set of its keys."""

    name, weight = "flushed", 1

    @staticmethod
    def choose(rng, _, __):
        key = b"k%d" % rng.randrange(40)
        if rng.random() < 0.1:
            return [("SELECT", FLUSHED_DATABASE), ("FLUSHDB",)], lambda s, r: (None, "OK")
        return [("SELECT", FLUSHED_DATABASE), ("SET", key, "x")], \
            lambda s, r: ((s or frozenset()) | {key}, "OK")

    @staticmethod
    def reads(_):
        return [("SELECT", FLUSHED_DATABASE), ("KEYS", "*"), ("DBSIZE",), ("SELECT", 0)]

    @staticmethod
    def state(replies):
        if len(replies[1]) != replies[2]:
            raise Wrong(f"KEYS gives {len(replies[1])} keys, DBSIZE says {replies[2]}")
        return frozenset(replies[1]) or None


KINDS = [Text, Number, Hash, Cell, Trio, Flushed]


def matches(candidate, found, chain):
    """Whether a found state is this one; a state cell's unseen token may be any new one."""
    if isinstance(candidate, tuple) and len(candidate) == 4 and found is not None:
        given = candidate[3]
        return candidate[:3] == found[:3] and \
            (found[3] == given if given is not None else found[3] > chain.token_max)
    return candidate == found


class Things:
    """What one client owns, and what it did to the shared things; outlives its connections."""

    def __init__(self, number):
        self.number = number
        self.database = number % 2
        self.chains = {}
        for kind in KINDS:
            if kind is Flushed and number:
                continue
            many = 1 if kind is Flushed else KEYS_OF_A_KIND
            for index in range(many):
                self.chains[kind, f"{kind.name}:{number}:{index}"] = Chain()
        self.names = {kind: [name for other, name in self.chains if other is kind]
                      for kind in KINDS}
        self.sent = [0] * COUNTERS
        self.answered = [0] * COUNTERS
        self.taken = [0, 0]
        self.throttled = [0, 0]
        self.once_sent, self.once_open, self.once_answered = 0, {}, 0
        self.holds, self.hold_number = {}, 0


class Client(threading.Thread):
    """One connection that sends batches until the server is gone or it is told to stop."""

    def __init__(self, load, things, port):
        super().__init__(daemon=True)
        self.load, self.things, self.port = load, things, port
        self.rng = random.Random(load.rng.random())
        self.effects = self.refusals = self.fleeting = 0
        self.slowest = 0.0
        self.wrong = None
        self.stopping = False
        kinds = [kind for kind in KINDS if things.names[kind]]
        self.choices = [(kind.weight, self.own, kind) for kind in kinds]
        if things.database == 0:
            self.choices += [(60, self.count, None), (4, self.move, None), (4, self.take, None),
                             (4, self.throttle, None), (1, self.fleet, None)]
            self.choices += [(5, self.once, None)] * load.has_once
            self.choices += [(3, self.credit, None)] * load.has_credits
        self.weights = [weight for weight, _, _ in self.choices]

    def run(self):
        try:
            with Wire(self.port, timeout=30) as wire:
                if self.things.database:
                    wire.call("SELECT", self.things.database)
                while not self.stopping:
                    self.round(wire)
        except TimeoutError:
            self.wrong = self.wrong or "no reply for 30 s"
        except (OSError, Closed):
            pass
        except Wrong as wrong:
            self.wrong = str(wrong)
        except Exception as error:  # pylint: disable=broad-except
            self.wrong = f"{type(error).__name__}: {error}"

    def round(self, wire):
        """One batch: in the model before it is sent, acknowledged as replies come."""
        batch = []
        picks = self.rng.choices(self.choices, self.weights, k=self.rng.randint(1, BATCH_MAX))
        for _, act, kind in picks:
            if act is not self.credit or not any(done == self.credited for _, done, _ in batch):
                batch.append(act(kind))
        begun = time.monotonic()
        wire.send(b"".join(encode(*command) for commands, _, _ in batch for command in commands))
        for commands, done, about in batch:
            for _ in commands[1:]:
                if isinstance(reply := wire.read(), Error) and not reply.startswith(REFUSALS):
                    raise Wrong(f"{commands}: {reply!r}")
            self.done(plain(wire.read()), commands, done, about)
        self.slowest = max(self.slowest, time.monotonic() - begun)

    def done(self, reply, commands, done, about):
        try:
            had_effect = done(reply, about)
        except Wrong as wrong:
            raise Wrong(f"{' '.join(map(str, commands[-1]))[:200]}: {wrong}") from wrong
        self.effects += had_effect
        self.refusals += not had_effect

    def own(self, kind):
        name = self.rng.choice(self.things.names[kind])
        chain = self.things.chains[kind, name]
        commands, operation = kind.choose(self.rng, name, chain)
        chain.send(operation)
        if kind is Flushed:
            # Back to the usual database; the reply before decides.
            commands = [*commands, ("ECHO", "x")]
            return self.in_flushed(commands, chain)
        return commands if isinstance(commands, list) else [commands], self.own_done, chain

    def in_flushed(self, commands, chain):
        """SELECT, command, SELECT back: as one block, so that the last reply has all."""
        block = [("MULTI",), *commands[:-1], ("SELECT", 0), ("EXEC",)]
        return block, self.flushed_done, chain

    def flushed_done(self, reply, chain):
        if not isinstance(reply, Error):
            reply = reply[1]
        return chain.answered(reply, self.load.relaxed)

    def own_done(self, reply, chain):
        return chain.answered(reply, self.load.relaxed)

    def count(self, _):
        key, amount = self.rng.randrange(COUNTERS), 1
        if self.rng.random() < 0.3:
            amount = self.rng.randint(2, AMOUNT_MAX)
        self.things.sent[key] += amount
        command = (("INCR", f"counter:{key}") if amount == 1 else
                   ("INCRBY", f"counter:{key}", amount))
        return [command], self.counted, (key, amount, self.load.observed[key])

    def counted(self, reply, about):
        key, amount, seen = about
        if refused(reply):
            self.things.sent[key] -= amount
            return False
        if reply < seen + amount:
            raise Wrong(f"counter:{key} is {reply}, was {seen} before it was sent")
        self.things.answered[key] += amount
        return True

    def move(self, _):
        giver, taker = self.rng.sample(range(ACCOUNTS), 2)
        amount = self.rng.randint(1, 100)
        block = [("MULTI",), ("DECRBY", f"bank:{giver}", amount),
                 ("INCRBY", f"bank:{taker}", amount), ("EXEC",)]
        return block, lambda reply, _: not refused(reply), None

    def take(self, _):
        self.things.taken[1] += 1
        return [("INCREX", "tickets", "UBOUND", BOUND)], self.took, self.things.taken

    def took(self, reply, taken):
        if refused(reply):
            taken[1] -= 1
            return False
        if not (reply[1] == 1 and reply[0] <= BOUND or reply == [BOUND, 0]):
            raise Wrong(f"INCREX with a bound of {BOUND} replied {reply}")
        taken[0] += reply[1]
        return True

    def throttle(self, _):
        self.things.throttled[1] += 1
        command = ("CL.THROTTLE", "throttle", THROTTLE_MAX - 1, 1, 1_000_000)
        return [command], self.throttled, self.things.throttled

    def throttled(self, reply, counts):
        if refused(reply):
            counts[1] -= 1
            return False
        counts[0] += reply[0] == 0
        return True

    def fleet(self, _):
        """A key that is gone soon, in a database of its own."""
        self.fleeting += 1
        key = f"fleeting:{self.things.number}:{self.rng.randrange(1000)}"
        block = [("MULTI",), ("SELECT", FLEETING_DATABASE),
                 ("SET", key, "x", "PX", self.rng.randint(1, FLEETING_MS_MAX)), ("SELECT", 0),
                 ("EXEC",)]
        return block, lambda reply, _: not refused(reply), None

    def once(self, _):
        """A numbered write; what a crash left unanswered is sent again under its number."""
        things = self.things
        number = next((number for number, again in things.once_open.items() if again), None)
        if number is None:
            number = things.once_sent = things.once_sent + 1
        things.once_open[number] = False
        key = f"once:{things.number}"
        command = ("ONCE", key, f"id-{number}", "EX", 100_000, "INCRBY", key, 1)
        return [command], self.once_done, number

    def once_done(self, reply, number):
        if refused(reply):
            self.things.once_open[number] = True
            return False
        if reply[0] not in (0, 1):
            raise Wrong(f"ONCE replied {reply}")
        del self.things.once_open[number]
        self.things.once_answered += 1
        return True

    def credit(self, _):
        """Reserves, or settles what is held; at most one such command in a batch."""
        things = self.things
        held = [number for number, hold in things.holds.items() if hold[1] and hold[2] == "held"]
        account = f"account:{things.number}:{self.load.cycle}"
        if len(held) > 40 or held and self.rng.random() < 0.5:
            number = self.rng.choice(held)
            amount, token, _ = things.holds[number]
            things.holds[number][2] = "settling"
            return [("SETTLE", account, number, token, amount)], self.credited, number
        things.hold_number += 1
        things.holds[things.hold_number] = [self.rng.randint(1, 99), None, "reserving"]
        amount = things.holds[things.hold_number][0]
        return [("HSETNX", account, "balance", BALANCE),
                ("RESERVE", account, things.hold_number, amount, "EX", 100_000)], \
            self.credited, things.hold_number

    def credited(self, reply, number):
        hold = self.things.holds[number]
        if refused(reply):
            hold[2] = "held" if hold[1] else "maybe"
            return False
        if reply[0] != 1:
            raise Wrong(f"hold {number} {hold}: {reply}")
        hold[1], hold[2] = (hold[1] or reply[1]), ("held" if hold[1] is None else "settled")
        return True


class Load:
    """Clients with their things, the things that they share, and the check of it all."""

    def __init__(self, seed, clients=6):
        self.rng = random.Random(seed)
        self.low, self.high = [0] * COUNTERS, [0] * COUNTERS
        self.observed = [0] * COUNTERS
        self.tickets, self.throttled = [0, 0], [0, 0]
        self.once = [[0, 0] for _ in range(clients)]
        self.things = [Things(number) for number in range(clients)]
        self.running = []
        self.effects = self.refusals = self.checked = self.cycle = 0
        self.slowest = 0.0
        # Replies do not wait for the disk (`appendfsync` everysec or no).
        self.relaxed = False
        # The disk may be full for a while: whether a command was refused, only its reply says.
        self.refusing = False
        self.has_once = self.has_credits = False

    def begin(self, port, relaxed=False, refusing=False):
        """Starts the clients and the observer."""
        self.relaxed, self.refusing = relaxed, refusing
        with Wire(port) as wire:
            known = plain(wire.call("COMMAND", "INFO", "ONCE", "RESERVE"))
            self.has_once, self.has_credits = (bool(entry) for entry in known)
        self.observed = list(self.low)
        self.running = [Client(self, things, port) for things in self.things]
        self.running.append(Observer(self, port))
        for client in self.running:
            client.start()

    def end(self):
        """Stops the clients, or waits for them to notice that the server is gone."""
        for client in self.running:
            client.stopping = True
        for client in self.running:
            client.join(timeout=60)
            if client.is_alive():
                raise Wrong("a client hangs")
        for client in self.running:
            if client.wrong:
                raise Wrong(client.wrong)
            self.effects += client.effects
            self.refusals += client.refusals
            self.slowest = max(self.slowest, client.slowest)
        self.running = []

    def check(self, port):
        """Compares what is there with what may be there; returns the list of differences."""
        wrong = []
        with Wire(port, timeout=60) as wire:
            present = [self.check_shared(wire, wrong), 0]
            for things in self.things:
                present[things.database] += self.check_things(wire, things, wrong)
            for database in (0, 1):
                wire.call("SELECT", database)
                size, scanned = wire.call("DBSIZE"), scan_count(wire)
                if not size == scanned == present[database]:
                    wrong.append(f"database {database}: {present[database]} keys are there, "
                                 f"DBSIZE says {size}, SCAN {scanned}")
            self.check_fleeting(wire, wrong)
        self.cycle += 1
        self.checked = self.effects
        return wrong

    def check_shared(self, wire, wrong):
        """Counters, bank and limits; returns how many keys there are."""
        values = plain(wire.call("MGET", *[f"counter:{key}" for key in range(COUNTERS)]))
        for key, value in enumerate(values):
            count = int(value or 0)
            low, high = self.low[key], self.high[key]
            for things in self.things:
                low += 0 if self.relaxed else things.answered[key]
                high += things.sent[key]
                things.sent[key] = things.answered[key] = 0
            low = low if self.relaxed else max(low, self.observed[key])
            if not low <= count <= high:
                wrong.append(f"counter:{key} is {count}, acknowledged or seen {low}, sent {high}")
            self.low[key] = self.high[key] = count
        bank = plain(wire.call("MGET", *[f"bank:{index}" for index in range(ACCOUNTS)]))
        if sum(int(value or 0) for value in bank) != 0:
            wrong.append(f"the bank's sum is {sum(int(value or 0) for value in bank)}, not 0")
        tickets = plain(wire.call("GET", "tickets"))
        counts = [things.taken for things in self.things]
        if self.within(wrong, "tickets", self.tickets, counts, int(tickets or 0), BOUND):
            tickets, self.tickets = wire.call("DEL", "tickets") - 1 or None, [0, 0]
        peek = wire.call("CL.THROTTLE", "throttle", THROTTLE_MAX - 1, 1, 1_000_000, 0)
        counts, used = [things.throttled for things in self.things], THROTTLE_MAX - peek[2]
        if self.within(wrong, "throttle", self.throttled, counts, used, THROTTLE_MAX):
            used, self.throttled = wire.call("DEL", "throttle") - 1, [0, 0]
        shared = [*values, *bank, tickets, used or None]
        return sum(value is not None for value in shared)

    def within(self, wrong, name, bounds, counts, found, most):
        """A limit: at least what was acknowledged, at most what was sent, never above `most`.

        True when it is used up: the caller begins anew.
        """
        for count in counts:
            bounds[0] += 0 if self.relaxed else count[0]
            bounds[1] += count[1]
            count[0] = count[1] = 0
        if not bounds[0] <= found <= min(bounds[1], most):
            wrong.append(f"{name}: {found} taken, acknowledged {bounds[0]}, sent {bounds[1]}")
        bounds[0] = bounds[1] = found
        return found == most

    def check_things(self, wire, things, wrong):
        """All chains of one client; returns how many keys they have."""
        present = 0
        wire.call("SELECT", things.database)
        items = list(things.chains.items())
        reads = [kind.reads(name) for (kind, name), _ in items]
        replies = iter(plain(wire.pipeline([one for some in reads for one in some])))
        for ((kind, name), chain), asked in zip(items, reads):
            answers = [next(replies) for _ in asked]
            try:
                state = kind.state(answers)
            except (Wrong, TypeError) as error:
                wrong.append(f"{name}: {error}; {answers}")
                continue
            allowed = chain.allowed(self.refusing)
            if not any(matches(candidate, state, chain) for candidate in allowed):
                wrong.append(f"{name} is {state!r:.300}, allowed {allowed[:4]!r:.600}")
            chain.found(state)
            if kind is Cell and state:
                chain.token_max = max(chain.token_max, state[3])
            present += 0 if state is None or kind is Flushed else 3 if kind is Trio else 1
        if things.database == 0:
            present += self.check_once(wire, things, wrong)
            present += self.check_credits(wire, things, wrong)
        return present

    def check_once(self, wire, things, wrong):
        bounds, key = self.once[things.number], f"once:{things.number}"
        value = plain(wire.call("GET", key))
        low = 0 if self.relaxed else things.once_answered
        if not low <= int(value or 0) <= things.once_sent:
            wrong.append(f"{key} is {value}, {bounds}: acknowledged {low} ids, "
                         f"sent {things.once_sent}")
        if self.relaxed:
            # What was lost cannot be told from what was not: the ids begin anew.
            wire.call("SET", key, things.once_sent)
            things.once_open.clear()
            things.once_answered = things.once_sent
            value = things.once_sent
        things.once_open = dict.fromkeys(things.once_open, True)
        return int(value is not None)

    def check_credits(self, wire, things, wrong):
        account = f"account:{things.number}:{self.cycle}"
        flat = plain(wire.call("HGETALL", account))
        fields = {flat[at].decode(): flat[at + 1] for at in range(0, len(flat), 2)}
        settled = 0
        for number, (amount, token, status) in things.holds.items():
            held, over = f"hold:{number}" in fields, f"settled:{number}" in fields
            settled += amount if over else 0
            fine = {"held": held, "settled": over, "settling": held or over}.get(status, True)
            if held and over or not (fine or self.relaxed):
                wrong.append(f"{account} {number} {token} {status}: held {held}, settled {over}")
        if fields and int(fields["balance"]) != BALANCE - settled:
            wrong.append(f"{account}: balance {fields['balance']}, settled {settled}")
        things.holds.clear()
        wire.call("DEL", account)
        return 0

    def check_fleeting(self, wire, wrong):
        """Deadlines fire: the database of short-lived keys is empty soon."""
        wire.call("SELECT", FLEETING_DATABASE)
        end = time.monotonic() + FLEETING_SECONDS_MAX
        while (left := wire.call("DBSIZE")) and time.monotonic() < end:
            time.sleep(0.02)
        if left:
            wrong.append(f"{left} keys outlived their deadline")


class Observer(threading.Thread):
    """Reads the shared counters all the time: what it saw must never be less again."""

    effects = refusals = 0
    slowest = 0.0

    def __init__(self, load, port):
        super().__init__(daemon=True)
        self.load, self.port = load, port
        self.wrong, self.stopping = None, False

    def run(self):
        names = [f"counter:{key}" for key in range(COUNTERS)]
        try:
            with Wire(self.port, timeout=30) as wire:
                while not self.stopping:
                    for key, value in enumerate(plain(wire.call("MGET", *names))):
                        if int(value or 0) < self.load.observed[key]:
                            raise Wrong(f"counter:{key} fell from {self.load.observed[key]} to "
                                        f"{value} before anybody's eyes")
                        self.load.observed[key] = int(value or 0)
                    time.sleep(0.005)
        except TimeoutError:
            self.wrong = "no reply for 30 s"
        except (OSError, Closed):
            pass
        except (Wrong, TypeError) as wrong:
            self.wrong = str(wrong)


def scan_count(wire):
    """How many different keys a full SCAN finds."""
    names, cursor = set(), b"0"
    for _ in range(100_000):
        reply = wire.call("SCAN", cursor, "COUNT", "500")
        if isinstance(reply, Error):
            raise Wrong(f"SCAN: {reply}")
        cursor, some = reply
        names.update(some)
        if cursor == b"0":
            return len(names)
    raise Wrong("SCAN does not end")
