"""Servers on loopback, each with a directory of its own. Stopped by their process, never by name."""

import pathlib
import shutil
import subprocess
import urllib.request

from agent import Failed, free_port, until


class Server:
    """One server. Subclasses say how it is started and when it is ready."""

    name = ""
    # The Debian package that has the program.
    package = None
    ready_path = "/"
    environment = None
    # Seconds until it answers, and until it ends.
    patience = 60

    def __init__(self, directory, program):
        found = shutil.which(program)
        if not found:
            hint = f": apt-get install {self.package}" if self.package else ""
            raise Failed(f"{program} is not installed{hint}")
        # It is started in its directory.
        self.program = pathlib.Path(found).absolute()
        self.directory = pathlib.Path(directory) / self.name
        self.directory.mkdir()
        self.log = self.directory / "server.log"
        self.port, self.process = free_port(), None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def command(self):
        raise NotImplementedError

    def is_ready(self):
        with self.open(self.ready_path) as answer:
            return answer.status < 300

    def start(self):
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
            )

        def answers():
            if self.process.poll() is not None:
                raise Failed(f"{self.name} ended: " + self.log.read_text()[-2000:])
            try:
                return self.is_ready()
            except OSError:
                return False

        until(f"{self.name} answers", answers, self.patience)

    def stop(self):
        if not self.process or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(self.patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failed(f"{self.name} does not end") from None

    def open(self, path, body=None, headers=None):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return opener.open(urllib.request.Request(f"{self.url}{path}", body, headers or {}), timeout=30)
