from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

from scoring.batch import Batch
from scoring.deployment import Combine
from scoring.errors import ContractError
from scoring.graph.ensemble import combine
from scoring.testing import FunctionPredictor, Graph, example_rows, frozen_model, make_graph

probabilities = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(0, 1, allow_subnormal=False)
)


def weights_for(scores: np.ndarray, data: st.DataObject) -> np.ndarray:
    weights = data.draw(hnp.arrays(np.float64, len(scores), elements=st.floats(0, 10, allow_subnormal=False)))
    assume(weights.sum() > 1e-3)
    return weights


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


@given(scores=probabilities, data=st.data())
def test_means_are_numpys(scores: np.ndarray, data: st.DataObject) -> None:
    weights = weights_for(scores, data)
    equal = np.ones(len(scores))
    np.testing.assert_allclose(combine(Combine.MEAN, scores, equal), scores.mean(axis=0), atol=1e-12)
    expected = np.average(scores, axis=0, weights=weights)
    np.testing.assert_allclose(combine(Combine.WEIGHTED_MEAN, scores, weights), expected, atol=1e-12)


@given(scores=probabilities)
def test_the_maximum_is_one_of_the_scores_and_no_other_is_higher(scores: np.ndarray) -> None:
    found = combine(Combine.MAX, scores, np.ones(len(scores)))
    for row, value in enumerate(found):
        assert value in scores[:, row]
        assert not (scores[:, row] > value).any()


@given(scores=probabilities, data=st.data())
def test_a_hard_vote_goes_to_the_side_with_more_weight(scores: np.ndarray, data: st.DataObject) -> None:
    weights = np.array(data.draw(st.lists(st.integers(0, 9), min_size=len(scores), max_size=len(scores))), float)
    assume(weights.sum() > 0)
    found = combine(Combine.HARD_VOTE, scores, weights)
    for row, value in enumerate(found):
        ayes = sum(int(w) for w, score in zip(weights, scores[:, row], strict=True) if score > 0.5)
        noes = int(weights.sum()) - ayes
        assert value == (1.0 if ayes > noes else 0.0)


@given(scores=probabilities, data=st.data(), how=st.sampled_from(Combine))
def test_the_order_of_members_and_the_scale_of_weights_do_not_matter(
    scores: np.ndarray, data: st.DataObject, how: Combine
) -> None:
    weights = weights_for(scores, data)
    order = np.array(data.draw(st.permutations(range(len(scores)))))
    found, other = combine(how, scores, weights), combine(how, scores[order], 4 * weights[order])
    if how in (Combine.SOFT_VOTE, Combine.HARD_VOTE):
        votes = scores if how is Combine.SOFT_VOTE else (scores > 0.5).astype(float)
        is_tie = np.isclose(np.average(votes, axis=0, weights=weights), 0.5, atol=1e-9)
        found, other = found[~is_tie], other[~is_tie]
    np.testing.assert_allclose(found, other, atol=1e-12)


@given(scores=probabilities, data=st.data(), how=st.sampled_from(Combine))
def test_a_row_without_one_score_has_no_result_and_the_others_keep_theirs(
    scores: np.ndarray, data: st.DataObject, how: Combine
) -> None:
    weights = np.ones(len(scores))
    member = data.draw(st.integers(0, scores.shape[0] - 1))
    row = data.draw(st.integers(0, scores.shape[1] - 1))
    missing = scores.copy()
    missing[member, row] = np.nan
    found = combine(how, missing, weights)
    assert np.isnan(found[row])
    rest = np.arange(scores.shape[1]) != row
    np.testing.assert_allclose(found[rest], combine(how, scores, weights)[rest], atol=1e-12)


@pytest.mark.parametrize(
    ("how", "scores", "weights", "expected"),
    [
        (Combine.SOFT_VOTE, [0.5, 0.5], [1, 1], 0.0),
        (Combine.SOFT_VOTE, [0.4, 0.7], [1, 1], 1.0),
        (Combine.SOFT_VOTE, [0.4, 0.7], [3, 1], 0.0),
        (Combine.HARD_VOTE, [0.9, 0.1], [1, 1], 0.0),
        (Combine.HARD_VOTE, [0.5, 0.6, 0.1], [1, 1, 1], 0.0),
        (Combine.HARD_VOTE, [0.9, 0.6, 0.1], [1, 1, 1], 1.0),
        (Combine.HARD_VOTE, [0.9, 0.6, 0.1], [1, 1, 2], 0.0),
        (Combine.WEIGHTED_MEAN, [0.0, 1.0], [0, 5], 1.0),
    ],
)
def test_ties_go_to_class_zero(how: Combine, scores: list[float], weights: list[float], expected: float) -> None:
    assert combine(how, np.array(scores)[:, None], np.array(weights, float)).tolist() == [expected]


@pytest.mark.parametrize("weights", [None, [1, 1, 1], [1, 3, 1], [2, 1, 1], [0.2, 0.5, 0.3]])
@pytest.mark.parametrize("how", [Combine.SOFT_VOTE, Combine.HARD_VOTE])
def test_votes_are_those_of_scikit_learn(how: Combine, weights: list[float] | None) -> None:
    rows = example_rows(1000, seed=7).to_pandas()
    features, label = rows[["x", "y"]], rows["label"]
    voting = VotingClassifier(
        [("linear", LogisticRegression()), ("bayes", GaussianNB()), ("tree", DecisionTreeClassifier(max_depth=3))],
        voting="soft" if how is Combine.SOFT_VOTE else "hard",
        weights=weights,
    ).fit(features[:500], label[:500])
    unseen = features[500:]
    scores = np.stack([fitted.predict_proba(unseen)[:, 1] for fitted in voting.estimators_])
    found = combine(how, scores, np.array(weights or [1, 1, 1], float))
    np.testing.assert_array_equal(found, voting.predict(unseen))
    assert 0 < found.sum() < len(found)


# ------------------------------------------------------------------------------------------------------ as a step


@pytest.mark.parametrize(("how", "sides"), [(Combine.SOFT_VOTE, (0.75, 0.25)), (Combine.HARD_VOTE, (1.0, 0.0))])
@pytest.mark.parametrize("members", range(2, 32, 2))
def test_ties_of_many_members_go_to_class_zero(how: Combine, sides: tuple[float, float], members: int) -> None:
    one = np.repeat(sides, members // 2)[:, np.newaxis]
    scores = np.random.default_rng(members).permuted(np.repeat(one, 200, axis=1), axis=0)
    assert not combine(how, scores, np.ones(members)).any()


@pytest.mark.parametrize("how", Combine)
def test_a_row_has_one_result_whatever_the_rows_beside_it(how: Combine) -> None:
    scores, weights = np.random.default_rng(0).random((3, 1000)), np.array([0.2, 1.0, 3.0])
    alone = [combine(how, scores[:, [row]], weights) for row in range(1000)]
    np.testing.assert_array_equal(combine(how, scores, weights), np.concatenate(alone))


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
