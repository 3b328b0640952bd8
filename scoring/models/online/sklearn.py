"""scikit-learn: `partial_fit` of the last step of a pipeline; the steps before it stay as they were fitted."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import skops.io
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from scoring.deployment import Online
from scoring.errors import ModelError
from scoring.models.base import Files, FrozenModel, LoadOptions
from scoring.models.online.update import Rows, repacked
from scoring.models.sklearn import load


def update(model: FrozenModel, files: Files, rows: Rows, online: Online) -> Mapping[str, bytes]:
    """Learn from rows, `online.passes` times, in an order that the seed decides."""
    estimator = load(model, files, LoadOptions()).estimator
    learner = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    if not hasattr(learner, "partial_fit"):
        raise ModelError(
            f"model {model.label} cannot learn online",
            "an estimator with partial_fit, alone or at the end of a pipeline",
            type(learner).__name__,
            "SGDClassifier(loss='log_loss') learns what LogisticRegression does.",
        )
    random = np.random.default_rng(rows.seed)
    # One thread: sums of several would end in other bits.
    with threadpool_limits(1):
        features: Any = rows.batch.frame(model.types)
        for _, step in estimator.steps[:-1] if isinstance(estimator, Pipeline) else ():
            features = step.transform(features)
        is_frame = hasattr(features, "iloc")
        labels = rows.labels.astype(learner.classes_.dtype)
        if getattr(learner, "random_state", 0) is None:
            learner.set_params(random_state=0)
        for _ in range(online.passes):
            order = random.permutation(len(labels))
            learner.partial_fit(features.iloc[order] if is_frame else features[order], labels[order])
    return {model.conf["pickled_model"]: stable_bytes(estimator)}


def stable_bytes(estimator: Any) -> bytes:
    """Return an estimator as skops stores it, the same bytes for the same estimator.

    skops numbers objects and names files by their addresses in memory; here both are numbered as they come.
    """
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(estimator))) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(content.pop("schema.json"))
    numbers: dict[int, int] = {}
    names: dict[str, str] = {}

    def renumbered(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: renumbered(inner, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [renumbered(inner) for inner in value]
        if key == "__id__" and isinstance(value, int):
            return numbers.setdefault(value, len(numbers))
        if key == "file" and value in content:
            return names.setdefault(value, f"{len(names)}.{value.rpartition('.')[2]}")
        return value

    text = json.dumps(renumbered(schema), indent=2).encode()
    return repacked({"schema.json": text, **{names[name]: data for name, data in content.items() if name in names}})
