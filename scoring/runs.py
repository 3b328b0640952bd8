"""The run record: every scoring run, training, promotion and deployment is an MLflow run with tags, metrics, artifacts.

There is no other state store. All functions talk to the store that `settings.tracking_uri()` names.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from scoring import settings
from scoring.errors import ConfigurationError, RegistryUnavailableError, ScoringError, SupersededError, cause

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

TAG_PREFIX: Final = "scoring."
BACKFILL: Final = "backfill"
"""Value of the tag `trigger` of runs that a backfill started."""
PAGE_RUNS: Final = 100
"""Runs asked for at once where all may be walked through."""
_WARNING: Final = "warning"
"""Tag that holds a run's warnings, one a line."""


class RunKind(StrEnum):
    """What a run record is about."""

    SCORE = "score"
    REFERENCE = "reference"
    TRAIN = "train"
    LEARN = "learn"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    DEPLOY = "deploy"


class RunState(StrEnum):
    """How far a run has come."""

    RUNNING = "running"
    STAGED = "staged"
    CHECKED = "checked"
    PUBLISHED = "published"
    DONE = "done"
    """End state of runs that publish no partition."""
    SUPERSEDED = "superseded"
    FAILED = "failed"


_MLFLOW_STATUS: Final = {
    RunState.PUBLISHED: "FINISHED",
    RunState.DONE: "FINISHED",
    RunState.FAILED: "FAILED",
    RunState.SUPERSEDED: "KILLED",
}


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run as the store has it; `run_id` is MLflow's."""

    run_id: str
    kind: RunKind
    deployment: str
    partition: str
    """Empty for runs that belong to no partition."""
    state: RunState
    started: datetime
    tags: Mapping[str, str]
    """Our tags, without the prefix `scoring.`: dag_run_id, trigger, decision, error, mail, ..."""
    metrics: Mapping[str, float]

    @property
    def model_versions(self) -> dict[str, int]:
        """Registered model name to version, as frozen for the run."""
        versions: dict[str, int] = json.loads(self.tags.get("model_versions", "{}"))
        return versions

    @property
    def warnings(self) -> tuple[str, ...]:
        """What people should look at although nothing failed, in sentences."""
        return tuple(self.tags.get(_WARNING, "").splitlines())


@contextlib.contextmanager
def available() -> Iterator[None]:
    """Turn MLflow's connection failures into `RegistryUnavailableError`."""
    import requests
    from mlflow.exceptions import MlflowException

    unavailable = RegistryUnavailableError(
        "the MLflow store does not answer",
        f"an answer from {settings.tracking_uri()}",
        "no connection",
        f"Start it or set {settings.TRACKING_VARIABLE}.",
    )
    try:
        yield
    except requests.RequestException as error:
        raise unavailable from error
    except MlflowException as error:
        text = str(error)
        if any(sign in text for sign in ("Max retries", "Connection", "timed out", "OperationalError")):
            raise unavailable from error
        raise


def client() -> MlflowClient:
    """Return a client of the configured store; creates the embedded store's folder when needed."""
    import logging
    import os

    uri = settings.tracking_uri()
    if uri.startswith("sqlite:///"):
        folder = Path(uri.removeprefix("sqlite:///")).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"{folder} cannot be created",
                "a folder for the run records",
                cause(error),
                f"Set {settings.HOME_VARIABLE}.",
            ) from error
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


class RunStore:
    """Reads and writes run records."""

    def __init__(self) -> None:
        with available():
            self._client = client()

    def start(
        self,
        deployment: str,
        partition: str = "",
        *,
        kind: RunKind = RunKind.SCORE,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Start a run and return its `run_id`."""
        named = {"kind": kind, "deployment": deployment, "partition": partition, "state": RunState.RUNNING}
        with available():
            run = self._client.create_run(
                self._experiment(deployment),
                run_name=" ".join(filter(None, (kind, partition))),
                tags={TAG_PREFIX + name: value for name, value in {**(tags or {}), **named}.items()},
            )
        return str(run.info.run_id)

    def set_state(self, run_id: str, state: RunState) -> None:
        """Record how far the run has come; end states end the MLflow run."""
        self.set_tags(run_id, {"state": state})
        if state in _MLFLOW_STATUS:
            with available():
                self._client.set_terminated(run_id, status=_MLFLOW_STATUS[state])

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags, given without the prefix."""
        from mlflow.entities import RunTag

        with available():
            self._client.log_batch(run_id, tags=[RunTag(TAG_PREFIX + name, value) for name, value in tags.items()])

    def warn(self, run_id: str, sentence: str) -> None:
        """Add a warning to those that people are shown of the run; the same one once."""
        warnings = self.get(run_id).warnings
        if sentence not in warnings:
            self.set_tags(run_id, {_WARNING: "\n".join((*warnings, sentence))})

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Log metrics; the last value of a name counts."""
        from mlflow.entities import Metric

        now = int(datetime.now(UTC).timestamp() * 1000)
        with available():
            self._client.log_batch(run_id, metrics=[Metric(name, value, now, 0) for name, value in metrics.items()])

    def put(self, run_id: str, path: str, content: bytes | str) -> None:
        """Store an artifact under a path like `drift/report.html`."""
        with tempfile.TemporaryDirectory() as folder, available():
            file = Path(folder) / Path(path).name
            file.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
            parent = str(Path(path).parent)
            self._client.log_artifact(run_id, str(file), None if parent == "." else parent)

    def put_json(self, run_id: str, path: str, document: Any) -> None:
        """Store a JSON document as an artifact."""
        self.put(run_id, path, json.dumps(document, indent=2, allow_nan=False))

    def read(self, run_id: str, path: str) -> bytes | None:
        """Return an artifact's bytes; None if the run has no such artifact."""
        parent = str(Path(path).parent)
        with tempfile.TemporaryDirectory() as folder, available():
            known = {found.path for found in self._client.list_artifacts(run_id, None if parent == "." else parent)}
            if path not in known:
                return None
            return Path(self._client.download_artifacts(run_id, path, folder)).read_bytes()

    def read_json(self, run_id: str, path: str) -> Any:
        """Return a JSON artifact; None if the run has no such artifact."""
        content = self.read(run_id, path)
        return None if content is None else json.loads(content)

    def artifacts(self, run_id: str, folder: str = "") -> list[str]:
        """Return the paths of the run's artifacts below `folder`, sorted."""
        with available():
            found = self._client.list_artifacts(run_id, folder or None)
        nested = [path for entry in found if entry.is_dir for path in self.artifacts(run_id, entry.path)]
        return sorted([entry.path for entry in found if not entry.is_dir] + nested)

    def get(self, run_id: str) -> RunRecord:
        """Return one record.

        Raises:
            ConfigurationError: there is no such run.
        """
        from mlflow.exceptions import MlflowException

        unknown = ConfigurationError(f"run {run_id!r} was not found in {settings.tracking_uri()}")
        with available():
            try:
                run = self._client.get_run(run_id)
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise unknown from error
                raise
        if f"{TAG_PREFIX}kind" not in run.data.tags:  # somebody else's run in the same store
            raise unknown
        return _record(run)

    def find(
        self, deployment: str, *, kind: RunKind = RunKind.SCORE, limit: int = 1000, **tags: str | None
    ) -> list[RunRecord]:
        """Return the newest `limit` runs of a deployment whose tags have the given values, newest first.

        A tag given as None may have any value.
        """
        wanted = {"kind": str(kind), **{name: value for name, value in tags.items() if value is not None}}
        condition = " and ".join(f"tags.`{TAG_PREFIX}{name}` = {_quoted(value)}" for name, value in wanted.items())
        with available():
            experiment = self._client.get_experiment_by_name(_experiment_name(deployment))
            if experiment is None:
                return []
            runs = self._client.search_runs(
                [experiment.experiment_id], condition, max_results=limit, order_by=["attributes.start_time DESC"]
            )
        return [_record(run) for run in runs]

    def by_partition(self, deployment: str, *, prefix: str = "") -> Iterator[RunRecord]:
        """Yield the score runs of partitions that start with `prefix`: newest partition first, then newest run.

        The store is asked page by page, as far as the runs are taken.
        """
        tag = f"tags.`{TAG_PREFIX}partition`"
        # In LIKE, '%' and '_' of a prefix stand for more than themselves: startswith() below takes the surplus out.
        starts = f" and {tag} LIKE {_quoted(prefix + '%')}" if prefix else ""
        with available():
            experiment = self._client.get_experiment_by_name(_experiment_name(deployment))
        token: str | None = ""
        while experiment is not None and token is not None:
            with available():
                page = self._client.search_runs(
                    [experiment.experiment_id],
                    f"tags.`{TAG_PREFIX}kind` = '{RunKind.SCORE}'{starts}",
                    max_results=PAGE_RUNS,
                    order_by=[f"{tag} DESC", "attributes.start_time DESC"],
                    page_token=token or None,
                )
            yield from (record for run in page if (record := _record(run)).partition.startswith(prefix))
            token = page.token

    def _experiment(self, deployment: str) -> str:
        from mlflow.exceptions import MlflowException

        name = _experiment_name(deployment)
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        embedded = settings.tracking_uri().startswith("sqlite:")
        location = (settings.artifact_root() / deployment).as_uri() if embedded else None
        try:
            return str(self._client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return self._experiment(deployment)


@contextlib.contextmanager
def recorded(store: RunStore, run_id: str) -> Iterator[None]:
    """Record the failure of a run before it is raised on. A published run stays published: readers see its rows."""
    try:
        yield
    except BaseException as error:
        state = RunState.SUPERSEDED if isinstance(error, SupersededError) else RunState.FAILED
        sentence = str(error) if isinstance(error, ScoringError) else cause(error)
        # The failure itself matters more than its record.
        try:
            store.set_tags(run_id, {"error": sentence[:5000], "error_type": type(error).__name__})
            if store.get(run_id).state is not RunState.PUBLISHED:
                store.set_state(run_id, state)
        except ScoringError as unrecorded:
            error.add_note(f"This could not be recorded: {unrecorded}")
        raise


def _experiment_name(deployment: str) -> str:
    return f"scoring/{deployment}"


def _quoted(value: str) -> str:
    return f'"{value}"' if "'" in value else f"'{value}'"


def _record(run: Run) -> RunRecord:
    tags = {
        name.removeprefix(TAG_PREFIX): value for name, value in run.data.tags.items() if name.startswith(TAG_PREFIX)
    }
    return RunRecord(
        run_id=run.info.run_id,
        kind=RunKind(tags["kind"]),
        deployment=tags["deployment"],
        partition=tags.get("partition", ""),
        state=RunState(tags["state"]),
        started=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        tags=tags,
        metrics=dict(run.data.metrics),
    )
