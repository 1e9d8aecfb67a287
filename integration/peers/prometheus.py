"""A real Prometheus on loopback that receives remote write, with a directory of its own. Stopped by its process, never by name."""

import json
import pathlib
import shutil
import struct
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "common"))
from agent import Failed, free_port, until  # noqa: E402


def number(value):
    """A whole number in protobuf's variable length."""
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(tag, body):
    return number(tag << 3 | 2) + number(len(body)) + body


def snappy(body):
    """A block of Snappy that is not compressed."""
    out = number(len(body))
    for start in range(0, len(body), 60):
        part = body[start : start + 60]
        out += bytes([len(part) - 1 << 2]) + part
    return out


class Prometheus:
    """One server, which also scrapes `target`, if there is one, under the job `scraped`, every `interval` seconds."""

    def __init__(self, directory, target=None, interval=1):
        self.binary = shutil.which("prometheus")
        if not self.binary:
            raise Failed("prometheus is not installed: apt-get install prometheus")
        self.directory, self.port, self.process = pathlib.Path(directory), free_port(), None
        self.url = f"http://127.0.0.1:{self.port}"
        job = {"job_name": "scraped", "metrics_path": "/metrics/tasks", "static_configs": [{"targets": [target]}]}
        every = {"scrape_interval": f"{interval}s", "scrape_timeout": f"{interval}s"}
        # JSON is YAML, too.
        config = {"global": every, "scrape_configs": [job] if target else []}
        (self.directory / "prometheus.yml").write_text(json.dumps(config))

    def start(self):
        command = [self.binary, f"--config.file={self.directory}/prometheus.yml", f"--storage.tsdb.path={self.directory}/tsdb"]
        command += [f"--web.listen-address=127.0.0.1:{self.port}", "--web.enable-remote-write-receiver", "--log.level=warn"]
        with open(self.directory / "prometheus.log", "a") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def ready():
            if self.process.poll() is not None:
                raise Failed("prometheus ended: " + (self.directory / "prometheus.log").read_text()[-2000:])
            try:
                with self.open("/-/ready") as answer:
                    return answer.status == 200
            except OSError:
                return False

        until("Prometheus is ready", ready, patience=60)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def open(self, path, body=None, headers=None):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return opener.open(urllib.request.Request(f"{self.url}{path}", body, headers or {}), timeout=30)

    def ask(self, path, **parameters):
        with self.open(f"/api/v1/{path}?{urllib.parse.urlencode(parameters, doseq=True)}") as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        """The labels and values of an instant query."""
        return [(one["metric"], float(one["value"][1])) for one in self.ask("query", query=expression)["result"]]

    def value(self, expression):
        """The only value of an instant query; None if there is none."""
        found = self.query(expression)
        return found[0][1] if len(found) == 1 else None

    def series(self, selector):
        return self.ask("series", **{"match[]": selector})

    def write(self, labels, samples):
        """Writes samples of one series as another sender would, with remote write 1.0: pairs of milliseconds and value."""
        series = b"".join(field(1, field(1, key.encode()) + field(2, value.encode())) for key, value in sorted(labels.items()))
        for at, value in samples:
            series += field(2, b"\x09" + struct.pack("<d", value) + b"\x10" + number(at))
        headers = {"content-type": "application/x-protobuf", "content-encoding": "snappy", "x-prometheus-remote-write-version": "0.1.0"}
        self.open("/api/v1/write", snappy(field(1, series)), headers).close()
