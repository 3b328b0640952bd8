"""Training, comparing challenger and champion, promoting and rolling back, on real models."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from scoring import promotion, training
from scoring.deployment import Deployment, Period
from scoring.errors import ConfigurationError, ContractError, DataError
from scoring.registry import CHALLENGER, CHAMPION, Registry
from scoring.runs import RunKind, RunState, RunStore
from scoring.testing import (
    FEATURES,
    MODEL,
    PARTITION,
    example_rows,
    register_sklearn,
    write_deployment,
    write_partition,
)

TRAIN = """
import mlflow
from sklearn.linear_model import LogisticRegression

from scoring.testing import signature


def train(window):
    columns = ["x", "y", "sum"]
    frame = window.frame[columns]
    model = LogisticRegression().fit(frame, window.frame[window.label])
    logged = mlflow.sklearn.log_model(
        model, name="model", serialization_format="skops", skops_trusted_types=["numpy.dtype"],
        signature=signature(frame), pip_requirements=["scikit-learn"],
    )
    return {"example": logged.model_uri}


def returns_nothing(window):
    return None


def raises(window):
    raise ValueError("no such column")
"""
RULES = """
import pyarrow as pa
import pyarrow.compute as pc


def add_sum(batch: pa.Table) -> pa.Table:
    return batch.append_column("sum", pc.add(batch["x"], batch["y"]))
"""
WINDOW = Period(first=date(2024, 1, 1), last=date(2024, 1, 10))
HOLDOUT = Period(first=date(2024, 1, 11), last=date(2024, 1, 14))


def deployment_in(home: Path, *, train: str = "train:train", **retrain: object) -> Deployment:
    return write_deployment(
        home / "deployments" / "example",
        files={"train.py": TRAIN, "rules.py": RULES},
        score={"pipeline": [{"rule": {"python": "rules:add_sum"}}, {"model": f"models:/{MODEL}@champion"}]},
        drift={
            "reference": {"first": "2024-01-01", "last": "2024-01-10"},
            "labels": {"path": "${SCORING_HOME}/labels", "column": "label", "delay_days": 2},
        },
        retrain={"train": train, "window_days": 10, "holdout_days": 4, **retrain},
    )


@pytest.fixture
def lake(home: Path) -> Path:
    """Two weeks of labelled nights."""
    for day in range(1, 15):
        rows = example_rows(80, seed=day, first_id=1000 * day)
        night = f"2024-01-{day:02d}"
        write_partition(home / "lake", PARTITION, night, rows.drop_columns(["label"]))
        write_partition(home / "labels", PARTITION, night, rows.select(["id", "label"]))
    return home


def bad_champion(home: Path) -> None:
    """Register a champion that predicts the opposite."""
    rows = example_rows(500, seed=99)
    register_sklearn(MODEL, rows.select(list(FEATURES)).to_pandas(), 1 - rows["label"].to_numpy())


def test_the_first_challenger_wins_without_a_champion(lake: Path) -> None:
    deployment = deployment_in(lake)
    run = training.train(deployment, WINDOW, HOLDOUT)
    assert run.state is RunState.DONE
    assert run.model_versions == {MODEL: 1}
    assert run.metrics["holdout_rows"] == 4 * 80
    assert run.metrics["challenger_roc_auc"] > 0.9
    assert run.metrics["challenger_roc_auc"] == pytest.approx(run.metrics[f"challenger_roc_auc_{MODEL}"])
    registry = Registry()
    assert (registry.aliased(MODEL, CHALLENGER), registry.aliased(MODEL, CHAMPION)) == (1, None)
    promoted = promotion.redeploy(deployment, run.run_id)
    assert promoted.replaced == {MODEL: promotion.Replacement(None, 1)}
    assert "there was no champion" in promoted.reason
    assert registry.aliased(MODEL, CHAMPION) == 1


def test_a_better_challenger_replaces_the_champion_and_can_be_rolled_back(lake: Path) -> None:
    bad_champion(lake)
    deployment = deployment_in(lake)
    run = training.train(deployment, WINDOW, HOLDOUT)
    assert run.metrics["champion_roc_auc"] < 0.1
    assert run.metrics["challenger_roc_auc"] > 0.9
    promoted = promotion.redeploy(deployment, run.run_id)
    assert promoted.replaced == {MODEL: promotion.Replacement(1, 2)}
    registry = Registry()
    assert registry.aliased(MODEL, CHAMPION) == 2
    back = promotion.rollback(deployment)
    assert back.replaced == {MODEL: promotion.Replacement(2, 1)}
    assert registry.aliased(MODEL, CHAMPION) == 1
    store = RunStore()
    assert store.find("example", kind=RunKind.ROLLBACK)[0].state is RunState.DONE
    with pytest.raises(ConfigurationError, match="has no promotion to roll back"):
        promotion.rollback(deployment)


def test_a_challenger_that_does_not_win_is_not_promoted(lake: Path) -> None:
    deployment = deployment_in(lake)
    promotion.redeploy(deployment, training.train(deployment, WINDOW, HOLDOUT).run_id)
    second = training.train(deployment, WINDOW, HOLDOUT)
    refused = promotion.redeploy(deployment, second.run_id)
    assert not refused.is_promoted
    assert "needed more than 0" in refused.reason
    assert Registry().aliased(MODEL, CHAMPION) == 1
    forced = promotion.redeploy(deployment, second.run_id, is_forced=True)
    assert forced.replaced == {MODEL: promotion.Replacement(1, 2)}


def test_a_small_gain_is_not_enough_where_more_is_asked_for(lake: Path) -> None:
    assert promotion.verdict({"challenger_roc_auc": 0.81, "champion_roc_auc": 0.80}, 0.02)[0] is False
    assert promotion.verdict({"challenger_roc_auc": 0.83, "champion_roc_auc": 0.80}, 0.02)[0] is True
    assert promotion.verdict({"challenger_roc_auc": 0.80, "champion_roc_auc": 0.80}, 0.0)[0] is False
    assert promotion.verdict({}, 0.0) == (False, "the challenger could not be measured on the hold-out nights")


def test_a_version_is_promoted_by_hand(lake: Path) -> None:
    bad_champion(lake)
    deployment = deployment_in(lake)
    training.train(deployment, WINDOW, HOLDOUT)
    promotion.promote_versions(deployment, {MODEL: 2})
    assert Registry().aliased(MODEL, CHAMPION) == 2
    with pytest.raises(ConfigurationError, match="has no version '7'"):
        promotion.promote_versions(deployment, {MODEL: 7})
    with pytest.raises(ConfigurationError, match="does not use other"):
        promotion.promote_versions(deployment, {"other": 1})
    assert Registry().aliased(MODEL, CHAMPION) == 2


def test_recent_windows_end_where_labels_are_due(lake: Path) -> None:
    window, holdout = training.windows(deployment_in(lake), "2024-01-16")
    assert (holdout.first, holdout.last) == (date(2024, 1, 11), date(2024, 1, 14))
    assert (window.first, window.last) == (date(2024, 1, 1), date(2024, 1, 10))


def test_labels_of_the_future_are_not_used(lake: Path) -> None:
    deployment = deployment_in(lake)
    run = training.train(deployment, WINDOW, HOLDOUT, as_of="2024-01-14")
    # Labels arrive two days later: on the 14th those of the 13th and 14th were not there.
    assert run.metrics["holdout_rows"] == 2 * 80


def test_hold_out_nights_are_not_trained_on(lake: Path) -> None:
    overlapping = Period(first=date(2024, 1, 10), last=date(2024, 1, 14))
    with pytest.raises(ConfigurationError, match="the hold-out nights lie in the training window"):
        training.train(deployment_in(lake), WINDOW, overlapping)


def test_nothing_to_train_on(lake: Path) -> None:
    for folder in (lake / "labels").iterdir():
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    with pytest.raises(DataError, match=r"expected labelled rows from 2024-01-01 to 2024-01-10, got none"):
        training.train(deployment_in(lake), WINDOW, HOLDOUT)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("returns_nothing", r"returned something else than its models: expected model URIs .* got NoneType"),
        ("raises", r"'train:raises' of 'example' raised on 800 rows: got ValueError: no such column"),
    ],
)
def test_a_wrong_training_function(lake: Path, function: str, sentence: str) -> None:
    with pytest.raises(ContractError, match=sentence):
        training.train(deployment_in(lake, train=f"train:{function}"), WINDOW, HOLDOUT)
    (run,) = RunStore().find("example", kind=RunKind.TRAIN)
    assert run.state is RunState.FAILED
    assert Registry().aliased(MODEL, CHALLENGER) is None


def test_the_same_window_gives_the_same_model(lake: Path) -> None:
    deployment = deployment_in(lake)
    runs = [training.train(deployment, WINDOW, HOLDOUT) for _ in range(2)]
    assert np.isclose(runs[0].metrics["challenger_log_loss"], runs[1].metrics["challenger_log_loss"], rtol=0, atol=0)


def test_champions_that_changed_since_the_comparison_are_not_replaced(lake: Path) -> None:
    bad_champion(lake)
    deployment = deployment_in(lake)
    run = training.train(deployment, WINDOW, HOLDOUT)
    bad_champion(lake)  # somebody promotes another version by hand
    refused = promotion.redeploy(deployment, run.run_id)
    assert not refused.is_promoted
    assert "the champions have changed since" in refused.reason
    assert Registry().aliased(MODEL, CHAMPION) == 3


def test_only_a_finished_training_of_the_deployment_is_promoted(lake: Path) -> None:
    deployment = deployment_in(lake)
    store = RunStore()
    foreign = store.start("other", kind=RunKind.TRAIN)
    store.set_state(foreign, RunState.DONE)
    unfinished = store.start("example", kind=RunKind.TRAIN)
    scoring = store.start("example", "2024-01-01")
    for run_id in (foreign, unfinished, scoring):
        with pytest.raises(ConfigurationError, match="cannot be promoted: expected a finished training of 'example'"):
            promotion.redeploy(deployment, run_id)


def test_a_promotion_that_died_half_way_is_rolled_back(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad_champion(lake)
    deployment = deployment_in(lake)
    run = training.train(deployment, WINDOW, HOLDOUT)
    real = Registry.set_alias

    def dies(registry: Registry, name: str, alias: str, version: int) -> None:
        real(registry, name, alias, version)
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(Registry, "set_alias", dies)
        with pytest.raises(KeyboardInterrupt):
            promotion.redeploy(deployment, run.run_id)
    assert Registry().aliased(MODEL, CHAMPION) == 2
    promotion.rollback(deployment)
    assert Registry().aliased(MODEL, CHAMPION) == 1


def test_hold_out_nights_that_the_champion_learned_from_are_refused(lake: Path) -> None:
    deployment = deployment_in(lake)
    promotion.redeploy(deployment, training.train(deployment, WINDOW, HOLDOUT).run_id)
    earlier = Period(first=date(2024, 1, 1), last=date(2024, 1, 6))
    inside = Period(first=date(2024, 1, 7), last=date(2024, 1, 12))
    with pytest.raises(ConfigurationError, match=r"the champion .* learned from hold-out nights: .* 2024-01-10"):
        training.train(deployment, earlier, inside)
