"""What was measured: kept, held against the goals, and printed as a table.

Always true: a figure of several rounds is their median; what a goal says is judged by the same
figures that the table shows.
"""

import json
import statistics
from collections import Counter
from dataclasses import asdict, dataclass

from contenders import BASE, OWN, REFERENCE, is_own, shards_name
from measure import Sample

MODES = ("always", "everysec", "no")


@dataclass(frozen=True)
class Key:
    """A line of the table, without the server."""

    row: str
    part: str
    """What comes behind the row's name: the part of the maximum in an open loop."""
    pipeline: int
    fsync: str

    @property
    def label(self):
        """The name in the table."""
        return self.row + self.part


@dataclass(frozen=True)
class Conditions:
    """How a line was measured, each of its rounds."""

    rounds: int
    seconds: float
    warm_up: float
    keys: int

    @property
    def label(self):
        """As the head of the table says it."""
        return (f"{self.rounds} of {self.seconds:g} s after {self.warm_up:g} s of warm-up, "
                f"{self.keys:,} keys")


class Results:
    """Samples by line and server, and how each line was measured."""

    def __init__(self):
        self.lines = {}
        self.conditions = {}

    def add(self, key, server, sample, conditions):
        """One more round."""
        self.lines.setdefault(key, {}).setdefault(server, []).append(sample)
        self.conditions[key] = conditions

    def merge(self, other):
        """Lines of the other replace these."""
        self.lines |= other.lines
        self.conditions |= other.conditions

    def sorted(self, rows):
        """Lines in the order of the list of workloads."""
        order = {row.name: number for number, row in enumerate(rows)}
        return sorted((item for item in self.lines.items() if item[0].row in order),
                      key=lambda item: (order[item[0].row], item[0].pipeline,
                                        MODES.index(item[0].fsync), item[0].part))

    def save(self, path, head):
        """Writes everything."""
        path.write_text(json.dumps({"head": head, "lines": [
            {"key": asdict(key), "conditions": asdict(self.conditions[key]),
             "servers": {server: [asdict(sample) for sample in samples]
                         for server, samples in servers.items()}}
            for key, servers in self.lines.items()]}))

    @staticmethod
    def load(path):
        """Reads what `save` wrote."""
        results = Results()
        for line in json.loads(path.read_text())["lines"]:
            key = Key(**line["key"])
            results.conditions[key] = Conditions(**line["conditions"])
            results.lines[key] = {server: [Sample(**sample) for sample in samples]
                                  for server, samples in line["servers"].items()}
        return results


def median(samples, what):
    """The median of a figure; nothing where nobody measured it."""
    values = [getattr(sample, what) for sample in samples]
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def most(samples, what):
    """The most of all rounds; nothing where nobody measured it."""
    values = [getattr(sample, what) for sample in samples or []]
    return max((value for value in values if value is not None), default=None)


class View:
    """One line: what its figures are."""

    def __init__(self, servers, shards):
        self.servers = servers
        self.own = servers.get(OWN)
        number = {1: servers.get(shards_name(1)), 2: servers.get(shards_name(2))}
        self.by_shards = number | {shards: self.own}
        self.peers = {name: samples for name, samples in servers.items()
                      if not is_own(name) and not name.endswith(REFERENCE)}
        self.reference = next((samples for name, samples in servers.items()
                               if name.endswith(REFERENCE)), None)

    def fastest(self):
        """The fastest peer."""
        return max(self.peers, key=lambda name: median(self.peers[name], "per_second"),
                   default=None)

    def ratio(self, samples, others, what="per_second"):
        """Of two medians."""
        if not samples or not others:
            return None
        upper, lower = median(samples, what), median(others, what)
        return None if upper is None or not lower else upper / lower

    def to_peers(self, samples):
        """To the fastest peer."""
        return self.ratio(samples, self.peers.get(self.fastest()))

    def p999_to_peers(self):
        """Of p99.9, to the peer with the shortest."""
        known = {name: median(samples, "p999_ms") for name, samples in self.peers.items()}
        best = min((value for value in known.values() if value is not None), default=None)
        own = median(self.own, "p999_ms") if self.own else None
        return None if not best or own is None else own / best

    def fewest(self, samples, what):
        """The least of all rounds."""
        values = [getattr(sample, what) for sample in samples or []]
        return min((value for value in values if value is not None), default=None)


def of(samples, what):
    """The median of a server that may be missing."""
    return median(samples, what) if samples else None


# What a goal may be about: how it is written, whether it is a lower bound, and its value.
FIGURES = {
    "peers": ("{}x the faster peer", True, lambda view: view.to_peers(view.own)),
    "peers, two shards": ("{}x the faster peer with 2 shards", True,
                          lambda view: view.to_peers(view.by_shards[2])),
    "reference": ("{}x redis-server without persistence", True,
                  lambda view: view.ratio(view.own, view.reference)),
    "two shards": ("2 shards {}x as fast as 1", True,
                   lambda view: view.ratio(view.by_shards[2], view.by_shards[1])),
    "share": ("{} of its own speed alone", True, lambda view: of(view.own, "share")),
    "share, two shards": ("{} of its own speed alone with 2 shards", True,
                          lambda view: of(view.by_shards[2], "share")),
    "p99": ("p99 {} ms", False, lambda view: of(view.own, "p99_ms")),
    "p99.9 to peers": ("p99.9 {}x the better peer's", False, View.p999_to_peers),
    "idle bytes": ("{} bytes per idle connection", False,
                   lambda view: most(view.own, "idle_bytes")),
    "checkpoints": ("{} checkpoints", True,
                    lambda view: view.fewest(view.own, "checkpoints")),
}


@dataclass(frozen=True)
class Verdict:
    """A goal and what became of it."""

    key: Key
    text: str
    met: bool


def judge(key, row, servers, shards):
    """The goals of a line that were measured."""
    view = View(servers, shards)
    for goal in row.goals:
        if (goal.pipelines and key.pipeline not in goal.pipelines) or \
                key.fsync not in goal.fsyncs or goal.part != key.part:
            continue
        words, least, value_of = FIGURES[goal.figure]
        value = value_of(view)
        if value is not None:
            met = value >= goal.bound if least else value <= goal.bound
            bound = f"{'at least' if least else 'at most'} {goal.bound:,g}"
            yield Verdict(key, f"{words.format(bound)}: {value:,.4g}, "
                               f"{'met' if met else '**missed**'}", met)


def verdicts(results, rows, shards):
    """All goals that were measured."""
    by_name = {row.name: row for row in rows}
    return [verdict for key, servers in results.sorted(rows)
            for verdict in judge(key, by_name[key.row], servers, shards)]


COLUMNS = ("workload", "pipeline", "appendfsync", "server", "per second", "spread", "p50 ms",
           "p99 ms", "p99.9 ms", "server CPU us", "client CPU us", "ratio", "range of ratio",
           "alone", "idle bytes", "checkpoints")
LEFT = ("workload", "appendfsync", "server")


def told(samples, what, form, figure=median):
    """The median, or another figure of all rounds, as text."""
    value = figure(samples, what)
    return "" if value is None else form.format(value)


def round_ratios(samples, others):
    """The ratio of each round, the smallest first."""
    pairs = zip(samples, others, strict=False)
    return sorted(own.per_second / other.per_second for own, other in pairs if other.per_second)


def table(results, rows, shards):
    """Markdown: a line per workload, pipeline, mode and server."""
    lines = ["| " + " | ".join(COLUMNS) + " |",
             "| " + " | ".join("---" if name in LEFT else "---:" for name in COLUMNS) + " |"]
    open_loops = {row.name for row in rows if row.open_loop}
    for key, servers in results.sorted(rows):
        view = View(servers, shards)
        for server, samples in servers.items():
            speed = median(samples, "per_second")
            speeds = [sample.per_second for sample in samples]
            ratio = among = ""
            if is_own(server) and view.peers and key.row not in open_loops:
                others = view.peers[view.fastest()]
                each = round_ratios(samples, others)
                if each:
                    ratio = f"**{view.to_peers(samples) or 0:.2f}x**"
                    among = f"{each[0]:.2f}-{each[-1]:.2f}"
            lines.append("| " + " | ".join((
                key.label, str(key.pipeline), key.fsync, server, f"{speed:,.0f}",
                f"{(max(speeds) - min(speeds)) / speed:.0%}" if speed else "",
                told(samples, "p50_ms", "{:.3f}"), told(samples, "p99_ms", "{:.3f}"),
                told(samples, "p999_ms", "{:.3f}"), told(samples, "cpu_us", "{:.2f}"),
                told(samples, "client_us", "{:.2f}"), ratio, among,
                told(samples, "share", "{:.0%}"), told(samples, "idle_bytes", "{:,.0f}", most),
                told(samples, "checkpoints", "{:g}"))) + " |")
    return lines


def not_measured(found, rows):
    """How many goals of each row have no verdict, of the rows where there are some."""
    judged = Counter(verdict.key.row for verdict in found)
    counts = {row.name: sum(sum(fsync in row.fsyncs for fsync in goal.fsyncs)
                            * len(goal.pipelines or row.pipelines) for goal in row.goals)
              for row in rows}
    return {name: count - judged[name] for name, count in counts.items() if count > judged[name]}


def rounds(results, rows):
    """How the lines were measured: what most have in common, then what differs, with the names."""
    groups = {}
    for key, _ in results.sorted(rows):
        groups.setdefault(results.conditions[key], []).append(key)
    if not groups:
        return "nothing was measured"
    usual = max(groups, key=lambda conditions: len(groups[conditions]))
    others = [f"{conditions.label}: {', '.join(names(keys, results))}"
              for conditions, keys in groups.items() if conditions != usual]
    return f"rounds: {'; '.join([usual.label, *others])}"


def names(keys, results):
    """Names of lines: of the whole row, where all its lines were measured in the same way."""
    ways = {}
    for key, conditions in results.conditions.items():
        ways.setdefault(key.row, set()).add(conditions)
    return dict.fromkeys(key.row if len(ways[key.row]) == 1 else
                         f"{key.label} (pipeline {key.pipeline}, {key.fsync})" for key in keys)


def goals(results, rows, shards):
    """Markdown: a line per goal that was measured, how many are met, and what is missing."""
    found = verdicts(results, rows, shards)
    lines = [f"{sum(verdict.met for verdict in found)} of {len(found)} goals met."]
    if missing := not_measured(found, rows):
        names = [f"{name} ({count})" if count > 1 else name for name, count in missing.items()]
        lines += ["", f"{sum(missing.values())} goals not measured: {', '.join(names)}."]
    lines.append("")
    if found:
        lines += ["| workload | pipeline | appendfsync | goal |", "| --- | ---: | --- | --- |"]
    lines += [f"| {verdict.key.label} | {verdict.key.pipeline} | {verdict.key.fsync} | "
              f"{verdict.text} |" for verdict in found]
    return lines


def changes(results, rows, what=(("per_second", "per second", "{:,.0f}"),
                                 ("p50_ms", "p50 ms", "{:.3f}"), ("p99_ms", "p99 ms", "{:.3f}"),
                                 ("p999_ms", "p99.9 ms", "{:.3f}"),
                                 ("cpu_us", "server CPU us", "{:.2f}"))):
    """Markdown: what the tree at hand changed against the base."""
    lines = ["| workload | pipeline | appendfsync | figure | base | now | change | rounds |",
             "| --- | ---: | --- | --- | ---: | ---: | ---: | ---: |"]
    for key, servers in results.sorted(rows):
        base, own = servers.get(BASE), servers.get(OWN)
        if not base or not own:
            continue
        for name, text, form in what:
            before, now = median(base, name), median(own, name)
            if not before or now is None:
                continue
            each = sorted(getattr(a, name) / getattr(b, name) - 1
                          for a, b in zip(own, base, strict=False) if getattr(b, name))
            among = f"{each[0]:+.1%} to {each[-1]:+.1%}" if each else ""
            lines.append(f"| {key.label} | {key.pipeline} | {key.fsync} | {text} | "
                         f"{form.format(before)} | {form.format(now)} | {now / before - 1:+.1%} | "
                         f"{among} |")
    return lines
