"""What servers have in common that receive remote write and answer PromQL."""

import json
import struct
import urllib.parse

from server import Server


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


class PromqlServer(Server):
    """One receiver."""

    write_path, query_path = "/api/v1/write", "/api/v1"
    # Of every request.
    headers = {}
    # The version of remote write that it understands.
    protocol = "2.0"
    # Whether it refuses samples that are late, or that contradict a sample that it has.
    refuses = True
    # Expressions for the increase of a counter over a range that is {0}, which count each job once, however short it is.
    increases = ["max_over_time({0}) - min_over_time({0})"]

    @property
    def write_url(self):
        return self.url + self.write_path

    def ask(self, path, **parameters):
        with self.open(f"{self.query_path}/{path}?{urllib.parse.urlencode(parameters, doseq=True)}", headers=self.headers) as answer:
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
        self.open(self.write_path, snappy(field(1, series)), self.headers | headers).close()
