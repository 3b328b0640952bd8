"""A suite file becomes a frozen `Suite`; everything that can be wrong in it is said here, before any data is read.

    expectations:
      - type: expect_column_values_to_be_between      # Great Expectations' own names and arguments
        kwargs: {column: score, min_value: 0, max_value: 1}
        severity: critical                            # or warning; critical is the default
        description: Scores are probabilities.        # optional

A table is checked in memory, so types that need a database are errors too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import yaml

from scoring.checks import catalogue
from scoring.checks.report import Severity
from scoring.deployment import Deployment
from scoring.errors import ConfigurationError, cause, examples, listed

SUITE_KEYS: Final = ("expectations",)
ENTRY_KEYS: Final = ("type", "kwargs", "severity", "description")
_COLUMN_KEYS: Final = ("column", "column_A", "column_B")
_COLUMNS_KEYS: Final = ("column_list", "column_set")


@dataclass(frozen=True, slots=True)
class Expectation:
    """One expectation of a suite."""

    type: str
    kwargs: Mapping[str, Any]
    severity: Severity = Severity.CRITICAL
    description: str = ""

    @property
    def named_columns(self) -> tuple[str, ...]:
        """The columns that the arguments name."""
        single = [self.kwargs[key] for key in _COLUMN_KEYS if self.kwargs.get(key) is not None]
        several = [name for key in _COLUMNS_KEYS for name in self.kwargs.get(key) or ()]
        return tuple(dict.fromkeys([*single, *several]))

    @property
    def is_about_columns(self) -> bool:
        """Whether the expectation judges which columns the table has: an absent one is its subject, not an obstacle."""
        return self.type == "expect_column_to_exist" or self.type.startswith("expect_table_column")

    @property
    def needs_all_columns(self) -> bool:
        """Whether the arguments alone do not say which columns are read."""
        about_table = self.is_about_columns and (self.type != "expect_column_to_exist" or "column_index" in self.kwargs)
        return about_table or bool(self.kwargs.get("row_condition"))


@dataclass(frozen=True, slots=True)
class Suite:
    """A named set of expectations."""

    name: str
    file: Path
    expectations: tuple[Expectation, ...]

    @property
    def columns(self) -> frozenset[str] | None:
        """The columns that the suite reads; None: all, since an expectation is about the table's columns.

        A row condition may name any column, so it also asks for all.
        """
        if any(expectation.needs_all_columns for expectation in self.expectations):
            return None
        return frozenset(name for expectation in self.expectations for name in expectation.named_columns)


def suites(deployment: Deployment) -> dict[str, Suite]:
    """Return the suites that a deployment has, of `input` and `output`, in this order.

    Raises:
        ConfigurationError: a suite is not valid.
    """
    named = {"input": deployment.checks.input, "output": deployment.checks.output}
    return {name: load_suite(deployment.folder / path, name=name) for name, path in named.items() if path is not None}


def load_suite(path: Path, *, name: str) -> Suite:
    """Return the suite in a YAML file. Does not import Great Expectations.

    Raises:
        ConfigurationError: no such file, not YAML, an unknown key, type or argument, or a value of a wrong kind.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read", "a suite file", str(error)) from error
    try:
        root, raw = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigurationError(f"{path} is not YAML", got=cause(error)) from error
    if not isinstance(raw, dict):
        raise ConfigurationError(f"{path} is not an expectation suite", "a key 'expectations'", type(raw).__name__)
    _known(raw, SUITE_KEYS, what=f"{path}: unknown key")
    entries = raw.get("expectations")
    if not isinstance(entries, list) or not entries:
        raise ConfigurationError(f"{path}: 'expectations' is not valid", "a list of expectations", _shown(entries))
    lines = _lines(root)
    return Suite(
        name=name,
        file=path,
        expectations=tuple(_expectation(entry, f"{path}:{line}") for entry, line in zip(entries, lines, strict=True)),
    )


def _lines(root: yaml.Node | None) -> list[int]:
    """Return the line of each entry of the list `expectations`."""
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    lists = [value for key, value in pairs if key.value == "expectations"]
    return [entry.start_mark.line + 1 for entry in lists[-1].value]


def _expectation(entry: Any, place: str) -> Expectation:
    if not isinstance(entry, dict):
        raise ConfigurationError(f"{place}: not an expectation", "a mapping with the key 'type'", _shown(entry))
    _known(entry, ENTRY_KEYS, what=f"{place}: unknown key")
    name = _type(entry.get("type"), place)
    kwargs = entry.get("kwargs") or {}
    if not isinstance(kwargs, dict):
        raise ConfigurationError(f"{place}: 'kwargs' of {name} is not valid", "a mapping of arguments", _shown(kwargs))
    _check_kwargs(catalogue.expectation_type(name), kwargs, place)
    severity, description = entry.get("severity", Severity.CRITICAL), entry.get("description") or ""
    if severity not in list(Severity):
        raise ConfigurationError(
            f"{place}: 'severity' of {name} is not valid",
            f"one of {listed(Severity)}",
            _shown(severity),
            _guess(severity, list(Severity)),
        )
    if not isinstance(description, str):
        raise ConfigurationError(f"{place}: 'description' of {name} is not valid", "a text", _shown(description))
    return Expectation(name, kwargs, Severity(severity), " ".join(description.split()))


def _type(name: Any, place: str) -> str:
    if name in catalogue.names():
        return str(name)
    if name is None:
        raise ConfigurationError(f"{place}: 'type' is missing", "the name of an expectation type", "none", "Add it.")
    if name in catalogue.unsupported_names():
        raise ConfigurationError(
            f"{place}: expectation type {name!r} cannot be used",
            "a type that Great Expectations supports on tables in memory",
            "one that it does not",
        )
    known = catalogue.names()
    raise ConfigurationError(
        f"{place}: unknown expectation type {_shown(name)}",
        f"one of the {len(known)} types of Great Expectations",
        "none of them",
        # Also finds class names (ExpectColumnValuesToBeUnique) and names without the prefix.
        _guess(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(name)).lower(), known)
        or _guess(f"expect_column_values_to_{name}", known),
    )


def _check_kwargs(type_: catalogue.ExpectationType, kwargs: dict[Any, Any], place: str) -> None:
    _known(kwargs, tuple(type_.arguments), what=f"{place}: unknown argument of {type_.name}")
    missing = sorted(type_.required - {key for key, value in kwargs.items() if value is not None})
    if missing:
        raise ConfigurationError(f"{place}: {type_.name} lacks arguments", listed(missing), "none", "Add to 'kwargs'.")
    for key, value in kwargs.items():
        argument = type_.arguments[key]
        if value is not None and not argument.allows(value):
            raise ConfigurationError(f"{place}: {key!r} of {type_.name} is not valid", argument.expected, _shown(value))
    for key in _COLUMNS_KEYS:
        if not all(isinstance(column, str) for column in kwargs.get(key) or ()):
            raise ConfigurationError(
                f"{place}: {key!r} of {type_.name} is not valid", "column names", _shown(kwargs[key])
            )
    if kwargs.get("condition_parser") not in (None, "pandas"):
        raise ConfigurationError(
            f"{place}: 'condition_parser' of {type_.name} is not valid", "pandas", _shown(kwargs["condition_parser"])
        )
    _check_range(type_, kwargs, place)
    _check_patterns(type_, kwargs, place)


def _check_range(type_: catalogue.ExpectationType, kwargs: Mapping[str, Any], place: str) -> None:
    if not {"min_value", "max_value"} <= set(type_.arguments):
        return
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is None and high is None and type_.name.endswith("_to_be_between"):
        raise ConfigurationError(f"{place}: {type_.name} lacks arguments", "min_value, max_value or both", "neither")
    if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
        raise ConfigurationError(
            f"{place}: the range of {type_.name} is empty", "min_value <= max_value", f"{low} and {high}"
        )


def _check_patterns(type_: catalogue.ExpectationType, kwargs: Mapping[str, Any], place: str) -> None:
    for pattern in filter(None, [kwargs.get("regex"), *(kwargs.get("regex_list") or ())]):
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ConfigurationError(
                f"{place}: {_shown(pattern)} of {type_.name} is not a regular expression", got=str(error)
            ) from error


def _known(mapping: Mapping[Any, Any], valid: tuple[str, ...], *, what: str) -> None:
    for key in mapping:
        if key not in valid:
            raise ConfigurationError(
                f"{what} {key!r}", f"one of {listed(valid)}", repr(key), _guess(key, valid) or "Remove it."
            )


def _guess(word: object, known: Iterable[str]) -> str:
    close = get_close_matches(str(word), [str(name) for name in known], n=1)
    return f"Did you mean {close[0]!r}?" if close else ""


def _shown(value: object) -> str:
    return "nothing" if value is None else examples([value])
