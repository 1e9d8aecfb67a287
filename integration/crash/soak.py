#!/usr/bin/env python3
"""Runs a random mix of events: containers start and end, load changes, agents hand over, are killed and reload, clients
read, and the attacks of the hostile suite run, one at a time.

For every container that ends, the datagrams sent must equal those received plus those dropped by the kernel, and the
samples received those stored plus those dropped. A container that lived through a kill may lose samples: those sent from
one checkpoint interval before the kill until it had its address again. This holds during attacks as well, whose own
accounts must balance. Memory and descriptors must not grow: after the first quarter, when as many containers start as
end, the median of a later quarter may exceed that of the second by at most FLAT. They are measured between attacks.
"""

import argparse
import collections
import http.client
import json
import math
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time

INTEGRATION = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(INTEGRATION / "common"), str(INTEGRATION / "hostile")]
from agent import Agent, Container, Failed, check, main, until
from attack import Scale
from catalogue import storms
from kills import CHECKPOINT, SLACK
from measure import NICE, Process, attacking
from stage import Grounds

FLAGS = ["--window", "1s", "--keep", "600", "--set", "containers.tombstone=20s", "--set", "listeners.rest=2s"]
FLAGS += ["--set", f"windows.checkpoint={CHECKPOINT * 1000:.0f}ms", "--set", "limits.series=200"]
# Names and totals of workloads that are gone are remembered for a day. This bound is reached within minutes, so memory
# stops growing.
FLAGS += ["--set", "limits.remembered=2000"]
MOST = 40
# The age, in seconds, from which a container is the next to end.
OLDEST = 120
# By how much a later quarter's median may exceed the second's: a factor and 8 MiB for memory, a number for descriptors.
FLAT = (1.2, 8 << 20, 12)


class Sender(threading.Thread):
    """Sends for every container, at a rate that changes, and records the times."""

    def __init__(self, chance):
        super().__init__(daemon=True)
        self.chance, self.lock, self.live, self.rate, self.ends = chance, threading.Lock(), {}, 500, threading.Event()

    def run(self):
        while not self.ends.wait(0.01):
            with self.lock:
                containers = list(self.live.values())
                for _ in range(int(self.rate * 0.01) if containers else 0):
                    container = self.chance.choice(containers)
                    container.send(b"n:1|c\nlevel:7|g")
                    container.sent.append(time.monotonic())


def size(file):
    """The size of a file in bytes; 0 if it no longer exists."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


class Storm:
    """One attack of the hostile suite in its short form, on the running agent."""

    def __init__(self, agent, name, attack, seconds):
        self.name, self.grounds, self.attack = name, Grounds(agent), attack(Scale(short=True))
        self.processes = []
        try:
            self.attack.setup(self.grounds)
            numbers = range(self.attack.processes)
            self.processes = [Process(attacking, self.attack, number, nice=NICE) for number in numbers]
            self.ends = time.monotonic() + seconds
        except BaseException:
            self.abandon()
            raise

    def finish(self):
        """Ends it. Returns the counts of its actions, once the accounts of its containers are balanced."""
        did = collections.Counter()
        for process in self.processes:
            did.update(process.finish() or {"failed: died": 1})
        broken = [what for what in did if what.startswith("failed")]
        check(not broken, "the storm", self.name, "itself failed:", broken)
        for container in self.grounds.others:
            counts = self.grounds.agent.get(f"/v1/accounting?container={container.name}")[1]["containers"]
            check(all(one["balanced"] for one in counts), container.name, "is not balanced:", counts)
        self.grounds.leave()
        return did

    def abandon(self):
        for process in self.processes:
            process.end()
        for container in self.grounds.others:
            container.end()


class Soak:
    def __init__(self, agent, binaries, chance, slack):
        self.slack, self.agent, self.binaries, self.chance = slack, agent, pathlib.Path(binaries), chance
        self.sender, self.load, self.number = Sender(random.Random(chance.random())), None, 0
        self.did, self.totals, self.samples = collections.Counter(), collections.Counter(), []
        self.loads, self.scraped, self.began = collections.Counter(), threading.Event(), time.monotonic()
        self.storms, self.storm, self.stormed, self.unanswered = storms(), None, collections.Counter(), None

    # Events.

    def comes(self):
        if len(self.sender.live) < MOST:
            self.number += 1
            container = Container(self.agent, f"soak-{os.getpid()}-{self.number}", {"n": str(self.number % 5)})
            container.sent, container.lives, container.away, container.began = [], 1, [], time.monotonic()
            with self.sender.lock:
                self.sender.live[container.name] = container

    def goes(self):
        with self.sender.lock:
            if not self.sender.live:
                return
            # No container may live longer than windows are kept.
            oldest = next(iter(self.sender.live.values()))
            old = oldest.began < time.monotonic() - OLDEST
            container = self.sender.live.pop(oldest.name if old else self.chance.choice(list(self.sender.live)))
        container.end()
        until(f"{container.name} is gone", lambda: self.agent.containers()[container.name]["state"] == "gone")
        self.close(container)

    def changes(self):
        self.sender.rate = self.chance.choice([0, 200, 1000, 3000])

    def hands_over(self):
        try:
            pause = self.agent.hand_over()
        except Failed:
            # On a machine that stalls for seconds, the process that takes over does not answer in time. The old agent
            # must continue and nothing may be lost; accounts are compared as usual.
            check(self.agent.said("hand-over failed; continuing"), "a hand-over failed without a log line")
            self.did["hand-overs given up"] += 1
            check(self.did["hand-overs given up"] <= 2 + self.did["hands over"] // 10, "too many hand-overs were given up")
            return False
        self.totals["longest pause, ms"] = max(self.totals["longest pause, ms"], pause)
        return True

    def is_killed(self):
        # With much open data checkpoints are rarer, so the loss that a kill may cause is not known in advance.
        if self.load or self.storm:
            return False
        interval = self.checkpoint_interval()
        killed = time.monotonic()
        self.agent.kill()
        self.agent.start()
        back = time.monotonic()
        found = self.agent.containers()
        for container in self.sender.live.values():
            check(found[container.name]["state"] == "listening", container.name, "is not back")
            container.lives += 1
            container.away.append((killed - interval - self.slack, back))

    def checkpoint_interval(self):
        """The most that a crash loses, in seconds, as the agent reports it: more after an attack whose windows are still open."""
        return max(CHECKPOINT, self.agent.metric("tallyport_checkpoint_interval_seconds"))

    def reloads(self):
        check(self.agent.admin("POST", "/v1/config/reload")[0] == 200, "a reload was refused")

    def reconciles(self):
        status, found = self.agent.admin("POST", "/v1/reconcile")
        check(status == 200 and not found["lost"] and not found["mute"], found)

    def is_loaded(self):
        """A load of known totals, in which two containers exceed their series limit."""
        if self.load is None:
            rate, seconds = self.chance.choice([1000, 4000]), self.chance.randint(3, 10)
            command = [self.binaries / "tallyport-load", "--json", "--url", self.agent.url, "--containers", "8"]
            command += ["--admin-socket", self.agent.admin_socket, "--rate", str(rate), "--samples", str(rate * 8 * seconds)]
            command += ["--over-caps", "2", "--series-cap", "200"]
            self.load = subprocess.Popen(command, stdout=subprocess.PIPE)

    def is_stormed(self):
        """Starts an attack. Each attack runs once before any is repeated."""
        if self.storm is None:
            fewest = min(self.stormed[name] for name in self.storms)
            name = self.chance.choice([name for name in self.storms if self.stormed[name] == fewest])
            self.stormed[name] += 1
            self.storm = Storm(self.agent, name, self.storms[name], self.chance.randint(2, 6))

    def storm_is_over(self, at=None):
        if self.storm and self.storm.ends <= (at or time.monotonic()):
            self.storm, storm = None, self.storm
            try:
                storm.finish()
            except BaseException:
                storm.abandon()
                raise

    def loaded(self):
        """Checks the result of a load that has ended: every total must be correct."""
        if self.load and self.load.poll() is not None:
            report = self.load.stdout.read()
            check(self.load.returncode == 0, "the load failed:", self.load.returncode, report)
            report = json.loads(report)
            check(not report["mismatches"], "the load differs:", report)
            self.loads.update({key: report[key] for key in ("sent", "received", "kernel_drops", "values", "dropped")})
            self.load = None

    # Invariants.

    def close(self, container):
        """Checks the accounts of a container that has ended."""
        sent, name = len(container.sent), container.name
        counts = self.agent.get(f"/v1/accounting?container={name}")[1]["containers"][0]
        check(counts["balanced"], name, "is not balanced:", counts)
        arrived, received = counts["datagrams"]["arrived"], counts["datagrams"]["received"]
        records = self.agent.records(name)
        stored = int(sum(record["agg"]["sum"] for record in records if record["name"] == "n"))
        lost = 0
        if container.lives == 1:
            values = counts["values"]
            check(arrived == sent, name, "sent", sent, "and", arrived, "arrived")
            check(received == arrived - counts["datagrams"]["kernel_drops"], name, counts)
            check(values["accepted"] == 2 * received and not values["dropped"], name, counts)
            check(stored == received, name, "has", stored, "stored of", received, "received")
            self.totals["dropped by the kernel"] += counts["datagrams"]["kernel_drops"]
        else:
            lost = sent - stored
            may = sum(any(first <= at <= last for first, last in container.away) for at in container.sent)
            check(0 <= lost <= may, name, "has", stored, "stored of", sent, "sent, and may miss", may, "for kills")
        self.totals.update({"sent": sent, "stored": stored, "lost to kills": lost, "containers": 1})

    def sample(self):
        pid = self.agent.process.pid
        rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
        pss = next(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Pss:"))
        open_ones = len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))
        # Each container takes two: a socket and a process handle.
        live = sum(one["state"] == "listening" for one in self.agent.containers().values())
        disk = sum(size(file) for file in (self.agent.state / "windows").iterdir())
        self.samples.append((pss, open_ones - 2 * live, disk))

    def scrape(self):
        while not self.scraped.wait(1):
            for path in ("/metrics/tasks", "/metrics", "/v1/metrics", "/v1/tasks"):
                try:
                    status, answer = self.agent.get(path)
                    if status == 200:
                        self.did["scrapes"] += 1
                    elif status in (429, 503):
                        # There are many readers, or an agent starts or ends.
                        self.did["scrapes that had to wait"] += 1
                    else:
                        self.unanswered = f"{path} is answered with {status}: {answer}"
                except (OSError, http.client.HTTPException):
                    self.did["scrapes without an agent"] += 1

    def run(self, seconds):
        happens = {
            self.comes: 30, self.goes: 20, self.changes: 8, self.hands_over: 3, self.is_killed: 3, self.reloads: 3,
            self.reconciles: 3, self.is_loaded: 3, self.is_stormed: 3,
        }
        self.sender.start()
        threading.Thread(target=self.scrape, daemon=True).start()
        for _ in range(MOST // 2):
            self.comes()
        while time.monotonic() < self.began + seconds:
            happens_now = self.chance.choices(list(happens), happens.values())[0]
            if happens_now() is not False:
                self.did[happens_now.__name__.replace("_", " ")] += 1
            self.loaded()
            self.storm_is_over()
            check(not self.unanswered, self.unanswered)
            if not self.storm:
                self.sample()
            time.sleep(self.chance.uniform(0.05, 0.5))
        self.storm_is_over(math.inf)
        while self.sender.live:
            self.goes()
        if self.load:
            self.load.wait(60)
            self.loaded()
        self.scraped.set()

    def flat(self):
        """The medians of memory, descriptors and bytes on disk, for each quarter except the first."""
        size = len(self.samples) // 4
        quarters = [self.samples[n * size:(n + 1) * size] for n in (1, 2, 3)]
        medians = [[statistics.median(values) for values in zip(*quarter)] for quarter in quarters]
        (part, more, descriptors), before = FLAT, medians[0]
        for after in medians[1:]:
            check(after[0] <= before[0] * part + more, "memory grows:", medians)
            check(after[1] <= before[1] + descriptors, "descriptors grow:", medians)
        return medians

    def end(self):
        self.scraped.set()
        self.sender.ends.set()
        if self.load:
            self.load.kill()
        if self.storm:
            self.storm.abandon()
        for container in self.sender.live.values():
            container.end()


def run():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=int, nargs="?", default=3600)
    parser.add_argument("--binaries", default="target/release")
    parser.add_argument("--slack", type=float, default=SLACK, help="seconds beside a checkpoint's interval")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"soak: {options.seconds} s, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="tallyport-soak-") as directory:
        agent = Agent(options.binaries, directory, FLAGS)
        soak = Soak(agent, options.binaries, random.Random(options.seed), options.slack)
        try:
            agent.start()
            soak.run(options.seconds)
            medians = soak.flat() if options.seconds >= 60 else None
        except BaseException:
            print("soak: did", dict(soak.did), dict(soak.totals))
            print("--- the agent's log", *agent.log.read_text().splitlines()[-20:], sep="\n")
            raise
        finally:
            soak.end()
            agent.stop()
        print("soak: did", ", ".join(f"{what} {times}" for what, times in soak.did.items()))
        print("soak: storms", ", ".join(f"{name.replace('_', '-')} {times}" for name, times in soak.stormed.items()))
        print("soak: containers", ", ".join(f"{what} {n}" for what, n in soak.totals.items()))
        print("soak: loads", ", ".join(f"{what} {n}" for what, n in soak.loads.items()))
        if medians is None:
            print("soak: too short to check whether memory and descriptors grow")
            return
        for what, values in zip(("memory, MiB", "descriptors beyond containers'", "log on disk, MiB"), zip(*medians)):
            scale = 1 if what.startswith("desc") else 1 << 20
            print(f"soak: {what} in the 2nd, 3rd and 4th quarter:", ", ".join(f"{value / scale:.1f}" for value in values))


if __name__ == "__main__":
    main(run)
