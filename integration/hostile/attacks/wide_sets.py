"""Sets with hundreds of members are sent in every window, and one late member revises each in every kept window."""

import time

from attack import Attack

CONTAINERS, SETS, EACH = 4, 60, 150


class WideSets(Attack):
    def setup(self, stage):
        self.containers = [stage.container("sets") for _ in range(CONTAINERS)]
        self.members = self.scale.of(600, 300)

    def attack(self, turn):
        datagrams = [
            b"\n".join(b"wide.%d:%d|s" % (number, n) for n in range(first, first + EACH))
            for first in range(0, self.members, EACH)
            for number in range(SETS)
        ]
        member = 0
        while not turn.is_over():
            window = int(time.time())
            for sent, datagram in enumerate(datagrams):
                for container in self.containers:
                    container.send(datagram)
                    turn.did["datagrams"] += 1
                if sent % 10 == 0:
                    turn.rest(0.005)
            for back in range(1, 27):
                member += 1
                lines = (b"wide.%d:late%d|s|T%d" % (number, member, window - back) for number in range(SETS))
                late = b"\n".join(lines)
                for container in self.containers:
                    container.send(late)
                    turn.did["late datagrams"] += 1
            turn.rest(max(0.0, window + 1 - time.time()))
