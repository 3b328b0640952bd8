"""Quality reports as one page that people read: self-contained HTML without scripts, every value escaped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from scoring import page
from scoring.checks.report import QualityReport, Verdict, worst
from scoring.checks.wording import counted

_TEMPLATE: Final = "checks/page.html"
_HEADLINES: Final = {
    Verdict.PASSED: "All checks passed",
    Verdict.WARNING: "Passed with warnings",
    Verdict.FAILED: "Publication blocked",
}


def render(
    reports: Sequence[QualityReport],
    *,
    deployment: str,
    partition: str,
    run_id: str,
    rows: int,
    quarantined: int,
) -> str:
    """Return the page about all reports of one run: verdict first, then the worst suite, in each the failures first."""
    verdict = worst(reports)
    return page.render(
        _TEMPLATE,
        filters={"counted": counted},
        reports=sorted(reports, key=lambda report: list(Verdict).index(report.verdict), reverse=True),
        verdict=verdict,
        headline=_HEADLINES[verdict],
        summary=_summary(reports),
        facts={
            "Deployment": deployment,
            "Partition": partition,
            "Rows": f"{rows:,}",
            "Quarantined": f"{quarantined:,}",
            "Run": run_id,
        },
    )


def _summary(reports: Sequence[QualityReport]) -> str:
    results = [result for report in reports for result in report.results]
    if not results:
        return "The deployment has no expectation suites."
    critical = sum(result.blocks for result in results)
    warnings = sum(not result.passed for result in results) - critical
    parts = [
        f"{counted(critical, 'critical check')} failed" if critical else "",
        counted(warnings, "warning") if warnings else "",
        f"{counted(len(results) - critical - warnings, 'check')} passed",
    ]
    return ", ".join(filter(None, parts))
