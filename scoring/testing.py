"""Small builders for tests of deployments, ours and yours: a folder, a partition, a registered model, a graph.

Nothing here knows a test framework. Builders write real files, real MLflow entries and real part files below
`settings.home()`, so point `$SCORING_HOME` to a folder of the test first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import TypeAdapter

from scoring import deployment
from scoring.batch import Batch
from scoring.deployment import AnyStep, Deployment
from scoring.graph.compile import GraphSource, compile_graph
from scoring.graph.step import Step
from scoring.models.base import FrozenModel, Predictor, SignatureColumn
from scoring.registry import CHAMPION, Registry
from scoring.runs import RunKind, RunState, RunStore

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models.model import ModelInfo

PARTITION: Final = "day"
"""Partition column of `example_deployment`."""
MODEL: Final = "example"
"""Registered model of `example_deployment`."""
FEATURES: Final = ("x", "y")
"""Features of `example_rows` that are numbers without null."""
TRAINING: Final = "testing"
"""Whose training runs the models of this module belong to."""


def example_rows(rows: int, *, seed: int = 0, first_id: int = 0) -> pa.Table:
    """Return random rows: key `id`, features `x` and `y`, text `city`, and a `label` that follows from x and y."""
    random = np.random.default_rng(seed)
    x, y = random.normal(size=rows), random.normal(size=rows)
    return pa.table(
        {
            "id": pa.array(np.arange(first_id, first_id + rows), pa.int64()),
            "x": x,
            "y": y,
            "city": pa.array(random.choice(["Oslo", "Lima", "Kyoto"], size=rows).tolist(), pa.string()),
            "label": pa.array((x + 0.5 * y + random.normal(scale=0.3, size=rows) > 0).astype(np.int64)),
        }
    )


def example_deployment(name: str) -> dict[str, Any]:
    """Return the smallest deployment that scores `example_rows`, as `deployment.yaml` would have it."""
    return {
        "name": name,
        "owner": {"team": "Testing", "email": ["owner@example.com"]},
        "input": {"path": "${SCORING_HOME}/lake", "partition": PARTITION, "keys": ["id"]},
        "output": {"path": f"${{SCORING_HOME}}/predictions/{name}"},
        "score": {"model": f"models:/{MODEL}@{CHAMPION}"},
    }


def write_deployment(folder: Path, *, files: Mapping[str, str] | None = None, **overrides: Any) -> Deployment:
    """Write a deployment's folder and load it.

    Args:
        folder: the deployment's folder; its name is the deployment's.
        files: text of further files, such as `rules.py` or `expectations/output.yaml`, by path within the folder.
        overrides: sections of `deployment.yaml` instead of those of `example_deployment`. Of `owner`, `input` and
            `output` only the given keys change; None removes a section.

    Raises:
        ConfigurationError: the deployment is not valid.
    """
    document = example_deployment(folder.name)
    for section, value in overrides.items():
        is_merged = section in ("owner", "input", "output") and isinstance(value, Mapping)
        document[section] = {**document[section], **value} if is_merged else value
    texts = {**(files or {}), deployment.FILE_NAME: yaml.safe_dump(_without_none(document), sort_keys=False)}
    for path, text in texts.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return deployment.load(folder)


def write_partition(
    location: str | Path,
    column: str,
    value: str,
    rows: pa.Table | pd.DataFrame,
    *,
    files: int = 1,
    row_group_rows: int | None = None,
) -> Path:
    """Write rows as one Hive partition of Parquet files, in order, and return its folder.

    Args:
        location: the input's path.
        column: the partition column; dropped from the rows if it is there.
        value: the partition.
        rows: an Arrow table or a pandas frame.
        files: how many files of about equal size.
        row_group_rows: rows of one row group at most; None: one row group per file.
    """
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pandas(rows, preserve_index=False)
    if column in table.column_names:
        table = table.drop_columns([column])
    folder = Path(location) / f"{column}={value}"
    folder.mkdir(parents=True, exist_ok=True)
    bounds = np.linspace(0, table.num_rows, files + 1).astype(int)
    for number, (start, stop) in enumerate(pairwise(bounds)):
        piece, file = table.slice(start, stop - start), folder / f"part-{number:03d}.parquet"
        pq.write_table(piece, file, row_group_size=row_group_rows or max(piece.num_rows, 1))
    return folder


# -------------------------------------------------------------------------------------------- registered models


@dataclass(frozen=True, slots=True)
class Registered:
    """A model that was logged and registered."""

    name: str
    version: int
    native: Any
    """The model itself, to compare predictions with."""


def register_sklearn(
    name: str,
    frame: pd.DataFrame,
    target: npt.ArrayLike | None = None,
    *,
    estimator: Any = None,
    alias: str | None = CHAMPION,
) -> Registered:
    """Fit, log and register a scikit-learn model.

    Args:
        name: of the registered model.
        frame: features.
        target: what to fit; None: `estimator` is fitted already.
        estimator: None: a logistic regression.
        alias: what the new version is called; None: nothing.
    """
    import mlflow
    from sklearn.linear_model import LogisticRegression

    from scoring.models.sklearn import TRUSTED_TYPES

    model = LogisticRegression() if estimator is None else estimator
    if target is not None:
        model.fit(frame, target)
    with _training() as run_id:
        logged = mlflow.sklearn.log_model(
            model,
            name=name,
            serialization_format="skops",
            skops_trusted_types=sorted(TRUSTED_TYPES),
            signature=signature(frame),
            pip_requirements=["scikit-learn"],
        )
    return _registered(name, logged, run_id, alias, model)


def register_xgboost(name: str, frame: pd.DataFrame, model: Any, *, alias: str | None = CHAMPION) -> Registered:
    """Log and register a fitted XGBoost booster or scikit-learn wrapper."""
    import mlflow

    with _training() as run_id:
        logged = mlflow.xgboost.log_model(
            model, name=name, model_format="ubj", signature=signature(frame), pip_requirements=["xgboost"]
        )
    return _registered(name, logged, run_id, alias, model)


def register_torch(name: str, frame: pd.DataFrame, module: Any, *, alias: str | None = CHAMPION) -> Registered:
    """Export, log and register a PyTorch module that maps a float32 matrix to one number per row."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    dtype = np.dtype(np.float32)
    tensors = ModelSignature(Schema([TensorSpec(dtype, (-1, frame.shape[1]))]), Schema([TensorSpec(dtype, (-1,))]))
    with _training() as run_id:
        logged = mlflow.pytorch.log_model(
            module,
            name=name,
            serialization_format="pt2",
            signature=tensors,
            input_example=frame.head(5).to_numpy(dtype=dtype),
            pip_requirements=["torch"],
        )
        # MLflow exports from a tensor signature only; scoring needs the columns' names.
        mlflow.models.set_signature(logged.model_uri, signature(frame))
    return _registered(name, logged, run_id, alias, module)


def signature(frame: pd.DataFrame) -> Any:
    """Return the MLflow signature of features with one number as output; floats may be missing."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    columns = [ColSpec(_TYPES[dtype.name], name, required=dtype.kind != "f") for name, dtype in frame.dtypes.items()]
    return ModelSignature(Schema(columns), Schema([ColSpec("double")]))


_TYPES: Final = {
    "bool": "boolean",
    "int8": "integer",
    "int16": "integer",
    "int32": "integer",
    "int64": "long",
    "float32": "float",
    "float64": "double",
    "object": "string",
    "datetime64[us]": "datetime",
}


@contextmanager
def _training() -> Iterator[str]:
    """An MLflow run like that of a training, active inside."""
    import mlflow

    store = RunStore()
    run_id = store.start(TRAINING, kind=RunKind.TRAIN)
    with mlflow.start_run(run_id=run_id):
        yield run_id
    store.set_state(run_id, RunState.DONE)


def _registered(name: str, logged: ModelInfo, run_id: str, alias: str | None, native: Any) -> Registered:
    version = Registry().register(name, logged.model_uri, training_run_id=run_id, alias=alias)
    return Registered(name, version, native)


# -------------------------------------------------------------------------------------- graphs without registry


@dataclass(frozen=True, slots=True)
class FunctionPredictor:
    """A predictor whose model is a function of the batch."""

    function: Callable[[Batch], npt.ArrayLike]
    batches: list[int] = field(default_factory=list)
    """Rows of every batch that was predicted."""

    def predict(self, batch: Batch) -> npt.NDArray[Any]:
        """Return what the function says."""
        self.batches.append(batch.rows)
        return np.asarray(self.function(batch))


def frozen_model(name: str, columns: Mapping[str, str], *, version: int = 1) -> FrozenModel:
    """Return a frozen model without files; `columns` maps names to MLflow types, with `?` where null is allowed."""
    inputs = [SignatureColumn(column, kind.rstrip("?"), not kind.endswith("?")) for column, kind in columns.items()]
    digest = hashlib.sha256(f"{name}/{version}".encode()).hexdigest()
    return FrozenModel(name, version, digest, "function", {}, tuple(inputs), 0)


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph as plain data, and compiled."""

    source: GraphSource
    step: Step

    def run(self, table: pa.Table) -> pa.Table:
        """Return the table after the graph."""
        return self.step.run(Batch(table)).table


def make_graph(
    score: Mapping[str, Any],
    *,
    models: Mapping[str, tuple[FrozenModel, Predictor]] | None = None,
    modules: Mapping[str, str] | None = None,
    keys: tuple[str, ...] = ("id",),
) -> Graph:
    """Return a graph without deployment and registry.

    Args:
        score: the section `score` of a `deployment.yaml`.
        models: frozen model and predictor by model URI.
        modules: source text of rule modules by name.
        keys: columns that rules must keep.
    """
    given = models or {}
    predictors = {frozen.digest: predictor for frozen, predictor in given.values()}
    spec: AnyStep = TypeAdapter(deployment.Step).validate_python(score)
    source = GraphSource(spec, keys, {uri: frozen for uri, (frozen, _) in given.items()}, dict(modules or {}))
    return Graph(source, compile_graph(source, lambda frozen, _: predictors[frozen.digest]))


def _without_none(document: Mapping[str, Any]) -> dict[str, Any]:
    return {section: value for section, value in document.items() if value is not None}
