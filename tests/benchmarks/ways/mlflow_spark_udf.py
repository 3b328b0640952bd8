"""`mlflow.pyfunc.spark_udf` with the flavor itself, or with a Python model where no flavor gives the score."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from pyspark.sql.functions import struct

from scoring import settings
from tests.benchmarks import native
from tests.benchmarks.cases import KEY, Case, Graph, registered_name
from tests.benchmarks.data import random_rows
from tests.benchmarks.places import Places
from tests.benchmarks.ways import Score
from tests.benchmarks.ways.spark_rows import read, spark_session, write


@contextmanager
def opened(case: Case, places: Places, cores: int) -> Iterator[Score]:
    """Start Spark and make the function."""
    mlflow.set_tracking_uri(settings.tracking_uri())
    with spark_session(case, cores) as session:
        uri = flavor_uri(case) or save_pyfunc(case, places)
        predict = mlflow.pyfunc.spark_udf(session, uri, result_type="double", env_manager="local")

        def score(value: str, target: Path) -> dict[str, float]:
            # One struct takes less CPU than as many arguments.
            scores = predict(struct(*case.dataset.features)).alias("score")
            return write(read(session, case, places, value).select(KEY, scores), target)

        yield score


def flavor_uri(case: Case) -> str | None:
    """Return the address under which MLflow itself gives the case's score; None if no single flavor does.

    scikit-learn's flavor predicts classes, and ensembles and pipelines are several models.
    """
    has_flavor = case.graph is Graph.SINGLE and case.models[0].startswith(("xgboost", "torch"))
    return f"models:/{registered_name(case.models[0])}@champion" if has_flavor else None


def save_pyfunc(case: Case, places: Places) -> str:
    """Save the case as an MLflow model in Python, as its users do where no flavor fits, and return its folder."""
    folder = places.pyfunc(case)
    shutil.rmtree(folder, ignore_errors=True)

    class NativeModel(mlflow.pyfunc.PythonModel):
        """The native models of a case; loaded once per Spark worker."""

        def load_context(self, context: Any) -> None:  # noqa: ARG002 - MLflow's signature
            self.graph = native.load(case, places, 1)

        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:  # noqa: ARG002 - as above
            return self.graph.predict(self.graph.of_frame(model_input))

    example = random_rows(case.dataset, 5, first=0, seed=0).to_pandas().drop(columns=KEY)
    mlflow.pyfunc.save_model(
        folder,
        python_model=NativeModel(),
        signature=mlflow.models.infer_signature(example, example.index.to_numpy(float)),
        pip_requirements=[],
    )
    return str(folder)
