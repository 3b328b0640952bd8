"""Any other MLflow model through `python_function`, the last resort: the only flavor that needs MLflow on executors.

Whatever the artifact names is imported and called, so it is loaded only where the deployment trusts the files.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow  # noqa: TID253 - the flavor is MLflow's
import numpy as np
import numpy.typing as npt
from joblib import parallel_config  # type: ignore[import-untyped]
from threadpoolctl import ThreadpoolController

from scoring.batch import Batch
from scoring.models.base import Files, FrozenModel, LoadOptions, expected_columns, not_binary
from scoring.models.folder import PREFIX, write


@dataclass(frozen=True, slots=True, weakref_slot=True)
class PythonFunctionPredictor:
    """A model behind MLflow's generic interface."""

    model: FrozenModel
    function: Any
    outputs: int
    threads: int
    pools: ThreadpoolController

    def predict(self, batch: Batch) -> npt.NDArray[Any]:
        """Predict on a pandas frame with the signature's columns, as `mlflow.pyfunc` would be called."""
        with parallel_config(backend="sequential"), self.pools.limit(limits=self.threads):
            values = self.function.predict(batch.frame(self.model.types))
        return expected_columns(self.model, np.asarray(values), self.outputs)


def load(model: FrozenModel, files: Files, options: LoadOptions) -> PythonFunctionPredictor:
    """Let MLflow load the model from a folder of its own, which stays as long as the predictor does."""
    if options.method == "predict_proba":
        raise not_binary(model)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        write(files, folder)
        function = mlflow.pyfunc.load_model(str(folder))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    predictor = PythonFunctionPredictor(
        model, function, outputs=options.outputs, threads=options.threads, pools=ThreadpoolController()
    )
    # A model may read its files when it predicts.
    weakref.finalize(predictor, shutil.rmtree, folder, ignore_errors=True)
    return predictor
