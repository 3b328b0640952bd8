from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.batch import Batch
from scoring.deployment import Combine
from scoring.errors import ContractError, ModelError
from scoring.graph.compile import GraphSource, compile_graph, remaining_members, without_members
from scoring.graph.step import Step
from scoring.models.base import FrozenModel
from scoring.testing import FunctionPredictor, Graph, example_rows, frozen_model, make_graph

Models = dict[str, tuple[FrozenModel, FunctionPredictor]]


def column_graph(how: str, columns: list[str], *, weights: dict[str, float] | None = None, keep: bool = False) -> Graph:
    """An ensemble whose members return one column of the batch each."""
    members = {f"m_{name}": {"model": f"models:/{name}/1"} for name in columns}
    models = {
        f"models:/{name}/1": (
            frozen_model(name, {name: "double?"}),
            FunctionPredictor(lambda batch, name=name: batch.table.column(name).to_numpy()),
        )
        for name in columns
    }
    ensemble = {"combine": how, "members": members, "weights": weights, "keep_members": keep}
    return make_graph({"ensemble": ensemble}, models=models)


def test_an_ensemble_adds_its_output_and_leaves_the_rest() -> None:
    rows = pa.table({"id": [1, 2], "a": [0.2, 0.4], "b": [0.6, 1.0]})
    result = column_graph("weighted_mean", ["a", "b"], weights={"m_a": 1, "m_b": 3}).run(rows)
    assert result.column_names == ["id", "a", "b", "score"]
    assert result.column("score").to_pylist() == pytest.approx([0.5, 0.85])


def test_members_are_kept_under_their_names_when_wanted() -> None:
    rows = pa.table({"id": [1], "a": [0.2], "b": [0.6]})
    graph = column_graph("max", ["a", "b"], keep=True)
    result = graph.run(rows)
    assert result.select(["score_m_a", "score_m_b", "score"]).to_pylist() == [
        {"score_m_a": 0.2, "score_m_b": 0.6, "score": 0.6}
    ]
    assert graph.step.schema(rows.schema) == result.schema


@pytest.mark.parametrize("how", ["mean", "max", "soft_vote", "hard_vote"])
def test_no_rows_give_no_rows(how: str) -> None:
    rows = pa.table({"id": pa.array([], pa.int64()), "a": pa.array([], pa.float64())})
    graph = column_graph(how, ["a"])
    result = graph.run(rows)
    assert result.num_rows == 0
    assert result.schema == graph.step.schema(rows.schema)


def test_a_null_score_is_a_missing_score() -> None:
    rows = pa.table({"id": [1, 2], "a": [0.5, None], "b": [0.5, 0.5]})
    assert column_graph("mean", ["a", "b"]).run(rows).column("score").to_pylist() == pytest.approx(
        [0.5, np.nan], nan_ok=True
    )


def test_members_share_one_feature_matrix() -> None:
    seen: list[int] = []

    def matrix_id(batch: Batch) -> np.ndarray:
        seen.append(id(batch.matrix(("x", "y"))))
        return np.zeros(batch.rows)

    names = ["first", "second", "third"]
    frozen = {f"models:/{name}/1": frozen_model(name, {"x": "double", "y": "double"}) for name in names}
    graph = make_graph(
        {"ensemble": {"combine": "mean", "members": {name: {"model": f"models:/{name}/1"} for name in names}}},
        models={uri: (model, FunctionPredictor(matrix_id)) for uri, model in frozen.items()},
    )
    graph.run(example_rows(10))
    assert len(seen) == 3
    assert len(set(seen)) == 1


def test_ensembles_of_pipelines_of_ensembles_give_what_plain_code_gives() -> None:
    rows = example_rows(500, seed=3)
    x, y = rows.column("x").to_numpy(), rows.column("y").to_numpy()
    doubles = {"x": "double", "y": "double"}
    models = {
        "models:/sum/1": (
            frozen_model("sum", doubles),
            FunctionPredictor(lambda b: b.frame((("x", pa.float64()), ("y", pa.float64()))).sum(axis=1)),
        ),
        "models:/twice/1": (
            frozen_model("twice", {"double_x": "double"}),
            FunctionPredictor(lambda b: b.table.column("double_x").to_numpy() + 1),
        ),
        "models:/y/1": (
            frozen_model("y", {"y": "double"}),
            FunctionPredictor(lambda b: b.table.column("y").to_numpy()),
        ),
    }
    inner = {"combine": "max", "members": {"twice": {"model": "models:/twice/1"}, "y": {"model": "models:/y/1"}}}
    graph = make_graph(
        {
            "pipeline": [
                {
                    "ensemble": {
                        "combine": "weighted_mean",
                        "weights": {"total": 1, "nested": 3},
                        "members": {
                            "total": {"model": "models:/sum/1"},
                            "nested": {
                                "pipeline": [
                                    {"rule": {"sql": "select *, 2 * x as double_x from batch"}},
                                    {"ensemble": inner},
                                ]
                            },
                        },
                    }
                },
                {"rule": {"sql": "select *, score > 0 as is_high from batch"}},
            ]
        },
        models=models,
    )
    expected = (x + y + 3 * np.maximum(2 * x + 1, y)) / 4
    result = graph.run(rows)
    np.testing.assert_allclose(result.column("score").to_numpy(), expected, rtol=1e-12)
    np.testing.assert_array_equal(result.column("is_high").to_numpy(), expected > 0)
    assert result.column_names == [*rows.column_names, "score", "is_high"], "columns of members do not leak"
    assert graph.step.schema(rows.schema) == result.schema


def test_a_member_whose_rule_drops_its_output_is_refused_before_any_row() -> None:
    member = {"pipeline": [{"model": "models:/a/1"}, {"rule": {"sql": "select id from batch"}}]}
    models = {"models:/a/1": (frozen_model("a", {"a": "double"}), FunctionPredictor(lambda b: np.zeros(b.rows)))}
    graph = make_graph({"ensemble": {"combine": "mean", "members": {"m": member}}}, models=models)
    with pytest.raises(ContractError, match=r"member 'm' lost its output: expected a column 'score', got none"):
        graph.step.schema(pa.schema({"id": pa.int64(), "a": pa.float64()}))


def test_a_member_whose_rule_makes_text_of_its_output_is_refused_before_any_row() -> None:
    rule = {"rule": {"sql": "select * replace (score::varchar as score) from batch"}}
    models = {"models:/a/1": (frozen_model("a", {"a": "double"}), FunctionPredictor(lambda b: np.zeros(b.rows)))}
    graph = make_graph(
        {"ensemble": {"combine": "mean", "members": {"m": {"pipeline": [{"model": "models:/a/1"}, rule]}}}},
        models=models,
    )
    with pytest.raises(
        ContractError, match=r"member 'm' cannot be combined: expected numbers in column 'score', got string"
    ):
        graph.step.schema(pa.schema({"id": pa.int64(), "a": pa.float64()}))


# --------------------------------------------------------------------------------------------------- several outputs


def model(name: str, function: Callable[[Batch], np.ndarray], *columns: str) -> Models:
    """A model as `make_graph` takes it."""
    inputs = dict.fromkeys(columns or ("x", "y"), "double")
    return {f"models:/{name}/1": (frozen_model(name, inputs), FunctionPredictor(function))}


def step(name: str, **more: Any) -> dict[str, Any]:
    return {"model": f"models:/{name}/1", **more}


def xy(batch: Batch) -> np.ndarray:
    return batch.table.select(["x", "y"]).to_pandas().to_numpy()


CLASSES = ["p_red", "p_green", "p_blue"]


def probabilities_of(power: int) -> Callable[[Batch], np.ndarray]:
    def predict(batch: Batch) -> np.ndarray:
        raw = np.abs(np.column_stack([xy(batch), xy(batch).sum(axis=1)])) ** power
        return raw / raw.sum(axis=1, keepdims=True)

    return predict


TWO_CLASSIFIERS = model("flat", probabilities_of(1)) | model("steep", probabilities_of(4))
TWO_MEMBERS = {"flat": step("flat", outputs=CLASSES), "steep": step("steep", outputs=CLASSES)}


def natively(rows: pa.Table) -> np.ndarray:
    """Shape (members, rows, classes)."""
    return np.stack([probabilities_of(power)(Batch(rows)) for power in (1, 4)])


def test_outputs_of_members_are_merged_one_by_one_and_keep_their_names() -> None:
    rows = example_rows(300)
    graph = make_graph({"ensemble": {"combine": "mean", "members": TWO_MEMBERS}}, models=TWO_CLASSIFIERS)
    result = graph.run(rows)
    assert result.column_names == [*rows.column_names, *CLASSES]
    np.testing.assert_allclose(result.select(CLASSES).to_pandas().to_numpy(), natively(rows).mean(axis=0), rtol=1e-12)
    assert graph.step.schema(rows.schema) == result.schema


def test_outputs_of_an_ensemble_and_of_its_members_can_be_named_and_kept() -> None:
    rows = example_rows(20)
    spec = {"combine": "max", "members": TWO_MEMBERS, "outputs": ["r", "g", "b"], "keep_members": True}
    graph = make_graph({"ensemble": spec}, models=TWO_CLASSIFIERS)
    result = graph.run(rows)
    kept = [f"{name}_{member}" for member in ("flat", "steep") for name in CLASSES]
    assert result.column_names == [*rows.column_names, *kept, "r", "g", "b"]
    np.testing.assert_array_equal(result.select(kept[3:]).to_pandas().to_numpy(), natively(rows)[1])
    np.testing.assert_array_equal(result.select(["r", "g", "b"]).to_pandas().to_numpy(), natively(rows).max(axis=0))
    assert graph.step.schema(rows.schema) == result.schema


@pytest.mark.parametrize("how", ["soft_vote", "hard_vote"])
def test_a_vote_over_classes_gives_the_number_of_one(how: str) -> None:
    rows = example_rows(300)
    graph = make_graph(
        {"ensemble": {"combine": how, "members": TWO_MEMBERS, "output": "colour"}}, models=TWO_CLASSIFIERS
    )
    found = graph.run(rows).column("colour").to_numpy()
    native = natively(rows)
    # Of two members one vote each: the lower class number wins.
    votes = {"soft_vote": native.mean(axis=0).argmax(axis=1), "hard_vote": native.argmax(axis=2).min(axis=0)}
    expected = votes[how]
    np.testing.assert_array_equal(found, expected)
    assert len(set(found)) == 3


@given(cut=st.integers(0, 60))
@pytest.mark.parametrize("how", [how for how in Combine if how is not Combine.RANK_MEAN])
def test_the_result_of_a_row_does_not_depend_on_its_batch(how: Combine, cut: int) -> None:
    rows = example_rows(60, seed=5)
    weights = {"flat": 0.3, "steep": 0.7} if how.takes_weights else None
    spec = {"combine": str(how), "members": TWO_MEMBERS, "weights": weights}
    graph = make_graph({"ensemble": spec}, models=TWO_CLASSIFIERS)
    parts = pa.concat_tables([graph.run(rows.slice(0, cut)), graph.run(rows.slice(cut))])
    assert parts.equals(graph.run(rows))


# ------------------------------------------------------------------------------------------------- learned combiners


def blending(members: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"ensemble": {"combine": step("blend"), "members": members, **more}}


def test_a_learned_combiner_reads_members_and_columns_of_the_batch_by_name() -> None:
    rows = example_rows(100)
    models = model("one", lambda b: xy(b)[:, 0]) | model("many", lambda b: xy(b) * 2)
    blend = model(
        "blend",
        lambda b: sum(10.0**i * b.table[c].to_numpy() for i, c in enumerate(["y", "first", "second_a", "second_b"])),
        *("y", "first", "second_a", "second_b"),
    )
    members = {"first": step("one"), "second": step("many", outputs=["a", "b"])}
    graph = make_graph(blending(members, output="p"), models=models | blend)
    result = graph.run(rows)
    x, y = rows["x"].to_numpy(), rows["y"].to_numpy()
    np.testing.assert_allclose(result["p"].to_numpy(), y + 10 * x + 100 * 2 * x + 1000 * 2 * y)
    assert result.column_names == [*rows.column_names, "p"], "what the combiner read does not leak"
    assert graph.step.schema(rows.schema) == result.schema


def test_a_learned_combiner_whose_signature_does_not_fit_the_members_is_refused_before_any_row() -> None:
    models = model("one", lambda b: xy(b)[:, 0]) | model("blend", lambda b: np.zeros(b.rows), "first", "secnod")
    graph = make_graph(blending({"first": step("one"), "second": step("one")}), models=models)
    with pytest.raises(ContractError, match=r"'blend' version 1 .*expected columns secnod.*Did you mean 'second'\?$"):
        graph.step.schema(example_rows(0).schema)


def test_a_member_called_like_a_column_would_be_read_as_either() -> None:
    graph = make_graph(blending({"x": step("one")}), models=model("one", xy) | model("blend", xy, "x"))
    sentence = (
        r"^members of an ensemble are called like columns of the batch: expected .*, got x\. Rename the members\.$"
    )
    with pytest.raises(ContractError, match=sentence):
        graph.step.schema(example_rows(0).schema)


# --------------------------------------------------------------------------------------------------- members that fail


def fails(_: Batch) -> np.ndarray:
    raise ModelError("no weights")


def failing(on_failure: str, **more: Any) -> dict[str, Any]:
    members = {"good": step("one"), "bad": step("bad")}
    return {"ensemble": {"combine": "mean", "members": members, "on_failure": on_failure, **more}}


@pytest.mark.parametrize(("on_failure", "member"), [("fail", ""), ("drop", "score.ensemble.members.bad")])
def test_a_failure_says_which_member_the_run_can_do_without(on_failure: str, member: str) -> None:
    graph = make_graph(failing(on_failure), models=model("one", lambda b: xy(b)[:, 0]) | model("bad", fails))
    with pytest.raises(ModelError, match="no weights") as caught:
        graph.run(example_rows(3))
    assert caught.value.member == member


def test_the_innermost_ensemble_that_can_do_without_a_member_says_so() -> None:
    models = model("one", lambda b: xy(b)[:, 0]) | model("bad", fails)
    alone = {"ensemble": {"combine": "mean", "members": {"bad": step("bad")}, "on_failure": "drop"}}
    outer = {"combine": "mean", "members": {"good": step("one"), "inner": alone}, "on_failure": "drop"}
    for inner, path in [
        (alone, "score.ensemble.members.inner"),
        (failing("drop"), "score.ensemble.members.inner.ensemble.members.bad"),
        (failing("fail"), "score.ensemble.members.inner"),
    ]:
        spec = {**outer, "members": {"good": step("one"), "inner": inner}}
        graph = make_graph({"ensemble": spec}, models=models)
        with pytest.raises(ModelError) as caught:
            graph.run(example_rows(3))
        assert caught.value.member == path


def test_only_failures_of_models_drop_a_member() -> None:
    member = {"pipeline": [step("one"), {"rule": {"python": "rules:broken"}}]}
    spec = {"combine": "mean", "members": {"a": step("one"), "b": member}, "on_failure": "drop"}
    modules = {"rules": "def broken(batch):\n    raise ValueError('no')\n"}
    graph = make_graph({"ensemble": spec}, models=model("one", lambda b: xy(b)[:, 0]), modules=modules)
    with pytest.raises(ContractError, match="rules:broken") as caught:
        graph.run(example_rows(3))
    assert not isinstance(caught.value, ModelError)


def compiled(source: GraphSource, models: Models) -> Step:
    predictors = {frozen.digest: predictor for frozen, predictor in models.values()}
    return compile_graph(source, lambda frozen, _: predictors[frozen.digest])


def test_a_dropped_members_weight_is_shared_out_and_its_columns_stay_empty() -> None:
    rows = example_rows(50)
    models = model("one", lambda b: xy(b)[:, 0]) | model("two", lambda b: xy(b)[:, 1]) | model("bad", fails)
    members = {"one": step("one"), "bad": step("bad"), "two": step("two")}
    spec = {
        "combine": "weighted_mean",
        "weights": {"one": 1, "bad": 6, "two": 3},
        "members": members,
        "on_failure": "drop",
        "keep_members": True,
    }
    graph = make_graph({"ensemble": spec}, models=models)
    lesser = without_members(graph.source, ["score.ensemble.members.bad"])
    assert lesser is not None
    result = compiled(lesser, models).run(Batch(rows)).table
    expected = np.average(xy(Batch(rows)), axis=1, weights=[1, 3])
    np.testing.assert_allclose(result["score"].to_numpy(), expected, rtol=1e-12)
    assert result["score_bad"].null_count == 50
    assert set(result.column_names) == set(graph.step.schema(rows.schema).names), "the table keeps its columns"
    assert lesser.digest != graph.source.digest
    assert remaining_members(lesser, "score.ensemble.members.bad") == ["one", "two"]


@pytest.mark.parametrize(
    ("weights", "failed", "can_go_on"),
    [
        (None, ["good"], True),
        (None, ["good", "bad"], False),
        ({"good": 0, "bad": 1}, ["bad"], False),
        ({"good": 0, "bad": 1}, ["good"], True),
    ],
)
def test_the_last_member_with_a_weight_is_never_dropped(
    weights: dict[str, float] | None, failed: list[str], can_go_on: bool
) -> None:
    spec = failing("drop", **({"combine": "weighted_mean", "weights": weights} if weights else {}))
    graph = make_graph(spec, models=model("one", xy) | model("bad", fails))
    lesser = without_members(graph.source, [f"score.ensemble.members.{name}" for name in failed])
    assert (lesser is not None) == can_go_on
