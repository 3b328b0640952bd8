"""Small models as MLflow saves them, without a registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from scoring import testing
from scoring.batch import Batch
from scoring.models.base import Files, FrozenModel
from scoring.models.cache import PredictorCache
from tests.contract.models import frozen

ROWS = testing.example_rows(300, seed=21)
FRAME: pd.DataFrame = ROWS.to_pandas()
FEATURES, LABEL = FRAME[["x", "y"]], FRAME["label"]
THREE = (FEATURES["x"] > 0).astype(int) + (FEATURES["y"] > 0).astype(int)


def saved(
    module: Any, native: Any, folder: Path, *, features: pd.DataFrame = FEATURES, **options: Any
) -> tuple[FrozenModel, Files]:
    """Save a model by one of MLflow's modules, and return it as a run freezes it."""
    module.save_model(
        native, str(folder / "model"), signature=testing.signature(features), pip_requirements=["numpy"], **options
    )
    return frozen(folder / "model")


def predicted(model: tuple[FrozenModel, Files], **options: Any) -> Any:
    """Return the predictions for `ROWS`."""
    return PredictorCache().get(*model, **options).predict(Batch(ROWS))
