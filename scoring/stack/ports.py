"""The ports of the embedded stack, all on loopback."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, field, fields
from typing import Final

import psutil

from scoring import settings
from scoring.errors import ConfigurationError

LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    """One port per server; each can be changed by an environment variable."""

    airflow: int = field(default=8080, metadata={"variable": "SCORING_AIRFLOW_PORT"})
    mlflow: int = field(default=5000, metadata={"variable": "SCORING_MLFLOW_PORT"})
    smtp: int = field(default=1025, metadata={"variable": "SCORING_SMTP_PORT"})

    @classmethod
    def from_environment(cls) -> Ports:
        """Return the ports that the environment asks for, else the usual ones.

        Raises:
            ConfigurationError: a variable is not a port.
        """
        given = settings.variables()
        chosen = {}
        for server in fields(cls):
            variable = server.metadata["variable"]
            if text := given.get(variable):
                if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
                    raise ConfigurationError(f"environment variable {variable}", "a port from 1 to 65535", repr(text))
                chosen[server.name] = int(text)
        return cls(**chosen)

    @classmethod
    def free(cls) -> Ports:
        """Return ports that nothing listens on at this moment."""
        with contextlib.ExitStack() as held:
            sockets = [held.enter_context(socket.socket()) for _ in fields(cls)]
            for one in sockets:
                one.bind((LOOPBACK, 0))
            return cls(*(one.getsockname()[1] for one in sockets))

    def named(self) -> dict[str, tuple[str, int]]:
        """Return server name to the variable that changes its port and the port."""
        return {server.name: (server.metadata["variable"], getattr(self, server.name)) for server in fields(self)}

    def check_free(self) -> None:
        """Refuse to start where another program listens.

        Raises:
            ConfigurationError: a port is taken; says by whom and which variable changes it.
        """
        for server, (variable, port) in self.named().items():
            if not is_free(port):
                raise ConfigurationError(
                    f"port {port} for {server} is taken",
                    f"a free port on {LOOPBACK}",
                    listener(port) or "another program listening",
                    f"Stop that program or choose another port: {variable}={port + 1}.",
                )


def is_free(port: int) -> bool:
    """Return whether a server could listen on a loopback port now."""
    with socket.socket() as probe:
        # As servers do: a port whose last connections are still closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def listener(port: int) -> str | None:
    """Return the program that listens on a port, as `name (process 123)`; None if the system does not tell."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return None
