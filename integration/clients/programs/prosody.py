"""Prosody with its statistics."""

import getpass
import socket

from harness import Run, address, debian, free_port, libraries, listens, process, until

CONFIGURATION = """
pidfile = "{home}/prosody.pid"
data_path = "{home}/data"
run_as_root = true
prosody_user = "{user}"
log = {{ info = "{home}/prosody.info.log" }}
modules_enabled = {{ "c2s" }}
modules_disabled = {{ "s2s", "tls" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {port} }}
c2s_require_encryption = false
statistics = "statsd"
statistics_interval = 1
statistics_config = {{ statsd_server = "{host}", statsd_port = {statsd} }}
VirtualHost "localhost"
"""

HELLO = b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='localhost' version='1.0'>"


def send_by(root):
    def send(variables, home):
        (home / "data").mkdir()
        host, statsd = address(variables)
        port = free_port()
        values = {"home": home, "user": getpass.getuser(), "host": host, "statsd": statsd, "port": port}
        (home / "prosody.cfg.lua").write_text(CONFIGURATION.format(**values))
        lib, share = root / "usr/lib", root / "usr/share/lua/5.4"
        variables = libraries(root)
        variables["LUA_PATH"] = f"{share}/?.lua;{share}/?/init.lua;{lib}/prosody/?.lua"
        variables["LUA_CPATH"] = f"{lib}/x86_64-linux-gnu/lua/5.4/?.so;{lib}/prosody/?.so"
        start = home / "start.lua"
        text = (root / "usr/bin/prosody").read_text()
        start.write_text("\n".join(text.split("\n")[1:]).replace("/usr/lib/prosody", f"{lib}/prosody"))
        words = [root / "usr/bin/lua5.4", start, "--config", home / "prosody.cfg.lua", "-F"]
        with process(*words, log=home / "prosody.log", env=variables):
            until("Prosody listens", lambda: listens(port))
            with socket.create_connection(("127.0.0.1", port)) as stream:
                stream.sendall(HELLO)
                assert b"stream" in stream.recv(4096)
                yield

    return send


def runs():
    root = debian("prosody")
    yield Run(
        "prosody",
        send_by(root),
        {
            "sgn(prosody_prosody_stats_collection_seconds_count_total{})": 1,
            # Everything is within the last bucket, and nearly everything within ten seconds.
            "prosody_prosody_stats_collection_seconds_count_total{} - prosody_prosody_stats_collection_seconds_bucket__Inf_total{}": 0,
            "prosody_prosody_stats_collection_seconds_count_total{} - prosody_prosody_stats_collection_seconds_bucket_10_total{}": 0,
        },
        {'count({__name__=~"prosody.+",task="prosody"}) > bool 5': 1},
    )
