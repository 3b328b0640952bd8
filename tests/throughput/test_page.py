"""The page of a run: whole, escaped, nothing loaded from elsewhere, and small however many splits there are."""

from __future__ import annotations

import re

import pytest

from scoring.throughput.page import SHOWN_SPLITS, render, slices
from tests.throughput.made import report, split

HOSTILE = "<script>alert('x')</script>\" onload=\"y"


def test_it_tells_speed_warnings_and_every_split() -> None:
    found = report(
        (split(0, read_s=3.0, wall_s=4.5), split(1, is_resumed=True)), warnings=("scored 1 row/s", "no GPU was found")
    )
    page = render(found)
    assert "<h1>250 rows/s in 4 s</h1>" in page
    assert re.findall('<p class="warning">(.*?)</p>', page) == ["scored 1 row/s", "no GPU was found"]
    assert re.findall(r"<td>([\d.]+ s)</td>", page)[::6] == ["4.5 s", "2 s"]
    assert "(an earlier attempt)" in page
    assert not re.search("<script|<link|<img|url\\(|https?:", page)


def test_hostile_text_is_shown_not_run() -> None:
    page = render(
        report(
            (split(0, worker=HOSTILE, device=HOSTILE),),
            warnings=(HOSTILE,),
            deployment=HOSTILE,
            partition=HOSTILE,
            conditions=HOSTILE,
        )
    )
    assert "<script" not in page
    assert 'onload="y' not in page
    assert page.count("&lt;script&gt;") == 8


def test_many_splits_make_no_larger_page() -> None:
    some = render(report(tuple(split(number) for number in range(SHOWN_SPLITS))))
    many = render(report(tuple(split(number) for number in range(10_000))))
    assert "the 50 slowest of 10,000" in many
    assert len(many) < 1.1 * len(some)
    assert len(many) < 60_000


def test_a_split_without_any_time_has_no_slices() -> None:
    nothing = dict.fromkeys(("wall_s", "read_s", "predict_s", "write_s"), 0.0)
    assert slices(split(0, **nothing)) == []
    assert "0 s" in render(report((split(0, **nothing),)))


def test_slices_are_shares_of_the_work() -> None:
    found = slices(split(0, read_s=1.0, predict_s=2.0, write_s=1.0))
    assert [(piece.name, piece.percent) for piece in found] == [
        ("reading", pytest.approx(25.0)),
        ("predicting", pytest.approx(50.0)),
        ("writing", pytest.approx(25.0)),
    ]
