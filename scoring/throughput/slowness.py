"""Whether a run was slower than runs like it, and which part of the work made it so. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final

from scoring.throughput.report import MILLION, PARTS, Totals, Usual
from scoring.throughput.wording import duration, rate

SLOW_SHARE: Final = 0.5
"""Part of the usual speed under which a run is called slow."""
MIN_RUNS: Final = 3
"""Runs that make something usual: the median of two is no more than the mean of a good and a bad night."""
MAX_RUNS: Final = 10
"""The newest of the runs like it that a run is compared with."""
MAX_ROWS_RATIO: Final = 2.0
"""How many times as many rows a comparable run may have: the start of the workers takes most of a small night."""
GROWN: Final = 1.5
"""Times the usual from which something counts as a reason."""
NAMED_SHARE: Final = 0.25
"""Share of the additional work from which a part of it is named."""


def usual_of(now: Totals, earlier: Iterable[Totals]) -> Usual | None:
    """Return what runs like `now` took; None if there are too few.

    A run that went on from an attempt that was killed is compared with none: the few splits that were left over say
    little about its speed.

    Args:
        now: the run.
        earlier: runs under the same conditions, the newest first.
    """
    if now.splits_resumed:
        return None
    like = [run for run in earlier if _is_like(run, now)][:MAX_RUNS]
    speeds = [run.rows_per_s for run in like if run.rows_per_s is not None]
    if len(speeds) < MIN_RUNS:
        return None
    return Usual(
        runs=len(like),
        rows_per_s=median(speeds),
        per_million={name: median(run.per_million(name) for run in like) for name in (*PARTS, "wall_s")},
        workers=median(run.workers for run in like),
        skew=median(run.skew for run in like),
    )


def slow_against(now: Totals, usual: Usual | None) -> str | None:
    """Return a sentence with numbers and the likely reason if a run was slow; None if it was not."""
    if usual is None or now.rows_per_s is None or now.rows_per_s >= SLOW_SHARE * usual.rows_per_s:
        return None
    seconds = f"in {duration(now.seconds)} instead of {duration(now.rows / usual.rows_per_s)}"
    return (
        f"scored {rate(now.rows_per_s)}, less than half of the median of the last {usual.runs} runs like it "
        f"({rate(usual.rows_per_s)}), {seconds}: {_reason(now, usual)}"
    )


def _is_like(run: Totals, now: Totals) -> bool:
    is_whole = not run.splits_resumed and run.rows_per_s is not None
    return is_whole and max(run.rows, now.rows) <= MAX_ROWS_RATIO * min(run.rows, now.rows)


def _reason(now: Totals, usual: Usual) -> str:
    """Say what grew most: the work for a row, or what keeps the work from being done side by side."""
    parts = _grown_parts(now, usual)
    if parts:
        return " and ".join(_compared(name, now, usual) for name in parts)
    if now.workers * GROWN <= usual.workers:
        workers = "1 worker" if now.workers == 1 else f"{now.workers:,} workers"
        return f"{workers} did the work (usually {usual.workers:,.0f})"
    if now.skew >= GROWN * usual.skew:
        return f"the longest split took {now.skew:.1f} times as long as the median one (usually {usual.skew:.1f})"
    if now.per_million("wall_s") >= GROWN * usual.per_million["wall_s"]:
        return "splits took longer, but not their reading, predicting and writing: look at what opens and closes files"
    return "its splits took no longer than usual, so tasks waited for free cores"


def _grown_parts(now: Totals, usual: Usual) -> Sequence[str]:
    """Return the parts that account for more work per row, the worst first; none if there is hardly more work."""
    if sum(map(now.per_million, PARTS)) < GROWN * sum(usual.per_million[name] for name in PARTS):
        return ()
    more = {name: now.per_million(name) - usual.per_million[name] for name in PARTS}
    limit = NAMED_SHARE * sum(grown for grown in more.values() if grown > 0)
    return [name for name in sorted(PARTS, key=lambda name: -more[name]) if more[name] >= limit]


def _compared(name: str, now: Totals, usual: Usual) -> str:
    """Compare the work on a part with what is usual for as many rows."""
    before = usual.per_million[name] * now.rows / MILLION
    return f"{PARTS[name]} took {duration(getattr(now, name))} of work (usually {duration(before)})"
