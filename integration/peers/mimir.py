"""A real Mimir, all of it in one process."""

from agent import free_port
from promql import PromqlServer

RINGS = ["compactor.ring", "distributor.ring", "ingester.ring", "query-scheduler.ring", "ruler.ring", "store-gateway.sharding-ring"]


class Mimir(PromqlServer):
    """One server, whose requests need a tenant."""

    name, ready_path, patience = "mimir", "/ready", 120
    write_path, query_path = "/api/v1/push", "/prometheus/api/v1"
    headers = {"X-Scope-OrgID": "tallyport"}

    def __init__(self, directory, program):
        super().__init__(directory, program)
        self.internal_port, self.gossip_port = free_port(), free_port()

    def command(self):
        listening = [f"-server.http-listen-port={self.port}", f"-server.grpc-listen-port={self.internal_port}"]
        listening += [f"-memberlist.bind-port={self.gossip_port}"]
        listening += [f"-{key}=127.0.0.1" for key in ("server.http-listen-address", "server.grpc-listen-address", "memberlist.bind-addr")]
        # Without an address of its own, each part looks for one on the network's interfaces.
        rings = [f"-{ring}.{setting}" for ring in RINGS for setting in ("instance-addr=127.0.0.1", "store=inmemory")]
        rings += ["-query-frontend.instance-addr=127.0.0.1", "-ingester.ring.replication-factor=1"]
        rings += ["-store-gateway.sharding-ring.replication-factor=1"]
        waits = ["-ingester.ring.min-ready-duration=0s", "-ingester.ring.final-sleep=0s"]
        directories = {
            "blocks-storage.bucket-store.sync-dir": "sync",
            "blocks-storage.filesystem.dir": "blocks",
            "blocks-storage.tsdb.dir": "tsdb",
            "compactor.data-dir": "compactor",
            "ruler-storage.filesystem.dir": "rules",
            "ruler.rule-path": "ruler",
        }
        files = [f"-{key}={self.directory}/{name}" for key, name in directories.items()]
        quiet = ["-activity-tracker.filepath=", "-usage-stats.enabled=false", "-log.level=warn"]
        return [self.program, "-target=all", *listening, *rings, *waits, *files, *quiet]

    def is_ready(self):
        # /ready succeeds before Mimir answers queries.
        return super().is_ready() and self.query("vector(1)")
