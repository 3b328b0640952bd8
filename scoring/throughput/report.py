"""The run report: numbers of one run, added up from what its workers measured. Pure values; knows no store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import median
from types import MappingProxyType
from typing import Any, Final

from scoring.errors import ContractError
from scoring.formats import check_format

FORMAT_VERSION: Final = 1
ARTIFACT: Final = "run/report.json"
"""Where the run record keeps the report."""
PARTS: Final = MappingProxyType(
    {
        "read_s": "reading",
        "predict_s": "predicting",
        "write_s": "writing",
        "sample_s": "sampling",
        "load_s": "loading models",
    }
)
"""What the work on a split consists of, in words, by the field that holds its seconds."""
MILLION: Final = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitReport:
    """What one split took. Reading, predicting and writing overlap: together they may take longer than the split."""

    split: int
    rows: int
    quarantined: int = 0
    wall_s: float
    read_s: float
    predict_s: float
    write_s: float
    sample_s: float
    load_s: float
    model_loads: int = 0
    batch_rows: int
    """Rows of the largest batch."""
    peak_rss_mb: float
    """Largest resident size of the worker process until the end of the split, in MiB."""
    device: str = "cpu"
    worker: str = ""
    """Host and process that scored the split."""
    is_resumed: bool = False
    """Taken over from an attempt that was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What a run took, in numbers: what its record keeps as metrics, and what runs are compared by."""

    rows: int
    quarantined: int
    rows_resumed: int
    """Rows of the splits that were taken over from an attempt that was killed."""
    seconds: float
    """From the first task's start to the last one's end, as the driver saw it."""
    splits: int
    splits_resumed: int
    wall_s: float
    read_s: float
    predict_s: float
    write_s: float
    sample_s: float
    load_s: float
    model_loads: int
    batch_rows: int
    """Rows of the largest batch."""
    peak_rss_mb: float
    """Of the largest worker."""
    skew: float
    """Seconds of the longest split by those of the median one, without loading models."""
    workers: int

    @staticmethod
    def of(splits: Sequence[SplitReport], *, seconds: float) -> Totals:
        """Add up splits; `seconds` is the time in which those that are not resumed were scored."""
        summed = {
            name: sum(getattr(split, name) for split in splits)
            for name in ("rows", "quarantined", "model_loads", "wall_s", *PARTS)
        }
        # The first split of each worker loads the models: that says nothing about how even the splits are.
        walls = [max(split.wall_s - split.load_s, 0.0) for split in splits]
        return Totals(
            **summed,
            rows_resumed=sum(split.rows for split in splits if split.is_resumed),
            seconds=seconds,
            splits=len(splits),
            splits_resumed=sum(split.is_resumed for split in splits),
            batch_rows=max(split.batch_rows for split in splits),
            peak_rss_mb=max(split.peak_rss_mb for split in splits),
            skew=max(walls) / median(walls) if median(walls) else 1.0,
            workers=len({split.worker for split in splits}),
        )

    @staticmethod
    def from_metrics(metrics: Mapping[str, float]) -> Totals | None:
        """Return what a run record holds; None for a run that did not come to the end of scoring."""
        if any(field.name not in metrics for field in fields(Totals)):
            return None
        kinds = {"int": int, "float": float}
        return Totals(**{field.name: kinds[str(field.type)](metrics[field.name]) for field in fields(Totals)})

    def metrics(self) -> dict[str, float]:
        """Return the numbers by name, with `rows_per_s` where it is known."""
        speed = {} if self.rows_per_s is None else {"rows_per_s": self.rows_per_s}
        return {**asdict(self), **speed}

    @property
    def rows_per_s(self) -> float | None:
        """Rows that this attempt scored by its seconds; None if everything had been scored before."""
        is_measured = self.splits_resumed < self.splits and self.seconds > 0
        return (self.rows - self.rows_resumed) / self.seconds if is_measured else None

    def per_million(self, name: str) -> float:
        """Return the seconds of a part of the work, or of `wall_s`, for a million rows."""
        seconds: float = getattr(self, name)
        return seconds / self.rows * MILLION if self.rows else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """What the last runs under the same conditions took: medians."""

    runs: int
    """How many they were."""
    rows_per_s: float
    per_million: Mapping[str, float]
    """Seconds for a million rows: of each of `PARTS`, and `wall_s`."""
    workers: float
    skew: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What one run took, as it is kept with its record."""

    deployment: str
    partition: str
    run_id: str
    totals: Totals
    devices: tuple[str, ...]
    conditions: str
    """What must be the same for two runs to be compared: kind of device, cores, Spark master."""
    usual: Usual | None
    """None: too few runs like this one."""
    warnings: tuple[str, ...]
    """What this run should be looked at for, in sentences."""
    splits: tuple[SplitReport, ...]

    def slowest(self, count: int) -> tuple[SplitReport, ...]:
        """Return the splits that took longest, the longest first."""
        return tuple(sorted(self.splits, key=lambda split: (-split.wall_s, split.split))[:count])

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        document = asdict(self)
        document["totals"]["rows_per_s"] = self.totals.rows_per_s
        return {"format_version": FORMAT_VERSION, **document}

    @staticmethod
    def from_json(document: Any) -> RunReport:
        """Return the report that `to_json` made.

        Raises:
            ContractError: the document is of another format version or not a run report.
        """
        check_format(document, FORMAT_VERSION, "the run report")
        values = {name: value for name, value in document.items() if name != "format_version"}
        try:
            totals = {name: value for name, value in values["totals"].items() if name != "rows_per_s"}
            values |= {
                "totals": Totals(**totals),
                "devices": tuple(values["devices"]),
                "usual": Usual(**values["usual"]) if values["usual"] else None,
                "warnings": tuple(values["warnings"]),
                "splits": tuple(SplitReport(**split) for split in values["splits"]),
            }
            return RunReport(**values)
        except (AttributeError, KeyError, TypeError) as error:
            raise ContractError(
                "the run report cannot be read", f"the fields of format_version {FORMAT_VERSION}", str(error)
            ) from error
