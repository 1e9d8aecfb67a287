"""A small web application with a stock StatsD client.

It has no code for tallyport: it reads STATSD_UDP_HOST and STATSD_UDP_PORT, counts its requests and times its answers.
Without the two variables it serves requests and measures nothing.

    python3 app.py [--port PORT]

It prints the port it listens on, and ends on TERM.
"""

import argparse
import os
import random
import signal
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import statsd


def client():
    """The metrics client, or None without the variables."""
    host, port = os.environ.get("STATSD_UDP_HOST"), os.environ.get("STATSD_UDP_PORT")
    if not host or not port:
        return None
    return statsd.StatsClient(host, int(port), prefix="testapp")


METRICS = client()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        started = time.monotonic()
        # Simulates a lookup of a few milliseconds.
        time.sleep(random.uniform(0.002, 0.008))
        body = b"hello\n"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if METRICS:
            METRICS.timing("response.latency", (time.monotonic() - started) * 1000)
            METRICS.incr("requests")
            METRICS.set("paths", self.path)

    def log_message(self, *args):
        """Disables the access log, which would hide the demo's output."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    server = ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Handler)
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(SystemExit(0)))
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
