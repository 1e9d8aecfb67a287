"""Kamailio with its module statsd."""

import socket
from pathlib import Path

from harness import Run, Wrong, address, debian, free_port, libraries, process, until

CONFIGURATION = """
debug=1
log_stderror=yes
fork=no
children=1
auto_aliases=no
listen=udp:127.0.0.1:{port}
mpath="{modules}"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "statsd.so"
modparam("statsd", "ip", "{host}")
modparam("statsd", "port", "{statsd}")
request_route {{
    statsd_incr("sip.options-seen");
    statsd_gauge("sip.active_calls", "7");
    statsd_set("sip.callers", "17");
    statsd_histogram("sip.body_bytes", "10");
    statsd_start("sip.route");
    statsd_stop("sip.route");
    sl_send_reply("200", "OK");
}}
"""
CALLS = 4


def options(port, number):
    head = f"OPTIONS sip:me@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5099;branch=z9hG4bK{number};rport\r\n"
    return (head + f"From: <sip:ann@localhost>;tag={number}\r\nTo: <sip:me@127.0.0.1>\r\nCall-ID: {number}@localhost\r\n"
            "CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n").encode()


def send_by(root):
    def send(variables, home):
        host, statsd = address(variables)
        port = free_port(socket.SOCK_DGRAM)
        modules = root / "usr/lib/x86_64-linux-gnu/kamailio/modules"
        (home / "kamailio.cfg").write_text(CONFIGURATION.format(port=port, modules=modules, host=host, statsd=statsd))
        words = [root / "usr/sbin/kamailio", "-f", home / "kamailio.cfg", "-DD", "-E", "-Y", home, "-m", "32", "-M", "8"]
        with process(*words, log=home / "kamailio.log", env=libraries(root)), socket.socket(type=socket.SOCK_DGRAM) as phone:
            phone.settimeout(20)

            def answers(number):
                phone.sendto(options(port, number), ("127.0.0.1", port))
                return phone.recv(4096).startswith(b"SIP/2.0 200")

            until("Kamailio listens", lambda: f":{port:04X} " in Path("/proc/net/udp").read_text())
            for number in range(CALLS):
                if not answers(number):
                    raise Wrong("Kamailio does not answer every call")
            yield

    return send


def runs():
    root = debian("kamailio", "kamailio-extra-modules")
    yield Run(
        "kamailio",
        send_by(root),
        {
            "sip_options_seen_total{}": CALLS,
            "sip_active_calls{}": 7,
            "sip_callers_unique{}": 1,
            "sip_body_bytes_count{}": CALLS,
            "sip_route_seconds_count{}": CALLS,
        },
        {'{"sip.options-seen_total",task="kamailio"}': CALLS},
    )
