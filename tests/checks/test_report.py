"""Verdicts, and the JSON that later releases must still read."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from scoring.checks.report import ExpectationResult, QualityReport, Severity, Verdict, worst
from scoring.errors import ContractError

GOLDEN = Path(__file__).parent / "golden" / "report_v1.json"
GOOD = ExpectationResult("expect_column_to_exist", "score", Severity.CRITICAL, True, "exists", "found")
CRITICAL = replace(GOOD, passed=False)
WARNING = replace(GOOD, passed=False, severity=Severity.WARNING)


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        ((), Verdict.PASSED),
        ((GOOD,), Verdict.PASSED),
        ((GOOD, WARNING), Verdict.WARNING),
        ((WARNING, CRITICAL, GOOD), Verdict.FAILED),
    ],
)
def test_verdict(results: tuple[ExpectationResult, ...], verdict: Verdict) -> None:
    report = QualityReport("output", 3, results)
    assert report.verdict is verdict
    assert report.blocks is (verdict is Verdict.FAILED)


def test_failures_begin_with_the_critical_ones() -> None:
    assert QualityReport("output", 3, (WARNING, GOOD, CRITICAL)).failures == (CRITICAL, WARNING)


def test_worst_of_several_reports() -> None:
    def report(*results: ExpectationResult) -> QualityReport:
        return QualityReport("output", 3, results)

    assert worst([]) is Verdict.PASSED
    assert worst([report(WARNING), report(GOOD)]) is Verdict.WARNING
    assert worst([report(GOOD), report(CRITICAL), report(WARNING)]) is Verdict.FAILED


def test_version_1_still_loads_and_is_still_written() -> None:
    document = json.loads(GOLDEN.read_text("utf-8"))
    report = QualityReport.from_json(document)
    assert report.results[0].severity is Severity.CRITICAL
    assert report.results[0].examples == ("1.5", "-0.2")
    assert json.loads(json.dumps(report.to_json(), allow_nan=False)) == document
    assert pickle.loads(pickle.dumps(report)) == report


def test_other_format_version_is_an_error() -> None:
    document = json.loads(GOLDEN.read_text("utf-8")) | {"format_version": 2}
    with pytest.raises(ContractError, match=r"expected format_version 1, got 2\. It was written by another release"):
        QualityReport.from_json(document)
