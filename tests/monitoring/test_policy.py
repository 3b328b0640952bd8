from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.deployment import Drift, Retrain, RetrainCause
from scoring.monitoring.policy import PastNight, decide
from scoring.monitoring.report import (
    ColumnDrift,
    ColumnKind,
    Decision,
    DecisionKind,
    DriftMethod,
    DriftReport,
    Performance,
)

TONIGHT = date(2013, 7, 4)
RETRAIN = Retrain(train="train:train", cooldown_days=14)
ORDER = list(DecisionKind)


def report(drifted: int, columns: int = 14, skipped: str | None = None) -> DriftReport:
    compared = tuple(
        ColumnDrift(f"c{n}", ColumnKind.NUMERIC, DriftMethod.WASSERSTEIN, 0.2 * (n < drifted), 0.1, n < drifted)
        for n in range(columns)
    )
    return DriftReport(
        deployment="flights",
        partition=str(TONIGHT),
        reference_first="2013-01-01",
        reference_last="2013-03-31",
        current_first="2013-06-28",
        current_last=str(TONIGHT),
        reference_rows=5000,
        current_rows=5000,
        columns=() if skipped else compared,
        skipped=skipped,
    )


def measured(roc_auc: float | None, baseline: float | None = 0.74, skipped: str | None = None) -> Performance:
    return Performance(5000, "2013-06-26", "2013-07-02", roc_auc, 0.5, baseline, skipped)


def night(back: int, share: float | None = None, roc_auc: float | None = None) -> PastNight:
    return PastNight(TONIGHT - timedelta(days=back), share, roc_auc, 0.74 if roc_auc is not None else None)


Decide = Callable[..., Decision]


@pytest.fixture
def decided(drift: Callable[..., Drift]) -> Decide:
    def call(drifted: int, *history: PastNight, performance: Performance | None = None, **settings: Any) -> Decision:
        known: dict[str, Any] = {"retrain": RETRAIN, "last_retraining": None, "is_backfill": False, **settings}
        limits = drift(**known.pop("drift", {}))
        found = known.pop("report", report(drifted))
        return decide(found, performance, history, drift=limits, partition=TONIGHT, **known)

    return call


def test_calm_nights_have_numbers_too(decided: Decide) -> None:
    assert decided(2) == Decision(DecisionKind.NONE, ("2 of 14 columns drifted (14 %, limit 30 %)",))
    assert decided(0, performance=measured(0.75)) == Decision(
        DecisionKind.NONE,
        (
            "0 of 14 columns drifted (0 %, limit 30 %)",
            "ROC-AUC 0.750 is 0.010 above the 0.740 of the hold-out nights (allowed drop 0.05)",
        ),
    )


def test_the_first_drifted_night_notifies(decided: Decide) -> None:
    assert decided(5, night(1, 0.1)) == Decision(
        DecisionKind.NOTIFY,
        (
            "5 of 14 columns drifted (36 %, limit 30 %), for the first night",
            "retraining starts after 2 nights in a row",
        ),
    )


def test_the_second_drifted_night_retrains(decided: Decide) -> None:
    assert decided(5, night(1, 0.4)) == Decision(
        DecisionKind.RETRAIN, ("5 of 14 columns drifted (36 %, limit 30 %), for 2 nights in a row",)
    )


def test_a_share_on_the_limit_counts(decided: Decide) -> None:
    assert decided(3, report=report(3, columns=10)).kind is DecisionKind.NOTIFY


def test_retrain_after_one_night(decided: Decide) -> None:
    assert decided(5, drift={"retrain_after": 1}).kind is DecisionKind.RETRAIN


def test_lost_performance_retrains(decided: Decide) -> None:
    history = [night(1, 0.1, 0.68), night(2, 0.1, 0.69), night(3, 0.1, 0.7)]
    assert decided(1, *history, performance=measured(0.681)) == Decision(
        DecisionKind.RETRAIN,
        (
            "1 of 14 columns drifted (7 %, limit 30 %)",
            "ROC-AUC 0.681 is 0.059 below the 0.740 of the hold-out nights (allowed drop 0.05), for 2 nights in a row",
        ),
    )


def test_two_causes_of_one_night_each_are_not_two_nights(decided: Decide) -> None:
    decision = decided(5, night(1, 0.1, 0.6), performance=measured(0.74))
    assert decision.kind is DecisionKind.NOTIFY
    assert decision.reasons[-1] == "retraining starts after 2 nights in a row"


@pytest.mark.parametrize(
    ("settings", "obstacle"),
    [
        ({"retrain": None}, "no retraining: the deployment has no 'retrain'"),
        (
            {"retrain": Retrain(train="train:train", when=(RetrainCause.PERFORMANCE,))},
            "no retraining: 'retrain: when' does not name drift",
        ),
        ({"is_backfill": True}, "no retraining: a backfill starts none"),
        (
            {"last_retraining": date(2013, 6, 20)},
            "no retraining before 2013-07-05: the last one was started by 2013-06-20, and the cooldown is 14 days",
        ),
        (
            {
                "last_retraining": date(2013, 7, 3),
                "retrain": Retrain(train="train:train", cooldown_days=1),
            },
            "no retraining before 2013-07-05: the last one was started by 2013-07-03, and the cooldown is 1 day",
        ),
        ({"drift": {"retrain_after": 4}}, "retraining starts after 4 nights in a row"),
    ],
)
def test_what_keeps_a_drifted_night_from_retraining(decided: Decide, settings: Any, obstacle: str) -> None:
    decision = decided(5, night(1, 0.4), night(2, 0.4), **settings)
    assert decision.kind is DecisionKind.NOTIFY
    assert decision.reasons[0].startswith("5 of 14 columns drifted (36 %, limit 30 %), for ")
    assert decision.reasons[-1] == obstacle


def test_the_first_night_after_the_cooldown_retrains(decided: Decide) -> None:
    history = [night(back, 0.5) for back in range(1, 30)]
    decision = decided(5, *history, last_retraining=TONIGHT - timedelta(days=15))
    assert decision == Decision(
        DecisionKind.RETRAIN, ("5 of 14 columns drifted (36 %, limit 30 %), for 15 nights in a row",)
    )


def test_a_night_run_again_does_not_retrain_again(decided: Decide) -> None:
    eager = Retrain(train="train:train", cooldown_days=0)
    assert decided(5, night(1, 0.5), retrain=eager, last_retraining=TONIGHT).kind is DecisionKind.NOTIFY


def test_nights_before_the_last_retraining_do_not_count_again(decided: Decide) -> None:
    eager = Retrain(train="train:train", cooldown_days=0)
    history = [night(1, 0.5), night(2, 0.5)]
    assert decided(5, *history, retrain=eager, last_retraining=history[0].partition).kind is DecisionKind.NOTIFY
    assert decided(5, *history, retrain=eager, last_retraining=history[1].partition).kind is DecisionKind.RETRAIN


@pytest.mark.parametrize(
    ("history", "kind"),
    [
        ([night(7, 0.5)], DecisionKind.RETRAIN),
        ([night(8, 0.5)], DecisionKind.NOTIFY),
        ([night(1), night(2, 0.5)], DecisionKind.NOTIFY),
        ([night(1, 0.2), night(2, 0.5)], DecisionKind.NOTIFY),
        ([night(0, 0.5), night(-1, 0.5)], DecisionKind.NOTIFY),
    ],
    ids=["a week apart", "more than a week apart", "a night without value", "a calm night", "tonight and the future"],
)
def test_what_nights_in_a_row_are(decided: Decide, history: list[PastNight], kind: DecisionKind) -> None:
    assert decided(5, *history).kind is kind


def test_skipped_measures_are_reasons(decided: Decide) -> None:
    decision = decided(
        0,
        night(1, 0.9),
        report=report(0, skipped="the current window has 12 rows, expected at least 500"),
        performance=measured(None, skipped="labels of 3 partitions are overdue: 2013-06-30, 2013-07-01, 2013-07-02"),
    )
    assert decision == Decision(
        DecisionKind.NONE,
        (
            "drift was not computed: the current window has 12 rows, expected at least 500",
            "performance was not measured: labels of 3 partitions are overdue: 2013-06-30, 2013-07-01, 2013-07-02",
        ),
    )


def test_performance_without_baseline_decides_nothing(decided: Decide) -> None:
    decision = decided(0, performance=measured(0.2, baseline=None))
    assert decision.kind is DecisionKind.NONE
    assert decision.reasons[-1] == "ROC-AUC 0.200, with no hold-out value to compare it with"


DATES = st.integers(1, 40).map(lambda back: TONIGHT - timedelta(days=back))
SHARES = st.none() | st.floats(0, 1)
HISTORY = st.lists(
    st.builds(PastNight, partition=DATES, share_of_drifted_columns=SHARES, roc_auc=SHARES, baseline_roc_auc=SHARES),
    max_size=12,
)
SITUATION = st.fixed_dictionaries(
    {
        "report": st.integers(0, 14).map(report) | st.just(report(0, skipped="too few rows")),
        "performance": st.none() | st.builds(measured, SHARES, SHARES),
        "history": HISTORY,
        "drift": st.builds(
            Drift,
            reference=st.just({"first": "2013-01-01", "last": "2013-03-31"}),
            drift_share_threshold=st.floats(0.01, 1),
            retrain_after=st.integers(1, 4),
        ),
        "retrain": st.builds(
            Retrain,
            train=st.just("train:train"),
            when=st.sets(st.sampled_from(RetrainCause)).map(tuple),
            cooldown_days=st.integers(0, 30),
        ),
        "last_retraining": st.none() | DATES,
        "is_backfill": st.booleans(),
    }
)


def outcome(situation: dict[str, Any], **changed: Any) -> Decision:
    facts = {**situation, **changed}
    return decide(facts.pop("report"), facts.pop("performance"), facts.pop("history"), partition=TONIGHT, **facts)


@given(SITUATION)
def test_every_decision_has_reasons(situation: dict[str, Any]) -> None:
    decision = outcome(situation)
    assert decision.reasons
    assert all(decision.reasons)


@given(SITUATION)
def test_a_backfill_never_retrains(situation: dict[str, Any]) -> None:
    assert outcome(situation, is_backfill=True).kind is not DecisionKind.RETRAIN


@given(SITUATION, st.integers(-5, 30))
def test_nothing_retrains_within_the_cooldown(situation: dict[str, Any], days: int) -> None:
    retrain = situation["retrain"]
    last = TONIGHT - timedelta(days=min(days, retrain.cooldown_days))
    assert outcome(situation, last_retraining=last).kind is not DecisionKind.RETRAIN


@given(SITUATION)
def test_without_retrain_nothing_retrains(situation: dict[str, Any]) -> None:
    assert outcome(situation, retrain=None).kind is not DecisionKind.RETRAIN


@given(SITUATION, st.integers(0, 14), st.integers(0, 14))
def test_more_drift_never_leads_to_less(situation: dict[str, Any], one: int, other: int) -> None:
    less, more = (outcome(situation, report=report(drifted)).kind for drifted in sorted((one, other)))
    assert ORDER.index(less) <= ORDER.index(more)


@given(SITUATION, st.floats(0, 1), st.floats(0, 1))
def test_worse_performance_never_leads_to_less(situation: dict[str, Any], one: float, other: float) -> None:
    worse, better = (outcome(situation, performance=measured(roc_auc)).kind for roc_auc in sorted((one, other)))
    assert ORDER.index(better) <= ORDER.index(worse)


@given(SITUATION)
def test_the_order_of_history_does_not_matter(situation: dict[str, Any]) -> None:
    nights = list({night.partition: night for night in situation["history"]}.values())
    assert outcome(situation, history=nights) == outcome(situation, history=nights[::-1])
