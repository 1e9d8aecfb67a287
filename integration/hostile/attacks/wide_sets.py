"""Sets with thousands of members are sent in every window, and one late member revises each in every kept window."""

import time

from attack import Attack

CONTAINERS, SETS = 4, 10


class WideSets(Attack):
    def setup(self, stage):
        self.containers = [stage.container("sets") for _ in range(CONTAINERS)]
        self.members = self.scale.of(3000, 500)

    def attack(self, turn):
        member = 0
        while not turn.is_over():
            until = int(time.time()) + 1
            for first in range(0, self.members, 30):
                for container in self.containers:
                    for number in range(SETS):
                        lines = (b"wide.%d:%d|s" % (number, first + n) for n in range(30))
                        container.send(b"\n".join(lines))
                        turn.did["datagrams"] += 1
                turn.rest(0.005)
                if turn.is_over():
                    return
            for back in range(1, 27):
                member += 1
                for container in self.containers:
                    lines = (b"wide.%d:late%d|s|T%d" % (number, member, until - 1 - back) for number in range(SETS))
                    container.send(b"\n".join(lines))
                    turn.did["late datagrams"] += 1
            turn.rest(max(0.0, until - time.time()))
