"""Which partitions are compared, and which run speaks for each of them. Partitions are ISO dates."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

from scoring.errors import ContractError
from scoring.monitoring.policy import PastNight
from scoring.runs import RunRecord, RunState


def as_date(partition: str) -> date:
    """Return the date of a partition.

    Raises:
        ContractError: the partition is not an ISO date.
    """
    try:
        return date.fromisoformat(partition)
    except ValueError:
        raise ContractError(
            f"partition {partition!r} has no place in time",
            "a date like '2013-02-05'",
            repr(partition),
            "Partition the input by day, or remove 'drift' from the deployment.",
        ) from None


def current_partitions(partition: str, days: int) -> list[str]:
    """Return the last `days` partitions up to and including `partition`, oldest first."""
    last = as_date(partition)
    return [(last - timedelta(days=back)).isoformat() for back in range(days - 1, -1, -1)]


def latest_published(records: Iterable[RunRecord]) -> dict[str, RunRecord]:
    """Return the newest published run of each partition, by partition in order."""
    newest: dict[str, RunRecord] = {}
    for record in records:
        known = newest.get(record.partition)
        if record.state is RunState.PUBLISHED and (known is None or record.started > known.started):
            newest[record.partition] = record
    return dict(sorted(newest.items()))


def past_nights(records: Iterable[RunRecord], *, before: str) -> list[PastNight]:
    """Return what the published partitions before `before` showed, oldest first.

    Read from the tag `share_of_drifted_columns` and the metrics `roc_auc` and `baseline_roc_auc`.
    """
    return [
        PastNight(
            partition=as_date(partition),
            share_of_drifted_columns=_number(record.tags.get("share_of_drifted_columns")),
            roc_auc=record.metrics.get("roc_auc"),
            baseline_roc_auc=record.metrics.get("baseline_roc_auc"),
        )
        for partition, record in latest_published(records).items()
        if partition < before
    ]


def _number(text: str | None) -> float | None:
    return float(text) if text else None
