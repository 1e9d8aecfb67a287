#!/usr/bin/env python3
"""What publishing costs: cost.py BINARIES [--rounds N] [--only NAME]... [--json FILE]

BINARIES is the directory of tallyport. An agent with a thousand containers of a hundred series each and windows of ten seconds runs
without a publisher, with each of a few, and beside a Prometheus that scrapes it, by turns, each in every round. CPU time is that of all
threads of the agent while whole windows are delivered, memory the peak of what is resident. Receivers are processes that accept
everything at once, so that nothing else takes the processors.

Afterwards the receivers are away while windows of a second close, and an agent whose memory has lost all of them delivers the
backlog. The number of records in a round is that of windows of ten seconds, so the rounds in a second are a tenth of the speed against
real time.

    --backlog ROUNDS    the length of the backlog; 0 leaves it out
    --prometheus        with remote write to a real Prometheus as well
    --collector PATH    an OpenTelemetry Collector with the statsd receiver and the prometheusremotewrite exporter under the same load
"""

import argparse
import contextlib
import json
import pathlib
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "common"), str(ROOT / "peers")]
from accounts import delivered, publishers  # noqa: E402
from agent import Agent, Container, check, main, until  # noqa: E402
from discard import Discard  # noqa: E402
from prometheus import Prometheus  # noqa: E402
from statsd_collector import StatsdCollector  # noqa: E402
from traffic import SAMPLES, SERIES, Traffic  # noqa: E402
from usage import Usage  # noqa: E402

# Nothing of the load may be carried into later windows, and as little as possible is kept in memory.
CONFIG = 'windows.keep = 3\nwindows.gauge_carry = "0s"\nwindows.log_size = "16MiB"\npublish.spool = "16GiB"\n'
# Windows before those that are measured: what is kept is complete then.
WARM = 4
INFLUXDB = '[publish.p]\ntype = "influxdb"\nurl = "{url}"\n'
REMOTE_WRITE = '[publish.p]\ntype = "remote_write"\nurl = "{url}/api/v1/write"\nversion = "{version}"\n'
PUBLISHERS = {
    "influxdb": INFLUXDB,
    "remote write 2.0": REMOTE_WRITE.replace("{version}", "2.0"),
    "remote write 1.0": REMOTE_WRITE.replace("{version}", "1.0"),
}
WITHOUT, SCRAPED, STORED, COLLECTOR = "no publisher", "scraped by Prometheus", "remote write to Prometheus", "OpenTelemetry Collector"
# In percent of a core, and MiB; and how many times faster than real time a backlog has to be delivered.
BOUNDS = {"influxdb": (1, None), "remote write 2.0": (3, 40), "remote write 1.0": (3, 40)}
FASTEST = 10


class Stage:
    """An agent with its containers under load, and whatever receives from it."""

    def __init__(self, options, directory, window, receiver=None, config=""):
        self.window, self.ends = window, contextlib.ExitStack()
        file = directory / "agent.toml"
        file.write_text(CONFIG + config.replace("{url}", receiver.url if receiver else ""))
        self.agent = Agent(options.binaries, directory, ["--window", f"{window}s", "--config", file])
        self.ends.callback(self.agent.stop)
        self.agent.start()
        containers = [Container(self.agent, f"c{number}", process=False) for number in range(options.containers)]
        for container in containers:
            container.socket.close()
        self.traffic = Traffic([container.address for container in containers], window)
        self.ends.callback(self.traffic.end)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ends.close()

    def delivered(self):
        return sum(one["records"]["delivered"] for one in publishers(self.agent).values())


def measure(pid, window, windows, delivered=lambda: 0):
    """The usage of a process over whole windows, from the middle of one to the middle of another, while none is delivered."""
    time.sleep(window - (time.time() - window / 2) % window)
    usage, before = Usage(pid), delivered()
    time.sleep(windows * window)
    return usage.figures() | {"records": delivered() - before, "seconds": windows * window}


def run_one(options, directory, name):
    """Measures an agent with one publisher, or without."""
    with contextlib.ExitStack() as ends:
        receiver = None
        if name == STORED:
            receiver = Prometheus(directory, None)
        elif name in PUBLISHERS:
            receiver = Discard()
        if receiver:
            ends.callback(receiver.stop)
            receiver.start()
        config = PUBLISHERS.get("remote write 1.0" if name == STORED else name, "")
        stage = ends.enter_context(Stage(options, directory, options.window, receiver, config))
        if name == SCRAPED:
            scraper = Prometheus(directory, "%s:%d" % stage.agent.address, options.window)
            ends.callback(scraper.stop)
            scraper.start()
        time.sleep(WARM * options.window)
        figures = measure(stage.agent.process.pid, options.window, options.windows, stage.delivered)
        expected = options.containers * SERIES * options.windows if receiver else 0
        # A window that is closed late is delivered with the next one.
        check(abs(figures["records"] - expected) <= expected / options.windows, "delivered", figures["records"], "of", expected)
        return figures


def run_collector(options, directory):
    """Measures a collector under the same load, with the name of the container as a tag."""
    with contextlib.ExitStack() as ends:
        receiver = Discard()
        ends.callback(receiver.stop)
        receiver.start()
        collector = StatsdCollector(directory, options.collector, receiver.url, options.window)
        ends.callback(collector.stop)
        collector.start()
        traffic = Traffic([("127.0.0.1", collector.port)] * options.containers, options.window, tagged=True)
        ends.callback(traffic.end)
        time.sleep(WARM * options.window)
        before = receiver.received()
        figures = measure(collector.process.pid, options.window, options.windows)
        check(receiver.received() > before, "the collector sends nothing")
        return figures


def run_backlog(options, directory, name):
    """Lets windows of a second close while the receiver is away, and measures how fast they are delivered then."""
    receiver = Discard()
    with Stage(options, directory, 1, receiver, PUBLISHERS[name]) as stage:
        time.sleep(options.backlog)
        stage.traffic.end()
        time.sleep(3)
        (document,) = publishers(stage.agent).values()
        left, usage = document["records"]["pending"], Usage(stage.agent.process.pid)
        before, spool = usage.resident(), stage.agent.metric("tallyport_publish_spool_bytes")
        receiver.start()
        try:
            half = lambda: publishers(stage.agent)["p"]["records"]["pending"] <= left / 2
            until("half of the backlog is delivered", half, patience=600)
            middle = time.monotonic()
            delivered(stage.agent, patience=600)
            ended, figures = time.monotonic(), usage.figures()
            records = publishers(stage.agent)["p"]["records"]
            check(records["delivered"] == records["closed"], "not everything was delivered:", records)
        finally:
            receiver.stop()
    rounds, took = left / options.containers / SERIES, ended - receiver.began()
    halves = [rounds / 2 / (middle - receiver.began()), rounds / 2 / (ended - middle)]
    return figures | {"records": left, "rounds": rounds, "seconds": took, "halves": halves, "spool": spool, "before": before}


def median(figures, key):
    return statistics.median(of_round[key] for of_round in figures)


def describe_rounds(all_figures):
    """A row for each publisher, with the medians of the rounds."""
    print(f"\n{'':27} | CPU, % of a core:  all   more  its thread | peak MiB:  all   more | records/s | CPU µs: a record  a sample")
    without = all_figures.get(WITHOUT)
    for name, figures in all_figures.items():
        percent = lambda key: 100 * statistics.median(one[key] / one["seconds"] for one in figures)
        cpu, thread, peak = percent("cpu"), percent("publisher"), median(figures, "peak") / (1 << 20)
        beside = without and name not in (WITHOUT, COLLECTOR)
        more = cpu - 100 * statistics.median(one["cpu"] / one["seconds"] for one in without) if beside else float("nan")
        larger = peak - median(without, "peak") / (1 << 20) if beside else float("nan")
        records = statistics.median(one["records"] / one["seconds"] for one in figures)
        each = more * 1e4 / records if records else float("nan")
        sample = each / (1 if name == "influxdb" else SAMPLES)
        row = f"{cpu:6.2f} {more:6.2f} {thread:11.2f} | {peak:14.1f} {larger:6.1f} | {records:9.0f} | {each:16.2f} {sample:9.2f}"
        print(f"{name:27} | {row.rjust(41)}")
        most_cpu, most_memory = BOUNDS.get(name, (None, None))
        for what, value, bound in (("% of a core", more, most_cpu), ("MiB", larger, most_memory)):
            if bound is not None and value > bound:
                print(f"{name}: {value:.2f} {what} more, and {bound} is the bound")


def describe_backlog(name, figures):
    rate, first, second = figures["rounds"] / figures["seconds"], *figures["halves"]
    print(
        f"{name}: a backlog of {figures['rounds']:.0f} rounds, {figures['records']} records, {figures['spool'] / (1 << 20):.0f} MiB in "
        f"the spool, was delivered in {figures['seconds']:.1f} s: {10 * rate:.0f} times real time with windows of 10 s ({10 * first:.0f} in "
        f"the first half, {10 * second:.0f} in the second), {figures['cpu'] / figures['records'] * 1e6:.2f} µs of CPU time a record, "
        f"{100 * figures['cpu'] / figures['seconds']:.0f} % of a core, at most {(figures['peak'] - figures['before']) / (1 << 20):.0f} MiB more"
    )
    if 10 * rate < FASTEST:
        print(f"{name}: {FASTEST} times real time is the bound")


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--containers", type=int, default=1000)
    parser.add_argument("--window", type=int, default=10, help="seconds")
    parser.add_argument("--windows", type=int, default=6, help="measured in each round")
    parser.add_argument("--backlog", type=int, default=60)
    parser.add_argument("--prometheus", action="store_true")
    parser.add_argument("--collector", type=pathlib.Path)
    parser.add_argument("--only", action="append")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    names = [WITHOUT, *PUBLISHERS, SCRAPED] + [STORED] * options.prometheus + [COLLECTOR] * (options.collector is not None)
    names = [name for name in names if not options.only or name in options.only]
    all_figures, backlogs = {name: [] for name in names}, {}
    for number in range(options.rounds):
        for name in names:
            print(f"cost: round {number + 1} of {options.rounds}, {name}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="tallyport-cost-") as directory:
                run_it = run_collector if name == COLLECTOR else lambda options, directory: run_one(options, directory, name)
                all_figures[name].append(run_it(options, pathlib.Path(directory)))
    if names and options.rounds:
        describe_rounds(all_figures)
    for name in PUBLISHERS if options.backlog else ():
        if name in names:
            print(f"cost: a backlog, {name}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="tallyport-cost-") as directory:
                backlogs[name] = run_backlog(options, pathlib.Path(directory), name)
            describe_backlog(name, backlogs[name])
    if options.json:
        options.json.write_text(json.dumps({"rounds": all_figures, "backlogs": backlogs}, indent=1))


if __name__ == "__main__":
    main(run)
