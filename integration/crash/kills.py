#!/usr/bin/env python3
"""Kills an agent at random moments under a steady load of known totals, and starts it again.

Afterwards no readable closed window may be missing or smaller, at most one checkpoint interval of received samples may be
lost, every container must be back at its address within a second of the start, the gap must be reported, and no scraper
may count more than was sent.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "common"))
from agent import Agent, Container, check, interval, main, until
from scrapers import Prometheus, Reader

# Addresses are derived from names, so names must be unique on this machine.
WITNESS = f"witness-{os.getpid()}"
WINDOW, CHECKPOINT = 1, 1.0
# Added to a checkpoint's interval: the time that the checkpoint takes, and delays by other processes on the machine.
SLACK = 0.35
# The delay from when a window is readable to when it is on disk. A younger one may come back as of the last checkpoint.
YOUNG = 0.25


class Witness(threading.Thread):
    """A container that sends one sample at a time, and records the time of each."""

    def __init__(self, agent):
        super().__init__(daemon=True)
        self.agent, self.container, self.sent = agent, Container(agent, WITNESS), []
        self.quiet, self.ends, self.still = threading.Event(), threading.Event(), threading.Event()

    def run(self):
        while not self.ends.wait(0.001):
            if self.quiet.is_set():
                self.still.set()
                continue
            self.container.send(b"seen:1|c")
            self.sent.append(time.monotonic())

    def pause(self):
        self.still.clear()
        self.quiet.set()
        self.still.wait()

    def go_on(self):
        self.quiet.clear()

    def stored(self):
        return int(sum(record["agg"]["sum"] for record in self.agent.records(WITNESS)))

    def end(self):
        self.ends.set()
        self.join()
        self.container.end()


class Load:
    """`tallyport-load`, which keeps sending while the agent is down."""

    def __init__(self, agent, binaries, containers, rate):
        command = [pathlib.Path(binaries) / "tallyport-load", "--outlast", "--url", agent.url, "--series", "6"]
        command += ["--admin-socket", agent.admin_socket, "--containers", str(containers), "--rate", str(rate)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        until("the load has its containers", lambda: len(agent.containers()) >= containers)

    def end(self):
        said, _ = self.process.communicate(timeout=60)
        check(self.process.returncode == 0, "the load ended with", self.process.returncode)
        return json.loads(said)


def back(agent, addresses):
    """The time from the start until every container had its address again."""
    found = agent.containers()
    took = time.monotonic() - agent.started
    for name, address in addresses.items():
        one = found.get(name)
        check(one, name, "is not back")
        is_at = (one["statsd_host"], one["statsd_port"])
        check((one["state"], is_at) == ("listening", address), name, "is", one["state"], "at", is_at, one["warnings"])
    return took


class Kills:
    """The kills, one after the other, and their losses."""

    def __init__(self, agent, witness, addresses, chance, options):
        self.back_within, self.processor, self.slack = options.back_within, [], options.slack
        self.agent, self.witness, self.addresses, self.chance = agent, witness, addresses, chance
        self.lost, self.took, self.dead, self.at, self.stored, self.before = [], [], [], [], 0, 0

    def one(self, longest):
        time.sleep(self.chance.uniform(0.1, longest))
        self.witness.pause()
        killed = time.monotonic()
        self.agent.kill()
        self.at.append(killed)
        # Sometimes at once, sometimes after a delay, as some supervisors do.
        time.sleep(self.chance.choice([0, self.chance.uniform(0, 0.3)]))
        self.agent.start()
        self.took.append(back(self.agent, self.addresses))
        self.dead.append(time.monotonic() - killed)
        self.processor.append(self.agent.processor())
        check(self.took[-1] <= self.back_within, f"containers were back after {self.took[-1]:.2f} s")
        self.told(killed)
        self.counted(killed)
        self.witness.go_on()

    def told(self, killed):
        line = self.agent.said("the previous agent did not end in order; no datagrams were received until this start")
        check(line, "the gap is not logged")
        gap, down = self.agent.metric("tallyport_gap_seconds"), self.agent.started - killed
        most = time.monotonic() - killed + CHECKPOINT + self.slack
        check(down <= gap + 0.01 and gap <= most, f"a gap of {gap:.2f} s is logged after {down:.2f} s without an agent")

    def counted(self, killed):
        """Compares the samples that the witness sent to the killed agent with those restored."""
        sent, stored = len(self.witness.sent), self.witness.stored()
        missing = (sent - self.before) - (stored - self.stored)
        check(missing >= 0, "more came back than was sent:", stored - self.stored, "of", sent - self.before)
        first = self.witness.sent[sent - missing] if missing else killed
        self.lost.append(killed - first)
        check(self.lost[-1] <= CHECKPOINT + self.slack, f"{missing} samples of {self.lost[-1]:.2f} s are lost")
        self.stored, self.before = stored, sent


def compare(agent, load, reader, kills):
    """Compares the stored totals with what was sent, and with every record that was ever readable."""
    stored, found = {}, {}
    for task in [*load["containers"], WITNESS]:
        for record in agent.records(task):
            value = record["agg"].get("sum", record.get("value"))
            key = interval(record)
            check(key not in found, "an interval has two records:", key)
            found[key] = value
            if record["type"] == "counter":
                of = stored.setdefault(task, {})
                of[record["name"]] = of.get(record["name"], 0) + record["agg"]["sum"]
    # The loss allowed for each: samples received since the last checkpoint, and those sent while no agent ran.
    away = sum(kills.dead) + len(kills.dead) * (CHECKPOINT + kills.slack)
    for task, traffic in load["containers"].items():
        for name, sent in traffic["counters"].items():
            has = stored.get(task, {}).get(name, 0)
            check(has <= sent, f"{task} {name}: {has} stored of {sent} sent")
            check(has >= sent * (1 - away / load["seconds"]) - 0.05 * sent, f"{task} {name}: only {has} stored of {sent}")
    young = 0
    for key, (value, since, partial) in reader.seen.items():
        less = key not in found or (key[3] in ("counter", "timer", "histogram", "distribution") and found[key] < value)
        if not less:
            continue
        age = min((killed - since for killed in kills.at if killed >= since), default=None)
        check(age is not None and age < YOUNG, f"{key} was readable for {age} s with {value}, and is {found.get(key)}")
        young += 1
    return stored, young


def scraped(prometheus, load):
    """Compares the server's count of each counter with what was sent."""
    counted, resets = prometheus.counted("requests_.*_total")
    increase = prometheus.increase({name for _, name in counted})
    check(len(counted) >= len(load["containers"]), "Prometheus has", len(counted), "counters")
    most = 0.0
    for (task, name), value in counted.items():
        sent = load["containers"][task]["counters"][name.removesuffix("_total").replace("_", ".")]
        check(value <= sent, f"{task} {name}: Prometheus counts {value} of {sent} sent")
        most = max(most, increase.get((task, name), 0.0) / sent)
    check(resets > 0, "Prometheus has seen no reset")
    check(most <= 1.0, f"increase() says {most:.3f} of what was sent")
    return f"Prometheus counted {len(counted)} counters over {resets} resets, increase() at most {most:.3f} of what was sent"


def run():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binaries", default="target/release")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--containers", type=int, default=64)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--longest", type=float, default=3.0, help="seconds of a life at most")
    parser.add_argument("--back-within", type=float, default=1.0, help="seconds; more on a machine that others use, too")
    parser.add_argument("--slack", type=float, default=SLACK, help="seconds beside a checkpoint's interval; more there, too")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--prometheus", action="store_true")
    options = parser.parse_args()
    print(f"kills: seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="tallyport-kills-") as directory:
        directory = pathlib.Path(directory)
        flags = ["--window", f"{WINDOW}s", "--keep", "600", "--set", "windows.checkpoint=%dms" % (CHECKPOINT * 1000)]
        agent, ends = Agent(options.binaries, directory, flags), []
        try:
            agent.start()
            ends.append(agent.stop)
            prometheus = None
            if options.prometheus:
                prometheus = Prometheus(directory, agent)
                ends.append(prometheus.end)
            load = Load(agent, options.binaries, options.containers, options.rate)
            ends.append(load.process.kill)
            witness, reader = Witness(agent), Reader(agent)
            ends += [witness.end, reader.end]
            witness.start(), reader.start()
            addresses = {name: (c["statsd_host"], c["statsd_port"]) for name, c in agent.containers().items()}
            kills = Kills(agent, witness, addresses, random.Random(options.seed), options)
            for _ in range(options.kills):
                kills.one(options.longest)
            time.sleep(WINDOW + 1.5)
            sent = load.end()
            text = [scraped(prometheus, sent)] if prometheus else []
            witness.ends.set()
            witness.container.end()
            until("all have ended", lambda: all(one["state"] == "gone" for one in agent.containers().values()))
            time.sleep(0.1)
            reader.end()
            stored, young = compare(agent, sent, reader, kills)
            has = sum(sum(of.values()) for task, of in stored.items() if task != WITNESS)
            of = sum(sum(traffic["counters"].values()) for traffic in sent["containers"].values())
            longest, usual = max(kills.lost), sorted(kills.lost)[len(kills.lost) // 2]
            print(
                f"kills: {options.kills} kills, {sent['sent']} datagrams sent by {len(addresses) - 1} containers in "
                f"{sent['seconds']:.0f} s, {100 * has / of:.1f} % of them stored (no agent ran for {sum(kills.dead):.0f} s)\n"
                f"kills: lost data received before a kill: {usual:.2f} s (median), {longest:.2f} s at most\n"
                f"kills: containers back after {sorted(kills.took)[len(kills.took) // 2]:.2f} s (median), "
                f"{max(kills.took):.2f} s at most, {sum(took > 1 for took in kills.took)} times after more than one; the start took "
                f"{max(kills.processor):.2f} s of CPU time at most\n"
                f"kills: {len(reader.seen)} records were readable, none is lost; {young} were younger than {YOUNG} s when the "
                "agent was killed, and came back as of the last checkpoint"
            )
            for line in text:
                print("kills:", line)
        except BaseException:
            if agent.log:
                print("--- the agent's log", *agent.log.read_text().splitlines()[-20:], sep="\n")
            raise
        finally:
            for end in reversed(ends):
                end()


if __name__ == "__main__":
    main(run)
