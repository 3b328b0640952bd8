from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng

from scoring.monitoring.performance import LabelArrival, arrived_labels, measure
from scoring.monitoring.report import Performance


def performance(scores: Any, labels: Any, **settings: Any) -> Performance:
    return measure(scores, labels, first="2013-06-26", last="2013-07-02", **settings)


def rank_formula(scores: list[float], labels: list[int]) -> float:
    """Probability that a row with label 1 scores higher than one with label 0, ties counting half."""
    pairs = [
        (one, zero)
        for one, y in zip(scores, labels, strict=True)
        if y
        for zero, z in zip(scores, labels, strict=True)
        if not z
    ]
    return sum(1.0 if one > zero else 0.5 if one == zero else 0.0 for one, zero in pairs) / len(pairs)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), st.sampled_from([0, 1])), min_size=2, max_size=30
    )
)
def test_roc_auc_and_log_loss_agree_with_their_formulas(rows: list[tuple[float, int]]) -> None:
    scores, labels = [row[0] for row in rows], [row[1] for row in rows]
    found = performance(scores, labels)
    if len(set(labels)) < 2:
        assert found.skipped == f"all {len(rows)} labels are {labels[0]}"
        return
    assert found.roc_auc == pytest.approx(rank_formula(scores, labels))
    clipped = [min(max(score, 1e-7), 1 - 1e-7) for score in scores]
    losses = [-math.log(p if label else 1 - p) for p, label in zip(clipped, labels, strict=True)]
    assert found.log_loss == pytest.approx(sum(losses) / len(losses))
    assert (found.rows, found.first, found.last, found.skipped) == (len(rows), "2013-06-26", "2013-07-02", None)


def test_sure_mistakes_have_a_finite_log_loss() -> None:
    found = performance([1.0, 0.0], [0, 1])
    assert found.roc_auc == 0.0
    assert found.log_loss == pytest.approx(-math.log(1e-7))


def test_margins_have_a_roc_auc_and_no_log_loss() -> None:
    found = performance([-3.0, 2.5, math.inf], [False, True, True], baseline_roc_auc=0.8)
    assert (found.roc_auc, found.log_loss, found.baseline_roc_auc) == (1.0, None, 0.8)


def test_rows_without_score_or_label_are_left_out() -> None:
    found = performance([0.1, math.nan, 0.9, 0.5], [0, 1, 1, None])
    assert (found.rows, found.roc_auc) == (2, 1.0)


@pytest.mark.parametrize(
    ("scores", "labels", "reason"),
    [
        ([0.1, 0.9], [1, 1], "all 2 labels are 1"),
        ([0.1, 0.9, 0.3], [0, 0, math.nan], "all 2 labels are 0"),
        ([0.1, 0.9, 0.3], [0, 1, 2], "expected labels 0 and 1, got 0.0, 1.0, 2.0"),
        ([0.1, 0.9], ["late", "on time"], "the labels are not numbers: 'late', 'on time'"),
        (["a", "b"], [0, 1], "the scores are not numbers: 'a', 'b'"),
        ([], [], "no row has score and label"),
    ],
)
def test_what_cannot_be_measured_is_skipped_with_a_reason(scores: Any, labels: Any, reason: str) -> None:
    found = performance(scores, labels, min_rows=0, baseline_roc_auc=0.7)
    assert found.skipped == reason
    assert (found.roc_auc, found.log_loss, found.baseline_roc_auc) == (None, None, 0.7)


def test_too_few_rows_are_not_measured() -> None:
    rng = default_rng(0)
    scores, labels = rng.random(99), rng.integers(0, 2, 99)
    assert performance(scores, labels, min_rows=99).roc_auc is not None
    found = performance(scores, labels, min_rows=100)
    assert found.skipped == "expected at least 100 rows with score and label, got 99"
    assert (found.rows, found.roc_auc) == (99, None)


def test_float32_scores_are_fine() -> None:
    assert performance(np.array([0.1, 0.9], np.float32), np.array([False, True])).roc_auc == 1.0


NIGHTS = ["2013-07-01", "2013-07-02", "2013-07-03", "2013-07-04"]


def test_labels_arrive_overdue_or_are_not_due() -> None:
    found = arrived_labels({"2013-07-01", "2013-06-30"}, NIGHTS, as_of="2013-07-04", delay_days=2)
    assert found == LabelArrival(("2013-07-01",), ("2013-07-02",), ("2013-07-03", "2013-07-04"))
    assert found.reason == "labels of 1 partition are overdue: 2013-07-02"


def test_a_backfill_does_not_see_labels_of_the_future() -> None:
    found = arrived_labels(set(NIGHTS), NIGHTS, as_of="2013-07-03", delay_days=2)
    assert found.arrived == ("2013-07-01",)
    assert found.overdue == ()
    assert found.reason == "labels are not due yet for 2013-07-02, 2013-07-03, 2013-07-04"


def test_all_labels_there_need_no_reason() -> None:
    assert arrived_labels(set(NIGHTS), NIGHTS, as_of="2013-07-04", delay_days=0).reason is None


def test_labels_that_never_come_are_named() -> None:
    found = arrived_labels([], reversed(NIGHTS[:3]), as_of="2013-07-30", delay_days=2)
    assert found.reason == "labels of 3 partitions are overdue: 2013-07-01, 2013-07-02, 2013-07-03"


@given(st.sets(st.sampled_from(NIGHTS)), st.sets(st.sampled_from(NIGHTS)), st.sampled_from(NIGHTS), st.integers(0, 4))
def test_every_wanted_partition_is_sorted_once(
    existing: set[str], wanted: set[str], as_of: str, delay_days: int
) -> None:
    found = arrived_labels(existing, wanted, as_of=as_of, delay_days=delay_days)
    assert sorted(found.arrived + found.overdue + found.not_due) == sorted(wanted)
    assert set(found.arrived) <= existing
    assert not set(found.overdue) & existing
