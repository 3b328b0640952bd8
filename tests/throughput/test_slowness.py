"""When a run is called slow, and what is named as the reason: numbers that anybody can work out by hand."""

from __future__ import annotations

from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.throughput.report import PARTS, Totals
from scoring.throughput.slowness import MAX_RUNS, MIN_RUNS, slow_against, usual_of
from tests.throughput.made import totals

USUAL = [totals() for _ in range(10)]
"""10,000 rows/s each."""


def warning(now: Totals, earlier: list[Totals]) -> str | None:
    return slow_against(now, usual_of(now, earlier))


def test_a_slow_run_is_told_with_numbers_and_the_part_that_grew() -> None:
    now = totals(seconds=400.0, read_s=320.0)
    assert warning(now, USUAL) == (
        "scored 2,500 rows/s, less than half of the median of the last 10 runs like it (10,000 rows/s), "
        "in 6 min 40 s instead of 1 min 40 s: reading took 5 min 20 s of work (usually 20 s)"
    )


@pytest.mark.parametrize(("seconds", "is_slow"), [(199.9, False), (200.0, False), (200.1, True)])
def test_half_of_the_median_is_the_limit(seconds: float, is_slow: bool) -> None:
    assert (warning(totals(seconds=seconds), USUAL) is not None) == is_slow


@pytest.mark.parametrize(("runs", "is_slow"), [(0, False), (MIN_RUNS - 1, False), (MIN_RUNS, True)])
def test_too_few_runs_say_nothing(runs: int, is_slow: bool) -> None:
    assert (warning(totals(seconds=1000.0), USUAL[:runs]) is not None) == is_slow


@pytest.mark.parametrize(
    ("facts", "is_like"),
    [
        ({"rows": 500_000}, True),
        ({"rows": 499_999}, False),
        ({"rows": 2_000_000}, True),
        ({"rows": 2_000_001}, False),
        ({"rows": 0}, False),
        ({"splits_resumed": 1, "rows_resumed": 10}, False),
        ({"seconds": 0.0}, False),
    ],
)
def test_only_whole_runs_with_about_as_many_rows_are_compared(facts: dict[str, Any], is_like: bool) -> None:
    found = usual_of(totals(), [totals(**facts)] * 5)
    assert (found is not None) == is_like


def test_a_run_that_went_on_after_a_kill_is_not_judged() -> None:
    assert warning(totals(seconds=5000.0, splits_resumed=7, rows_resumed=900_000), USUAL) is None
    assert warning(totals(splits_resumed=8, rows_resumed=1_000_000), USUAL) is None


def test_only_the_newest_runs_count() -> None:
    fast, slow = totals(seconds=10.0), totals(seconds=100.0)
    found = usual_of(totals(), [slow] * MAX_RUNS + [fast] * 100)
    assert found is not None
    assert (found.runs, found.rows_per_s) == (MAX_RUNS, 10_000.0)


@given(st.lists(st.floats(1, 1e5), min_size=MIN_RUNS, max_size=20), st.floats(1, 1e6))
def test_the_rule_is_that_of_the_median(times: list[float], took: float) -> None:
    earlier = [totals(seconds=time) for time in times]
    speeds = [1_000_000 / time for time in times[:MAX_RUNS]]
    is_slow = 1_000_000 / took < 0.5 * median(speeds)
    found = warning(totals(seconds=took), earlier)
    assert (found is not None) == is_slow
    assert "\n" not in (found or "")


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"read_s": 320.0}, "reading took 5 min 20 s of work (usually 20 s)"),
        ({"predict_s": 900.0}, "predicting took 15 min 0 s of work (usually 2 min 30 s)"),
        ({"write_s": 400.0}, "writing took 6 min 40 s of work (usually 10 s)"),
        ({"load_s": 300.0}, "loading models took 5 min 0 s of work (usually 2 s)"),
        (
            {"read_s": 420.0, "write_s": 510.0},
            "writing took 8 min 30 s of work (usually 10 s) and reading took 7 min 0 s of work (usually 20 s)",
        ),
        # A part that grew tenfold and hardly matters is not named.
        ({"predict_s": 900.0, "load_s": 20.0}, "predicting took 15 min 0 s of work (usually 2 min 30 s)"),
        ({"workers": 1}, "1 worker did the work (usually 8)"),
        ({"skew": 9.0}, "the longest split took 9.0 times as long as the median one (usually 1.2)"),
        ({"wall_s": 900.0}, "splits took longer, but not their reading, predicting and writing"),
        ({}, "its splits took no longer than usual, so tasks waited for free cores"),
        ({"read_s": 25.0, "workers": 3}, "3 workers did the work (usually 8)"),
    ],
)
def test_the_reason_is_what_grew(facts: dict[str, Any], reason: str) -> None:
    now = totals(seconds=500.0, **{"workers": 8, **facts})
    found = warning(now, [totals(workers=8)] * 10)
    assert found is not None
    assert found.split(": ", 1)[1].startswith(reason)


def test_work_is_compared_row_by_row() -> None:
    # Twice the rows take twice the work: that is not why the run was slow.
    more = {name: 2 * getattr(totals(), name) for name in ("rows", *PARTS, "wall_s")}
    found = warning(totals(seconds=900.0, **more), USUAL)
    assert found is not None
    assert found.endswith("so tasks waited for free cores")
