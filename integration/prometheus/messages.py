"""Reads a page of protobuf messages with Google's library, as described in proto/metrics.proto."""

import io
import math
import pathlib
import re

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, proto

DESCRIPTION = pathlib.Path(__file__).resolve().parents[2] / "proto/metrics.proto"
TYPES = ["counter", "gauge", "summary", "unknown", "histogram"]


def family_class():
    """Builds the class of MetricFamily. Supports only the part of the .proto syntax that the file uses."""
    Field = descriptor_pb2.FieldDescriptorProto
    text = re.sub(r"//.*", "", DESCRIPTION.read_text())
    file = descriptor_pb2.FileDescriptorProto(name="metrics.proto", package="io.prometheus.client", syntax="proto2")
    for name, body in re.findall(r"message (\w+) \{(.*?)\n\}", text, re.DOTALL):
        message = file.message_type.add(name=name)
        for label, kind, field, number in re.findall(r"(optional|repeated) (\w+) (\w+) = (\d+);", body):
            added = message.field.add(name=field, number=int(number), label=getattr(Field, f"LABEL_{label.upper()}"))
            scalar = getattr(Field, f"TYPE_{kind.upper()}", None)
            if scalar is None:
                added.type, added.type_name = Field.TYPE_MESSAGE, f".{file.package}.{kind}"
            else:
                added.type = scalar
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.MetricFamily"))


def labels_of(metric):
    labels = {pair.name: pair.value for pair in metric.label}
    assert len(labels) == len(metric.label), metric
    return labels


def number(value):
    """Formats a bound or quantile as the text formats do, for comparison."""
    return "+Inf" if value == math.inf else repr(value)


def buckets(spans, deltas, counts):
    """Decodes the index and count of each bucket of one sign."""
    found, index, count = [], 0, 0
    places = iter(range(len(deltas) + len(counts)))
    assert not (deltas and counts) and sum(span.length for span in spans) == len(deltas) + len(counts)
    for span in spans:
        index += span.offset
        for _ in range(span.length):
            place = next(places)
            count = count + deltas[place] if deltas else counts[place]
            assert count > 0, (spans, deltas, counts)
            found.append([index, count])
            index += 1
    return found


def native(histogram):
    """Decodes a native histogram. Its counts must be consistent, as Prometheus requires."""
    negative = buckets(histogram.negative_span, histogram.negative_delta, histogram.negative_count)
    positive = buckets(histogram.positive_span, histogram.positive_delta, histogram.positive_count)
    floats = histogram.HasField("sample_count_float")
    zero = histogram.zero_count_float if floats else histogram.zero_count
    count = histogram.sample_count_float if floats else histogram.sample_count
    together = zero + sum(count for _, count in negative + positive)
    assert math.isclose(together, count, rel_tol=1e-12), (together, count)
    return {"count": count, "sum": histogram.sample_sum, "schema": histogram.schema, "zero": zero, "negative": negative,
            "positive": positive, "threshold": histogram.zero_threshold, "float": floats}


def created(family, metric):
    """The creation time of a series, under its text name. It is a field here, so another series may have that name."""
    for of in (metric.counter, metric.histogram):
        if of.HasField("created_timestamp"):
            at = of.created_timestamp
            yield f"{family.name.removesuffix('_total')}_created", labels_of(metric), at.seconds + at.nanos / 1e9


def samples(family, metric):
    """Converts a metric to samples as a server does, with the names of the text format."""
    name, labels, kind = family.name, labels_of(metric), TYPES[family.type]
    has = [of for of in ("gauge", "counter", "summary", "untyped", "histogram") if metric.HasField(of)]
    assert has == ["untyped" if kind == "unknown" else kind], (family.name, kind, has)
    of = getattr(metric, has[0])
    if kind == "summary":
        yield from ((name, {**labels, "quantile": number(q.quantile)}, q.value) for q in of.quantile)
        yield f"{name}_sum", labels, of.sample_sum
        yield f"{name}_count", labels, of.sample_count
    elif kind == "histogram" and of.HasField("schema"):
        assert not of.bucket
        yield name, labels, native(of)
    elif kind == "histogram":
        bounds = [bucket.upper_bound for bucket in of.bucket]
        assert bounds == sorted(bounds) and bounds[-1] == math.inf, bounds
        yield from ((f"{name}_bucket", {**labels, "le": number(b.upper_bound)}, b.cumulative_count) for b in of.bucket)
        yield f"{name}_sum", labels, of.sample_sum
        yield f"{name}_count", labels, of.sample_count
    else:
        yield name, labels, of.value


def families(page):
    """Yields each family of a page, as read.py prints it."""
    stream, kind = io.BytesIO(page), family_class()
    while (family := proto.parse_length_prefixed(kind, stream)) is not None:
        assert family.metric and family.help and family.name.endswith(family.unit), family
        read = {
            part: [dict(zip(("name", "labels", "value"), sample)) for metric in family.metric for sample in of(family, metric)]
            for part, of in (("samples", samples), ("created", created))
        }
        yield {"name": family.name, "type": TYPES[family.type], "unit": family.unit, **read}
