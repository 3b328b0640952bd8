"""Soups of registered versions: chosen, recorded, compared, promoted and refused."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from scoring import promotion, soup
from scoring.batch import Batch
from scoring.cli import app
from scoring.deployment import Deployment, Period
from scoring.errors import ConfigurationError, ModelError
from scoring.golden import DIGEST_TAG as GOLDEN_TAG
from scoring.models import flavors
from scoring.models.base import LoadOptions
from scoring.models.soup.method import Method
from scoring.registry import CHALLENGER, CHAMPION, TRAINING_RUN_TAG, Registry
from scoring.runs import RunKind, RunState, RunStore
from scoring.testing import FEATURES, MODEL, example_rows, register_sklearn, register_xgboost
from tests.soup.nights import HOLDOUT, LINEAR, NET, RATE, STRENGTH, UNITS, trained, write, write_lake

RATES = (0.001, 0.02, 0.5)


@pytest.fixture
def lake(home: Path) -> Path:
    write_lake(home)
    return home


@pytest.fixture
def linear(lake: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """Three versions of a logistic regression."""
    deployment = write(lake, LINEAR)
    trained(deployment, monkeypatch, **{STRENGTH: (0.0001, 0.01, 10)})
    return deployment


def predictions(version: int) -> np.ndarray:
    model, files = Registry().pinned(MODEL, version)
    rows = example_rows(50, seed=77).select(list(FEATURES))
    return flavors.loader(model.flavor)(model, files, LoadOptions()).predict(Batch(rows))


def test_a_uniform_soup_is_registered_with_its_parents(linear: Deployment) -> None:
    run = soup.make_soup(linear, [3, 1], method=Method.UNIFORM)
    registry = Registry()
    version = registry.version(MODEL, "4")
    parents = {str(number): registry.pinned(MODEL, number)[0].digest for number in (3, 1)}
    assert json.loads(version.tags[soup.PARENTS_TAG]) == parents
    assert json.loads(version.tags[soup.WEIGHTS_TAG]) == {"3": 0.5, "1": 0.5}
    assert version.tags[soup.METHOD_TAG] == "uniform"
    assert version.tags[TRAINING_RUN_TAG] == run.run_id
    assert registry.aliased(MODEL, CHALLENGER) == 4
    assert (run.kind, run.state, run.model_versions) == (RunKind.TRAIN, RunState.DONE, {MODEL: 4})
    # What the mixture may have been chosen on counts as learned; the later nights compare.
    periods = [run.tags[key] for key in ("first", "last", "holdout_first", "holdout_last")]
    assert periods == ["2024-01-01", "2024-01-13", "2024-01-14", "2024-01-15"]
    assert run.metrics["holdout_rows"] == 2 * 120
    log_odds = [np.log(p / (1 - p)) for p in map(predictions, (3, 1, 4))]
    np.testing.assert_allclose(log_odds[2], (log_odds[0] + log_odds[1]) / 2, rtol=1e-9)
    document = RunStore().read_json(run.run_id, soup.SOUP_ARTIFACT)
    assert [(parent["version"], parent["weight"]) for parent in document["parents"]] == [(3, 0.5), (1, 0.5)]
    assert document["soup"]["comparing"]["roc_auc"] == pytest.approx(run.metrics[f"challenger_roc_auc_{MODEL}"])
    assert document["soup"]["choosing"]["rows"] == 3 * 120


def test_a_soup_is_promoted_like_any_challenger_and_has_a_golden_sample(
    linear: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = example_rows(500, seed=99)
    register_sklearn(MODEL, rows.select(list(FEATURES)).to_pandas(), 1 - rows["label"].to_numpy())  # a bad champion
    run = soup.make_soup(linear, [2, 3], method=Method.GREEDY)
    assert GOLDEN_TAG in Registry().version(MODEL, "5").tags
    promoted = promotion.redeploy(linear)
    assert promoted.replaced == {MODEL: promotion.Replacement(4, 5)}
    assert promoted.warnings == ()
    assert promotion.rollback(linear).replaced == {MODEL: promotion.Replacement(5, 4)}
    assert RunStore().find("example", kind=RunKind.TRAIN, limit=1)[0].run_id == run.run_id


@pytest.mark.parametrize("method", list(Method))
def test_nets_with_batch_norm(lake: Path, monkeypatch: pytest.MonkeyPatch, method: Method) -> None:
    deployment = write(lake, NET)
    trained(deployment, monkeypatch, **{RATE: RATES})
    run = soup.make_soup(deployment, [1, 2, 3], method=method)
    document = RunStore().read_json(run.run_id, soup.SOUP_ARTIFACT)
    alone = [parent["choosing"] for parent in document["parents"]]
    shares = [parent["weight"] for parent in document["parents"]]
    assert sum(shares) == pytest.approx(1)
    found = document["soup"]["choosing"]
    if method is Method.GREEDY:
        assert found["roc_auc"] >= max(parent["roc_auc"] for parent in alone)
    if method is Method.LEARNED:
        even = RunStore().read_json(
            soup.make_soup(deployment, [1, 2, 3], method=Method.UNIFORM).run_id, soup.SOUP_ARTIFACT
        )
        assert found["log_loss"] <= even["soup"]["choosing"]["log_loss"] + 1e-9
    # A soup of one ingredient is that parent, to the byte of its weights.
    same = [position for position, share in enumerate(shares) if share == 1]
    for position in same:
        np.testing.assert_array_equal(predictions(run.model_versions[MODEL]), predictions(position + 1))
    scores = predictions(run.model_versions[MODEL])
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores.std() > 0.1


def test_the_same_parents_give_the_same_soup(linear: Deployment) -> None:
    for _ in range(2):
        soup.make_soup(linear, [1, 2, 3], method=Method.LEARNED)
    np.testing.assert_array_equal(predictions(4), predictions(5))
    tags = [Registry().version(MODEL, number).tags[soup.WEIGHTS_TAG] for number in ("4", "5")]
    assert tags[0] == tags[1]


def test_nets_of_other_widths_are_refused(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = write(lake, NET)
    monkeypatch.setenv(RATE, "0.01")
    trained(deployment, monkeypatch, **{UNITS: (8, 6)})
    before = len(RunStore().find("example", kind=RunKind.TRAIN))
    sentence = (
        r"the weights of 'example' version 2 and 'example' version 1 cannot be averaged: tensor '0\.weight' differs: "
        r"expected float32 of shape \(8, 2\) as in 'example' version 1, got float32 of shape \(6, 2\)"
    )
    with pytest.raises(ModelError, match=sentence):
        soup.make_soup(deployment, [1, 2], method=Method.UNIFORM)
    assert len(RunStore().find("example", kind=RunKind.TRAIN)) == before
    assert Registry().aliased(MODEL, CHALLENGER) == 2


@pytest.mark.parametrize(
    ("versions", "given", "sentence"),
    [
        ([1], {}, r"a soup of 'example' cannot be made: expected two or more different versions, got 1"),
        ([1, 1], {}, r"expected two or more different versions, got 1, 1"),
        ([1, 9], {}, r"model 'example' has no version '9'"),
        ([1, 2], {"model": "exampel"}, r"does not use 'exampel': .* one of example, .* Did you mean 'example'\?"),
        (
            [1, 2],
            {"holdout": Period(first=HOLDOUT.first, last=HOLDOUT.first)},
            r"a soup needs more hold-out nights: expected two or more: .*, got 2024-01-11",
        ),
        (
            [1, 2],
            {"holdout": Period(first=date(2024, 1, 9), last=HOLDOUT.last)},
            r"the parent of 'example' \(version 1\) learned from hold-out nights: .* 2024-01-01 to 2024-01-10",
        ),
    ],
)
def test_what_cannot_be_made_is_said(
    linear: Deployment, versions: list[int], given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        soup.make_soup(linear, versions, method=Method.UNIFORM, **given)
    assert Registry().aliased(MODEL, CHALLENGER) == 3


def test_trees_are_refused_and_the_parents_of_others_need_hold_out_nights(lake: Path) -> None:
    import xgboost

    deployment = write(lake, LINEAR)
    frame = example_rows(200, seed=1).to_pandas()
    for _ in range(2):
        booster = xgboost.train({}, xgboost.DMatrix(frame[["x", "y"]], frame["label"]), 2)
        register_xgboost(MODEL, frame[["x", "y"]], booster)
    with pytest.raises(
        ModelError, match=r"flavor 'xgboost' cannot be part of a soup: expected flavor sklearn, .*Trees"
    ):
        soup.make_soup(deployment, [1, 2], method=Method.UNIFORM)
    for _ in range(2):
        register_sklearn(MODEL, frame[["x", "y"]], frame["label"], alias=CHAMPION)
    with pytest.raises(ConfigurationError, match=r"recorded no hold-out nights: .* --holdout-first and --holdout-last"):
        soup.make_soup(deployment, [3, 4], method=Method.UNIFORM)
    run = soup.make_soup(deployment, [3, 4], method=Method.UNIFORM, holdout=HOLDOUT)
    assert run.tags["first"] == str(HOLDOUT.first)


def test_the_command_shows_parents_and_soup(linear: Deployment) -> None:
    done = CliRunner().invoke(app, ["soup", "example", "--from", "v1,v3", "--promote", "--json"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["model"], found["version"], found["method"]) == (MODEL, 4, "greedy")
    assert found["roc_auc_on_choosing_nights"]["soup"] >= max(
        found["roc_auc_on_choosing_nights"][parent] for parent in ("v1", "v3")
    )
    assert found["promoted"] is True
    assert "Making a greedy soup for example of versions 1, 3" in done.stderr
    done = CliRunner().invoke(app, ["soup", "example", "--from", "1, 2", "--method", "uniform"])
    assert done.exit_code == 0, done.stderr
    assert re.search(r"weights .*v1 0\.5, v2 0\.5", done.stdout)


@pytest.mark.parametrize("arguments", [["--from", "one,two"], ["--from", "1,2", "--method", "spicy"], []])
def test_a_wrong_call_is_said(home: Path, arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["soup", "example", *arguments]).exit_code == 2
