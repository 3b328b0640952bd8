"""ROC-AUC and log loss of published scores, once the labels of their partitions have arrived."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scoring.errors import examples, listed
from scoring.monitoring.report import Performance
from scoring.monitoring.window import as_date

PROBABILITY_MARGIN: Final = 1e-7
"""Probabilities are kept this far from 0 and 1, so that one sure mistake does not make the log loss infinite."""


@dataclass(frozen=True, slots=True)
class LabelArrival:
    """Which partitions have labels at the time of a night."""

    arrived: tuple[str, ...]
    overdue: tuple[str, ...]
    """Due by now, but not there."""
    not_due: tuple[str, ...]
    """Due later; not used even if they are there, so that a backfill does not see the future."""

    @property
    def reason(self) -> str | None:
        """Why labels are missing, as a sentence without full stop; None if all have arrived."""
        if self.overdue:
            partitions = "1 partition" if len(self.overdue) == 1 else f"{len(self.overdue)} partitions"
            return f"labels of {partitions} are overdue: {listed(self.overdue)}"
        if self.not_due:
            return f"labels are not due yet for {listed(self.not_due)}"
        return None


def arrived_labels(existing: Collection[str], wanted: Iterable[str], *, as_of: str, delay_days: int) -> LabelArrival:
    """Sort the `wanted` partitions by whether their labels have arrived when partition `as_of` is processed.

    Args:
        existing: partitions of the labels that are there now.
        wanted: partitions whose labels are asked for.
        as_of: the partition being processed, which stands for the present.
        delay_days: labels of partition P are due on day P + delay_days.
    """
    present = as_date(as_of)
    due: dict[str, bool] = {
        partition: as_date(partition) + timedelta(days=delay_days) <= present for partition in sorted(set(wanted))
    }
    return LabelArrival(
        arrived=tuple(partition for partition, is_due in due.items() if is_due and partition in existing),
        overdue=tuple(partition for partition, is_due in due.items() if is_due and partition not in existing),
        not_due=tuple(partition for partition, is_due in due.items() if not is_due),
    )


def measure(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    first: str,
    last: str,
    baseline_roc_auc: float | None = None,
    min_rows: int = 1,
) -> Performance:
    """Return how well `scores` agree with binary `labels` (0 and 1, row by row); rows that lack either are left out.

    Args:
        scores: one number per row, higher for label 1.
        labels: 0, 1, false, true, or missing (NaN, None).
        first: first partition of the rows.
        last: last partition of the rows.
        baseline_roc_auc: the champion's ROC-AUC on the hold-out nights.
        min_rows: with fewer rows nothing is measured.
    """
    found, truth = _numbers(scores), _numbers(labels)
    if found is None or truth is None:
        return Performance(0, first, last, baseline_roc_auc=baseline_roc_auc, skipped=_not_numbers(scores, labels))
    known = ~(np.isnan(found) | np.isnan(truth))
    found, truth = found[known], truth[known]
    skipped = _obstacle(truth, min_rows)
    if skipped is not None:
        return Performance(found.size, first, last, baseline_roc_auc=baseline_roc_auc, skipped=skipped)

    from sklearn.metrics import log_loss, roc_auc_score

    ranked = np.nan_to_num(found)
    is_probability = bool(((found >= 0) & (found <= 1)).all())
    clipped = np.clip(found, PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    return Performance(
        rows=found.size,
        first=first,
        last=last,
        roc_auc=float(roc_auc_score(truth, ranked)),
        log_loss=float(log_loss(truth, clipped)) if is_probability else None,
        baseline_roc_auc=baseline_roc_auc,
    )


def _numbers(values: npt.ArrayLike) -> npt.NDArray[np.float64] | None:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return None


def _not_numbers(scores: npt.ArrayLike, labels: npt.ArrayLike) -> str:
    what, values = ("scores", scores) if _numbers(scores) is None else ("labels", labels)
    shown: list[Any] = sorted({str(value) for value in np.asarray(values, dtype=object)})
    return f"the {what} are not numbers: {examples(shown)}"


def _obstacle(labels: npt.NDArray[np.float64], min_rows: int) -> str | None:
    if labels.size < min_rows:
        return f"expected at least {min_rows} rows with score and label, got {labels.size}"
    classes = np.unique(labels)
    if not np.isin(classes, (0.0, 1.0)).all():
        return f"expected labels 0 and 1, got {examples(classes.tolist())}"
    if classes.size < 2:
        return f"all {labels.size} labels are {int(classes[0])}" if classes.size else "no row has score and label"
    return None
