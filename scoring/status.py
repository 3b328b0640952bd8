"""How the partitions of a deployment stand: what `scoring status`, the page in Airflow and its REST API show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Final

from scoring.deployment import Deployment
from scoring.registry import CHAMPION, Registry, names
from scoring.runs import RunRecord, RunState, RunStore
from scoring.throughput.report import ARTIFACT, RunReport

_UNFINISHED: Final = frozenset({RunState.RUNNING, RunState.STAGED, RunState.CHECKED})


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """How one partition stands after one of its runs. None: not known, or not reached by the run."""

    partition: str
    state: RunState
    rows: int | None
    quarantined: int | None
    run_id: str
    model_versions: Mapping[str, int]
    checks: str | None
    """`passed`, `warning` or `failed`."""
    drift: float | None
    """Share of drifted columns."""
    decision: str | None
    """`none`, `notify` or `retrain`."""
    decision_reasons: tuple[str, ...]
    published_version: int | None
    """Version of the output table that this run wrote."""
    rows_per_s: float | None
    seconds: float | None
    warnings: tuple[str, ...]
    """What to look at although nothing failed, in sentences: a slow run, a missing GPU."""
    error: str | None
    """What failed, in one sentence."""
    dag_run_id: str | None
    started: datetime

    @property
    def is_published(self) -> bool:
        """Whether readers of the output table see this run's rows, unless a newer run replaced them."""
        return self.state is RunState.PUBLISHED

    @property
    def needs_attention(self) -> bool:
        """Whether the run failed or warns, a check did not pass, or drift led to a decision."""
        return (
            self.state is RunState.FAILED
            or self.error is not None
            or bool(self.warnings)
            or self.checks not in (None, "passed")
            or self.decision not in (None, "none")
        )

    def document(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            **asdict(self),
            "model_versions": dict(self.model_versions),
            "decision_reasons": list(self.decision_reasons),
            "warnings": list(self.warnings),
            "started": self.started.isoformat(),
        }


def partitions(deployment: Deployment, *, limit: int = 100, prefix: str = "") -> list[PartitionStatus]:
    """Return the newest `limit` partitions whose name starts with `prefix`, newest first.

    A partition has one entry for its newest published run, and before it one for a newer run that failed or has not
    ended: tell them apart by `state`. A partition that was never published has only the latter.
    """
    runs = RunStore().by_partition(deployment.name, prefix=prefix)
    found: list[PartitionStatus] = []
    for count, (_, attempts) in enumerate(groupby(runs, key=lambda run: run.partition)):
        if count == limit:
            break
        found.extend(_status(run) for run in _standing(attempts))
    return found


def standing(deployment: Deployment, value: str) -> list[PartitionStatus]:
    """Return how one partition stands, as `partitions` does; empty if it was never scored."""
    runs = RunStore().find(deployment.name, partition=value)
    return [_status(run) for run in _standing(iter(runs))]


def run_report(run_id: str) -> RunReport | None:
    """Return what a run took; None if it did not come to the end of scoring.

    Raises:
        ContractError: another release wrote it, or it is damaged.
    """
    document = RunStore().read_json(run_id, ARTIFACT)
    return None if document is None else RunReport.from_json(document)


def champions(deployment: Deployment) -> dict[str, int | None]:
    """Return each registered model of the graph with the version that is its champion now; None if it has none."""
    registry = Registry()
    return {name: registry.aliased(name, CHAMPION) for name in names(deployment)}


def _standing(attempts: Iterator[RunRecord]) -> Iterator[RunRecord]:
    """Yield the newest attempt if it failed or has not ended, then the newest published one."""
    is_newest = True
    for run in attempts:
        if run.state is RunState.PUBLISHED:
            yield run
            return
        if is_newest and (run.state is RunState.FAILED or run.state in _UNFINISHED):
            yield run
            is_newest = False


def _status(run: RunRecord) -> PartitionStatus:
    return PartitionStatus(
        partition=run.partition,
        state=run.state,
        rows=_whole(run.metrics.get("rows")),
        quarantined=_whole(run.metrics.get("quarantined")),
        run_id=run.run_id,
        model_versions=run.model_versions,
        checks=run.tags.get("checks"),
        drift=_number(run.tags.get("share_of_drifted_columns")),
        decision=run.tags.get("decision"),
        decision_reasons=tuple(run.tags.get("decision_reasons", "").splitlines()),
        published_version=_whole(_number(run.tags.get("published_version"))),
        rows_per_s=run.metrics.get("rows_per_s"),
        seconds=run.metrics.get("seconds"),
        warnings=run.warnings,
        error=run.tags.get("error") or None,
        dag_run_id=run.tags.get("dag_run_id") or None,
        started=run.started,
    )


def _number(text: str | None) -> float | None:
    return float(text) if text else None


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)
