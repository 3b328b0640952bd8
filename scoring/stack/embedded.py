"""Starts and stops the embedded stack, and waits until it answers."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from scoring import settings
from scoring.errors import ConfigurationError, ScoringError, TransientError
from scoring.stack import health, processes, secrets
from scoring.stack.environment import PROJECT, airflow_url, environment, mlflow_url
from scoring.stack.ports import LOOPBACK, Ports
from scoring.stack.processes import Record, ServerProcess

DEADLINE_S: Final = 300.0
POLL_S: Final = 0.5
SILENCE_S: Final = 10.0
"""At most this long without a progress line."""
LOG_LINES: Final = 8
MIGRATION: Final = "airflow-db"


@dataclass(frozen=True, slots=True)
class Server:
    """How one server is started and how to tell that it is ready."""

    name: str
    command: tuple[str, ...]
    is_ready: Callable[[], bool]


def say(text: str) -> None:
    """Print a progress line; stdout is for results."""
    print(text, file=sys.stderr, flush=True)


class Stack:
    """Airflow, MLflow and the SMTP sink of one `$SCORING_HOME`; a context manager that starts and stops them."""

    def __init__(
        self, home: Path | None = None, ports: Ports | None = None, *, report: Callable[[str], None] = say
    ) -> None:
        self.home: Final = (home or settings.home()).absolute()
        self.ports: Final = ports or Ports.from_environment()
        self._report = report
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    # ------------------------------------------------------------------------------------------------ where things are

    @property
    def airflow_url(self) -> str:
        """Address of Airflow's UI and REST API."""
        return airflow_url(self.ports)

    @property
    def mlflow_url(self) -> str:
        """Address of MLflow's UI."""
        return mlflow_url(self.ports)

    @property
    def smtp_port(self) -> int:
        """Loopback port of the SMTP sink."""
        return self.ports.smtp

    @property
    def username(self) -> str:
        """Name to log in to Airflow with."""
        return secrets.USERNAME

    @property
    def password(self) -> str:
        """Password to log in to Airflow with; generated once per home."""
        return secrets.load(self.home / "airflow").password

    @property
    def mails_folder(self) -> Path:
        """Folder where the sink keeps every mail as `.eml`."""
        return self.home / "mails"

    @property
    def logs_folder(self) -> Path:
        """Folder with one log per server."""
        return self.home / "logs"

    @property
    def record_file(self) -> Path:
        """File that says which processes were started."""
        return self.home / "stack.json"

    def environment(self) -> dict[str, str]:
        """Return the environment of the servers and their tasks."""
        return environment(self.home, self.ports)

    # ------------------------------------------------------------------------------------------------------- life

    def running(self) -> tuple[str, ...]:
        """Return the names of the servers of this home that run."""
        record = processes.load(self.record_file)
        return () if record is None else tuple(server.name for server in record.running())

    def start(self) -> None:
        """Start every server and wait until all of them answer.

        Raises:
            ConfigurationError: the stack already runs, or a port is taken.
            TransientError: a server ended or did not answer in time; everything is stopped again.
        """
        if running := self.running():
            raise ConfigurationError(
                f"the stack of {str(self.home)!r} is already running",
                "none",
                ", ".join(running),
                "Use it, or stop it with `make down`.",
            )
        self.ports.check_free()
        for folder in (self.home, self.logs_folder, self.mails_folder, self.home / "artifacts"):
            folder.mkdir(parents=True, exist_ok=True)
        for old in self.logs_folder.glob("*.log"):
            old.unlink()
        variables = self.environment()
        deadline = time.monotonic() + DEADLINE_S
        try:
            waiting = [self._start(server, variables) for server in (*self._services(), self._migration())]
            self._wait([server for server in waiting if server.name == MIGRATION], deadline)
            _allow_reading_while_writing(self.home / "airflow" / "airflow.db")
            waiting = [server for server in waiting if server.name != MIGRATION]
            waiting += [self._start(server, variables) for server in self._airflow()]
            self._wait(waiting, deadline)
            _allow_reading_while_writing(self.home / "mlflow.db")
        except BaseException:  # also on Ctrl-C nothing may be left behind
            self.stop()
            raise

    def stop(self) -> tuple[str, ...]:
        """Stop what runs and return the names of what was stopped; nothing happens where nothing runs."""
        record = processes.load(self.record_file)
        running = () if record is None else record.running()
        processes.stop(running)
        for child in self._children.values():
            child.wait(timeout=processes.GRACE_S)
        self._children.clear()
        self.record_file.unlink(missing_ok=True)
        return tuple(server.name for server in running)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # ---------------------------------------------------------------------------------------------------- servers

    def _services(self) -> tuple[Server, ...]:
        store = f"sqlite:///{self.home / 'mlflow.db'}"
        mlflow = (*_module("mlflow", "server", "--host", LOOPBACK, "--port", self.ports.mlflow, "--workers", 1),)
        mlflow += ("--backend-store-uri", store, "--registry-store-uri", store)
        mlflow += ("--default-artifact-root", (self.home / "artifacts").as_uri(), "--no-serve-artifacts")
        return (
            Server(
                "smtp",
                _module("scoring.stack.mail_sink", self.ports.smtp, self.mails_folder),
                lambda: health.answers_smtp(self.ports.smtp),
            ),
            Server("mlflow", mlflow, lambda: health.answers_http(f"{self.mlflow_url}/health")),
        )

    def _migration(self) -> Server:
        return Server(MIGRATION, _module("airflow", "db", "migrate"), self._has_migrated)

    def _has_migrated(self) -> bool:
        code = self._children[MIGRATION].poll()
        if code == 0:
            self._forget(MIGRATION)
        return code == 0

    def _airflow(self) -> tuple[Server, ...]:
        def beats(part: str) -> Callable[[], bool]:
            return lambda: health.airflow_part_is_healthy(self.airflow_url, part)

        api = _module("airflow", "api-server", "--host", LOOPBACK, "--port", self.ports.airflow, "--workers", 1)
        return (
            Server("api-server", api, lambda: health.answers_http(f"{self.airflow_url}/api/v2/version")),
            # No log servers: they would listen beyond loopback, and the API server reads the same files.
            Server("scheduler", _module("airflow", "scheduler", "--skip-serve-logs"), beats("scheduler")),
            Server("dag-processor", _module("airflow", "dag-processor"), beats("dag_processor")),
            Server("triggerer", _module("airflow", "triggerer", "--skip-serve-logs"), beats("triggerer")),
        )

    def _start(self, server: Server, variables: Mapping[str, str]) -> Server:
        process, popen = processes.start(
            server.name, server.command, environment=variables, folder=PROJECT, log=self._log(server.name)
        )
        self._children[server.name] = popen
        self._record(lambda servers: (*servers, process))
        return server

    def _forget(self, name: str) -> None:
        self._children.pop(name)
        self._record(lambda servers: tuple(server for server in servers if server.name != name))

    def _record(self, change: Callable[[tuple[ServerProcess, ...]], tuple[ServerProcess, ...]]) -> None:
        record = processes.load(self.record_file) or Record(self.ports)
        Record(self.ports, change(record.servers if record.ports == self.ports else ())).save(self.record_file)

    def _log(self, name: str) -> Path:
        return self.logs_folder / f"{name}.log"

    def _wait(self, servers: list[Server], deadline: float) -> None:
        started = last_said = time.monotonic()
        waiting = {server.name: server for server in servers}
        while waiting:
            for server in [server for server in waiting.values() if server.is_ready()]:
                del waiting[server.name]
                last_said = time.monotonic()
                self._report(f"{server.name} is ready ({last_said - started:.0f} s)")
            for name, server in waiting.items():
                if (code := self._children[name].poll()) is not None and not server.is_ready():
                    raise self._failure(name, f"an end with exit code {code}")
            if waiting and time.monotonic() >= deadline:
                raise self._failure(next(iter(waiting)), f"no answer within {DEADLINE_S:.0f} s")
            if waiting and time.monotonic() - last_said >= SILENCE_S:
                last_said = time.monotonic()
                self._report(f"waiting for {', '.join(waiting)} ({last_said - started:.0f} s)")
            time.sleep(POLL_S if waiting else 0)

    def _failure(self, name: str, got: str) -> ScoringError:
        log = self._log(name)
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:])
        return TransientError(f"{name} did not start", "an answer", got, f"Its log {log} ends with:\n{tail}")


def _module(name: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-m", name, *map(str, arguments))


def _allow_reading_while_writing(database: Path) -> None:
    """Switch a SQLite file to its write-ahead log: the UI's reads then do not hold up the tasks' writes."""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
