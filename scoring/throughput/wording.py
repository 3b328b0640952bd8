"""Numbers of a run as people write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from scoring.throughput.report import PARTS, Totals, Usual

MIB_PER_GIB: Final = 1024
NOTHING: Final = "0 s"


def duration(seconds: float) -> str:
    """Return a time like `0.42 s`, `3.4 s`, `42 s`, `3 min 20 s` or `2 h 5 min`."""
    if seconds < 0.005:
        return NOTHING
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def rate(rows_per_s: float) -> str:
    """Return a speed like `12,300 rows/s`."""
    return f"{rows_per_s:,.0f} rows/s" if rows_per_s >= 10 else f"{rows_per_s:.2g} rows/s"


def size(mib: float) -> str:
    """Return a size like `812 MiB` or `3.2 GiB`."""
    return f"{mib:,.0f} MiB" if mib < MIB_PER_GIB else f"{mib / MIB_PER_GIB:.1f} GiB"


def speed(totals: Totals, usual: Usual | None) -> str:
    """Return how fast a run was, and how fast runs like it are."""
    now = "all of it scored before" if totals.rows_per_s is None else rate(totals.rows_per_s)
    known = f"; usually {rate(usual.rows_per_s)} (median of {usual.runs} runs like it)" if usual else ""
    return f"{now} in {duration(totals.seconds)}{known}"


def details(totals: Totals, devices: Sequence[str]) -> Mapping[str, str]:
    """Return what a run took besides its time: label and words."""
    work = [f"{word} {took}" for name, word in PARTS.items() if (took := duration(getattr(totals, name))) != NOTHING]
    loads = f" ({totals.model_loads:,} loads)" if totals.model_loads > 1 else ""
    resumed = f", {totals.splits_resumed:,} of them from an attempt that was killed" if totals.splits_resumed else ""
    skew = f"; the longest took {totals.skew:.1f} times as long as the median one" if totals.splits > 1 else ""
    each = "each " if totals.workers > 1 else ""
    return {
        "Work": ", ".join(work) + loads,
        "Splits": f"{totals.splits:,}{resumed}{skew}",
        "Workers": f"{totals.workers:,} on {', '.join(devices)}, {each}at most {size(totals.peak_rss_mb)}",
        "Batches": f"at most {totals.batch_rows:,} rows",
    }
