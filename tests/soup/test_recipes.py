from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.models.soup.method import Method
from scoring.models.soup.recipes import TRIALS_PER_PARENT, Mixing, greedy, learned, mix, softmax, uniform

WORTH = st.lists(st.floats(0, 1), min_size=2, max_size=6)


def ranked(bonus: float, alone: list[float]) -> float:
    """A metric that knows nothing but what each parent is worth, and rewards or punishes mixtures."""
    return float(np.mean(alone)) + bonus * (len(alone) - 1)


@given(alone=WORTH, bonus=st.floats(-0.2, 0.2))
def test_a_greedy_soup_is_never_worse_than_its_best_parent(alone: list[float], bonus: float) -> None:
    def metric(mixing: Mixing) -> float:
        return ranked(bonus, [alone[parent] for parent in np.flatnonzero(mixing)])

    mixing = greedy(len(alone), metric)
    assert metric(mixing) >= max(alone)
    assert mixing.sum() == pytest.approx(1)
    assert len(set(mixing[mixing > 0])) == 1, "those that are taken have equal shares"
    assert mixing[int(np.argmax(alone))] > 0


def test_a_greedy_soup_asks_in_the_order_of_the_paper() -> None:
    """Best first, then each next best together with those taken so far; kept when the metric does not fall."""
    asked: list[tuple[int, ...]] = []
    worth = {(0,): 0.7, (1,): 0.9, (2,): 0.8, (1, 2): 0.9, (0, 1, 2): 0.85}

    def metric(mixing: Mixing) -> float:
        asked.append(tuple(np.flatnonzero(mixing).tolist()))
        return worth[asked[-1]]

    np.testing.assert_array_equal(greedy(3, metric), [0, 0.5, 0.5])
    assert asked == [(0,), (1,), (2,), (1, 2), (0, 1, 2)]


def test_of_equal_parents_the_first_comes_first() -> None:
    def metric(mixing: Mixing) -> float:
        return 0.5 if np.count_nonzero(mixing) == 1 else 0.4

    np.testing.assert_array_equal(greedy(3, metric), [1, 0, 0])


@pytest.mark.parametrize("best", [(0.2, 0.3, 0.5), (0.05, 0.9, 0.05), (1 / 3, 1 / 3, 1 / 3)])
def test_a_learned_soup_finds_the_smallest_loss(best: tuple[float, ...]) -> None:
    trials: list[Mixing] = []

    def loss(mixing: Mixing) -> float:
        trials.append(mixing)
        return float(((mixing - best) ** 2).sum())

    found = learned(3, loss)
    np.testing.assert_allclose(found, best, atol=0.01)
    assert len(trials) <= TRIALS_PER_PARENT * 3
    assert all(mixing.min() >= 0 and mixing.sum() == pytest.approx(1) for mixing in trials)
    np.testing.assert_array_equal(learned(3, loss), found)


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=4))
def test_a_learned_soup_is_never_worse_than_a_uniform_one(slopes: list[float]) -> None:
    def loss(mixing: Mixing) -> float:
        return float(mixing @ slopes + np.sin(20 * mixing).sum())

    assert loss(learned(len(slopes), loss)) <= loss(uniform(len(slopes)))


@given(st.lists(st.floats(-700, 700), min_size=1, max_size=5))
def test_a_softmax_is_that_of_scipy(logits: list[float]) -> None:
    from scipy.special import softmax as oracle

    np.testing.assert_allclose(softmax(np.array(logits)), oracle([*logits, 0.0]), rtol=1e-9, atol=1e-300)


def test_each_method_is_mixed() -> None:
    def metric(mixing: Mixing) -> float:
        return float(mixing[0])

    mixed = {method: mix(method, 2, metric=metric, loss=lambda mixing: -metric(mixing)) for method in Method}
    np.testing.assert_array_equal(mixed[Method.UNIFORM], [0.5, 0.5])
    np.testing.assert_array_equal(mixed[Method.GREEDY], [1, 0])
    assert mixed[Method.LEARNED][0] > 0.9
