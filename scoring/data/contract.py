"""The input contract: columns with types. Whole columns that break it stop the run; single rows go to quarantine."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from scoring.conversion import convert, has_nan, is_text
from scoring.data.query import AnyPartition
from scoring.deployment import Input
from scoring.errors import ContractError, listed
from scoring.models.base import FrozenModel, SignatureColumn

_TYPES: Final[dict[str, pa.DataType]] = {
    "bool": pa.bool_(),
    **{
        name: getattr(pa, name)() for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "date32": pa.date32(),
    "timestamp": pa.timestamp("us"),
}
_HELD: Final[dict[pa.DataType, tuple[pa.DataType, ...]]] = {
    pa.int64(): (pa.int32(),),
    pa.float64(): (pa.int32(), pa.float32()),
}
"""What each type of a signature holds without loss, besides itself."""


@dataclass(frozen=True, slots=True)
class ContractColumn:
    """One column that every input row must have."""

    name: str
    type: pa.DataType
    nullable: bool


@dataclass(frozen=True, slots=True)
class Contract:
    """What every input row must keep."""

    columns: tuple[ContractColumn, ...]
    is_closed: bool
    """Whether a file may hold no other columns."""
    parse_text: bool

    @property
    def schema(self) -> pa.Schema:
        """The schema of rows that keep the contract."""
        return pa.schema([pa.field(c.name, c.type, c.nullable) for c in self.columns])

    def only(self, names: Iterable[str]) -> Contract:
        """Return the part of the contract that is about some columns."""
        wanted = set(names)
        return replace(self, columns=tuple(c for c in self.columns if c.name in wanted), is_closed=False)

    def to_json(self) -> dict[str, Any]:
        """Return plain data; types as a serialised Arrow schema."""
        return {
            "schema": base64.b64encode(self.schema.serialize().to_pybytes()).decode("ascii"),
            "is_closed": self.is_closed,
            "parse_text": self.parse_text,
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Contract:
        """Return the contract that `to_json` described."""
        schema = pa.ipc.read_schema(pa.BufferReader(base64.b64decode(document["schema"])))
        columns = tuple(ContractColumn(field.name, field.type, field.nullable) for field in schema)
        return Contract(columns, document["is_closed"], document["parse_text"])

    def check_files(self, partition: AnyPartition) -> None:
        """Compare the columns of every file, or of a query, with the contract.

        Raises:
            ContractError: a column is missing, extra, renamed or of a type that does not convert.
        """
        checked: list[pa.Schema] = []
        for name, found in partition.schemas:
            if any(found.equals(schema) for schema in checked):
                continue
            checked.append(found)
            self._check_names(name, found)
            for column in self.columns:
                actual = found.field(column.name).type
                if not _converts(actual, column.type, parse_text=self.parse_text):
                    hint = (
                        "Set 'input.parse_text: true' to read it as text and quarantine what does not parse."
                        if is_text(actual)
                        else "Ask the upstream team, or change 'input.columns' and retrain the models."
                    )
                    raise ContractError(
                        f"column {column.name!r} of {name} has another type",
                        str(column.type),
                        str(actual),
                        hint,
                    )

    def _check_names(self, place: str, schema: pa.Schema) -> None:
        wanted = {column.name: column.type for column in self.columns}
        found = Counter(schema.names)
        missing = [name for name in wanted if name not in found]
        extra = [name for name in found if name not in wanted]
        double = [name for name in wanted if found[name] > 1]
        if missing:
            same = [name for name in extra if name.lower() == missing[0].lower()]
            close = same or get_close_matches(missing[0], extra, n=1)
            raise ContractError(
                f"{place} lacks columns of the input contract",
                f"columns {listed(missing)}",
                f"columns {listed(schema.names)}",
                f"Was {missing[0]!r} renamed to {close[0]!r}?" if close else "Ask the upstream team.",
            )
        if double:
            raise ContractError(
                f"{place} has several columns of one name",
                f"each of {listed(wanted)} once",
                f"several of {listed(double)}",
                "Ask the upstream team.",
            )
        if extra and self.is_closed:
            raise ContractError(
                f"{place} has columns that the input contract does not name",
                f"only {listed(wanted)}",
                f"also {listed(extra)}",
                "Add them to 'input.columns', or set 'input.extra_columns: ignore'.",
            )

    def apply(self, table: pa.Table) -> tuple[pa.Table, dict[int, str]]:
        """Convert rows to the contract's types.

        Args:
            table: any rows of a file that passed `check_files`.

        Returns:
            The rows that keep the contract, in order, with the columns of the contract; and for every other row its
            number within `table` and the first reason.
        """
        reasons: dict[int, str] = {}
        converted = {}
        for column in self.columns:
            values = _whole(table.column(column.name))
            array, wrong = _convert(values, column.type)
            converted[column.name] = array
            if wrong is not None:
                for row in np.flatnonzero(wrong):
                    reasons.setdefault(int(row), f"{column.name}: {_shown(values[row])} is not {column.type}")
            missing = None if column.nullable else _is_missing(array)
            if missing is not None:
                for row in np.flatnonzero(missing):
                    reasons.setdefault(int(row), f"{column.name}: null in a required column")
        result = pa.table(converted, schema=pa.schema([pa.field(c.name, c.type) for c in self.columns]))
        if not reasons:
            return result, reasons
        keep = np.ones(table.num_rows, dtype=bool)
        keep[list(reasons)] = False
        return result.filter(pa.array(keep)), reasons


def declared_contract(source: Input) -> Contract | None:
    """Return the contract that a deployment declares; None if it leaves that to keys and signatures."""
    if source.columns is None:
        return None
    declared = tuple(
        ContractColumn(name, _TYPES[column.type], column.nullable) for name, column in source.columns.items()
    )
    return Contract(declared, is_closed=source.extra_columns == "fail", parse_text=source.parse_text)


def contract_of(source: Input, partition: AnyPartition, models: Iterable[FrozenModel]) -> Contract:
    """Return the contract that a deployment declares, or else the one that follows from keys and signatures.

    Raises:
        ContractError: signatures ask for types of one column of which none holds the others.
    """
    declared = declared_contract(source)
    if declared is not None:
        return declared
    _, schema = partition.schemas[0]
    columns = {
        field.name: ContractColumn(field.name, _plain(field.type), field.name not in source.keys) for field in schema
    }
    for key in source.keys:
        kind = columns.setdefault(key, ContractColumn(key, pa.string(), nullable=False)).type
        if not _tells_apart(kind):
            raise ContractError(
                f"key {key!r} has a type that rows cannot be told apart by",
                "numbers, text, bytes, dates or timestamps",
                str(kind),
                "Name other columns in 'input.keys'.",
            )
    wanted: dict[str, list[tuple[FrozenModel, SignatureColumn]]] = {}
    for model in models:
        for column in model.inputs:
            if column.name in columns and column.name not in source.keys:
                wanted.setdefault(column.name, []).append((model, column))
    columns |= {name: _agreed(name, sides) for name, sides in wanted.items()}
    return Contract(tuple(columns.values()), is_closed=False, parse_text=source.parse_text)


def _agreed(name: str, sides: Sequence[tuple[FrozenModel, SignatureColumn]]) -> ContractColumn:
    """Return what one column must be for every model that reads it: the widest type, null only if all allow it."""
    kinds = {column.arrow_type: model for model, column in sides}
    widest = [kind for kind in kinds if not any(kind in _HELD.get(other, ()) for other in kinds)]
    if len(widest) > 1:
        first, second = (f"{kind} (model {kinds[kind].label})" for kind in widest[:2])
        raise ContractError(
            f"models ask for types of column {name!r} that do not fit each other",
            "one type that holds the others without loss",
            f"{first} and {second}",
            "Declare its type in 'input.columns', or train the models with one.",
        )
    return ContractColumn(name, widest[0], all(not column.required for _, column in sides))


def _plain(kind: pa.DataType) -> pa.DataType:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_binary_view(value):
        return pa.binary()  # Arrow cannot filter views of bytes
    return pa.string() if is_text(value) else value


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _tells_apart(kind: pa.DataType) -> bool:
    """Return whether all that meets keys can compare them: DuckDB in accounting and rules, sampling, Delta."""
    is_odd = pa.types.is_float16(kind) or pa.types.is_decimal256(kind)
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    is_plain = _is_number(kind) or is_text(kind) or is_bytes or pa.types.is_boolean(kind) or _is_day_or_time(kind)
    return is_plain and not is_odd


def _is_day_or_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))


def _converts(actual: pa.DataType, wanted: pa.DataType, *, parse_text: bool) -> bool:
    """Return whether values of a type may be of another; each value is still looked at."""
    if wanted in (actual, _plain(actual)) or pa.types.is_null(actual):
        return True
    if is_text(actual):
        return is_text(wanted) or parse_text
    value = actual.value_type if pa.types.is_dictionary(actual) else actual
    is_number = _is_number(value) and _is_number(wanted) and not pa.types.is_float16(wanted)
    return is_number or (_is_day_or_time(value) and _is_day_or_time(wanted))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array; a copy only if it is in pieces."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _shown(value: pa.Scalar) -> str:
    try:
        return repr(value.as_py())
    except (OverflowError, ValueError):  # a day that Python's calendar does not have
        return f"{value.value} of {value.type}"


def _convert(values: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, npt.NDArray[np.bool_] | None]:
    """Return the values in the wanted type, null where one does not convert without loss, and a mask of these."""
    try:
        return convert(values, wanted), None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        # A value does not convert: look for it among the distinct ones. Only batches with such values pay for it.
        values = _encodable(values)
        encoded = values.dictionary_encode()
        choices = pa.concat_arrays(_convertible(encoded.dictionary, wanted))
        array = choices.take(encoded.indices)
        is_wrong = pc.and_(array.is_null(), values.is_valid())
        if pa.types.is_floating(values.type) and pa.types.is_integer(wanted):
            is_wrong = pc.and_not(is_wrong, pc.is_nan(values).fill_null(fill_value=False))
        return array, is_wrong.to_numpy(zero_copy_only=False)


def _encodable(values: pa.Array) -> pa.Array:
    """Return equal values of a type that Arrow can look for distinct ones of."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return values.dictionary_decode()  # its dictionary may hold nulls
    if pa.types.is_float16(kind):
        return values.cast(pa.float32())
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return values.cast(pa.decimal128(kind.precision, kind.scale))
    return values


def _convertible(values: pa.Array, wanted: pa.DataType) -> list[pa.Array]:
    """Return the values in the wanted type, in pieces; those that do not convert are null. Halves what fails."""
    try:
        return [convert(values, wanted)]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if len(values) == 1:
            return [pa.nulls(1, wanted)]
        middle = len(values) // 2
        return [*_convertible(values.slice(0, middle), wanted), *_convertible(values.slice(middle), wanted)]


def _is_missing(values: pa.Array) -> npt.NDArray[np.bool_] | None:
    """Return a mask of nulls and NaN; None if there is none."""
    may_hold_nan = pa.types.is_floating(values.type)
    if values.null_count == 0 and not (may_hold_nan and has_nan(values.to_numpy())):
        return None
    mask: npt.NDArray[np.bool_] = pc.is_null(values, nan_is_null=may_hold_nan).to_numpy(zero_copy_only=False)
    return mask
