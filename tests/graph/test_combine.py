"""The arithmetic of ensembles against numpy, scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn.datasets import load_iris
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import QuantileTransformer
from sklearn.tree import DecisionTreeClassifier

from scoring.deployment import Combine, Ties
from scoring.errors import ContractError
from scoring.graph.combine import combine, rank
from scoring.testing import example_rows

QUANTILES = tuple(np.linspace(0, 1, 11) ** 2)


def merged(how: Combine, scores: np.ndarray, weights: np.ndarray, **more: object) -> np.ndarray:
    """Combine with the same quantiles for every member."""
    return combine(how, scores, weights, quantiles=[QUANTILES] * len(scores), **more)  # type: ignore[arg-type]


probabilities = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(0, 1, allow_subnormal=False)
)


def weights_for(scores: np.ndarray, data: st.DataObject) -> np.ndarray:
    weights = data.draw(hnp.arrays(np.float64, len(scores), elements=st.floats(0, 10, allow_subnormal=False)))
    assume(weights.sum() > 1e-3)
    return weights


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
    found, other = merged(how, scores, weights), merged(how, scores[order], 4 * weights[order])
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
    found = merged(how, missing, weights)
    assert np.isnan(found[row])
    rest = np.arange(scores.shape[1]) != row
    np.testing.assert_allclose(found[rest], merged(how, scores, weights)[rest], atol=1e-12)


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
    assert merged(how, np.array(scores)[:, None], np.array(weights, float)).tolist() == [expected]


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
    found = merged(how, scores, np.array(weights or [1, 1, 1], float))
    np.testing.assert_array_equal(found, voting.predict(unseen))
    assert 0 < found.sum() < len(found)


@pytest.mark.parametrize(("how", "sides"), [(Combine.SOFT_VOTE, (0.75, 0.25)), (Combine.HARD_VOTE, (1.0, 0.0))])
@pytest.mark.parametrize("members", range(2, 32, 2))
def test_ties_of_many_members_go_to_class_zero(how: Combine, sides: tuple[float, float], members: int) -> None:
    one = np.repeat(sides, members // 2)[:, np.newaxis]
    scores = np.random.default_rng(members).permuted(np.repeat(one, 200, axis=1), axis=0)
    assert not merged(how, scores, np.ones(members)).any()


@pytest.mark.parametrize("how", Combine)
def test_a_row_has_one_result_whatever_the_rows_beside_it(how: Combine) -> None:
    scores, weights = np.random.default_rng(0).random((3, 1000)), np.array([0.2, 1.0, 3.0])
    alone = [merged(how, scores[:, [row]], weights) for row in range(1000)]
    np.testing.assert_array_equal(merged(how, scores, weights), np.concatenate(alone))


# ------------------------------------------------------------------------------------------- medians, ranks and so on


@given(scores=probabilities)
def test_medians_and_extremes_are_numpys(scores: np.ndarray) -> None:
    ones = np.ones(len(scores))
    np.testing.assert_array_equal(combine(Combine.MEDIAN, scores, ones), np.median(scores, axis=0))
    np.testing.assert_array_equal(combine(Combine.MIN, scores, ones), scores.min(axis=0))


@given(scores=probabilities, data=st.data())
def test_a_geometric_mean_is_scipys(scores: np.ndarray, data: st.DataObject) -> None:
    scores = scores * 1e6 + 1e-6
    weights = np.array(data.draw(st.lists(st.integers(0, 9), min_size=len(scores), max_size=len(scores))), float)
    assume(weights.sum() > 0)
    expected = stats.gmean(scores, axis=0, weights=weights[:, np.newaxis])
    np.testing.assert_allclose(combine(Combine.GEOMETRIC_MEAN, scores, weights), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("scores", "weights", "expected"),
    [([0.0, 0.5], [1, 1], 0.0), ([0.0, 0.5], [0, 1], 0.5), ([0.0, 0.0], [1, 1], 0.0), ([4.0, 1.0], [1, 1], 2.0)],
)
def test_a_zero_makes_a_geometric_mean_zero_unless_it_weighs_nothing(
    scores: list[float], weights: list[float], expected: float
) -> None:
    found = combine(Combine.GEOMETRIC_MEAN, np.array(scores)[:, None], np.array(weights, float))
    assert found.tolist() == pytest.approx([expected])


def test_negative_scores_have_no_geometric_mean() -> None:
    sentence = r"no geometric mean: expected numbers from 0 on, got -2\.0\. Use weighted_mean or median\.$"
    with pytest.raises(ContractError, match=sentence):
        combine(Combine.GEOMETRIC_MEAN, np.array([[1.0, -2.0], [1.0, np.nan]]), np.ones(2))


@given(
    sample=hnp.arrays(np.float64, st.integers(2, 60), elements=st.sampled_from([-3.0, -0.5, 0.0, 0.25, 0.5, 2.0, 7.5])),
    scores=hnp.arrays(np.float64, st.integers(0, 20), elements=st.floats(-10, 10)),
    count=st.integers(2, 12),
)
def test_ranks_are_those_of_the_quantile_transformer(sample: np.ndarray, scores: np.ndarray, count: int) -> None:
    transformer = QuantileTransformer(n_quantiles=min(count, len(sample)), subsample=None).fit(sample[:, np.newaxis])
    quantiles = transformer.quantiles_[:, 0]
    asked = np.concatenate([scores, sample, [np.nan]])
    expected = transformer.transform(asked[:, np.newaxis])[:, 0]
    np.testing.assert_allclose(rank(asked, quantiles), expected, atol=1e-12)


def test_a_rank_mean_averages_ranks_and_not_scores() -> None:
    scores = np.array([[0.1, 0.2, 0.9], [100.0, 10_000.0, -5.0]])
    quantiles = [[0.0, 0.2, 1.0], [0.0, 100.0, 10_000.0]]
    found = combine(Combine.RANK_MEAN, scores, np.array([1.0, 3.0]), quantiles=quantiles)
    assert found.tolist() == pytest.approx([(0.25 + 3 * 0.5) / 4, (0.5 + 3 * 1.0) / 4, (0.9375 + 0) / 4])


# -------------------------------------------------------------------------------------------------- several outputs

classes = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 5), st.integers(2, 4), st.integers(1, 6)),
    elements=st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75, 1.0]),
)
"""Members x classes x rows; quarters and eighths, so that sums are exact and ties are frequent."""


@given(scores=classes, data=st.data(), ties=st.sampled_from(Ties))
def test_votes_over_classes_are_counted_as_people_count(scores: np.ndarray, data: st.DataObject, ties: Ties) -> None:
    weights = np.array(data.draw(st.lists(st.integers(0, 4), min_size=len(scores), max_size=len(scores))), float)
    assume(weights.sum() > 0)

    def winner(counts: list[float]) -> int:
        best = [number for number, count in enumerate(counts) if count == max(counts)]
        return best[0] if ties is Ties.FIRST else best[-1]

    soft = combine(Combine.SOFT_VOTE, scores, weights, ties=ties)
    hard = combine(Combine.HARD_VOTE, scores, weights, ties=ties)
    members, count, rows = scores.shape
    for row in range(rows):
        sums = [float(sum(weights[m] * scores[m, c, row] for m in range(members))) for c in range(count)]
        chosen = [winner(scores[m, :, row].tolist()) for m in range(members)]
        votes = [float(sum(w for w, choice in zip(weights, chosen, strict=True) if choice == c)) for c in range(count)]
        assert hard[row] == winner(votes)
        if float(weights.sum()).is_integer() and np.log2(weights.sum()).is_integer():  # dividing by it is exact
            assert soft[row] == winner(sums)


@pytest.mark.parametrize("how", [Combine.SOFT_VOTE, Combine.HARD_VOTE])
@pytest.mark.parametrize("ties", Ties)
@given(scores=probabilities)
def test_two_classes_vote_like_the_probability_of_the_second(how: Combine, ties: Ties, scores: np.ndarray) -> None:
    eighths = np.round(scores * 8) / 8
    ones = np.ones(len(eighths))
    both = np.stack([1 - eighths, eighths], axis=1)
    assume(how is Combine.HARD_VOTE or np.log2(len(eighths)).is_integer())
    np.testing.assert_array_equal(combine(how, both, ones, ties=ties), combine(how, eighths, ones, ties=ties))


@pytest.mark.parametrize("weights", [None, [1, 1, 1], [1, 3, 1], [0.2, 0.5, 0.3]])
@pytest.mark.parametrize("how", [Combine.SOFT_VOTE, Combine.HARD_VOTE])
def test_votes_over_three_classes_are_those_of_scikit_learn(how: Combine, weights: list[float] | None) -> None:
    features, label = load_iris(return_X_y=True)
    features = features + np.random.default_rng(0).normal(scale=1.0, size=features.shape)  # members shall disagree
    voting = VotingClassifier(
        [("linear", LogisticRegression(max_iter=500)), ("bayes", GaussianNB()), ("tree", DecisionTreeClassifier())],
        voting="soft" if how is Combine.SOFT_VOTE else "hard",
        weights=weights,
    ).fit(features[::2], label[::2])
    unseen = features[1::2]
    scores = np.stack([fitted.predict_proba(unseen).T for fitted in voting.estimators_])
    found = combine(how, scores, np.array(weights or [1, 1, 1], float))
    np.testing.assert_array_equal(found, voting.predict(unseen))
    assert set(found) == {0.0, 1.0, 2.0}


@given(scores=classes)
@pytest.mark.parametrize("how", [how for how in Combine if not how.is_vote and how is not Combine.RANK_MEAN])
def test_several_outputs_are_merged_one_by_one(how: Combine, scores: np.ndarray) -> None:
    weights = np.arange(1, len(scores) + 1, dtype=float)
    found = combine(how, scores, weights)
    for number in range(scores.shape[1]):
        np.testing.assert_array_equal(found[number], combine(how, scores[:, number], weights))


@pytest.mark.parametrize("how", [how for how in Combine if how is not Combine.RANK_MEAN])
def test_a_row_without_one_probability_has_no_result(how: Combine) -> None:
    scores = np.full((2, 3, 2), 0.25)
    scores[1, 2, 0] = np.nan
    found = combine(how, scores, np.ones(2))
    if how.is_vote:
        assert np.isnan(found).tolist() == [True, False]
    else:
        assert np.isnan(found).tolist() == [[False, False], [False, False], [True, False]]
