"""The journal of containers and the epoch file are damaged while no agent runs; the next one uses the rest and reports it."""

from agent import check
from attack import Scenario


class DamagedState(Scenario):
    def play(self, stage):
        agent = stage.agent
        agent.start()
        containers = [stage.container("damaged") for _ in range(3)]
        agent.kill()
        journal = agent.state / "containers.journal"
        damaged = bytearray(journal.read_bytes())
        damaged[len(damaged) // 2] ^= 0xFF
        journal.write_bytes(damaged)
        agent.start()
        found = agent.containers()
        back = [one for one in containers if found.get(one.name, {}).get("state") == "listening"]
        check(back, "no container is back, though most of the journal can be read")
        if len(back) < len(containers):
            said = [line for line in agent.command("doctor").stdout.decode().splitlines() if "journal" in line]
            check(any(not line.startswith("ok") for line in said), "doctor does not report the damaged journal:", said)
        for content in (b"\xff\xfe\x00\x80", b"", b"-7"):
            agent.kill()
            (agent.state / "epoch").write_bytes(content)
            agent.start()
            check(agent.get("/health")[0] == 200, "the agent does not answer after the epoch was", content)
