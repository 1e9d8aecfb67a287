"""One of each type by `datadog.statsd`, for scripts/e2e-clients."""

import os

from datadog import initialize, statsd

initialize(
    statsd_host=os.environ["STATSD_UDP_HOST"],
    statsd_port=int(os.environ["STATSD_UDP_PORT"]),
    statsd_disable_buffering=True,
)
statsd.disable_telemetry()
statsd.increment("dd.jobs-done", 5, tags=["queue:mail"])
statsd.increment("dd.jobs-done", 2, tags=["queue:mail"])
statsd.gauge("dd.queue.depth", 12)
for value in (10, 30):
    statsd.histogram("dd.body.bytes", value)
for value in (0.5, 0.7, 2):
    statsd.distribution("dd.spread", value)
statsd.timing("dd.request_time", 320)
for user in ("ann", "bob", "ann"):
    statsd.set("dd.users", user)
