"""Decides how a column is compared, from its Arrow types and its reference values: nothing is left to guessing.

numbers                                   Wasserstein distance in standard deviations of the reference
text, booleans, integers of few values    Jensen-Shannon distance of the categories' shares
numbers whose missing share has changed   Jensen-Shannon distance of missing and present
numbers that are constant in reference    Jensen-Shannon distance of that value and all others
dates, times, lists, structs, binary      skipped, with a reason
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from scoring.errors import MAX_EXAMPLE_CHARS
from scoring.monitoring.report import ColumnKind, DriftMethod, SkippedColumn

MAX_CODES: Final = 20
"""Integers with at most so many different values in the reference are codes (a month, a flag), not quantities."""
MAX_CATEGORIES: Final = 50
"""More bars than this cannot be read in a chart."""
MIN_CATEGORIES: Final = 3
MISSING: Final = "(missing)"
PRESENT: Final = "(present)"
OTHER: Final = "(other)"
EMPTY: Final = "(empty)"
HARMLESS: Final = str.maketrans({"<": "\u2039", ">": "\u203a", "&": "\uff06"})
"""Characters that look like those of HTML, and mean nothing in it."""
LARGEST: Final = 1e100
"""Larger numbers are cut to this, so that their squares stay finite."""
MAX_DISTANCE: Final = 1e6
"""Values further from the reference mean than this, in standard deviations, are cut to it."""
DRAWABLE: Final = (1e-3, 1e6)
"""Standard deviations that need no scaling: Evidently divides by none below, histograms lose their bins far above."""

ROUNDED: Final = 7
"""Decimals of a standard deviation that are kept; a histogram cannot be drawn over smaller differences."""
SAME: Final = 1e-12
"""Numbers that differ by less, relatively, are one number computed in two ways."""
SMALLEST: Final = 1e-250
"""Smaller spreads are none."""

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class PreparedColumn:
    """A column in the form in which it is compared: float64 with NaN, or text without nulls."""

    column: str
    kind: ColumnKind
    method: DriftMethod
    reference: Floats | Labels
    current: Floats | Labels
    note: str = ""


def prepare(
    column: str, reference: pa.ChunkedArray, current: pa.ChunkedArray, *, threshold: float
) -> PreparedColumn | SkippedColumn:
    """Return a column in the form in which it is compared, or why it is not compared.

    Args:
        column: its name.
        reference: its values in the reference window, at least one row.
        current: its values in the current window, at least one row.
        threshold: Jensen-Shannon distance from which a categorical column counts as drifted.
    """
    if reference.null_count == len(reference) and current.null_count == len(current):
        return SkippedColumn(column, "no values on either side")
    types = [_value_type(side.type) for side in (reference, current)]
    # A column without any value may be typed `null`: it is understood as the other side's.
    kinds = {_kind(found) for found in types if not pa.types.is_null(found)}
    if None in kinds:
        unsupported = next(found for found in types if _kind(found) is None)
        return SkippedColumn(column, f"values of type {unsupported} are not compared")
    if len(kinds) > 1:
        return SkippedColumn(column, f"its type is {types[0]} in the reference, {types[1]} in the current window")
    if kinds == {ColumnKind.CATEGORICAL}:
        return _categorical(column, _text(reference), _text(current), threshold=threshold)
    return _numeric(
        column,
        _finite(reference),
        _finite(current),
        is_integer=all(pa.types.is_integer(found) for found in types),
        threshold=threshold,
    )


def categories_told_apart(reference_rows: int, current_rows: int, *, threshold: float) -> int:
    """Return how many categories can be compared before chance alone comes near the threshold.

    Two samples of n and m rows from the same k categories have a squared Jensen-Shannon distance of about
    (k - 1) / 8 * (1/n + 1/m); k is chosen so that chance stays below half the threshold.
    """
    most = 1 + 8 * (threshold / 2) ** 2 / (1 / reference_rows + 1 / current_rows)
    return int(np.clip(most, MIN_CATEGORIES, MAX_CATEGORIES))


def readable(names: Sequence[str]) -> dict[str, str]:
    """Return a short label for each name, all different, without the characters that mean something in HTML.

    Evidently writes names and categories into a script on its page without escaping them.
    """
    labels: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        short = name if len(name) <= MAX_EXAMPLE_CHARS else name[: MAX_EXAMPLE_CHARS - 1] + "…"
        label = base = short.translate(HARMLESS) or EMPTY
        number = 2
        while label in taken:
            label, number = f"{base} #{number}", number + 1
        taken.add(label)
        labels[name] = label
    return labels


def _value_type(found: pa.DataType) -> pa.DataType:
    return found.value_type if pa.types.is_dictionary(found) else found


def _kind(found: pa.DataType) -> ColumnKind | None:
    if pa.types.is_boolean(found) or any(
        check(found) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    ):
        return ColumnKind.CATEGORICAL
    if pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_decimal(found):
        return ColumnKind.NUMERIC
    return None


def _text(values: pa.ChunkedArray) -> Labels:
    text: Labels = pc.cast(values, pa.large_string()).fill_null(MISSING).to_numpy()
    return text


def _finite(values: pa.ChunkedArray) -> Floats:
    """Return float64 values; null and infinite ones become NaN."""
    decoded = pc.cast(values, _value_type(values.type))
    numbers = pc.cast(decoded, pa.float64(), safe=False).to_numpy().astype(np.float64)
    return np.clip(np.where(np.isfinite(numbers), numbers, np.nan), -LARGEST, LARGEST)


def _numeric(
    column: str, reference: Floats, current: Floats, *, is_integer: bool, threshold: float
) -> PreparedColumn | SkippedColumn:
    missing = np.isnan(reference).mean(), np.isnan(current).mean()
    if min(missing) == 1:
        return SkippedColumn(column, "no values on either side")
    if max(missing) == 1 or _missing_distance(*missing) >= threshold:
        return PreparedColumn(
            column,
            ColumnKind.NUMERIC,
            DriftMethod.MISSING,
            reference=np.where(np.isnan(reference), MISSING, PRESENT).astype(object),
            current=np.where(np.isnan(current), MISSING, PRESENT).astype(object),
            note=f"missing: {100 * missing[0]:.1f} % in the reference, {100 * missing[1]:.1f} % now",
        )
    distinct = np.unique(reference[~np.isnan(reference)])
    if is_integer and distinct.size <= MAX_CODES:
        return _categorical(column, _codes(reference), _codes(current), threshold=threshold)
    mean, spread = float(distinct[0] if distinct.size == 1 else np.nanmean(reference)), float(np.nanstd(reference))
    if distinct.size == 1 or spread <= max(SAME * abs(mean), SMALLEST):
        return _constant(column, reference, current, value=mean)
    return _scaled(column, reference, current, mean=mean, spread=spread)


def _constant(column: str, reference: Floats, current: Floats, *, value: float) -> PreparedColumn:
    """Compare `value` with all others: without a spread no distance is large or small."""

    def labels(side: Floats) -> Labels:
        same = np.where(np.isclose(side, value, rtol=10 * SAME, atol=10 * SMALLEST), f"{value:g}", OTHER)
        return np.where(np.isnan(side), MISSING, same).astype(object)

    note = f"always {value:g} in the reference"
    return PreparedColumn(
        column, ColumnKind.NUMERIC, DriftMethod.JENSEN_SHANNON, labels(reference), labels(current), note
    )


def _scaled(column: str, reference: Floats, current: Floats, *, mean: float, spread: float) -> PreparedColumn:
    """Return values that can be drawn: none too far, and differences neither too small to see nor mere rounding."""
    shift = mean if abs(mean) > MAX_DISTANCE * spread else 0.0
    exponent = 0 if DRAWABLE[0] <= spread <= DRAWABLE[1] else -math.floor(math.log10(spread))
    notes = [f"shown minus {shift:g}"] * bool(shift) + [f"shown times 1e{exponent}"] * bool(exponent)
    furthest = MAX_DISTANCE * spread

    def drawable(side: Floats) -> Floats:
        shifted = np.clip(side, mean - furthest, mean + furthest) - shift
        return np.round(shifted / spread, ROUNDED) * (spread * 10.0**exponent)

    return PreparedColumn(
        column,
        ColumnKind.NUMERIC,
        DriftMethod.WASSERSTEIN,
        drawable(reference),
        drawable(current),
        ", ".join(notes),
    )


def _codes(values: Floats) -> Labels:
    return np.array([MISSING if np.isnan(value) else str(int(value)) for value in values], dtype=object)


def _categorical(column: str, reference: Labels, current: Labels, *, threshold: float) -> PreparedColumn:
    shares: dict[Any, float] = {}
    for side in (reference, current):
        values, counts = np.unique(side, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            shares[value] = shares.get(value, 0.0) + count / side.size
    most = categories_told_apart(reference.size, current.size, threshold=threshold)
    kept, note = sorted(shares), ""
    if len(shares) > most:
        kept = sorted(sorted(shares, key=lambda value: (-shares[value], value))[: most - 1])
        note = f"{len(shares)} categories, all but the {len(kept)} most frequent taken as one"
    names = readable(kept)

    def labels(side: Labels) -> Labels:
        return np.array([names.get(value, OTHER) for value in side.tolist()], dtype=object)

    return PreparedColumn(
        column, ColumnKind.CATEGORICAL, DriftMethod.JENSEN_SHANNON, labels(reference), labels(current), note
    )


def _missing_distance(reference: float, current: float) -> float:
    from scipy.spatial.distance import jensenshannon

    return float(jensenshannon([reference, 1 - reference], [current, 1 - current]))
