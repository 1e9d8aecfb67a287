"""A real agent that is killed, handed over and restarted, and its clients."""

import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.parse

PATIENCE = 30


class Failed(Exception):
    """A check failed."""


def check(holds, *what):
    if not holds:
        raise Failed(" ".join(map(str, what)))


def until(what, holds, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while not (found := holds()):
        check(time.monotonic() < deadline, f"not within {patience} s:", what)
        time.sleep(0.005)
    return found


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Unix(http.client.HTTPConnection):
    """HTTP over the admin socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Agent:
    """A sequence of agents in one directory and at one address."""

    def __init__(self, binaries, directory, flags=()):
        """`binaries` is the directory of the programs, or the program itself."""
        binaries = pathlib.Path(binaries)
        self.binary = binaries / "tallyport" if binaries.is_dir() else binaries
        self.directory, self.flags = pathlib.Path(directory), flags
        self.address = ("127.0.0.1", free_port())
        self.url = "http://%s:%d" % self.address
        self.admin_socket, self.state = self.directory / "admin.sock", self.directory / "state"
        self.lives, self.process, self.log, self.processes = 0, None, None, []

    def spawn(self, *flags, environment=None):
        self.lives += 1
        self.log = self.directory / f"agent-{self.lives}.log"
        command = [self.binary, "agent", "--http-listen", "%s:%d" % self.address, "--admin-socket", self.admin_socket]
        command += ["--state-dir", self.state, "--log-format", "json", *self.flags, *flags]
        with open(self.log, "w") as log:
            environment = os.environ | (environment or {})
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        self.started, self.process = time.monotonic(), process
        self.processes = [one for one in self.processes if one.poll() is None] + [process]
        return process

    def said(self, message):
        """The first line of its log with this message, or None."""
        for line in self.log.read_text().splitlines():
            if f'"message":"{message}' in line and line.endswith("}"):
                return json.loads(line)
        return None

    def start(self, *flags, environment=None):
        process = self.spawn(*flags, environment=environment)

        def listens():
            check(process.poll() is None, "the agent ended:", self.log.read_text()[-3000:])
            return self.said("listening")

        until("the agent listens", listens)

    def hand_over(self):
        """Starts a process that takes over; the old one must end with code 0. Returns the pause of receiving in ms."""
        before, log = self.process, self.log
        try:
            self.start("--take-over")
        except Failed:
            # The old process continues.
            self.process.kill()
            self.process.wait()
            self.process, self.log = before, log
            raise
        try:
            before.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failed("the agent that handed over does not end") from None
        check(before.returncode == 0, "the agent that handed over ended with", before.returncode)
        return self.said("took over")["pause_ms"]

    def command(self, *arguments, environment=None):
        """Runs a client command. Returns its exit code and output."""
        where = {"TALLYPORT_URL": self.url, "TALLYPORT_ADMIN_SOCKET": str(self.admin_socket)}
        environment = os.environ | where | (environment or {})
        command = [self.binary, *arguments]
        return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env=environment, timeout=PATIENCE)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """Ends all of its running processes, including one that did not end after a hand-over."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def age(self):
        """Seconds since the last start."""
        return time.monotonic() - self.started

    def processor(self):
        """CPU time used so far, in seconds."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ask(self, connection, method, path, body=None):
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def get(self, path):
        """Status and document. Raises `OSError` or `HTTPException` if there is no answer."""
        status, text = self.ask(http.client.HTTPConnection(*self.address, timeout=PATIENCE), "GET", path)
        return status, json.loads(text) if text[:1] in (b"{", b"[") else text

    def admin(self, method, path, body=None):
        status, text = self.ask(Unix(self.admin_socket), method, path, body)
        return status, json.loads(text or "null")

    def records(self, task, query="window=all"):
        status, answer = self.get(f"/v1/tasks/{urllib.parse.quote(task)}/metrics?{query}")
        return answer["metrics"] if status == 200 else []

    def metric(self, name):
        """The sum of a metric of the agent's own, over its labels."""
        lines = self.get("/metrics")[1].decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def containers(self):
        return {one["container_id"]: one for one in self.admin("GET", "/v1/containers")[1]}


class Container:
    """A container: a process that sleeps, and a socket that sends for it.

    Without a process it is a reservation that does not expire; it has a socket as well and costs less.
    """

    def __init__(self, agent, name, labels=None, process=True, sender=None, task=None):
        self.name, self.process = name, subprocess.Popen(["sleep", "3600"]) if process else None
        body = {"container_id": name, "task_id": task or name, "labels": labels or {}}
        body |= {"pid": self.process.pid} if process else {"ttl": None}
        try:
            self.status, answer = agent.admin("POST", "/v1/containers", body)
            check(self.status == 201, f"{name} was not reserved:", self.status, answer)
        except BaseException:
            self.end()
            raise
        self.address = (answer["statsd_host"], answer["statsd_port"])
        self.socket = sender or socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send(self, datagram):
        self.socket.sendto(datagram, self.address)

    def end(self):
        if self.process:
            self.process.kill()
            self.process.wait()


def interval(record):
    """The key of a record: at most one may exist for each."""
    return record["origin"]["container_id"], record["name"], str(record["tags"]), record["type"], record["start"]


def main(run):
    """Runs a check, and prints the reason if it fails."""
    try:
        run()
    except Failed as failed:
        sys.exit(f"FAILED: {failed}")
