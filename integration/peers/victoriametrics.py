"""A real VictoriaMetrics of a single node."""

import json

from promql import PromqlServer


class VictoriaMetrics(PromqlServer):
    """One server, which also scrapes `target` under the job `scraped`."""

    name, ready_path = "victoriametrics", "/health"
    protocol, refuses = "1.0", False
    increases = [*PromqlServer.increases, "increase({0})"]

    def __init__(self, directory, target, program):
        super().__init__(directory, program)
        job = {"job_name": "scraped", "metrics_path": "/metrics/tasks", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
        # JSON is YAML, too.
        (self.directory / "scrape.yml").write_text(json.dumps({"scrape_configs": [job]}))

    def command(self):
        files = [f"-storageDataPath={self.directory}/data", f"-promscrape.config={self.directory}/scrape.yml"]
        # Otherwise queries are answered for half a minute ago.
        flags = ["-search.latencyOffset=1ms", "-dedup.minScrapeInterval=1ms", "-loggerLevel=WARN"]
        return [self.program, *files, f"-httpListenAddr=127.0.0.1:{self.port}", *flags]
