"""The facts of one night, and whether they are worth a mail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from scoring.checks.report import ExpectationResult, Verdict
from scoring.monitoring.report import ColumnDrift, DecisionKind
from scoring.throughput.report import Totals

QUARANTINE_ALARM: Final = 0.5
"""Part of the quarantine limit from which a night is worth a mail for its quarantined rows alone.

Real input always has a few broken rows: a mail for each such night would soon be read by nobody. From half of the limit
on, a worse night may stop scoring altogether, and there is still time to prevent it.
"""


class Occasion(StrEnum):
    """Why a night is told, the most pressing first."""

    FAILED = "failed"
    """Nothing was published, because a step failed."""
    HELD_BACK = "held_back"
    """Nothing was published, because a critical check failed."""
    INCOMPLETE = "incomplete"
    """Published, but a later step failed."""
    RETRAIN = "retrain"
    """The drift decision started retraining."""
    NOTIFY = "notify"
    """The drift decision asks for the owner's attention."""
    CHECK_WARNING = "check_warning"
    """Published, with expectations of severity warning that failed."""
    QUARANTINE = "quarantine"
    """Published, with quarantined rows near their limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """The facts of one night, as the owner is told them. None and empty mean: not known for this night."""

    deployment: str
    partition: str
    run_id: str
    team: str
    recipients: tuple[str, ...]
    is_published: bool
    error: str = ""
    """What failed, expected, got and what to do, in one sentence; empty when no step failed."""

    rows: int | None = None
    quarantined: int | None = None
    max_quarantined_share: float = 0.0
    quarantine_path: str = ""
    rows_per_s: float | None = None
    seconds: float | None = None
    totals: Totals | None = None
    """What scoring took."""
    devices: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """What an operator should look at although nothing failed, in sentences: a slow run, a missing GPU."""
    model_versions: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    checks: Verdict | None = None
    failed_expectations: tuple[ExpectationResult, ...] = ()
    """Critical ones first."""

    decision: DecisionKind = DecisionKind.NONE
    reasons: tuple[str, ...] = ()
    """Why the decision was taken."""
    reference: str = ""
    """The reference period, in words."""
    share_of_drifted_columns: float | None = None
    drift_share_threshold: float | None = None
    drifted_columns: tuple[ColumnDrift, ...] = ()
    """Those furthest above their thresholds first."""
    roc_auc: float | None = None
    log_loss: float | None = None
    baseline_roc_auc: float | None = None
    """ROC-AUC on the hold-out nights at training."""
    max_roc_auc_drop: float | None = None
    needs_approval: bool = False
    """A person approves before a challenger is promoted."""

    links: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Label to address, or to words that say where the thing lies when no address is known."""
    chart: bytes | None = None
    """PNG of how drift went over the last nights."""

    @property
    def quarantined_share(self) -> float:
        """Share of the night's rows that were quarantined."""
        total = (self.rows or 0) + (self.quarantined or 0)
        return (self.quarantined or 0) / total if total else 0.0

    @property
    def is_drifted(self) -> bool:
        """Whether the share of drifted columns reached its limit."""
        share, limit = self.share_of_drifted_columns, self.drift_share_threshold
        return share is not None and limit is not None and share >= limit

    @property
    def is_degraded(self) -> bool:
        """Whether ROC-AUC fell by more than is allowed."""
        if self.roc_auc is None or self.baseline_roc_auc is None or self.max_roc_auc_drop is None:
            return False
        return self.roc_auc < self.baseline_roc_auc - self.max_roc_auc_drop


def occasions(night: Night) -> tuple[Occasion, ...]:
    """Return what there is to tell about a night, the most pressing first; empty for a quiet good night.

    A warning alone, of a slow run for instance, is no occasion: the predictions are right and in place, and their owner
    can do nothing about the machine. It stands in mails that are sent anyway; operators see it in the page in Airflow
    and in `scoring status`.
    """
    if not night.is_published:
        return (Occasion.HELD_BACK if night.checks is Verdict.FAILED else Occasion.FAILED,)
    alarm = QUARANTINE_ALARM * night.max_quarantined_share
    found = {
        Occasion.INCOMPLETE: bool(night.error),
        Occasion.RETRAIN: night.decision is DecisionKind.RETRAIN,
        Occasion.NOTIFY: night.decision is DecisionKind.NOTIFY,
        Occasion.CHECK_WARNING: night.checks in {Verdict.WARNING, Verdict.FAILED},
        Occasion.QUARANTINE: bool(night.quarantined) and night.quarantined_share >= alarm,
    }
    return tuple(occasion for occasion, applies in found.items() if applies)


def worth_telling(night: Night) -> bool:
    """Say whether the owner gets a mail about the night: quiet good nights send nothing."""
    return bool(occasions(night))
