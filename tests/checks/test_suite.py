"""Suite files: what is read, and the sentence for everything that can be wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from scoring.checks import catalogue
from scoring.checks.report import Severity
from scoring.checks.suite import Expectation, Suite, load_suite, suites
from scoring.errors import ConfigurationError
from scoring.testing import write_deployment

Load = Callable[[str], Suite]
GOLDEN = Path(__file__).parent / "golden" / "suite.yaml"
BETWEEN = "expect_column_values_to_be_between"


def one(type_: str, kwargs: str, rest: str = "") -> str:
    """Return the text of a suite with one expectation."""
    return f"expectations:\n  - type: {type_}\n    kwargs: {kwargs}\n    {rest}\n"


@pytest.mark.parametrize("declared", [(), ("output",), ("input", "output")])
def test_the_suites_of_a_deployment(tmp_path: Path, declared: tuple[str, ...]) -> None:
    checks = {name: f"expectations/{name}.yaml" for name in reversed(declared)}
    text = one(BETWEEN, "{column: x, min_value: 0}")
    found = write_deployment(tmp_path / "tiny", files=dict.fromkeys(checks.values(), text), checks=checks)
    assert [(name, suite.name, suite.file.name) for name, suite in suites(found).items()] == [
        (name, name, f"{name}.yaml") for name in declared
    ]


def test_golden_suite() -> None:
    suite = load_suite(GOLDEN, name="output")
    assert suite.name == "output"
    assert suite.expectations == (
        Expectation(
            BETWEEN, {"column": "score", "min_value": 0, "max_value": 1}, description="Scores are probabilities."
        ),
        Expectation(
            "expect_column_values_to_be_in_set",
            {"column": "carrier", "value_set": ["AA", "UA"], "mostly": 0.999},
            Severity.WARNING,
        ),
        Expectation(
            "expect_column_pair_values_a_to_be_greater_than_b",
            {"column_A": "arrival", "column_B": "departure", "or_equal": True},
        ),
        Expectation("expect_compound_columns_to_be_unique", {"column_list": ["flight_id", "flight_date"]}),
        Expectation(
            "expect_column_max_to_be_between",
            {"column": "departure", "min_value": date(2013, 1, 1), "max_value": "2013-12-31T23:59:59"},
        ),
        Expectation("expect_table_row_count_to_be_between", {"min_value": 100}),
    )
    assert suite.columns == {"score", "carrier", "arrival", "departure", "flight_id", "flight_date"}


@pytest.mark.parametrize(
    ("type_", "kwargs", "columns"),
    [
        ("expect_table_row_count_to_equal", "{value: 3}", frozenset()),
        ("expect_column_to_exist", "{column: a}", {"a"}),
        ("expect_column_to_exist", "{column: a, column_index: 0}", None),
        ("expect_table_columns_to_match_set", "{column_set: [a]}", None),
        ("expect_table_column_count_to_equal", "{value: 3}", None),
        (BETWEEN, "{column: a, min_value: 0, row_condition: b > 1, condition_parser: pandas}", None),
    ],
)
def test_columns_that_a_suite_reads(load: Load, type_: str, kwargs: str, columns: set[str] | None) -> None:
    assert load(one(type_, kwargs)).columns == columns


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"suite\.yaml is not an expectation suite: expected a key 'expectations', got NoneType"),
        ("expectations: {", r"suite\.yaml is not YAML: got ParserError: while parsing a flow"),
        ("expectation: []", r"unknown key 'expectation': .* Did you mean 'expectations'\?"),
        ("expectations: []", r"'expectations' is not valid: expected a list of expectations, got \[\]"),
        ("expectations: {a: 1}", r"expected a list of expectations, got \{'a': 1\}"),
        ("expectations: [score]", r"suite\.yaml:1: not an expectation: .* got 'score'"),
        ("expectations: [{kwargs: {}}]", r"suite\.yaml:1: 'type' is missing"),
        (
            one(BETWEEN, "{column: a, min_value: 0}", "serverity: warning"),
            r"suite\.yaml:2: .*Did you mean 'severity'\?",
        ),
        (
            one(BETWEEN, "{column: a, min_value: 0}", "severity: blocker"),
            r"'severity' of expect_\w+ is not valid: expected one of critical, warning, got 'blocker'",
        ),
        (one(BETWEEN, "{column: a, min_value: 0}", "severity: critcal"), r"Did you mean 'critical'\?"),
        (one(BETWEEN, "{column: a, min_value: 0}", "description: [1]"), r"'description' of .* expected a text"),
        (one(BETWEEN, "[column]"), r"'kwargs' of .* expected a mapping of arguments"),
        (one("expect_column_values_to_be_betwen", "{}"), rf"unknown expectation type .* Did you mean '{BETWEEN}'\?"),
        (one("be_between", "{}"), rf"unknown expectation type 'be_between': .* Did you mean '{BETWEEN}'\?"),
        (one("ExpectColumnValuesToBeBetween", "{}"), rf"Did you mean '{BETWEEN}'\?"),
        (one("[a]", "{}"), r"unknown expectation type \['a'\]: expected one of the \d\d types of Great Expectations"),
        (
            one("expect_column_values_to_match_like_pattern", "{column: a, like_pattern: a%}"),
            r"cannot be used: expected a type that Great Expectations supports on tables in memory",
        ),
        (one(BETWEEN, "{colum: a, min_value: 0}"), rf"unknown argument of {BETWEEN} 'colum': .* mean 'column'\?"),
        (one(BETWEEN, "{column: a, min_value: 0, result_format: COMPLETE}"), r"unknown argument .*'result_format'"),
        (one(BETWEEN, "{min_value: 0}"), r"lacks arguments: expected column, got none"),
        (one(BETWEEN, "{column: a}"), r"lacks arguments: expected min_value, max_value or both, got neither"),
        (one(BETWEEN, "{column: a, min_value: 2, max_value: 1}"), r"the range of .* is empty: .* got 2 and 1"),
        (one(BETWEEN, "{column: a, min_value: low}"), r"expected a number or a date, got 'low'"),
        (one(BETWEEN, "{column: a, min_value: true}"), r"expected a number or a date, got True"),
        (
            one(BETWEEN, "{column: a, min_value: 0, mostly: 95}"),
            r"'mostly' of .* expected a number from 0 to 1, got 95",
        ),
        (
            one(BETWEEN, "{column: a, min_value: 0, row_condition: b > 1, condition_parser: spark}"),
            r"'condition_parser' of .* expected pandas, got 'spark'",
        ),
        (one(BETWEEN, "{column: 3, min_value: 0}"), r"'column' of .* expected a text, got 3"),
        (one("expect_column_values_to_be_in_set", "{column: a, value_set: b}"), r"expected a list, got 'b'"),
        (one("expect_compound_columns_to_be_unique", "{column_list: [1]}"), r"expected column names, got \[1\]"),
        (one("expect_table_row_count_to_equal", "{value: 1.5}"), r"expected a whole number, got 1\.5"),
        (one("expect_column_values_to_match_regex", "{column: a, regex: '('}"), r"'\(' of .* not a regular expression"),
        (
            one("expect_column_values_to_match_regex_list", "{column: a, regex_list: [a], match_on: some}"),
            r"'match_on' of .* expected one of any, all, got 'some'",
        ),
    ],
)
def test_everything_wrong_has_a_sentence(load: Load, text: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        load(text)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"absent\.yaml cannot be read: expected a suite file, got .*No such file"
    ):
        load_suite(tmp_path / "absent.yaml", name="input")


def test_the_line_is_that_of_the_expectation(load: Load) -> None:
    with pytest.raises(ConfigurationError, match=r"suite\.yaml:5: unknown argument"):
        load(one(BETWEEN, "{column: a, min_value: 0}") + f"  - {{type: {BETWEEN}, kwargs: {{x: 1}}}}\n")


@pytest.mark.parametrize("name", catalogue.names())
def test_every_type_of_the_catalogue_says_what_it_takes(name: str) -> None:
    type_ = catalogue.expectation_type(name)
    assert type_.required <= set(type_.arguments)
    for argument in type_.arguments.values():
        assert argument.expected or not argument.kinds


def test_loading_a_suite_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pathlib import Path; from scoring.checks.suite import load_suite\n"
        f"load_suite(Path({str(GOLDEN)!r}), name='output')\n"
        "print(*{'great_expectations', 'pandas', 'pyarrow', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def test_suites_are_values() -> None:
    assert load_suite(GOLDEN, name="a") == Suite("a", GOLDEN, load_suite(GOLDEN, name="b").expectations)
