"""The example with routes and a learned combiner, on Spark, against the plain libraries."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
import xgboost
from deltalake import DeltaTable

from scoring import nightly, settings
from scoring.deployment import Period, load
from scoring.promotion import redeploy
from scoring.registry import Registry
from scoring.training import train
from tests.flights.partitions import FOLDER, read

NIGHT = "2013-02-23"
WINDOW = Period(first=date(2013, 2, 1), last=date(2013, 2, 14))
HOLDOUT = Period(first=date(2013, 2, 15), last=date(2013, 2, 18))


def plain(name: str) -> Any:
    """Return a champion as its own library loads it."""
    model, files = Registry().pinned(f"flight_triage_{name}", 1)
    if model.flavor == "sklearn":
        return skops.io.loads(files[model.conf["pickled_model"]], trusted=["numpy.dtype"])
    booster = xgboost.Booster()
    booster.load_model(bytearray(files[model.conf["data"]]))
    return booster


@pytest.mark.spark
@pytest.mark.timeout(600)
def test_rows_take_their_routes_and_are_scored_as_by_the_plain_libraries(
    home: Path, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(settings.DEPLOYMENTS_VARIABLE, str(FOLDER.parent))
    shutil.copytree(lake, home / "lake")
    deployment = load("flight_delays_triage")
    trained = train(deployment, WINDOW, HOLDOUT)
    # What a model predicts for the rows of one route alone says nothing about it.
    assert {name for name in trained.metrics if name.startswith("challenger")} == {
        "challenger_roc_auc",
        "challenger_log_loss",
    }
    assert redeploy(deployment, trained.run_id).is_promoted
    run = nightly.score(deployment, NIGHT)
    nightly.check(deployment, NIGHT, run_id=run.run_id)
    nightly.publish(deployment, NIGHT, run_id=run.run_id)
    published = DeltaTable(deployment.output.path).to_pandas().set_index("flight_id")

    flights = read(lake, "flights", NIGHT, NIGHT).to_pandas().set_index("flight_id")
    expected = scored_plainly(flights.assign(day_of_week=(pd.Timestamp(NIGHT).dayofweek + 1) % 7))
    assert set(published.index) == set(expected.index)
    seen = published.loc[expected.index]
    assert seen["reason"].tolist() == expected["reason"].tolist()
    np.testing.assert_allclose(seen["score"], expected["score"], rtol=1e-5)
    assert expected["reason"].value_counts().min() > 10, "every route has been taken"
    assert len(expected["reason"].unique()) == 3


def scored_plainly(rows: pd.DataFrame) -> pd.DataFrame:
    linear, trees, blend = plain("linear"), plain("trees"), plain("blend")
    by_linear = linear.predict_proba(rows[list(linear.feature_names_in_)])[:, 1]
    by_trees = trees.predict(xgboost.DMatrix(rows[trees.feature_names].astype(np.float32)))
    members = pd.DataFrame({"linear": by_linear, "trees": by_trees.astype(float)}, index=rows.index)
    by_blend = blend.predict_proba(members)[:, 1]
    storm = (rows["visib"] < 0.5) | (rows["wind_speed"] > 40)
    unknown = rows["plane_age"].isna()
    score = np.select([storm, unknown], [0.8, by_linear], by_blend)
    reason = np.select([storm, unknown], ["weather", "plane not known"], "models")
    return pd.DataFrame({"score": score.clip(0.02, 0.95), "reason": reason}, index=rows.index)
