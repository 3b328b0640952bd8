"""Predictions on rows that a model has not learned from: what a learned combiner of an ensemble is trained on.

A combiner that is trained on predictions for its members' own training rows trusts the member that remembers them best,
not the one that is best. So members are fitted several times, and each row is predicted by one that has not seen it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from scoring.errors import ConfigurationError, ContractError, listed

if TYPE_CHECKING:
    import pandas as pd

Predict = Callable[["pd.DataFrame"], npt.ArrayLike]
"""Given rows, returns shape (rows,), or (rows, k)."""
Fit = Callable[["pd.DataFrame"], Predict]
"""Given labelled rows, fits one member and returns what it predicts with."""


def out_of_fold(
    members: Mapping[str, Fit], frame: pd.DataFrame, *, by: str | None = None, folds: int = 5, seed: int = 0
) -> pd.DataFrame:
    """Return each member's predictions for all rows, made by a copy that was fitted without the row's fold.

    Args:
        members: by their names in the deployment's ensemble.
        frame: labelled rows.
        by: a column, such as the partition's, whose equal values stay in one fold: rows of one night resemble each
            other. None: each row for itself.
        folds: how many.
        seed: of the assignment to folds; the same frame and seed give the same folds.

    Returns:
        A frame with the index of `frame` and a column `<member>`, or `<member>_<0..k-1>` for members with k outputs:
        give such columns the names that the deployment's `outputs` have.

    Raises:
        ConfigurationError: there are fewer values of `by` than folds, or fewer than two folds.
        ContractError: a member predicts another number of rows than it is given.
    """
    groups = _groups(frame, by)
    count = int(groups.max(initial=-1)) + 1
    if not 2 <= folds <= count:
        raise ConfigurationError(
            "rows cannot be parted into folds",
            f"2 to {count} folds, one for each value of {by or 'the rows'}",
            str(folds),
        )
    fold_of = np.random.default_rng(seed).permutation(np.arange(count) % folds)[groups]
    found: dict[str, npt.NDArray[np.float64]] = {}
    for fold in range(folds):
        is_out = fold_of == fold
        for name, predictions in _predicted(members, frame[~is_out], frame[is_out]).items():
            found.setdefault(name, np.full(len(frame), np.nan))[is_out] = predictions
    return _frame(found, frame)


def holdout(
    members: Mapping[str, Fit], frame: pd.DataFrame, *, by: str, share: float = 0.3
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the last rows, and each member's predictions for them, made by a copy that was fitted on the earlier ones.

    Blending: cheaper than `out_of_fold`, since every member is fitted once, and it looks ahead in time as scoring does.

    Args:
        members: by their names in the deployment's ensemble.
        frame: labelled rows.
        by: the column that orders them, such as the partition's; equal values stay on one side.
        share: of its values that are held out.

    Raises:
        ConfigurationError: one side would be empty.
        ContractError: a member predicts another number of rows than it is given.
    """
    groups = _groups(frame, by)
    count = int(groups.max(initial=-1)) + 1
    first = count - round(count * share)
    if not 0 < first < count:
        raise ConfigurationError(
            "rows cannot be parted into earlier and later ones", f"several values of {by!r} on both sides", f"{count}"
        )
    is_late = groups >= first
    late = frame[is_late]
    return late, _frame(_predicted(members, frame[~is_late], late), late)


def _groups(frame: pd.DataFrame, by: str | None) -> npt.NDArray[np.intp]:
    """Return the number of each row's group, in the order of the groups' values."""
    if by is None:
        return np.arange(len(frame))
    if by not in frame.columns:
        raise ConfigurationError("rows cannot be parted", f"one of the columns {listed(frame.columns)}", repr(by))
    _, groups = np.unique(frame[by].to_numpy(), return_inverse=True)
    return groups


def _predicted(
    members: Mapping[str, Fit], seen: pd.DataFrame, unseen: pd.DataFrame
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the predictions of members that were fitted on `seen`, for `unseen`, by column."""
    found = {}
    for name, fit in members.items():
        values = np.asarray(fit(seen)(unseen), dtype=np.float64)
        if values.ndim not in (1, 2) or len(values) != len(unseen):
            raise ContractError(
                f"member {name!r} predicted a wrong shape", f"({len(unseen)},) or ({len(unseen)}, k)", str(values.shape)
            )
        columns = {name: values} if values.ndim == 1 else {f"{name}_{k}": values[:, k] for k in range(values.shape[1])}
        found.update(columns)
    return found


def _frame(columns: Mapping[str, npt.NDArray[np.float64]], frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(dict(columns), index=frame.index)
