"""A real carbon-cache."""

import os
import shutil
import socket
import subprocess

from agent import Failed, free_port
from server import Server


class Carbon(Server):
    """One server that keeps a point for each second."""

    name, package = "carbon", "graphite-carbon"

    def __init__(self, directory, program="carbon-cache"):
        super().__init__(directory, program)
        if not shutil.which("whisper-fetch"):
            raise Failed("whisper-fetch is not installed: apt-get install python3-whisper")
        self.environment = os.environ | {"GRAPHITE_ROOT": str(self.directory)}
        (self.directory / "storage-schemas.conf").write_text("[all]\npattern = .*\nretentions = 1s:1h\n")
        (self.directory / "carbon.conf").write_text(
            f"""[cache]
STORAGE_DIR = {self.directory}
CONF_DIR = {self.directory}
LOG_DIR = {self.directory}
PID_DIR = {self.directory}
LOCAL_DATA_DIR = {self.directory}/whisper
LINE_RECEIVER_INTERFACE = 127.0.0.1
LINE_RECEIVER_PORT = {self.port}
PICKLE_RECEIVER_INTERFACE = 127.0.0.1
PICKLE_RECEIVER_PORT = {free_port()}
CACHE_QUERY_INTERFACE = 127.0.0.1
CACHE_QUERY_PORT = {free_port()}
MAX_CREATES_PER_MINUTE = inf
MAX_UPDATES_PER_SECOND = inf
CARBON_METRIC_INTERVAL = 0
"""
        )

    def command(self):
        return [self.program, f"--config={self.directory}/carbon.conf", "--nodaemon", "start"]

    def is_ready(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        super().stop()
        # One that was stopped in order leaves none.
        for left in self.directory.glob("*.pid"):
            left.unlink()

    def points(self, path):
        """The values of a path by second, as whisper-fetch prints them."""
        file = self.directory / "whisper" / (path.replace(".", "/") + ".wsp")
        if not file.exists():
            return {}
        lines = subprocess.run(["whisper-fetch", "--from=0", file], capture_output=True, text=True, check=True).stdout.splitlines()
        found = (line.split() for line in lines)
        return {int(at): float(value) for at, value in found if value != "None"}
