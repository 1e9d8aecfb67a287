"""A wall clock for one agent that a test can set."""

import pathlib
import shutil
import subprocess

from attack import Skipped

SOURCE = pathlib.Path(__file__).resolve().parent / "clock.c"


class Clock:
    """Starts `ahead` seconds ahead of the machine's clock. An agent started with `environment` uses it."""

    def __init__(self, directory, ahead=0):
        if not shutil.which("cc"):
            raise Skipped("a C compiler is missing")
        library, self.file = directory / "clock.so", directory / "clock"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", library, SOURCE], check=True)
        self.set(ahead)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_FILE": str(self.file)}

    def set(self, seconds):
        """Sets it this many seconds ahead."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{seconds}\n")
        new.replace(self.file)
