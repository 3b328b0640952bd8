"""The input contract: columns with types. Whole columns that break it stop the run; single rows go to quarantine."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from scoring.data.partition import Partition
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

    def check_files(self, partition: Partition) -> None:
        """Compare the columns of every file with the contract.

        Raises:
            ContractError: a column is missing, extra, renamed or of a type that does not convert.
        """
        for file in partition.files:
            self._check_names(file.path, file.schema)
            for column in self.columns:
                actual = file.schema.field(column.name).type
                if not _converts(actual, column.type, parse_text=self.parse_text):
                    hint = (
                        "Set 'input.parse_text: true' to read it as text and quarantine what does not parse."
                        if _is_text(actual)
                        else "Ask the upstream team, or change 'input.columns' and retrain the models."
                    )
                    raise ContractError(
                        f"column {column.name!r} of file {file.path} has another type",
                        str(column.type),
                        str(actual),
                        hint,
                    )

    def _check_names(self, path: str, schema: pa.Schema) -> None:
        wanted = [column.name for column in self.columns]
        missing = [name for name in wanted if name not in schema.names]
        extra = [name for name in schema.names if name not in wanted]
        if missing:
            same = [name for name in extra if name.lower() == missing[0].lower()]
            close = same or get_close_matches(missing[0], extra, n=1)
            raise ContractError(
                f"file {path} lacks columns of the input contract",
                f"columns {listed(missing)}",
                f"columns {listed(schema.names)}",
                f"Was {missing[0]!r} renamed to {close[0]!r}?" if close else "Ask the upstream team.",
            )
        if extra and self.is_closed:
            raise ContractError(
                f"file {path} has columns that the input contract does not name",
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
            values = table.column(column.name).combine_chunks()
            array, wrong = _convert(values, column.type)
            converted[column.name] = array
            if wrong is not None:
                for row in np.flatnonzero(wrong):
                    reasons.setdefault(int(row), f"{column.name}: {values[row].as_py()!r} is not {column.type}")
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


def contract_of(source: Input, partition: Partition, models: Iterable[FrozenModel]) -> Contract:
    """Return the contract that a deployment declares, or else the one that follows from keys and signatures.

    Raises:
        ContractError: signatures ask for types of one column of which none holds the others.
    """
    if source.columns is not None:
        declared = tuple(
            ContractColumn(name, _TYPES[column.type], column.nullable) for name, column in source.columns.items()
        )
        return Contract(declared, is_closed=source.extra_columns == "fail", parse_text=source.parse_text)
    schema = partition.files[0].schema
    columns = {
        field.name: ContractColumn(field.name, _plain(field.type), field.name not in source.keys) for field in schema
    }
    for key in source.keys:
        columns.setdefault(key, ContractColumn(key, pa.string(), nullable=False))
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
    return pa.string() if _is_text(value) else value


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _converts(actual: pa.DataType, wanted: pa.DataType, *, parse_text: bool) -> bool:
    """Return whether values of a type may be of another; each value is still looked at."""
    if actual == wanted or pa.types.is_null(actual):
        return True
    if _is_text(actual):
        return _is_text(wanted) or parse_text
    value = actual.value_type if pa.types.is_dictionary(actual) else actual
    return (_is_number(value) and _is_number(wanted)) or (pa.types.is_temporal(value) and pa.types.is_temporal(wanted))


def _convert(values: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, npt.NDArray[np.bool_] | None]:
    """Return the values in the wanted type, null where one does not convert without loss, and a mask of these."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if values.type == wanted:
        return values, None
    if pa.types.is_floating(values.type) and pa.types.is_integer(wanted):
        # NaN is how pandas writes a missing integer.
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    try:
        return _cast(values, wanted), None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        # A value does not convert: look at each distinct one. Only batches with such values pay for it.
        encoded = values.dictionary_encode()
        distinct = [_cast_one(encoded.dictionary.slice(at, 1), wanted) for at in range(len(encoded.dictionary))]
        choices = pa.concat_arrays([pa.array([None], wanted) if d is None else d for d in distinct])
        array = choices.take(encoded.indices)
        lossy = np.array([found is None for found in distinct], dtype=bool)
        wrong = lossy[encoded.indices.fill_null(0).to_numpy()] & values.is_valid().to_numpy(zero_copy_only=False)
        return array, wrong


def _cast_one(value: pa.Array, wanted: pa.DataType) -> pa.Array | None:
    try:
        return _cast(value, wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _cast(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    if _is_text(values.type) and not _is_text(wanted):
        values = pc.utf8_trim_whitespace(values.cast(pa.string()))
    if pa.types.is_timestamp(values.type) and values.type.tz is not None:
        values = values.cast(pa.timestamp(values.type.unit, "UTC")).cast(pa.timestamp(values.type.unit))
    result = values.cast(wanted)
    # Two losses that Arrow does not mind.
    if pa.types.is_float32(wanted) and pa.types.is_float64(values.type) and _infinities(result) != _infinities(values):
        raise pa.ArrowInvalid("a value is too large for float32")
    if (
        pa.types.is_date32(wanted)
        and pa.types.is_timestamp(values.type)
        and not result.cast(values.type).equals(values)
    ):
        raise pa.ArrowInvalid("a value has a time of day")
    return result


def _infinities(values: pa.Array) -> int:
    return pc.sum(pc.is_inf(values)).as_py() or 0


def _is_missing(values: pa.Array) -> npt.NDArray[np.bool_] | None:
    """Return a mask of nulls and NaN; None if there is none."""
    may_hold_nan = pa.types.is_floating(values.type)
    if values.null_count == 0 and not may_hold_nan:
        return None
    mask: npt.NDArray[np.bool_] = pc.is_null(values, nan_is_null=may_hold_nan).to_numpy(zero_copy_only=False)
    return mask.copy() if mask.any() else None
