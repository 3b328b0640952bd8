from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.random import default_rng

from scoring.deployment import Drift
from scoring.errors import ConfigurationError
from scoring.monitoring.drift import Comparison, compare
from scoring.monitoring.report import ColumnDrift, DriftMethod, DriftReport

ROWS = 1_000
Compare = Callable[..., Comparison]


@pytest.fixture
def compared(drift: Callable[..., Drift]) -> Compare:
    def call(
        reference: Any, current: Any, columns: list[str] | None = None, keys: Any = (), **limits: Any
    ) -> Comparison:
        sides = [side if isinstance(side, pa.Table) else pa.table(side) for side in (reference, current)]
        return compare(
            *sides,
            deployment="flights",
            partition="2013-07-04",
            current_partitions=["2013-07-04", "2013-07-02", "2013-07-03"],
            columns=columns or sides[0].column_names,
            keys=keys,
            drift=drift(**limits),
        )

    return call


def by_name(comparison: Comparison) -> dict[str, ColumnDrift]:
    return {column.column: column for column in comparison.report.columns}


def normed_wasserstein(reference: np.ndarray, current: np.ndarray) -> float:
    """Area between the two empirical distribution functions, in standard deviations of the reference."""
    points = np.sort(np.concatenate([reference, current]))
    below = [np.searchsorted(np.sort(side), points[:-1], side="right") / side.size for side in (reference, current)]
    return float(np.sum(np.abs(below[0] - below[1]) * np.diff(points)) / np.std(reference))


def jensen_shannon(reference: list[Any], current: list[Any]) -> float:
    """Root of the mean Kullback-Leibler divergence (in nats) from the mixture of both."""
    divergence = 0.0
    for category in {*reference, *current}:
        p, q = reference.count(category) / len(reference), current.count(category) / len(current)
        mixed = (p + q) / 2
        divergence += sum(share * np.log(share / mixed) for share in (p, q) if share) / 2
    return float(np.sqrt(max(divergence, 0.0)))


def test_scores_agree_with_their_formulas(compared: Compare) -> None:
    rng = default_rng(0)
    numbers = {"calm": 0.0, "warm": 0.5, "hot": 3.0}
    reference: dict[str, Any] = {name: rng.normal(10, 2, ROWS) for name in numbers}
    current: dict[str, Any] = {name: rng.normal(10 + 2 * shift, 2, ROWS - 200) for name, shift in numbers.items()}
    reference["tiny"], current["tiny"] = rng.normal(0, 1e-6, ROWS), rng.normal(1e-6, 1e-6, ROWS - 200)
    reference["carrier"] = rng.choice(["AA", "UA", "DL"], ROWS, p=[0.5, 0.3, 0.2]).tolist()
    current["carrier"] = rng.choice(["AA", "UA", "B6"], ROWS - 200, p=[0.2, 0.3, 0.5]).tolist()
    reference["month"], current["month"] = rng.integers(1, 4, ROWS).tolist(), rng.integers(2, 6, ROWS - 200).tolist()
    reference["is_late"], current["is_late"] = (
        (rng.random(ROWS) < 0.2).tolist(),
        (rng.random(ROWS - 200) < 0.22).tolist(),
    )
    found = compared(reference, current)
    scores = by_name(found)
    for name in (*numbers, "tiny"):
        assert scores[name].method is DriftMethod.WASSERSTEIN
        assert scores[name].score == pytest.approx(normed_wasserstein(reference[name], current[name]), abs=1e-6)
    for name in ("carrier", "month", "is_late"):
        assert scores[name].method is DriftMethod.JENSEN_SHANNON
        assert scores[name].score == pytest.approx(jensen_shannon(reference[name], current[name]), abs=1e-6)
    assert [column.column for column in found.report.columns if not column.is_drifted] == ["calm", "is_late"]
    assert found.report.share_of_drifted_columns == pytest.approx(5 / 7)


def test_report_page_and_evidently_document_say_the_same(compared: Compare) -> None:
    rng = default_rng(1)
    reference, current = {"x": rng.normal(size=ROWS)}, {"x": rng.normal(size=ROWS) + 1}
    found = compared(reference, current)
    assert found.report == DriftReport.from_json(json.loads(json.dumps(found.report.to_json(), allow_nan=False)))
    assert (found.report.current_first, found.report.current_last) == ("2013-07-02", "2013-07-04")
    assert (found.report.reference_first, found.report.reference_last) == ("2013-01-01", "2013-03-31")
    assert (found.report.reference_rows, found.report.current_rows) == (ROWS, ROWS)
    assert found.evidently is not None
    assert found.evidently["metrics"][0]["value"] == {"count": 1.0, "share": 1.0}
    assert found.evidently["metrics"][1]["value"] == found.report.columns[0].score
    json.dumps(found.evidently, allow_nan=False)
    assert found.html is not None
    assert "<h1>Drift of flights, 2013-07-04</h1>" in found.html
    assert "Reference 2013-01-01 to 2013-03-31 (1000 rows), current 2013-07-02 to 2013-07-04 (1000 rows)." in found.html


def test_only_a_bounded_sample_is_compared_whatever_the_order_of_rows(compared: Compare) -> None:
    rng = default_rng(2)
    reference = pa.table({"id": range(3_000), "x": rng.normal(size=3_000)})
    current = pa.table({"id": range(9_000, 12_000), "x": rng.normal(size=3_000) + 0.3})
    settings: dict[str, Any] = {"columns": ["x"], "keys": ["id"], "sample_rows": 600}
    found = compared(reference, current, **settings)
    shuffled = compared(reference.take(rng.permutation(3_000)), current.take(rng.permutation(3_000)), **settings)
    assert found.report.reference_rows == found.report.current_rows == 600
    assert found.report.columns[0].score == pytest.approx(shuffled.report.columns[0].score, rel=1e-9)


ODD: dict[str, tuple[Any, Any]] = {
    "all_null": (pa.nulls(ROWS, pa.float64()), pa.nulls(ROWS, pa.float64())),
    "untyped_null": (pa.nulls(ROWS), pa.nulls(ROWS)),
    "lost": (np.arange(ROWS) / 7, pa.nulls(ROWS, pa.float64())),
    "found": (pa.nulls(ROWS, pa.float64()), np.arange(ROWS) / 7),
    "text_lost": (["a"] * ROWS, pa.nulls(ROWS, pa.string())),
    "constant": ([1.5] * ROWS, [1.5] * ROWS),
    "thawed": ([1.5] * ROWS, np.arange(ROWS) / 7),
    "frozen": (np.arange(ROWS) / 7, [1.5] * ROWS),
    "nan_and_inf": (
        np.where(np.arange(ROWS) % 50, np.arange(ROWS), np.nan),
        np.where(np.arange(ROWS) % 50, np.arange(ROWS), -np.inf),
    ),
    "outlier": (np.arange(ROWS) / 7, np.append(np.arange(ROWS - 1) / 7, 1.7e308)),
    "huge": (np.arange(ROWS) * 1e90, [1e92] * ROWS),
    "close": (1e15 + np.arange(ROWS), 1e15 + np.arange(ROWS)),
    "new_categories": (["a", "b"] * (ROWS // 2), ["c", "d"] * (ROWS // 2)),
    "unique_text": ([f"r{n}" for n in range(ROWS)], [f"c{n}" for n in range(ROWS)]),
    "markup": (["</script><script>alert(1)</script>"] * ROWS, ["<img src=x onerror=alert(1)>"] * ROWS),
    "when": ([datetime(2013, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(ROWS)],) * 2,
    "target": (np.arange(ROWS) / 7, np.arange(ROWS) / 7),
    "prediction": (["a", "b"] * (ROWS // 2), ["a", "b"] * (ROWS // 2)),
    "id": (np.arange(ROWS), np.arange(ROWS)),
    "index": (np.arange(ROWS), np.arange(ROWS)),
    "</script>": (np.arange(ROWS), np.arange(ROWS)),
}


@pytest.fixture
def odd(compared: Compare) -> Comparison:
    return compared({name: sides[0] for name, sides in ODD.items()}, {name: sides[1] for name, sides in ODD.items()})


def test_odd_columns_are_compared_or_skipped_on_purpose(odd: Comparison) -> None:
    assert {column.column: column.reason for column in odd.report.skipped_columns} == {
        "all_null": "no values on either side",
        "untyped_null": "no values on either side",
        "when": "values of type timestamp[us, tz=UTC] are not compared",
    }
    scores = by_name(odd)
    most = pytest.approx(np.sqrt(np.log(2)))
    assert {name: scores[name].score for name in ("lost", "found", "text_lost", "new_categories", "markup")} == {
        "lost": most,
        "found": most,
        "text_lost": most,
        "new_categories": most,
        "markup": most,
    }
    assert scores["lost"].method is scores["found"].method is DriftMethod.MISSING
    drifted = {column.column for column in odd.report.columns if column.is_drifted}
    assert drifted == {"lost", "found", "text_lost", "thawed", "frozen", "outlier", "huge", "new_categories", "markup"}
    assert scores["constant"].score == scores["target"].score == scores["prediction"].score == scores["id"].score == 0
    assert all(np.isfinite(column.score) for column in odd.report.columns)
    json.dumps(odd.report.to_json(), allow_nan=False)


def test_nothing_in_the_data_becomes_markup_of_the_page(odd: Comparison) -> None:
    assert odd.html is not None
    assert "</script><script>alert" not in odd.html
    assert "<img src=x" not in odd.html
    assert "when: not compared, values of type timestamp[us, tz=UTC] are not compared" in odd.html


def test_chance_is_not_drift_however_many_categories(compared: Compare) -> None:
    """Two samples of the same 2,000 tail numbers, few rows on the current side."""
    rng = default_rng(3)
    tails = np.array([f"N{number}" for number in range(2_000)])
    weights = rng.pareto(1.5, 2_000)
    weights /= weights.sum()
    found = compared(
        {"tail": rng.choice(tails, 5_000, p=weights).tolist()}, {"tail": rng.choice(tails, 500, p=weights).tolist()}
    )
    assert not found.report.columns[0].is_drifted
    assert "categories, all but the 9 most frequent taken as one" in found.report.columns[0].note


@pytest.mark.parametrize(
    ("reference", "current", "window"), [(499, 900, "reference"), (900, 3, "current"), (900, 0, "current")]
)
def test_too_few_rows_are_a_skipped_report(compared: Compare, reference: int, current: int, window: str) -> None:
    found = compared({"x": np.arange(reference) / 7}, {"x": np.arange(current) / 7})
    assert found.report.skipped == f"the {window} window has {min(reference, current)} rows, expected at least 500"
    assert (found.report.columns, found.html, found.evidently) == ((), None, None)
    assert found.report.share_of_drifted_columns is None


def test_a_skipped_report_does_not_wait_for_evidently() -> None:
    program = (
        "import sys, pyarrow as pa; from scoring.deployment import Drift; from scoring.monitoring.drift import compare;"
        "d = Drift.model_validate({'reference': {'first': '2013-01-01', 'last': '2013-01-02'}});"
        "t = pa.table({'x': [1.0]});"
        "compare(t, t, deployment='d', partition='2013-07-04', current_partitions=[], columns=['x'], keys=[], drift=d);"
        "print(sorted({'evidently', 'matplotlib', 'sklearn', 'mlflow', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_a_column_of_one_side_is_skipped(compared: Compare) -> None:
    x = np.arange(ROWS) / 7
    found = compared({"x": x, "old": x}, {"x": x, "new": x}, columns=["x", "old", "new"])
    assert {column.column: column.reason for column in found.report.skipped_columns} == {
        "old": "only the reference window has it",
        "new": "only the current window has it",
    }
    assert list(by_name(found)) == ["x"]


def test_a_column_of_no_side_is_refused(compared: Compare) -> None:
    x = {"temperature": np.arange(ROWS) / 7}
    with pytest.raises(
        ConfigurationError, match=r"names 'temprature', which no window has: .* Did you mean 'temperature'\?"
    ):
        compared(x, x, columns=["temprature"])


def test_without_any_column_to_compare_the_report_is_skipped(compared: Compare) -> None:
    empty = {"x": pa.nulls(ROWS)}
    found = compared(empty, empty)
    assert found.report.skipped == "no column can be compared: x (no values on either side)"
    assert found.html is None


def test_numbers_and_categories_have_limits_of_their_own(compared: Compare) -> None:
    x = np.arange(ROWS) / 7
    reference, current = {"x": x, "t": ["a"] * ROWS}, {"x": x + np.std(x), "t": ["b"] * ROWS}
    found = compared(reference, current, threshold=2.0, categorical_threshold=0.3).report
    assert [(column.column, column.threshold, column.is_drifted) for column in found.columns] == [
        ("x", 2.0, False),
        ("t", 0.3, True),
    ]


def test_a_column_that_froze_gives_a_score_and_no_warning(compared: Compare) -> None:
    x = np.arange(ROWS) / 7
    found = compared({"x": x, "y": x}, {"x": [3.0] * ROWS, "y": x})
    assert [column.is_drifted for column in found.report.columns] == [True, False]
