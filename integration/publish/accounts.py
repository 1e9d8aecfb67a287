"""What the agent says of its publishers, and what it finds in their backends."""

import json
import time

from agent import check, until


def publishers(agent):
    """The publishers' documents by name. The counts of each must add up."""
    documents = agent.get("/v1/publishers")[1]
    for one in documents:
        records = one["records"]
        closed = sum(records[key] for key in ("delivered", "excluded", "dead", "pending")) + sum(records["dropped"].values())
        check(closed == records["closed"], one["name"], "has counts that do not add up:", records)
    return {one["name"]: one for one in documents}


def publisher(agent):
    """The document of the only publisher."""
    (document,) = publishers(agent).values()
    return document


def delivered(agent, patience=30):
    """Waits until nothing is pending for any publisher."""
    is_settled = lambda: all(one["records"]["pending"] == 0 for one in publishers(agent).values())
    until("everything is delivered", is_settled, patience)


def verify(agent, name, series=0):
    """The document of `publish verify`, over rounds that are some seconds old, and at least this many series."""
    verified = {}

    def compares():
        nonlocal verified
        answer = agent.command("publish", "verify", name, "--since", "1h", "-o", "json")
        verified = json.loads(answer.stdout) | {"code": answer.returncode}
        check(verified["outcome"] != "failed", verified)
        return verified["rounds"] > 0 and verified["series"] >= series

    # Only rounds are compared that ended five seconds ago.
    time.sleep(6)
    until(f"{series} series are compared", compares)
    first = [f"{one['name']} {one['what']} {one['expected']} {one.get('found')}" for one in verified["differences"][:3]]
    print(f"publish verify: {verified['outcome']}, {verified['series']} series, {verified['rounds']} rounds", *first)
    return verified


def differing(verified):
    """The names of series that differ."""
    return {difference["name"] for difference in verified["differences"]}
