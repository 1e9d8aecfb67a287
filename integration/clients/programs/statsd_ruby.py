"""statsd-ruby."""

from harness import Run, client, debian, libraries

SEND = """
require "statsd"
statsd = Statsd.new(ENV["STATSD_UDP_HOST"], ENV["STATSD_UDP_PORT"].to_i)
statsd.namespace = "shop-eu"
5.times { statsd.increment "cart.items" }
statsd.decrement "cart.items"
statsd.count "bytes_sent", 1000
statsd.gauge "pool.size", 8
statsd.timing "checkout.time", 320
statsd.set "visitors", "ann"
statsd.batch { |batch| batch.increment "batched"; batch.increment "batched" }
"""


def runs():
    root = debian("ruby-statsd")
    versions = sorted((root / "usr/lib/ruby").glob("[0-9]*")) + sorted((root / "usr/lib/x86_64-linux-gnu/ruby").glob("[0-9]*"))
    path = ":".join(map(str, [root / "usr/lib/ruby/vendor_ruby", *versions]))
    variables = {**libraries(root), "RUBYLIB": path}
    send = client(root / "usr/bin/ruby3.1", "--disable-gems", "-e", SEND, **{key: variables[key] for key in ("LD_LIBRARY_PATH", "RUBYLIB")})
    yield Run(
        "statsd-ruby",
        send,
        {
            "shop_eu_bytes_sent_total{}": 1000,
            "shop_eu_batched_total{}": 2,
            "shop_eu_pool_size{}": 8,
            "shop_eu_checkout_time_seconds_sum{}": 0.32,
            "shop_eu_visitors_unique{}": 1,
        },
        {'{"shop-eu.pool.size",task="statsd-ruby"}': 8},
    )
