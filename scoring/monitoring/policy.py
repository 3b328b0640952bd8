"""Turns drift, performance and history into a decision. Pure: the same facts always give the same decision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from scoring.deployment import Drift, Retrain, RetrainCause
from scoring.monitoring.report import Decision, DecisionKind, DriftReport, Performance

MAX_GAP_DAYS: Final = 7
"""Published nights further apart are not "in a row"; weekends and weekly partitions still are."""


@dataclass(frozen=True, slots=True)
class PastNight:
    """What one published partition showed; None: not known."""

    partition: date
    share_of_drifted_columns: float | None = None
    roc_auc: float | None = None
    baseline_roc_auc: float | None = None


@dataclass(frozen=True, slots=True)
class _Finding:
    """One measure of tonight as a sentence, and for how many nights in a row it has been over its limit."""

    cause: RetrainCause
    sentence: str
    nights: int

    @property
    def reason(self) -> str:
        if self.nights == 0:
            return self.sentence
        return f"{self.sentence}, for " + ("the first night" if self.nights == 1 else f"{self.nights} nights in a row")


def decide(
    report: DriftReport,
    performance: Performance | None,
    history: Sequence[PastNight],
    *,
    drift: Drift,
    retrain: Retrain | None,
    last_retraining: date | None,
    partition: date,
    is_backfill: bool,
) -> Decision:
    """Return what follows from this night.

    NOTIFY when a measure is over its limit tonight. RETRAIN when moreover the same measure has been over its limit
    for `drift.retrain_after` published partitions in a row, this one included, the deployment names it as a cause,
    the cooldown is over, and the run is not a backfill.

    A night in `history` without a value ends the row, as does a gap of more than `MAX_GAP_DAYS` between published
    nights: retraining needs evidence, not its absence. Nights up to the last retraining do not count again.

    Args:
        report: drift of the current window that ends with this partition.
        performance: None where the deployment has no labels.
        history: earlier published nights in any order; this night and later ones are ignored.
        drift: the limits.
        retrain: None where the deployment is never retrained.
        last_retraining: partition whose decision started the last retraining.
        partition: this night.
        is_backfill: whether the run is part of a backfill.
    """
    shares = report.share_of_drifted_columns
    measured = performance or Performance(0, "", "")
    tonight = PastNight(partition, shares, measured.roc_auc, measured.baseline_roc_auc)
    nights = [tonight, *_newest_first(history, before=partition, after=last_retraining)]
    findings = [
        _Finding(RetrainCause.DRIFT, _drift_sentence(report, drift), _in_a_row(nights, _is_drifted(drift))),
        _Finding(RetrainCause.PERFORMANCE, _performance_sentence(measured, drift), _in_a_row(nights, _is_worse(drift))),
    ]
    reasons = [finding.reason for finding in findings if finding.sentence]
    over = [finding for finding in findings if finding.nights]
    if not over:
        return Decision(DecisionKind.NONE, tuple(reasons))
    obstacle = _obstacle(
        over,
        drift=drift,
        retrain=retrain,
        last_retraining=last_retraining,
        partition=partition,
        is_backfill=is_backfill,
    )
    if obstacle is not None:
        return Decision(DecisionKind.NOTIFY, (*reasons, obstacle))
    return Decision(DecisionKind.RETRAIN, tuple(reasons))


def _obstacle(
    over: Sequence[_Finding],
    *,
    drift: Drift,
    retrain: Retrain | None,
    last_retraining: date | None,
    partition: date,
    is_backfill: bool,
) -> str | None:
    """Return why no retraining starts; None if it does."""
    if retrain is None:
        return "no retraining: the deployment has no 'retrain'"
    causes = [finding for finding in over if finding.cause in retrain.when]
    if not causes:
        return f"no retraining: 'retrain: when' does not name {' or '.join(finding.cause for finding in over)}"
    if is_backfill:
        return "no retraining: a backfill starts none"
    # Not `>=`: the night that started a retraining must not start another when it is run again.
    if last_retraining is not None and (partition - last_retraining).days <= retrain.cooldown_days:
        earliest = last_retraining + timedelta(days=retrain.cooldown_days + 1)
        return (
            f"no retraining before {earliest}: the last one was started by {last_retraining}, "
            f"and the cooldown is {_days(retrain.cooldown_days)}"
        )
    if max(finding.nights for finding in causes) < drift.retrain_after:
        return f"retraining starts after {drift.retrain_after} nights in a row"
    return None


def _newest_first(history: Sequence[PastNight], *, before: date, after: date | None) -> Iterator[PastNight]:
    by_date = {night.partition: night for night in history}
    for partition in sorted(by_date, reverse=True):
        if partition < before and (after is None or partition > after):
            yield by_date[partition]


def _in_a_row(nights: Sequence[PastNight], is_over: Callable[[PastNight], bool]) -> int:
    """Return how many nights, from the first (newest) on, are over a limit without a gap."""
    count = 0
    for night in nights:
        if not is_over(night) or (count and nights[count - 1].partition - night.partition > timedelta(MAX_GAP_DAYS)):
            break
        count += 1
    return count


def _is_drifted(drift: Drift) -> Callable[[PastNight], bool]:
    def is_over(night: PastNight) -> bool:
        share = night.share_of_drifted_columns
        return share is not None and share >= drift.drift_share_threshold

    return is_over


def _is_worse(drift: Drift) -> Callable[[PastNight], bool]:
    def is_over(night: PastNight) -> bool:
        if night.roc_auc is None or night.baseline_roc_auc is None:
            return False
        return night.roc_auc < night.baseline_roc_auc - drift.max_roc_auc_drop

    return is_over


def _drift_sentence(report: DriftReport, drift: Drift) -> str:
    share = report.share_of_drifted_columns
    if share is None:
        return f"drift was not computed: {report.skipped}"
    columns = "column" if len(report.columns) == 1 else "columns"
    return (
        f"{len(report.drifted_columns)} of {len(report.columns)} {columns} drifted "
        f"({_percent(share)}, limit {_percent(drift.drift_share_threshold)})"
    )


def _performance_sentence(performance: Performance, drift: Drift) -> str:
    if performance.skipped is not None:
        return f"performance was not measured: {performance.skipped}"
    if performance.roc_auc is None:
        return ""
    if performance.baseline_roc_auc is None:
        return f"ROC-AUC {performance.roc_auc:.3f}, with no hold-out value to compare it with"
    drop = performance.baseline_roc_auc - performance.roc_auc
    return (
        f"ROC-AUC {performance.roc_auc:.3f} is {abs(drop):.3f} {'below' if drop >= 0 else 'above'} the "
        f"{performance.baseline_roc_auc:.3f} of the hold-out nights (allowed drop {drift.max_roc_auc_drop:g})"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _days(days: int) -> str:
    return "1 day" if days == 1 else f"{days} days"
