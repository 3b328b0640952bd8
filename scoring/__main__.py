"""`python -m scoring` is the command `scoring`."""

from __future__ import annotations

from scoring.cli import app

if __name__ == "__main__":
    app(prog_name="scoring")
