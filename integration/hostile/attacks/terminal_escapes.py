"""Names, tags, labels and bad lines contain terminal escape sequences; no command may pass them on."""

from agent import check, until
from attack import Scenario

# Sets the title, sets the clipboard, rings the bell, clears the screen with a C1 control, and reverses the line.
HOSTILE = "a\x1b]0;t\x07\x1b]52;c;aGk=\x07\x9b2J\x7f\0\u202eb"
COMMANDS = [
    ["tasks"], ["containers", "list"], ["doctor"], ["metrics", "details", "TASK"], ["metrics", "summary", "TASK"],
    ["explain", "TASK"], ["explain", "TASK", "hits"], ["metrics", "details", "TASK", "--json"],
]


class TerminalEscapes(Scenario):
    def play(self, stage):
        stage.agent.start()
        container = stage.container("escapes", labels={"note": HOSTILE})
        container.send(f"hits:3|c|#tag:{HOSTILE}\nbad{HOSTILE}\n{HOSTILE}:1|c".encode())
        until("a window is closed", lambda: stage.agent.records(container.name))
        for command in COMMANDS:
            ran = stage.agent.command(*[container.name if word == "TASK" else word for word in command])
            said = (ran.stdout + ran.stderr).decode(errors="surrogateescape")
            obeyed = {char for char in said if (not char.isprintable() and char != "\n") or char == "\u202e"}
            check(not obeyed, "tallyport", *command, "prints", sorted(map(ascii, obeyed)))
