"""Finds the attacks: each module in `attacks/` has one."""

import importlib
import inspect
import pathlib

from attack import Attack, Scenario

HERE = pathlib.Path(__file__).resolve().parent


def attacks():
    """Every attack by its name, in the order of their names, the one that does nothing first."""
    found = {}
    for path in sorted((HERE / "attacks").glob("*.py"), key=lambda path: (path.stem != "calm", path.stem)):
        module = importlib.import_module(f"attacks.{path.stem}")
        classes = [one for _, one in inspect.getmembers(module, inspect.isclass)]
        [attack] = [one for one in classes if issubclass(one, Attack) and one.__module__ == module.__name__]
        found[path.stem] = attack
    return found


def storms():
    """Those that are nothing but load from a process of their own, so that they can be let loose on any agent."""
    found = {name: attack for name, attack in attacks().items() if not issubclass(attack, Scenario)}
    loads = {name: attack for name, attack in found.items() if attack.attack is not Attack.attack and not attack.flags}
    return {name: attack for name, attack in loads.items() if attack.anywhere}
