from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, LogisticRegression

from scoring.blending import Predict, holdout, out_of_fold
from scoring.errors import ConfigurationError, ContractError


def labelled(rows: int = 600, *, nights: int = 12, seed: int = 0) -> pd.DataFrame:
    """Rows whose label follows from x, with noise that nobody can know."""
    random = np.random.default_rng(seed)
    x = random.normal(size=rows)
    night = [f"2024-01-{1 + day:02d}" for day in random.integers(0, nights, rows)]
    noisy = x + random.normal(scale=0.7, size=rows) > 0
    return pd.DataFrame({"x": x, "night": night, "label": noisy.astype(int), "row": np.arange(rows)})


def honest(seen: pd.DataFrame) -> Predict:
    fitted = LogisticRegression().fit(seen[["x"]], seen["label"])
    return lambda rows: fitted.predict_proba(rows[["x"]])[:, 1]


def memorises(seen: pd.DataFrame) -> Predict:
    """Knows the label of every row that it has seen, and nothing else."""
    known = dict(zip(seen["row"], seen["label"], strict=True))
    return lambda rows: rows["row"].map(known).fillna(0.5).to_numpy(dtype=np.float64)


MEMBERS = {"honest": honest, "memory": memorises}


def combiner(predictions: pd.DataFrame, label: npt.ArrayLike) -> LinearRegression:
    return LinearRegression().fit(predictions, label)


def error_of(fitted: LinearRegression, members: dict[str, Predict], unseen: pd.DataFrame) -> float:
    predictions = pd.DataFrame({name: predict(unseen) for name, predict in members.items()})
    return float(np.mean((fitted.predict(predictions) - unseen["label"].to_numpy()) ** 2))


def test_a_member_that_remembers_its_training_rows_does_not_fool_the_combiner() -> None:
    frame, unseen = labelled(), labelled(seed=1).assign(row=lambda rows: rows["row"] + 10_000)
    fitted = {name: fit(frame) for name, fit in MEMBERS.items()}
    leaky = combiner(pd.DataFrame({name: predict(frame) for name, predict in fitted.items()}), frame["label"])
    sound = combiner(out_of_fold(MEMBERS, frame), frame["label"])
    late, predictions = holdout(MEMBERS, frame, by="night")
    blended = combiner(predictions, late["label"])
    assert leaky.coef_[1] == pytest.approx(1), "on rows that it remembers, the memory seems perfect"
    for good in (sound, blended):
        assert good.coef_[0] > 0.8
        assert error_of(good, fitted, unseen) == pytest.approx(
            np.mean((fitted["honest"](unseen) - unseen["label"]) ** 2), rel=0.05
        )
    assert error_of(leaky, fitted, unseen) > 1.3 * error_of(sound, fitted, unseen)


def spy(seen_rows: list[tuple[set[int], set[int]]]) -> Callable[[pd.DataFrame], Predict]:
    def fit(seen: pd.DataFrame) -> Predict:
        def predict(rows: pd.DataFrame) -> npt.ArrayLike:
            seen_rows.append((set(seen["row"]), set(rows["row"])))
            return rows["row"].to_numpy(dtype=float)

        return predict

    return fit


@given(rows=st.integers(10, 80), folds=st.integers(2, 5), seed=st.integers(0, 5), is_by_night=st.booleans())
def test_no_row_is_predicted_by_a_member_that_has_seen_it(rows: int, folds: int, seed: int, is_by_night: bool) -> None:
    frame = labelled(rows, nights=6).assign(night=lambda f: f["row"] % 6).sample(frac=1, random_state=seed)
    calls: list[tuple[set[int], set[int]]] = []
    found = out_of_fold({"m": spy(calls)}, frame, by="night" if is_by_night else None, folds=folds, seed=seed)
    assert found["m"].tolist() == frame["row"].tolist(), "each prediction stands in its row's place"
    assert found.index.equals(frame.index)
    assert len(calls) == folds
    for seen, asked in calls:
        assert not seen & asked
        assert seen | asked == set(frame["row"])
        if is_by_night:
            assert not {row % 6 for row in seen} & {row % 6 for row in asked}


def test_a_hold_out_looks_ahead_in_time() -> None:
    frame = labelled().sample(frac=1, random_state=0)
    calls: list[tuple[set[int], set[int]]] = []
    late, predictions = holdout({"m": spy(calls)}, frame, by="night", share=0.25)
    ((seen, asked),) = calls
    nights = frame.set_index("row")["night"]
    assert nights[list(seen)].max() < nights[list(asked)].min()
    assert nights[list(asked)].nunique() == 3
    assert predictions["m"].tolist() == late["row"].tolist()
    assert len(late) + len(seen) == len(frame)


def test_members_with_several_outputs_have_a_column_for_each() -> None:
    frame = labelled(60)
    found = out_of_fold({"both": lambda _: lambda rows: rows[["x", "row"]].to_numpy()}, frame, folds=3)
    assert found.columns.tolist() == ["both_0", "both_1"]
    np.testing.assert_array_equal(found.to_numpy(), frame[["x", "row"]].to_numpy())


def test_the_same_seed_gives_the_same_folds() -> None:
    frame = labelled(100)
    one, again, other = (out_of_fold(MEMBERS, frame, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, again)
    assert not one.equals(other)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"by": "night", "folds": 13},
            r"cannot be parted into folds: expected 2 to 12 folds, one for each value of night",
        ),
        ({"folds": 1}, r"expected 2 to 600 folds, .* got 1\.$"),
        ({"by": "day"}, r"cannot be parted: expected one of the columns x, night, label, row, got 'day'\.$"),
    ],
)
def test_rows_that_cannot_be_parted_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        out_of_fold(MEMBERS, labelled(), **options)  # type: ignore[arg-type]


def test_a_hold_out_of_everything_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be parted into earlier and later ones"):
        holdout(MEMBERS, labelled(nights=1), by="night")


def test_a_member_that_predicts_too_few_rows_is_named() -> None:
    with pytest.raises(
        ContractError, match=r"^member 'm' predicted a wrong shape: expected \(20,\) or \(20, k\), got \(3,\)"
    ):
        out_of_fold({"m": lambda _: lambda _: np.zeros(3)}, labelled(100))
