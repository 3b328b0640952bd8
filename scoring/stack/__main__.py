"""`python -m scoring.stack up|down|status`: what `make up` and `make down` call."""

from __future__ import annotations

import sys

from scoring import settings
from scoring.errors import EXIT_CONFIGURATION, EXIT_DONE, ScoringError
from scoring.stack import processes
from scoring.stack.embedded import Stack, say

USAGE = "usage: python -m scoring.stack up|down|status"


def up() -> int:
    """Start the stack unless it runs, and say where everything is."""
    stack = _recorded()
    if stack.running():
        say("the stack is already running")
    else:
        stack = Stack()
        say(f"starting Airflow, MLflow and the SMTP sink; state and logs are in {stack.home}")
        stack.start()
    print(addresses(stack))
    return EXIT_DONE


def down() -> int:
    """Stop the stack; fine where nothing runs."""
    stopped = _recorded().stop()
    print(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")
    return EXIT_DONE


def status() -> int:
    """Say which servers run."""
    stack = _recorded()
    running = stack.running()
    print(
        f"running: {', '.join(running)}\n{addresses(stack)}" if running else "nothing is running. Start with: make up"
    )
    return EXIT_DONE


def addresses(stack: Stack) -> str:
    """Return where people find the stack's parts."""
    return "\n".join(
        (
            f"Airflow  {stack.airflow_url}  user {stack.username}, password {stack.password}",
            f"MLflow   {stack.mlflow_url}",
            f"Mails    {stack.mails_folder} (SMTP on port {stack.smtp_port})",
            f"Logs     {stack.logs_folder}",
        )
    )


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    commands = {"up": up, "down": down, "status": status}
    if len(arguments) != 1 or arguments[0] not in commands:
        say(USAGE)
        return EXIT_CONFIGURATION
    try:
        return commands[arguments[0]]()
    except ScoringError as error:
        say(str(error))
        return error.exit_code


def _recorded() -> Stack:
    """Return the stack of this home on the ports it was started with."""
    home = settings.home()
    record = processes.load(home / "stack.json")
    return Stack(home, record.ports if record is not None else None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
