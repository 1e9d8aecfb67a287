#!/usr/bin/env python3
"""Publishes to a real carbon: carbon.py BINARIES

BINARIES is the directory of tallyport.

1. whisper-fetch shows the sums that were sent.
2. The server is restarted between two intervals: nothing is lost.
3. It is away for a while: the sums arrive afterwards.
"""

import pathlib
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "common"), str(ROOT / "peers")]
from agent import Agent, Container, check, main, until  # noqa: E402
from carbon import Carbon  # noqa: E402

PATH = "tallyport.c-1.counter.hits.sum"


def total(carbon):
    return sum(carbon.points(PATH).values())


def run():
    with tempfile.TemporaryDirectory() as directory:
        carbon = Carbon(directory)
        config = pathlib.Path(directory) / "agent.toml"
        config.write_text(f'[publish.g]\ntype = "graphite"\nhost = "127.0.0.1"\nport = {carbon.port}\n')
        agent = Agent(sys.argv[1], directory, ["--window", "1s", "--config", config])
        try:
            carbon.start()
            agent.start()
            container, sent = Container(agent, "c-1", process=False), 0

            def send(count):
                nonlocal sent
                for _ in range(count):
                    container.send(b"hits:3|c\nlatency:7|ms")
                    sent += 3

            send(20)
            until("the sum is there", lambda: total(carbon) == sent)
            timer = carbon.points("tallyport.c-1.timer.latency.p99")
            check(set(timer.values()) == {7.0}, timer)
            print(f"{sent} sent, {total(carbon):.0f} in {PATH}")
            # What the connection had accepted is written: nothing is under way.
            carbon.stop()
            carbon.start()
            send(20)
            until("the sum is there after a restart", lambda: total(carbon) == sent)
            print(f"after a restart: {sent} sent, {total(carbon):.0f} there")
            carbon.stop()
            for _ in range(5):
                send(20)
                time.sleep(1)
            carbon.start()
            until("the sum is there after an outage", lambda: total(carbon) == sent, patience=90)
            print(f"after an outage: {sent} sent, {total(carbon):.0f} there, {agent.get('/v1/publishers')[1][0]['records']}")
        finally:
            agent.stop()
            carbon.stop()
    print("publish to carbon: OK")


main(run)
