"""Programs send one datagram to their container's Unix socket and exit; dropped ones are counted, and with a cgroup none is lost."""

import contextlib
import ctypes
import os
import pathlib
import platform
import signal
import socket
import subprocess

from agent import Failed, check, until
from attack import Attack, Skipped

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS = 0x00020000
# Sent while the agent is stopped, so that all senders have ended before it checks them.
UNSEEN = 8


class EndedSender(Attack):
    # Its senders fail if no agent listens.
    anywhere = False

    def setup(self, stage):
        if os.geteuid() != 0:
            raise Skipped("mount namespaces need root")
        self.containers = [Held(stage, "plain", None)]
        if cgroup := own_cgroup():
            self.containers.append(Held(stage, "cgroup", cgroup))
        # Sockets of a stopped agent still accept datagrams.
        stage.agent.process.send_signal(signal.SIGSTOP)
        until("the agent is stopped", lambda: is_stopped(stage.agent.process.pid))
        for _ in range(UNSEEN):
            for one in self.containers:
                one.send_and_end()
        stage.agent.process.send_signal(signal.SIGCONT)
        for one in self.containers:
            expected = {} if one.is_remembered() else {"ended_sender": UNSEEN}
            dropped = one.dropped(UNSEEN)
            check(dropped == expected, f"{one.name} has dropped", dropped, "and should have", expected)

    def attack(self, turn):
        while not turn.is_over():
            for one in self.containers:
                one.send_and_end()
                turn.did[one.what] += 1

    def holds(self, stage):
        for one in self.containers:
            sent = UNSEEN + stage.did[one.what]
            dropped = one.dropped(sent)
            check(set(dropped) <= {"ended_sender"}, f"{one.name} has dropped", dropped)
            ended = dropped.get("ended_sender", 0)
            check(not ended or not one.is_remembered(), f"{one.name} has a cgroup, and has dropped", dropped)
            kept = lambda: stage.stored(one) == sent - ended
            until(f"{sent - ended} of {sent} samples of {one.name} are in closed windows", kept)
            stage.did[f"dropped, {one.what}"] = ended


class Held:
    """A container with its own Unix socket and mount namespace, and its own cgroup if one is given."""

    def __init__(self, stage, label, cgroup):
        self.agent, self.cgroup, self.what = stage.agent, cgroup, f"datagrams, {label}"
        self.name = f"hostile-{os.getpid()}-ended-{label}"
        self.process = subprocess.Popen(["unshare", "--mount", "sleep", "3600"])
        stage.others.append(self)
        pid = self.process.pid
        namespace = lambda process: os.readlink(f"/proc/{process}/ns/mnt")
        until("it has a mount namespace of its own", lambda: namespace(pid) != namespace("self"))
        if cgroup:
            (cgroup / "cgroup.procs").write_text(str(pid))
        body = {"container_id": self.name, "task_id": self.name, "pid": pid, "labels": {"tallyport.unix-socket": "only"}}
        status, answer = self.agent.admin("POST", "/v1/containers", body)
        check(status == 201, "the reservation failed:", status, answer)
        self.directory = answer["unix_socket"]["mount"]["source"]
        self.mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def is_remembered(self):
        """Returns whether the kernel still knows the cgroup of a process that has ended."""
        release = platform.release().replace("-", ".").split(".")
        return bool(self.cgroup) and tuple(map(int, release[:2])) >= (6, 16)

    def send_and_end(self):
        """Sends one datagram from a process of the container, and waits for the process to end."""
        child = os.fork()
        if child == 0:
            try:
                if self.cgroup:
                    (self.cgroup / "cgroup.procs").write_text(str(os.getpid()))
                if LIBC.setns(self.mounts, CLONE_NEWNS):
                    os._exit(1)
                # The path of a socket is limited to about a hundred bytes.
                os.chdir(self.directory)
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                    sender.sendto(b"n:1|c", "dsd.socket")
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if status:
            raise Failed(f"a sender of {self.name} ended with {status}")

    def dropped(self, sent):
        """Dropped datagrams by reason, once the given number has been received."""
        counts = lambda: self.agent.get(f"/v1/tasks/{self.name}")[1]["totals"]["datagrams"]
        received = lambda: (now := counts())["received"] == sent and now
        return until(f"{sent} datagrams of {self.name} are received", received)["dropped"]

    def end(self):
        self.process.kill()
        self.process.wait()
        if self.cgroup:
            # An interrupted sender may still be in the cgroup.
            with contextlib.suppress(OSError):
                self.cgroup.rmdir()
            self.cgroup = None


def is_stopped(pid):
    """Returns whether every thread of a process is stopped."""
    states = (path.read_text().rsplit(") ", 1)[1][0] for path in pathlib.Path(f"/proc/{pid}/task").glob("*/stat"))
    return set(states) == {"T"}


def own_cgroup():
    """Creates a cgroup v2; returns None if the machine does not permit it."""
    for root in map(pathlib.Path, ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")):
        if (root / "cgroup.controllers").exists():
            path = root / f"hostile-ended-{os.getpid()}"
            try:
                path.mkdir()
            except OSError:
                return None
            return path
    return None
