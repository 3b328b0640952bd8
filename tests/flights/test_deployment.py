from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import wasserstein_distance

from scoring.checks.report import QualityReport, Severity
from scoring.checks.suite import Suite, load_suite
from scoring.deployment import Deployment, EnsembleStep, PipelineStep
from tests.flights.partitions import FOLDER, read


def drifted(deployment: Deployment, reference: pa.Table, current: pa.Table) -> list[str]:
    """The watched input columns whose distance to the reference, in standard deviations, is over the threshold."""
    assert deployment.drift is not None
    assert deployment.drift.columns is not None
    found = []
    for name in set(deployment.drift.columns) & set(reference.column_names):
        before, now = (side[name].drop_null().to_numpy() for side in (reference, current))
        if wasserstein_distance(before, now) / np.std(before) >= deployment.drift.threshold:
            found.append(name)
    return sorted(found)


@pytest.fixture(scope="module")
def run_suite() -> Callable[[Suite, pa.Table], QualityReport]:
    """Great Expectations takes seconds to import; only the tests that need it wait."""
    from scoring.checks.gx import run_suite

    return run_suite


@pytest.fixture(scope="module")
def reference(lake: Path, deployment: Deployment) -> pa.Table:
    assert deployment.drift is not None
    period = deployment.drift.reference
    return read(lake, "flights", period.first.isoformat(), period.last.isoformat())


def test_graph_is_rules_then_three_weighted_models_then_a_decision(deployment: Deployment) -> None:
    assert isinstance(deployment.score, PipelineStep)
    *rules, ensemble, _ = deployment.score.pipeline
    assert len(rules) == 2
    assert isinstance(ensemble, EnsembleStep)
    assert ensemble.ensemble.weights == {"linear": 0.2, "trees": 0.5, "net": 0.3}


@pytest.mark.parametrize(("first", "last"), [("2013-03-29", "2013-04-04"), ("2013-04-01", "2013-04-01")])
def test_nights_that_are_still_winter_do_not_drift(
    deployment: Deployment, lake: Path, reference: pa.Table, first: str, last: str
) -> None:
    assert drifted(deployment, reference, read(lake, "flights", first, last)) == []


@pytest.mark.parametrize(
    ("first", "last"), [("2013-06-12", "2013-06-18"), ("2013-07-01", "2013-07-07"), ("2013-07-01", "2013-07-01")]
)
def test_summer_drifts_by_more_than_the_limit(
    deployment: Deployment, lake: Path, reference: pa.Table, first: str, last: str
) -> None:
    found = drifted(deployment, reference, read(lake, "flights", first, last))
    assert found == ["dewp", "temp"]
    assert deployment.drift is not None
    assert deployment.drift.columns is not None
    assert len(found) / len(deployment.drift.columns) >= deployment.drift.drift_share_threshold


# A snow storm, the one flight planned for the middle of the night, Thanksgiving, and a day without any weather.
@pytest.mark.parametrize(
    ("day", "warnings"),
    [
        ("2013-02-08", []),
        ("2013-07-27", ["sched_dep_hour"]),
        ("2013-11-28", [None]),
        ("2013-12-31", ["temp"]),
    ],
)
def test_strange_nights_pass_the_input_suite_with_warnings(
    deployment: Deployment,
    lake: Path,
    run_suite: Callable[[Suite, pa.Table], QualityReport],
    day: str,
    warnings: list[str | None],
) -> None:
    assert deployment.checks.input is not None
    suite = load_suite(FOLDER / deployment.checks.input, name="input")
    report = run_suite(suite, read(lake, "flights", day, day))
    assert [failure.column for failure in report.failures] == warnings
    assert all(failure.severity is Severity.WARNING for failure in report.failures)


@pytest.mark.parametrize(
    ("scores", "blocks"),
    [
        (np.linspace(0.02, 0.6, 900), False),
        (np.linspace(0.02, 1.2, 900), True),
        (np.full(900, 0.2), True),
        (np.full(900, np.nan), True),
        (np.linspace(0.02, 0.6, 90), True),
    ],
    ids=["ordinary", "no probabilities", "one score for all", "no scores", "too few rows"],
)
def test_output_suite_stops_what_must_not_be_published(
    deployment: Deployment,
    lake: Path,
    run_suite: Callable[[Suite, pa.Table], QualityReport],
    scores: np.ndarray,
    blocks: bool,
) -> None:
    night = read(lake, "flights", "2013-07-02", "2013-07-02").slice(0, len(scores))
    table = night.select(["flight_id", "carrier", "origin", "dest"]).append_column("score", pa.array(scores))
    table = table.append_column("is_late", pa.array(scores >= 0.35))
    assert deployment.checks.output is not None
    suite = load_suite(FOLDER / deployment.checks.output, name="output")
    assert run_suite(suite, table).blocks is blocks
