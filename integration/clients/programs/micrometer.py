"""Micrometer's StatsD registry in its four flavours."""

from harness import HERE, Run, client, maven


def wanted(flavour):
    if flavour == "etsy":
        # Tags are parts of the name there.
        return {
            "shopOrders_region_eu_statistic_count_total{}": 5,
            "shopPoolSize_region_eu_statistic_value{}": 8,
            "shopBody_region_eu_sum{}": 40,
            "shopCheckout_region_eu_seconds_sum{}": 0.25,
        }
    return {
        'shop_orders_total{,region="eu",statistic="count"}': 5,
        'shop_pool_size{,region="eu",statistic="value"}': 8,
        'shop_body_sum{,region="eu"}': 40,
        'shop_checkout_seconds_sum{,region="eu"}': 0.25,
    }


def runs():
    path = maven("io.micrometer:micrometer-registry-statsd:1.15.0")
    for flavour in ("etsy", "datadog", "telegraf", "sysdig"):
        task = f"micrometer-{flavour}"
        name = {"etsy": "shopOrders.region.eu.statistic.count_total", "telegraf": "shop_orders_total"}.get(flavour, "shop.orders_total")
        send = client("java", "-cp", path, HERE / "java/Each.java", flavour)
        yield Run(task, send, wanted(flavour), {f'{{"{name}",task="{task}"}}': 5})
