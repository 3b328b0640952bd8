"""The small chart of a mail: how the share of drifted columns went, and which columns drifted most tonight."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Final

from scoring.monitoring.columns import readable
from scoring.monitoring.policy import PastNight
from scoring.monitoring.report import DriftReport
from scoring.monitoring.window import as_date

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_PX: Final = 600
HEIGHT_PX: Final = 220
DPI: Final = 100
MAX_NIGHTS: Final = 14
MAX_BARS: Final = 5
MAX_NAME_CHARS: Final = 16
MAX_TIMES_LIMIT: Final = 10
"""Bars longer than so many thresholds are cut; the number beside them is not."""
CALM: Final = "#4c78a8"
OVER: Final = "#c8553d"
GREY: Final = "#6b6b6b"


def drift_chart(report: DriftReport, history: Sequence[PastNight], *, drift_share_threshold: float) -> bytes:
    """Return a PNG picture of `WIDTH_PX` x `HEIGHT_PX`.

    Args:
        report: tonight's drift; may be a skipped one.
        history: earlier nights in any order, of which the last are shown.
        drift_share_threshold: limit of the share of drifted columns.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot: it keeps every figure in a global list and chooses a backend for the whole process.
    figure = Figure(figsize=(WIDTH_PX / DPI, HEIGHT_PX / DPI), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    shares, columns = figure.subplots(1, 2, width_ratios=(1, 1))
    _draw_shares(shares, report, history, limit=drift_share_threshold)
    _draw_columns(columns, report)
    for axes in (shares, columns):
        axes.tick_params(labelsize=8, length=2)
        axes.spines[["top", "right"]].set_visible(False)
    picture = BytesIO()
    canvas.print_png(picture)
    return picture.getvalue()


def _draw_shares(axes: Axes, report: DriftReport, history: Sequence[PastNight], *, limit: float) -> None:
    tonight = as_date(report.partition)
    shown = {night.partition: night.share_of_drifted_columns for night in history if night.partition < tonight}
    shown[tonight] = report.share_of_drifted_columns
    nights = sorted(shown)[-MAX_NIGHTS:]
    for place, night in enumerate(nights):
        share = shown[night]
        if share is None:
            axes.text(place, 2, "?", ha="center", fontsize=9, color=GREY)
        else:
            axes.bar(place, max(100 * share, 1), width=0.7, color=OVER if share >= limit else CALM)
    axes.axhline(100 * limit, color=GREY, linestyle="--", linewidth=1)
    axes.set_ylim(0, 100)
    axes.set_xlim(-0.6, max(len(nights), 5) - 0.4)
    places = sorted({0, (len(nights) - 1) // 2, len(nights) - 1} if len(nights) > 4 else {0, len(nights) - 1})
    axes.set_xticks(places, [f"{nights[place].day} {nights[place]:%b}" for place in places])
    axes.set_title(f"drifted columns per night, % (limit {100 * limit:.0f})", fontsize=9, loc="left")


def _draw_columns(axes: Axes, report: DriftReport) -> None:
    top = sorted(report.columns, key=lambda column: -column.score / column.threshold)[:MAX_BARS]
    axes.set_title("drift score tonight", fontsize=9, loc="left")
    if not top:
        axes.text(0.5, 0.5, "not compared", ha="center", va="center", transform=axes.transAxes, fontsize=9, color=GREY)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    names = readable([column.column for column in top])
    for place, column in enumerate(top):
        length = min(column.score / column.threshold, MAX_TIMES_LIMIT)
        axes.barh(place, length, height=0.7, color=OVER if column.is_drifted else CALM)
        axes.text(1.02 * length, place, f"{column.score:.2f}", va="center", fontsize=8)
    labels = (names[column.column].replace("$", r"\$") for column in top)
    axes.set_yticks(range(len(top)), [_short(label) for label in labels])
    axes.set_ylim(MAX_BARS - 0.4, -0.6)
    longest = max(top[0].score / top[0].threshold, 1)
    axes.set_xlim(0, 1.2 * min(longest, MAX_TIMES_LIMIT))
    axes.axvline(1, color=GREY, linestyle="--", linewidth=1)
    axes.set_xticks([1], [f"limit {top[0].threshold:g}"])


def _short(label: str) -> str:
    return label if len(label) <= MAX_NAME_CHARS else label[: MAX_NAME_CHARS - 1] + "…"
