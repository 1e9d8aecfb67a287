#!/usr/bin/env python3
"""Kills an agent at each call that changes the disk, in turn, and starts it again.

Each time, the agent restores the containers of its predecessor, reserves more, receives, closes windows and writes
checkpoints, until it is killed before the Nth write, sync, truncation, rename or removal in its state directory, or in the
middle of the Nth write. The next agent must have every confirmed container at its address, every window that was readable,
all samples received except those of at most one checkpoint interval, and no sample twice.
"""

import argparse
import collections
import http.client
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "common"))
from agent import Agent, Container, Failed, check, interval, main, until

CHECKPOINT, SLACK, YOUNG = 0.1, 0.25, 0.25
FLAGS = ["--window", "1s", "--set", "windows.checkpoint=100ms"]
# The lifetime of an agent that is not killed.
LIFE = 1.6
# Enough for the journal to be rewritten while the agent runs.
LABELS = {f"l{n}": "x" * 4000 for n in range(9)}


def name(n):
    """Addresses are derived from names, so names must be unique on this machine."""
    return f"fault-{os.getpid()}-{n}"


class Life:
    """The state that an agent has confirmed or shown before it is killed."""

    def __init__(self, agent, old):
        self.agent, self.containers, self.sent, self.readable, self.new = agent, list(old), [], {}, []

    def live(self):
        ends = time.monotonic() + LIFE
        # One after the other, so that the state changes all the time.
        while time.monotonic() < ends:
            if len(self.containers) < 12:
                one = Container(self.agent, name(len(self.containers)), LABELS)
                self.containers.append(one)
                self.new.append(one)
            for container in self.containers:
                container.send(b"n:1|c")
                self.sent.append((time.monotonic(), container.name))
            self.read()
            time.sleep(0.02)

    def read(self):
        for record in self.agent.get("/v1/metrics")[1]["metrics"]:
            value = record["agg"]["sum"]
            if self.readable.get(interval(record), (None,))[0] != value:
                self.readable[interval(record)] = (value, time.monotonic())


class Faults:
    """Agents that start with the same state, each killed at a different call."""

    def __init__(self, binaries, directory, slack):
        self.slack = slack
        self.binaries, self.directory, self.hit = binaries, directory, collections.Counter()
        self.shim, self.slowest = directory / "fault.so", 0.0
        source = pathlib.Path(__file__).with_name("fault.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", self.shim, source], check=True)
        # The initial state of each: windows and containers of an agent that was killed.
        self.template = Agent(binaries, directory / "template", FLAGS)
        self.template.directory.mkdir()
        self.template.start()
        self.old = [Container(self.template, name(n)) for n in range(3)]
        for _ in range(30):
            for container in self.old:
                container.send(b"n:1|c")
            time.sleep(0.04)
        until("a window is closed", lambda: len(self.stored(self.template)) >= 3)
        time.sleep(0.3)
        self.template.kill()
        self.began = self.began_with()

    def end(self):
        self.template.stop()
        for container in self.old:
            container.end()

    @staticmethod
    def stored(agent):
        records = [record for task in agent.get("/v1/tasks")[1] for record in agent.records(task["task_id"])]
        return {interval(record): record["agg"]["sum"] for record in records}

    def one(self, at, half):
        """Kills an agent at a call. Returns the call's name, or None if the agent made fewer calls."""
        directory = self.directory / f"at-{at}-{half}"
        directory.mkdir()
        shutil.copytree(self.template.state, directory / "state", ignore=shutil.ignore_patterns("*.sock*"))
        agent, log = Agent(self.binaries, directory, FLAGS), directory / "calls"
        fault = {"LD_PRELOAD": self.shim, "FAULT_DIRECTORY": f"{directory}/state", "FAULT_AT": str(at), "FAULT_LOG": log}
        life = Life(agent, self.old)
        try:
            try:
                agent.start(environment=fault | ({"FAULT_HALF": "1"} if half else {}))
                life.live()
                killed = None
            except (OSError, http.client.HTTPException, Failed):
                check(agent.process.wait(5) == -9, "the agent failed by itself:", agent.log.read_text()[-2000:])
                killed = time.monotonic()
            calls = log.read_text().splitlines() if log.exists() else []
            if killed is None:
                agent.kill()
                return None
            _, call, path = calls[at - 1].split(" ")
            where = f"{call}{' (half)' if half and call == 'write' else ''} {''.join(c for c in path if not c.isdigit())}"
            self.hit[where] += 1
            try:
                self.recovered(agent, life, killed)
            except Failed as failed:
                raise Failed(f"after a kill at call {at}, {where}: {failed}") from None
            return call
        finally:
            agent.stop()
            for container in life.new:
                container.end()
            shutil.rmtree(directory)

    def recovered(self, agent, life, killed):
        agent.start()
        found = agent.containers()
        self.slowest = max(self.slowest, time.monotonic() - agent.started)
        for container in life.containers:
            one = found.get(container.name)
            check(one and one["state"] == "listening", container.name, "is", one and one["state"])
            check((one["statsd_host"], one["statsd_port"]) == container.address, container.name, "has another address")
        stored = self.stored(agent)
        for key, value in self.began.items():
            check(stored.get(key, 0) >= value, key, "had", value, "before the kill, and has", stored.get(key))
        for key, (value, since) in life.readable.items():
            young = killed - since < YOUNG
            check(young or stored.get(key, 0) >= value, key, "was readable with", value, "and has", stored.get(key))
        before, now = sum(self.began.values()), sum(stored.values())
        safe = sum(at < killed - CHECKPOINT - self.slack for at, _ in life.sent)
        check(safe <= now - before <= len(life.sent), now - before, "stored, of", safe, "to", len(life.sent))
        # And it still works.
        life.containers[-1].send(b"n:1|c")
        last = life.containers[-1].name
        until("it receives", lambda: agent.containers()[last]["received"] >= 1)
        check(agent.get("/ready")[0] == 200, "it is not ready")

    def began_with(self):
        """Reads the template's state with an agent that is not killed."""
        directory = self.directory / "as-it-was"
        directory.mkdir()
        shutil.copytree(self.template.state, directory / "state", ignore=shutil.ignore_patterns("*.sock*"))
        agent = Agent(self.binaries, directory, FLAGS)
        agent.start()
        try:
            return self.stored(agent)
        finally:
            agent.stop()


def run():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binaries", default="target/release")
    parser.add_argument("--every", type=int, default=1, help="only every so many-th call")
    parser.add_argument("--slack", type=float, default=SLACK, help="seconds beside a checkpoint's interval")
    parser.add_argument("--first", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tallyport-faults-") as directory:
        faults = Faults(options.binaries, pathlib.Path(directory).resolve(), options.slack)
        try:
            at = options.first
            while call := faults.one(at, False):
                if call == "write":
                    faults.one(at, True)
                at += options.every
        finally:
            faults.end()
        for where, times in sorted(faults.hit.items()):
            print(f"faults: {times:4} kills at {where}")
        kills = sum(faults.hit.values())
        check(kills > 0, "nothing was killed")
        print(f"faults: {kills} kills, each recovered from; the slowest start took {faults.slowest:.2f} s until its containers were back")


if __name__ == "__main__":
    main(run)
