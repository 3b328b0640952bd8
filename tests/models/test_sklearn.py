"""Threads of scikit-learn: as many as the task has, and results that do not depend on them."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import ThreadpoolController

from scoring import testing
from scoring.batch import Batch
from scoring.models.base import Files, FrozenModel, SignatureColumn, digest_of
from scoring.models.cache import PredictorCache
from scoring.models.sklearn import SklearnPredictor

ROWS = testing.example_rows(3000, seed=3)
INPUTS = (SignatureColumn("x", "double", required=True), SignatureColumn("y", "double", required=True))


def stored(estimator: Any) -> tuple[FrozenModel, Files]:
    frame = ROWS.to_pandas()
    files = {"model.skops": skops.io.dumps(estimator.fit(frame[["x", "y"]], frame["label"]))}
    conf = {"pickled_model": "model.skops", "serialization_format": "skops"}
    return FrozenModel("m", 1, digest_of(files), "sklearn", conf, INPUTS, 0), files


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(30, n_jobs=4, random_state=0),
        KNeighborsClassifier(3, n_jobs=-1),
        HistGradientBoostingClassifier(max_iter=5),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_scores_are_the_same_to_the_bit_with_every_number_of_threads(estimator: Any) -> None:
    given = stored(estimator)
    found = [PredictorCache().get(*given, threads=threads).predict(Batch(ROWS)) for threads in (1, 2, 4, 2)]
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_a_forest_starts_no_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = PredictorCache().get(*stored(RandomForestClassifier(30, n_jobs=4, random_state=0)), threads=1)
    predict, seen = DecisionTreeClassifier.predict_proba, set()

    def watched(*given: Any, **options: Any) -> Any:
        seen.add(threading.get_ident())
        return predict(*given, **options)

    monkeypatch.setattr(DecisionTreeClassifier, "predict_proba", watched)
    predictor.predict(Batch(ROWS))
    assert seen == {threading.get_ident()}


@pytest.mark.parametrize("threads", [1, 2])
def test_libraries_use_as_many_threads_as_the_task_has(threads: int) -> None:
    pools = ThreadpoolController()
    before = [library["num_threads"] for library in pools.info()]
    seen: list[int] = []

    class Watched(BaseEstimator):
        """Predicts the number of threads."""

        def predict(self, features: Any) -> Any:
            seen.extend(library["num_threads"] for library in pools.info())
            return np.zeros(len(features))

    model, _ = stored(HistGradientBoostingClassifier(max_iter=2))
    SklearnPredictor(model, Watched(), False, threads, pools).predict(Batch(ROWS))
    assert set(seen) == {threads}
    assert [library["num_threads"] for library in pools.info()] == before


ALONE = """
import sys
import scoring.models.sklearn
assert "torch" not in sys.modules
import torch
print(torch.zeros(1).item())
"""


def test_scikit_learn_does_not_bring_pytorch_along() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout == "0.0\n", done.stderr
