from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scoring.errors import ContractError
from scoring.monitoring.report import (
    ColumnDrift,
    ColumnKind,
    Decision,
    DecisionKind,
    DriftMethod,
    DriftReport,
    Performance,
    SkippedColumn,
)

GOLDEN = Path(__file__).parent / "golden"
DOCUMENTS = [("drift_report_v1", DriftReport), ("performance_v1", Performance), ("decision_v1", Decision)]


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize(("name", "kind"), DOCUMENTS)
def test_a_document_of_version_1_loads_and_is_written_the_same(name: str, kind: Any) -> None:
    document = golden(name)
    assert json.loads(json.dumps(kind.from_json(document).to_json(), allow_nan=False)) == document


def test_the_golden_drift_report_means_what_it_says() -> None:
    report = DriftReport.from_json(golden("drift_report_v1"))
    assert report.columns[1].method is DriftMethod.MISSING
    assert report.columns[2].kind is ColumnKind.CATEGORICAL
    assert [column.column for column in report.drifted_columns] == ["temp", "wind_gust"]
    assert report.share_of_drifted_columns == pytest.approx(2 / 3)
    assert report.skipped_columns == (
        SkippedColumn("time_hour", "values of type timestamp[us, tz=UTC] are not compared"),
    )


@pytest.mark.parametrize(("name", "kind"), DOCUMENTS)
@pytest.mark.parametrize("version", [None, 0, 2, "1"])
def test_another_version_is_refused(name: str, kind: Any, version: Any) -> None:
    with pytest.raises(ContractError, match=r"cannot be read: expected format_version 1, got .*\. It was written by"):
        kind.from_json({**golden(name), "format_version": version})


@pytest.mark.parametrize(("name", "kind"), DOCUMENTS)
def test_a_document_with_other_fields_is_refused(name: str, kind: Any) -> None:
    document = golden(name)
    broken = {key: value for key, value in document.items() if key not in ("columns", "rows", "reasons")}
    with pytest.raises(ContractError, match="expected the fields of format_version 1"):
        kind.from_json(broken)
    with pytest.raises(ContractError, match="got None"):
        kind.from_json(["no mapping"])


def test_nothing_compared_has_no_share() -> None:
    skipped = replace(DriftReport.from_json(golden("drift_report_v1")), columns=(), skipped="too few rows")
    assert skipped.share_of_drifted_columns is None
    assert DriftReport.from_json(skipped.to_json()) == skipped


def test_drifted_columns_are_ordered_by_how_far_they_are_above_their_threshold() -> None:
    def column(name: str, score: float, threshold: float) -> ColumnDrift:
        is_drifted = score >= threshold
        return ColumnDrift(name, ColumnKind.NUMERIC, DriftMethod.WASSERSTEIN, score, threshold, is_drifted)

    columns = (column("a", 0.3, 0.1), column("b", 0.9, 0.2), column("c", 0.1, 0.2))
    report = replace(DriftReport.from_json(golden("drift_report_v1")), columns=columns)
    assert [found.column for found in report.drifted_columns] == ["b", "a"]


def test_a_decision_is_text_in_json() -> None:
    assert Decision(DecisionKind.NOTIFY, ("because",)).to_json() == {
        "format_version": 1,
        "kind": "notify",
        "reasons": ["because"],
    }
