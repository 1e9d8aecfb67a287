"""The configuration is emptied and reloaded by mistake: clients without a token still cannot read."""

from agent import check
from attack import Scenario

TOKEN = "0123456789-abcdef"


class ReloadWithoutTokens(Scenario):
    def prepare(self, directory):
        self.config, tokens = directory / "agent.toml", directory / "tokens"
        tokens.write_text(TOKEN + "\n")
        tokens.chmod(0o600)
        self.config.write_text(f'[http]\ntokens = "{tokens}"\n')
        return "--config", str(self.config)

    def play(self, stage):
        agent = stage.agent
        agent.start()
        check(agent.get("/v1/tasks")[0] == 401, "the agent can be read without a token from the start")
        self.config.write_text("")
        status, answer = agent.admin("POST", "/v1/config/reload")
        check(400 <= status < 500, "a reload that drops the tokens was answered with", status, answer)
        check(agent.get("/v1/tasks")[0] == 401, "after the reload the agent can be read without a token")
        check(agent.get("/health")[0] == 200, "the agent no longer answers")
