"""Real Prometheus servers that receive remote write, and can scrape an agent."""

import json

from promql import PromqlServer


class Prometheus(PromqlServer):
    """The one of the distribution, which also scrapes `target`, if there is one, under the job `scraped`, every `interval` seconds."""

    name, package, ready_path, protocol = "prometheus", "prometheus", "/-/ready", "1.0"
    flags = ["--web.enable-remote-write-receiver"]
    scraping = {}

    def __init__(self, directory, target=None, interval=1, program="prometheus"):
        super().__init__(directory, program)
        job = {"job_name": "scraped", "metrics_path": "/metrics/tasks", "static_configs": [{"targets": [target]}], **self.scraping}
        every = {"scrape_interval": f"{interval}s", "scrape_timeout": f"{interval}s"}
        # JSON is YAML, too.
        config = {"global": every, "scrape_configs": [job] if target else []}
        (self.directory / "prometheus.yml").write_text(json.dumps(config))

    def command(self):
        files = [f"--config.file={self.directory}/prometheus.yml", f"--storage.tsdb.path={self.directory}/tsdb"]
        return [self.program, *files, f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn", *self.flags]


class Prometheus3(Prometheus):
    """One that understands remote write 2.0, and receives OTLP as well."""

    package, protocol = None, "2.0"
    flags = [*Prometheus.flags, "--web.enable-otlp-receiver"]
    # Names are pushed with underscores, so that is how they have to be scraped.
    scraping = {"metric_name_validation_scheme": "legacy"}
    increases = [*Prometheus.increases, "increase({0} anchored)"]
