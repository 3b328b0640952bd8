"""Words and numbers of a mail: its subject, the facts of the night, and texts that no mail client stumbles over."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import fields, replace
from enum import Enum
from typing import Any, Final, assert_never, cast

from scoring.checks.report import ExpectationResult
from scoring.monitoring.report import ColumnDrift
from scoring.notify.night import Night, Occasion, occasions
from scoring.throughput.wording import details, duration

MAX_SUBJECT_CHARS: Final = 79
MIN_NAME_CHARS: Final = 16
"""How much of a long deployment name the subject shows at least, when there is little room for what happened."""
MAX_NAME_CHARS: Final = 30
"""How much of a deployment's name and of a partition the subject shows at most."""
MAX_SENTENCE_CHARS: Final = 600
_UNPRINTABLE: Final = frozenset({"Cc", "Cf", "Cs"})
"""Unicode categories that could break a header, turn the reading direction or cannot be encoded."""


def one_line(text: str, *, limit: int = MAX_SENTENCE_CHARS, cut: str = "…") -> str:
    """Return `text` in one line, without unprintable characters; above `limit` characters it ends with `cut`."""
    spaced = "".join(" " if char.isspace() else char for char in text)
    line = " ".join("".join(char for char in spaced if unicodedata.category(char) not in _UNPRINTABLE).split())
    return line if len(line) <= limit else line[: limit - len(cut)].rstrip() + cut


def printable(night: Night) -> Night:
    """Return the night with every text in one line and without unprintable characters, wherever it came from."""
    return cast("Night", _printable(night))


def percent(share: float) -> str:
    """Return a share in words like `36 %`, with a decimal where it is small."""
    value = share * 100
    return f"{value:.0f} %" if value >= 10 or value == round(value) else f"{value:.2g} %"


def count(number: int, noun: str) -> str:
    """Return `1 check`, `2 checks`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def subject(night: Night) -> str:
    """Return the mail's subject: which deployment, which partition, what happened."""
    first, *others = [_phrase(night, occasion) for occasion in occasions(night)]
    end = f"] {_shown(night.partition, MAX_NAME_CHARS)}: {first}"
    room = MAX_SUBJECT_CHARS - len("[" + end)
    text = "[" + _shown(night.deployment, min(max(room, MIN_NAME_CHARS), MAX_NAME_CHARS)) + end
    for phrase in others:
        longer = f"{text}; {phrase}"
        if len(longer) <= MAX_SUBJECT_CHARS:
            text = longer
    return _shown(text, MAX_SUBJECT_CHARS)


def _shown(text: str, limit: int) -> str:
    # Three dots: where a subject is ASCII anyway, it stays so, and needs no encoding.
    return one_line(text, limit=limit, cut="...")


def facts(night: Night) -> tuple[tuple[str, str], ...]:
    """Return what is known of the night as pairs of label and value."""
    rows = [] if night.rows is None else [f"{night.rows:,}"]
    if night.rows is not None and night.seconds is not None:
        speed = "" if night.rows_per_s is None else f", {night.rows_per_s:,.0f} rows per second"
        rows.append(f"in {duration(night.seconds)}{speed}")
    found = {
        "Rows scored": " ".join(rows),
        "Rows quarantined": _quarantined(night),
        "Models": ", ".join(f"{name} version {version}" for name, version in sorted(night.model_versions.items())),
        "Checks": _checks(night),
        "Columns drifted": _drifted(night),
        "ROC-AUC": roc_auc(night),
        "Log loss": "" if night.log_loss is None else f"{night.log_loss:.3f}",
        "Decision": one_line(f"{night.decision}: {'; '.join(night.reasons)}") if night.reasons else "",
        "Warning": " ".join(f"{warning[:1].upper()}{warning[1:].rstrip('.')}." for warning in night.warnings),
        **(details(night.totals, night.devices) if night.totals else {}),
        "Run": night.run_id,
    }
    return tuple((label, value) for label, value in found.items() if value)


def roc_auc(night: Night) -> str:
    """Return ROC-AUC and what it was at training; empty if it is not known."""
    if night.roc_auc is None:
        return ""
    before = "" if night.baseline_roc_auc is None else f" (at training {night.baseline_roc_auc:.3f})"
    return f"{night.roc_auc:.3f}{before}"


def _printable(value: Any) -> Any:
    match value:
        case Enum():
            return value
        case str():
            return one_line(value)
        case tuple():
            return tuple(_printable(item) for item in value)
        case Mapping():
            return {_printable(key): _printable(item) for key, item in value.items()}
        case Night() | ExpectationResult() | ColumnDrift():
            return replace(value, **{f.name: _printable(getattr(value, f.name)) for f in fields(value)})
        case _:
            return value


def _phrase(night: Night, occasion: Occasion) -> str:
    failures = len(night.failed_expectations) or 1
    match occasion:
        case Occasion.FAILED:
            return f"FAILED: {night.error or 'a step ended without a reason'}"
        case Occasion.HELD_BACK:
            critical = sum(failed.blocks for failed in night.failed_expectations) or 1
            return f"HELD BACK: {count(critical, 'critical check')} failed"
        case Occasion.INCOMPLETE:
            return f"published, then FAILED: {night.error}"
        case Occasion.RETRAIN:
            return f"{_cause(night)}, retraining started"
        case Occasion.NOTIFY:
            return _cause(night)
        case Occasion.CHECK_WARNING:
            return count(failures, "check warning")
        case Occasion.QUARANTINE:
            return f"{percent(night.quarantined_share)} of rows quarantined"
        case _:
            assert_never(occasion)


def _cause(night: Night) -> str:
    if night.is_drifted and night.share_of_drifted_columns is not None:
        return f"{percent(night.share_of_drifted_columns)} of columns drifted"
    if night.is_degraded and night.roc_auc is not None:
        return f"ROC-AUC fell to {night.roc_auc:.2f}"
    return night.reasons[0].rstrip(".") if night.reasons else "drift seen"


def _quarantined(night: Night) -> str:
    if not night.quarantined:
        return "" if night.quarantined is None else "0"
    return f"{night.quarantined:,} ({percent(night.quarantined_share)}, limit {percent(night.max_quarantined_share)})"


def _checks(night: Night) -> str:
    if night.checks is None:
        return ""
    failed = len(night.failed_expectations)
    return f"{night.checks}: {count(failed, 'expectation')} not met" if failed else str(night.checks)


def _drifted(night: Night) -> str:
    if night.share_of_drifted_columns is None:
        return ""
    limit = "" if night.drift_share_threshold is None else f" (limit {percent(night.drift_share_threshold)})"
    return f"{percent(night.share_of_drifted_columns)}{limit}"
