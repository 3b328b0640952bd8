"""Splits and runs with round numbers."""

from __future__ import annotations

from typing import Any

from scoring.throughput.report import RunReport, SplitReport, Totals


def split(number: int, **facts: Any) -> SplitReport:
    """A split of 1,000 rows that took two seconds."""
    return SplitReport(
        **{
            "split": number,
            "rows": 1000,
            "wall_s": 2.0,
            "read_s": 0.5,
            "predict_s": 1.0,
            "write_s": 0.25,
            "sample_s": 0.0,
            "load_s": 0.0,
            "batch_rows": 400,
            "peak_rss_mb": 300.0,
            "worker": "host-1",
            **facts,
        }
    )


def totals(**facts: Any) -> Totals:
    """A run of a million rows, 10,000 of them a second."""
    return Totals(
        **{
            "rows": 1_000_000,
            "quarantined": 0,
            "rows_resumed": 0,
            "seconds": 100.0,
            "splits": 8,
            "splits_resumed": 0,
            "wall_s": 200.0,
            "read_s": 20.0,
            "predict_s": 150.0,
            "write_s": 10.0,
            "sample_s": 0.0,
            "load_s": 2.0,
            "model_loads": 2,
            "batch_rows": 131_072,
            "peak_rss_mb": 812.0,
            "skew": 1.25,
            "workers": 2,
            **facts,
        }
    )


def report(splits: tuple[SplitReport, ...], **facts: Any) -> RunReport:
    """The report of a run with these splits, which took four seconds."""
    return RunReport(
        **{
            "deployment": "flight_delays",
            "partition": "2013-07-05",
            "run_id": "a3f1",
            "totals": Totals.of(splits, seconds=4.0),
            "devices": ("cpu",),
            "conditions": "cpu, Spark local[2]",
            "usual": None,
            "warnings": (),
            "splits": splits,
            **facts,
        }
    )
