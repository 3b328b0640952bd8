"""Drift, performance and the decision of published nights, on real runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from scoring.errors import ConfigurationError, ContractError, DataError, PartitionMissingError
from scoring.monitoring.performance import measure
from scoring.monitoring.report import DecisionKind
from scoring.runs import RunKind, RunState, RunStore
from scoring.testing import FEATURES, MODEL, PARTITION, example_rows, register_sklearn, write_partition
from scoring.watch import BACKFILL, DRIFT_ARTIFACT, DRIFT_PAGE, watch
from tests.e2e.example import Site

pytestmark = pytest.mark.spark
REFERENCE = [f"2024-02-{day:02d}" for day in range(1, 6)]
NIGHTS = ["2024-02-20", "2024-02-21", "2024-02-22"]
ROWS = 200
DRIFT: dict[str, Any] = {
    "reference": {"first": REFERENCE[0], "last": REFERENCE[-1]},
    "current_days": 3,
    "min_rows": 150,
    "threshold": 0.5,
    "categorical_threshold": 0.3,
    "columns": ["x", "y", "score"],
    "drift_share_threshold": 0.5,
    "labels": {"path": "${SCORING_HOME}/labels", "column": "label", "delay_days": 1},
}
RETRAIN = {"train": "rules:add_sum", "cooldown_days": 5}


@pytest.fixture
def watched(site: Site) -> Site:
    """The example, watched, with a reference window in its lake."""
    for number, night in enumerate(REFERENCE):
        site.put(rows(number).drop_columns(["label"]), night)
    deployment = site.rewrite(drift=DRIFT, retrain=RETRAIN)
    return Site(deployment, site.model, site.lake, site.rewrite)


def rows(number: int, *, shift: float = 0.0) -> pa.Table:
    """Return labelled rows of one night; `shift` moves x and y away."""
    table = example_rows(ROWS, seed=number, first_id=1000 * number)
    for name in ("x", "y"):
        moved = pa.array(np.asarray(table[name]) + shift)
        table = table.set_column(table.schema.get_field_index(name), name, moved)
    return table


def arrive(site: Site, night: str, table: pa.Table) -> None:
    """Put a night's rows into the lake."""
    site.put(table.drop_columns(["label"]), night)


def labels_arrive(home: Path, night: str, table: pa.Table) -> None:
    """Put a night's labels where they are expected."""
    write_partition(home / "labels", PARTITION, night, table.select(["id", "label"]))


def test_nights_like_the_reference_decide_nothing(watched: Site, home: Path) -> None:
    for number, night in enumerate(NIGHTS, 10):
        arrive(watched, night, rows(number))
        labels_arrive(home, night, rows(number))
        watched.run(night)
    seen = watch(watched.deployment, NIGHTS[-1])
    assert seen is not None
    assert seen.drift.share_of_drifted_columns == 0
    assert (seen.drift.current_first, seen.drift.current_rows) == (NIGHTS[0], 3 * ROWS)
    assert (seen.drift.reference_first, seen.drift.reference_rows) == (REFERENCE[0], len(REFERENCE) * ROWS)
    assert seen.decision.kind is DecisionKind.NONE
    # Labels are due a day later: those of the last night are not used though they are there.
    assert seen.performance is not None
    assert (seen.performance.first, seen.performance.last) == (NIGHTS[0], NIGHTS[1])
    scored = [row for row in watched.published() if row[PARTITION] in NIGHTS[:2]]
    labelled = pa.concat_tables([rows(10), rows(11)])
    truth = dict(zip(labelled["id"].to_pylist(), labelled["label"].to_pylist(), strict=True))
    expected = measure([row["score"] for row in scored], [truth[row["id"]] for row in scored], first="", last="")
    assert seen.performance.roc_auc == pytest.approx(expected.roc_auc)
    assert seen.performance.rows == 2 * ROWS


def test_drift_in_a_row_retrains_once_and_keeps_its_reports(watched: Site) -> None:
    decisions = []
    for number, night in enumerate(NIGHTS, 10):
        arrive(watched, night, rows(number, shift=3.0))
        watched.run(night, dag_run_id=f"manual__{night}")
        seen = watch(watched.deployment, night)
        assert seen is not None
        decisions.append(seen.decision.kind)
    assert decisions == [DecisionKind.NOTIFY, DecisionKind.RETRAIN, DecisionKind.NOTIFY]
    store = RunStore()
    page = store.read(seen.run_id, DRIFT_PAGE)
    assert page is not None
    assert b"<html" in page.lower()
    assert json.loads(store.read(seen.run_id, DRIFT_ARTIFACT) or b"")["decision"]["kind"] == "notify"
    assert store.get(seen.run_id).tags["share_of_drifted_columns"] == "1.0"
    # The reference is scored once, not every night.
    assert len(store.find("example", kind=RunKind.REFERENCE)) == 1


def test_a_backfill_never_retrains(watched: Site) -> None:
    for number, night in enumerate(NIGHTS, 10):
        arrive(watched, night, rows(number, shift=3.0))
        watched.run(night, trigger=BACKFILL)
        seen = watch(watched.deployment, night)
        assert seen is not None
        assert seen.decision.kind is DecisionKind.NOTIFY
    assert "a backfill starts none" in " ".join(seen.decision.reasons)


def test_too_few_rows_are_a_reason_not_a_failure(watched: Site) -> None:
    arrive(watched, NIGHTS[0], rows(10).slice(0, 50))
    watched.run(NIGHTS[0])
    seen = watch(watched.deployment, NIGHTS[0])
    assert seen is not None
    assert seen.drift.skipped == "the current window has 50 rows, expected at least 150"
    assert seen.decision.kind is DecisionKind.NONE
    assert RunStore().read(seen.run_id, DRIFT_PAGE) is None


def test_a_reference_with_too_few_rows_is_a_reason_not_a_failure(watched: Site) -> None:
    one_night = {**DRIFT, "reference": {"first": REFERENCE[0], "last": REFERENCE[0]}, "min_rows": ROWS + 1}
    deployment = watched.rewrite(drift=one_night, retrain=None)
    site = Site(deployment, watched.model, watched.lake, watched.rewrite)
    for number, night in enumerate(NIGHTS, 10):
        arrive(site, night, rows(number))
        site.run(night)
    seen = watch(deployment, NIGHTS[-1])
    assert seen is not None
    assert seen.drift.skipped == f"the reference window has {ROWS} rows, expected at least {ROWS + 1}"


def test_a_reference_that_is_not_there_fails_after_publication(watched: Site) -> None:
    elsewhere = {**DRIFT, "reference": {"first": "2020-01-01", "last": "2020-01-31"}}
    deployment = watched.rewrite(drift=elsewhere, retrain=None)
    site = Site(deployment, watched.model, watched.lake, watched.rewrite)
    arrive(site, NIGHTS[0], rows(10))
    run = site.run(NIGHTS[0])
    with pytest.raises(PartitionMissingError, match="no partition of 'example' between 2020-01-01 and 2020-01-31"):
        watch(deployment, NIGHTS[0])
    assert {row["run_id"] for row in site.published()} == {run.run_id}


def test_labels_that_never_come_are_named(watched: Site) -> None:
    for number, night in enumerate(NIGHTS, 10):
        arrive(watched, night, rows(number))
        watched.run(night)
    seen = watch(watched.deployment, NIGHTS[-1])
    assert seen is not None
    assert seen.performance is not None
    assert seen.performance.skipped == "labels of 2 partitions are overdue: 2024-02-20, 2024-02-21"
    assert "overdue" in " ".join(seen.decision.reasons)


def test_only_a_published_night_is_watched(watched: Site) -> None:
    from scoring import nightly

    arrive(watched, NIGHTS[0], rows(10))
    nightly.score(watched.deployment, NIGHTS[0])
    with pytest.raises(ConfigurationError, match=r"has no published run: expected state 'published', got none"):
        watch(watched.deployment, NIGHTS[0])


def test_a_decision_that_started_nothing_does_not_start_the_cooldown(watched: Site) -> None:
    decisions = []
    for number, night in enumerate(NIGHTS, 10):
        arrive(watched, night, rows(number, shift=3.0))
        watched.run(night)  # by hand: nobody starts a Dag
        seen = watch(watched.deployment, night)
        assert seen is not None
        decisions.append(seen.decision.kind)
    assert decisions == [DecisionKind.NOTIFY, DecisionKind.RETRAIN, DecisionKind.RETRAIN]


def test_a_night_that_was_retrained_for_is_not_retrained_for_again(watched: Site) -> None:
    for number, night in enumerate(NIGHTS[:2], 10):
        arrive(watched, night, rows(number, shift=3.0))
        watched.run(night)
        watch(watched.deployment, night)
    store = RunStore()
    training = store.start("example", NIGHTS[1], kind=RunKind.TRAIN)
    again = watch(watched.deployment, NIGHTS[1])
    assert again is not None
    assert again.decision.kind is DecisionKind.NOTIFY
    assert "the last one was started by 2024-02-21" in " ".join(again.decision.reasons)
    store.set_state(training, RunState.FAILED)
    once_more = watch(watched.deployment, NIGHTS[1])
    assert once_more is not None
    assert once_more.decision.kind is DecisionKind.RETRAIN


def test_a_night_is_judged_by_the_versions_that_scored_it(watched: Site, home: Path) -> None:
    for number, night in enumerate(NIGHTS, 10):
        arrive(watched, night, rows(number))
        labels_arrive(home, night, rows(number))
    watched.run(NIGHTS[0])
    before = watch(watched.deployment, NIGHTS[0])
    frame = rows(99).select(list(FEATURES)).to_pandas()
    register_sklearn(MODEL, frame, 1 - np.asarray(rows(99)["label"]))
    watched.run(NIGHTS[1])
    after = watch(watched.deployment, NIGHTS[1])
    assert before is not None
    assert after is not None
    # Both windows hold scores of version 2 alone.
    assert next(column for column in after.drift.columns if column.column == "score").is_drifted is False
    assert after.drift.current_rows == 2 * ROWS
    assert after.performance is not None
    assert "scored by these model versions" in (after.performance.skipped or "")
    again = watch(watched.deployment, NIGHTS[0])
    assert again is not None
    assert again.drift == before.drift


def test_labels_belong_to_their_night(watched: Site, home: Path) -> None:
    # The same keys come again every night, with other labels.
    for number, night in enumerate(NIGHTS, 10):
        table = example_rows(ROWS, seed=number)
        arrive(watched, night, table)
        labels_arrive(home, night, table)
        watched.run(night)
    seen = watch(watched.deployment, NIGHTS[-1])
    assert seen is not None
    assert seen.performance is not None
    assert seen.performance.rows == 2 * ROWS
    scores = {(row[PARTITION], row["id"]): row["score"] for row in watched.published()}
    nights = [(night, example_rows(ROWS, seed=number)) for number, night in enumerate(NIGHTS[:2], 10)]
    pairs = [(scores[night, row["id"]], row["label"]) for night, table in nights for row in table.to_pylist()]
    expected = measure([score for score, _ in pairs], [label for _, label in pairs], first="", last="")
    assert seen.performance.roc_auc == pytest.approx(expected.roc_auc)


def test_labels_without_their_column_are_named(watched: Site, home: Path) -> None:
    for number, night in enumerate(NIGHTS, 10):
        arrive(watched, night, rows(number))
        write_partition(home / "labels", PARTITION, night, rows(number).select(["id"]))
        watched.run(night)
    with pytest.raises(ContractError, match=r"labels in .* expected .*id, label"):
        watch(watched.deployment, NIGHTS[-1])


def test_a_later_failure_does_not_hide_the_published_night(watched: Site) -> None:
    from scoring import nightly

    arrive(watched, NIGHTS[0], rows(10))
    published = watched.run(NIGHTS[0])
    (watched.lake / f"{PARTITION}={NIGHTS[0]}" / "part-000.parquet").write_bytes(b"cut short")
    with pytest.raises(DataError):
        nightly.score(watched.deployment, NIGHTS[0])
    seen = watch(watched.deployment, NIGHTS[0])
    assert seen is not None
    assert seen.run_id == published.run_id
