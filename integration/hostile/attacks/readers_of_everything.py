"""A hundred connections of one client ask for /v1/accounting beside 1,000 containers of 100 series."""

import readers
from attack import Readers


class ReadersOfEverything(Readers):
    def attack(self, turn):
        readers.crowd(turn, self.scale.of(100, 30), self.address, ["/v1/accounting"])
