"""Another user answers at the wrapper's socket and offers variables and mounts; the container gets none of them."""

import json
import os
import pathlib
import socket
import subprocess

from agent import Failed, check
from attack import Scenario, Skipped

NOBODY = 65534
ANSWER = {
    "container_id": "c", "task_id": "c", "generation": 1, "statsd_host": "127.0.0.1", "statsd_port": 18125, "state": "listening",
    "attached": False, "warnings": [],
    "env": {"STATSD_UDP_HOST": "127.0.0.1", "STATSD_UDP_PORT": "18125", "LD_PRELOAD": "/tmp/evil.so"},
    "unix_socket": {"mount": {"source": "/etc", "destination": "/etc"}, "env": {"LD_PRELOAD": "/tmp/evil.so"}},
}


class Impostor(Scenario):
    def play(self, stage):
        wrapper = pathlib.Path(stage.agent.binary).with_name("tallyport-oci")
        if not wrapper.exists():
            raise Skipped(f"{wrapper} is missing")
        if os.geteuid() != 0:
            raise Skipped("another user's socket needs root")
        for uid in (NOBODY, 0):
            config = self.created(stage, wrapper, uid)
            text = json.dumps(config)
            check("LD_PRELOAD" not in text, f"uid {uid} has set a variable that was not requested")
            check(all(mount.get("source") != "/etc" for mount in config.get("mounts", [])), f"uid {uid} has mounted /etc")

    def created(self, stage, wrapper, uid):
        """The configuration that the runtime gets when a process of this user answers the wrapper."""
        directory = stage.directory / f"of-{uid}"
        bundle = directory / "bundle"
        (bundle / "rootfs").mkdir(parents=True)
        directory.chmod(0o755)
        process = {"cwd": "/", "args": ["true"], "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
        linux = {"namespaces": [{"type": "network"}, {"type": "mount"}]}
        annotations = {"tallyport.unix-socket": "true"}
        config = {"ociVersion": "1.0.2", "process": process, "root": {"path": "rootfs"}, "mounts": [], "linux": linux}
        (bundle / "config.json").write_text(json.dumps(config | {"annotations": annotations}))
        runtime = directory / "runtime"
        runtime.write_text(f"#!/bin/sh\ncp {bundle}/config.json {directory}/given.json\n")
        runtime.chmod(0o755)
        (directory / "oci.toml").write_text("")
        path, answers = directory / "admin.sock", socket.socket(socket.AF_UNIX)
        answers.bind(str(path))
        os.chmod(path, 0o666)
        child = self.listen_as(uid, answers)
        try:
            answers.close()
            environment = os.environ | {
                "TALLYPORT_OCI_CONFIG": str(directory / "oci.toml"), "TALLYPORT_ADMIN_SOCKET": str(path),
                "TALLYPORT_OCI_RUNTIME": str(runtime),
            }
            command = [wrapper, "create", "--bundle", bundle, f"impostor-{os.getpid()}-{uid}"]
            ran = subprocess.run(command, env=environment, capture_output=True, timeout=60)
            check((directory / "given.json").exists(), "the runtime was not started:", ran.stderr.decode())
            return json.loads((directory / "given.json").read_text())
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)

    def listen_as(self, uid, answers):
        """Starts a process of this user that listens and answers; returns once it listens. The kernel reports the user that
        called listen() last, so the socket must not be used before."""
        listens, listening = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(listens)
                os.setuid(uid)
                answers.listen(16)
                os.close(listening)
                self.serve(answers)
            finally:
                os._exit(1)
        os.close(listening)
        with os.fdopen(listens, "rb") as pipe:
            # Returns when the child closes its end: it listens, or it has failed.
            pipe.read()
        if os.waitpid(child, os.WNOHANG)[0]:
            raise Failed(f"no process of user {uid} listens")
        return child

    @staticmethod
    def serve(answers):
        body = json.dumps(ANSWER).encode()
        while True:
            connection, _ = answers.accept()
            connection.settimeout(5)
            try:
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 201 Created\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
            except OSError:
                pass
            connection.close()
