#!/usr/bin/env python3
"""Publishes to a real InfluxDB 1: influxdb.py BINARIES [PROGRAM]

BINARIES is the directory of tallyport. Without PROGRAM it is the one of the distribution, with nothing configured but the type: it
listens at the default port, which must be free. PROGRAM is one that has the write route of InfluxDB 2 as well, and both are used.

1. The database does not exist yet: everything is held, nothing is lost, and doctor says what to create.
2. A timer of 0.828 ms arrives as one point with its value, unit and tag. Sent again a hundred times, it is still one point.
3. A field of another type in the database: that series becomes a dead letter, and all others arrive.
4. The server is down while containers come and go: their sums arrive afterwards.
5. `publish verify` finds what the agent sent in the database, and names what was refused and what is deleted there.
"""

import json
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "common"), str(ROOT / "peers")]
from accounts import delivered, differing, publisher, verify  # noqa: E402
from agent import Agent, Container, check, main, until  # noqa: E402
from influxdb import PORT, InfluxDB  # noqa: E402
from load import send_short_lived  # noqa: E402

DEFAULT = """[publish.i]
type = "influxdb"
fields = "kadabra"
"""
# What is missing while the database does not exist, and what chooses the route.
ROUTES = {
    "/write": ("database kadabra", ""),
    "/api/v2/write": ("bucket kadabra/autogen", 'api = "v2"\nbucket = "kadabra/autogen"\n'),
}
REPEATS = 100


def points(influx, measurement):
    series = influx.query(f'select * from "{measurement}"')
    return [dict(zip(series[0]["columns"], values)) for values in series[0]["values"]] if series else []


def total(influx, measurement):
    return sum(point["value"] for point in points(influx, measurement))


def example(agent, influx, missing):
    command = 'echo "runTime:0.828|ms|#program:fibonacci" > /dev/udp/$STATSD_UDP_HOST/$STATSD_UDP_PORT'
    ran = agent.command("run", "--task-id", "fib", "--", "bash", "-c", command)
    check(ran.returncode == 0, ran.stderr.decode())
    until("it is held", lambda: publisher(agent)["state"] == "held")
    doctor = agent.command("doctor").stdout.decode()
    check(f"create the {missing}" in doctor, doctor)
    influx.query("create database kadabra")
    until("the point arrives", lambda: points(influx, "runTime"))
    delivered(agent)
    for _ in range(REPEATS):
        replayed = agent.command("publish", "replay", "i", "--since", "5m")
        check(replayed.returncode == 0, replayed.stdout.decode())
    found = points(influx, "runTime")
    print(f"select * from runTime, after {REPEATS} repeats:", json.dumps(found))
    check(len(found) == 1, "one point became", len(found))
    found = found[0]
    check((found["value"], found["unit"], found["program"]) == (0.828, "milliseconds", "fibonacci"), found)
    check(publisher(agent)["replayed"] == REPEATS, publisher(agent))


def poison(agent, influx):
    influx.open("/write?db=kadabra", b'poison value="text"\n').close()
    container = Container(agent, "c-poison", process=False)
    for n in range(500):
        container.send(b"series.%d:1|c" % n)
    container.send(b"poison:1|c")
    until("it is dead", lambda: publisher(agent)["records"]["dead"] == 1)
    delivered(agent)
    arrived = sum(total(influx, f"series.{n}") for n in range(500))
    check(arrived == 500, "of 500 others arrived", arrived)
    dead = agent.command("publish", "dead", "i").stdout.decode()
    print("publish dead:", dead.strip())
    check("field type conflict" in dead and len(dead.splitlines()) == 1, dead)


def outage(agent, influx):
    influx.stop()
    sent = 5 * send_short_lived(agent, 10, b"hits:3|c\nhits:2|c|#route:/pay", 0.5)
    until("it is tried again", lambda: publisher(agent)["state"] in ("retrying", "sending"))
    influx.start()
    until("the sums arrive", lambda: total(influx, "hits") == sent, patience=90)
    delivered(agent)
    print(f"after the outage: {sent} sent, {total(influx, 'hits'):.0f} in the database, {publisher(agent)['records']}")


def compare(agent, influx):
    found = verify(agent, "i", 500)
    check((differing(found), found["code"]) == ({"poison"}, 1), "a record was refused, all others are there:", found["differences"])
    influx.query('drop measurement "hits"')
    found = verify(agent, "i", 500)
    check((differing(found), found["code"]) == ({"poison", "hits"}, 1), "deleted series are named:", found["differences"])


def publish(influx, directory, text, missing):
    config = pathlib.Path(directory) / "agent.toml"
    config.write_text(text)
    agent = Agent(sys.argv[1], directory, ["--window", "1s", "--config", config])
    try:
        influx.start()
        agent.start()
        example(agent, influx, missing)
        poison(agent, influx)
        outage(agent, influx)
        compare(agent, influx)
    finally:
        agent.stop()
        influx.stop()


def run():
    programs = sys.argv[2:]
    for route in ROUTES if programs else ["/write"]:
        missing, choice = ROUTES[route]
        with tempfile.TemporaryDirectory() as directory:
            influx = InfluxDB(directory, None, *programs) if programs else InfluxDB(directory, PORT)
            place = f"port = {influx.port}\n" if programs else ""
            publish(influx, directory, DEFAULT + place + choice, missing)
        print(f"publish to InfluxDB by {route}: OK")


main(run)
