"""A real OpenTelemetry Collector that prints what it receives."""

import dataclasses
import json
import re
import socket

from server import Server


@dataclasses.dataclass
class Point:
    """A data point as the collector prints it."""

    metric: str
    kind: str
    # Cumulative or Delta; None of gauges.
    temporality: str | None = None
    resource: dict = dataclasses.field(default_factory=dict)
    attributes: dict = dataclasses.field(default_factory=dict)
    # Value, or Count, Sum, Min and Max.
    numbers: dict = dataclasses.field(default_factory=dict)
    start: str = ""
    end: str = ""
    # Lower and upper bound, and count.
    buckets: list = dataclasses.field(default_factory=list)


class Collector(Server):
    """One server with a receiver of OTLP over HTTP."""

    name = "collector"

    def __init__(self, directory, program):
        super().__init__(directory, program)
        receiver = {"protocols": {"http": {"endpoint": f"127.0.0.1:{self.port}"}}}
        # Its own logger would leave out some of what it prints.
        exporter = {"verbosity": "detailed", "use_internal_logger": False}
        pipeline = {"receivers": ["otlp"], "exporters": ["debug"]}
        config = {
            "receivers": {"otlp": receiver},
            "exporters": {"debug": exporter},
            "service": {"pipelines": {"metrics": pipeline}, "telemetry": {"metrics": {"level": "none"}}},
        }
        # JSON is YAML, too.
        (self.directory / "collector.yaml").write_text(json.dumps(config))

    def command(self):
        return [self.program, f"--config={self.directory}/collector.yaml"]

    def is_ready(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def points(self):
        """Every data point that it has received."""
        return list(parse_points(self.log.read_text().splitlines()))


def parse_points(lines):
    """The data points of what the exporter prints with all details."""
    resource, metric, point, attributes = {}, None, None, {}
    for line in lines:
        line = line.strip()
        ends = re.search(r"ResourceMetrics #\d+$|ScopeMetrics #\d+$|Metric #\d+$|DataPoints #\d+$", line)
        if ends and point:
            yield point
            point = None
        if re.search(r"ResourceMetrics #\d+$", line):
            resource = attributes = {}
        elif line == "Descriptor:":
            metric = {}
        elif found := re.fullmatch(r"-> (Name|Unit|DataType|IsMonotonic|AggregationTemporality): (.*)", line):
            if metric is not None:
                metric[found[1]] = found[2]
        elif re.search(r"DataPoints #\d+$", line):
            point = Point(metric["Name"], metric["DataType"], metric.get("AggregationTemporality"), resource)
            attributes = point.attributes
        elif found := re.fullmatch(r"-> ([^:]+): Str\((.*)\)", line):
            attributes[found[1]] = found[2]
        elif point:
            read_number(point, line)
    if point:
        yield point


def read_number(point, line):
    """Adds what a line says of a point."""
    if found := re.fullmatch(r"(Value|Count|Sum|Min|Max): (-?[0-9.]+)", line):
        point.numbers[found[1]] = float(found[2])
    elif found := re.fullmatch(r"(StartTimestamp|Timestamp): (.*)", line):
        setattr(point, "start" if found[1] == "StartTimestamp" else "end", found[2])
    elif found := re.fullmatch(r"Bucket [\[(](-?[0-9.]+), (-?[0-9.]+)[\])], Count: (\d+)", line):
        if int(found[3]):
            point.buckets.append((float(found[1]), float(found[2]), int(found[3])))
