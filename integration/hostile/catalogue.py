"""Finds the attacks: each module in `attacks/` has one."""

import importlib
import inspect
import pathlib

from attack import Attack, Scenario

HERE = pathlib.Path(__file__).resolve().parent


def attacks():
    """All attacks by name, in order of name, with `calm` first."""
    found = {}
    for path in sorted((HERE / "attacks").glob("*.py"), key=lambda path: (path.stem != "calm", path.stem)):
        module = importlib.import_module(f"attacks.{path.stem}")
        classes = [one for _, one in inspect.getmembers(module, inspect.isclass)]
        [attack] = [one for one in classes if issubclass(one, Attack) and one.__module__ == module.__name__]
        found[path.stem] = attack
    return found


def storms():
    """The attacks that are only load from a separate process, so that they can run on any agent."""
    found = {name: attack for name, attack in attacks().items() if not issubclass(attack, Scenario)}
    loads = {name: attack for name, attack in found.items() if attack.attack is not Attack.attack and not attack.flags}
    return {name: attack for name, attack in loads.items() if attack.anywhere}
