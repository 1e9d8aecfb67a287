"""What InfluxDB and Prometheus hold, compared with what the agent has shown, round by round."""

import collections

from agent import check

# Prometheus has seconds, whose sums are rounded.
ROUNDING = 1e-6
# The points of each measurement, and the fields of them that are compared.
MEASUREMENTS = {"hits": {"value": "sum"}, "latency": {"count": "count", "sum": "sum"}, "level": {"value": None}}
# The totals of each series: the name of a record, its field, and how many of its units one unit of the total is.
TOTALS = {"hits_total": ("hits", "sum", 1), "latency_seconds_count": ("latency", "count", 1), "latency_seconds_sum": ("latency", "sum", 1000)}


def points(influx):
    """The values of each task's series by the end of the round."""
    found = collections.defaultdict(dict)
    for name, fields in MEASUREMENTS.items():
        columns = ", ".join(f'"{column}"' for column in fields)
        for series in influx.query(f'select {columns} from "{name}" group by "task", "route"'):
            of_one = found[series["tags"]["task"], name, series["tags"]["route"]]
            for end, *values in series["values"]:
                of_one[end] = {field: value for field, value in zip(fields.values(), values) if field}
    return found


def compare_points(influx, shown, kills):
    """Every point has to be that of its round, and no other may be there. Returns the numbers of points and series."""
    found, differ = points(influx), []
    for series in found.keys() | shown.keys():
        has, expected = found.get(series, {}), shown.get(series, {})
        for end in has.keys() | expected.keys():
            if has.get(end) != expected.get(end):
                differ.append((end, *series, f"shown {dict(expected[end])}" if end in expected else "never shown", f"stored {has.get(end)}"))
    text = "".join(f"\n  {one} {describe(one[0], kills)}" for one in sorted(differ)[:20])
    check(not differ, f"{len(differ)} of {sum(map(len, shown.values()))} points differ:", text)
    return sum(map(len, found.values())), len(found)


def increases_of(prometheus, total):
    """What each series of a total has grown by at each of its samples, as pairs of labels and growths by time, and the number of
    resets. A total that falls has begun at zero."""
    found, resets = [], 0
    for one in prometheus.ask("query", query=f'{total}{{job="tallyport"}}[6h]')["result"]:
        grown, last = {}, 0.0
        for at, text in one["values"]:
            value = float(text)
            resets += value < last
            grown[round(at * 1000)] = value if value < last else value - last
            last = value
        found.append((one["metric"], grown))
    return found, resets


def increases(prometheus):
    """The growths of all totals by task, series and field, in the units of records, and the number of resets."""
    found, resets = {}, 0
    for total, (name, field, scale) in TOTALS.items():
        series, of_total = increases_of(prometheus, total)
        for labels, grown in series:
            grown = {end: value * scale for end, value in grown.items() if value}
            found[labels["task"], name, labels.get("route", ""), field] = grown
        resets += of_total
    return found, resets


def lost_rounds(series, shown, found):
    """The rounds of one series whose values never arrived, and how much that is of each. What comes late is part of a later round, so
    what has arrived up to a round may be less than what was shown until then, and never more."""
    behind, balance = 0.0, []
    for end in sorted(shown.keys() | found.keys()):
        behind += shown.get(end, 0) - found.get(end, 0)
        check(behind > -ROUNDING, series, "has received more than was shown by", -behind, "in the round that ends at", end)
        balance.append((end, behind))
    # What is never made up for is lost.
    lost, least = {}, balance[-1][1] if balance else 0.0
    for (end, now), (_, before) in zip(reversed(balance), reversed([(0, 0.0), *balance[:-1]])):
        least_before = min(least, before)
        if least - least_before > ROUNDING:
            lost[end] = least - least_before
        least = least_before
    return lost


def compare_totals(prometheus, shown, kills):
    """No total may have grown by more than was shown of it, and each kill may cost one round: the one that was under way. Returns the
    number of series, of resets, and what was lost of each round."""
    found, resets = increases(prometheus)
    lost, fields = collections.defaultdict(float), {(name, field) for name, field, _ in TOTALS.values()}
    series = {(*series, field) for series in shown for name, field in fields if series[1] == name}
    check(found.keys() <= series, "series that were never shown:", found.keys() - series)
    for *of_record, field in series:
        expected = {end: values[field] for end, values in shown[tuple(of_record)].items()}
        has = found.get((*of_record, field), {})
        for end, value in lost_rounds((*of_record, field), expected, has).items():
            lost[end] += value if field == "sum" and of_record[1] == "hits" else 0
    text = "".join(f"\n  {lost[end]} of hits {describe(end, kills)}" for end in sorted(lost))
    check(len(lost) <= len(kills), f"{len(lost)} rounds are lost, and there were {len(kills)} kills:", text)
    return len(series), resets, lost


def describe(end, kills):
    """Where the end of a round is between the kills, whose times are in seconds since 1970."""
    nearest = min(kills, key=lambda kill: abs(kill - end / 1000), default=None)
    return f"(its round ended {end / 1000 - nearest:+.2f} s from a kill)" if nearest else "(there was no kill)"
