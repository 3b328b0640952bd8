"""The example that learns online: trained on the winter, it learns the nights of April as its Dag would let it."""

from __future__ import annotations

import shutil
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.metrics import log_loss

from scoring import settings
from scoring.deployment import Period, load
from scoring.online.learn import learn
from scoring.registry import CHAMPION, Registry
from scoring.runs import RunKind, RunStore
from scoring.training import train
from tests.flights.partitions import FOLDER, read

MODEL = "flight_delay_online"
WINDOW = Period(first=date(2013, 3, 1), last=date(2013, 3, 24))
HOLDOUT = Period(first=date(2013, 3, 25), last=date(2013, 3, 31))
NIGHTS = 10


@pytest.mark.timeout(600)
def test_it_learns_april_and_knows_it_better_than_the_frozen_model(
    home: Path, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(settings.DEPLOYMENTS_VARIABLE, str(FOLDER.parent))
    shutil.copytree(lake, home / "lake")
    deployment = load("flight_delays_online")
    trained = train(deployment, WINDOW, HOLDOUT)
    registry = Registry()
    registry.set_alias(MODEL, CHAMPION, trained.model_versions[MODEL])
    evening = HOLDOUT.first + timedelta(days=NIGHTS + 1)
    learned = learn(deployment, evening.isoformat())
    # The hold-out nights of the training come first: the model was not trained on them.
    days = [(HOLDOUT.first + timedelta(days=day)).isoformat() for day in range(NIGHTS)]
    assert [outcome.partition for outcome in learned] == days
    assert registry.aliased(MODEL, CHAMPION) == learned[-1].version
    assert learn(deployment, evening.isoformat()) == []
    runs = RunStore().find(deployment.name, kind=RunKind.LEARN, state="done")
    assert sum(run.metrics["rows"] for run in runs) < len(labelled(lake, days))
    # Natively: on all that it has learned, its classifier is better than the one that has not.
    rows = labelled(lake, days)
    losses = [log_loss(rows["is_late"], natively(version, rows)) for version in (1, learned[-1].version)]
    assert losses[1] < losses[0]


def labelled(lake: Path, days: list[str]) -> pd.DataFrame:
    flights = read(lake, "flights", days[0], days[-1]).to_pandas()
    labels = read(lake, "labels", days[0], days[-1]).to_pandas()[["flight_id", "is_late"]]
    rows = flights.merge(labels, on="flight_id").dropna(subset=["is_late"])
    return rows.assign(day_of_week=(rows["flight_date"].astype("datetime64[us]").dt.dayofweek + 1) % 7)


def natively(version: int, rows: pd.DataFrame) -> np.ndarray:
    model, files = Registry().pinned(MODEL, version)
    estimator = skops.io.loads(files[model.conf["pickled_model"]], trusted=["numpy.dtype"])
    probabilities: np.ndarray = estimator.predict_proba(rows[list(model.columns)])[:, 1]
    return probabilities
