"""From measurements to results: medians, ratios, tables, and how the targets were met."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.cases import CASES, Case, Way
from tests.benchmarks.measure import Measurement

Results = list[dict[str, Any]]


def summarised(case: Case, measured: Mapping[Way, Sequence[Measurement]], *, cores: int) -> Results:
    """Return one entry of `results.json` per way that was measured."""
    medians = {way: median(run.seconds for run in runs) for way, runs in measured.items() if runs}
    limit = medians.get(Way.LIMIT)
    return [
        {
            "case": case.name,
            "way": str(way),
            "cores": cores,
            "seconds": [round(run.seconds, 4) for run in measured[way]],
            "median_s": round(seconds, 4),
            "ratio_to_limit": round(limit / seconds, 4) if limit else None,
            "peak_rss_mb": max(run.peak_rss_mb for run in measured[way]),
            "rows": case.dataset.rows,
            "details": middle(measured[way]).details,
        }
        for way, seconds in medians.items()
    ]


def middle(runs: Sequence[Measurement]) -> Measurement:
    """Return the run whose time is the median, or the faster of the two beside it."""
    return sorted(runs, key=lambda run: run.seconds)[(len(runs) - 1) // 2]


def write_json(file: Path, document: Any) -> None:
    """Write a result file whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    written = file.with_suffix(".tmp")
    written.write_text(json.dumps(document, indent=1) + "\n")
    written.replace(file)


def show_case(console: Console, case: Case, results: Results) -> None:
    """Print the table of one case."""
    table = Table(title=f"{case.name}: {case.dataset.rows:,} rows x {len(case.dataset.features)} columns")
    table.add_column("way", no_wrap=True)
    for heading in ("median s", "range s", "ratio", "s/1M rows", "RSS MB"):
        table.add_column(heading, justify="right")
    for result in results:
        ratio = result["ratio_to_limit"]
        table.add_row(
            result["way"],
            f"{result['median_s']:.2f}",
            f"{min(result['seconds']):.2f}-{max(result['seconds']):.2f}",
            "" if ratio is None else f"{ratio:.2f}",
            "" if case.is_job else f"{result['median_s'] / result['rows'] * 1e6:.3f}",
            f"{result['peak_rss_mb']:.0f}",
        )
    console.print(table)


def show_targets(console: Console, results: Results) -> None:
    """Print what follows from several ways or cases together."""
    table = Table(title="Derived", show_header=False)
    for what, number, wanted in derived({(r["case"], r["way"]): r for r in results}):
        table.add_row(what, f"{number:.2f}", wanted)
    if table.row_count:
        console.print(table)


def derived(results: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[tuple[str, float, str]]:
    """Return a sentence, a number and the wanted number for all that can be computed from the results."""
    seconds = {key: result["median_s"] for key, result in results.items()}
    ours: list[tuple[str, float, str]] = []
    for name, case in CASES.items():
        mine = seconds.get((name, Way.SCORING))
        if mine is None or case.is_job:
            continue
        for way, wanted in ((Way.MLFLOW_SPARK_UDF, "at least 4"), (Way.PREDICT_BATCH_UDF, "at least 3")):
            if other := seconds.get((name, way)):
                ours.append((f"{name}: times as fast as {way}", other / mine, wanted))
    ensemble = results.get(("ensemble_3", Way.LIMIT))
    if ensemble and (mine := seconds.get(("ensemble_3", Way.SCORING))):
        parts = ensemble["details"]["read_s"] + ensemble["details"]["predict_s"]
        ours.append(
            ("ensemble_3: scoring / (reading once + three predictions, in the limit)", mine / parts, "at most 1.1")
        )
    quotients = (
        (
            "fixed cost: jobs/score.py / empty spark-submit",
            "fixed_cost",
            Way.SCORING,
            "fixed_cost",
            Way.LIMIT,
            "at most 1.5",
        ),
        ("speed of two executors / one", "executors_1", Way.SCORING, "executors_2", Way.SCORING, "at least 1.8"),
    )
    for what, above, its_way, below, other_way, wanted in quotients:
        if (above, its_way) in seconds and (below, other_way) in seconds:
            ours.append((what, seconds[above, its_way] / seconds[below, other_way], wanted))
    per_row = {
        name: seconds[name, Way.SCORING] / results[name, Way.SCORING]["rows"]
        for name in ("rows_1m", "rows_5m", "rows_50m")
        if (name, Way.SCORING) in seconds
    }
    if "rows_50m" in per_row:
        ours += [
            (f"cost per row: rows_50m / {name}", per_row["rows_50m"] / seconds, "about 1")
            for name, seconds in per_row.items()
            if name != "rows_50m"
        ]
    return ours
