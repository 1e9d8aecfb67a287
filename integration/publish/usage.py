"""The CPU time and the memory of a process."""

import pathlib


class Usage:
    """From when it is made on."""

    def __init__(self, pid):
        self.process = pathlib.Path(f"/proc/{pid}")
        # Begins the peak of resident memory anew.
        (self.process / "clear_refs").write_text("5")
        self.before = self.processor(), self.processor("publish ")

    def processor(self, threads=""):
        """CPU time in seconds of the threads whose names begin like this, as counted by the scheduler."""
        total = 0
        for thread in (self.process / "task").iterdir():
            try:
                if (thread / "comm").read_text().startswith(threads):
                    total += int((thread / "schedstat").read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                # It has ended.
                pass
        return total / 1e9

    def status(self, key):
        lines = (self.process / "status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:"))

    def resident(self):
        return self.status("VmRSS")

    def figures(self):
        cpu, publisher = self.processor() - self.before[0], self.processor("publish ") - self.before[1]
        return {"cpu": cpu, "publisher": publisher, "peak": self.status("VmHWM")}
