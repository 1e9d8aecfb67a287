"""What the agent says of its only publisher."""

from agent import check, until


def publisher(agent):
    """The publisher's document, whose counts must add up."""
    publisher = agent.get("/v1/publishers")[1][0]
    records = publisher["records"]
    closed = sum(records[key] for key in ("delivered", "excluded", "dead", "pending")) + sum(records["dropped"].values())
    check(closed == records["closed"], "the counts do not add up:", records)
    return publisher


def delivered(agent):
    """Waits until nothing is pending."""
    until("everything is delivered", lambda: publisher(agent)["records"]["pending"] == 0)
