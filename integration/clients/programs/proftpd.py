"""ProFTPD with mod_statsd."""

import ftplib
import getpass
import grp
import os

from harness import Run, address, debian, free_port, libraries, listens, process, until

CONFIGURATION = """
ServerType standalone
ModulePath {modules}
LoadModule mod_statsd.c
UseIPv6 off
DefaultAddress 127.0.0.1
Port {port}
PidFile {home}/proftpd.pid
ScoreboardFile {home}/scoreboard
DelayEngine off
WtmpLog off
TransferLog none
SystemLog {home}/proftpd.system.log
User {user}
Group {group}
StatsdEngine on
StatsdServer udp://{host}:{statsd}
<Anonymous {home}/files>
  User {user}
  Group {group}
  UserAlias anonymous {user}
  RequireValidShell off
  AnonRequirePassword off
  RootLogin on
</Anonymous>
"""


def send_by(root):
    def send(variables, home):
        (home / "files").mkdir()
        host, statsd = address(variables)
        port = free_port()
        values = {"modules": root / "usr/lib/proftpd", "port": port, "home": home, "user": getpass.getuser()}
        values |= {"group": grp.getgrgid(os.getgid()).gr_name, "host": host, "statsd": statsd}
        (home / "proftpd.conf").write_text(CONFIGURATION.format(**values))
        words = [root / "usr/sbin/proftpd", "--nodaemon", "--config", home / "proftpd.conf"]
        with process(*words, log=home / "proftpd.log", env=libraries(root)):
            until("ProFTPD listens", lambda: listens(port))
            with ftplib.FTP() as ftp:
                ftp.connect("127.0.0.1", port)
                for _ in range(3):
                    ftp.voidcmd("NOOP")
                ftp.sendcmd("SYST")
            yield

    return send


def runs():
    root = debian("proftpd-mod-statsd")
    yield Run(
        "proftpd",
        send_by(root),
        {
            "command_NOOP_200_total{}": 3,
            "command_NOOP_200_seconds_count{}": 3,
            "command_SYST_215_total{}": 1,
            # Plus one and minus one for each session.
            "connection{}": 0,
        },
        {'{"command.NOOP.200_total",task="proftpd"}': 3},
    )
