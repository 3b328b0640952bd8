from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from scoring.checks.report import Verdict
from scoring.monitoring.report import DecisionKind
from scoring.notify.night import Night, Occasion, occasions, worth_telling


def test_quiet_good_night_is_not_worth_a_mail(night: Callable[..., Night]) -> None:
    quiet = night(
        rows=1000, quarantined=0, checks=Verdict.PASSED, share_of_drifted_columns=0.1, max_quarantined_share=0.01
    )
    assert not worth_telling(quiet)


def test_a_slow_night_alone_is_the_operators_affair(night: Callable[..., Night]) -> None:
    assert not worth_telling(night(rows=1000, warnings=("scored 2 rows/s, less than half of the median",)))


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"is_published": False}, [Occasion.FAILED]),
        ({"is_published": False, "checks": Verdict.WARNING, "error": "Spark died."}, [Occasion.FAILED]),
        ({"is_published": False, "checks": Verdict.FAILED}, [Occasion.HELD_BACK]),
        ({"error": "the drift report failed."}, [Occasion.INCOMPLETE]),
        ({"decision": DecisionKind.RETRAIN}, [Occasion.RETRAIN]),
        ({"decision": DecisionKind.NOTIFY}, [Occasion.NOTIFY]),
        ({"checks": Verdict.WARNING}, [Occasion.CHECK_WARNING]),
        (
            {"checks": Verdict.WARNING, "decision": DecisionKind.NOTIFY, "error": "no chart."},
            [Occasion.INCOMPLETE, Occasion.NOTIFY, Occasion.CHECK_WARNING],
        ),
    ],
)
def test_what_is_told_most_pressing_first(
    night: Callable[..., Night], facts: dict[str, Any], told: list[Occasion]
) -> None:
    assert list(occasions(night(**facts))) == told


@pytest.mark.parametrize(
    ("quarantined", "limit", "is_told"),
    [(24, 0.05, False), (25, 0.05, True), (50, 0.05, True), (0, 0.0, False), (1, 0.0, True), (0, 0.05, False)],
)
def test_quarantined_rows_are_told_from_half_of_their_limit(
    night: Callable[..., Night], quarantined: int, limit: float, is_told: bool
) -> None:
    found = night(rows=1000 - quarantined, quarantined=quarantined, max_quarantined_share=limit)
    assert worth_telling(found) == is_told
