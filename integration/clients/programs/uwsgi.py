"""uWSGI with its pusher of statistics."""

from harness import Run, address, debian, free_port, libraries, listens, process, until


def send_by(root):
    def send(variables, home):
        host, statsd = address(variables)
        front = free_port()
        plugins = root / "usr/lib/uwsgi/plugins"
        words = [root / "usr/bin/uwsgi-core", "--plugin-dir", plugins, "--plugin", "stats_pusher_statsd", "--master"]
        words += ["--http-socket", f"127.0.0.1:{front}"]
        words += ["--stats-push", f"statsd:{host}:{statsd},shop", "--stats-pusher-default-freq", "1", "--processes", "1", "--no-default-app"]
        with process(*words, log=home / "uwsgi.log", env=libraries(root), cwd=home):
            until("uWSGI listens", lambda: listens(front))
            yield

    return send


def runs():
    root = debian("uwsgi-core")
    yield Run(
        "uwsgi",
        send_by(root),
        {
            "shop_core_idle_workers{}": 1,
            "shop_worker_0_rss_size{}": 0,
            # It sends the total every second, not the increase. One start of its worker is sent as 1 each time.
            "sgn(shop_worker_1_respawns_total{})": 1,
            "sgn(idelta(shop_worker_1_respawns_total{}[10s]))": 1,
        },
        {'{"shop.core.idle_workers",task="uwsgi"}': 1},
    )
