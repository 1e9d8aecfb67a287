"""The load of a node: a hundred series for each container, once in each window."""

import multiprocessing
import socket
import time

FORK = multiprocessing.get_context("fork")
COUNTERS, GAUGES, TIMERS, VALUES = 50, 25, 25, 20
SERIES = COUNTERS + GAUGES + TIMERS
# Prometheus has seven series for a timer: percentiles, sum and count.
SAMPLES = (COUNTERS + GAUGES + 7 * TIMERS) / SERIES
# Bytes of a datagram at most, and how many are sent before the time is looked at.
LARGEST, AT_ONCE = 8000, 20
# The part of a window in which is sent: a late datagram must not be in the next one.
BUSY = 0.8


def lines(tag=""):
    """The lines of one container. Latencies are spread over a factor of eight."""
    found = [f"service.requests.{n}:{n}|c{tag}" for n in range(COUNTERS)] + [f"service.depth.{n}:{n}|g{tag}" for n in range(GAUGES)]
    for n in range(TIMERS):
        found += [f"service.latency.{n}:{(5 + n) * 8 ** (value / VALUES):.2f}|ms{tag}" for value in range(VALUES)]
    return found


def packed(lines):
    datagrams = [lines[0]]
    for line in lines[1:]:
        if len(datagrams[-1]) + len(line) < LARGEST:
            datagrams[-1] += "\n" + line
        else:
            datagrams.append(line)
    return [datagram.encode() for datagram in datagrams]


class Traffic:
    """A process that sends every line to every address once in each window, evenly, until it is told to end."""

    def __init__(self, addresses, window, tagged=False):
        self.window, plain = window, packed(lines())
        of = lambda number: packed(lines(f"|#task:c{number}")) if tagged else plain
        self.work = [(datagram, address) for number, address in enumerate(addresses) for datagram in of(number)]
        self.told = FORK.Event()
        self.process = FORK.Process(target=self.send, daemon=True)
        self.process.start()

    def send(self):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        while not self.told.wait(self.window - time.time() % self.window):
            began = time.monotonic()
            for sent, (datagram, address) in enumerate(self.work):
                sender.sendto(datagram, address)
                if sent % AT_ONCE == 0:
                    time.sleep(max(0, began + BUSY * self.window * sent / len(self.work) - time.monotonic()))

    def end(self):
        """Ends it after the window."""
        self.told.set()
        self.process.join()
