#!/usr/bin/env python3
"""Publishes to a real Prometheus by remote write: prometheus.py BINARIES

BINARIES is the directory of tallyport.

1. rate() and increase() agree with the load within 1 %.
2. A job that lives for one window counts.
3. Every series that a scrape of the agent has is there, with the same labels, and no other.
4. A container's end is seen within 15 s.
5. A series of which the server has newer samples, and one whose timestamp it has with another value, cost only themselves.
6. The server is down for a while: the totals arrive afterwards.
7. The agent is restarted and killed: increase() stays what was sent.
"""

import pathlib
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "common"), str(ROOT / "peers")]
from accounts import delivered, publisher  # noqa: E402
from agent import Agent, Container, check, main, until  # noqa: E402
from prometheus import Prometheus  # noqa: E402

PUSHED = 'job="tallyport"'


def total(prometheus, name):
    """The sum over the totals of a name, each as of its last sample."""
    return prometheus.value(f'sum(last_over_time({name}{{{PUSHED}}}[10m]))')


class Load(threading.Thread):
    """Sends a hundred requests a second until it is told to stop."""

    RATE = 100

    def __init__(self, container):
        super().__init__()
        self.container, self.sent, self.ends = container, 0, threading.Event()

    def run(self):
        began = time.monotonic()
        while not self.ends.is_set():
            self.container.send(b"requests:1|c\nlatency:7|ms")
            self.sent += 1
            time.sleep(max(0, began + self.sent / self.RATE - time.monotonic()))


def rates(agent, prometheus):
    load = Load(Container(agent, "c-load", process=False))
    load.start()
    time.sleep(32)
    # The interval that is under way is not there yet.
    rate = prometheus.value(f"rate(requests_total{{{PUSHED}}}[20s] offset 4s)")
    increase = prometheus.value(f"increase(latency_seconds_count{{{PUSHED}}}[20s] offset 4s)")
    load.ends.set()
    load.join()
    print(f"rate(requests_total[20s]) = {rate:.3f} of {Load.RATE}, increase(latency_seconds_count[20s]) = {increase:.1f}")
    check(abs(rate / Load.RATE - 1) < 0.01, "rate", rate)
    check(abs(increase / (20 * Load.RATE) - 1) < 0.01, "increase", increase)
    until("all of the load is there", lambda: total(prometheus, "requests_total") == load.sent)


def short_job(agent, prometheus):
    container = Container(agent, "c-job", process=False)
    container.send(b"done:7|c")
    agent.admin("DELETE", "/v1/containers/c-job")
    until("the job is there", lambda: total(prometheus, "done_total") == 7)
    counted = prometheus.value(f"max_over_time(done_total{{{PUSHED}}}[5m]) - min_over_time(done_total{{{PUSHED}}}[5m])")
    increase = prometheus.value(f"increase(done_total{{{PUSHED}}}[5m])")
    print(f"a job of one window: {counted:.0f} of 7 counted, increase() = {increase:.2f}")
    check(counted == 7 and increase >= 7, "a job of one window counted", counted, increase)


def labels(agent, prometheus):
    container = Container(agent, "c-labels", {"namespace": "shop", "pod": "cart-0", "container": "main"}, process=False)
    container.send(b"http.hits:2|c|#route:/pay,zone:b\nlatency:7|ms\nusers:a|s\nsize:4|h|#live\nlevel:3|g")
    plain = lambda one: tuple(sorted((key, value) for key, value in one.items() if key not in ("job", "instance", "node")))
    of = lambda job: {plain(one) for one in prometheus.series(f'{{job="{job}",pod="cart-0"}}')
                      if not one["__name__"].startswith("tallyport_") and not one["__name__"].endswith("_created")}
    until("the series are there", lambda: len(of("tallyport")) >= 17 and len(of("scraped")) >= 17)
    time.sleep(2)
    pushed, scraped = of("tallyport"), of("scraped")
    print(f"labels: {len(pushed)} series pushed, {len(scraped)} scraped")
    check(pushed == scraped, "only pushed:", pushed - scraped, "only scraped:", scraped - pushed)
    agent.admin("DELETE", "/v1/containers/c-labels")


def end(agent, prometheus):
    for name in ("c-ends", "c-stays"):
        Container(agent, name, process=False).send(b"level:3|g")
    shown = lambda name: prometheus.query(f'level{{{PUSHED},task="{name}"}}')
    until("both are there", lambda: shown("c-ends") and shown("c-stays"))
    agent.admin("DELETE", "/v1/containers/c-ends")
    began = time.monotonic()
    until("the end is seen", lambda: not shown("c-ends"), patience=15)
    print(f"a container's end is seen after {time.monotonic() - began:.1f} s")
    check(shown("c-stays"), "the other one has ended as well")
    # A gauge is in every window, so that something would always be pending.
    agent.admin("DELETE", "/v1/containers/c-stays")


def refused(agent, prometheus):
    container = Container(agent, "c-poison", process=False)
    container.send(b"late:1|g\ndup:1|g")
    until("both are there", lambda: prometheus.query(f'late{{{PUSHED}}}') and prometheus.query(f'dup{{{PUSHED}}}'))
    find = lambda name: next(one for one in prometheus.series(f'{{__name__="{name}",{PUSHED}}}'))
    now = int(time.time()) * 1000
    prometheus.write(find("late"), [(now + 300_000, 5.0)])
    prometheus.write(find("dup"), [(now + 3000, 5.0)])
    for start in range(0, 2000, 50):
        container.send(b"\n".join(b"series.%d:1|c" % n for n in range(start, start + 50)))
    until("the others are there", lambda: prometheus.value(f'count({{__name__=~"series_.*_total",{PUSHED}}} == 1)') == 2000, patience=60)
    until("both are dead letters", lambda: publisher(agent)["records"]["dead"] >= 2)
    dead = agent.command("publish", "dead", "p").stdout.decode().splitlines()
    names = {word for line in dead for word in ("late", "dup") if f"gauge {word} of" in line}
    print(f"of 2,002 series 2,000 are stored; {len(dead)} dead letters of {sorted(names)}:", dead[0])
    check(names == {"late", "dup"} and all("gauge" in line for line in dead), dead[:5])
    agent.admin("DELETE", "/v1/containers/c-poison")


def outage(agent, prometheus):
    prometheus.stop()
    sent = 0
    for n in range(8):
        container = Container(agent, f"c-{n}", process=False)
        for _ in range(20):
            container.send(b"hits:3|c\nhits:2|c|#route:/pay")
            sent += 5
        time.sleep(1)
        agent.admin("DELETE", f"/v1/containers/c-{n}")
    until("it is tried again", lambda: publisher(agent)["state"] in ("retrying", "sending"))
    prometheus.start()
    until("the sums arrive", lambda: total(prometheus, "hits_total") == sent, patience=90)
    delivered(agent)
    print(f"after the outage: {sent} sent, {total(prometheus, 'hits_total'):.0f} there, {publisher(agent)['records']}")


def restarts(agent, prometheus):
    sent = 0
    for ends in (agent.stop, agent.kill, agent.stop):
        container = Container(agent, f"c-{agent.lives}-again", {"workload": "again"}, process=False)
        for _ in range(20):
            container.send(b"again:1|c")
            sent += 1
            time.sleep(0.05)
        time.sleep(2.5)
        delivered(agent)
        ends()
        agent.start()
    counted = lambda: sum(
        max(float(value) for _, value in one["values"]) for one in prometheus.ask("query", query=f"again_total{{{PUSHED}}}[10m]")["result"]
    )
    until("all is there", lambda: counted() == sent)
    print(f"over two restarts and a kill: {sent} sent, {counted():.0f} counted")


def run():
    with tempfile.TemporaryDirectory() as directory:
        (server := pathlib.Path(directory) / "prometheus").mkdir()
        config = pathlib.Path(directory) / "agent.toml"
        agent = Agent(sys.argv[1], directory, ["--window", "1s", "--config", config])
        prometheus = Prometheus(server, "%s:%d" % agent.address)
        config.write_text(f'[publish.p]\ntype = "remote_write"\nurl = "{prometheus.url}/api/v1/write"\n')
        try:
            prometheus.start()
            agent.start()
            for part in (rates, short_job, labels, end, refused, outage, restarts):
                part(agent, prometheus)
        finally:
            agent.stop()
            prometheus.stop()
    print("publish to Prometheus: OK")


main(run)
