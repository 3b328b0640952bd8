"""Ensembles, learned combiners and routes on real Spark, compared with the plain libraries; and `--inspect`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, VotingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import ExtraTreeRegressor
from typer.testing import CliRunner
from xgboost import XGBClassifier, XGBRegressor

from scoring import nightly
from scoring.blending import Fit, Predict, out_of_fold
from scoring.cli import app
from scoring.errors import ContractError, DataError, ModelError, ScoringError
from scoring.models.kind import REGRESSORS
from scoring.plan import make_plan
from scoring.registry import Registry
from scoring.results import SplitResult
from scoring.runs import RunState, RunStore
from scoring.testing import FEATURES, MODEL, example_rows, register_sklearn, register_xgboost
from scoring.watch import watch
from tests.e2e.example import NIGHT, ROWS, Site, night_rows

MEMBERS = {"linear": {"model": "models:/linear@champion"}, "trees": {"model": "models:/trees@champion"}}
NULLABLE = {"columns": {"id": "int64", "x": "double?", "y": "double", "city": "string?"}}


def training() -> tuple[pd.DataFrame, np.ndarray]:
    rows = example_rows(1_500, seed=11)
    return rows.select(list(FEATURES)).to_pandas(), rows["label"].to_numpy()


@pytest.fixture
def members(site: Site) -> dict[str, Any]:
    """Two registered classifiers, of which only the trees can do with a missing value."""
    frame, label = training()
    return {
        "linear": register_sklearn("linear", frame, label).native,
        "trees": register_sklearn("trees", frame, label, estimator=trees()).native,
    }


def trees() -> Any:
    return HistGradientBoostingClassifier(max_iter=20, random_state=0)


def fitting(make: Callable[[], Any]) -> Fit:
    def fit(seen: pd.DataFrame) -> Predict:
        model = make().fit(seen[list(FEATURES)], seen["label"])
        return lambda rows: probability(model, rows)

    return fit


def probability(model: Any, rows: pd.DataFrame) -> np.ndarray:
    return model.predict_proba(rows[list(FEATURES)])[:, 1]


def with_one_null(rows: pa.Table) -> pa.Table:
    """The row in the middle lacks x, so that one split of many holds a row that a linear model cannot score."""
    x = rows["x"].to_pylist()
    x[rows.num_rows // 2] = None
    return rows.set_column(rows.schema.get_field_index("x"), "x", pa.array(x, pa.float64()))


def ensemble(**more: Any) -> dict[str, Any]:
    weights = {"linear": 3, "trees": 1}
    return {"ensemble": {"combine": "weighted_mean", "weights": weights, "members": MEMBERS, **more}}


def of(site: Site, **sections: Any) -> Site:
    return Site(site.rewrite(**sections), site.model, site.lake, site.rewrite)


# --------------------------------------------------------------------------------------------- members that fail


@pytest.mark.spark
def test_a_member_that_fails_on_one_row_is_dropped_for_all_rows(site: Site, members: dict[str, Any]) -> None:
    rows = with_one_null(night_rows())
    site.put(rows, files=3, row_group_rows=50)
    labels = {"reference": {"first": NIGHT, "last": NIGHT}, "min_rows": 10}
    steps = {"pipeline": [ensemble(on_failure="drop", keep_members=True)]}
    night = of(site, input=NULLABLE, score=steps, drift=labels)
    run = night.run()

    published = night.published()
    expected = probability(members["trees"], rows.to_pandas())
    assert len(published) == ROWS
    np.testing.assert_allclose([row["score"] for row in published], expected, rtol=1e-12)
    assert {row["score_linear"] for row in published} == {None}, "the table keeps the member's column"

    path = "score.pipeline.0.ensemble.members.linear"
    (warning,) = run.warnings
    assert warning.startswith(
        f"member {path} failed and was dropped for the whole run, scored by trees: model 'linear' version 1 raised "
    )
    assert "NaN" in warning
    plan = RunStore().read_json(run.run_id, nightly.PLAN_ARTIFACT)
    assert list(plan["dropped"]) == [path]
    done = CliRunner().invoke(app, ["status", "example", "-p", NIGHT, "--json"])
    assert json.loads(done.stdout)[0]["warnings"] == [warning]

    seen = watch(night.deployment, NIGHT)
    assert seen is not None
    assert seen.drift.share_of_drifted_columns == 0, "the reference is scored by the same members as the night"


@pytest.mark.spark
def test_a_run_again_drops_the_same_member_and_a_better_night_none(site: Site, members: dict[str, Any]) -> None:
    night = of(site, input=NULLABLE, score=ensemble(on_failure="drop"))
    site.put(with_one_null(night_rows()), files=3, row_group_rows=50)
    first = [{k: v for k, v in row.items() if k != "run_id"} for row in (night.run(), night.published())[1]]
    again = [{k: v for k, v in row.items() if k != "run_id"} for row in (night.run(), night.published())[1]]
    assert again == first
    rows = night_rows()
    site.put(rows, files=3, row_group_rows=50)
    run = night.run()
    frame = rows.to_pandas()
    expected = (3 * probability(members["linear"], frame) + probability(members["trees"], frame)) / 4
    np.testing.assert_allclose([row["score"] for row in night.published()], expected, rtol=1e-12)
    assert run.warnings == ()


@pytest.mark.spark
def test_a_failing_member_fails_the_run_unless_it_may_be_dropped(site: Site, members: dict[str, Any]) -> None:
    night = of(site, input=NULLABLE, score=ensemble())
    site.put(with_one_null(night_rows()), files=3, row_group_rows=50)
    with pytest.raises(ModelError, match=r"model 'linear' version 1 raised while predicting \d+ rows: .*NaN"):
        nightly.score(night.deployment, NIGHT)
    assert night.published() == []
    assert RunStore().find("example", limit=1)[0].state is RunState.FAILED


LINEAR, TREES = (f"score.ensemble.members.{name}" for name in ("linear", "trees"))


@pytest.mark.parametrize(
    ("failures", "dropped"),
    [
        ([], None),
        ([(LINEAR, ModelError("b")), (LINEAR, ModelError("a"))], {LINEAR: "b."}),
        ([(LINEAR, ModelError("a")), (TREES, ModelError("a"))], None),
        ([(LINEAR, ModelError("a")), ("", DataError("a"))], None),
        ([("", ModelError("a"))], None),
    ],
)
def test_a_member_is_dropped_when_nothing_else_failed_and_another_is_left(
    site: Site, members: dict[str, Any], failures: list[tuple[str, ScoringError]], dropped: dict[str, str] | None
) -> None:
    night = of(site, score=ensemble(on_failure="drop"))
    plan, _ = make_plan(night.deployment, NIGHT, registry=Registry())
    results = [SplitResult.failed(number, error, member=member) for number, (member, error) in enumerate(failures)]
    lesser = nightly.without_failed(plan, [*results, SplitResult(len(results), 10)])
    assert (lesser and lesser.dropped) == dropped
    if lesser is not None:
        assert lesser.key != plan.key
        assert lesser.model_versions == plan.model_versions
        assert nightly.without_failed(lesser, [SplitResult.failed(0, ModelError("c"), member=TREES)]) is None


# ------------------------------------------------------------------------------------ learned combiners and routes


@pytest.mark.spark
def test_stacking_caps_and_reasons_on_spark_are_what_plain_code_gives(site: Site, members: dict[str, Any]) -> None:
    frame, label = training()
    fits = {"linear": fitting(LogisticRegression), "trees": fitting(trees)}
    inputs = out_of_fold(fits, frame.assign(label=label), folds=4).assign(x=frame["x"])
    blend = register_sklearn("blend", inputs, label).native
    steps = [
        {"ensemble": {"combine": {"model": "models:/blend@champion"}, "members": MEMBERS}},
        {
            "route": {
                "cases": [
                    {"when": "city = 'Oslo'", "then": {"values": {"score": 0, "reason": "blocked"}}},
                    {"when": "score > 0.9", "then": {"values": {"score": 0.9, "reason": "cap"}}},
                ],
                "otherwise": {"values": {"reason": None}},
            }
        },
    ]
    night = of(site, score={"pipeline": steps})
    night.run()

    rows = night_rows().to_pandas()
    given = pd.DataFrame({name: probability(model, rows) for name, model in members.items()}).assign(x=rows["x"])
    native = blend.predict_proba(given)[:, 1]
    is_blocked, is_capped = (rows["city"] == "Oslo").to_numpy(), native > 0.9
    expected = np.where(is_blocked, 0.0, np.where(is_capped, 0.9, native))
    published = night.published()
    np.testing.assert_allclose([row["score"] for row in published], expected, rtol=1e-12)
    reasons = np.where(is_blocked, "blocked", np.where(is_capped, "cap", ""))
    assert [row["reason"] or "" for row in published] == reasons.tolist()
    assert len(set(reasons)) == 3


@pytest.mark.spark
def test_inspecting_a_step_shows_and_keeps_what_leaves_it(site: Site, members: dict[str, Any]) -> None:
    path = "score.pipeline.1.ensemble.members.trees"
    steps = [{"rule": {"python": "rules:add_sum"}}, ensemble()]
    of(site, score={"pipeline": steps})
    done = CliRunner().invoke(app, ["run", "example", "-p", NIGHT, "--inspect", path, "--json"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["inspected"]["step"] == path
    assert found["inspected"]["artifact"] == f"inspect/{path}.parquet"
    kept = pq.read_table(pa.BufferReader(RunStore().read(found["run_id"], found["inspected"]["artifact"]))).to_pandas()
    assert {"id", "x", "y", "city", "sum", "score"} <= set(kept.columns)
    assert kept["id"].tolist() == night_rows()["id"].to_pylist()
    np.testing.assert_allclose(kept["score"], probability(members["trees"], kept), rtol=1e-12)
    assert [row["id"] for row in found["inspected"]["rows"]] == kept["id"].tolist()[:10]


def test_a_wrong_step_to_inspect_lists_the_right_ones(site: Site) -> None:
    done = CliRunner().invoke(app, ["run", "example", "-p", NIGHT, "--inspect", "score.pipeline.9"])
    assert done.exit_code == 2
    assert done.stderr == (
        "ConfigurationError: deployment 'example' has no step 'score.pipeline.9': expected one of score, "
        "score.pipeline.0, score.pipeline.1, score.pipeline.2, got 'score.pipeline.9'. "
        "Did you mean 'score.pipeline.2'?\n"
    )


# --------------------------------------------------------------------------------------------------- several outputs


@pytest.mark.spark
def test_classes_and_targets_on_spark_are_those_of_scikit_learn(site: Site) -> None:
    frame, _ = training()
    colour = (frame["x"] > 0).astype(int) + (frame["y"] > 0.3).astype(int)
    targets = np.column_stack([frame["x"] * 2 + 1, frame["y"] ** 2])
    voting = VotingClassifier([("flat", LogisticRegression()), ("steep", trees())], voting="soft", weights=[2, 1])
    voting.fit(frame, colour)
    for name, fitted in zip(("flat", "steep"), voting.estimators_, strict=True):
        register_sklearn(name, frame, estimator=fitted)
    regressors = {"one": LinearRegression().fit(frame, targets), "two": ExtraTreeRegressor(random_state=0)}
    regressors["two"].fit(frame, targets)
    for name, fitted in regressors.items():
        register_sklearn(name, frame, estimator=fitted)

    def several(names: list[str], outputs: list[str]) -> dict[str, Any]:
        return {name: {"model": f"models:/{name}@champion", "outputs": outputs} for name in names}

    classes, both = ["p_none", "p_one", "p_both"], ["length", "width"]
    vote = {"combine": "soft_vote", "weights": {"flat": 2, "steep": 1}, "output": "colour", "keep_members": True}
    steps = [
        {"ensemble": {**vote, "members": several(["flat", "steep"], classes)}},
        {"ensemble": {"combine": "mean", "members": several(["one", "two"], both)}},
    ]
    night = of(site, score={"pipeline": steps}, checks=None)
    night.run()
    rows = night_rows().to_pandas()[list(FEATURES)]
    published = pd.DataFrame(night.published())
    np.testing.assert_array_equal(published["colour"], voting.predict(rows))
    kept = published[[f"{name}_flat" for name in classes]]
    np.testing.assert_allclose(kept, voting.estimators_[0].predict_proba(rows), rtol=1e-12)
    expected = np.mean([fitted.predict(rows) for fitted in regressors.values()], axis=0)
    np.testing.assert_allclose(published[both], expected, rtol=1e-12)


@pytest.mark.spark
def test_a_model_with_another_number_of_outputs_stops_the_run_and_both_numbers_are_named(site: Site) -> None:
    frame, label = training()
    register_sklearn("binary", frame, label)
    night = of(site, score={"model": "models:/binary@champion", "outputs": ["a", "b", "c"]}, checks=None)
    with pytest.raises(ModelError, match=r"expected 3 outputs, as the step names, got 2"):
        nightly.score(night.deployment, NIGHT)
    assert night.published() == []


# ------------------------------------------------------------------------------------------------- votes, mapping


@pytest.mark.parametrize("kind", ["sklearn", "pipeline", "xgboost", "nested"])
@pytest.mark.parametrize("how", ["soft_vote", "hard_vote"])
def test_a_vote_over_regressors_is_refused_before_spark(site: Site, kind: str, how: str) -> None:
    frame, label = training()
    if kind == "xgboost":
        register_xgboost("regressor", frame, XGBRegressor(n_estimators=2).fit(frame, label))
    else:
        estimator = LinearRegression() if kind != "pipeline" else make_pipeline(StandardScaler(), LinearRegression())
        register_sklearn("regressor", frame, label, estimator=estimator)
    member: dict[str, Any] = {"model": "models:/regressor@champion"}
    if kind == "nested":
        member = {
            "pipeline": [
                {"rule": {"sql": "select * from batch"}},
                {"ensemble": {"combine": "mean", "members": {"a": member}}},
            ]
        }
    spec = {"combine": how, "members": {"good": {"model": f"models:/{MODEL}@champion"}, "bad": member}}
    night = of(site, score={"ensemble": spec})
    sentence = rf"^member 'bad' of a {how} cannot vote: expected a classifier, got model 'regressor' version 1, a regr"
    with pytest.raises(ContractError, match=sentence):
        make_plan(night.deployment, NIGHT, registry=Registry())


def test_classifiers_may_vote(site: Site) -> None:
    frame, label = training()
    register_xgboost("trees", frame, XGBClassifier(n_estimators=2).fit(frame, label))
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    register_sklearn("scaled", frame, label, estimator=pipeline)
    members = {name: {"model": f"models:/{name}@champion"} for name in ("trees", "scaled", MODEL)}
    night = of(site, score={"ensemble": {"combine": "soft_vote", "members": members}})
    plan, _ = make_plan(night.deployment, NIGHT, registry=Registry())
    assert plan.outputs.names == ["score"]


def test_the_table_of_regressors_is_that_of_scikit_learn() -> None:
    from sklearn.utils import all_estimators

    known = {name for name, _ in all_estimators(type_filter="regressor") if not name.endswith("Regressor")}
    assert known == REGRESSORS


def test_without_a_contract_a_mapped_column_gets_the_type_of_its_feature(site: Site) -> None:
    rows = example_rows(300, seed=3)
    frame = rows.select(list(FEATURES)).to_pandas().rename(columns={"x": "feature"})
    register_sklearn("mapped", frame, rows["label"].to_numpy())
    site.put(night_rows().rename_columns(["id", "first", "y", "city"]), files=3)
    step = {"model": "models:/mapped@champion", "inputs": {"feature": "first"}}
    night = of(site, input={"columns": None}, score=step)
    plan, _ = make_plan(night.deployment, NIGHT, registry=Registry())
    types = {column.name: (column.type, column.nullable) for column in plan.contract.columns}
    assert types["first"] == (pa.float64(), True)
    step["inputs"] = {"feature": "frist"}
    night = of(site, input={"columns": None}, score=step)
    with pytest.raises(ContractError, match=r"^'inputs' names unknown columns: .*got frist\. Did you mean 'first'\?$"):
        make_plan(night.deployment, NIGHT, registry=Registry())
