"""Sends a fixed number of everything that `datadog.dogstatsd` can send.

Reads STATSD_UDP_HOST and STATSD_UDP_PORT, and prints the lines that left the sockets and the times that were sent, as
JSON. tests/suite/clients.rs has the expected results.

Telemetry is off: the client would add its own counters every ten seconds.
"""

import asyncio
import json
import os
import random
import socket
import time
from collections import Counter

from datadog.dogstatsd import DogStatsd

SOCKET = {"host": os.environ["STATSD_UDP_HOST"], "port": int(os.environ["STATSD_UDP_PORT"])}

sent = {"datagrams": 0, "bytes": 0, "lines": 0, "names": Counter(), "events": 0, "checks": 0}


class CountingSocket(socket.socket):
    """A socket that records the lines actually sent, independent of the client's counts."""

    def send(self, data, *flags):
        done = super().send(data, *flags)
        if self.type != socket.SOCK_DGRAM:
            return done
        sent["datagrams"] += 1
        sent["bytes"] += len(data)
        for line in data.decode().split("\n"):
            sent["lines"] += line != ""
            if line.startswith("_e{"):
                sent["events"] += 1
            elif line.startswith("_sc|"):
                sent["checks"] += 1
            elif line:
                sent["names"][line.split(":")[0]] += 1
        return done


socket.socket = CountingSocket
# The client's random generator for sampling, and for choosing the samples to keep.
random.seed(1)


def client(**options):
    return DogStatsd(**SOCKET, disable_telemetry=True, **options)


def counters(statsd):
    statsd.increment("hits")
    statsd.increment("hits", 5)
    statsd.decrement("hits")
    statsd.decrement("hits", 2)
    statsd.count("hits", 1.25)
    for _ in range(60):
        statsd.increment("half", 3, sample_rate=0.5)
    for _ in range(60):
        statsd.decrement("quarter", 2, sample_rate=0.25)


def gauges(statsd):
    statsd.gauge("level", 20)
    statsd.gauge("level", 21.5)
    # The client cannot send a change: it means the level -5, but the line could also be a change.
    statsd.gauge("below_zero", 3)
    statsd.gauge("below_zero", -5)
    for _ in range(20):
        statsd.gauge("sampled_level", 42, sample_rate=0.5)


def timestamps(statsd):
    sent["now"] = now = int(time.time())
    statsd.count_with_timestamp("stamped_hits", 4, timestamp=now)
    statsd.count_with_timestamp("stamped_hits", 2, timestamp=now - 5)
    statsd.increment("stamped_hits")
    statsd.gauge_with_timestamp("stamped_level", 7, now - 3)
    statsd.gauge_with_timestamp("stamped_level", 30, now - 6)
    # A time in the future counts as now, so this is the latest.
    statsd.gauge_with_timestamp("stamped_level", 11, now + 60)


def distributions(statsd):
    # As a context manager the client packs several lines into a datagram.
    with statsd as batch:
        for value in range(1, 101):
            batch.histogram("sizes", value)
    for value in (0.5, -2, 8):
        statsd.distribution("spread", value)
    for value in (320, 1.5, 40):
        statsd.timing("query", value)
    for _ in range(60):
        statsd.histogram("sampled_sizes", 6, sample_rate=0.5)
    with statsd.timed("block"):
        pass
    with statsd.timed("block", use_ms=True):
        pass

    @statsd.timed("decorated")
    def decorated(fails):
        if fails:
            raise ValueError

    for fails in (False, True, False):
        try:
            decorated(fails)
        except ValueError:
            pass

    @statsd.distributed("decorated_async")
    async def decorated_async():
        await asyncio.sleep(0)

    asyncio.run(decorated_async())
    with statsd.distributed("distributed"):
        pass


def sets(statsd):
    for member in ("ann", "bob", "ann", 7, "7", "a:b", "größe"):
        statsd.set("users", member)


def tags(statsd):
    statsd.increment("tagged", tags=["route:/pay", "live"])
    statsd.increment("tagged", 2, tags=["live", "route:/pay"])
    statsd.increment("tagged", 4, tags=["route:/buy", "url:http://h:80/p"])
    # The client replaces every character other than letters, digits, `_-:/` and `.` by `_`.
    statsd.increment("tagged", 8, tags=["a b:c,d|e"])
    statsd.increment("größe.日本", 3, tags=["größe:groß", "城市:東京"])
    statsd.increment("origin", tags=["task_id:forged", "container_id:forged"])
    statsd.gauge("fields", 5, tags=["a:1"], cardinality="low")


def events(statsd):
    statsd.event("deploy", "all is up")
    statsd.event(
        "Größe | geändert",
        "first line\nzweite Zeile | ok",
        alert_type="error",
        aggregation_key="deploys",
        source_type_name="ci",
        date_happened=sent["now"] - 100,
        priority="low",
        tags=["route:/pay"],
        hostname="host-1",
    )
    for alert_type in ("warning", "info", "success"):
        statsd.event(alert_type, "", alert_type=alert_type, priority="normal")


def checks(statsd):
    statsd.service_check("db", DogStatsd.WARNING)
    statsd.service_check("db", DogStatsd.OK)
    statsd.service_check(
        "db",
        DogStatsd.CRITICAL,
        tags=["shard:1"],
        timestamp=sent["now"] - 50,
        hostname="host-2",
        message="außer Betrieb",
    )
    statsd.service_check("cache", DogStatsd.UNKNOWN, message="m: two\nlines")
    statsd.service_check("queue", DogStatsd.WARNING)


def other_clients():
    in_namespace = client(namespace="shop", default_sample_rate=0.5)
    for _ in range(40):
        in_namespace.increment("hits", 2)
    in_namespace.gauge("level", 1, sample_rate=1)

    # With an interval of zero there is no flush thread: full buffers are sent at once, the rest on flush().
    buffered = client(disable_buffering=False, flush_interval=0, max_buffer_len=200)
    for n in range(50):
        buffered.increment("buffered.hits", n)
        buffered.timing("buffered.query", n)
    buffered.count_with_timestamp("buffered.hits", 1000, timestamp=sent["now"])
    buffered.flush()

    aggregating = client(disable_aggregation=False, flush_interval=0, max_metric_samples_per_context=8)
    for n in range(16):
        aggregating.increment("aggregated.hits", 2)
        aggregating.gauge("aggregated.level", n)
        aggregating.set("aggregated.users", n % 4)
        aggregating.histogram("aggregated.sizes", 5)
        aggregating.timing("aggregated.query", 10)
        aggregating.distribution("aggregated.spread", 20)
    aggregating.flush_aggregated_metrics()

    behind = client(disable_background_sender=False, container_id="0123456789abcdef", cardinality="high")
    for _ in range(10):
        behind.increment("queued.hits", 3)
    assert behind.stop()


with_tags = client(constant_tags=["env:test", "région:île"])
for part in (counters, gauges, timestamps, distributions, sets, tags, events, checks):
    part(with_tags)
other_clients()
print(json.dumps(sent))
