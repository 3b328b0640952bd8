"""Scores on Spark are those of the plain libraries on one frame, whatever types, files, splits and batches."""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import xgboost
from hypothesis import HealthCheck, event, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from scoring import settings, testing
from scoring.accounting import account
from scoring.deployment import Deployment
from scoring.errors import ContractError, ModelError, ScoringError
from scoring.plan import make_plan
from scoring.registry import Registry
from scoring.spark.score import score_on_spark
from tests import drawing, oracle

pytestmark = pytest.mark.spark
NIGHT = "2024-02-29"
EXAMPLES = examples().max_examples
NUMBERS = ("number", "single", "small", "count", "flag")
TYPES = {
    "number": pa.float64(),
    "single": pa.float32(),
    "small": pa.int32(),
    "count": pa.int64(),
    "flag": pa.bool_(),
    "city": pa.string(),
    "moment": pa.timestamp("us"),
}
"""Features, with the types that the models' signatures have."""
FILE_TYPES = {
    **dict.fromkeys(("number", "single", "small", "count"), drawing.NUMBERS),
    "flag": (pa.bool_(),),
    "city": drawing.TEXTS,
    "moment": (*drawing.DAYS, *drawing.MOMENTS),
}
"""Types that files may have for them."""
KEY_TYPES = (
    *(pa.int64(), pa.int32(), pa.uint64(), pa.decimal128(20), pa.decimal128(12, 2), pa.binary(), pa.date32()),
    *(pa.timestamp("us", "Europe/Oslo"), pa.timestamp("ns"), *drawing.TEXTS),
)
CITIES = st.sampled_from(["Oslo", "Lima", "Kyoto", "Never seen", ""])


# ------------------------------------------------------------------------------------------------------ models


class Net(torch.nn.Module):
    """Two layers over numbers without NaN and of sizes whose sums stay finite."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(len(NUMBERS), 16), torch.nn.ReLU(), torch.nn.Linear(16, 1), torch.nn.Sigmoid()
        )
        self.register_buffer("filler", torch.zeros(1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        filled = torch.where(torch.isnan(features), self.filler, features)
        return self.layers(torch.clamp(filled, -1e3, 1e3)).squeeze(1)


@dataclass(frozen=True)
class Native:
    """A model of a plain library, called on one frame of all rows."""

    predict: Callable[[pd.DataFrame], np.ndarray]
    tolerance: Callable[[pd.DataFrame], np.ndarray | float] = lambda _: 0
    """By how much each row's score may differ between batches."""


def rounding_of(net: Net, rows: pd.DataFrame) -> np.ndarray:
    """Return by how much two ways to add up the net's products can differ, by row.

    A sum of n float32 products is off by at most n * 2**-24 of the sum of their sizes (Higham, Accuracy and Stability
    of Numerical Algorithms, 2002, section 3.1), and a sigmoid makes a quarter of it.
    """
    first, second = (net.layers[at] for at in (0, 2))
    sizes = np.abs(np.clip(np.nan_to_num(as_float32(rows).to_numpy(np.float64)), -1e3, 1e3))

    def layer(linear: torch.nn.Linear, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        weights, bias = (np.abs(found.detach().numpy().astype(np.float64)) for found in (linear.weight, linear.bias))
        return weights, sizes @ weights.T + bias, (linear.in_features + 1) * 2.0**-24

    _, hidden, share = layer(first, sizes)
    weights, logits, last = layer(second, hidden)
    off = (share * hidden) @ weights.T + last * logits
    return 2 * (off[:, 0] / 4 + 2.0**-22)


def training_frame() -> pd.DataFrame:
    random = np.random.default_rng(4)
    rows = 2_000
    return pd.DataFrame(
        {
            "number": random.normal(scale=100, size=rows),
            "single": random.normal(scale=100, size=rows).astype(np.float32),
            "small": random.integers(-150, 150, rows).astype(np.int32),
            "count": random.integers(0, 300, rows),
            "flag": random.random(rows) < 0.5,
            "city": random.choice(["Oslo", "Lima", "Kyoto"], rows).astype(object),
            "moment": np.datetime64("2013-01-01", "us") + random.integers(0, 10**9, rows).astype("timedelta64[us]"),
        }
    )


def as_float32(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[list(NUMBERS)].astype(np.float32)


@pytest.fixture(scope="module")
def natives(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Iterator[Mapping[str, Native]]:
    """Plain models by name, each registered under it in a store of their own, which stays in use."""
    home = tmp_path_factory.mktemp("exact")
    shutil.copy(mlflow_template, home / "mlflow.db")
    frame = training_frame()
    label = (frame["number"] + frame["single"] + frame["count"] - 150 * frame["flag"] > 50) ^ (frame["city"] == "Oslo")
    encode = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    prepare = ColumnTransformer([("city", encode, ["city"]), ("numbers", "passthrough", list(NUMBERS))])
    pipeline = Pipeline([("prepare", prepare), ("forest", HistGradientBoostingClassifier(max_iter=30))])
    strict = Pipeline(
        [
            ("prepare", ColumnTransformer([("city", OneHotEncoder(sparse_output=False), ["city"])])),
            ("forest", HistGradientBoostingClassifier(max_iter=3)),
        ]
    )
    booster = xgboost.train(
        {"objective": "binary:logistic", "nthread": 1, "max_depth": 4},
        xgboost.DMatrix(frame[list(NUMBERS)], label),
        40,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = Net().eval()

    def predict_net(rows: pd.DataFrame) -> np.ndarray:
        with torch.no_grad():
            return net(torch.from_numpy(as_float32(rows).to_numpy())).numpy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(settings.HOME_VARIABLE, str(home))
        patch.delenv(settings.TRACKING_VARIABLE, raising=False)
        testing.register_sklearn("forest", frame, label, estimator=pipeline)
        testing.register_sklearn("strict", frame[["city"]], label, estimator=strict)
        testing.register_xgboost("boosted", frame[list(NUMBERS)], booster)
        testing.register_torch("net", frame[list(NUMBERS)], net)
        yield {
            "forest": Native(lambda rows: pipeline.predict_proba(rows)[:, 1]),
            "strict": Native(lambda rows: strict.predict_proba(rows[["city"]])[:, 1]),
            "boosted": Native(lambda rows: booster.inplace_predict(as_float32(rows))),
            # Matrix products add in an order that depends on the number of rows.
            "net": Native(predict_net, lambda rows: rounding_of(net, rows)),
        }


class RememberingRegistry(Registry):
    """Reads each model from MLflow once: what is tested here comes after it."""

    _found: ClassVar[dict[tuple[str, ...], Any]] = {}

    def freeze(self, deployment: Deployment, versions: Mapping[str, int] | None = None) -> Any:
        models = tuple(step.model for step in deployment.model_steps)
        if models not in self._found:
            self._found[models] = super().freeze(deployment, versions)
        return self._found[models]


# ------------------------------------------------------------------------------------------------------ one night


@dataclass(frozen=True)
class Night:
    """Files of one partition, and how they are scored."""

    tables: Sequence[pa.Table]
    """One per file. Columns: `id`, the features, `extra`."""
    models: Sequence[str]
    """Of `natives`; the first one reads all features."""
    layout: drawing.Layout = field(default_factory=lambda: drawing.Layout((), {}))
    is_declared: bool = False
    """Whether the deployment names the features with their types; if so, all may be null."""
    resources: Mapping[str, int] = field(default_factory=dict)
    batch_sizes: Sequence[int | None] = (None, None, None)
    cores: int = 2


@dataclass(frozen=True)
class Scored:
    """What became of a night."""

    rows: pa.Table
    reasons: Sequence[str]
    """Of the quarantined rows."""


def score(spark: SparkSession, night: Night, folder: Path) -> Scored:
    """Score a night on Spark and read its part files, in order, with plain pyarrow."""
    night.layout.write(folder / "lake" / f"day={NIGHT}", night.tables)
    source: dict[str, Any] = {"path": str(folder / "lake"), "max_quarantined_share": 1}
    if night.is_declared:
        kinds = {"id": night.tables[0].schema.field("id").type, **TYPES}
        source["columns"] = {name: str(kind).split("[")[0] + "?" * (name != "id") for name, kind in kinds.items()}
        source["extra_columns"] = "ignore"
    deployment = testing.write_deployment(
        folder / "exact",
        input=source,
        output={"path": str(folder / "scored"), "keep": [*TYPES, *([] if night.is_declared else ["extra"])]},
        score={
            "pipeline": [
                {"model": f"models:/{name}@champion", "output": f"by_{name}", "batch_size": size}
                for name, size in zip(night.models, night.batch_sizes, strict=False)
            ]
        },
        resources=dict(night.resources),
    )
    plan, files = make_plan(deployment, NIGHT, registry=RememberingRegistry())
    plan = plan.with_parallelism(night.cores)
    results = score_on_spark(spark, plan, run_id="r", files=files)
    account(plan, results)
    assert all(result.part for result in results)
    rows = [pq.read_table(folder / "scored" / result.part.path, partitioning=None) for result in results]
    kept = [folder / "scored_quarantine" / result.quarantined.path for result in results if result.quarantined]
    reasons = [text for path in kept for text in pq.read_table(path, partitioning=None)["reason"].to_pylist()]
    assert len(reasons) == sum(result.rows_quarantined for result in results)
    return Scored(pa.concat_tables(rows), reasons)


# ------------------------------------------------------------------------------------------------------ the oracle


@dataclass(frozen=True)
class Expected:
    """What plain Python and pandas make of a night's files."""

    columns: Mapping[str, Sequence[Any]]
    """Values of the rows that are good."""
    types: Mapping[str, pa.DataType]
    quarantined: int

    @property
    def frame(self) -> pd.DataFrame:
        """The features as pandas has them: integers with nulls are float64, booleans with nulls are objects."""
        return pd.DataFrame({name: self._series(name) for name in TYPES})

    def _series(self, name: str) -> pd.Series:
        values, kind = list(self.columns[name]), TYPES[name]
        if kind in (pa.float64(), pa.float32()) or (pa.types.is_integer(kind) and None in values):
            numbers = [np.nan if value is None else value for value in values]
            return pd.Series(numbers, dtype=np.float32 if kind == pa.float32() else np.float64)
        if pa.types.is_boolean(kind) and None in values:
            return pd.Series(values, dtype=object)
        return pd.Series(values, dtype=object if kind == pa.string() else kind.to_pandas_dtype())

    def is_refused(self, models: Sequence[str]) -> bool:
        """Return whether a feature matrix would hold something else than the numbers themselves."""
        if not {"boosted", "net"} & set(models):
            return False
        wide = [abs(value) > 2**24 for name in ("small", "count") for value in self.columns[name] if value is not None]
        with np.errstate(over="ignore"):
            large = [np.isinf(np.float32(v)) and not np.isinf(v) for v in self.columns["number"] if v is not None]
        return any(wide) or any(large)

    @property
    def may_be_refused(self) -> bool:
        """Whether nulls make pandas round an integer; refused if it would happen in one batch."""
        counts = self.columns["count"]
        return None in counts and any(abs(count) > 2**53 for count in counts if count is not None)


def expect(night: Night, folder: Path) -> Expected:
    """Read the files with plain pyarrow, and say for every row, in plain Python, what it becomes."""
    tables = [pq.read_table(path) for path in sorted((folder / "lake" / f"day={NIGHT}").iterdir())]
    first = tables[0].schema
    types = {name: first.field(name).type for name in ("id", "extra")}
    types = {name: drawing.plain(kind) for name, kind in types.items()} | TYPES
    if night.is_declared:
        del types["extra"]
    nullable = {"extra", *(TYPES if night.is_declared else ("number", "single"))}
    good: dict[str, list[Any]] = {name: [] for name in types}
    quarantined = 0
    for table in tables:
        given = {name: table.schema.field(name).type for name in types}
        for row in zip(*(table.column(name).to_pylist() for name in types), strict=True):
            became = {
                name: oracle.become(value, given[name], types[name]) for name, value in zip(types, row, strict=True)
            }
            if any(v is oracle.LOST or (oracle.is_missing(v) and name not in nullable) for name, v in became.items()):
                quarantined += 1
                continue
            for name, value in became.items():
                good[name].append(value)
    return Expected(good, types, quarantined)


def check(spark: SparkSession, night: Night, natives: Mapping[str, Native], folder: Path) -> str:
    """Score a night, compare it with what is expected, and return what happened in a word."""
    try:
        scored: Scored | ScoringError = score(spark, night, folder)
    except (ContractError, ModelError) as error:
        scored = error
    expected = expect(night, folder)
    if expected.is_refused(night.models):
        assert isinstance(scored, ContractError), scored
        assert "does not fit a float32 feature matrix: expected " in str(scored)
        return "refused"
    if isinstance(scored, ContractError) and expected.may_be_refused:
        assert "'count' has nulls, so that pandas makes its integers doubles" in str(scored)
        return "refused"
    assert isinstance(scored, Scored), scored
    compare(scored, expected, night, natives)
    return "scored" if scored.rows.num_rows else "quarantined"


def compare(scored: Scored, expected: Expected, night: Night, natives: Mapping[str, Native]) -> None:
    """Assert that keys, kept columns and scores are those expected, in their order."""
    assert len(scored.reasons) == expected.quarantined
    for name, kind in expected.types.items():
        found = scored.rows.column(name)
        assert found.type == kind or pa.types.is_nested(kind), name
        assert len(found) == len(expected.columns[name])
        assert all(map(oracle.same, found.to_pylist(), expected.columns[name])), name
    for name in night.models if scored.rows.num_rows else ():
        values = np.asarray(natives[name].predict(expected.frame), dtype=np.float64)
        found = scored.rows.column(f"by_{name}").to_numpy()
        tolerance = natives[name].tolerance(expected.frame)
        is_same = (np.abs(found - values) <= tolerance) | (np.isnan(found) & np.isnan(values))
        assert is_same.all(), f"{name}: {found[~is_same]}, not {values[~is_same]}"


# ------------------------------------------------------------------------------------------------------ any night


def usual(name: str, kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Values that a model has learned from, or like those."""
    if name == "city":
        return CITIES
    if pa.types.is_timestamp(kind):
        return st.integers(0, 2 * 10**9).map(lambda second: second * drawing.PER_SECOND[kind.unit])
    if name in ("small", "count") or pa.types.is_integer(kind):
        return st.integers(0, 100).map(Decimal if pa.types.is_decimal(kind) else int)
    if pa.types.is_floating(kind):
        return st.integers(-600, 600).map(lambda number: number / 4)
    return drawing.values(kind)


@st.composite
def features(draw: st.DrawFn, name: str, rows: int) -> pa.Array:
    """A column of a file: mostly usual values, else any."""
    kind = draw(st.sampled_from(FILE_TYPES[name]))
    is_usual = draw(st.integers(0, 7)) and kind != pa.decimal256(76, 76)  # which holds no integer but 0
    return draw(drawing.columns(kind, rows, items=usual(name, kind) if is_usual else None))


@st.composite
def nights(draw: st.DrawFn) -> Night:
    """Files of any types and layout, scored in splits and batches of any size."""
    rows = draw(st.integers(4, 25))
    layout = draw(drawing.layouts(rows))
    key, extra = (
        draw(st.sampled_from(KEY_TYPES)),
        draw(st.sampled_from(drawing.ALL)),
    )
    is_declared = key in (pa.int64(), pa.int32(), pa.uint64(), pa.string(), pa.date32()) and draw(st.booleans())
    ids = draw(st.lists(drawing.values(key), min_size=rows, max_size=rows, unique=True))
    if draw(st.integers(0, 4)) == 0:
        ids[draw(st.integers(0, rows - 1))] = None
    same = pa.table({"id": drawing.column(ids, key), "extra": draw(drawing.columns(extra, rows))})
    tables = []
    for start, length in layout.cut(rows):
        columns = {name: draw(features(name, length)) for name in FILE_TYPES}
        part = same.slice(start, length)
        tables.append(pa.table({"id": part["id"], **columns, "extra": part["extra"]}))
    return Night(
        tables=tables,
        models=["forest", *draw(st.sampled_from([(), ("boosted",), ("net",), ("boosted", "net")]))],
        layout=layout,
        is_declared=is_declared,
        resources={
            "split_bytes": draw(st.sampled_from([1, 300, 2**28])),
            "batch_rows": draw(st.sampled_from([1, 3, 8, 2**17])),
            "batch_bytes": draw(st.sampled_from([1, 200, 2**26])),
            "cpus_per_task": draw(st.sampled_from([1, 2])),
        },
        batch_sizes=draw(st.lists(st.sampled_from([None, 1, 5]), min_size=3, max_size=3)),
        cores=draw(st.integers(1, 3)),
    )


@given(night=nights())
@examples(max_examples=EXAMPLES * 3 // 5, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_night_is_scored_as_the_plain_libraries_score_its_rows(
    spark: SparkSession, natives: Mapping[str, Native], tmp_path_factory: pytest.TempPathFactory, night: Night
) -> None:
    folder = tmp_path_factory.getbasetemp() / uuid4().hex
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of NumPy, about doubles that the oracle casts
        event(check(spark, night, natives, folder))
    shutil.rmtree(folder)


# ------------------------------------------------------------------------------------------------------ named nights

USUAL = {
    "id": pa.array([3, 1, 2]),
    "number": pa.array([0.1, 2.5, None]),
    "single": pa.array([0.1, None, -7.0], pa.float32()),
    "small": pa.array([1, 2, 3], pa.int32()),
    "count": pa.array([10, 20, 30]),
    "flag": pa.array([True, False, True]),
    "city": pa.array(["Oslo", "Lima", "Kyoto"]),
    "moment": pa.array([0, 1, 2], pa.timestamp("us")),
    "extra": pa.array([1, 2, 3]),
}


def named(*models: str, **columns: pa.Array) -> Night:
    """Return three usual rows with some other columns."""
    return Night([pa.table({**USUAL, **columns})], models, resources={"batch_rows": 2})


@pytest.mark.parametrize(
    ("columns", "reasons"),
    [
        ({"city": pa.array(["Oslo", "Never seen", "Lima"]).dictionary_encode()}, []),
        ({"number": pa.array([Decimal("0.7"), Decimal("-577.7760"), None])}, []),
        ({"number": pa.array([math.inf, -math.inf, math.nan])}, []),
        ({"moment": pa.array([0, 1, 2], pa.timestamp("s", "America/New_York"))}, []),
        ({"moment": pa.array([0, 1, 2], pa.date32())}, []),
        ({"count": pa.array([2**24, -(2**24), 0])}, []),
        ({"count": pa.array([2**64 - 1, 1, 2], pa.uint64())}, ["18446744073709551615 is not int64"]),
        ({"count": pa.array([1.0, math.nan, 2.5])}, ["null in a required column", "2.5 is not int64"]),
        ({"count": pa.array([Decimal("1.5"), Decimal(2), Decimal(3)])}, ["Decimal('1.5') is not int64"]),
        ({"small": pa.array([2**31, 1, 2])}, ["2147483648 is not int32"]),
        ({"small": pa.array([1, None, 2], pa.int8())}, ["null in a required column"]),
        ({"flag": pa.array([True, None, False])}, ["null in a required column"]),
        ({"number": pa.array([2**53, 2**53 + 1, 1])}, ["9007199254740993 is not double"]),
        ({"number": pa.array([Decimal(2**53 + 1), Decimal(2), None])}, ["Decimal('9007199254740993') is not double"]),
        ({"single": pa.array([2**24, 2**24 + 1, 1])}, ["16777217 is not float"]),
        ({"single": pa.array([1e39, 0.1, None])}, ["1e+39 is not float"]),
        ({"moment": pa.array([999, 1000, 0], pa.timestamp("ns"))}, ["Timestamp('1970-01-01 00:00:00.000000999') is "]),
        ({"id": pa.array([None, 1, 2])}, ["null in a required column"]),
    ],
    ids=lambda value: " ".join(f"{n} {v.type}" for n, v in value.items()) if isinstance(value, dict) else "",
)
def test_a_value_is_exact_or_its_row_is_quarantined_with_a_reason(
    spark: SparkSession,
    natives: Mapping[str, Native],
    tmp_path: Path,
    columns: Mapping[str, pa.Array],
    reasons: Sequence[str],
) -> None:
    night = named("forest", "boosted", "net", **columns)
    scored = score(spark, night, tmp_path)
    compare(scored, expect(night, tmp_path), night, natives)
    (name,) = columns
    assert len(scored.reasons) == len(reasons)
    assert all(found.startswith(f"{name}: {text}") for found, text in zip(scored.reasons, reasons, strict=True))


REFUSALS = {
    "wide integer": (
        named("boosted", count=pa.array([1, 2**24 + 1, 3])),
        r"column 'count' does not fit a float32 feature matrix: expected integers up to 16777216, got 16777217",
    ),
    "large double": (
        named("net", number=pa.array([1.0, -1e39, math.inf])),
        r"column 'number' does not fit a float32 feature matrix: expected numbers up to 3\.4.*e\+38, got 1e\+39",
    ),
    "unseen category": (
        named("strict", city=pa.array(["Oslo", "Never seen", "Lima"])),
        r"model 'strict' version 1 raised while predicting 2 rows: .*Found unknown categories \['Never seen'\]",
    ),
    "wide integer beside null": (
        replace(named("forest", count=pa.array([2**53 + 1, None, 3])), is_declared=True),
        r"column 'count' has nulls, so that pandas makes its integers doubles: expected .*, got 9007199254740993",
    ),
    "text": (
        named("forest", number=pa.array(["0.1", "2", "3"])),
        r"column 'number' of file .* has another type: expected double, got string\. Set 'input\.parse_text: true'",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_exact_stops_the_run_with_a_sentence(
    spark: SparkSession, natives: Mapping[str, Native], tmp_path: Path, case: str
) -> None:
    night, sentence = REFUSALS[case]
    with pytest.raises((ContractError, ModelError), match=sentence):
        score(spark, night, tmp_path)
