"""The little of Airflow's REST API that the demo needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import requests

from scoring.errors import TransientError

POLL_S: Final = 2.0
REQUEST_S: Final = 30.0
ENDED: Final = frozenset({"success", "failed"})


@dataclass(slots=True)
class Airflow:
    """A running Airflow, as one of its users sees it."""

    url: str
    username: str
    password: str
    _session: requests.Session = field(default_factory=requests.Session)

    def log_in(self) -> None:
        """Get a token for all later calls."""
        self._session.trust_env = False
        answer = self._session.post(
            f"{self.url}/auth/token", json={"username": self.username, "password": self.password}, timeout=REQUEST_S
        )
        answer.raise_for_status()
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def wait_for_dags(self, dag_ids: Sequence[str], *, deadline_s: float) -> None:
        """Wait until Airflow has parsed Dags, and unpause them."""
        end = time.monotonic() + deadline_s
        waiting = list(dag_ids)
        while waiting:
            answer = self._session.patch(
                f"{self.url}/api/v2/dags/{waiting[0]}", json={"is_paused": False}, timeout=REQUEST_S
            )
            if answer.ok:
                waiting.pop(0)
                continue
            if time.monotonic() > end:
                raise TransientError(
                    f"Dag {waiting[0]!r} did not appear", f"within {deadline_s:.0f} s", answer.text[:200]
                )
            time.sleep(POLL_S)

    def trigger(self, dag_id: str, partition: str) -> str:
        """Start a Dag run for a partition and return its id."""
        answer = self._session.post(
            f"{self.url}/api/v2/dags/{dag_id}/dagRuns",
            json={"logical_date": None, "partition_key": partition},
            timeout=REQUEST_S,
        )
        if not answer.ok:
            raise TransientError(f"Airflow did not start {dag_id!r} for {partition!r}", got=answer.text[:500])
        return str(answer.json()["dag_run_id"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return all runs of a Dag, oldest first."""
        return self._list(f"dags/{dag_id}/dagRuns", "dag_runs", order_by="id")

    def task_states(self, dag_id: str, dag_run_id: str) -> dict[str, str | None]:
        """Return the state of each task of a Dag run."""
        found = self._list(f"dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances", "task_instances")
        return {task["task_id"]: task["state"] for task in found}

    def follow(
        self, dag_id: str, dag_run_ids: Mapping[str, str], *, deadline_s: float, report: Callable[[str], None]
    ) -> dict[str, str]:
        """Wait for Dag runs, reporting every task that ends.

        Args:
            dag_id: the Dag.
            dag_run_ids: run id by the name that reports use.
            deadline_s: how long to wait.
            report: gets one line per task that has ended.

        Returns:
            State of each run by name: `success` or `failed`.
        """
        end = time.monotonic() + deadline_s
        told: set[tuple[str, str]] = set()
        while True:
            states = {run["dag_run_id"]: run["state"] for run in self.runs(dag_id)}
            for name, dag_run_id in dag_run_ids.items():
                for task, state in self.task_states(dag_id, dag_run_id).items():
                    if state in ("success", "failed", "upstream_failed", "skipped") and (name, task) not in told:
                        told.add((name, task))
                        if state != "skipped":
                            report(f"{name}: {task} {'done' if state == 'success' else state}")
            found = {name: states.get(dag_run_id, "missing") for name, dag_run_id in dag_run_ids.items()}
            if all(state in ENDED for state in found.values()):
                return found
            if time.monotonic() > end:
                raise TransientError(f"Dag {dag_id!r} did not end", f"within {deadline_s:.0f} s", str(found))
            time.sleep(POLL_S)

    def _list(self, path: str, key: str, **parameters: str) -> list[dict[str, Any]]:
        answer = self._session.get(f"{self.url}/api/v2/{path}", params=parameters, timeout=REQUEST_S)
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()[key]
        return found
