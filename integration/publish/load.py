"""A load of a known rate."""

import threading
import time


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
