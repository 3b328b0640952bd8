"""Great Expectations runs a suite on an Arrow table; its results become a `QualityReport`.

The only module that imports great_expectations (which takes seconds). The context is ephemeral: nothing is read from or
written to the working folder, and nothing is sent anywhere.

What counts: nulls are no values, and NaN is a null. Where there is no value at all, as in an empty table, an
expectation about single values passes, since none breaks it; one about a mean, median, minimum, maximum, standard
deviation or quantile fails, since there is none to compare. Sums, counts and shares of nothing are 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from string import Template
from typing import TYPE_CHECKING, Any, Final

# This module owns Great Expectations, so it alone imports it at its top.
import great_expectations  # noqa: TID253
from great_expectations.compatibility.pydantic import ValidationError  # noqa: TID253
from great_expectations.core.expectation_suite import ExpectationSuite  # noqa: TID253
from great_expectations.data_context.types.base import ProgressBarsConfig  # noqa: TID253
from great_expectations.expectations.registry import get_expectation_impl  # noqa: TID253
from great_expectations.expectations.row_conditions import PassThroughCondition  # noqa: TID253
from great_expectations.render.renderer.inline_renderer import InlineRenderer  # noqa: TID253

from scoring.checks import wording
from scoring.checks.frame import is_text, typed_kwargs, types_frame, values_frame
from scoring.checks.report import ExpectationResult, QualityReport
from scoring.errors import ConfigurationError, listed

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.expectations.expectation import Expectation as GxExpectation

    from scoring.checks.suite import Expectation, Suite

_POSITION: Final = "position"
_ABOUT_TYPES: Final = frozenset({"expect_column_values_to_be_of_type", "expect_column_type_to_be"})
_ARITHMETIC: Final = frozenset(
    {
        "expect_column_mean_to_be_between",
        "expect_column_median_to_be_between",
        "expect_column_stdev_to_be_between",
        "expect_column_sum_to_be_between",
        "expect_column_value_z_scores_to_be_less_than",
        "expect_column_values_to_not_be_outliers",
        "expect_multicolumn_sum_to_equal",
    }
)
_CONDITION: Final = re.compile(r"PassThrough\((['\"])(.*?)\1\)")
"""How Great Expectations words a row condition that is given as a text."""
_UNEXPECTED_VALUES: Final = 100
"""How many unexpected values are looked through for different ones to show."""
_RESULT_FORMAT: Final = {"result_format": "BASIC", "partial_unexpected_count": _UNEXPECTED_VALUES}


def run_suite(suite: Suite, table: pa.Table) -> QualityReport:
    """Return what the suite finds in `table`, which holds the columns of the suite as far as they exist.

    An expectation that cannot be checked, since a column is absent or Great Expectations raises, is a failed result.

    Raises:
        ConfigurationError: Great Expectations does not accept an argument of an expectation.
    """
    built = {position: _built(suite, position, table.schema) for position in range(len(suite.expectations))}
    results: dict[int, ExpectationResult] = {}
    about_types: list[int] = []
    about_values: list[int] = []
    for position, expectation in enumerate(suite.expectations):
        reason = _obstacle(expectation, table.schema)
        if reason:
            results[position] = _unchecked(expectation, _expected(expectation, built[position]), reason)
        else:
            (about_types if expectation.type in _ABOUT_TYPES else about_values).append(position)
    for positions, frame in ((about_values, values_frame), (about_types, types_frame)):
        if positions:
            read = _read_by([suite.expectations[position] for position in positions], table)
            found = _validate([built[position] for position in positions], frame(read))
            for position in positions:
                expectation = suite.expectations[position]
                results[position] = _result(expectation, _expected(expectation, built[position]), found[position])
    return QualityReport(suite.name, table.num_rows, tuple(results[position] for position in sorted(results)))


def _built(suite: Suite, position: int, schema: pa.Schema) -> GxExpectation:
    expectation = suite.expectations[position]
    column = expectation.kwargs.get("column")
    type_ = schema.field(column).type if column in schema.names else None
    kwargs = typed_kwargs(expectation.kwargs, type_)
    if isinstance(kwargs.get("row_condition"), str):
        kwargs.pop("condition_parser", None)
        kwargs["row_condition"] = PassThroughCondition(pass_through_filter=kwargs["row_condition"])
    try:
        return get_expectation_impl(expectation.type)(**kwargs, meta={_POSITION: position})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(
            f"{suite.file}: expectation {position + 1}, {expectation.type}, is not valid",
            "arguments that Great Expectations accepts",
            f"{' '.join(str(part) for part in first['loc'] if part != '__root__')} {first['msg']}".strip(),
        ) from error


def _obstacle(expectation: Expectation, schema: pa.Schema) -> str:
    """Return why the columns do not allow the check; empty if they do."""
    if expectation.is_about_columns:
        return ""
    absent = [name for name in expectation.named_columns if name not in schema.names]
    if absent:
        close = get_close_matches(absent[0], schema.names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return f"the table has no column {listed(map(repr, absent))}.{hint}"
    texts = [name for name in expectation.named_columns if is_text(schema.field(name).type)]
    if texts and expectation.type in _ARITHMETIC:
        # pandas joins texts to sum them, and then takes "1" + "2" for 12.
        return f"column {listed(map(repr, texts))} holds text, not numbers"
    return ""


def _read_by(expectations: list[Expectation], table: pa.Table) -> pa.Table:
    if any(expectation.needs_all_columns for expectation in expectations):
        return table
    named = {name for expectation in expectations for name in expectation.named_columns}
    return table.select([name for name in table.column_names if name in named])


def _validate(expectations: list[GxExpectation], frame: pd.DataFrame) -> dict[int, ExpectationValidationResult]:
    """Return Great Expectations' results by position in our suite; their own order is another one."""
    context = great_expectations.get_context(mode="ephemeral")
    context.enable_analytics(enable=False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    definition = context.data_sources.add_pandas("memory").add_dataframe_asset("table")
    gx_batch = definition.add_batch_definition_whole_dataframe("all rows").get_batch({"dataframe": frame})
    validation = gx_batch.validate(ExpectationSuite("suite", expectations=expectations), result_format=_RESULT_FORMAT)
    return {result.expectation_config.meta[_POSITION]: result for result in validation.results}


def _result(expectation: Expectation, expected: str, found: ExpectationValidationResult) -> ExpectationResult:
    reason = _raised(found.exception_info)
    if reason:
        return _unchecked(expectation, expected, reason)
    result = found.result
    count = result.get("unexpected_count")
    return ExpectationResult(
        expectation=expectation.type,
        column=_column(expectation),
        severity=expectation.severity,
        passed=bool(found.success),
        expected=expected,
        observed=wording.observed_text(expectation.type, result) or ("found" if found.success else "not found"),
        unexpected_count=None if count is None else int(count),
        unexpected_share=wording.unexpected_share(result),
        examples=wording.example_texts(result.get("partial_unexpected_list") or ()),
    )


def _unchecked(expectation: Expectation, expected: str, reason: str) -> ExpectationResult:
    return ExpectationResult(
        expectation=expectation.type,
        column=_column(expectation),
        severity=expectation.severity,
        passed=False,
        expected=expected,
        observed=wording.cut(f"could not be checked: {reason}"),
    )


def _column(expectation: Expectation) -> str | None:
    return None if expectation.type.startswith("expect_table") else ", ".join(expectation.named_columns) or None


def _raised(info: Mapping[str, Any]) -> str:
    """Return the messages of the exceptions behind a result; empty if there were none.

    Great Expectations gives either one exception or one per metric, and the flag as boolean or as text.
    """
    entries = [info] if "raised_exception" in info else [entry for entry in info.values() if isinstance(entry, Mapping)]
    messages = [
        str(entry.get("exception_message")).removeprefix("Error: ")
        for entry in entries
        if str(entry.get("raised_exception")) == "True"
    ]
    return "; ".join(dict.fromkeys(messages))


def _expected(expectation: Expectation, built: GxExpectation) -> str:
    """Return the expectation in words: those of Great Expectations, after the description of the suite's author."""
    content = InlineRenderer(render_object=built.configuration).get_rendered_content()
    texts = [entry.value for entry in content if getattr(entry.value, "template", None)]
    if texts:
        params = {name: _param_text(param) for name, param in (texts[0].params or {}).items()}
        rendered = _CONDITION.sub(r"\2", Template(texts[0].template).safe_substitute(params))
    else:
        words = expectation.type.removeprefix("expect_").replace("_", " ")
        rendered = f"{words}: {wording.value_text(expectation.kwargs, limit=wording.MAX_SENTENCE_CHARS)[1:-1]}"
    description = expectation.description.rstrip(".")
    rendered = rendered.rstrip(".")  # others put it into their sentences
    return wording.cut(f"{description} ({rendered})" if description else rendered)


def _param_text(param: Any) -> str:
    value = param.get("value") if isinstance(param, Mapping) else getattr(param, "value", param)
    return value if isinstance(value, str) else wording.value_text(value)
