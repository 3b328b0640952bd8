"""The run report adds up what workers measured, and survives being kept."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.errors import ContractError
from scoring.throughput.report import PARTS, RunReport, SplitReport, Totals, Usual
from tests.throughput.made import report, split, totals

GOLDEN = Path(__file__).parent / "golden"
seconds = st.integers(0, 10**8).map(lambda milliseconds: milliseconds / 1000)
splits = st.lists(
    st.builds(
        SplitReport,
        split=st.integers(0, 9),
        rows=st.integers(0, 10**9),
        quarantined=st.integers(0, 10**6),
        wall_s=seconds,
        **dict.fromkeys(PARTS, seconds),
        model_loads=st.integers(0, 5),
        batch_rows=st.integers(0, 10**6),
        peak_rss_mb=st.floats(1, 1e5),
        worker=st.sampled_from("abc"),
        is_resumed=st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


def test_a_run_is_the_sum_of_its_splits_and_its_largest_worker() -> None:
    whole = Totals.of(
        (
            split(0, worker="host-1", load_s=3.0, wall_s=5.0, model_loads=2, batch_rows=600),
            split(1, worker="host-2", wall_s=6.0, quarantined=4, peak_rss_mb=900.5),
            split(2, worker="host-2", rows=500, is_resumed=True),
        ),
        seconds=4.0,
    )
    assert (whole.rows, whole.quarantined, whole.splits, whole.splits_resumed) == (2500, 4, 3, 1)
    assert (whole.wall_s, whole.read_s, whole.predict_s, whole.write_s, whole.load_s) == (13.0, 1.5, 3.0, 0.75, 3.0)
    assert (whole.model_loads, whole.batch_rows, whole.peak_rss_mb, whole.workers) == (2, 600, 900.5, 2)
    assert whole.rows_per_s == 2000 / 4.0, "rows that were taken over cost this attempt nothing"
    assert whole.skew == 3.0, "6 s by 2 s: loading models is not skew"
    assert whole.per_million("read_s") == 1.5 / 2500 * 1e6


@pytest.mark.parametrize(
    ("facts", "rows_per_s"),
    [({"is_resumed": True}, None), ({"rows": 0, "quarantined": 5}, 0.0), ({"wall_s": 0.0, "load_s": 0.0}, 500.0)],
)
def test_runs_without_anything_to_divide_by(facts: dict[str, float], rows_per_s: float | None) -> None:
    whole = Totals.of([split(0, **facts)], seconds=2.0)
    assert whole.rows_per_s == rows_per_s
    assert whole.skew == 1.0
    assert ("rows_per_s" in whole.metrics()) == (rows_per_s is not None)
    assert whole.per_million("read_s") == (0.0 if "rows" in facts else 500.0)


@given(splits, seconds)
def test_metrics_and_documents_hold_everything(found: list[SplitReport], took: float) -> None:
    whole = Totals.of(found, seconds=took)
    as_floats = {name: float(number) for name, number in whole.metrics().items()}
    assert Totals.from_metrics(as_floats) == whole
    usual = Usual(runs=3, rows_per_s=1.5, per_million={"read_s": 2.0}, workers=2.0, skew=1.0)
    kept = replace(report(tuple(found)), totals=whole, usual=usual, warnings=("slow",))
    assert RunReport.from_json(json.loads(json.dumps(kept.to_json(), allow_nan=False))) == kept
    assert whole.skew >= 0
    assert sum(split.rows for split in kept.slowest(3)) <= whole.rows


def test_a_run_that_was_not_scored_to_its_end_has_no_totals() -> None:
    assert Totals.from_metrics({"rows": 5.0}) is None
    assert Totals.from_metrics({**asdict(totals()), "roc_auc": 0.7}) == totals()


def test_the_slowest_come_first_and_only_some() -> None:
    found = report(tuple(split(number, wall_s=float(number % 4)) for number in range(10_000)))
    assert [shown.split for shown in found.slowest(3)] == [3, 7, 11]
    assert len(found.splits) == 10_000


def test_reports_of_this_format_can_still_be_read() -> None:
    document = json.loads((GOLDEN / "run_report_v1.json").read_text("utf-8"))
    found = RunReport.from_json(document)
    assert (found.partition, found.totals.rows, found.splits[1].is_resumed) == ("2013-07-05", 2000, True)
    assert found.usual is not None
    assert json.loads(json.dumps(found.to_json(), allow_nan=False)) == document


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format_version": 2}, r"the run report cannot be read: expected format_version 1, got 2\."),
        ({"totals": {"rows": 1}}, r"the run report cannot be read: expected the fields of format_version 1, got .*"),
        ({"splits": [1]}, r"expected the fields of format_version 1"),
        ({"more": 1}, r"expected the fields of format_version 1"),
    ],
)
def test_another_document_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ContractError, match=sentence):
        RunReport.from_json({**report((split(0),)).to_json(), **change})
