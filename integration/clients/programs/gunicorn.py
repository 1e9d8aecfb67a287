"""gunicorn with its own instrumentation."""

import os
import sys

from harness import Run, address, free_port, get, listens, process, pypi, until

REQUESTS = 12
APPLICATION = """
def application(environ, start_response):
    start_response("200 OK", [("content-type", "text/plain")])
    return [b"well"]
"""


def send_by(path):
    def send(variables, home):
        (home / "web.py").write_text(APPLICATION)
        host, port = address(variables)
        front = free_port()
        words = [sys.executable, "-m", "gunicorn", "--workers", "1", "--bind", f"127.0.0.1:{front}"]
        words += ["--statsd-host", f"{host}:{port}", "--statsd-prefix", "shop", "web:application"]
        with process(*words, log=home / "gunicorn.log", cwd=home, env={**os.environ, "PYTHONPATH": str(path)}):
            until("gunicorn listens", lambda: listens(front))
            for _ in range(REQUESTS):
                get(f"http://127.0.0.1:{front}/")
            yield

    return send


def runs():
    yield Run(
        "gunicorn",
        send_by(pypi("gunicorn")),
        {
            "shop_gunicorn_requests_total{}": REQUESTS,
            "shop_gunicorn_request_status_200_total{}": REQUESTS,
            "shop_gunicorn_request_duration_seconds_count{}": REQUESTS,
            "shop_gunicorn_workers{}": 1,
        },
        {'{"shop.gunicorn.requests_total",task="gunicorn"}': REQUESTS},
    )
