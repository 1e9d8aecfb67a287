"""A hundred and twenty connections of one client ask for large pages and for replays of all kept windows, and never read them."""

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
        # Gauges, which every window has once they were sent: a replay is as many times as large as there are windows.
        replayed = stage.container("replayed")
        series = self.scale.of(4000, 1000)
        stage.fill(replayed, [b"a.gauge.of.a.container.that.is.replayed.%d:1|g" % n for n in range(series)], 25)
        self.replay = f"/v1/tasks/{replayed.name}/watch"
        self.beginning = f"{stage.agent.admin('GET', '/v1/node')[1]['epoch']}-0"

    def attack(self, turn):
        held = []
        while not turn.is_over():
            try:
                if len(held) < 120:
                    connection = readers.connect(self.address, buffer=4096)
                    if len(held) % 2:
                        connection.sendall(readers.request(self.replay, f"last-event-id: {self.beginning}"))
                        turn.did["replays"] += 1
                    else:
                        connection.sendall(readers.request("/metrics/tasks"))
                        turn.did["pages"] += 1
                    held.append(connection)
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
