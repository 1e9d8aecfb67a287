"""A spool that is too small for an outage."""

import collections
import os
import time

from accounts import delivered, publishers
from agent import Agent, Container, check, until
from backends import increases_of

# Windows leave memory as soon as they can, and files are as small as they can be.
CONFIG = """publish.spool = "1MiB"
windows.keep = 1
windows.log_size = "1MiB"
windows.checkpoint = "100ms"
containers.tombstone = "1s"
"""
SERIES, PACKED, MOST = 1000, 40, 400
# Containers after the first file was dropped.
MORE = 20


def come_and_go(agent, number):
    """Lets a container send each of its series once, end, and be forgotten by and by."""
    container = Container(agent, f"burst-{os.getpid()}-{number}", process=False, task=f"burst.{number}")
    for first in range(0, SERIES, PACKED):
        container.send(b"\n".join(b"burst:1|c|#n:%d" % n for n in range(first, min(SERIES, first + PACKED))))
    agent.admin("DELETE", f"/v1/containers/{container.name}")
    container.socket.close()
    time.sleep(0.05)


def check_newest(name, arrived, containers):
    """What is missing has to be older than most of what arrived. The publisher may have had something in hand before."""
    short = [number for number in range(containers) if arrived[number] != SERIES]
    newest = (containers - 1 - short[-1]) * SERIES
    check(newest >= sum(arrived.values()) / 2, f"{name}: of the containers from 0 to {containers - 1}, these are not complete:", short)


def overflow(binaries, directory, configure, influx, prometheus):
    """Both servers are away until the spool has dropped files; then what it still has arrives."""
    config = directory / "agent.toml"
    config.write_text(configure(influx, prometheus, CONFIG))
    agent = Agent(binaries, directory, ["--window", "1s", "--config", config])
    servers, containers = (influx, prometheus), 0
    try:
        agent.start()
        for server in servers:
            server.stop()
        rest = MORE
        while rest > 0:
            check(containers < MOST, "the spool drops nothing after", containers, "containers")
            come_and_go(agent, containers)
            containers += 1
            rest -= agent.said("the oldest windows that were kept for a publisher are dropped") is not None
        until("all are forgotten", lambda: not agent.containers())
        for server in servers:
            server.start()
        delivered(agent, patience=120)
        points = influx.query('select sum("value") from "burst" group by "task"')
        stored = {"i": {number_of(one["tags"]["task"]): one["values"][0][1] for one in points}}
        grown, _ = increases_of(prometheus, "burst_total")
        stored["p"] = collections.Counter()
        for labels, samples in grown:
            stored["p"][number_of(labels["task"])] += sum(samples.values())
        sent = containers * SERIES
        for name, one in publishers(agent).items():
            records, arrived = one["records"], sum(stored[name].values())
            lost = sum(records["dropped"].values())
            check(records["closed"] == sent, name, "has closed", records["closed"], "of", sent, "records:", records)
            check(0 < lost < sent and arrived == records["delivered"] == sent - lost, name, "has", arrived, "of", sent, records)
            check(records["dropped"].keys() <= {"spool", "expired"}, name, records)
            check_newest(name, collections.Counter(stored[name]), containers)
            print(f"soak: a spool of 1 MiB, {name}: {sent} records sent, {arrived:.0f} arrived, the newest; dropped {records['dropped']}")
    finally:
        agent.stop()


def number_of(task):
    return int(task.split(".")[1])
