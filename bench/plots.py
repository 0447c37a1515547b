"""The plots of RESULTS.md, as small SVG files that are the same for the same figures."""

import math

import matplotlib
from contenders import OWN, REFERENCE, is_own
from results import View, median

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "tallyman",
                            "font.family": "sans-serif", "font.size": 10,
                            "axes.spines.top": False, "axes.spines.right": False,
                            "axes.grid": True, "grid.color": "#dddddd", "axes.axisbelow": True})
import matplotlib.pyplot as plt  # noqa: E402

COLOURS = {OWN: "#1b6ca8", "redis-server": "#c0392b", "valkey-server": "#7d5ba6"}
OTHER, MISSED = "#777777", "#e0a030"


def draw(results, rows, shards, folder):
    """Draws what there are figures for; returns the names of the files."""
    by_name = {row.name: row for row in rows}
    done = []
    for name, function in (("latency.svg", latency), ("ratios.svg", ratios),
                           ("time-line.svg", time_line)):
        figure = function(results.sorted(rows), by_name, shards)
        if figure:
            figure.tight_layout()
            figure.savefig(folder / name, metadata={"Date": None, "Creator": None})
            plt.close(figure)
            done.append(name)
    return done


def colour(server):
    """One colour per server."""
    return COLOURS.get(server, OTHER)


def latency(lines, rows, _shards):
    """p50 and p99.9 of an open loop, against what was sent."""
    points = {}
    for key, servers in lines:
        if rows[key.row].open_loop:
            for server, samples in servers.items():
                points.setdefault(server, []).append(
                    tuple(median(samples, what) for what in ("per_second", "p50_ms", "p999_ms")))
    if not points:
        return None
    figure, axes = plt.subplots(figsize=(7, 4))
    for server, found in points.items():
        speeds, middle, worst = zip(*sorted(found), strict=True)
        thousands = [speed / 1000 for speed in speeds]
        axes.plot(thousands, worst, "o-", color=colour(server), label=f"{server}, p99.9")
        axes.plot(thousands, middle, "o:", color=colour(server), label=f"{server}, p50", alpha=0.6)
    axes.set(yscale="log", xlabel="INCR per second sent at fixed moments (thousands)",
             ylabel="latency (ms)", title="appendfsync always, 50 clients: throughput and latency")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(fontsize=8, frameon=False)
    return figure


def ratios(lines, rows, shards):
    """tallyman to the faster peer, with the goals."""
    bars = []
    for key, servers in lines:
        view = View(servers, shards)
        value = None if rows[key.row].open_loop else view.to_peers(view.own)
        if value is not None:
            bound = [goal.bound for goal in rows[key.row].goals if goal.figure == "peers"
                     and key.fsync in goal.fsyncs
                     and (not goal.pipelines or key.pipeline in goal.pipelines)]
            mode = "" if key.fsync == "always" else f", {key.fsync}"
            bars.append((f"{key.label}, P{key.pipeline}{mode}", value, bound[0] if bound else None))
    if not bars:
        return None
    bars.reverse()
    figure, axes = plt.subplots(figsize=(7, 1 + 0.24 * len(bars)))
    places = range(len(bars))
    axes.barh(places, [value - 1 for _, value, _ in bars], left=1, height=0.7, color=[
        OTHER if bound is None else COLOURS[OWN] if value >= bound else MISSED
        for _, value, bound in bars])
    for place, (_, value, bound) in enumerate(bars):
        axes.text(max(value, bound or 1, 1), place, f" {value:.2f}", va="center", fontsize=8)
        if bound:
            axes.plot([bound, bound], [place - 0.4, place + 0.4], color="black", linewidth=1.5)
    axes.axvline(1, color="black", linewidth=0.5)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}x")
    axes.set_yticks(list(places), [label for label, _, _ in bars], fontsize=8)
    axes.set_ylim(-0.8, len(bars) - 0.2)
    axes.set_xlabel("times the faster peer; line: goal; blue: met, orange: missed, grey: no goal",
                    fontsize=8)
    axes.set_title("tallyman to the faster of the peers, same appendfsync", fontsize=10)
    axes.grid(axis="y", visible=False)
    return figure


def time_line(lines, rows, _shards):
    """Throughput and p99 of the longest row in which checkpoints ran."""
    watched = [(rows[key.row].seconds, key, servers) for key, servers in lines
               if any(sample.time_line for sample in servers.get(OWN, []))]
    if not watched:
        return None
    seconds, key, servers = max(watched, key=lambda line: (line[0], line[1].part == " 70%"))
    figure, (upper, lower) = plt.subplots(2, 1, sharex=True, figsize=(7, 5))
    for server, samples in servers.items():
        line = samples[0].time_line
        if (is_own(server) and server != OWN) or server.endswith(REFERENCE) or not line:
            continue
        at = [point[0] for point in line]
        upper.plot(at, [point[1] / 1000 for point in line], color=colour(server), label=server)
        # Nothing ended in an interval: there is a gap.
        for place, style, width in ((2, "-", 1.5), (3, ":", 0.8)):
            lower.plot(at, [point[place] or math.nan for point in line], style,
                       color=colour(server), linewidth=width)
    for number, (begun, ended) in enumerate(servers[OWN][0].marks):
        for axes in (upper, lower):
            axes.axvspan(begun, ended, color=COLOURS[OWN], alpha=0.12, linewidth=0,
                         label="checkpoint" if number == 0 and axes is upper else None)
    upper.set(ylabel="requests per second (thousands)", ylim=(0, None),
              title=f"{key.label}, pipeline {key.pipeline}, appendfsync {key.fsync}")
    lower.set(yscale="log", ylabel="p99, dotted: longest (ms)", xlabel="seconds")
    lower.yaxis.set_major_formatter("{x:g}")
    lower.yaxis.set_minor_formatter("")
    upper.legend(fontsize=8, frameon=False)
    return figure
