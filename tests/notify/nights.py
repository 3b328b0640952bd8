from __future__ import annotations

from pathlib import Path

from scoring.checks.report import ExpectationResult, Severity
from scoring.deployment import Deployment, parse
from scoring.monitoring.report import ColumnDrift, ColumnKind, DriftMethod, DriftReport


def make_deployment(folder: Path, *, emails: str = "[anna@example.com, flight-data@example.com]") -> Deployment:
    """A deployment with drift, named after its folder."""
    return parse(
        f"""
        name: {folder.name}
        owner: {{team: Flight data, email: {emails}}}
        input: {{path: /lake/flights, partition: flight_date, keys: [flight_id], max_quarantined_share: 0.05}}
        output: {{path: /lake/predictions}}
        score: {{model: "models:/trees@champion"}}
        drift: {{reference: {{first: 2013-01-01, last: 2013-03-31}}}}
        """,
        folder=folder,
    )


def failed(
    *, severity: Severity = Severity.WARNING, column: str | None = "temp", seen: str = "12 of 990"
) -> ExpectationResult:
    """An expectation that was not met."""
    return ExpectationResult(
        expectation="expect_column_values_to_be_between",
        column=column,
        severity=severity,
        passed=False,
        expected="values from -30 to 45",
        observed=f"{seen} outside, for instance 112.3",
    )


def drifted(column: str, score: float) -> ColumnDrift:
    """A column over its threshold."""
    return ColumnDrift(column, ColumnKind.NUMERIC, DriftMethod.WASSERSTEIN, score, 0.1, is_drifted=score >= 0.1)


def drift_report(deployment: str = "flight_delays", partition: str = "2013-07-05") -> DriftReport:
    """Four of ten columns drifted."""
    scores = {"temp": 2.31, "dewp": 1.92, "hour": 0.41, "humid": 0.2} | {f"calm_{n}": 0.01 for n in range(6)}
    columns = tuple(drifted(column, score) for column, score in scores.items())
    return DriftReport(
        *(deployment, partition, "2013-01-01", "2013-03-31", "2013-06-29", partition, 5000, 5000, columns)
    )
