"""How much of each parent goes into a soup. Pure: what a mixture is worth is asked of a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, assert_never

import numpy as np
import numpy.typing as npt

from scoring.models.soup.method import Method

Mixing = npt.NDArray[np.float64]
"""One weight per parent, not negative, with sum 1."""
Worth = Callable[[Mixing], float]
"""Of the model that a mixture gives, on held-out rows."""
TRIALS_PER_PARENT: Final = 50
"""How many mixtures a learned soup tries at most, by parent."""
TOLERANCE: Final = 1e-5
"""A learned soup is done when neither loss nor logits change by more."""


def mix(method: Method, parents: int, *, metric: Worth, loss: Worth) -> Mixing:
    """Return the mixing weights of a soup of `parents` models.

    Args:
        method: how.
        parents: how many there are.
        metric: larger is better; asked by greedy soups.
        loss: smaller is better; asked by learned soups.
    """
    match method:
        case Method.UNIFORM:
            return uniform(parents)
        case Method.GREEDY:
            return greedy(parents, metric)
        case Method.LEARNED:
            return learned(parents, loss)
        case _:
            assert_never(method)


def uniform(parents: int) -> Mixing:
    """Return the same weight for each parent."""
    return np.full(parents, 1 / parents)


def greedy(parents: int, metric: Worth) -> Mixing:
    """Return the same weight for each of the parents that a greedy soup takes; never worse than the best of them.

    Parents are tried in the order of their own metric; of equal ones the first comes first.
    """
    alone = [metric(_even([parent], parents)) for parent in range(parents)]
    best, *others = sorted(range(parents), key=lambda parent: -alone[parent])
    taken, reached = [best], alone[best]
    for parent in others:
        worth = metric(_even([*taken, parent], parents))
        if worth >= reached:
            taken, reached = [*taken, parent], worth
    return _even(taken, parents)


def learned(parents: int, loss: Worth) -> Mixing:
    """Return the weights with the smallest loss that a search from equal weights finds; never worse than these.

    Weights are a softmax, so that they are positive and add up to 1; the search needs no gradient and no luck: the
    same loss gives the same weights.
    """
    from scipy.optimize import minimize

    def of_logits(logits: npt.NDArray[np.float64]) -> float:
        return loss(softmax(logits))

    found = minimize(
        of_logits,
        np.zeros(parents - 1),
        method="Nelder-Mead",
        options={
            # A step of one turns equal weights into a share that is e times as large as the others.
            "initial_simplex": np.vstack([np.zeros(parents - 1), np.eye(parents - 1)]),
            "maxfev": TRIALS_PER_PARENT * parents,
            "fatol": TOLERANCE,
            "xatol": TOLERANCE,
        },
    )
    return softmax(found.x)


def softmax(logits: npt.NDArray[np.float64]) -> Mixing:
    """Return positive weights with sum 1 from logits of all parents but the last, whose logit is 0."""
    every = np.append(logits, 0.0)
    raised = np.exp(every - every.max())
    weights: Mixing = raised / raised.sum()
    return weights


def _even(taken: list[int], parents: int) -> Mixing:
    mixing = np.zeros(parents)
    mixing[taken] = 1 / len(taken)
    return mixing
