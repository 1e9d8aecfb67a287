#!/usr/bin/env python3
"""Publishes to a real OpenTelemetry Collector, and to Prometheus' receiver of OTLP: otlp.py BINARIES COLLECTOR [PROMETHEUS]

BINARIES is the directory of tallyport, COLLECTOR and PROMETHEUS are programs.

1. Cumulative sums end at what was sent, and those of intervals add up to it; points of a series follow each other in time.
2. Exponential histograms have the counts, the sums and the extremes of the values, and each value in its bucket.
3. The collector is down for a while: everything arrives afterwards, once.
4. In Prometheus, rate() agrees with the load within 1 %; increases become dead letters, and gauges beside them arrive.
"""

import collections
import pathlib
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "common"), str(ROOT / "peers")]
from accounts import delivered, publishers  # noqa: E402
from agent import Agent, Container, check, main, until  # noqa: E402
from collector import Collector  # noqa: E402
from load import Load, send_short_lived  # noqa: E402
from prometheus import Prometheus3  # noqa: E402

TEMPORALITIES = {"cumulative": "Cumulative", "delta": "Delta"}
# Each is the middle of a bucket of scale 3, so that it is certain where it belongs.
VALUES = [2 ** ((k + 0.5) / 8) for k in (-8, 0, 1, 17, 80)]
NEGATIVE = [-value for value in VALUES] + [0.0, 3.0]


def configuration(url):
    """A configuration with one publisher for each temporality, whose series differ."""
    table = '[publish.{0}]\ntype = "otlp"\nurl = "{1}"\ntemporality = "{0}"\nidentity = "{2}"\n'
    return "".join(table.format(name, url, identity) for name, identity in zip(TEMPORALITIES, ("orchestrator", "high")))


def points_of(collector, metric, temporality):
    return [point for point in collector.points() if (point.metric, point.temporality) == (metric, temporality)]


def add_up(collector, metric, number="Value"):
    """What each temporality says was sent: the last total of each series, and the sum over all intervals."""
    last = {}
    for point in points_of(collector, metric, "Cumulative"):
        last[str(point.resource), str(point.attributes)] = point.numbers[number]
    return sum(last.values()), sum(point.numbers[number] for point in points_of(collector, metric, "Delta"))


def sums(agent, collector):
    container, sent = Container(agent, "c-sums", {"namespace": "shop", "pod": "cart-0", "container": "main"}, process=False), 0
    for _ in range(150):
        container.send(b"http.hits:3|c|#route:/pay")
        sent += 3
        time.sleep(0.02)
    until("the sums arrive", lambda: add_up(collector, "http.hits_total") == (sent, sent))
    delivered(agent)
    print(f"{sent} sent; cumulative and delta: {add_up(collector, 'http.hits_total')}")
    for temporality in TEMPORALITIES.values():
        points = points_of(collector, "http.hits_total", temporality)
        check(len(points) >= 3, "points", points)
        for before, after in zip(points, points[1:]):
            follows = before.end <= after.start if temporality == "Delta" else before.start == after.start and before.end < after.end
            check(follows, temporality, "points do not follow each other:", before, after)
        first = points[0]
        check(first.kind == "Sum" and first.attributes == {"route": "/pay"}, first)
        check(first.resource.get("k8s.pod.name") == "cart-0" and "/shop/cart-0/main" in first.resource["service.instance.id"], first)


def histograms(agent, collector):
    container = Container(agent, "c-histograms", process=False)
    sent = collections.defaultdict(list)
    for values, name in ((VALUES, "size"), (NEGATIVE, "change")):
        for repeats in range(1, 4):
            for value in values * repeats:
                container.send(f"{name}:{value!r}|h".encode())
                sent[name].append(value)
            time.sleep(1.1)
    for name, values in sent.items():
        until(f"the values of {name} arrive", lambda: add_up(collector, name, "Count") == (len(values), len(values)))
    delivered(agent)
    for name, values in sent.items():
        cumulative, deltas = (points_of(collector, name, temporality) for temporality in TEMPORALITIES.values())
        check(all(point.kind == "ExponentialHistogram" for point in cumulative + deltas), cumulative[:1])
        check_buckets(cumulative[-1].buckets, values)
        check_buckets([bucket for point in deltas for bucket in point.buckets], values)
        lowest, highest = min(point.numbers["Min"] for point in deltas), max(point.numbers["Max"] for point in deltas)
        check((close(lowest, min(values)), close(highest, max(values))) == (True, True), "extremes", lowest, highest)
        print(f"{name}: {len(values)} values in their buckets, from {lowest} to {highest}")
    found = add_up(collector, "size", "Sum")
    check(all(close(one, sum(sent["size"])) for one in found), "sums", found, sum(sent["size"]))
    # A reader takes a sum for one that only grows.
    check(not any("Sum" in point.numbers for point in points_of(collector, "change", "Cumulative")), "a sum of negative values")


def close(one, other):
    """Whether two numbers are the same but for the digits that are printed."""
    return abs(one - other) <= 1e-5 * max(1, abs(other))


def check_buckets(buckets, values):
    expected = collections.Counter(values)
    held = collections.Counter()
    for lower, upper, count in buckets:
        inside = [value for value in expected if (lower < value < upper) or lower == value == upper == 0]
        check(len(inside) == 1, "a bucket of no value or of several:", lower, upper, count, inside)
        held[inside[0]] += count
    check(held == expected, "counts of buckets:", held, "expected", expected)


def outage(agent, collector):
    collector.stop()
    sent = 2 * send_short_lived(agent, 5, b"orders:2|c\nduration:7|ms", 1)
    until("it is tried again", lambda: all(one["state"] in ("retrying", "sending") for one in publishers(agent).values()))
    collector.start()
    until("the sums arrive", lambda: add_up(collector, "orders_total") == (sent, sent), patience=90)
    delivered(agent)
    counts = add_up(collector, "duration_seconds", "Count")
    check(counts == (sent / 2, sent / 2), "values", counts)
    records = {name: one["records"] for name, one in publishers(agent).items()}
    print(f"after the outage: {sent} sent; cumulative and delta: {add_up(collector, 'orders_total')}; {records}")
    check(all(not one["dead"] and not one["dropped"] for one in records.values()), records)


def to_collector(agent, collector):
    for part in (sums, histograms, outage):
        part(agent, collector)


def to_prometheus(agent, prometheus):
    container = Container(agent, "c-load", process=False)
    load = Load(container, b"requests:1|c\nlatency:7|ms\nlevel:3|g")
    load.start()
    time.sleep(32)
    # The interval that is under way is not there yet.
    rate = prometheus.value("rate(requests_total[20s] offset 4s)")
    values = prometheus.value("histogram_count(increase(latency_seconds[20s] offset 4s))")
    sent = load.end()
    print(f"Prometheus: rate(requests_total[20s]) = {rate} of {load.RATE}, {values} values")
    check(abs(rate / load.RATE - 1) < 0.01 and abs(values / (20 * load.RATE) - 1) < 0.01, "rate", rate, values)
    until("all of the load is there", lambda: prometheus.value("max_over_time(requests_total[5m])") == sent)
    agent.admin("DELETE", "/v1/containers/c-load")
    until("cumulative ones are delivered", lambda: publishers(agent)["cumulative"]["records"]["pending"] == 0)
    # Each round is repeated some times before the cause is searched for.
    delivered(agent, patience=120)
    records = {name: one["records"] for name, one in publishers(agent).items()}
    check(not records["cumulative"]["dead"] and not any(one["dropped"] for one in records.values()), records)
    dead = agent.command("publish", "dead", "delta").stdout.decode().splitlines()
    print(f"increases: {records['delta']}, {publishers(agent)['delta']['requests']}", *dead[:1])
    check(records["delta"]["delivered"] and len(dead) > 1 and not any(" gauge " in line for line in dead), dead[:3])


def run():
    binaries, collector, *prometheus = sys.argv[1:]
    ends = [(lambda at: Collector(at, collector), "/v1/metrics", to_collector)]
    if prometheus:
        ends.append((lambda at: Prometheus3(at, program=prometheus[0]), "/api/v1/otlp/v1/metrics", to_prometheus))
    for make, path, parts in ends:
        with tempfile.TemporaryDirectory() as directory:
            config = pathlib.Path(directory) / "agent.toml"
            agent = Agent(binaries, directory, ["--window", "1s", "--config", config])
            server = make(directory)
            config.write_text(configuration(server.url + path))
            try:
                server.start()
                agent.start()
                parts(agent, server)
            finally:
                agent.stop()
                server.stop()
        print(f"publish to {server.name} by OTLP: OK")


main(run)
