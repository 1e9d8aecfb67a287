"""A hundred and twenty connections of one client ask for large pages and never read them."""

import select
import socket

import readers
from attack import BESIDE_READERS, MIB, Attack


class SlowReaders(Attack):
    budget = 160 * MIB
    aims = BESIDE_READERS
    # So that every connection gets its page, also where one is built after the other.
    seconds = 40

    def setup(self, stage):
        self.address = stage.agent.address
        stage.crowd(self.scale.of(1000, 100), self.scale.of(100, 20))

    def attack(self, turn):
        held = []
        while not turn.is_over():
            try:
                if len(held) < 120:
                    connection = readers.connect(self.address, buffer=4096)
                    connection.sendall(readers.request("/metrics/tasks"))
                    held.append(connection)
                    turn.did["connections"] += 1
                    continue
            except OSError as error:
                turn.did[type(error).__name__] += 1
            turn.rest(0.1)
            # Those that the agent has closed are opened again: an attacker does not give up.
            held = [one for one in held if is_open(one)]
        for connection in held:
            connection.close()


def is_open(connection):
    """Whether the other end still holds the connection, found without reading what it sends."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP | select.POLLERR | select.POLLHUP)
    if any(events for _, events in poll.poll(0)):
        connection.close()
        return False
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
