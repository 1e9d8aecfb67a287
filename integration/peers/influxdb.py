"""A real InfluxDB 1 on loopback, with a directory of its own. Stopped by its process, never by name."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "common"))
from agent import Failed, free_port, until  # noqa: E402

PORT = 8086


class InfluxDB:
    """One server. `port` is where clients write; without it a free one."""

    def __init__(self, directory, port=None):
        self.binary = shutil.which("influxd")
        if not self.binary:
            raise Failed("influxd is not installed: apt-get install influxdb")
        self.directory, self.port = pathlib.Path(directory), port or free_port()
        self.config, self.process = self.directory / "influxdb.conf", None
        self.config.write_text(
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

    def start(self):
        with open(self.directory / "influxd.log", "a") as log:
            command = [self.binary, "-config", self.config]
            environment = os.environ | {"HOME": str(self.directory)}
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)

        def answers():
            if self.process.poll() is not None:
                raise Failed("influxd ended: " + (self.directory / "influxd.log").read_text()[-2000:])
            try:
                return self.ask("/ping").status == 204
            except OSError:
                return False

        until("InfluxDB answers", answers)

    def ask(self, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=body)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return opener.open(request, timeout=10)

    def query(self, text, database="kadabra"):
        """The series of the answer, each with its columns and values."""
        query = urllib.parse.urlencode({"db": database, "q": text, "epoch": "ms"})
        answer = json.load(self.ask("/query", query.encode()))
        return answer["results"][0].get("series", [])

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)
