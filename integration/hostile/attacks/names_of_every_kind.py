"""A container sends names that were never seen before for as long as it runs, and lines that cannot be read."""

import time

from attack import Attack


class NamesOfEveryKind(Attack):
    def setup(self, stage):
        self.container = stage.container("names")

    def attack(self, turn):
        began, number = time.monotonic(), 0
        while not turn.is_over():
            lines = [b"fresh.%d:1|c|#tag:%d" % (n, n) for n in range(number, number + 15)]
            self.container.send(b"\n".join([*lines, b"neither:a|number", b"\xff\xfe\x00:1|c"]))
            number += 15
            turn.did["names"] = number
            if number % 300 == 0:
                turn.rest(max(0.0, began + number / 15_000 - time.monotonic()))
