"""A hundred and twenty connections of one client request large pages and replays of all kept windows, and never read them."""

import select
import socket

import readers
from attack import BESIDE_READERS, MIB, Attack


class SlowReaders(Attack):
    budget = 160 * MIB
    aims = BESIDE_READERS
    # So that every connection gets its page, even if pages are built one after the other.
    seconds = 40

    def setup(self, stage):
        self.address = stage.agent.address
        stage.crowd(self.scale.of(1000, 100), self.scale.of(100, 20))
        # Gauges, because every later window contains them: a replay has the size of all windows together.
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
            # Connections that the agent has closed are opened again, as an attacker would.
            held = [one for one in held if is_open(one)]
        for connection in held:
            connection.close()


def is_open(connection):
    """Returns whether the connection is still open, without reading data from it."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP | select.POLLERR | select.POLLHUP)
    if any(events for _, events in poll.poll(0)):
        connection.close()
        return False
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
