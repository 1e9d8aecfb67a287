"""A real InfluxDB 1."""

import json
import os
import urllib.parse

from agent import free_port
from server import Server

PORT = 8086


class InfluxDB(Server):
    """One server. `port` is where clients write; without it a free one."""

    name, package, ready_path = "influxdb", "influxdb", "/ping"

    def __init__(self, directory, port=None, program="influxd"):
        super().__init__(directory, program)
        self.port = port or self.port
        self.environment = os.environ | {"HOME": str(self.directory)}
        (self.directory / "influxdb.conf").write_text(
            f"""reporting-disabled = true
bind-address = "127.0.0.1:{free_port()}"
[meta]
dir = "{self.directory}/meta"
[data]
dir = "{self.directory}/data"
wal-dir = "{self.directory}/wal"
[http]
bind-address = "127.0.0.1:{self.port}"
log-enabled = false
[monitor]
store-enabled = false
"""
        )

    def command(self):
        return [self.program, "-config", self.directory / "influxdb.conf"]

    def query(self, text, database="kadabra"):
        """The series of the answer, each with its columns and values."""
        query = urllib.parse.urlencode({"db": database, "q": text, "epoch": "ms"})
        with self.open("/query", query.encode()) as answer:
            return json.load(answer)["results"][0].get("series", [])
