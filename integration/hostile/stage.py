"""An agent with its quiet containers, attacked once and measured."""

import collections
import os
import socket
import time

from agent import Agent, Container, Failed, check, until
from attack import AIMS, ROBUST, Scenario
from measure import Memory, Probe, Process, attacking, p99, send_quietly

WINDOW = 1
# The time after which samples that are in no closed window count as lost.
SETTLES = 30


class Grounds:
    """An agent, and the attacking containers."""

    def __init__(self, agent):
        self.agent, self.others, self.number = agent, [], 0
        self.sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def container(self, label, **more):
        """An attacking container. Addresses are derived from names, so names must be unique on this machine."""
        self.number += 1
        one = Container(self.agent, f"hostile-{os.getpid()}-{label}-{self.number}", **more)
        self.others.append(one)
        return one

    def crowd(self, size, series):
        """Reserves containers without a process, and sends the given number of series once to each."""
        crowd = [self.container("crowd", process=False, sender=self.sender) for _ in range(size)]
        lines = [b"requests.of.a.crowd.%d:1|c" % n for n in range(series)]
        for container in crowd:
            for at in range(0, series, 25):
                container.send(b"\n".join(lines[at:at + 25]))
        return crowd

    def fill(self, container, lines, each):
        """Sends lines, the given number in each datagram, no faster than the agent receives them."""
        datagrams = [b"\n".join(lines[at:at + each]) for at in range(0, len(lines), each)]
        before = self.received(container)
        for sent, datagram in enumerate(datagrams, 1):
            container.send(datagram)
            if sent % 10 == 0 or sent == len(datagrams):
                until("what was sent is received", lambda: self.received(container) >= before + sent)

    def received(self, container):
        return self.agent.admin("GET", f"/v1/containers/{container.name}")[1]["received"]

    def leave(self):
        """Ends the containers; those without a process are released."""
        for container in self.others:
            container.end()
            if not container.process:
                self.agent.admin("DELETE", f"/v1/containers/{container.name}")


class Stage(Grounds):
    def __init__(self, attack, options, directory):
        self.attack, self.options, self.directory = attack, options, directory
        self.seconds = options.seconds or (2 if options.short else attack.seconds)
        self.quiet, self.agents = [], []
        self.measured, self.did = {}, collections.Counter()
        self.missed = []
        more = attack.prepare(directory) or ()
        flags = ["--window", f"{WINDOW}s", "--keep", str(attack.keep), "--set", f"limits.node_memory={attack.budget}B"]
        super().__init__(Agent(options.binary, directory, [*flags, *attack.flags, *more]))
        self.memory, self.processes = Memory(self.agent), []

    def another(self, directory):
        """Another agent, in a directory of its own; it ends with the stage."""
        self.agents.append(Agent(self.options.binary, directory, ["--window", f"{WINDOW}s"]))
        return self.agents[-1]

    # The run.

    def run(self):
        """Runs the attack. Raises `Failed` if a limit is exceeded or a condition is not met."""
        try:
            if isinstance(self.attack, Scenario):
                return self.attack.play(self)
            self.agent.start()
            self.memory.start()
            names = range(self.options.containers)
            self.quiet = [Container(self.agent, f"quiet-{os.getpid()}-{n}") for n in names]
            self.attack.setup(self)
            self.assail()
            self.attack.holds(self)
            self.assess()
        finally:
            self.end()

    def assail(self):
        sender = self.start(send_quietly, self.quiet, self.options.rate)
        attackers = [self.start(attacking, self.attack, n, nice=10) for n in range(self.attack.processes)]
        step = max(1, len(self.quiet) // 4)
        probe = self.start(Probe(self.agent.address, [one.name for one in self.quiet[::step]], WINDOW))
        began = time.monotonic()
        self.attack.meanwhile(self)
        time.sleep(max(0.0, began + self.seconds - time.monotonic()))
        found = self.finish(probe)
        if self.is_measured("pause_ms"):
            self.take_over()
        for attacker in attackers:
            self.did.update(self.finish(attacker))
        rounds = self.finish(sender)
        self.measured["read_ms"], self.measured["health_ms"] = p99(found["took"]["read_ms"]), max(found["took"]["health_ms"])
        self.measured["close_ms"] = max(found["late"], default=None)
        self.refused = found["refused"]
        self.answered = all(found["took"].values())
        if self.is_measured("lost"):
            self.measured["lost"] = self.settle(rounds)
        self.memory.end()
        self.measured["memory_mib"] = (self.memory.peak - self.attack.budget) / (1 << 20)

    def take_over(self):
        try:
            self.measured["pause_ms"] = self.agent.hand_over()
        except Failed as failed:
            self.missed.append(f"the take-over failed: {failed}")

    def settle(self, sent):
        """The number of samples of the quiet containers that are missing in closed windows, or counted twice."""
        deadline = time.monotonic() + SETTLES
        while (lost := sum(abs(sent - self.stored(one)) for one in self.quiet)) and time.monotonic() < deadline:
            time.sleep(0.2)
        return lost

    def stored(self, container):
        records = self.agent.records(container.name)
        kept = sum(record["agg"]["sum"] for record in records)
        total = max((record["agg"]["total"] for record in records), default=0)
        # Windows that are no longer kept are only in the total.
        return int(total if len(records) >= self.attack.keep else min(kept, total) if kept <= total else kept)

    def is_measured(self, measure):
        # A take-over has a deadline, so its result depends on the speed of the machine.
        return measure not in self.attack.unmeasured and not (self.options.short and measure == "pause_ms")

    def assess(self):
        broken = [what for what in self.did if what.startswith("failed")]
        check(not broken, "the attack itself failed:", broken)
        check(self.answered, "a probe was never answered")
        missed = self.missed
        for measure, aim in (AIMS | self.attack.aims).items():
            if not self.is_measured(measure) or (self.options.short and measure not in ROBUST):
                continue
            value = self.measured.get(measure)
            if value is None or value > aim:
                missed.append(f"{measure} is {value if value is None else round(value, 1)}, and may be {aim}")
        if self.refused and self.is_measured("read_ms") and not self.options.short:
            missed.append(f"probes were refused: {self.refused}")
        check(not missed, "; ".join(missed))

    # Processes.

    def start(self, work, *arguments, nice=0):
        process = Process(work, *arguments, nice=nice)
        self.processes.append(process)
        return process

    def finish(self, process):
        found = process.finish()
        if found is None:
            raise Failed("a process of the suite died or did not end")
        return found

    def end(self):
        for process in self.processes:
            process.end()
        self.memory.end()
        for container in [*self.quiet, *self.others]:
            container.end()
        for agent in [self.agent, *self.agents]:
            agent.stop()
