"""Fifteen hundred connections to the admin socket send nothing; launchers are still answered."""

import socket
import time

from agent import check
from attack import Attack


class IdleAdmin(Attack):
    def setup(self, stage):
        self.admin, self.count, self.slowest = str(stage.agent.admin_socket), self.scale.of(1500, 600), 0.0

    def attack(self, turn):
        held = []
        while not turn.is_over():
            one = socket.socket(socket.AF_UNIX)
            one.setblocking(False)
            try:
                one.connect(self.admin)
                held.append(one)
                turn.did["connections"] += 1
            except OSError:
                # The backlog is full.
                one.close()
                turn.rest(0.01)
            if len(held) >= self.count:
                turn.rest(1)
                # Some disconnect and connect again.
                for one in held[:100]:
                    one.close()
                held = held[100:]

    def meanwhile(self, stage):
        ends = time.monotonic() + stage.seconds
        while time.monotonic() < ends:
            began = time.monotonic()
            status, _ = stage.agent.admin("GET", f"/v1/containers/{stage.quiet[0].name}")
            check(status == 200, "a launcher was answered with", status)
            self.slowest = max(self.slowest, time.monotonic() - began)
            time.sleep(0.1)
        stage.container("launched")

    def holds(self, stage):
        stage.did["ms, slowest answer to a launcher"] = self.slowest * 1000
        check(self.scale.short or self.slowest < 1, "a launcher waited for", round(self.slowest, 1), "s")
