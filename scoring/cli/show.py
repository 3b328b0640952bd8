"""How results reach the terminal: one JSON document or a table on stdout, everything else on stderr."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scoring.throughput.report import PARTS, RunReport
from scoring.throughput.wording import details, speed

STDERR = Console(stderr=True, soft_wrap=True)
WIDTH_OF_FILES: Final = 140
"""Columns of a table that is written to a file or a pipe, which have no width of their own."""
SHOWN_ROWS: Final = 5
"""Rows of an inspected step that are shown; `--json` has more."""
SHOWN_SPLITS: Final = 20
"""The slowest splits, which a table lists; `--json` has all."""


def document(content: Any) -> None:
    """Print one JSON document on stdout."""
    print(json.dumps(content, indent=2, default=str))


def table(title: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Print rows as a table on stdout.

    Args:
        title: above the table.
        rows: values by key.
        columns: headline by key, in order.
    """
    shown = Table(title=title, title_justify="left", header_style="bold")
    for key, headline in columns.items():
        is_number = any(isinstance(row.get(key), int | float) for row in rows)
        shown.add_column(headline, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(text(row.get(key))) for key in columns))
    _print(shown)


def text(value: Any) -> str:
    """Return a value as people write it."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
        case int():
            return f"{value:,}"
        case Mapping():
            return ", ".join(f"{key} {text(item)}" for key, item in value.items())
        case list() | tuple():
            return "; ".join(text(item) for item in value)
        case _:
            return str(value)


def note(message: str) -> None:
    """Print one line on stderr."""
    STDERR.print(message, markup=False, highlight=False)


@contextmanager
def step(message: str) -> Iterator[None]:
    """Say on stderr what is being done, and how long it took."""
    note(f"{message} ...")
    start = time.perf_counter()
    yield
    note(f"  done in {time.perf_counter() - start:.1f} s")


def overview(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print all deployments; what is wrong with one only if something is."""
    columns = {
        "deployment": "deployment",
        "owner": "owner",
        "schedule": "schedule (UTC)",
        "partitions": "published",
        "last": "last partition",
    }
    errors = {"error": "error"} if any(row["error"] for row in rows) else {}
    table("Deployments", rows, {**columns, **errors})


def partitions(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print published partitions; equal model versions are written once, so that a line fits into 100 columns."""
    warned = [row["partition"] for row in rows if row["warnings"]]
    columns = {
        "partition": "partition",
        "rows": "rows",
        "rows_per_s": "rows/s",
        "quarantined": "quarantined",
        "versions": "models",
        "checks": "checks",
        "drift": "drifted",
        "decision": "decision",
        "published_version": "version",
        **({"warned": "!"} if warned else {}),
    }
    shown = [
        {
            **row,
            "versions": versions(row["model_versions"]),
            "drift": percent(row["drift"]),
            "warned": len(row["warnings"]) or "",
        }
        for row in rows
    ]
    table(name, shown, columns)
    if warned:
        note(f"! counts warnings. To read them: scoring status {name} -p {warned[0]}")


def standing(name: str, runs: Sequence[Mapping[str, Any]]) -> None:
    """Print the runs of one partition: facts, then what the run took and its slowest splits."""
    for run in runs:
        report = RunReport.from_json(run["report"]) if run["report"] else None
        version = run["published_version"]
        found = {
            "state": f"{run['state']}, version {version} of the table" if version is not None else run["state"],
            "error": run["error"],
            "warnings": list(run["warnings"]),
            "run": run["run_id"],
            "started": f"{datetime.fromisoformat(run['started']):%Y-%m-%d %H:%M:%S} UTC",
            "models": versions(run["model_versions"]) if run["model_versions"] else None,
            "rows": run["rows"],
            "quarantined": run["quarantined"],
            "checks": run["checks"],
            "drifted columns": percent(run["drift"]),
            "decision": run["decision"],
            "reasons": run["decision_reasons"],
        }
        if report is not None:
            words = details(report.totals, report.devices)
            found |= {"speed": speed(report.totals, report.usual)}
            found |= {label.lower(): text for label, text in words.items()}
        facts(f"{name} {run['partition']}", {key: value for key, value in found.items() if value not in (None, [], "")})
        if report is not None:
            _splits(report)


def _splits(report: RunReport) -> None:
    shown = report.slowest(SHOWN_SPLITS)
    all_splits = len(report.splits)
    some = f"the {len(shown)} slowest of {all_splits:,} splits" if len(shown) < all_splits else "splits"
    rows = [
        {
            **asdict(split),
            **{name: round(getattr(split, name), 3) for name in ("wall_s", *PARTS)},
        }
        for split in shown
    ]
    columns = {
        "split": "split",
        "rows": "rows",
        "wall_s": "in all",
        **PARTS,
        "peak_rss_mb": "MiB",
        "batch_rows": "batch rows",
        "device": "device",
        "worker": "worker",
        **({"is_resumed": "resumed"} if report.totals.splits_resumed else {}),
    }
    table(f"{some}, in seconds of work", rows, columns)


def versions(by_model: Mapping[str, int]) -> str:
    """Return model versions as `v2`, or, where they differ, by model."""
    distinct = set(by_model.values())
    if len(distinct) == 1:
        return f"v{distinct.pop()}"
    return ", ".join(f"{name} v{version}" for name, version in by_model.items())


def percent(share: float | None) -> str | None:
    """Return a share as people write it."""
    return None if share is None else f"{share:.0%}"


def facts(title: str, found: Mapping[str, Any]) -> None:
    """Print facts one below the other on stdout."""
    shown = Table(title=title, title_justify="left", show_header=False)
    shown.add_column(style="bold", no_wrap=True)
    shown.add_column(overflow="fold")
    for key, value in found.items():
        shown.add_row(key.replace("_", " "), Text(text(value)))
    _print(shown)


def run(title: str, found: Mapping[str, Any]) -> None:
    """Print what a run came to, and the rows of an inspected step before it."""
    inspected = found.get("inspected")
    if inspected is not None:
        # Columns from top to bottom: there are more of them than fit beside each other.
        rows = inspected["rows"][:SHOWN_ROWS]
        names = [f"row {number}" for number in range(1, len(rows) + 1)]
        columns = [
            {"column": column, **{name: row[column] for name, row in zip(names, rows, strict=True)}}
            for column in (rows[0] if rows else ())
        ]
        table(f"after {inspected['step']}", columns, {name: name for name in ("column", *names)})
    facts(title, {key: value for key, value in found.items() if key != "inspected"})


def drift(name: str, found: Mapping[str, Any]) -> None:
    """Print a drift report: columns, then decision."""
    report = found["drift"]
    current = f"{report['current_first']} to {report['current_last']}"
    reference = f"{report['reference_first']} to {report['reference_last']}"
    keys = {"column": "column", "method": "method", "score": "score", "threshold": "threshold", "is_drifted": "drifted"}
    table(f"{name}: {current} against {reference}", report["columns"], keys)
    decision = found["decision"]
    facts("decision", {"decision": decision["kind"], "reasons": decision["reasons"], "run": found["run_id"]})


def _print(shown: Table) -> None:
    console = Console()
    (console if console.is_terminal else Console(width=WIDTH_OF_FILES)).print(shown)
