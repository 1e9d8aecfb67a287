"""A real carbon-cache on loopback, with a directory of its own. Stopped by its process, never by name."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "common"))
from agent import Failed, free_port, until  # noqa: E402


class Carbon:
    """One server that keeps a point for each second."""

    def __init__(self, directory):
        self.binary = shutil.which("carbon-cache")
        if not self.binary or not shutil.which("whisper-fetch"):
            raise Failed("carbon is not installed: apt-get install graphite-carbon")
        self.directory, self.port, self.process = pathlib.Path(directory), free_port(), None
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

    def start(self):
        command = [self.binary, f"--config={self.directory}/carbon.conf", "--nodaemon", "start"]
        with open(self.directory / "carbon.log", "a") as log:
            environment = os.environ | {"GRAPHITE_ROOT": str(self.directory)}
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)

        def answers():
            if self.process.poll() is not None:
                raise Failed("carbon-cache ended: " + (self.directory / "carbon.log").read_text()[-2000:])
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        until("carbon answers", answers)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
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
