"""Twenty readers ask to tail a container that sends lines of 60 kB, and never read."""

import socket

from attack import Attack

LINE = 60_000


class UnreadTails(Attack):
    def setup(self, stage):
        self.container, self.admin = stage.container("tailed"), str(stage.agent.admin_socket)

    def attack(self, turn):
        tails = []
        for _ in range(20):
            tail = socket.socket(socket.AF_UNIX)
            tail.connect(self.admin)
            tail.sendall(f"GET /v1/tasks/{self.container.name}/tail HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
            tails.append(tail)
        turn.did["tails"] = len(tails)
        line = b"long:1|c|#filler:" + b"x" * LINE
        while not turn.is_over():
            self.container.send(line)
            turn.did["datagrams"] += 1
            turn.rest(0.005)
        for tail in tails:
            tail.close()
