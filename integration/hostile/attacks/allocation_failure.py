"""The agent gets no more memory and aborts; the next one restores all containers and lacks about one second of data."""

import pathlib
import resource
import signal
import time

from agent import check, until
from attack import MIB, Scenario
from measure import send_quietly

QUIET, RATE = 4, 20
# `windows.checkpoint`: the received data that a crash loses.
CHECKPOINT = 1.0
# Seconds by which the machine may delay a checkpoint, and the sender.
SLACK = 2.0


class AllocationFailure(Scenario):
    # Above all that is ever allocated, so that the machine's memory is the limit, not the agent's own.
    budget = 4096 * MIB
    flags = ("--set", "limits.series=10000000", "--set", "limits.memory=4GiB")
    keep = 60

    def play(self, stage):
        agent = stage.agent
        agent.start()
        hungry, quiet = stage.container("hungry"), [stage.container("quiet") for _ in range(QUIET)]
        sender = stage.start(send_quietly, quiet, RATE)
        written = lambda: agent.metric("tallyport_window_log_windows_total") >= 2 * QUIET
        until("windows are on disk", written)
        aborted = self.exhaust(agent, hungry)
        agent.start()
        back = time.monotonic()
        self.told(agent)
        for one in quiet:
            shown = agent.admin("GET", f"/v1/containers/{one.name}")[1]
            check(shown["state"] == "listening", f"{one.name} is not back:", shown["state"])
            check((shown["statsd_host"], shown["statsd_port"]) == one.address, f"{one.name} has another address")
        until("windows close again", lambda: agent.metric("tallyport_window_log_windows_total") >= 2 * QUIET)
        sent = stage.finish(sender)
        away = back - aborted
        most = (away + CHECKPOINT + SLACK) * RATE
        for one in quiet:
            lost = lambda: sent - stage.stored(one)
            # Data in the open window is not lost.
            until(f"{one.name} has lost at most {most:.0f} of {sent}", lambda: lost() <= most)
            check(lost() >= 0, f"{one.name} has more than was sent:", -lost())
            stage.did["samples lost"] = max(stage.did["samples lost"], lost())
        stage.did["ms without an agent"] = away * 1000

    def exhaust(self, agent, hungry):
        """Limits the agent to its current memory, and sends data that needs more. Returns when it has ended."""
        process = agent.process
        # Not the address space: the allocator has reserved much more than it uses.
        limit = status(process.pid, "VmData") + MIB
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (limit, limit))
        began, number = time.monotonic(), 0
        while process.poll() is None:
            check(time.monotonic() < began + 60, "the agent does not end without memory")
            names = (b"hungry.%d:1|c|#%b:%d" % (n, b"t" * 200, n) for n in range(number, number + 50))
            try:
                hungry.send(b"\n".join(names))
            except OSError:
                # The socket is closed.
                pass
            number += 50
            time.sleep(0.005)
        ended = time.monotonic()
        check(process.returncode == -signal.SIGABRT, "it ended with", process.returncode, agent.log.read_text()[-2000:])
        said = agent.log.read_text()
        check("memory allocation of" in said, "the log does not give the reason for the end:", said[-2000:])
        check("limits.node_memory" in said, "the log does not give a remedy:", said[-2000:])
        return ended

    def told(self, agent):
        check(agent.said("the previous agent did not end in order"), "the gap is not logged")
        check(agent.metric("tallyport_gap_seconds") > 0, "the gap is not counted")
        doctor = agent.command("doctor").stdout.decode()
        check("last restart" in doctor, "doctor does not mention the restart:", doctor)


def status(pid, field):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))
