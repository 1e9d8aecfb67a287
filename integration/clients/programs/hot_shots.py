"""hot-shots for Node.js, an old version and a new one."""

from harness import HERE, Run, client, npm


def runs():
    every = {
        "hs_jobs_done_total{,queue=\"mail\"}": 4,
        "hs_queue_depth{}": 12,
        "hs_body_bytes_sum{}": 40,
        "hs_spread_distribution_count{}": 1,
        "hs_request_time_seconds_sum{}": 0.32,
        "hs_users_unique{}": 2,
    }
    for version in ("9", "17"):
        task = f"hot-shots-{version}"
        modules = npm(f"hot-shots@{version}") / "node_modules"
        send = client("node", HERE / "node/hot_shots_each.js", NODE_PATH=str(modules))
        yield Run(task, send, every, {f'{{"hs.jobs.done_total",task="{task}",queue="mail"}}': 4})
