"""Processes that run during an attack: quiet containers that send exact totals, and probes that read as a user does."""

import calendar
import collections
import http.client
import multiprocessing
import os
import re
import threading
import time

from attack import Turn

FORK = multiprocessing.get_context("fork")
# Attackers have a lower priority than the agent and the probes, so that the agent is measured and not the scheduler.
NICE = 10
END = re.compile(rb'"end":"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d+)?Z"')


class Process:
    """A forked process that works until it is told to end, and then returns its results."""

    def __init__(self, work, *arguments, nice=0):
        self.ends, (self.answer, answer) = FORK.Event(), FORK.Pipe(False)
        self.process = FORK.Process(target=self.run, args=(work, arguments, answer, nice), daemon=True)
        self.process.start()
        answer.close()

    def run(self, work, arguments, answer, nice):
        os.nice(nice)
        answer.send(work(self.ends, *arguments))

    def finish(self, patience=60):
        self.ends.set()
        try:
            found = self.answer.recv() if self.answer.poll(patience) else None
        except EOFError:
            found = None
        self.end()
        return found

    def end(self):
        self.process.kill()
        self.process.join()


def send_quietly(ends, containers, rate):
    """Sends one counter to each container `rate` times a second. Returns how many it sent to each."""
    began, rounds = time.monotonic(), 0
    while not ends.is_set():
        for container in containers:
            container.send(b"n:1|c")
        rounds += 1
        # If it is late it sends at once, so that the average rate does not depend on other processes.
        time.sleep(max(0.0, began + rounds / rate - time.monotonic()))
    return rounds


class Probe:
    """Sends requests to the agent repeatedly, and notes the slowest answers."""

    def __init__(self, address, tasks, window):
        self.address, self.tasks, self.window = address, tasks, window
        self.took, self.refused, self.late = collections.defaultdict(list), collections.Counter(), []

    def __call__(self, ends):
        self.ends = ends
        asks = [(self.ask, "read_ms", f"/v1/tasks/{self.tasks[0]}/metrics?window=last", 0.02)]
        asks += [(self.ask, "health_ms", "/health", 0.05)]
        asks += [(self.watch, task) for task in self.tasks]
        threads = [threading.Thread(target=work, args=arguments, daemon=True) for work, *arguments in asks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        return {"took": dict(self.took), "refused": dict(self.refused), "late": self.late}

    def ask(self, measure, path, pause):
        """Sends a request on a new connection, so that the time to connect is included."""
        while not self.ends.is_set():
            began = time.monotonic()
            try:
                connection = http.client.HTTPConnection(*self.address, timeout=30)
                connection.request("GET", path)
                answer = connection.getresponse()
                answer.read()
                connection.close()
                if answer.status != 200:
                    self.refused[f"{path}: {answer.status}"] += 1
            except (OSError, http.client.HTTPException) as error:
                self.refused[f"{path}: {type(error).__name__}"] += 1
            self.took[measure].append((time.monotonic() - began) * 1000)
            self.ends.wait(pause)

    def watch(self, task):
        """The delay until each closed window of a task is announced to a waiting reader."""
        last = None
        try:
            connection = http.client.HTTPConnection(*self.address, timeout=5)
            connection.request("GET", f"/v1/tasks/{task}/watch")
            stream = connection.getresponse()
            while not self.ends.is_set():
                try:
                    line = stream.readline()
                except TimeoutError:
                    if last is not None:
                        self.late.append((time.time() - last - self.window) * 1000)
                    # A buffered reader cannot continue after a timeout, so the stream is requested again.
                    connection.close()
                    connection.request("GET", f"/v1/tasks/{task}/watch")
                    stream = connection.getresponse()
                    continue
                if found := END.search(line):
                    *date, fraction = found.groups()
                    end = calendar.timegm(tuple(map(int, date))) + float(fraction or 0)
                    self.late.append((time.time() - end) * 1000)
                    last = end
            connection.close()
        except (OSError, http.client.HTTPException) as error:
            self.refused[f"watch: {type(error).__name__}"] += 1
        # A window that has not arrived is late by the time until now.
        if last is not None:
            self.late.append((time.time() - last - self.window) * 1000)
        else:
            self.refused["watch: no window"] += 1


class Memory(threading.Thread):
    """The peak resident size of the current agent process."""

    def __init__(self, agent):
        super().__init__(daemon=True)
        self.agent, self.peak, self.ends = agent, 0, threading.Event()

    def run(self):
        while not self.ends.wait(0.05):
            self.look()

    def look(self):
        try:
            with open(f"/proc/{self.agent.process.pid}/status") as status:
                found = [line.split()[1] for line in status if line.startswith("VmHWM:")]
            self.peak = max([self.peak, *(int(kilobytes) << 10 for kilobytes in found)])
        except (OSError, AttributeError):
            pass

    def end(self):
        self.ends.set()
        if self.is_alive():
            self.join()


def attacking(ends, attack, number):
    """Runs the attack in this process. Returns the counts of its actions."""
    did = collections.Counter()
    try:
        attack.attack(Turn(ends, number, did))
    except BaseException as error:
        did[f"failed: {error!r}"] += 1
    return did


def p99(values):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] if ordered else None
