#!/usr/bin/env python3
"""Runs every known attack on a real agent, one after the other, beside quiet containers that send exact totals.

Each attack gets a new agent with quiet containers that each send at a known rate. During the attack, probes read one quiet task
and /health, and follow closed windows; at its end another process takes over. Measurements must be within the limits, and the
attack's own conditions must hold. With --short there are fewer containers and shorter attacks, and no assertion depends on the
speed of the machine: nothing is lost, memory is bounded, every request is answered.
"""

import argparse
import inspect
import json
import os
import pathlib
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "common")]

from agent import Failed
from attack import AIMS, Scale, Skipped
from catalogue import attacks
from stage import Stage

COLUMNS = {
    "lost": "lost", "close_ms": "close, ms", "read_ms": "read p99, ms", "health_ms": "health, ms", "memory_mib": "memory, MiB",
    "pause_ms": "pause, ms",
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/tallyport", help="the agent; tallyport-oci is looked for beside it")
    parser.add_argument("--only", action="append", metavar="NAME", help="this attack alone; may be repeated")
    parser.add_argument("--seconds", type=float, help="how long each attack lasts")
    parser.add_argument("--short", action="store_true", help="small, and nothing that depends on the machine's speed")
    parser.add_argument("--containers", type=int, help="quiet containers (63, short 16)")
    parser.add_argument("--rate", type=float, default=20, help="datagrams a second of each quiet container")
    parser.add_argument("--json", metavar="FILE", help="write what was measured, too")
    parser.add_argument("--list", action="store_true", help="list all attacks")
    options = parser.parse_args()
    options.binary = pathlib.Path(options.binary).resolve()
    options.containers = options.containers or (16 if options.short else 63)
    return options


def one(name, attack, options):
    """Runs one attack. Returns its result."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"hostile-{name}-") as directory:
        # The agent refuses directories that others may write to, but the impostor of another user must be able to
        # enter.
        os.chmod(directory, 0o755)
        stage, outcome, why = None, "ok", ""
        try:
            stage = Stage(attack(Scale(options.short)), options, pathlib.Path(directory).resolve())
            stage.run()
        except Skipped as skipped:
            outcome, why = "skipped", str(skipped)
        except Failed as failed:
            outcome, why = "FAILED", str(failed)
        except Exception as error:
            outcome, why = "FAILED", f"{type(error).__name__}: {error}"
            traceback.print_exc()
        measured = {measure: value for measure, value in (stage.measured if stage else {}).items() if stage.is_measured(measure)}
        did = {what: round(times, 1) for what, times in sorted((stage.did if stage else {}).items())}
    took = time.monotonic() - began
    return {"attack": name, "outcome": outcome, "why": why, "measured": measured, "did": did, "seconds": took}


def row(result):
    cells = [result["attack"].replace("_", "-").ljust(22)]
    for measure, title in COLUMNS.items():
        value = result["measured"].get(measure)
        text = "–" if value is None else f"{value:.0f}" if measure in ("lost", "memory_mib") or value >= 100 else f"{value:.1f}"
        cells.append(text.rjust(len(title)))
    return "  ".join(cells) + f"  {result['outcome']}"


def run():
    options = arguments()
    known = attacks()
    if options.list:
        for name, attack in known.items():
            print(f"{name.replace('_', '-'):22}  {inspect.getdoc(sys.modules[attack.__module__]).splitlines()[0]}")
        return
    only = [name.replace("-", "_") for name in options.only or known]
    if missing := [name for name in only if name not in known]:
        sys.exit(f"hostile: no such attack: {', '.join(missing)}; --list says which there are")
    print("  ".join(["attack".ljust(22), *COLUMNS.values()]), flush=True)
    print("  ".join(["aim (at most)".ljust(22), *(str(AIMS[measure]).rjust(len(title)) for measure, title in COLUMNS.items())]))
    results = []
    for name in only:
        result = one(name, known[name], options)
        results.append(result)
        print(row(result), flush=True)
        for what in [result["why"], ", ".join(f"{times} {what}" for what, times in result["did"].items())]:
            if what:
                print(f"    {what}", flush=True)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(results, indent=1) + "\n")
    count = {outcome: sum(one["outcome"] == outcome for one in results) for outcome in ("ok", "skipped", "FAILED")}
    # Once more at the end, because a log of CI may be cut to its last lines.
    for result in results:
        if result["outcome"] != "ok":
            print(f"{result['attack'].replace('_', '-')}: {result['outcome']}: {result['why']}")
    print(f"hostile: {count['ok']} held, {count['skipped']} skipped, {count['FAILED']} failed")
    # An attack that CI skips would never be tested.
    sys.exit(1 if count["FAILED"] or (count["skipped"] and os.environ.get("CI")) else 0)


if __name__ == "__main__":
    run()
