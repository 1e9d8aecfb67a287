#!/usr/bin/env python3
"""Publishes to a real InfluxDB and a real Prometheus at once, through kills, hand-overs and a long outage: soak.py BINARIES

BINARIES is the directory of tallyport. Containers come and go all the time, several of them in a task, and send counters, timers and
gauges. Windows and containers stay in memory for five seconds only.

1. The agent is killed and handed over at random moments.
2. Both servers are away, by default for 20 minutes. Resident memory may grow by MEMORY. The agent is handed over and killed before
   they come back, and killed while it delivers what it has kept, which may take CATCHING_UP. No file of the spool may stay.
3. What was sent to each container has to be shown by the agent, except what was sent from one checkpoint before a kill until the
   container had its address again. Every point in InfluxDB has to be what was shown of its round. The totals in Prometheus may have
   grown by nothing that was not shown, and each kill may cost the one round that was under way.
4. With a spool of 1 MiB, what it has no room for is counted exactly, it is the oldest, and the rest arrives.

The counts of each publisher have to add up all the time. Until the spool is small, they may have lost corrections of gauges that
Prometheus cannot be sent, and what was closed when the agent was killed and not written yet.
"""

import argparse
import collections
import math
import os
import pathlib
import random
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "common"), str(ROOT / "peers")]
sys.path.append(str(ROOT / "crash"))
from accounts import delivered, publishers  # noqa: E402
from agent import Agent, Container, Failed, check, main, until  # noqa: E402
from backends import compare_points, compare_totals  # noqa: E402
from influxdb import InfluxDB  # noqa: E402
from kills import CHECKPOINT, SLACK  # noqa: E402
from prometheus import Prometheus  # noqa: E402
from shown import ADDS, LINES, Shown, by_container, by_series  # noqa: E402
from small_spool import overflow  # noqa: E402

CONFIG = """windows.keep = 5
windows.log_size = "1MiB"
containers.tombstone = "5s"
"""
# Containers at a time, their tasks, and datagrams of four values to all of them in a second.
FEWEST, MOST, TASKS, RATE = 16, 24, 8, 100
# Before resident memory is compared, the agent runs for so long, in seconds.
STEADY = 20
MEMORY = 10 << 20
CATCHING_UP = 120


def configure(influx, prometheus, *settings):
    return "".join(settings) + (
        f'[publish.i]\ntype = "influxdb"\nurl = "http://127.0.0.1:{influx.port}"\n'
        f'[publish.p]\ntype = "remote_write"\nurl = "{prometheus.url}/api/v1/write"\n'
    )


class Sender(threading.Thread):
    """Sends to one container after the other, and notes the times."""

    def __init__(self, chance):
        super().__init__(daemon=True)
        self.chance, self.lock, self.live, self.ends = chance, threading.Lock(), {}, threading.Event()

    def run(self):
        began, sent = time.monotonic(), 0
        while not self.ends.wait(max(0, began + sent / RATE - time.monotonic())):
            with self.lock:
                if self.live:
                    container = self.chance.choice(list(self.live.values()))
                    container.send(LINES)
                    container.sent.append(time.monotonic())
            sent += 1


class Soak:
    def __init__(self, agent, servers, chance, slack):
        self.agent, self.servers, self.chance, self.slack = agent, servers, chance, slack
        self.sender, self.shown = Sender(random.Random(chance.random())), Shown(agent)
        self.ended, self.killed_at, self.did, self.lost = [], [], collections.Counter(), {}

    # Events.

    def comes(self):
        number = self.did["containers"]
        # Addresses are derived from names, so names must be unique on this machine.
        container = Container(self.agent, f"soak-{os.getpid()}-{number}", task=f"web.{number % TASKS}")
        container.sent, container.away, container.kernel_drops = [], [], 0
        self.did["containers"] += 1
        with self.sender.lock:
            self.sender.live[container.name] = container

    def goes(self):
        with self.sender.lock:
            container = self.sender.live.pop(self.chance.choice(list(self.sender.live)))
        container.end()
        name, gone = container.name, {"state": "gone"}
        until(f"{name} is gone", lambda: self.agent.containers().get(name, gone)["state"] == "gone")
        counts = self.agent.get(f"/v1/accounting?container={name}")[1]["containers"][0]
        check(counts["balanced"] and not counts["values"]["dropped"], name, counts)
        container.kernel_drops = counts["datagrams"]["kernel_drops"]
        self.ended.append(container)

    def churn(self):
        live = len(self.sender.live)
        if live < FEWEST or live < MOST and self.chance.random() < 0.5:
            self.comes()
        else:
            self.goes()

    def is_killed(self):
        self.count()
        interval = max(CHECKPOINT, self.agent.metric("tallyport_checkpoint_interval_seconds"))
        killed = self.shown.note_kill()
        self.killed_at.append(time.time())
        self.agent.kill()
        time.sleep(self.chance.choice([0, self.chance.uniform(0, 0.3)]))
        self.agent.start()
        back, found = time.monotonic(), self.agent.containers()
        for container in self.sender.live.values():
            check(found[container.name]["state"] == "listening", container.name, "is not back")
        # The last window of a container that has just ended may not have been on the disk.
        for container in [*self.sender.live.values(), *self.ended]:
            container.away.append((killed - interval - self.slack, back))
        self.did["kills"] += 1

    def hands_over(self):
        self.count()
        try:
            self.agent.hand_over()
            self.did["hand-overs"] += 1
        except Failed:
            # On a machine that stalls for seconds the old agent has to continue.
            check(self.agent.said("hand-over failed; continuing"), "a hand-over failed without a log line")
            self.did["hand-overs given up"] += 1
            check(self.did["hand-overs given up"] <= 2, "too many hand-overs were given up")

    # Accounts.

    def count(self):
        """Notes what this run of the agent counts as lost, which the next one does not know. `go_on` looks again and again, so of a
        run the last look counts."""
        for name, one in publishers(self.agent).items():
            records = one["records"]
            for reason, count in {**records["dropped"], "dead": records["dead"]}.items():
                self.lost[self.agent.lives, name, reason] = count

    def check_losses(self):
        """The sums of what was lost, over all runs. A gap in the sequence of a killed agent is counted as expired: windows that were
        closed and not written, at most one of each container. They come back as of the last checkpoint, which is delivered."""
        sums = collections.Counter()
        for (_, name, reason), count in self.lost.items():
            sums[name, reason] += count
        text = ", ".join(f"{name} {reason} {count}" for (name, reason), count in sums.items() if count)
        print("soak: did", ", ".join(f"{what} {count}" for what, count in self.did.items()), "- records lost:", text or "none", flush=True)
        most = {("p", "late"): math.inf, **{(name, "expired"): self.did["kills"] * MOST * len(ADDS) for name in "ip"}}
        check(all(count <= most.get(what, 0) for what, count in sums.items()), "records are counted as lost")

    def pending(self):
        """The records that wait, of the publisher that has more. Those that earlier runs have left are counted first."""
        records = [one["records"] for one in publishers(self.agent).values()]
        return max(one["pending"] if one["closed"] else math.inf for one in records)

    def resident(self):
        status = pathlib.Path(f"/proc/{self.agent.process.pid}/status").read_text()
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS:"))

    # Parts.

    def go_on(self, seconds):
        """Lets containers come and go. Returns the agent's resident memory, as it was every few seconds."""
        resident, ends = [], time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            self.churn()
            if len(resident) * 5 <= seconds - left:
                self.count()
                resident.append(self.resident())
            time.sleep(self.chance.uniform(0.2, 1.5))
        return resident

    def disturb(self, kills, hand_overs):
        events = [self.is_killed] * kills + [self.hands_over] * hand_overs
        self.chance.shuffle(events)
        for event in events:
            time.sleep(self.chance.uniform(0.1, 3))
            for _ in range(self.chance.randrange(3)):
                self.churn()
            event()
            self.churn()

    def outage(self, seconds):
        before = max(self.go_on(STEADY))
        for server in self.servers:
            server.stop()
        began = time.monotonic()
        resident = self.go_on(seconds)
        pending, spool = self.pending(), self.agent.metric("tallyport_publish_spool_bytes")
        print(f"soak: outage of {seconds} s: {pending} records wait, {spool / (1 << 20):.1f} MiB in the spool; resident memory "
              f"{before / (1 << 20):.1f} MiB before, then {min(resident) / (1 << 20):.1f} to {max(resident) / (1 << 20):.1f} MiB", flush=True)
        check(max(resident) <= before + MEMORY, "resident memory grows")
        check(spool > 0 or seconds < CATCHING_UP, "nothing is in the spool")
        self.hands_over()
        self.is_killed()
        self.catch_up(began)

    def catch_up(self, began):
        for server in self.servers:
            server.start()
        up = time.monotonic()
        until("what is left is counted", lambda: self.pending() < math.inf)
        left = self.pending()
        until("something is delivered", lambda: self.pending() < left, patience=CATCHING_UP)
        self.is_killed()
        # What the containers send in a few seconds always waits.
        few = 5 * MOST * len(ADDS)
        until("the backlog is delivered", lambda: self.pending() <= few, patience=CATCHING_UP + up - time.monotonic())
        took, away = time.monotonic() - up, up - began
        print(f"soak: {left} records of {away:.0f} s were delivered {took:.1f} s after the servers were back, beside a kill", flush=True)

    def finish(self):
        while self.sender.live:
            self.goes()
        self.sender.ends.set()
        delivered(self.agent, patience=90)
        self.count()
        files = lambda: list((self.agent.state / "windows").glob("spool-*"))
        until("the files of the spool are gone", lambda: not files() and not self.agent.metric("tallyport_publish_spool_bytes"))
        self.shown.end()

    def compare(self, influx, prometheus):
        if self.shown.missed:
            print("soak: gone before it was read:", *self.shown.missed, sep="\n  ")
        records = self.shown.lasting()
        self.compare_sent(by_container(records))
        series = by_series(records)
        stored, of = compare_points(influx, series, self.killed_at)
        print(f"soak: InfluxDB: {stored} points in {of} series, each as the agent has shown it")
        of, resets, lost = compare_totals(prometheus, series, self.killed_at)
        print(f"soak: Prometheus: {of} totals over {resets} resets, none grown by more than was shown; {len(lost)} rounds were under way "
              f"at kills and are missing, {sum(lost.values()):.0f} of hits")

    def compare_sent(self, stored):
        """Compares what each container was sent with what was shown. Every datagram has the same lines."""
        sums = collections.Counter()
        for container in self.ended:
            sent, has = len(container.sent), stored.pop(container.name, {})
            count = has.get(("hits", "", "sum"), 0)
            for field, adds in ADDS.items():
                check(has.get(field, 0) == count * adds, container.name, "has", has.get(field), "of", field, "for", count, "datagrams")
            may = sum(any(first <= at <= last for first, last in container.away) for at in container.sent)
            lost = sent - count - container.kernel_drops
            check(0 <= lost <= may, container.name, "has", count, "of", sent, "datagrams, and may miss", may, "for kills")
            sums.update({"sent": sent, "shown": count, "lost to kills": lost, "dropped by the kernel": container.kernel_drops})
        check(not stored, "containers that were never there:", list(stored)[:5])
        print("soak: datagrams of 4 values:", ", ".join(f"{count:.0f} {what}" for what, count in sums.items()))

    def end(self):
        self.sender.ends.set()
        self.shown.ends.set()
        for container in self.sender.live.values():
            container.end()


def soak(options, directory, influx, prometheus):
    config = pathlib.Path(directory) / "agent.toml"
    config.write_text(configure(influx, prometheus, CONFIG))
    agent = Agent(options.binaries, directory, ["--window", "1s", "--config", config])
    run = Soak(agent, (influx, prometheus), random.Random(options.seed), options.slack)
    try:
        agent.start()
        run.shown.start()
        while len(run.sender.live) < FEWEST:
            run.comes()
        run.sender.start()
        # Two kills and a hand-over are part of the outage.
        run.disturb(max(0, options.kills - 2), max(0, options.handovers - 1))
        run.outage(options.outage)
        run.finish()
        run.compare(influx, prometheus)
        run.check_losses()
    except BaseException:
        print("soak: did", dict(run.did))
        print("--- the agent's log", *agent.log.read_text().splitlines()[-20:], sep="\n")
        raise
    finally:
        run.end()
        agent.stop()


def run():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binaries")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--handovers", type=int, default=20)
    parser.add_argument("--outage", type=float, default=1200, help="seconds")
    parser.add_argument("--slack", type=float, default=SLACK, help="seconds beside a checkpoint's interval; more on a busy machine")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"soak: {options.kills} kills, {options.handovers} hand-overs, an outage of {options.outage:.0f} s, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="tallyport-soak-") as directory:
        directories = [pathlib.Path(directory) / name for name in ("agent", "influxdb", "prometheus", "small")]
        for one in directories:
            one.mkdir()
        influx, prometheus = InfluxDB(directories[1]), Prometheus(directories[2])
        try:
            influx.start()
            prometheus.start()
            influx.query("create database kadabra")
            soak(options, directories[0], influx, prometheus)
            overflow(options.binaries, directories[3], configure, influx, prometheus)
        finally:
            influx.stop()
            prometheus.stop()
    print("soak of publishers: OK")


if __name__ == "__main__":
    main(run)
