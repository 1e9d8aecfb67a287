#!/usr/bin/env python3
"""Executes a command with the system call filter and the umask of a systemd unit: filtered.py UNIT COMMAND...

Does not need a running systemd. Reads SystemCallFilter= and UMask= as systemd does, gets the calls of a set from
systemd-analyze, and kills the process at the first call that is not allowed, regardless of SystemCallErrorNumber=, so that
a test notices it.
"""

import ctypes
import functools
import os
import pathlib
import platform
import re
import struct
import subprocess
import sys

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
ALLOW, KILL_PROCESS = 0x7FFF0000, 0x80000000
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06


def values(unit, key):
    """The values assigned to a key, in order. An empty assignment resets the list."""
    found = []
    for line in pathlib.Path(unit).read_text().splitlines():
        name, _, value = line.partition("=")
        if name == key:
            found = [*found, value] if value else []
    return found


@functools.cache
def calls(name):
    """The system calls of a set, or the one of this name."""
    if not name.startswith("@"):
        return {name}
    listed = subprocess.run(["systemd-analyze", "syscall-filter", name], check=True, capture_output=True, text=True).stdout
    lines = [line.strip() for line in listed.splitlines()[1:]]
    inside = [line for line in lines if line and not line.startswith("#")]
    return set().union(*(calls(line) for line in inside))


def allowed(unit):
    """The first assignment makes the list an allow list or a deny list; our units use allow lists."""
    found = set()
    for value in values(unit, "SystemCallFilter"):
        denied = value.startswith("~")
        for name in value.removeprefix("~").split():
            found = found - calls(name) if denied else found | calls(name)
    return found


def numbers():
    """The number of each system call of this machine."""
    source = "#include <sys/syscall.h>\n"
    defined = subprocess.run(["cc", "-E", "-dM", "-"], input=source, check=True, capture_output=True, text=True).stdout
    return {name: int(number) for name, number in re.findall(r"^#define __NR_(\w+) (\d+)$", defined, re.M)}


def program(names):
    one = lambda code, jump_true, jump_false, value: struct.pack("HBBI", code, jump_true, jump_false, value)
    known = numbers()
    steps = [one(LOAD, 0, 0, 4), one(JUMP_IF_EQUAL, 1, 0, ARCHITECTURES[platform.machine()]), one(RETURN, 0, 0, KILL_PROCESS)]
    steps.append(one(LOAD, 0, 0, 0))
    for number in sorted(known[name] for name in names if name in known):
        steps += [one(JUMP_IF_EQUAL, 0, 1, number), one(RETURN, 0, 0, ALLOW)]
    return steps + [one(RETURN, 0, 0, KILL_PROCESS)]


def main():
    unit, *command = sys.argv[1:]
    steps = program(allowed(unit))
    [umask] = values(unit, "UMask")
    os.umask(int(umask, 8))
    code = ctypes.create_string_buffer(b"".join(steps))
    description = struct.pack("HP", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, description, 0, 0):
        sys.exit(f"filtered: {os.strerror(ctypes.get_errno())}")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
