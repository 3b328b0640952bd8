"""The expectation types that Great Expectations offers on tables in memory, and the arguments that each takes.

They are read from the JSON schemas within the installed package, without importing it (which takes seconds), so that
`scoring validate` stays fast and knows exactly the types of the installed version.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from scoring.errors import ConfigurationError

PACKAGE: Final = "great_expectations"
_ENGINE: Final = "Pandas"
_NOT_ARGUMENTS: Final = frozenset(
    {
        *("id", "meta", "metadata", "library_metadata", "notes", "description", "severity", "rendered_content"),
        *("result_format", "catch_exceptions", "windows", "batch_id"),
    }
)
"""Properties of every schema that belong to Great Expectations' own bookkeeping or to keys of our suite file."""
_WORDS: Final = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "a text",
    "date": "a date",
    "array": "a list",
    "object": "a mapping",
}


@dataclass(frozen=True, slots=True)
class Argument:
    """What one argument of an expectation may be."""

    kinds: tuple[str, ...]
    """Keys of `_WORDS`; empty: anything."""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None

    @property
    def expected(self) -> str:
        """The allowed values in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        words = " or ".join(_WORDS[kind] for kind in self.kinds)
        if self.minimum is None and self.maximum is None:
            return words
        if self.maximum is None:
            return f"{words} of at least {self.minimum:g}"
        return f"{words} from {self.minimum or 0:g} to {self.maximum:g}"

    def allows(self, value: Any) -> bool:
        """Whether `value`, as YAML gives it, may be given."""
        if self.choices:
            return value in self.choices
        if not self.kinds:
            return True
        if isinstance(value, int | float) and not isinstance(value, bool):
            low = self.minimum if self.minimum is not None else value
            high = self.maximum if self.maximum is not None else value
            whole = isinstance(value, int) and "integer" in self.kinds
            return (whole or "number" in self.kinds) and low <= value <= high
        return _kind(value, dates="date" in self.kinds) in self.kinds


@dataclass(frozen=True, slots=True)
class ExpectationType:
    """One expectation type: its name and arguments."""

    name: str
    arguments: Mapping[str, Argument]
    required: frozenset[str]


@cache
def names() -> tuple[str, ...]:
    """Return the names of all expectation types that work on tables in memory, sorted.

    Raises:
        ConfigurationError: Great Expectations is not installed, or not in a version that ships its schemas.
    """
    return tuple(sorted(name for name, entry in _index().items() if _ENGINE in entry["supported_data_sources"]))


@cache
def unsupported_names() -> tuple[str, ...]:
    """Return the names of expectation types that need a database, sorted."""
    return tuple(sorted(set(_index()) - set(names())))


@cache
def expectation_type(name: str) -> ExpectationType:
    """Return the type called `name`, one of `names()`."""
    schema = json.loads((_schemas() / _index()[name]["schema_file"]).read_text("utf-8"))
    properties = {key: value for key, value in schema["properties"].items() if key not in _NOT_ARGUMENTS}
    return ExpectationType(
        name=name,
        arguments={key: _argument(value) for key, value in properties.items()},
        required=frozenset(schema.get("required", ())) & frozenset(properties),
    )


def _schemas() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "expectation suites cannot be read", "the package great-expectations", "none", "Install it."
        )
    return Path(spec.origin).parent / "expectations" / "core" / "schemas"


@cache
def _index() -> dict[str, Any]:
    file = _schemas() / "index.json"
    if not file.is_file():
        raise ConfigurationError(
            "expectation suites cannot be read",
            "a release of great-expectations that ships the schemas of its expectations",
            f"one without {file}",
            "Install great-expectations >= 1.24.",
        )
    expectations: dict[str, Any] = json.loads(file.read_text("utf-8"))["expectations"]
    return expectations


def _argument(schema: Mapping[str, Any]) -> Argument:
    branches = list(_branches(schema))
    choices = next((tuple(branch["enum"]) for branch in branches if "enum" in branch), ())
    kinds = [_schema_kind(branch) for branch in branches]
    return Argument(
        kinds=() if "" in kinds else tuple(dict.fromkeys(kinds)),
        choices=choices,
        minimum=next((branch["minimum"] for branch in branches if "minimum" in branch), None),
        maximum=next((branch["maximum"] for branch in branches if "maximum" in branch), None),
    )


def _branches(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    nested = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if not nested:
        yield schema
        return
    # A bare object among others is a suite parameter ({"$PARAMETER": ...}), which suite files do not have.
    for branch in nested:
        if branch != {"type": "object"}:
            yield from _branches(branch)


def _schema_kind(branch: Mapping[str, Any]) -> str:
    if "$ref" in branch:
        return "object"
    return "date" if "format" in branch else str(branch.get("type", ""))


def _kind(value: Any, *, dates: bool) -> str:
    match value:
        case bool():
            return "boolean"
        case str() if dates:
            return "date" if _is_iso(value) else "string"
        case str():
            return "string"
        case date():
            return "date"
        case list():
            return "array"
        case dict():
            return "object"
        case _:
            return type(value).__name__


def _is_iso(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
