"""What the checks found, as values of our own: no Great Expectations and no pandas here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from scoring.formats import check_format

FORMAT_VERSION: Final = 1


class Severity(StrEnum):
    """What a failed expectation means."""

    CRITICAL = "critical"
    """Nothing is published."""
    WARNING = "warning"
    """The partition is published, and the report says so."""


class Verdict(StrEnum):
    """What a report means for its partition; from best to worst."""

    PASSED = "passed"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ExpectationResult:
    """One expectation and what was seen."""

    expectation: str
    """Great Expectations' name, like `expect_column_values_to_not_be_null`."""
    column: str | None
    """The column, several as `a, b`; None when the expectation is about the table."""
    severity: Severity
    passed: bool
    expected: str
    """A sentence for people."""
    observed: str
    """A sentence for people; says why when the expectation could not be checked."""
    unexpected_count: int | None = None
    """Rows (or distinct values) that break the expectation; None when it does not look at single ones."""
    unexpected_share: float | None = None
    """`unexpected_count` as share of the rows that count: nulls do not, unless the expectation is about nulls."""
    examples: tuple[str, ...] = ()
    """A few unexpected values."""

    @property
    def blocks(self) -> bool:
        """Whether this result alone stops publication."""
        return not self.passed and self.severity is Severity.CRITICAL


@dataclass(frozen=True, slots=True)
class QualityReport:
    """All results of one suite on one table."""

    suite: str
    rows: int
    results: tuple[ExpectationResult, ...]
    """In the order of the suite."""

    @property
    def failures(self) -> tuple[ExpectationResult, ...]:
        """The failed results, critical ones first."""
        failed = [result for result in self.results if not result.passed]
        return tuple(sorted(failed, key=lambda result: result.severity is not Severity.CRITICAL))

    @property
    def blocks(self) -> bool:
        """Whether a critical expectation failed, so that nothing may be published."""
        return any(result.blocks for result in self.results)

    @property
    def verdict(self) -> Verdict:
        """The report in one word."""
        if self.blocks:
            return Verdict.FAILED
        return Verdict.WARNING if self.failures else Verdict.PASSED

    def to_json(self) -> dict[str, Any]:
        """Return a document that `json.dumps` takes and `from_json` reads."""
        return {"format_version": FORMAT_VERSION, "verdict": str(self.verdict), **asdict(self)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> QualityReport:
        """Return the report that `to_json` wrote.

        Raises:
            ContractError: the document has another format version.
        """
        check_format(document, FORMAT_VERSION, "the quality report")
        results = tuple(
            ExpectationResult(
                **{**result, "severity": Severity(result["severity"]), "examples": tuple(result["examples"])}
            )
            for result in document["results"]
        )
        return cls(suite=document["suite"], rows=document["rows"], results=results)


def worst(reports: Iterable[QualityReport]) -> Verdict:
    """Return the worst verdict of several reports; without any, `passed`."""
    ranking = list(Verdict)
    return max((report.verdict for report in reports), key=ranking.index, default=Verdict.PASSED)
