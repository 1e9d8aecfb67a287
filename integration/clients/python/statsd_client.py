"""Sends a fixed number of everything that the `statsd` package can send.

Reads STATSD_UDP_HOST and STATSD_UDP_PORT, and prints the lines that left the sockets as JSON. The expected results are
in tests/suite/clients.rs.
"""

import asyncio
import json
import os
import random
import socket
from collections import Counter
from contextlib import closing
from datetime import timedelta

from statsd import StatsClient

HOST, PORT = os.environ["STATSD_UDP_HOST"], int(os.environ["STATSD_UDP_PORT"])

sent = {"datagrams": 0, "bytes": 0, "lines": 0, "names": Counter()}


class CountingSocket(socket.socket):
    """A socket that records the lines actually sent, independent of the client's counts."""

    def sendto(self, data, *address):
        done = super().sendto(data, *address)
        lines = data.decode().split("\n")
        sent["datagrams"] += 1
        sent["bytes"] += len(data)
        sent["lines"] += len(lines)
        sent["names"].update(line.split(":")[0] for line in lines)
        return done


socket.socket = CountingSocket
# The client's random generator for sampling.
random.seed(1)


def counters(client):
    client.incr("hits")
    client.incr("hits", 5)
    client.decr("hits")
    client.decr("hits", 2)
    client.incr("bytes", 10**12)
    client.incr("bytes", 1.5)
    for _ in range(60):
        client.incr("half", 3, rate=0.5)
    for _ in range(60):
        client.decr("quarter", 2, rate=0.25)
    client.incr("never", rate=0)


def gauges(client):
    client.gauge("level", 20)
    client.gauge("level", 21.5)
    client.gauge("level", 2, delta=True)
    client.gauge("level", -5.5, delta=True)
    # The client sends 0 first, so that the sign is not read as a change of the old level.
    client.gauge("below_zero", 3)
    client.gauge("below_zero", -7)
    client.gauge("first_change", -4, delta=True)
    for _ in range(20):
        client.gauge("sampled_level", 42, rate=0.5)


def timers(client):
    client.timing("query", 320)
    client.timing("query", 1.5)
    client.timing("query", timedelta(seconds=2, milliseconds=250))
    for _ in range(20):
        client.timing("sampled_query", 8, rate=0.5)
    for _ in range(3):
        with client.timer("block"):
            pass

    @client.timer("decorated")
    def decorated(fails):
        if fails:
            raise ValueError

    for fails in (False, True, False, True):
        try:
            decorated(fails)
        except ValueError:
            pass

    @client.timer("decorated_async")
    async def decorated_async():
        await asyncio.sleep(0)

    asyncio.run(decorated_async())
    asyncio.run(decorated_async())

    by_hand = client.timer("by_hand").start()
    by_hand.stop(send=False)
    by_hand.send()


def sets(client):
    for member in ("ann", "bob", "ann", 7, "7", "a:b"):
        client.set("users", member)
    for n in range(20):
        client.set("sampled_users", n, rate=0.5)


def pipelines():
    with closing(StatsClient(HOST, PORT, prefix="app")) as client:
        with client.pipeline() as pipe:
            for millis in range(1, 101):
                pipe.timing("latency", millis)
            pipe.incr("hits", 4)
            pipe.decr("hits", 1)
            pipe.gauge("level", 9)
            pipe.gauge("level", 1, delta=True)
            pipe.set("users", "ann")
            for _ in range(40):
                pipe.incr("half", 1, rate=0.5)
            with pipe.pipeline() as inner:
                inner.incr("hits", 10)
        pipe = client.pipeline()
        pipe.incr("hits", 100)
        pipe.send()
        pipe.send()
    with closing(StatsClient(HOST, PORT, maxudpsize=64)) as client, client.pipeline() as pipe:
        for n in range(30):
            pipe.incr("small_datagrams", n)


with closing(StatsClient(HOST, PORT)) as statsd:
    counters(statsd)
    gauges(statsd)
    timers(statsd)
    sets(statsd)
pipelines()
print(json.dumps(sent))
