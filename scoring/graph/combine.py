"""The arithmetic of ensembles. Every result depends on the scores of its own row alone, not on the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import numpy as np
import numpy.typing as npt

from scoring.deployment import Combine, Ties
from scoring.errors import ContractError

Scores = npt.NDArray[np.float64]


def combine(
    how: Combine,
    scores: Scores,
    weights: Scores,
    *,
    ties: Ties = Ties.FIRST,
    quantiles: Sequence[Sequence[float]] = (),
) -> Scores:
    """Merge the members' outputs.

    Args:
        how: the combiner.
        scores: shape (members, rows), or (members, outputs, rows). For votes of one output: probabilities of the second
            class; of several outputs: one probability per class.
        weights: shape (members,), not negative, with a sum above zero; 1 for every member where the combiner has none.
        ties: the class that wins a tie.
        quantiles: of each member's scores, for `rank_mean`.

    Returns:
        Shape (rows,), or (outputs, rows). Votes return class numbers, shape (rows,).
        A missing score (NaN) of any member makes the row's result NaN, also where the member's weight is zero.

    Raises:
        ContractError: a score has no geometric mean.
    """
    match how:
        case Combine.MEAN | Combine.WEIGHTED_MEAN:
            return _weighted_mean(scores, weights)
        case Combine.MEDIAN:
            return _array(np.median(scores, axis=0))
        case Combine.GEOMETRIC_MEAN:
            return _geometric_mean(scores, weights)
        case Combine.RANK_MEAN:
            return _weighted_mean(np.stack([rank(of, q) for of, q in zip(scores, quantiles, strict=True)]), weights)
        case Combine.MIN:
            return _array(np.min(scores, axis=0))
        case Combine.MAX:
            return _array(np.max(scores, axis=0))
        case Combine.SOFT_VOTE:
            return _with_missing(scores, _soft_vote(scores, weights, ties))
        case Combine.HARD_VOTE:
            return _with_missing(scores, _hard_vote(scores, weights, ties))
        case _:
            assert_never(how)


def rank(scores: Scores, quantiles: Sequence[float]) -> Scores:
    """Return the place of each score among quantiles, from 0 to 1; between two of them it is interpolated.

    As scikit-learn's `QuantileTransformer`: a score that equals several quantiles has the middle of their places, and
    scores beyond the lowest and the highest have 0 and 1.
    """
    known, places = np.asarray(quantiles, dtype=np.float64), np.linspace(0, 1, len(quantiles))
    from_below = np.interp(scores, known, places)
    from_above = -np.interp(-scores, -known[::-1], -places[::-1])
    found = np.where(scores == known[-1], 1.0, 0.5 * (from_below + from_above))
    return np.where(scores == known[0], 0.0, found)


def _weighted_mean(scores: Scores, weights: Scores) -> Scores:
    # As in scikit-learn. A matrix product rounds otherwise, and differently for every number of rows.
    return _array(np.average(scores, axis=0, weights=weights))


def _geometric_mean(scores: Scores, weights: Scores) -> Scores:
    if (scores < 0).any():
        raise ContractError(
            "the scores of an ensemble have no geometric mean",
            "numbers from 0 on",
            str(np.nanmin(scores)),
            "Use weighted_mean or median.",
        )
    is_used = weights > 0
    with np.errstate(divide="ignore", invalid="ignore"):  # the logarithm of 0, whose mean is 0 in the end
        mean = np.exp(_weighted_mean(np.log(scores[is_used]), weights[is_used]))
    return np.where(np.isnan(scores).any(axis=0), np.nan, mean)  # also of a member that weighs nothing


def _soft_vote(scores: Scores, weights: Scores, ties: Ties) -> Scores:
    mean = _weighted_mean(scores, weights)
    return _winner(mean, ties) if mean.ndim > 1 else _is_second(mean, ties)


def _hard_vote(scores: Scores, weights: Scores, ties: Ties) -> Scores:
    is_binary = scores.ndim == 2
    votes = _is_second(scores, ties) if is_binary else np.stack([_winner(member, ties) for member in scores])
    classes, rows = 2 if is_binary else scores.shape[1], scores.shape[-1]
    counts = np.zeros((classes, rows))
    for vote, weight in zip(votes.astype(np.intp), weights, strict=True):
        counts[vote, np.arange(rows)] += weight
    return _winner(counts, ties)


def _is_second(probabilities: Scores, ties: Ties) -> Scores:
    is_second = probabilities > 0.5 if ties is Ties.FIRST else probabilities >= 0.5
    return is_second.astype(np.float64)


def _winner(votes: Scores, ties: Ties) -> Scores:
    """Return the class with most votes; shape (classes, rows) to (rows,)."""
    if ties is Ties.FIRST:
        return _array(np.argmax(votes, axis=0))
    return _array(len(votes) - 1 - np.argmax(votes[::-1], axis=0))


def _with_missing(scores: Scores, results: Scores) -> Scores:
    """Return the classes, missing where any probability of a row is."""
    is_missing = np.isnan(scores).any(axis=tuple(range(scores.ndim - 1)))
    return np.where(is_missing, np.nan, results)


def _array(found: npt.ArrayLike) -> Scores:
    return np.asarray(found, dtype=np.float64)
