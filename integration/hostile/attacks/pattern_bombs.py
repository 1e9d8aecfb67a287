"""Eight connections send queries with thirty patterns of five hundred characters each, for 9,000 long names."""

import urllib.parse

import readers
from agent import check
from attack import BESIDE_READERS, MIB, Attack

LENGTH = 400


class PatternBombs(Attack):
    budget = 64 * MIB
    aims = BESIDE_READERS

    def setup(self, stage):
        self.address = stage.agent.address
        names, container = self.scale.of(9000, 1000), stage.container("bombed")
        lines = [b"%b.%d:1|c" % (b"a" * LENGTH, n) for n in range(names)]
        stage.fill(container, lines, 20)
        # Almost matches every name, from many positions.
        pattern = urllib.parse.quote("*a" * 249 + "*b")
        self.path = f"/v1/tasks/{container.name}/metrics?window=all&" + "&".join(f"name={pattern}" for _ in range(30))
        self.head = f"/v1/tasks/{container.name}/metrics?window=all&" + "&".join(f"name={'*a' * 100}*b" for _ in range(20))

    def attack(self, turn):
        # One of them is answered, whether the limit permits a head of 16 KiB or not.
        readers.crowd(turn, 8, self.address, [self.path, self.head])

    def holds(self, stage):
        check(sum(times for what, times in stage.did.items() if what.startswith("answers")) > 0, "no bomb was answered")
