"""What an attack is, and what each has to leave alone. See README.md for how to add one."""

import dataclasses

from agent import check

MIB = 1 << 20

# What must hold beside every attack that does not say otherwise: the largest value allowed of each measure.
AIMS = {
    "lost": 0,
    "close_ms": 20,
    "read_ms": 50,
    "health_ms": 100,
    "memory_mib": 64,
    "pause_ms": 100,
}
# The measures that do not depend on how fast the machine is. The short form asserts these alone.
ROBUST = ("lost", "memory_mib")
# Beside readers, windows may close a little later.
BESIDE_READERS = {"close_ms": 100}


class Skipped(Exception):
    """The attack cannot be carried out on this machine; the message says why."""


@dataclasses.dataclass
class Scale:
    """How large an attack is: the full form, or the short one that CI runs."""

    short: bool

    def of(self, full, short):
        return short if self.short else full


class Attack:
    """One attack: a module in `attacks/` with one subclass. The module's name is the attack's, its docstring what it does."""

    # Flags of the agent beside the suite's own, such as ("--set", "http.tokens=FILE").
    flags = ()
    # `limits.node_memory`, in bytes. Resident memory may exceed it by AIMS["memory_mib"].
    budget = 64 * MIB
    # How many windows are kept.
    keep = 30
    # Where the aims differ from AIMS.
    aims = {}
    # Measures that this attack says nothing about, because it stops or replaces the agent, for example.
    unmeasured = ()
    # How many processes run `attack` side by side.
    processes = 1
    # Whether it can run on an agent that is killed and started again meanwhile (`integration/crash/soak.py`).
    anywhere = True
    # How long the attack lasts at least in the full form where `--seconds` does not say.
    seconds = 20

    def __init__(self, scale):
        self.scale = scale

    def prepare(self, directory):
        """Before the agent starts: writes files into its directory. Returns more flags, or None."""

    def setup(self, stage):
        """Reserves the containers that attack, and fills them."""

    def attack(self, turn):
        """Sends or reads until `turn.is_over()`. Runs in a process of its own, and counts what it did in `turn.did`."""

    def meanwhile(self, stage):
        """What the suite itself does while `attack` runs: signals, files, commands."""

    def holds(self, stage):
        """What must hold afterwards beside the measures. Raises `Failed` where it does not (`check`)."""


class Readers(Attack):
    """Readers of a node with many containers."""

    budget = 160 * MIB
    aims = BESIDE_READERS

    def setup(self, stage):
        self.address = stage.agent.address
        stage.crowd(self.scale.of(1000, 100), self.scale.of(100, 20))

    def holds(self, stage):
        check(stage.did["answers 200"] > 0, "nothing was answered:", stage.did)


class Scenario(Attack):
    """A case that has an agent to itself, from before its start: no quiet containers, nothing is measured, `play` says what holds."""

    unmeasured = tuple(AIMS)

    def play(self, stage):
        """Starts `stage.agent` and stops it as it likes. Raises `Failed` where something does not hold (`check`)."""


class Turn:
    """The time that an attacking process has, and what it did in it."""

    def __init__(self, ends, number, did):
        self.ends, self.number, self.did = ends, number, did

    def is_over(self):
        return self.ends.is_set()

    def rest(self, seconds):
        """Waits for so long, or until the turn is over."""
        self.ends.wait(seconds)
