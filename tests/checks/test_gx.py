"""Great Expectations on Arrow tables: types, nulls and NaN, absent columns, empty tables; DuckDB is the oracle."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from scoring.checks import catalogue
from scoring.checks.report import ExpectationResult, QualityReport, Severity, Verdict
from scoring.checks.suite import Expectation, Suite
from scoring.errors import MAX_EXAMPLE_CHARS, MAX_EXAMPLES, ConfigurationError

Check = Callable[..., ExpectationResult]
Run = Callable[[Suite, pa.Table], QualityReport]
BETWEEN = "expect_column_values_to_be_between"
NOT_NULL = "expect_column_values_to_not_be_null"
IN_SET = "expect_column_values_to_be_in_set"
UNIQUE = "expect_column_values_to_be_unique"
OF_TYPE = "expect_column_values_to_be_of_type"
BEYOND_FLOAT = 2**60 + 1
at = datetime.fromisoformat


def generated(seed: int, rows: int = 2_000) -> pa.Table:
    """Return columns with nulls, NaN, infinities and repeated values."""
    rng = np.random.default_rng(seed)

    def nulls() -> np.ndarray:
        return rng.random(rows) < 0.1

    score = rng.normal(0.5, 0.4, rows)
    score[rng.random(rows) < 0.05] = np.nan
    score[rng.random(rows) < 0.02] = np.inf
    departure = np.datetime64("2013-01-01", "us") + rng.integers(0, 10 * 86_400, rows).astype("timedelta64[s]")
    return pa.table(
        {
            "score": pa.array(score, mask=nulls()),
            "small": pa.array(rng.integers(-5, 20, rows).astype("int16"), mask=nulls()),
            "large": pa.array(rng.integers(0, 10, rows) + 2**60, mask=nulls()),
            "whole": pa.array(rng.integers(0, 10, rows)),
            "carrier": pa.array(rng.choice(["AA", "UA", "DL", ""], rows), mask=nulls()),
            "departure": pa.array(departure, mask=nulls()),
            "day": pa.array(departure.astype("datetime64[D]"), mask=nulls()),
            "late": pa.array(rng.random(rows) < 0.5, mask=nulls()),
        }
    )


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("expectation", "kwargs", "unexpected", "counting"),
    [
        (NOT_NULL, {"column": "score"}, "score is null or isnan(score)", "true"),
        (NOT_NULL, {"column": "large"}, "large is null", "true"),
        (NOT_NULL, {"column": "carrier"}, "carrier is null", "true"),
        (
            BETWEEN,
            {"column": "score", "min_value": 0, "max_value": 1},
            "not score between 0 and 1 and not isnan(score)",
            "not isnan(score)",
        ),
        (BETWEEN, {"column": "small", "min_value": 0, "strict_min": True}, "small <= 0", "small is not null"),
        (BETWEEN, {"column": "large", "min_value": 0, "max_value": 2**60}, f"large > {2**60}", "large is not null"),
        (
            BETWEEN,
            {"column": "departure", "min_value": date(2013, 1, 3), "max_value": "2013-01-08T12:00:00"},
            "departure not between '2013-01-03' and '2013-01-08 12:00:00'",
            "departure is not null",
        ),
        (BETWEEN, {"column": "day", "max_value": date(2013, 1, 8)}, "day > '2013-01-08'", "day is not null"),
        (IN_SET, {"column": "carrier", "value_set": ["AA", ""]}, "carrier not in ('AA', '')", "carrier is not null"),
        (IN_SET, {"column": "late", "value_set": [True]}, "not late", "late is not null"),
        (IN_SET, {"column": "day", "value_set": ["2013-01-02"]}, "day <> '2013-01-02'", "day is not null"),
        (
            "expect_column_value_lengths_to_equal",
            {"column": "carrier", "value": 2},
            "length(carrier) <> 2",
            "carrier is not null",
        ),
        (
            "expect_column_pair_values_a_to_be_greater_than_b",
            {"column_A": "small", "column_B": "whole", "ignore_row_if": "either_value_is_missing"},
            "small <= whole",
            "small is not null",
        ),
        (
            BETWEEN,
            {"column": "small", "min_value": 0, "row_condition": "whole > 4", "condition_parser": "pandas"},
            "small < 0 and whole > 4",
            "small is not null and whole > 4",
        ),
    ],
)
def test_counts_agree_with_duckdb(
    check: Check, *, expectation: str, kwargs: dict[str, object], unexpected: str, counting: str, seed: int
) -> None:
    table = generated(seed)
    query = f"select count(*) filter ({unexpected}), count(*) filter ({counting}) from flights"
    wanted, looked_at = duckdb.from_arrow(table).query("flights", query).fetchall()[0]
    assert 0 < wanted < looked_at
    result = check(table, expectation, **kwargs)
    assert (result.passed, result.unexpected_count) == (False, wanted)
    assert result.unexpected_share == pytest.approx(wanted / looked_at)
    assert check(table, expectation, **kwargs, mostly=1 - wanted / looked_at - 0.001).passed
    assert not check(table, expectation, **kwargs, mostly=1 - wanted / looked_at + 0.001).passed


@pytest.mark.parametrize(
    ("aggregate", "sql", "column"),
    [
        ("mean", "avg(small)", "small"),
        ("min", "min(small)", "small"),
        ("max", "max(large)", "large"),
        ("sum", "sum(whole)", "whole"),
        ("median", "median(small)", "small"),
        ("stdev", "stddev_samp(small)", "small"),
        ("unique_value_count", "count(distinct carrier)", "carrier"),
    ],
)
def test_aggregates_agree_with_duckdb(check: Check, aggregate: str, sql: str, column: str) -> None:
    table = generated(3)
    value = duckdb.from_arrow(table).query("flights", f"select {sql} from flights").fetchall()[0][0]
    name = f"expect_column_{aggregate}_to_be_between"
    margin = 1 if aggregate == "unique_value_count" else abs(float(value)) / 1_000
    around = {"min_value": value - margin, "max_value": value + margin}
    passed = check(table, name, column=column, **around)
    assert passed.passed
    assert float(passed.observed) == pytest.approx(float(value))
    assert not check(table, name, column=column, min_value=value + margin).passed


@pytest.mark.parametrize("nulls", [False, True])
@pytest.mark.parametrize(
    ("array", "type_", "other"),
    [
        (pa.array([1, 2], pa.int64()), "int64", "float64"),
        (pa.array([1, 2], pa.int16()), "int16", "int64"),
        (pa.array([1, 2], pa.uint32()), "uint32", "int64"),
        (pa.array([1, BEYOND_FLOAT]), "int64", "float64"),
        (pa.array([0.5, 1.5], pa.float32()), "float32", "float64"),
        (pa.array([0.5, 1.5]), "float64", "int64"),
        (pa.array([True, False]), "bool", "int64"),
        (pa.array(["a", "b"]), "str", "int64"),
        (pa.array(["a", "b"]).dictionary_encode(), "str", "int64"),
        (pa.array([at("2013-01-01")], pa.timestamp("us")), "datetime64", "str"),
    ],
)
def test_types_do_not_depend_on_nulls(check: Check, array: pa.Array, type_: str, other: str, nulls: bool) -> None:
    if nulls:
        array = pa.concat_arrays([array, pa.nulls(1, array.type)])
    table = pa.table({"value": array})
    assert check(table, OF_TYPE, column="value", type_=type_).passed
    assert not check(table, OF_TYPE, column="value", type_=other).passed


def test_integers_stay_exact_beside_nulls(check: Check) -> None:
    table = pa.table({"id": pa.array([BEYOND_FLOAT, BEYOND_FLOAT + 1, None])})
    assert check(table, UNIQUE, column="id").passed
    result = check(table, IN_SET, column="id", value_set=[BEYOND_FLOAT])
    assert result.examples == (str(BEYOND_FLOAT + 1),)


def test_integers_beside_nulls_compare_with_other_columns(check: Check) -> None:
    table = pa.table({"a": pa.array([1, None, 3]), "b": pa.array([1.0, 2.0, None])})
    result = check(table, "expect_column_pair_values_to_be_equal", column_A="a", column_B="b")
    assert (result.passed, result.unexpected_count, result.examples) == (False, 2, ("(null, 2)", "(3, null)"))
    assert result.column == "a, b"


@pytest.mark.parametrize(
    ("bound", "unexpected"),
    [
        (date(2013, 1, 2), 1),
        (at("2013-01-02"), 1),
        ("2013-01-02", 1),
        (at("2013-01-02T10:00"), 2),
        ("2013-01-02T10:00:00+01:00", 1),
        (at("2013-01-02T09:30Z"), 2),
    ],
)
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_bounds_of_timestamps_are_utc(
    check: Check, bound: object, unexpected: int, zone: str | None, unit: str
) -> None:
    moments = [at("2013-01-01"), at("2013-01-02T09:00"), None, at("2013-01-03")]
    table = pa.table(
        {"moment": pa.array(moments, pa.timestamp("us")).cast(pa.timestamp(unit)).cast(pa.timestamp(unit, zone))}
    )
    assert check(table, BETWEEN, column="moment", min_value=bound).unexpected_count == unexpected
    assert check(table, "expect_column_max_to_be_between", column="moment", min_value=bound).passed


def test_timestamps_beyond_nanoseconds_are_not_lost(check: Check) -> None:
    table = pa.table({"until": pa.array([at("2013-01-01"), at("9999-12-31")], pa.timestamp("us"))})
    result = check(table, BETWEEN, column="until", max_value=date(2100, 1, 1))
    assert (result.unexpected_count, result.examples) == (1, ("9999-12-31 00:00:00",))


def test_decimals_compare_with_numbers(check: Check) -> None:
    table = pa.table({"fare": pa.array([Decimal("1.10"), None, Decimal("9.90")])})
    assert check(table, BETWEEN, column="fare", min_value=1, max_value=5).examples == ("9.90",)


def test_examples_are_different_bounded_and_readable(check: Check) -> None:
    names = ["<script>", "<script>", "x" * 100, "", "a'b", *"cdefgh"]
    result = check(pa.table({"name": names}), IN_SET, column="name", value_set=["ok"])
    assert result.unexpected_count == len(names)
    assert result.examples[0] == "'<script>'"
    assert len(set(result.examples)) == len(result.examples) == MAX_EXAMPLES
    assert max(map(len, result.examples)) == MAX_EXAMPLE_CHARS


@pytest.mark.parametrize("severity", list(Severity))
@pytest.mark.parametrize(
    ("expectation", "kwargs", "reason"),
    [
        (NOT_NULL, {"column": "scor"}, r"the table has no column 'scor'\. Did you mean 'score'\?"),
        (NOT_NULL, {"column": "scor", "mostly": 0}, r"the table has no column 'scor'"),
        ("expect_compound_columns_to_be_unique", {"column_list": ["score", "x", "y"]}, r"no column 'x', 'y'"),
        (
            "expect_column_mean_to_be_between",
            {"column": "name", "min_value": 0},
            r"column 'name' holds text, not numbers",
        ),
        (BETWEEN, {"column": "name", "min_value": 0}, r"must either be None or of the same type"),
        (BETWEEN, {"column": "score", "min_value": 0, "row_condition": "gone > 1"}, r"name 'gone' is not defined"),
    ],
)
def test_what_cannot_be_checked_has_failed(
    check: Check, expectation: str, kwargs: dict[str, object], reason: str, severity: Severity
) -> None:
    table = pa.table({"score": [0.5, 0.7], "name": ["1", "2"]})
    result = check(table, expectation, severity, **kwargs)
    assert (result.passed, result.severity, result.blocks) == (False, severity, severity is Severity.CRITICAL)
    assert re.match(rf"could not be checked: .*{reason}", result.observed)


@pytest.mark.parametrize("rows", [0, 3])
@pytest.mark.parametrize(
    ("expectation", "kwargs", "passed", "observed"),
    [
        (BETWEEN, {"min_value": 0}, True, {0: "no rows to look at", 3: "no values to look at: 3 rows, all null"}),
        (UNIQUE, {}, True, {0: "no rows to look at", 3: "no values to look at: 3 rows, all null"}),
        ("expect_column_mean_to_be_between", {"min_value": 0}, False, {0: "no value to compare"}),
        ("expect_column_max_to_be_between", {"max_value": 9}, False, {3: "no value to compare"}),
        ("expect_column_sum_to_be_between", {"min_value": 0}, True, {0: "0"}),
        ("expect_column_unique_value_count_to_be_between", {"min_value": 1}, False, {0: "0"}),
    ],
)
@pytest.mark.parametrize("type_", [pa.float64(), pa.int32()])
def test_columns_without_values(
    check: Check,
    *,
    expectation: str,
    kwargs: dict[str, object],
    passed: bool,
    observed: dict[int, str],
    rows: int,
    type_: pa.DataType,
) -> None:
    result = check(pa.table({"score": pa.nulls(rows, type_)}), expectation, column="score", **kwargs)
    assert result.passed is passed
    assert result.observed == observed.get(rows, result.observed)
    assert result.unexpected_share is None


def test_nulls_only_are_found(run_suite: Run) -> None:
    table = pa.table({"score": pa.nulls(3, pa.float64())})
    suite = Suite("output", Path("suite.yaml"), (Expectation(NOT_NULL, {"column": "score"}),))
    report = run_suite(suite, table)
    assert report.blocks
    assert report.results[0].observed == "3 of 3 rows unexpected (100%)"
    assert report.results[0].examples == ("null",)


def test_a_table_without_columns_has_rows(check: Check) -> None:
    table = pa.table({"a": [1, 2, 3]}).select([])
    assert check(table, "expect_table_row_count_to_equal", value=3).passed


@pytest.mark.parametrize(
    ("expectation", "kwargs", "observed"),
    [
        ("expect_column_to_exist", {"column": "c"}, "not found"),
        (
            "expect_table_columns_to_match_set",
            {"column_set": ["a", "c"]},
            "missing columns 'c'; unexpected columns 'b'",
        ),
        (
            "expect_table_columns_to_match_ordered_list",
            {"column_list": ["a"]},
            "column 2 is 'b', expected 'none'",
        ),
        ("expect_table_column_count_to_equal", {"value": 3}, "2"),
    ],
)
def test_expectations_about_columns(check: Check, expectation: str, kwargs: dict[str, object], observed: str) -> None:
    result = check(pa.table({"a": [1], "b": [2]}), expectation, **kwargs)
    assert (result.passed, result.observed) == (False, observed)


def test_distinct_values_are_told(check: Check) -> None:
    table = pa.table({"carrier": ["AA", "ZZ", "AA", None]})
    name = "expect_column_distinct_values_to_equal_set"
    result = check(table, name, column="carrier", value_set=["AA", "UA"])
    assert result.observed == "1 distinct value unexpected; 1 expected value not seen: 'UA'"
    assert (result.unexpected_count, result.unexpected_share, result.examples) == (1, None, ("'ZZ'",))


def test_expected_is_a_sentence(check: Check) -> None:
    table = pa.table({"score": [0.5]})
    result = check(table, BETWEEN, column="score", min_value=0, mostly=0.95, row_condition="score > 0")
    assert result.expected == (
        "If score > 0, then score values must be greater than or equal to 0, at least 95 % of the time"
    )
    ranges = {"quantiles": [0.5], "value_ranges": [[0, None]]}
    result = check(table, "expect_column_quantile_values_to_be_between", column="score", quantile_ranges=ranges)
    assert (result.passed, result.observed) == (True, "quantile 0.5: 0.5")
    assert "value_ranges: ((0, null))" in result.expected


def test_results_keep_the_order_of_the_suite_even_for_equal_expectations(run_suite: Run) -> None:
    failing, passing = {"column": "a", "min_value": 5}, {"column": "a", "min_value": 0}
    expectations = tuple(
        Expectation(BETWEEN, kwargs, severity, description=f"number {number}.")
        for number, (kwargs, severity) in enumerate(
            [
                (failing, Severity.WARNING),
                ({"column": "gone", "min_value": 0}, Severity.WARNING),
                (passing, Severity.CRITICAL),
                (failing, Severity.WARNING),
            ]
        )
    )
    report = run_suite(Suite("output", Path("suite.yaml"), expectations), pa.table({"a": [1, 2]}))
    assert [result.passed for result in report.results] == [False, False, True, False]
    assert [result.expected.split(" (")[0] for result in report.results] == [f"number {n}" for n in range(4)]
    assert report.verdict is Verdict.WARNING
    assert report.rows == 2


def test_arguments_that_great_expectations_refuses_are_errors(check: Check) -> None:
    with pytest.raises(ConfigurationError, match=rf"suite\.yaml: expectation 1, {BETWEEN}, is not valid: .*min_value"):
        check(pa.table({"score": [0.5]}), BETWEEN, column="score", min_value="low")


def test_great_expectations_knows_every_type_of_the_catalogue() -> None:
    from great_expectations.expectations.registry import list_registered_expectation_implementations

    registered = set(list_registered_expectation_implementations())
    assert set(catalogue.names()) <= registered
    assert {BETWEEN, NOT_NULL, IN_SET, UNIQUE, OF_TYPE} <= set(catalogue.names())


def test_nothing_is_printed_and_no_file_is_left(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    check(pa.table({"score": [0.5] * 1_000}), BETWEEN, column="score", min_value=0)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
