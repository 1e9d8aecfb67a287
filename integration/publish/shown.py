"""What the agent has shown of every record: the account that backends are compared with."""

import collections
import datetime
import http.client
import threading
import time

# How often the sequence is read.
PAUSE = 0.1
# Records that were seen so shortly before a kill may not have been on the disk. Those that were are seen again after it.
SURE = 1.0

# The fields of a datagram's series, by name and route: how much one datagram adds to each.
LINES = b"hits:1|c\nhits:2|c|#route:/pay\nlatency:7|ms\nlevel:3|g"
ADDS = {("hits", "", "sum"): 1, ("hits", "/pay", "sum"): 2, ("latency", "", "count"): 1, ("latency", "", "sum"): 7}
FIELDS = {"counter": ("sum",), "timer": ("count", "sum"), "gauge": ()}


def end_of(start):
    """The end of the window of a second that starts then, in milliseconds since 1970."""
    return (int(datetime.datetime.fromisoformat(start).timestamp()) + 1) * 1000


class Shown(threading.Thread):
    """Follows the sequence of closed windows through restarts, and keeps the newest state of each record."""

    def __init__(self, agent):
        super().__init__(daemon=True)
        self.agent, self.records, self.kills, self.missed, self.ends = agent, {}, {}, [], threading.Event()
        # When the sequence was read, the last kill on the clock of records, and the run that first showed a record with its values.
        self.read, self.killed_at, self.first_shown = time.monotonic(), 0.0, {}

    def run(self):
        cursor = None
        while not self.ends.wait(PAUSE):
            try:
                cursor = self.follow(cursor or f"{self.epoch()}-0")
                self.read = time.monotonic()
            except (OSError, http.client.HTTPException, ValueError, TypeError):
                # No agent is running, or it has only begun.
                pass

    def epoch(self):
        """The number of the agent's run, which a hand-over continues."""
        return int(self.agent.get("/v1/node")[1]["cursor"].split("-")[0])

    def follow(self, cursor):
        status, answer = self.agent.get(f"/v1/metrics?since={cursor}")
        if status == 410:
            oldest = answer["oldest"]
            if oldest.split("-")[0] == cursor.split("-")[0]:
                self.missed.append(f"{cursor} to {oldest} after {time.monotonic() - self.read:.2f} s")
            # At once: after a restart, what is oldest is gone soon.
            return self.follow(oldest)
        if status != 200:
            return cursor
        began, now = cursor.endswith("-0"), time.time()
        for record in answer["metrics"]:
            end = end_of(record["start"]) / 1000
            # What was closed before the kill, and what could not be closed since, comes from the disk.
            self.note(record, began and (end <= self.killed_at or end > now))
        return answer["cursor"]

    def note(self, record, is_restored):
        origin, tags = record["origin"], record["tags"]
        series = (record["name"], tags.get("route", ""))
        key = (origin["container_id"], origin["task_id"], *series, end_of(record["start"]))
        values = {field: record["agg"][field] for field in FIELDS[record["type"]]}
        epoch = record["epoch"]
        first = self.first_shown.setdefault((key, *values.values()), epoch)
        if is_restored or first < epoch:
            self.records[key] = (values, epoch, 0)
        elif self.records.get(key, (None,))[0] != values:
            self.records[key] = (values, epoch, time.monotonic())

    def note_kill(self):
        """Has to be called right before the agent is killed. Returns the time."""
        epoch, now = self.epoch(), time.monotonic()
        self.kills[epoch], self.killed_at = now, time.time()
        return now

    def lasting(self):
        """The records without those that a kill took back: seen shortly before it, and not seen again."""
        taken_back = lambda epoch, seen: epoch in self.kills and self.kills[epoch] - seen < SURE
        return {key: values for key, (values, epoch, seen) in self.records.items() if not taken_back(epoch, seen)}

    def end(self):
        self.ends.set()
        self.join()


def by_container(records):
    """The sums of each container by series and field."""
    sums = collections.defaultdict(collections.Counter)
    for (container, _, name, route, _), values in records.items():
        for field, value in values.items():
            sums[container][name, route, field] += value
    return sums


def by_series(records):
    """The rounds of each task's series by their end, each with the sums over the task's containers."""
    series = collections.defaultdict(dict)
    for (_, task, name, route, end), values in records.items():
        of_round = series[task, name, route].setdefault(end, collections.Counter())
        of_round.update(values)
    return series
