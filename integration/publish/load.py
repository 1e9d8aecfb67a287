"""Loads of known totals."""

import threading
import time

from agent import Container

# How often each short-lived container sends its datagram.
REPEATS = 20


class Load(threading.Thread):
    """Sends a datagram a hundred times a second until it is told to end."""

    RATE = 100

    def __init__(self, container, datagram):
        super().__init__()
        self.container, self.datagram, self.sent, self.told = container, datagram, 0, threading.Event()

    def run(self):
        began = time.monotonic()
        while not self.told.is_set():
            self.container.send(self.datagram)
            self.sent += 1
            time.sleep(max(0, began + self.sent / self.RATE - time.monotonic()))

    def end(self):
        """Ends it. Returns how often the datagram was sent."""
        self.told.set()
        self.join()
        return self.sent


def send_short_lived(agent, containers, datagram, pause):
    """Lets containers live for `pause` seconds each, one after the other. Returns how often the datagram was sent."""
    for n in range(containers):
        container = Container(agent, f"c-{n}", process=False)
        for _ in range(REPEATS):
            container.send(datagram)
        time.sleep(pause)
        agent.admin("DELETE", f"/v1/containers/c-{n}")
    return containers * REPEATS
