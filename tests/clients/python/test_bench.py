"""The bench's judgement: ratios are to the faster peer, goals are met or missed by medians, and what
is kept is what was measured."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))
from measure import Sample  # noqa: E402
from results import FIGURES, Conditions, Key, Results, goals, table, verdicts  # noqa: E402
from workloads import WORKLOADS, Goal, Workload  # noqa: E402

ROW = Workload("row", "INCR a", goals=(
    Goal("peers", 1.2), Goal("reference", 0.5), Goal("two shards", 1.0), Goal("p99", 2.0),
    Goal("p99.9 to peers", 1.0), Goal("peers", 9.0, pipelines=(16,))))
KEY = Key("row", "", 1, "always")
CONDITIONS = Conditions(1, 1.0, 0.3, 100)


def measured(speeds, **figures):
    """A line with so many requests per second in each round of each server."""
    results = Results()
    for server, rounds in speeds.items():
        for speed in rounds:
            sample = replace(Sample(speed, 1.0, 2.0, 3.0), **figures)
            results.add(KEY, server, sample, CONDITIONS)
    return results


def met(results, shards=1):
    """What became of the goals, in their order."""
    return [verdict.met for verdict in verdicts(results, [ROW], shards)]


def test_the_ratio_is_of_medians_and_to_the_faster_peer():
    results = measured({"tallyman": [120, 10, 130], "redis-server": [100, 100, 100],
                        "valkey-server": [50, 900, 60], "redis-server, no persistence": [240]})
    assert met(results) == [True, True, True, True]
    assert "**1.20x** | 0.10-1.30" in table(results, [ROW], 1)[2]
    results = measured({"tallyman": [120], "redis-server": [100], "valkey-server": [101],
                        "redis-server, no persistence": [241]})
    assert met(results) == [False, False, True, True]
    assert "1.188, **missed**" in "\n".join(goals(results, [ROW], 1))


def test_latencies_are_upper_bounds():
    results = measured({"tallyman": [120], "redis-server": [100]}, p99_ms=2.1)
    results.lines[KEY]["tallyman"][0].p999_ms = 3.1
    assert met(results) == [True, False, False]


def test_one_shard_and_two_are_found_whatever_the_default_is():
    speeds = {"tallyman": [100], "redis-server": [1]}
    for shards, other, good in ((1, "tallyman, 2 shards", 101), (2, "tallyman, 1 shard", 99)):
        for speed, expected in ((good, True), (200 - good, False)):
            results = measured(speeds | {other: [speed]})
            assert met(results, shards)[1] is expected, (shards, speed)


def test_what_was_not_measured_is_not_judged():
    assert met(measured({"redis-server": [100]})) == []
    assert met(measured({"tallyman": [0.0], "redis-server": [0.0]}), 1) == [True, True]


def test_samples_survive_being_kept(tmp_path):
    results = measured({"tallyman": [120, 130]}, share=0.5, marks=[[1.0, 2.0]])
    results.save(tmp_path / "kept.json", ["head"])
    kept = Results.load(tmp_path / "kept.json")
    assert (kept.lines, kept.conditions) == (results.lines, results.conditions)
    newer = measured({"tallyman": [1]})
    kept.merge(newer)
    assert kept.lines == newer.lines


def test_every_goal_of_the_bench_can_be_judged_and_names_are_unique():
    for row in WORKLOADS:
        for goal in row.goals:
            assert goal.figure in FIGURES, row.name
            assert set(goal.fsyncs) <= set(row.fsyncs), row.name
            assert set(goal.pipelines) <= set(row.pipelines), row.name
            assert not goal.part or goal.part in {f" {part:.0%}" for part in row.open_loop}
    assert len({row.name for row in WORKLOADS}) == len(WORKLOADS)
