"""Parses a page of metrics with Prometheus' Python library, or with Google's for protobuf, and prints the result as JSON.

    read.py openmetrics|classic|protobuf < page

Fails if the library rejects the page, or accepts a series or a family that occurs twice.
"""

import json
import sys

import messages
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as classic


def twice(lines):
    seen = set()
    for line in lines:
        if line in seen:
            sys.exit(f"{line!r} occurs twice")
        seen.add(line)


def as_messages(page):
    """Parses protobuf. A native histogram and another family may have one name; their samples differ in type."""
    families = list(messages.families(page))
    twice((family["name"], any(isinstance(s["value"], dict) for s in family["samples"])) for family in families)
    twice((sample["name"], frozenset(sample["labels"].items())) for family in families for sample in family["samples"])
    return families


def main():
    page = sys.stdin.buffer.read()
    if sys.argv[1] == "protobuf":
        families = as_messages(page)
        for family in families:
            family["samples"] += family.pop("created")
        json.dump(families, sys.stdout)
        return
    page = page.decode()
    # Compares the text, because the classic parser renames counters.
    twice(line.rpartition(" ")[0] for line in page.split("\n") if line.startswith("# TYPE "))
    twice(line.rpartition(" ")[0] for line in page.split("\n") if line and not line.startswith("#"))
    families = []
    for family in {"openmetrics": openmetrics, "classic": classic}[sys.argv[1]](page):
        samples = [{"name": s.name, "labels": s.labels, "value": s.value} for s in family.samples]
        families.append({"name": family.name, "type": family.type, "unit": family.unit, "samples": samples})
    if sys.argv[1] == "openmetrics":
        twice((sample["name"], frozenset(sample["labels"].items())) for f in families for sample in f["samples"])
    json.dump(families, sys.stdout)


if __name__ == "__main__":
    main()
