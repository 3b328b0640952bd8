"""The run report as one page that people read: self-contained HTML without scripts, every value escaped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from scoring import page
from scoring.throughput.report import PARTS, RunReport, SplitReport, Totals
from scoring.throughput.wording import details, duration, size, speed

SHOWN_SPLITS: Final = 50
"""The slowest splits, which the page lists; `report.json` has all."""
PAGE: Final = "run/report.html"
"""Where the run record keeps the page."""
_TEMPLATE: Final = "throughput/page.html"


@dataclass(frozen=True, slots=True)
class Slice:
    """One part of the work, as a piece of a bar."""

    name: str
    seconds: float
    percent: float
    """Of the whole work."""


def render(report: RunReport) -> str:
    """Return the page about one run: its speed, where the time went, and its slowest splits."""
    totals = report.totals
    shown = report.slowest(SHOWN_SPLITS)
    return page.render(
        _TEMPLATE,
        filters={"duration": duration, "size": size, "slices": slices},
        report=report,
        headline=speed(totals, report.usual),
        facts={
            "Deployment": report.deployment,
            "Partition": report.partition,
            "Rows": f"{totals.rows:,}",
            "Quarantined": f"{totals.quarantined:,}",
            **{label: text for label, text in details(totals, report.devices).items() if label != "Work"},
            "Compared with runs on": report.conditions,
            "Run": report.run_id,
        },
        parts=PARTS,
        shown=shown,
        longest_s=max(split.wall_s for split in shown),
    )


def slices(work: Totals | SplitReport) -> list[Slice]:
    """Return the parts of the work that took any time."""
    seconds = {word: getattr(work, name) for name, word in PARTS.items()}
    total = sum(seconds.values())
    return [Slice(word, part, 100 * part / total) for word, part in seconds.items() if part > 0]
