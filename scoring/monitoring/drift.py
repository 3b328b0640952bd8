"""Compares the current window with the reference window. The only module that uses Evidently."""

from __future__ import annotations

import html
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

import pyarrow as pa

from scoring.deployment import Drift
from scoring.errors import ConfigurationError, ContractError, listed
from scoring.monitoring.columns import PreparedColumn, prepare, readable
from scoring.monitoring.report import ColumnDrift, DriftMethod, DriftReport, SkippedColumn
from scoring.monitoring.sampling import smallest

VALUE_DRIFT: Final = "evidently:metric_v2:ValueDrift"
BODY: Final = "<body>"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A drift report with what Evidently made for people and other programs."""

    report: DriftReport
    html: str | None
    """A page that needs nothing else; None if nothing was compared."""
    evidently: dict[str, Any] | None
    """Evidently's own JSON document; None if nothing was compared."""


def compare(
    reference: pa.Table,
    current: pa.Table,
    *,
    deployment: str,
    partition: str,
    current_partitions: Sequence[str],
    columns: Sequence[str],
    keys: Sequence[str],
    drift: Drift,
) -> Comparison:
    """Compare two windows column by column, on at most `drift.sample_rows` rows each.

    Args:
        reference: rows of the reference window.
        current: rows of the current window.
        deployment: its name.
        partition: the last partition of the current window.
        current_partitions: partitions whose rows are in `current`.
        columns: what to compare; one that only one side has is skipped with a reason.
        keys: key columns of both tables, which choose the sampled rows; none: rows are spread evenly.
        drift: limits of the deployment.

    Raises:
        ConfigurationError: a column is on neither side.
    """
    reference = smallest(reference, keys=keys, rows=drift.sample_rows)
    current = smallest(current, keys=keys, rows=drift.sample_rows)

    def report(
        compared: Sequence[ColumnDrift] = (), *, skipped: str | None = None, without: Sequence[SkippedColumn] = ()
    ) -> DriftReport:
        return DriftReport(
            deployment=deployment,
            partition=partition,
            reference_first=drift.reference.first.isoformat(),
            reference_last=drift.reference.last.isoformat(),
            current_first=min(current_partitions, default=partition),
            current_last=max(current_partitions, default=partition),
            reference_rows=reference.num_rows,
            current_rows=current.num_rows,
            columns=tuple(compared),
            skipped=skipped,
            skipped_columns=tuple(without),
        )

    too_few = _too_few(reference, current, min_rows=drift.min_rows)
    if too_few is not None:
        return Comparison(report(skipped=too_few), None, None)
    prepared, without = _prepared(reference, current, columns, drift=drift)
    if not prepared:
        reasons = listed(f"{column.column} ({column.reason})" for column in without)
        return Comparison(
            report(skipped=f"no column can be compared: {reasons or 'none is named'}", without=without), None, None
        )
    scores, page, document = _evidently(prepared, drift=drift)
    finished = report([_drifted(column, scores[column.column], drift) for column in prepared], without=without)
    return Comparison(finished, _titled(page, finished), document)


def _too_few(reference: pa.Table, current: pa.Table, *, min_rows: int) -> str | None:
    for window, table in (("reference", reference), ("current", current)):
        if table.num_rows < min_rows:
            return f"the {window} window has {table.num_rows} rows, expected at least {min_rows}"
    return None


def _prepared(
    reference: pa.Table, current: pa.Table, columns: Sequence[str], *, drift: Drift
) -> tuple[list[PreparedColumn], list[SkippedColumn]]:
    prepared: list[PreparedColumn] = []
    without: list[SkippedColumn] = []
    for column in columns:
        in_reference, in_current = column in reference.column_names, column in current.column_names
        if in_reference and in_current:
            found = prepare(
                column, reference.column(column), current.column(column), threshold=drift.categorical_threshold
            )
        elif in_reference or in_current:
            found = SkippedColumn(column, f"only the {'reference' if in_reference else 'current'} window has it")
        else:
            known = [*dict.fromkeys(reference.column_names + current.column_names)]
            close = get_close_matches(column, known, n=1)
            raise ConfigurationError(
                f"'drift: columns' names {column!r}, which no window has",
                f"one of {listed(known)}",
                repr(column),
                f"Did you mean {close[0]!r}?" if close else "",
            )
        if isinstance(found, PreparedColumn):
            prepared.append(found)
        else:
            without.append(found)
    return prepared, without


def _evidently(prepared: Sequence[PreparedColumn], *, drift: Drift) -> tuple[dict[str, float], str, dict[str, Any]]:
    """Return the score of each column, Evidently's page and its JSON document."""
    os.environ.setdefault("DO_NOT_TRACK", "1")  # else Evidently reports its usage
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    labels = readable([column.column for column in prepared])
    numeric = [labels[column.column] for column in prepared if column.method is DriftMethod.WASSERSTEIN]
    definition = DataDefinition(
        numerical_columns=numeric,
        categorical_columns=[label for label in labels.values() if label not in numeric],
    )
    windows = (
        Dataset.from_pandas(
            pd.DataFrame({labels[column.column]: getattr(column, window) for column in prepared}),
            data_definition=definition,
        )
        for window in ("current", "reference")
    )
    preset = DataDriftPreset(
        columns=list(labels.values()),
        num_method=DriftMethod.WASSERSTEIN.value,
        cat_method=DriftMethod.JENSEN_SHANNON.value,
        num_threshold=drift.threshold,
        cat_threshold=drift.categorical_threshold,
        drift_share=drift.drift_share_threshold,
    )
    with warnings.catch_warnings():
        # Its page shows correlations of all columns, and numpy warns where one of them is constant.
        warnings.simplefilter("ignore", RuntimeWarning)
        snapshot = Report([preset], include_tests=False).run(*windows)
    # JSON has no NaN, and artifacts are read by others.
    document: dict[str, Any] = json.loads(snapshot.json(), parse_constant=lambda _: None)
    values = {
        metric["config"]["column"]: metric["value"]
        for metric in document["metrics"]
        if metric["config"]["type"] == VALUE_DRIFT
    }
    # The distance of two samples that are almost equal may come out as the root of a tiny negative number.
    scores = {column: float(values[label] or 0.0) for column, label in labels.items()}
    return scores, snapshot.get_html_str(as_iframe=False), document


def _drifted(column: PreparedColumn, score: float, drift: Drift) -> ColumnDrift:
    threshold = drift.threshold if column.method is DriftMethod.WASSERSTEIN else drift.categorical_threshold
    return ColumnDrift(
        column=column.column,
        kind=column.kind,
        method=column.method,
        score=score,
        threshold=threshold,
        is_drifted=score >= threshold,
        note=column.note,
    )


def _titled(page: str, report: DriftReport) -> str:
    """Return Evidently's page, which names neither deployment nor windows, below a heading that does."""
    if page.count(BODY, 0, page.find("</body>")) < 1:
        raise ContractError("Evidently made no drift page", f"a page with {BODY}", f"{len(page)} characters")
    notes = [f"{column.column}: {column.note}" for column in report.columns if column.note]
    notes += [f"{column.column}: not compared, {column.reason}" for column in report.skipped_columns]
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    heading = (
        f'<header style="font-family: sans-serif; padding: 1em 2em">'
        f"<h1>Drift of {html.escape(report.deployment)}, {html.escape(report.partition)}</h1>"
        f"<p>Reference {report.reference_first} to {report.reference_last} ({report.reference_rows} rows), "
        f"current {html.escape(report.current_first)} to {html.escape(report.current_last)} "
        f"({report.current_rows} rows).</p>"
        f"<ul>{items}</ul></header>"
    )
    return page.replace(BODY, BODY + heading, 1)
