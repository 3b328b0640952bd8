"""scikit-learn models, stored by skops. Pickle-based files are refused: opening them can run code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy.typing as npt
from joblib import parallel_config  # type: ignore[import-untyped]
from threadpoolctl import ThreadpoolController

from scoring.batch import Batch
from scoring.errors import ModelError, listed
from scoring.models.base import Files, FrozenModel, LoadOptions, positive_class


@dataclass(frozen=True, slots=True)
class _Hidden:
    """An import hook with which a library is not found."""

    name: str

    def find_spec(self, name: str, *_: object) -> None:
        if name == self.name:
            raise ModuleNotFoundError(f"{name} is hidden", name=name)


@contextmanager
def _hiding(name: str) -> Iterator[None]:
    hook = _Hidden(name)
    sys.meta_path.insert(0, hook)
    try:
        yield
    finally:
        sys.meta_path.remove(hook)


# skops walks through all packages of scikit-learn, one of which imports PyTorch: a second and 200 MB for each worker.
with _hiding("torch"):
    import skops.io

TRUSTED_TYPES: Final = frozenset(
    {
        "numpy.dtype",
        "sklearn._loss.loss.HalfTweedieLossIdentity",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
    }
)
"""Types that skops asks about and that run no code; all others that it asks about are refused.

skops asks about trees because their indices are not checked: a file made to do harm could crash its process, no more.
"""


@dataclass(frozen=True, slots=True)
class SklearnPredictor:
    """A fitted estimator or pipeline."""

    model: FrozenModel
    estimator: Any
    has_probabilities: bool
    threads: int
    pools: ThreadpoolController
    """The thread pools of the libraries in this process; finding them takes longer than a small batch."""

    def predict(self, batch: Batch) -> npt.NDArray[Any]:
        """Predict on a pandas frame with the signature's columns, as scikit-learn itself would be called."""
        frame = batch.frame(self.model.types)
        # An `n_jobs` that was stored with the model knows nothing of this machine's tasks, and a forest adds up its
        # trees in the order in which threads end, so that the last bits of a score would differ from run to run.
        with parallel_config(backend="sequential"), self.pools.limit(limits=self.threads):
            if self.has_probabilities:
                return positive_class(self.model, self.estimator.predict_proba(frame))
            values: npt.NDArray[Any] = self.estimator.predict(frame)
            return values


def load(model: FrozenModel, files: Files, options: LoadOptions) -> SklearnPredictor:
    """Load a skops file after auditing the types in it; scikit-learn always runs on the CPU."""
    path = model.conf.get("pickled_model", "")
    if model.conf.get("serialization_format") != "skops":
        raise ModelError(
            f"model {model.label} is stored in a format that can run code",
            "skops",
            repr(model.conf.get("serialization_format")),
            "Log it with mlflow.sklearn.log_model(..., serialization_format='skops').",
        )
    untrusted = [name for name in skops.io.get_untrusted_types(data=files[path]) if name not in TRUSTED_TYPES]
    if untrusted:
        raise ModelError(
            f"model {model.label} holds types that could run code",
            f"scikit-learn's own types and {listed(TRUSTED_TYPES)}",
            listed(untrusted),
            "Nothing of it was loaded. Replace custom transformers by rules of the deployment.",
        )
    estimator = skops.io.loads(files[path], trusted=sorted(TRUSTED_TYPES))
    is_binary = hasattr(estimator, "predict_proba") and len(getattr(estimator, "classes_", ())) == 2
    return SklearnPredictor(
        model,
        estimator,
        has_probabilities=is_binary if options.method == "auto" else options.method == "predict_proba",
        threads=options.threads,
        pools=ThreadpoolController(),
    )
