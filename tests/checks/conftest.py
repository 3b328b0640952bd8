"""Suites written to files, and the shortest way to run a few expectations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scoring.checks.report import ExpectationResult, QualityReport, Severity
from scoring.checks.suite import Expectation, Suite, load_suite

if TYPE_CHECKING:
    import pyarrow as pa


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Suite]:
    """Return a function that loads a suite from the text of its file."""

    def loaded(text: str) -> Suite:
        file = tmp_path / "suite.yaml"
        file.write_text(text, "utf-8")
        return load_suite(file, name="output")

    return loaded


@pytest.fixture(scope="session")
def run_suite() -> Callable[[Suite, pa.Table], QualityReport]:
    """Return `run_suite`; its module takes seconds to import, so tests that do not need it do not wait."""
    from scoring.checks.gx import run_suite

    return run_suite


@pytest.fixture(scope="session")
def check(run_suite: Callable[[Suite, pa.Table], QualityReport]) -> Callable[..., ExpectationResult]:
    """Return a function that runs one expectation on a table."""

    def checked(
        table: pa.Table, expectation: str, severity: Severity = Severity.CRITICAL, /, **kwargs: Any
    ) -> ExpectationResult:
        suite = Suite("output", Path("suite.yaml"), (Expectation(expectation, kwargs, severity),))
        return run_suite(suite, table).results[0]

    return checked
