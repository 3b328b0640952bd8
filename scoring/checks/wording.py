"""Results in words that people read: values, counts and what Great Expectations observed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time
from typing import Any, Final

from scoring.errors import MAX_EXAMPLE_CHARS, MAX_EXAMPLES, MAX_ITEMS

MAX_SENTENCE_CHARS: Final = 400
_ABOUT_NULLS: Final = ("expect_column_values_to_not_be_null", "expect_column_values_to_be_null")


def value_text(value: Any, *, limit: int = MAX_EXAMPLE_CHARS) -> str:
    """Return one value as people write it: missing as `null`, texts in quotes, cut to `limit` characters."""
    value = _python_value(value)
    match value:
        case str():
            text = repr(str(value))
        case Mapping():
            text = f"{{{', '.join(f'{key}: {value_text(item, limit=limit)}' for key, item in value.items())}}}"
        case list() | tuple() | set() | frozenset():
            text = f"({', '.join(value_text(item, limit=limit) for item in value)})"
        case _:
            text = _scalar_text(value)
    return cut(text, limit)


def example_texts(values: Iterable[Any]) -> tuple[str, ...]:
    """Return at most `MAX_EXAMPLES` different values as texts."""
    return tuple(dict.fromkeys(map(value_text, values)))[:MAX_EXAMPLES]


def cut(text: str, limit: int = MAX_SENTENCE_CHARS) -> str:
    """Return `text` with at most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def share_text(share: float) -> str:
    """Return a share as per cent; one that is not zero or all never reads as if it were."""
    percent = share * 100
    if 0 < percent < 0.01:
        return "< 0.01%"
    if 99.99 < percent < 100:
        return "> 99.99%"
    return f"{percent:.2f}".rstrip("0").rstrip(".") + "%"


def counted(number: int, noun: str) -> str:
    """Return `1 row`, `2 rows`, `1,000 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def unexpected_share(result: Mapping[str, Any]) -> float | None:
    """Return the share of unexpected rows among those that count; None when none counts or rows are not looked at."""
    counting = result["element_count"] - (result.get("missing_count") or 0) if "element_count" in result else 0
    return int(result["unexpected_count"]) / counting if counting else None


def observed_text(expectation: str, result: Mapping[str, Any]) -> str:
    """Return what Great Expectations observed, from its `result` for an expectation type."""
    details = result.get("details") or {}
    if "mismatched" in details:
        return cut(_columns_text(details["mismatched"]))
    if "element_count" in result:
        return _rows_text(expectation, result)
    if "partial_unexpected_list" in result or "partial_missing_list" in result:
        return cut(_distinct_text(result))
    if "observed_value" not in result:
        return ""
    observed = result["observed_value"]
    if observed is None:
        return "no value to compare"
    if isinstance(observed, Mapping) and {"quantiles", "values"} <= set(observed):
        pairs = zip(observed["quantiles"], observed["values"], strict=True)
        return cut(", ".join(f"quantile {value_text(at)}: {value_text(value)}" for at, value in pairs))
    if isinstance(observed, list | tuple | set):
        return cut(_listed(list(observed)) or "none")
    return cut(str(observed)) if isinstance(observed, str) else value_text(observed)


def _rows_text(expectation: str, result: Mapping[str, Any]) -> str:
    rows, unexpected = result["element_count"], result["unexpected_count"]
    missing = result.get("missing_count") or 0
    noun = "value" if expectation.startswith("expect_column_value") and expectation not in _ABOUT_NULLS else "row"
    if not rows:
        return "no rows to look at"
    if rows == missing:
        return f"no values to look at: {counted(rows, 'row')}, all null"
    share = unexpected_share(result)
    looked_at = counted(rows - missing, noun)
    text = f"{unexpected:,} of {looked_at} unexpected ({share_text(share)})" if share else f"{looked_at}, as expected"
    return f"{text}; {missing:,} null not counted" if missing else text


def _distinct_text(result: Mapping[str, Any]) -> str:
    parts = []
    if result.get("unexpected_count"):
        parts.append(f"{counted(result['unexpected_count'], 'distinct value')} unexpected")
    if result.get("missing_count"):
        lacking = _listed(result["partial_missing_list"], more=result["missing_count"])
        parts.append(f"{counted(result['missing_count'], 'expected value')} not seen: {lacking}")
    return "; ".join(parts) or "distinct values as expected"


def _columns_text(mismatched: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    if isinstance(mismatched, Mapping):
        kinds = (("missing", "missing columns"), ("unexpected", "unexpected columns"))
        return "; ".join(f"{words} {_listed(mismatched[kind])}" for kind, words in kinds if mismatched.get(kind))
    return "; ".join(
        f"column {entry['Expected Column Position'] + 1} is {value_text(entry['Found'] or 'none')}, "
        f"expected {value_text(entry['Expected'] or 'none')}"
        for entry in mismatched[:MAX_ITEMS]
    )


def _listed(values: Sequence[Any], *, more: int = 0) -> str:
    total = max(len(values), more)
    shown = [value_text(value) for value in values[:MAX_ITEMS]]
    return ", ".join(shown) + (f" and {total - len(shown):,} more" if total > len(shown) else "")


def _python_value(value: Any) -> Any:
    """Return numpy's arrays and scalars, which print as `np.float64(1.5)`, as Python's."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    return value.astype("M8[us]").tolist() if kind == "M" else value.tolist() if kind else value


def _scalar_text(value: Any) -> str:
    import pandas as pd

    if pd.isna(value):
        return "null"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, float):
        whole = math.isfinite(value) and value.is_integer() and abs(value) < 1e15
        return str(int(value)) if whole else repr(value)
    return str(value)
