"""The embedded stack: Airflow on SQLite, MLflow and an SMTP sink as processes of this machine, on loopback only.

`python -m scoring.stack up|down|status`, or as a context manager: `with Stack(home, Ports.free()) as stack: ...`.
"""

from scoring.stack.embedded import Stack
from scoring.stack.environment import environment
from scoring.stack.ports import Ports

__all__ = ["Ports", "Stack", "environment"]
