"""XGBoost: continued training. Every night adds `online.rounds` rounds of trees, so the model grows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath

import xgboost

from scoring.deployment import Online
from scoring.errors import ModelError
from scoring.models.base import Files, FrozenModel
from scoring.models.online.update import Rows


def update(model: FrozenModel, files: Files, rows: Rows, online: Online) -> Mapping[str, bytes]:
    """Add trees that correct the booster on rows."""
    path = model.conf.get("data", "model.ubj")
    booster = xgboost.Booster()
    booster.load_model(bytearray(files[path]))
    objective = json.loads(booster.save_config())["learner"]["learner_train_param"]["objective"]
    if not objective.startswith("binary:"):
        raise ModelError(f"model {model.label} cannot learn online", "a binary classifier", f"objective {objective!r}")
    columns = tuple(booster.feature_names or model.columns)
    data = xgboost.DMatrix(rows.batch.matrix(columns), rows.labels, feature_names=booster.feature_names, nthread=1)
    parameters = {
        "objective": objective,
        "eta": online.learning_rate,
        "max_depth": online.max_depth,
        "tree_method": "hist",
        # One thread: sums of several would end in other bits.
        "nthread": 1,
        "seed": rows.seed,
    }
    grown = xgboost.train(parameters, data, num_boost_round=online.rounds, xgb_model=booster)
    return {path: bytes(grown.save_raw(raw_format=PurePath(path).suffix.removeprefix(".")))}
