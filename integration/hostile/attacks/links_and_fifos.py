"""Another user puts links in place of lock files, and FIFOs in place of state: no target is changed and no start hangs."""

import os

from agent import check
from attack import Scenario

LOCKS = ["admin.sock.lock", "admin.sock.fd.lock", "state/agent.lock"]
FIFOS = ["state/epoch", "state/containers.journal", "state/windows/windows-1.log", "state/names"]


class LinksAndFifos(Scenario):
    def play(self, stage):
        for path in LOCKS:
            agent, target = self.clean(stage, path), stage.directory / "target"
            target.write_text("precious")
            os.symlink(target, agent.directory / path)
            self.start(agent, path)
            check(target.read_text() == "precious", f"the target of a link at {path} was changed")
        for path in FIFOS:
            agent = self.clean(stage, path)
            (agent.directory / path).parent.mkdir(exist_ok=True)
            os.mkfifo(agent.directory / path, 0o600)
            self.start(agent, path)

    @staticmethod
    def clean(stage, path):
        """Another agent, in a separate directory."""
        directory = stage.directory / path.replace("/", "-")
        directory.mkdir(mode=0o700)
        (directory / "state").mkdir(mode=0o700)
        return stage.another(directory)

    @staticmethod
    def start(agent, path):
        """The agent may refuse to start or continue without the file; it may not hang."""
        process = agent.spawn()
        try:
            while process.poll() is None and not agent.said("listening"):
                check(agent.age() < 30, f"a start with {path} in place of a file hangs")
        finally:
            agent.stop()
