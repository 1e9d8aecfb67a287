"""A container sends distributions whose every value opens another octave of its sketch, in 200 series."""

import time

from attack import Attack


class OctaveStorm(Attack):
    def setup(self, stage):
        self.container = stage.container("octaves")
        self.series = self.scale.of(200, 50)

    def attack(self, turn):
        # From the largest number to the smallest positive one, then from the smallest negative one down.
        values = [1.5 * 2.0 ** power for power in range(1022, -1022, -1)]
        values += [-value for value in reversed(values)]
        texts = [b"%.3e" % value for value in values]
        pieces = [b":".join(texts[at:at + 400]) for at in range(0, len(texts), 400)]
        began, series = time.monotonic(), 0
        while not turn.is_over():
            for piece in pieces:
                self.container.send(b"octaves.%d:%b|d" % (series % self.series, piece))
                turn.did["datagrams"] += 1
            series += 1
            turn.rest(max(0.0, began + turn.did["datagrams"] / 200 - time.monotonic()))
