"""Values of monitoring: drift report, performance, decision. Whoever shows them needs no drift library."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from scoring.errors import ContractError
from scoring.formats import check_format

FORMAT_VERSION: Final = 1
"""Version of the JSON documents that this module writes; raised when a reader of the old ones would go wrong."""


class ColumnKind(StrEnum):
    """How the values of a column are understood."""

    NUMERIC = "numeric"
    CATEGORICAL = "categorical"


class DriftMethod(StrEnum):
    """What a drift score measures; all are effect sizes, so more rows do not mean more drift."""

    WASSERSTEIN = "wasserstein"
    """Wasserstein distance of the values, in standard deviations of the reference."""
    JENSEN_SHANNON = "jensenshannon"
    """Jensen-Shannon distance of the categories' shares, 0 to 0.83."""
    MISSING = "missing"
    """Jensen-Shannon distance of the shares of missing values."""


class DecisionKind(StrEnum):
    """What follows from a night."""

    NONE = "none"
    NOTIFY = "notify"
    RETRAIN = "retrain"


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """One column of the current window, compared with the reference window."""

    column: str
    kind: ColumnKind
    method: DriftMethod
    score: float
    threshold: float
    is_drifted: bool
    note: str = ""
    """What a reader must know to understand the score; mostly empty."""


@dataclass(frozen=True, slots=True)
class SkippedColumn:
    """A column that was not compared, and why."""

    column: str
    reason: str


@dataclass(frozen=True, slots=True)
class DriftReport:
    """The current window compared with the reference window."""

    deployment: str
    partition: str
    reference_first: str
    reference_last: str
    current_first: str
    current_last: str
    reference_rows: int
    """Rows compared, after sampling."""
    current_rows: int
    """Rows compared, after sampling."""
    columns: tuple[ColumnDrift, ...]
    skipped: str | None = None
    """Why nothing was compared; None if something was."""
    skipped_columns: tuple[SkippedColumn, ...] = ()

    @property
    def drifted_columns(self) -> tuple[ColumnDrift, ...]:
        """The drifted columns, those furthest above their thresholds first."""
        drifted = (column for column in self.columns if column.is_drifted)
        return tuple(sorted(drifted, key=lambda column: (-column.score / column.threshold, column.column)))

    @property
    def share_of_drifted_columns(self) -> float | None:
        """Drifted columns per compared column; None if nothing was compared."""
        return len(self.drifted_columns) / len(self.columns) if self.columns else None

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON document."""
        return {
            "format_version": FORMAT_VERSION,
            **asdict(self),
            "share_of_drifted_columns": self.share_of_drifted_columns,
        }

    @classmethod
    def from_json(cls, document: Any) -> DriftReport:
        """Return the report that `to_json` wrote.

        Raises:
            ContractError: the document is of another format version or not a drift report.
        """
        fields = _fields(document, "drift report", derived=("share_of_drifted_columns",))
        try:
            columns = tuple(
                ColumnDrift(**{**found, "kind": ColumnKind(found["kind"]), "method": DriftMethod(found["method"])})
                for found in fields.pop("columns")
            )
            skipped = tuple(SkippedColumn(**found) for found in fields.pop("skipped_columns"))
            return cls(**fields, columns=columns, skipped_columns=skipped)
        except (KeyError, TypeError, ValueError) as error:
            raise _malformed("drift report", error) from error


@dataclass(frozen=True, slots=True)
class Performance:
    """How well scores agree with the labels that have arrived."""

    rows: int
    first: str
    """First partition whose labels were used."""
    last: str
    """Last partition whose labels were used."""
    roc_auc: float | None = None
    log_loss: float | None = None
    """None where scores are not probabilities."""
    baseline_roc_auc: float | None = None
    """The champion's ROC-AUC on the hold-out nights at training; None if unknown."""
    skipped: str | None = None
    """Why nothing was measured; None if something was."""

    def to_json(self) -> dict[str, Any]:
        """Return the performance as a JSON document."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, document: Any) -> Performance:
        """Return the performance that `to_json` wrote.

        Raises:
            ContractError: the document is of another format version or not a performance.
        """
        try:
            return cls(**_fields(document, "performance"))
        except TypeError as error:
            raise _malformed("performance", error) from error


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from a night, and why, in sentences for the owner."""

    kind: DecisionKind
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the decision as a JSON document."""
        return {"format_version": FORMAT_VERSION, "kind": self.kind, "reasons": list(self.reasons)}

    @classmethod
    def from_json(cls, document: Any) -> Decision:
        """Return the decision that `to_json` wrote.

        Raises:
            ContractError: the document is of another format version or not a decision.
        """
        fields = _fields(document, "decision")
        try:
            return cls(DecisionKind(fields["kind"]), tuple(fields["reasons"]))
        except (KeyError, TypeError, ValueError) as error:
            raise _malformed("decision", error) from error


def _fields(document: Any, what: str, *, derived: tuple[str, ...] = ()) -> dict[str, Any]:
    check_format(document, FORMAT_VERSION, f"the {what}")
    return {name: value for name, value in document.items() if name not in {"format_version", *derived}}


def _malformed(what: str, error: Exception) -> ContractError:
    return ContractError(f"the {what} cannot be read", f"the fields of format_version {FORMAT_VERSION}", str(error))
