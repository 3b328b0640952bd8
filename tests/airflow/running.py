"""A real Airflow for tests: its own home, SQLite, loopback only, free ports, everybody is admin."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

PROJECT = Path(__file__).parents[2]
PLUGINS = PROJECT / "plugins"
COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
START_TIMEOUT_S = 180
STOP_TIMEOUT_S = 20


class StartAirflow(Protocol):
    """Starts one Airflow; `environment` is added to its processes' environment."""

    def __call__(self, environment: Mapping[str, str], *, dags: Path = ...) -> RunningAirflow: ...


@dataclass
class RunningAirflow:
    """A running Airflow."""

    home: Path
    url: str
    """Address of UI and REST API, without a trailing slash."""
    environment: Mapping[str, str]
    """The whole environment of its processes."""
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON answer of the REST API (`path` is below `/api/v2/`, or starts with `/`)."""
        address = self.url + (path if path.startswith("/") else f"/api/v2/{path}")
        data = None if body is None else json.dumps(body).encode("utf-8")
        headers = {"Authorization": f"Bearer {self.token()}", "Content-Type": "application/json"}
        request = urllib.request.Request(address, data=data, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", "replace")
            raise AssertionError(f"{method} {path}: {error.code} {text}") from None
        return json.loads(content) if content else None

    def token(self) -> str:
        """Return an access token of the admin that everybody is."""
        with urllib.request.urlopen(f"{self.url}/auth/token", timeout=30) as answer:
            token: str = json.load(answer)["access_token"]
        return token

    def wait_for(self, what: str, condition: Callable[[], Any], timeout_s: float = 180) -> Any:
        """Return the first true value of `condition()`; fail with the components' logs when none comes in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self._check_alive()
            found = condition()
            if found:
                return found
            time.sleep(0.5)
        raise AssertionError(f"{what}: not within {timeout_s} s\n{self.logs()}")

    def wait_for_dag(self, dag_id: str, timeout_s: float = 180) -> Any:
        """Wait until the Dag processor has stored a Dag; unpause it and return its REST representation."""

        def stored() -> Any:
            found = self.api("GET", f"dags?dag_id_pattern={dag_id}&exclude_stale=true")["dags"]
            return next((dag for dag in found if dag["dag_id"] == dag_id), None)

        self.wait_for(f"Dag {dag_id}", stored, timeout_s)
        return self.api("PATCH", f"dags/{dag_id}", {"is_paused": False})

    def trigger(self, dag_id: str, *, partition: str | None = None, conf: Mapping[str, Any] | None = None) -> str:
        """Trigger a Dag by hand and return the new run's id."""
        body = {"logical_date": None, "conf": conf or {}} | ({"partition_key": partition} if partition else {})
        run_id: str = self.api("POST", f"dags/{dag_id}/dagRuns", body)["dag_run_id"]
        return run_id

    def runs(self, dag_id: str) -> list[Any]:
        """Return the Dag's runs, oldest first."""
        found: list[Any] = self.api("GET", f"dags/{dag_id}/dagRuns?limit=100&order_by=id")["dag_runs"]
        return found

    def wait_for_run(self, dag_id: str, run_id: str, timeout_s: float = 300) -> str:
        """Wait until a Dag run has ended and return its state."""
        path = f"dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id, safe='')}"
        ended = ("success", "failed")

        def state() -> str | None:
            now: str = self.api("GET", path)["state"]
            return now if now in ended else None

        found: str = self.wait_for(f"end of {dag_id} {run_id}", state, timeout_s)
        return found

    def tasks(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return the task instances of a Dag run by task id."""
        path = f"dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id, safe='')}/taskInstances"
        return {task["task_id"]: task for task in self.api("GET", path)["task_instances"]}

    def xcom(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """Return what a task returned."""
        run = urllib.parse.quote(run_id, safe="")
        path = f"dags/{dag_id}/dagRuns/{run}/taskInstances/{task_id}/xcomEntries/return_value?deserialize=true"
        return self.api("GET", path)["value"]

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> str:
        """Return the text of a task's log, with the messages of its exceptions."""
        run = urllib.parse.quote(run_id, safe="")
        lines = self.api("GET", f"dags/{dag_id}/dagRuns/{run}/taskInstances/{task_id}/logs/{try_number}")["content"]
        texts: list[str] = []
        for line in lines:
            texts.append(str(line.get("event", line)))
            texts.extend(str(error["exc_value"]) for error in line.get("error_detail") or ())
        return "\n".join(texts)

    def logs(self, characters: int = 2000) -> str:
        """Return the end of each component's log."""
        ends = []
        for component in COMPONENTS:
            text = (self.home / f"{component}.log").read_text("utf-8", "replace")
            ends.append(f"--- {component}\n{text[-characters:]}")
        return "\n".join(ends)

    def start(self) -> None:
        """Start all components and wait until each is healthy."""
        for component in COMPONENTS:
            with (self.home / f"{component}.log").open("ab") as log:
                self._processes[component] = subprocess.Popen(
                    [sys.executable, "-m", "airflow", component],
                    cwd=PROJECT,
                    env=dict(self.environment),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        self.wait_for("healthy components", self._is_healthy, START_TIMEOUT_S)

    def stop(self) -> None:
        """Stop all components."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            # Workers of a component that ended may still be there.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        self._processes.clear()

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/api/v2/monitor/health", timeout=10) as answer:
                health = json.load(answer)
        except OSError:
            return False
        parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
        return all(health[part]["status"] == "healthy" for part in parts)

    def _check_alive(self) -> None:
        dead = [name for name, process in self._processes.items() if process.poll() is not None]
        if dead:
            raise AssertionError(f"Airflow's {', '.join(dead)} ended\n{self.logs()}")


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def environment_of(home: Path, *, dags: Path, port: int) -> dict[str, str]:
    """Return the environment of an Airflow with the given home."""
    binaries = str(Path(sys.executable).parent)
    airflow = {
        "CORE__DAGS_FOLDER": dags,
        "CORE__PLUGINS_FOLDER": PLUGINS,
        "CORE__LOAD_EXAMPLES": False,
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": 4,
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": True,
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": True,
        "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}?timeout=60",
        "API__HOST": "127.0.0.1",
        "API__PORT": port,
        "API__BASE_URL": f"http://127.0.0.1:{port}",
        "API__WORKERS": 1,
        "API__SECRET_KEY": "not a secret: a test on loopback",
        "API_AUTH__JWT_SECRET": "not a secret either, and long enough to sign tokens with SHA-512: 0123456789",
        "DAG_PROCESSOR__REFRESH_INTERVAL": 5,
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": 5,
        "DAG_PROCESSOR__PARSING_PROCESSES": 1,
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": 0.2,
        "LOGGING__WORKER_LOG_SERVER_PORT": free_port(),
        "LOGGING__TRIGGER_LOG_SERVER_PORT": free_port(),
        "USAGE_DATA_COLLECTION__ENABLED": False,
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "SCORING_"))}
    return {
        **inherited,
        **{f"AIRFLOW__{name}": str(value) for name, value in airflow.items()},
        "AIRFLOW_HOME": str(home),
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT),
        "SCORING_HOME": str(home / "scoring"),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
