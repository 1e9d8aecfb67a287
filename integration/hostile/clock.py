"""A wall clock that a test sets, for one agent."""

import pathlib
import shutil
import subprocess

from attack import Skipped

SOURCE = pathlib.Path(__file__).resolve().parent / "clock.c"


class Clock:
    """Starts `ahead` seconds ahead of the machine's clock. An agent that is started with `environment` reads it."""

    def __init__(self, directory, ahead=0):
        if not shutil.which("cc"):
            raise Skipped("a C compiler is missing")
        library, self.file = directory / "clock.so", directory / "clock"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", library, SOURCE], check=True)
        self.set(ahead)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_FILE": str(self.file)}

    def set(self, seconds):
        """So many seconds ahead from now on."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{seconds}\n")
        new.replace(self.file)
