"""scikit-learn models, stored by skops, or pickled where the deployment trusts the files."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import joblib  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
from joblib import parallel_config
from threadpoolctl import ThreadpoolController

from scoring.batch import Batch
from scoring.errors import listed
from scoring.models.base import Files, FrozenModel, LoadOptions, class_probabilities, expected_columns
from scoring.models.trust import SKOPS, Finding, refused


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
    outputs: int = 1

    def predict(self, batch: Batch) -> npt.NDArray[Any]:
        """Predict on a pandas frame with the signature's columns, as scikit-learn itself would be called."""
        frame = batch.frame(self.model.types)
        # An `n_jobs` that was stored with the model knows nothing of this machine's tasks, and a forest adds up its
        # trees in the order in which threads end, so that the last bits of a score would differ from run to run.
        with parallel_config(backend="sequential"), self.pools.limit(limits=self.threads):
            if self.has_probabilities:
                return class_probabilities(self.model, np.asarray(self.estimator.predict_proba(frame)), self.outputs)
            return expected_columns(self.model, np.asarray(self.estimator.predict(frame)), self.outputs)


def load(model: FrozenModel, files: Files, options: LoadOptions) -> SklearnPredictor:
    """Load a skops file after auditing the types in it, or a trusted pickle; scikit-learn always runs on the CPU."""
    content = files[model.conf.get("pickled_model", "")]
    estimator = open_estimator(model, content, is_skops=model.conf.get("serialization_format") == SKOPS)
    classes = getattr(estimator, "classes_", ())
    # A classifier of several targets has a list of arrays of classes, and predicts a list of arrays of probabilities.
    is_classifier = hasattr(estimator, "predict_proba") and not isinstance(classes, list)
    return SklearnPredictor(
        model,
        estimator,
        has_probabilities=is_classifier and (len(classes) == 2 or options.outputs > 1)
        if options.method == "auto"
        else options.method == "predict_proba",
        threads=options.threads,
        pools=ThreadpoolController(),
        outputs=options.outputs,
    )


def open_estimator(model: FrozenModel, content: bytes, *, is_skops: bool, types: frozenset[str] = TRUSTED_TYPES) -> Any:
    """Return the estimator in a skops file whose types were audited, or in a pickle of a trusted model.

    Args:
        model: whose estimator.
        content: the file.
        is_skops: false for what pickle, cloudpickle or joblib wrote.
        types: may be in a skops file of a model that is not trusted.

    Raises:
        ModelError: types in the file could run code, and the model is not trusted.
    """
    if not is_skops:
        return joblib.load(io.BytesIO(content))
    asked = skops.io.get_untrusted_types(data=content)
    untrusted = [name for name in asked if name not in types]
    if untrusted and not model.trusted:
        finding = Finding(
            f"scikit-learn's own types and {listed(types)}",
            listed(untrusted),
            "Replace custom transformers by rules of the deployment.",
        )
        raise refused(model, "holds types that could run code", finding)
    return skops.io.loads(content, trusted=asked)
