"""What is measured: data, models, and who takes part. Plain values that travel to every process of a measurement."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Final

KEY: Final = "id"
PARTITION: Final = "day"
WARM_UP: Final = "2024-01-01"
"""A tiny partition with the same columns; scored once before anything is measured."""
NIGHT: Final = "2024-01-02"
"""The partition whose scoring is measured."""


class Way(StrEnum):
    """Who scores."""

    LIMIT = "limit"
    SCORING = "scoring"
    MLFLOW_SPARK_UDF = "mlflow_spark_udf"
    PREDICT_BATCH_UDF = "predict_batch_udf"
    PANDAS_UDF = "pandas_udf"
    MAP_IN_ARROW = "map_in_arrow"
    RAY_DATA = "ray_data"


ALL: Final = tuple(Way)
OURS: Final = (Way.LIMIT, Way.SCORING)


class Graph(StrEnum):
    """How the models of a case work together."""

    SINGLE = "single"
    MEAN = "mean"
    """An ensemble: the mean of all models over the same columns."""
    CHAIN = "chain"
    """A pipeline: every model after the first also reads the score of the one before."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Random rows: an int64 key, float32 numbers, and text columns."""

    rows: int
    numbers: int = 30
    categories: tuple[int, ...] = ()
    """Distinct values of each text column."""
    file_rows: int | None = 500_000
    """None: one file."""
    row_group_rows: int | None = 250_000
    """None: one row group per file."""
    is_sorted: bool = True
    """Whether keys ascend from row to row."""

    @property
    def number_columns(self) -> list[str]:
        """Names of the float32 columns."""
        return [f"x{number:03d}" for number in range(self.numbers)]

    @property
    def category_columns(self) -> list[str]:
        """Names of the text columns."""
        return [f"c{number}" for number in range(len(self.categories))]

    @property
    def features(self) -> list[str]:
        """Names of all columns but the key."""
        return [*self.number_columns, *self.category_columns]

    @property
    def folder(self) -> str:
        """Name of the folder, which tells parameters apart."""
        return f"{self.rows}x{len(self.features)}-{hashlib.sha256(repr(asdict(self)).encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the benchmark: models over data, scored by several ways."""

    name: str
    dataset: Dataset
    models: tuple[str, ...]
    """Of `tests.benchmarks.models.MODELS`."""
    graph: Graph = Graph.SINGLE
    ways: tuple[Way, ...] = ALL
    is_job: bool = False
    """Whole commands are measured, from start to exit, instead of one scoring within a session."""
    executors: int | None = None
    """Spark executors with one core each on a standalone cluster; None: Spark's local mode."""
    is_temporary: bool = False
    """The data is deleted afterwards, because it is large."""

    @property
    def is_numeric(self) -> bool:
        """Whether all features are numbers, so that models take a matrix instead of a frame."""
        return not self.dataset.categories

    @property
    def predict_rows(self) -> int | None:
        """Rows given at once to the only model of the case; None: any number."""
        return PREDICT_ROWS.get(self.models[0]) if self.graph is Graph.SINGLE else None

    def scaled(self, factor: float) -> Case:
        """Return the case with another number of rows; that of jobs stays."""
        if self.is_job or factor == 1:
            return self
        return replace(self, dataset=replace(self.dataset, rows=max(round(self.dataset.rows * factor), 100)))


PREDICT_ROWS: Final = {"torch_mlp": 8_192}
"""Rows given to a model at once, where fewer than a batch are faster: then its layers stay in the processor's cache."""
_LIGHT: Final = Dataset(rows=6_000_000)
_SPECIAL: Final = (
    Case("unsorted_keys", replace(_LIGHT, is_sorted=False), ("light",), ways=OURS),
    *(
        Case(f"rows_{millions}m", replace(_LIGHT, rows=millions * 1_000_000), ("light",), ways=OURS, is_temporary=True)
        for millions in (1, 5, 50)
    ),
    Case("fixed_cost", Dataset(rows=900), ("light",), ways=OURS, is_job=True),
    *(
        Case(f"executors_{count}", Dataset(rows=3_000_000), ("xgboost_100",), ways=(Way.SCORING,), executors=count)
        for count in (1, 2)
    ),
    *(
        Case(
            f"memory_{millions}m",
            Dataset(rows=millions * 1_000_000, numbers=10, file_rows=None, row_group_rows=None),
            ("narrow",),
            ways=OURS,
            is_temporary=True,
        )
        for millions in (10, 40)
    ),
)
CASES: Final = {
    case.name: case
    for case in (
        Case("light", _LIGHT, ("light",)),
        Case("xgboost_100", Dataset(rows=3_000_000), ("xgboost_100",)),
        Case("xgboost_500", Dataset(rows=800_000, file_rows=100_000, row_group_rows=50_000), ("xgboost_500",)),
        Case("torch_mlp", Dataset(rows=4_000_000), ("torch_mlp",)),
        Case(
            "sklearn_categories", Dataset(rows=2_000_000, numbers=10, categories=(5, 20, 50, 100, 200)), ("categories",)
        ),
        Case("ensemble_3", Dataset(rows=2_000_000), ("light", "xgboost_100", "torch_mlp"), Graph.MEAN),
        Case("pipeline_5", Dataset(rows=1_500_000), tuple(f"chain_{number}" for number in range(1, 6)), Graph.CHAIN),
        Case("columns_300", Dataset(rows=600_000, numbers=300, file_rows=75_000, row_group_rows=75_000), ("wide",)),
        Case("many_small_files", Dataset(rows=2_000_000, file_rows=2_000), ("light",)),
        Case("one_huge_file", Dataset(rows=4_000_000, file_rows=None, row_group_rows=1_000_000), ("light",)),
        Case("one_row_group", Dataset(rows=4_000_000, file_rows=None, row_group_rows=None), ("light",), ways=OURS),
        *_SPECIAL,
    )
}
QUICK: Final = ("light", "xgboost_100")


def registered_name(model: str) -> str:
    """Return what a model is called in the registry."""
    return f"bench_{model}"


def find(name: str) -> Case:
    """Return a case by name.

    Raises:
        KeyError: there is none.
    """
    return CASES[name]


def chosen(names: Iterable[str], scale: float) -> list[Case]:
    """Return cases by name, with another number of rows."""
    return [find(name).scaled(scale) for name in names]
