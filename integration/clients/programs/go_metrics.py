"""HashiCorp's go-metrics with both of its sinks."""

from harness import Run, client, go


def runs():
    program = go("github.com/hashicorp/go-metrics@v0.5.4", "go/go_metrics.go")
    yield Run(
        "go-metrics-statsd",
        client(program, "statsd"),
        {
            "shop_cart_items_total{}": 5,
            "shop_pool_size{}": 8,
            "shop_checkout_time_seconds_sum{}": 0.25,
        },
        {'{"shop.cart.items_total",task="go-metrics-statsd"}': 5},
    )
