from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from scoring.errors import ContractError
from scoring.monitoring.policy import PastNight
from scoring.monitoring.window import as_date, current_partitions, latest_published, past_nights
from scoring.runs import RunKind, RunRecord, RunState


def record(
    run_id: str, partition: str, hour: int, state: RunState = RunState.PUBLISHED, metrics: Any = None, **tags: str
) -> RunRecord:
    started = datetime(2013, 7, 10, hour, tzinfo=UTC)
    return RunRecord(run_id, RunKind.SCORE, "flights", partition, state, started, tags, metrics or {})


def test_the_current_window_ends_with_the_partition() -> None:
    assert current_partitions("2013-03-02", 3) == ["2013-02-28", "2013-03-01", "2013-03-02"]
    assert current_partitions("2013-03-02", 1) == ["2013-03-02"]


@pytest.mark.parametrize("partition", ["2013-13-01", "week 7", ""])
def test_a_partition_that_is_no_date_is_refused(partition: str) -> None:
    with pytest.raises(
        ContractError, match=r"has no place in time: expected a date like '2013-02-05', got .*Partition"
    ):
        as_date(partition)


def test_the_newest_published_run_speaks_for_a_partition() -> None:
    runs = [
        record("c", "2013-07-02", 3),
        record("a", "2013-07-01", 1),
        record("b", "2013-07-01", 2),
        record("failed", "2013-07-01", 9, RunState.FAILED),
        record("superseded", "2013-07-03", 9, RunState.SUPERSEDED),
    ]
    for order in (runs, runs[::-1]):
        found = latest_published(order)
        assert list(found) == ["2013-07-01", "2013-07-02"]
        assert found["2013-07-01"].run_id == "b"


def test_past_nights_are_read_from_tags_and_metrics() -> None:
    runs = [
        record("d", "2013-07-04", 4, share_of_drifted_columns="0.9"),
        record("c", "2013-07-03", 3, share_of_drifted_columns=""),
        record("b", "2013-07-02", 2),
        record(
            "a", "2013-07-01", 1, metrics={"roc_auc": 0.7, "baseline_roc_auc": 0.74}, share_of_drifted_columns="0.25"
        ),
    ]
    assert past_nights(runs, before="2013-07-04") == [
        PastNight(date(2013, 7, 1), 0.25, 0.7, 0.74),
        PastNight(date(2013, 7, 2)),
        PastNight(date(2013, 7, 3)),
    ]
