"""The clock is an hour ahead for some windows, is corrected, and the agent is restarted: no current data is lost."""

import datetime
import threading
import time

from agent import check, until
from attack import Scenario, Skipped
from clock import Clock

AHEAD = 3600


class ClockJump(Scenario):
    def play(self, stage):
        clock, agent = Clock(stage.directory, AHEAD), stage.agent
        environment = clock.environment
        agent.start(environment=environment)
        if abs(self.ahead(stage) - AHEAD) > 60:
            raise Skipped("the program cannot be given another clock: it is linked statically")
        clock.set(0)
        container, sends = stage.container("jumped"), threading.Event()
        sender = threading.Thread(target=self.send, args=(container, sends), daemon=True)
        sender.start()
        try:
            until("windows close", lambda: len(agent.records(container.name)) >= 3)
            clock.set(AHEAD)
            until("windows close an hour ahead", lambda: self.newest(agent, container) > time.time() + AHEAD / 2)
            time.sleep(3)
            clock.set(0)
            # Until the agent is restarted its windows stay ahead of the clock, so that no interval occurs twice.
            self.goes_on(agent, container, "after the clock was set right", lambda record: True)
            agent.stop()
            agent.start(environment=environment)
            self.goes_on(agent, container, "after the start that followed", lambda record: at(record) < time.time() + 60)
        finally:
            sends.set()
            sender.join()

    def goes_on(self, agent, container, when, counts):
        """Checks that current windows are kept as they close, and that readers with a cursor lose nothing."""
        cursor, seen = agent.get("/v1/node")[1]["cursor"], set()
        present = lambda: {record["end"] for record in agent.records(container.name) if counts(record)}
        began = present()
        deadline = time.monotonic() + 60
        while len(seen) < 3:
            check(time.monotonic() < deadline, "a follower sees no new windows", when)
            status, answer = agent.get(f"/v1/metrics?since={cursor}")
            check(status == 200, "a follower by cursor gets", status, when)
            cursor = answer["cursor"]
            seen |= {record["end"] for record in answer["metrics"] if counts(record)}
            time.sleep(0.2)
        check(len(present() - began) >= 2, "new windows of a living container are not kept", when)

    def ahead(self, stage):
        """The number of seconds that the agent's clock is ahead, from its log."""
        stamp = stage.agent.said("listening")["timestamp"]
        return parsed(stamp) - time.time()

    def newest(self, agent, container):
        return max(map(at, agent.records(container.name)), default=0)

    @staticmethod
    def send(container, ends):
        while not ends.wait(0.05):
            container.send(b"n:1|c")


def at(record):
    return parsed(record["end"])


def parsed(stamp):
    return datetime.datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
