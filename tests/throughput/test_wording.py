from __future__ import annotations

from dataclasses import replace

import pytest

from scoring.throughput.report import Usual
from scoring.throughput.wording import details, duration, rate, size, speed
from tests.throughput.made import totals


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.004, "0 s"),
        (0.042, "0.042 s"),
        (0.5, "0.5 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200.0, "3 min 20 s"),
        (7500.0, "2 h 5 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("rows_per_s", "text"), [(12_345.6, "12,346 rows/s"), (10.0, "10 rows/s"), (2.53, "2.5 rows/s")]
)
def test_rates(rows_per_s: float, text: str) -> None:
    assert rate(rows_per_s) == text


@pytest.mark.parametrize(("mib", "text"), [(812.4, "812 MiB"), (1023.4, "1,023 MiB"), (3277.0, "3.2 GiB")])
def test_sizes(mib: float, text: str) -> None:
    assert size(mib) == text


def test_a_run_in_words() -> None:
    usual = Usual(runs=10, rows_per_s=9_500.0, per_million={}, workers=2.0, skew=1.0)
    assert speed(totals(), None) == "10,000 rows/s in 1 min 40 s"
    assert speed(totals(), usual) == "10,000 rows/s in 1 min 40 s; usually 9,500 rows/s (median of 10 runs like it)"
    assert details(totals(), ("cuda:0", "cuda:1")) == {
        "Work": "reading 20 s, predicting 2 min 30 s, writing 10 s, loading models 2 s (2 loads)",
        "Splits": "8; the longest took 1.2 times as long as the median one",
        "Workers": "2 on cuda:0, cuda:1, each at most 812 MiB",
        "Batches": "at most 131,072 rows",
    }


def test_a_run_that_was_taken_over() -> None:
    part = replace(totals(), splits_resumed=3, rows_resumed=400_000)
    assert "8, 3 of them from an attempt that was killed; the longest" in details(part, ["cpu"])["Splits"]
    assert speed(part, None) == "6,000 rows/s in 1 min 40 s"
    whole = replace(totals(), splits_resumed=8, rows_resumed=1_000_000)
    assert speed(whole, None) == "all of it scored before in 1 min 40 s"
    single = replace(totals(), splits=1, workers=1, model_loads=1)
    assert details(single, ["cpu"])["Splits"] == "1"
    assert details(single, ["cpu"])["Workers"] == "1 on cpu, at most 812 MiB"
