"""The client of Datadog for Python, an old version and a new one."""

import sys

from harness import HERE, Run, client, pypi


def runs():
    every = {
        "dd_jobs_done_total{,queue=\"mail\"}": 7,
        "dd_queue_depth{}": 12,
        "dd_body_bytes_sum{}": 40,
        "dd_body_bytes_count{}": 2,
        "dd_spread_distribution_count{}": 3,
        "dd_request_time_seconds_sum{}": 0.32,
        "dd_users_unique{}": 2,
    }
    for version in ("0.49.1", "0.56.0"):
        task = f"datadog-{version}"
        path = pypi(f"datadog=={version}")
        utf8 = {f'{{"dd.jobs-done_total",task="{task}",queue="mail"}}': 7, f'{{"dd.queue.depth",task="{task}"}}': 12}
        yield Run(task, client(sys.executable, HERE / "python/datadog_each.py", PYTHONPATH=str(path)), every, utf8)
