"""Net::Statsd for Perl."""

from harness import Run, client, debian

SEND = r"""
use Net::Statsd;
$Net::Statsd::HOST = $ENV{STATSD_UDP_HOST};
$Net::Statsd::PORT = $ENV{STATSD_UDP_PORT};
Net::Statsd::increment("site.logins") for 1 .. 5;
Net::Statsd::update_stats("site.pages_shown", 12);
Net::Statsd::gauge("core.temperature", 55);
Net::Statsd::timing("site.search_time", 250);
"""


def runs():
    root = debian("libnet-statsd-perl")
    yield Run(
        "net-statsd",
        client("perl", f"-I{root}/usr/share/perl5", "-e", SEND),
        {
            "site_logins_total{}": 5,
            "site_pages_shown_total{}": 12,
            "core_temperature{}": 55,
            "site_search_time_seconds_sum{}": 0.25,
        },
        {'{"site.pages_shown_total",task="net-statsd"}': 12, '{"core.temperature",task="net-statsd"}': 55},
    )
