#!/usr/bin/env python3
"""Publishes to a real receiver of remote write: remote_write.py BINARIES RECEIVER [PROGRAM]

BINARIES is the directory of tallyport, RECEIVER one of prometheus2, prometheus, victoriametrics and mimir, and PROGRAM its program.

1. rate() and increase() agree with the load within 1 %, in the version of the protocol that the receiver understands.
2. Jobs that live for one window count.
3. Every series that a scrape of the agent has is there, with the same labels, and no other.
4. A container's end is seen within 15 s.
5. Series of which the receiver has newer samples, samples from the future, or another value of the same time cost only themselves,
   and are accepted again afterwards.
6. The receiver is down for a while: the totals arrive afterwards.
7. The agent is restarted and killed: increase() stays what was sent.

After each of the last three, every record is accounted for, and `publish verify` finds no other difference than the dead letters.
"""

import json
import pathlib
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "common"), str(ROOT / "peers")]
from accounts import delivered, differing, publisher, verify  # noqa: E402
from agent import Agent, Container, check, main, until  # noqa: E402
from load import Load, send_short_lived  # noqa: E402
from mimir import Mimir  # noqa: E402
from prometheus import Prometheus, Prometheus3  # noqa: E402
from victoriametrics import VictoriaMetrics  # noqa: E402

PUSHED = 'job="tallyport"'
RECEIVERS = {"prometheus2": Prometheus, "prometheus": Prometheus3, "victoriametrics": VictoriaMetrics, "mimir": Mimir}
NOT_UNDERSTOOD = "the receiver does not understand remote write 2.0; 1.0 is used"


def total(receiver, name):
    """The sum over the totals of a name, each as of its last sample."""
    return receiver.value(f'sum(last_over_time({name}{{{PUSHED}}}[10m]))')


def rates(agent, receiver):
    load = Load(Container(agent, "c-load", process=False), b"requests:1|c\nlatency:7|ms")
    load.start()
    time.sleep(32)
    # The interval that is under way is not there yet.
    rate = receiver.value(f"rate(requests_total{{{PUSHED}}}[20s] offset 4s)")
    increase = receiver.value(f"increase(latency_seconds_count{{{PUSHED}}}[20s] offset 4s)")
    sent = load.end()
    print(f"rate(requests_total[20s]) = {rate} of {load.RATE}, increase(latency_seconds_count[20s]) = {increase}")
    check(abs(rate / load.RATE - 1) < 0.01, "rate", rate)
    check(abs(increase / (20 * load.RATE) - 1) < 0.01, "increase", increase)
    until("all of the load is there", lambda: total(receiver, "requests_total") == sent)
    delivered(agent)
    requests, lines = publisher(agent)["requests"], agent.log.read_text().count(NOT_UNDERSTOOD)
    print(f"requests: {requests}")
    falls_back = receiver.protocol == "1.0"
    check((requests.get("unspoken", 0) > 0) == falls_back and lines == falls_back, "not version", receiver.protocol)
    check(set(requests) <= {"ok", "unspoken"}, requests)


def short_jobs(agent, receiver):
    jobs, each = 5, 7
    for n in range(jobs):
        Container(agent, f"c-job-{n}", process=False).send(b"done:%d|c" % each)
        agent.admin("DELETE", f"/v1/containers/c-job-{n}")
        time.sleep(0.3)
    until("the jobs are there", lambda: total(receiver, "done_total") == jobs * each)
    until("they have ended", lambda: not receiver.query(f"done_total{{{PUSHED}}}"))
    counter = f"done_total{{{PUSHED}}}[5m]"
    for expression in receiver.increases:
        counted = receiver.value(f"sum({expression.format(counter)})")
        print(f"{jobs} jobs of one window: {expression.format('done_total[5m]')} = {counted} of {jobs * each}")
        check(counted == jobs * each, "jobs of one window counted", expression, counted)
    increase = receiver.value(f"sum(increase({counter}))")
    print(f"increase(done_total[5m]) = {increase:.2f}")
    check(increase >= jobs * each, "increase", increase)


def labels(agent, receiver):
    container = Container(agent, "c-labels", {"namespace": "shop", "pod": "cart-0", "container": "main"}, process=False)
    container.send(b"http.hits:2|c|#route:/pay,zone:b\nlatency:7|ms\nusers:a|s\nsize:4|h|#live\nlevel:3|g")
    plain = lambda one: tuple(sorted((key, value) for key, value in one.items() if key not in ("job", "instance", "node")))
    of = lambda job: {plain(one) for one in receiver.series(f'{{job="{job}",pod="cart-0"}}')
                      if not one["__name__"].startswith("tallyport_") and not one["__name__"].endswith("_created")}
    until("the series are there", lambda: len(of("tallyport")) >= 17 and len(of("scraped")) >= 17)
    time.sleep(2)
    pushed, scraped = of("tallyport"), of("scraped")
    print(f"labels: {len(pushed)} series pushed, {len(scraped)} scraped")
    check(pushed == scraped, "only pushed:", pushed - scraped, "only scraped:", scraped - pushed)
    agent.admin("DELETE", "/v1/containers/c-labels")


def end(agent, receiver):
    for name in ("c-ends", "c-stays"):
        Container(agent, name, process=False).send(b"level:3|g")
    shown = lambda name: receiver.query(f'level{{{PUSHED},task="{name}"}}')
    until("both are there", lambda: shown("c-ends") and shown("c-stays"))
    agent.admin("DELETE", "/v1/containers/c-ends")
    began = time.monotonic()
    until("the end is seen", lambda: not shown("c-ends"), patience=15)
    print(f"a container's end is seen after {time.monotonic() - began:.1f} s")
    check(shown("c-stays"), "the other one has ended as well")
    # A gauge is in every window, so that something would always be pending.
    agent.admin("DELETE", "/v1/containers/c-stays")


POISONED = {"late", "early", "twice"}
OTHERS = 5000


def poison(receiver):
    """Writes samples of three series as another sender with the same labels would. Returns when one can go on."""
    find = lambda name: next(one for one in receiver.series(f'{{__name__="{name}",{PUSHED}}}'))
    second = int(time.time()) * 1000
    receiver.write(find("late"), [(second + 8500, 5.0)])
    # Ten minutes ahead is the most that is accepted.
    receiver.write(find("early"), [(second + 570_500, 5.0)])
    receiver.write(find("twice"), [(second + 3000, 5.0)])
    return second / 1000 + 8.5


def refused(agent, receiver):
    container = Container(agent, "c-poison", process=False)
    container.send(b"late:1|g\nearly:1|g\ntwice:1|g")
    shown = lambda name: receiver.query(f"{name}{{{PUSHED}}}")
    until("the series are there", lambda: all(shown(name) for name in POISONED))
    before = publisher(agent)
    goes_on = poison(receiver)
    for start in range(0, OTHERS, 50):
        container.send(b"\n".join(b"series.%d:1|c" % n for n in range(start, start + 50)))
    count = f'count({{__name__=~"series_.*_total",{PUSHED}}} == 1)'
    until("the others are there", lambda: receiver.value(count) == OTHERS, patience=60)
    if receiver.refuses:
        until("there are dead letters", lambda: publisher(agent)["records"]["dead"] >= 3)
        last = lambda: receiver.value(f"timestamp(late{{{PUSHED}}})")
        until("a series goes on", lambda: last() > goes_on and receiver.value(f"late{{{PUSHED}}}") == 1)
    agent.admin("DELETE", "/v1/containers/c-poison")
    delivered(agent)
    after = publisher(agent)
    dead = agent.command("publish", "dead", "p").stdout.decode().splitlines()
    names = {name for line in dead for name in POISONED if f"gauge {name} of" in line}
    requests = {key: n - before["requests"].get(key, 0) for key, n in after["requests"].items()}
    print(f"{OTHERS} of {OTHERS} others are stored; {len(dead)} dead letters of {sorted(names)}; requests {requests}", *dead[:1])
    check(names == (POISONED if receiver.refuses else set()) and all("gauge" in line for line in dead), dead[:5])
    check(not after["records"]["dropped"], after["records"])
    compare(agent, OTHERS, but=POISONED)


def compare(agent, series, but=frozenset()):
    """Compares what was sent with what the receiver has. The series of these names may differ."""
    verified = verify(agent, "p", series)
    names = differing(verified)
    check(names <= but and (verified["code"] == 0) == (not names), "differences:", verified["differences"][:5])


def outage(agent, receiver):
    receiver.stop()
    sent = 5 * send_short_lived(agent, 8, b"hits:3|c\nhits:2|c|#route:/pay", 1)
    until("it is tried again", lambda: publisher(agent)["state"] in ("retrying", "sending"))
    receiver.start()
    until("the sums arrive", lambda: total(receiver, "hits_total") == sent, patience=90)
    delivered(agent)
    print(f"after the outage: {sent} sent, {total(receiver, 'hits_total'):.0f} there, {publisher(agent)['records']}")
    compare(agent, 16, but=POISONED)


def restarts(agent, receiver):
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
        max(float(value) for _, value in one["values"]) for one in receiver.ask("query", query=f"again_total{{{PUSHED}}}[10m]")["result"]
    )
    until("all is there", lambda: counted() == sent)
    print(f"over two restarts and a kill: {sent} sent, {counted():.0f} counted")
    # What earlier processes have sent is not compared.
    for n in range(30):
        Container(agent, f"c-{n}-last", process=False).send(b"last:1|c")
        time.sleep(0.1)
    compare(agent, 10)


def run():
    binaries, name, *program = sys.argv[1:]
    parts = [rates, short_jobs, labels, end, refused, outage, restarts]
    with tempfile.TemporaryDirectory() as directory:
        config = pathlib.Path(directory) / "agent.toml"
        agent = Agent(binaries, directory, ["--window", "1s", "--keep", "300", "--config", config])
        scraped = {"target": "%s:%d" % agent.address} if name != "mimir" else {}
        receiver = RECEIVERS[name](directory, **scraped, **({"program": program[0]} if program else {}))
        headers = json.dumps([f"{key}={value}" for key, value in receiver.headers.items()])
        config.write_text(f'[publish.p]\ntype = "remote_write"\nurl = "{receiver.write_url}"\nheaders = {headers}\n')
        try:
            receiver.start()
            agent.start()
            for part in parts:
                # Mimir scrapes nothing.
                if part is not labels or scraped:
                    part(agent, receiver)
        finally:
            agent.stop()
            receiver.stop()
    print(f"publish to {name}: OK")


if __name__ == "__main__":
    main(run)
