"""Parts of scripts/e2e-clients: the agent, the servers that scrape it, and the sources of programs."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import Callable, Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = ROOT / "integration/.cache"
HERE = ROOT / "integration/clients"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PATIENCE = 60
# The mark that the agent appends to a name that collides with another.
MARK = re.compile(r"__[a-z2-7]{8}(_|$)")


class Missing(Exception):
    """A program is not available on this machine."""


class Wrong(Exception):
    """A result differs from the expected one."""


@dataclass
class Run:
    """One program, its configuration, and the expected results."""

    task: str
    # Gets the variables of the task's socket and a directory. A generator: it yields when everything has been sent or
    # will be, and is resumed to stop its processes once everything has arrived.
    send: Callable[[dict, pathlib.Path], Iterator[None]]
    # Queries, with {} for the selector of the task, and their expected values, or pairs of value and relative
    # tolerance.
    wanted: dict = field(default_factory=dict)
    # The same in UTF-8, for Prometheus 3.
    utf8: dict = field(default_factory=dict)
    annotations: dict = field(default_factory=dict)


def command(*words, timeout=600, **options):
    """Runs a command and returns its output. Raises `Missing` if it fails."""
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{words[0]}: {error}") from error
    if done.returncode:
        raise Missing(f"{shlex.join(map(str, words))}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout


@contextlib.contextmanager
def process(*words, log, **options):
    """Runs a command until the end of the block."""
    with open(log, "w") as out:
        running = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **options)
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(10)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def until(what, holds, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if answer := holds():
                return answer
        time.sleep(0.1)
    raise Wrong(f"not within {patience} s: {what}")


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(type=kind) as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def listens(port):
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


def address(variables):
    return variables["STATSD_UDP_HOST"], int(variables["STATSD_UDP_PORT"])


def client(*words, **more):
    """The `send` of a run for a program that sends and exits."""

    def send(variables, home):
        command(*words, env={**os.environ, **variables, **more}, cwd=home, timeout=120)
        yield

    return send


def get(url, headers=None):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=10) as answer:
        return answer.read()


# Sources of programs.


def debian(*packages):
    """Unpacks packages and their dependencies without installing them. Returns their root directory."""
    root = CACHE / "debian" / "+".join(packages)
    if (root / "complete").exists():
        return root
    if not shutil.which("apt-get"):
        raise Missing("apt-get is missing")
    uris = command("apt-get", "install", "--print-uris", "--yes", "--no-install-recommends", *packages)
    names = re.findall(r"^'[^']*' ([^_ ]+)_", uris, re.M) or list(packages)
    shutil.rmtree(root, ignore_errors=True)
    (root / "archives").mkdir(parents=True)
    command("apt-get", "download", *names, cwd=root / "archives")
    for archive in sorted((root / "archives").glob("*.deb")):
        command("dpkg-deb", "--extract", archive, root)
    shutil.rmtree(root / "archives")
    (root / "complete").touch()
    return root


def libraries(root):
    """Environment variables with which programs below a root find their libraries."""
    found = [str(path) for path in (root / "usr/lib/x86_64-linux-gnu", root / "lib/x86_64-linux-gnu", root / "usr/lib") if path.is_dir()]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(found), "PATH": f"{root}/usr/bin:{root}/usr/sbin:{os.environ['PATH']}"}


def pypi(*requirements):
    """Installs packages into a separate directory."""
    target = CACHE / "pypi" / "+".join(requirements)
    if not (target / "complete").exists():
        shutil.rmtree(target, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
        command(*pip, "--target", target, *requirements)
        (target / "complete").touch()
    return target


def npm(package):
    target = CACHE / "npm" / package
    if not (target / "complete").exists():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        command("npm", "install", "--prefix", target, "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", package)
        (target / "complete").touch()
    return target


def go(package, source):
    """Compiles a Go program of one file that imports this package, given with its version. Returns its path."""
    target = CACHE / "go" / package
    if not (target / "program").exists():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        shutil.copy(HERE / source, target / "main.go")
        (target / "go.mod").write_text("module program\n\ngo 1.21\n")
        options = {"cwd": target, "env": {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"}}
        command("go", "get", package, **options)
        command("go", "build", "-o", "program", ".", **options)
    return target / "program"


def maven(*artifacts):
    """Downloads artifacts and their dependencies. Returns the class path."""
    target = CACHE / "maven" / "+".join(artifact.replace(":", "_") for artifact in artifacts)
    if not (target / "complete").exists():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        one = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"
        needs = "".join(one.format(*artifact.split(":")) for artifact in artifacts)
        (target / "pom.xml").write_text(
            '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>x</groupId>'
            f"<artifactId>x</artifactId><version>1</version><dependencies>{needs}</dependencies></project>"
        )
        command("mvn", "--quiet", "--batch-mode", "dependency:copy-dependencies", f"-DoutputDirectory={target}", cwd=target)
        (target / "complete").touch()
    return f"{target}/*"


def servers():
    """The available Prometheus servers by version, each with its environment: Debian's, and one compiled here once."""
    found = {}
    try:
        root = debian("prometheus")
        found["2.42"] = (root / "usr/bin/prometheus", libraries(root))
    except Missing as missing:
        print(f"SKIPPED: Prometheus 2.42: {missing}")
    binary = CACHE / "prometheus-3.16/prometheus"
    try:
        if not binary.exists():
            print("e2e-clients: compiling Prometheus 3.16, once", flush=True)
            options = {**os.environ, "GOBIN": str(binary.parent), "CGO_ENABLED": "0", "GOFLAGS": "-p=1"}
            module = "github.com/prometheus/prometheus/cmd/prometheus@v0.316.0"
            command("go", "install", "-tags", "netgo,remove_all_sd", module, env=options, timeout=3600)
        found["3.16"] = (binary, dict(os.environ))
    except Missing as missing:
        print(f"SKIPPED: Prometheus 3.16: {missing}")
    if not found:
        sys.exit("no Prometheus is available" if os.environ.get("CI") else 0)
    return found


class Admin(http.client.HTTPConnection):
    """HTTP over the admin socket."""

    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


class Node:
    """An agent, and the servers that scrape it."""

    def __init__(self, directory, servers):
        self.directory, self.servers, self.stack, self.addresses = directory, servers, contextlib.ExitStack(), {}

    def __enter__(self):
        if "CARGO_TARGET_DIR" not in os.environ:
            subprocess.run(["cargo", "build", "--quiet", "--locked", "--bin", "tallyport"], cwd=ROOT, check=True)
        port = free_port()
        self.agent = f"127.0.0.1:{port}"
        words = [TARGET / "debug/tallyport", "agent", "--http-listen", self.agent, "--window", "1s", "--keep", "600"]
        # Two of Micrometer's flavours have their tags in names.
        words += ["--set=statsd.tag_styles=influx,librato"]
        words += ["--admin-socket", self.directory / "admin.sock", "--state-dir", self.directory / "state"]
        self.stack.enter_context(process(*words, log=self.directory / "agent.log"))
        until("the agent is ready", lambda: get(f"http://{self.agent}/ready"))
        for version, (binary, variables) in self.servers.items():
            self.addresses[version] = self.start(version, binary, variables)
        return self

    def __exit__(self, *error):
        self.stack.close()

    def start(self, version, binary, variables):
        port, home = free_port(), self.directory / version
        home.mkdir()
        job = {"job_name": "tallyport", "honor_labels": True, "http_sd_configs": [{"url": f"http://{self.agent}/v1/sd", "refresh_interval": "1s"}]}
        (home / "prometheus.yml").write_text(json.dumps({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]}))
        words = [binary, f"--config.file={home}/prometheus.yml", f"--storage.tsdb.path={home}/tsdb", f"--web.listen-address=127.0.0.1:{port}"]
        self.stack.enter_context(process(*words, log=self.directory / f"prometheus-{version}.log", env=variables))
        until(f"Prometheus {version} is ready", lambda: get(f"http://127.0.0.1:{port}/-/ready"))
        return f"127.0.0.1:{port}"

    def reserve(self, run):
        connection = Admin(self.directory / "admin.sock")
        body = {"container_id": f"c-{run.task}", "task_id": run.task, "ttl": None, **run.annotations}
        connection.request("POST", "/v1/containers", json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise Wrong(f"no socket for {run.task}: {answer.status} {text}")
        reserved = json.loads(text)
        return {"STATSD_UDP_HOST": reserved["statsd_host"], "STATSD_UDP_PORT": str(reserved["statsd_port"])}

    def query(self, version, text):
        url = f"http://{self.addresses[version]}/api/v1/query?" + urllib.parse.urlencode({"query": text})
        try:
            answer = json.loads(get(url))
        except urllib.error.HTTPError as error:
            raise Wrong(f"{text}: {error.read().decode()}") from error
        return [(series["metric"], float(series["value"][1])) for series in answer["data"]["result"]]

    def check(self, run):
        """Runs a program, and compares the servers' values with the expected ones. Returns a line for the output."""
        home = self.directory / run.task
        home.mkdir()
        variables = self.reserve(run)
        queries = 0
        try:
            with contextlib.contextmanager(run.send)(variables, home):
                for version in self.addresses:
                    for query, value in (run.wanted if version.startswith("2.") else run.utf8).items():
                        self.expect(version, run, query, value)
                        queries += 1
        except (Missing, OSError, Wrong) as error:
            logs = "".join(f"\n--- {log.name}\n{log.read_text()[-1500:]}" for log in sorted(home.glob("*.log")))
            page = get(f"http://{self.agent}/metrics/tasks?task={urllib.parse.quote(run.task)}").decode()
            samples = "\n".join(line for line in page.split("\n") if not line.startswith("#"))
            raise Wrong(f"{run.task}: {error}{logs}\n--- the page\n{samples[-4000:]}") from error
        found = self.families(run)
        return f"{run.task}: {queries} values are correct, {len(found)} families, no name marked"

    def expect(self, version, run, query, value):
        text = query.replace("{}", f'{{task="{run.task}"}}').replace("{,", f'{{task="{run.task}",')
        near = 1e-9 if not isinstance(value, tuple) else value[1]
        wanted = value[0] if isinstance(value, tuple) else value
        last = []

        def right():
            nonlocal last
            last = self.query(version, text)
            return len(last) == 1 and abs(last[0][1] - wanted) <= near * max(1.0, abs(wanted))

        try:
            until(text, right, 30)
        except Wrong as wrong:
            raise Wrong(f"{run.task}, Prometheus {version}: {text} is {last}, not {wanted}") from wrong

    def families(self, run):
        """Every family of a task. No family or label may have a mark."""
        page = get(f"http://{self.agent}/metrics/tasks?task={urllib.parse.quote(run.task)}").decode()
        (self.directory / run.task / "page.txt").write_text(page)
        if os.environ.get("KEEP_PAGES"):
            (pathlib.Path(os.environ["KEEP_PAGES"]) / f"{run.task}.txt").write_text(page)
        families = re.findall(r"^# TYPE (\S+) ", page, re.M)
        labels = re.findall(r'[{,]([^{,="]+)="', page)
        marked = sorted({name for name in families + labels if MARK.search(name)})
        if marked:
            raise Wrong(f"{run.task}: marked names: {', '.join(marked)}")
        return families

    def check_log(self):
        own = get(f"http://{self.agent}/metrics").decode()
        for metric in ("tallyport_names_marked", "tallyport_scrape_clashes_total"):
            (value,) = re.findall(rf"^{metric} (\S+)$", own, re.M)
            if float(value):
                raise Wrong(f"{metric} is {value}")
        for version in self.addresses:
            for metric, failed in self.query(version, "min_over_time(up[10m]) == 0"):
                raise Wrong(f"Prometheus {version} could not scrape {metric}")
