"""Another process has the containers' port at every address: reserve calls and doctor report it."""

import socket

from agent import Failed, check, free_port
from attack import Scenario


class SquattedPort(Scenario):
    def prepare(self, directory):
        self.port = free_port()
        return "--set", f"listeners.port={self.port}"

    def play(self, stage):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
            squatter.bind(("0.0.0.0", self.port))
            stage.agent.start()
            try:
                stage.container("squatted")
            except Failed as refused:
                check("503" in str(refused), "the refusal is not a 503:", refused)
            else:
                raise Failed("a container has an address whose port another process has")
            said = stage.agent.command("doctor").stdout.decode()
            named = f"{self.port} (listeners.port) is held on every address" in said
            check(named, f"doctor does not name port {self.port}:", said)
        # Once the port is free, reservations succeed.
        stage.container("after")
