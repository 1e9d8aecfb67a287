"""A hundred connections of one client ask for /v1/accounting beside 1,000 containers of 100 series."""

import readers
from agent import check
from attack import BESIDE_READERS, MIB, Attack


class ReadersOfEverything(Attack):
    budget = 160 * MIB
    aims = BESIDE_READERS

    def setup(self, stage):
        self.address = stage.agent.address
        stage.crowd(self.scale.of(1000, 100), self.scale.of(100, 20))

    def attack(self, turn):
        readers.crowd(turn, self.scale.of(100, 30), self.address, ["/v1/accounting"])

    def holds(self, stage):
        check(stage.did["answers 200"] > 0, "nothing was answered:", stage.did)
