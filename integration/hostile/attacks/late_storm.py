"""A container revises 2,000 series in every kept window, with some thousand datagrams a second."""

import time

from attack import Attack

LINES = 20


class LateStorm(Attack):
    processes = 2

    def setup(self, stage):
        self.container = stage.container("late")
        self.names = self.scale.of(2000, 400)

    def attack(self, turn):
        heads = [b"late.%d.%d:1|c|T" % (turn.number, n) for n in range(self.names // self.processes)]
        began, sent = time.monotonic(), 0
        while not turn.is_over():
            now = int(time.time())
            for back in range(1, 27):
                at = b"%d" % (now - back)
                for first in range(0, len(heads), LINES):
                    self.container.send(b"\n".join(head + at for head in heads[first:first + LINES]))
                    sent += 1
                turn.rest(max(0.0, began + sent / 1500 - time.monotonic()))
                if turn.is_over():
                    break
        turn.did["datagrams"] = sent
