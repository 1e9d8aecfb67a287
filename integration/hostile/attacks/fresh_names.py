"""A long-lived container sends other names in every idle period; page and memory stay within its series limit."""

import pathlib

from agent import check, until
from attack import MIB, Scenario, Skipped
from clock import Clock

SERIES, IDLE = 2000, 60
# If the page is larger than this, it contains series that are gone.
ROOM = 1.5
# Periods until every table has its final size: 10,000 names without series are remembered for a workload, and the last
# 16,384 changes of names. As names are added and removed, the hash tables double once more, after 25,000 to 36,000
# names (2.1 MB).
FULL = 18
# By how much the minimum of resident memory in a group of periods may exceed that of the previous group. The memory
# that the allocator keeps varies by about as much between periods, so single periods are not compared. A remembered
# name takes 520 bytes.
GROWTH = 3 * MIB
# The same for the memory that the agent reports, which varies less.
HELD = MIB // 2


class FreshNames(Scenario):
    # Few enough that the bounds on names are the last to be reached.
    keep = 5

    def prepare(self, directory):
        return "--set", f"limits.series={SERIES}", "--set", f"windows.series_idle={IDLE}s"

    def play(self, stage):
        agent, clock = stage.agent, Clock(stage.directory)
        agent.start(environment=clock.environment)
        container = stage.container("fresh")
        sizes, resident, held = [], [], []
        stretch = self.scale.of(12, 4)
        for period in range(FULL + 2 * stretch):
            clock.set(period * (IDLE + 5))
            self.one(stage, container, period)
            page = agent.get("/metrics/tasks")[1]
            names = {line.split(b"{")[0] for line in page.splitlines() if b"fresh_" in line and not line.startswith(b"#")}
            check(len(names) <= SERIES, f"the page has {len(names)} names of a container with {SERIES} series")
            sizes.append(len(page))
            resident.append(of_process(agent, "VmRSS"))
            held.append(agent.metric("tallyport_memory_bytes"))
        check(max(sizes) < ROOM * sizes[1], "the page grows with names that are gone:", sizes)
        for what, each, most in [("resident memory", resident, GROWTH), ("memory that is held for containers", held, HELD)]:
            check(grown(each, stretch) < most, f"{what} grows with names that are gone, once all tables are full:", each)
        self.counted(stage, container, len(sizes))
        stage.did["names"], stage.did["bytes of the page"] = SERIES * len(sizes), sizes[-1]
        stage.did["bytes of growth"] = grown(resident, stretch)

    def one(self, stage, container, period):
        """Sends as many new names as the container may have series, until all are shown."""
        agent = stage.agent
        lines = [b"fresh.%d.%d:1|c" % (period, n) for n in range(SERIES)]
        stage.fill(container, lines, 25)
        last = f"fresh.{period}.{SERIES - 1}"
        closed = lambda: any(record["name"] == last for record in agent.records(container.name, "window=last"))
        until(f"{last} is in a closed window", closed)

    def counted(self, stage, container, periods):
        agent = stage.agent
        shown = agent.admin("GET", f"/v1/containers/{container.name}")[1]
        check(not shown["dropped"], "values of new names were dropped:", shown["dropped"])
        # The first names evicted no series.
        gone = SERIES * (periods - 1)
        evicted = agent.metric("tallyport_series_evicted_total")
        if not evicted:
            raise Skipped("the program cannot be given another clock: it is linked statically")
        check(evicted == gone, f"{gone} series are gone, and counted are", evicted)
        page = agent.get("/metrics")[1].decode().splitlines()
        by_reason = [line for line in page if line.startswith('tallyport_totals_evicted_total{reason="series_limit"}')]
        check(float(by_reason[0].rsplit(" ", 1)[1]) > 0, "no total was evicted at the limit, or it was not counted:", by_reason)


def grown(sizes, stretch):
    """The difference between the minimum of the last group of periods and that of the one before."""
    return min(sizes[-stretch:]) - min(sizes[-2 * stretch:-stretch])


def of_process(agent, field):
    """A size of the agent's process, in bytes."""
    fields = pathlib.Path(f"/proc/{agent.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in fields if line.startswith(f"{field}:"))
