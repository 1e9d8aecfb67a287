"""Sixty-four scrapers of one client ask for /metrics/tasks, /metrics and /v1/metrics beside 1,000 containers of 100 series."""

import readers
from attack import Readers


class Scrapers(Readers):
    def attack(self, turn):
        paths = ["/metrics/tasks", "/metrics/tasks", "/metrics", "/v1/metrics"]
        readers.crowd(turn, self.scale.of(64, 24), self.address, paths)
