"""Readers that continue while agents are restarted: one that follows the cursor of closed windows, and a Prometheus."""

import http.client
import json
import subprocess
import threading
import time
import urllib.parse
import urllib.request

from agent import free_port, interval, until


class Reader(threading.Thread):
    """Follows the sequence of closed windows, and notes every readable record with the time it was first seen."""

    def __init__(self, agent):
        super().__init__(daemon=True)
        self.agent, self.seen, self.failed, self.ends = agent, {}, 0, threading.Event()

    def run(self):
        cursor = None
        while not self.ends.wait(0.02):
            try:
                cursor = self.follow(cursor)
            except (OSError, http.client.HTTPException, ValueError):
                # No agent is running.
                self.failed, cursor = self.failed + 1, None

    def follow(self, cursor):
        if cursor is None:
            return self.agent.get("/v1/node")[1]["cursor"]
        status, answer = self.agent.get(f"/v1/metrics?since={cursor}")
        if status != 200:
            return None
        for record in answer["metrics"]:
            value, now = record["agg"].get("sum", record.get("value")), time.monotonic()
            key = interval(record)
            if self.seen.get(key, (None,))[0] != value:
                self.seen[key] = (value, now, record["partial"])
        return answer["cursor"]

    def end(self):
        self.ends.set()
        self.join()


class Prometheus:
    """A real server that scrapes every second, and the sums of its counters."""

    def __init__(self, directory, agent):
        self.address = "127.0.0.1:%d" % free_port()
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{
                "job_name": "tallyport", "honor_labels": True, "metrics_path": "/metrics/tasks",
                "static_configs": [{"targets": ["%s:%d" % agent.address]}],
            }],
        }
        (directory / "prometheus.yml").write_text(json.dumps(config))
        command = ["prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/tsdb"]
        command += [f"--web.listen-address={self.address}"]
        with open(directory / "prometheus.log", "w") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until("Prometheus is ready", self.is_ready)

    def is_ready(self):
        try:
            return urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5).status == 200
        except OSError:
            return False

    def query(self, text):
        url = f"http://{self.address}/api/v1/query?" + urllib.parse.urlencode({"query": text})
        return json.loads(urllib.request.urlopen(url, timeout=60).read())["data"]["result"]

    def counted(self, names):
        """The total of each series of these counters, by task and name. It is computed like `increase`, but without
        extrapolation at both ends: from zero on, and from zero again after a reset."""
        counted, resets = {}, 0
        for series in self.query(f'{{__name__=~"{names}"}}[1d]'):
            total = last = 0.0
            for _, text in series["values"]:
                value = float(text)
                resets += value < last
                total, last = total + (value if value < last else value - last), value
            key = (series["metric"]["task"], series["metric"]["__name__"])
            counted[key] = counted.get(key, 0.0) + total
        return counted, resets

    def increase(self, names):
        """The result of `increase` for each series of these counters, by task and name."""
        return {
            (series["metric"]["task"], name): float(series["value"][1])
            for name in names
            for series in self.query(f"increase({name}[1d])")
        }

    def end(self):
        self.process.terminate()
        self.process.wait()
