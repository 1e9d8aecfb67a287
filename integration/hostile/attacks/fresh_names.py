"""A container that lives long has other names in every idle period; page and memory stay as its series limit has them."""

import pathlib

from agent import check, until
from attack import MIB, Scenario, Skipped
from clock import Clock

SERIES, IDLE = 300, 60
# Beyond this the page of a container with SERIES series has grown with those that are gone.
ROOM = 1.5


class FreshNames(Scenario):
    def prepare(self, directory):
        return "--set", f"limits.series={SERIES}", "--set", f"windows.series_idle={IDLE}s"

    def play(self, stage):
        agent, clock = stage.agent, Clock(stage.directory)
        agent.start(environment=clock.environment)
        container = stage.container("fresh")
        sizes, memory = [], []
        for period in range(self.scale.of(40, 8)):
            clock.set(period * (IDLE + 5))
            self.one(stage, container, period)
            page = agent.get("/metrics/tasks")[1]
            names = {line.split(b"{")[0] for line in page.splitlines() if b"fresh_" in line and not line.startswith(b"#")}
            check(len(names) <= SERIES, f"the page has {len(names)} names of a container with {SERIES} series")
            sizes.append(len(page))
            memory.append(resident(agent))
        check(max(sizes) < ROOM * sizes[1], "the page grows with names that are gone:", sizes)
        check(memory[-1] < memory[1] + 8 * MIB, "memory grows with names that are gone:", memory)
        self.counted(stage, container, len(sizes))
        stage.did["names"], stage.did["bytes of the page"] = SERIES * len(sizes), sizes[-1]

    def one(self, stage, container, period):
        """Sends as many names as the container may have series, none of them seen before, until all are shown."""
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
        # The first names had their places to themselves.
        gone = SERIES * (periods - 1)
        evicted = agent.metric("tallyport_series_evicted_total")
        if not evicted:
            raise Skipped("the program cannot be given another clock: it is linked statically")
        check(evicted == gone, f"{gone} series are gone, and counted are", evicted)
        page = agent.get("/metrics")[1].decode().splitlines()
        by_reason = [line for line in page if line.startswith('tallyport_totals_evicted_total{reason="series_limit"}')]
        check(float(by_reason[0].rsplit(" ", 1)[1]) > 0, "no total was given up for the limit, or it was not counted:", by_reason)


def resident(agent):
    fields = pathlib.Path(f"/proc/{agent.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in fields if line.startswith("VmRSS:"))
