"""The agent is stopped for a while and resumed: data that waited meanwhile is not shown as an ordinary window."""

import signal
import time

from agent import check
from attack import Attack


class Stopped(Attack):
    # A stopped agent does not answer.
    unmeasured = ("close_ms", "read_ms", "health_ms", "pause_ms")

    def meanwhile(self, stage):
        self.stop = self.scale.of(8, 6)
        time.sleep(1)
        stage.agent.process.send_signal(signal.SIGSTOP)
        time.sleep(self.stop)
        stage.agent.process.send_signal(signal.SIGCONT)
        stage.did["seconds stopped"] = self.stop

    def holds(self, stage):
        heap = 0.9 * self.stop * stage.options.rate
        for record in stage.agent.records(stage.quiet[0].name):
            if record["agg"]["samples"] >= heap:
                said = record["partial"] or record["covered"] != record["seconds"]
                check(said, "a window with the samples of", self.stop, "s is not marked partial:", record)
