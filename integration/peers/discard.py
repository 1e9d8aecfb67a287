"""A receiver on loopback, in a process of its own, that accepts every request at once and keeps nothing of it."""

import http.server
import multiprocessing
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "common"))
from agent import free_port, until  # noqa: E402

FORK = multiprocessing.get_context("fork")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        counts = self.server.counts
        with counts.get_lock():
            counts[0], counts[1] = counts[0] + 1, counts[1] + int(self.headers["content-length"])
            counts[2] = counts[2] or time.monotonic()
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response_only(204)
        # Says that remote write 2.0 was understood.
        self.send_header("X-Prometheus-Remote-Write-Samples-Written", "1")
        self.end_headers()

    def log_message(self, *_):
        pass


class Discard:
    """A receiver that can be stopped and started at the same port. Counts requests and the bytes of their bodies."""

    def __init__(self):
        self.port, self.process, self.counts = free_port(), None, FORK.Array("d", 3)
        self.url = f"http://127.0.0.1:{self.port}"

    def serve(self, ready):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        server.counts = self.counts
        ready.set()
        server.serve_forever()

    def start(self):
        ready = FORK.Event()
        self.process = FORK.Process(target=self.serve, args=(ready,), daemon=True)
        self.process.start()
        until("the receiver listens", ready.is_set)

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.join()
            self.process = None

    def received(self):
        """The number of requests."""
        return int(self.counts[0])

    def began(self):
        """When the first request came, on the monotonic clock; 0 if none has come."""
        return self.counts[2]
