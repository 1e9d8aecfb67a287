"""The same values with timestamps: each revises a sketch of a closed window."""

import time

from attack import Attack


class LateOctaves(Attack):
    def setup(self, stage):
        self.container = stage.container("late-octaves")

    def attack(self, turn):
        values = [sign * 1.5 * 2.0 ** power for power in range(1022, -1022, -1) for sign in (1, -1)]
        texts = [b"%.3e" % value for value in values]
        pieces = [b":".join(texts[at:at + 60]) for at in range(0, len(texts), 60)]
        began = time.monotonic()
        while not turn.is_over():
            for piece in pieces:
                now = int(time.time())
                for back in range(1, 27):
                    self.container.send(b"octaves.%d:%b|d|T%d" % (back, piece, now - back))
                    turn.did["datagrams"] += 1
                turn.rest(max(0.0, began + turn.did["datagrams"] / 300 - time.monotonic()))
                if turn.is_over():
                    return
