"""The processes of a stack: started detached, written down, found again by process id and start time, stopped."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from scoring.errors import ConfigurationError
from scoring.stack.ports import Ports

FORMAT_VERSION: Final = 1
START_TIME_TOLERANCE_S: Final = 2.0
"""The system's clock may be set between two readings of the same start time."""
GRACE_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """One server as it was started; a process id alone may be another program's by now."""

    name: str
    pid: int
    started: float

    def find(self) -> psutil.Process | None:
        """Return the running process; None when it is gone."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) <= START_TIME_TOLERANCE_S
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


@dataclass(frozen=True, slots=True)
class Record:
    """What `up` started, kept in `$SCORING_HOME/stack.json` until `down`."""

    ports: Ports
    servers: tuple[ServerProcess, ...] = ()

    def running(self) -> tuple[ServerProcess, ...]:
        """Return the servers that still run."""
        return tuple(server for server in self.servers if server.find() is not None)

    def save(self, file: Path) -> None:
        """Write the record, complete or not at all."""
        document = {
            "format_version": FORMAT_VERSION,
            "ports": asdict(self.ports),
            "servers": [asdict(server) for server in self.servers],
        }
        unfinished = file.with_suffix(".part")
        unfinished.write_text(json.dumps(document, indent=2), encoding="utf-8")
        unfinished.replace(file)


def load(file: Path) -> Record | None:
    """Return the record; None where nothing was started.

    Raises:
        ConfigurationError: the file was written by another version of scoring, or is damaged.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["format_version"] != FORMAT_VERSION:
            raise ConfigurationError(
                f"stack record {str(file)!r}",
                f"format_version {FORMAT_VERSION}",
                str(document["format_version"]),
                "Run `down` of the version that started it.",
            )
        return Record(Ports(**document["ports"]), tuple(ServerProcess(**server) for server in document["servers"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"stack record {str(file)!r}",
            "a JSON document with ports and servers",
            type(error).__name__,
            "Stop the servers by hand and delete the file.",
        ) from error


def start(
    name: str, command: Sequence[str], *, environment: Mapping[str, str], folder: Path, log: Path
) -> tuple[ServerProcess, subprocess.Popen[bytes]]:
    """Start a server that outlives this process; its words go to `log`."""
    with log.open("ab") as opened:
        popen = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=opened,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return ServerProcess(name, popen.pid, psutil.Process(popen.pid).create_time()), popen


def stop(servers: Iterable[ServerProcess]) -> None:
    """Ask the servers to end, then end what is left of them and of the tasks they had started."""
    parents = [process for server in servers if (process := server.find()) is not None]
    family = {process.pid: process for parent in parents for process in (parent, *_children(parent))}
    for parent in parents:
        _signal(parent, "terminate")
    _, left = psutil.wait_procs(parents, timeout=GRACE_S)
    family |= {process.pid: process for parent in left for process in _children(parent)}
    remaining = [process for process in family.values() if process.is_running()]
    for process in remaining:
        _signal(process, "kill")
    psutil.wait_procs(remaining, timeout=GRACE_S)


def _children(parent: psutil.Process) -> list[psutil.Process]:
    try:
        return list(parent.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _signal(process: psutil.Process, verb: str) -> None:
    try:
        getattr(process, verb)()
    except psutil.NoSuchProcess:
        return
