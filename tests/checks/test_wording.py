"""Values and counts in words."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from scoring.checks.wording import counted, cut, observed_text, share_text, value_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (float("nan"), "null"),
        (pd.NA, "null"),
        (pd.NaT, "null"),
        (float("inf"), "inf"),
        (np.float64(4.0), "4"),
        (np.int64(2**60 + 1), str(2**60 + 1)),
        (np.bool_(True), "True"),
        (0.1, "0.1"),
        ("", "''"),
        ("1", "'1'"),
        (1, "1"),
        (date(2013, 1, 2), "2013-01-02"),
        (pd.Timestamp("2013-01-02 10:00"), "2013-01-02 10:00:00"),
        (np.datetime64("2013-01-02T10:00", "ns"), "2013-01-02 10:00:00"),
        ((1, None), "(1, null)"),
        (np.array([1.0, np.nan]), "(1, null)"),
        ({"a": "x", "b": 1.5}, "{a: 'x', b: 1.5}"),
        ("x" * 100, "'" + "x" * 38 + "…"),
    ],
)
def test_values(value: object, text: str) -> None:
    assert value_text(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0%"), (1, "100%"), (0.5, "50%"), (1 / 3, "33.33%"), (1e-9, "< 0.01%"), (1 - 1e-9, "> 99.99%"), (0.1, "10%")],
)
def test_shares_never_pretend(share: float, text: str) -> None:
    assert share_text(share) == text


def test_counts_and_cuts() -> None:
    assert (counted(1, "row"), counted(0, "row"), counted(1_000, "row")) == ("1 row", "0 rows", "1,000 rows")
    assert cut("abcdef", 4) == "abc…"
    assert cut("abcd", 4) == "abcd"


def test_long_lists_are_bounded() -> None:
    name = "expect_column_distinct_values_to_contain_set"
    result = {"observed_value": None, "missing_count": 250, "partial_missing_list": list(range(20))}
    assert observed_text(name, result) == "250 expected values not seen: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 240 more"
    assert observed_text(name, {"observed_value": ["AA", "UA"]}) == "'AA', 'UA'"
