"""The interface of attacks, and the limits on their effects. See README.md for how to add one."""

import dataclasses

from agent import check

MIB = 1 << 20

# The largest allowed value of each measurement, unless an attack overrides it.
AIMS = {
    "lost": 0,
    "close_ms": 20,
    "read_ms": 50,
    "health_ms": 100,
    "memory_mib": 64,
    "pause_ms": 100,
}
# The measurements that do not depend on the speed of the machine. The short form checks only these.
ROBUST = ("lost", "memory_mib")
# With many readers, windows may close a little later.
BESIDE_READERS = {"close_ms": 100}


class Skipped(Exception):
    """The attack is not possible on this machine; the message gives the reason."""


@dataclasses.dataclass
class Scale:
    """The size of an attack: the full form, or the short one that CI runs."""

    short: bool

    def of(self, full, short):
        return short if self.short else full


class Attack:
    """One attack: a module in `attacks/` with one subclass. It has the module's name; the docstring describes it."""

    # Flags of the agent in addition to the suite's own, such as ("--set", "http.tokens=FILE").
    flags = ()
    # `limits.node_memory`, in bytes. Resident memory may exceed it by AIMS["memory_mib"].
    budget = 64 * MIB
    # How many windows are kept.
    keep = 30
    # Limits that differ from AIMS.
    aims = {}
    # Measurements without meaning for this attack, for example because it stops or replaces the agent.
    unmeasured = ()
    # How many processes run `attack` side by side.
    processes = 1
    # Whether it can run on an agent that is killed and restarted meanwhile (`integration/crash/soak.py`).
    anywhere = True
    # The duration of the attack in the full form, in seconds, without `--seconds`.
    seconds = 20

    def __init__(self, scale):
        self.scale = scale

    def prepare(self, directory):
        """Writes files into the agent's directory before it starts. Returns more flags, or None."""

    def setup(self, stage):
        """Reserves the attacking containers, and fills them."""

    def attack(self, turn):
        """Sends or reads until `turn.is_over()`. Runs in a separate process, and counts its actions in `turn.did`."""

    def meanwhile(self, stage):
        """Runs in the suite's process while `attack` runs: signals, files, commands."""

    def holds(self, stage):
        """Checks further conditions afterwards. Raises `Failed` (`check`)."""


class Readers(Attack):
    """Readers of a node with many containers."""

    budget = 160 * MIB
    aims = BESIDE_READERS

    def setup(self, stage):
        self.address = stage.agent.address
        stage.crowd(self.scale.of(1000, 100), self.scale.of(100, 20))

    def holds(self, stage):
        check(stage.did["answers 200"] > 0, "no request was answered:", stage.did)


class Scenario(Attack):
    """A case with an agent that is not started yet, without quiet containers or measurements; `play` has the checks."""

    unmeasured = tuple(AIMS)

    def play(self, stage):
        """Starts and stops `stage.agent`, and checks conditions. Raises `Failed` (`check`)."""


class Turn:
    """The time limit of an attacking process, and the counts of its actions."""

    def __init__(self, ends, number, did):
        self.ends, self.number, self.did = ends, number, did

    def is_over(self):
        return self.ends.is_set()

    def rest(self, seconds):
        """Waits for this many seconds, or until the turn is over."""
        self.ends.wait(seconds)
