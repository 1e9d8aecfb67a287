"""What the agent says of its publishers."""

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
