"""A real OpenTelemetry Collector that receives StatsD and writes to a Prometheus, on loopback."""

import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "common"))
from agent import Failed, free_port, until  # noqa: E402


class StatsdCollector:
    """One collector. `program` must have the receiver `statsd`, the processor `deltatocumulative`, and the exporter
    `prometheusremotewrite`, which refuses what is not cumulative."""

    def __init__(self, directory, program, url, window):
        self.directory, self.program, self.port, self.process = pathlib.Path(directory), program, free_port(), None
        timers = [{"statsd_type": "timing", "observer_type": "summary"}]
        receiver = {"endpoint": f"127.0.0.1:{self.port}", "aggregation_interval": f"{window}s", "timer_histogram_mapping": timers}
        pipeline = {"receivers": ["statsd"], "processors": ["deltatocumulative"], "exporters": ["prometheusremotewrite"]}
        config = {
            "receivers": {"statsd": receiver},
            "processors": {"deltatocumulative": {"max_streams": 1_000_000}},
            "exporters": {"prometheusremotewrite": {"endpoint": f"{url}/api/v1/write"}},
            "service": {"pipelines": {"metrics": pipeline}, "telemetry": {"metrics": {"level": "none"}}},
        }
        # JSON is YAML, too.
        (self.directory / "collector.yaml").write_text(json.dumps(config))

    def is_listening(self):
        if self.process.poll() is not None:
            raise Failed("the collector ended: " + (self.directory / "collector.log").read_text()[-2000:])
        return f":{self.port:04X} " in pathlib.Path("/proc/net/udp").read_text()

    def start(self):
        with open(self.directory / "collector.log", "w") as log:
            command = [self.program, f"--config={self.directory}/collector.yaml"]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until("the collector listens", self.is_listening)

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(30)
